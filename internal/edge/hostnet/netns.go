package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxNamespaces bounds the namespaces that are looked at: a node has at most
// 737 pods (the largest instance type), each with one.
const maxNamespaces = 4096

// netnsDirs are where runtimes keep namespaces by name.
var netnsDirs = []string{"/run/netns", "/run/docker/netns"}

// namespace is an open network namespace.
type namespace struct {
	file *os.File
	name string // of its file, or "inode-N"
}

// inside runs do on a thread that is in the namespace. The thread ends if it
// cannot be brought back.
func inside(ns *os.File, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- fmt.Errorf("open own namespace: %w", err)
			return
		}
		defer home.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter namespace: %w", err)
			return
		}
		err = do()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// namespaces opens every network namespace but the calling process's that has a
// name or a process. Those that it may not open it leaves out.
func (r root) namespaces() ([]namespace, error) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	var all []namespace
	take := func(file, name string) {
		f, err := os.Open(file)
		if err != nil || len(all) >= maxNamespaces {
			f.Close()
			return
		}
		var st unix.Stat_t
		var fs unix.Statfs_t
		err = errors.Join(unix.Fstat(int(f.Fd()), &st), unix.Fstatfs(int(f.Fd()), &fs))
		id := inode{uint64(st.Dev), st.Ino}
		if err != nil || fs.Type != unix.NSFS_MAGIC || seen[id] {
			f.Close()
			return
		}
		seen[id] = true
		if name == "" {
			name = "inode-" + strconv.FormatUint(st.Ino, 10)
		}
		all = append(all, namespace{f, name})
	}
	take("/proc/self/ns/net", "self")
	if len(all) == 0 {
		return nil, errors.New("open own namespace: /proc/self/ns/net is none")
	}
	for _, dir := range netnsDirs {
		dir = r.file(dir)
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			take(filepath.Join(dir, e.Name()), e.Name())
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	for _, p := range processes {
		take(p, "")
	}
	all[0].file.Close()
	return all[1:], nil
}

// Numbers of include/uapi/linux/net_namespace.h.
const (
	netnsaNSID = 1
	netnsaFD   = 3
)

// number is what this namespace knows another one by; -1: nothing.
func (c *conn) number(ns *os.File) int32 {
	body := append(make([]byte, 4), attr(netnsaFD, bytes32(uint32(ns.Fd())))...)
	answers, err := c.ask(unix.RTM_GETNSID, 0, body)
	if err != nil || len(answers) != 1 {
		return -1
	}
	for kind, v := range behind(answers[0], 1) {
		if kind == netnsaNSID && len(v) == 4 {
			return int32(binary.NativeEndian.Uint32(v))
		}
	}
	return -1
}
