package cniapi

import (
	"os"
	"path"
)

// A node that was ready stays ready: a runtime takes a failing STATUS for a node
// without network, and its pods are sent elsewhere, though an agent that is away, or
// without addresses for a while, harms none of them. So the agent leaves a mark when
// it first serves, and STATUS fails only where there is none of this boot.

// readyFile is the mark, beside the socket. It holds the boot's ID, as not every /run
// is empty after one.
const readyFile = "ready"

// bootID is another text after each boot (proc(5)).
const bootID = "/proc/sys/kernel/random/boot_id"

// ReadyPath is where the mark is of the agent that listens at socket.
func ReadyPath(socket string) string { return path.Join(path.Dir(socket), readyFile) }

// MarkReady says that the agent of this socket has served in this boot.
func MarkReady(socket string) error {
	boot, err := os.ReadFile(bootID)
	if err != nil {
		return err
	}
	file := ReadyPath(socket)
	if err := os.WriteFile(file+".new", boot, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// WasReady reports whether it has. A mark that cannot be read is none.
func WasReady(socket string) bool {
	boot, err := os.ReadFile(bootID)
	if err != nil {
		return false
	}
	mark, err := os.ReadFile(ReadyPath(socket))
	return err == nil && string(mark) == string(boot)
}
