package hostnet

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// root is the directory whose files are the node's. Its programs run in it, as its
// libraries are there too.
type root string

// here is the root of a process that is in no container.
const here root = ""

// file is where a file of the node's is.
func (r root) file(name string) string { return filepath.Join(string(r), name) }

// programDirs are where a node has its programs (FHS 3.0, 3.4, 3.16, 4.4 and 4.10).
var programDirs = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// find is the file of a program, as one names it in the root.
func (r root) find(program string) (string, error) {
	if r == here {
		return exec.LookPath(program)
	}
	for _, dir := range programDirs {
		name := filepath.Join(dir, program)
		// A link is not followed: what it says is meant for the root.
		if info, err := os.Lstat(r.file(name)); err == nil && !info.IsDir() {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s in %s: %w", program, string(r), exec.ErrNotFound)
}

// enter has a program run in the root.
func (r root) enter(cmd *exec.Cmd) {
	if r == here {
		return
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: string(r)}
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + strings.Join(programDirs, ":")}
}
