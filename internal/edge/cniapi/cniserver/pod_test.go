package cniserver

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// pod is a network namespace of the test's own.
type pod struct {
	netns *os.File
	path  string // as CNI_NETNS
}

// newPod makes a namespace with a pair of veths, pod0 and pod1, in it.
func newPod(t *testing.T) pod {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	var p pod
	err := inThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network namespace: %w", err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "pod0"
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "pod1"}); err != nil {
			return fmt.Errorf("make veth: %w", err)
		}
		var err error
		p.netns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.netns.Close() })
	p.path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.netns.Fd())
	return p
}

// socket opens a netlink socket in the pod.
func (p pod) socket(t *testing.T, protocol int) int {
	t.Helper()
	fd := -1
	err := inThread(func() (err error) {
		if err := unix.Setns(int(p.netns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// inThread runs f in a thread that ends with it, as its namespace is another.
func inThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the runtime ends the thread
		done <- f()
	}()
	return <-done
}
