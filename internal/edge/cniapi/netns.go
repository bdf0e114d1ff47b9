package cniapi

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
)

// Numbers that package syscall does not have.
const (
	nsGetNSType = 0xb703     // NS_GET_NSTYPE, linux/nsfs.h: ioctl_ns(2); since Linux 4.11
	cloneNewNet = 0x40000000 // CLONE_NEWNET, linux/sched.h
)

// Pod holds what the agent needs to work in a pod's network namespace.
type Pod struct {
	NetNS   int // file descriptor of the namespace
	Netlink int // bound NETLINK_ROUTE socket, opened in it
}

// FDs gives the descriptors in the order of the protocol.
func (p Pod) FDs() []int { return []int{p.NetNS, p.Netlink} }

// OpenPod opens the network namespace at path and a NETLINK_ROUTE socket in it.
//
// It leaves the calling goroutine locked to its thread, and the thread in the
// pod's namespace: the program is expected to speak to the agent, over a socket
// that has a path and so belongs to no network namespace, and to end.
//
// The error is a CNI error 4 when path does not lead to a network namespace of
// a pod, the specification's code for an environment variable that cannot be;
// else 5.
func OpenPod(path string) (Pod, *Error) {
	invalid := func(why string) (Pod, *Error) {
		return Pod{}, &Error{CodeInvalidEnvironment, "CNI_NETNS " + strconv.Quote(path) + ": " + why, ""}
	}
	failed := func(doing string, err error) (Pod, *Error) {
		return Pod{}, &Error{CodeIO, "CNI_NETNS " + strconv.Quote(path) + ": " + doing + ": " + err.Error(),
			"the plugin must be run by root, as container runtimes do"}
	}
	// O_NONBLOCK: if this is a pipe, do not wait for its other end.
	ns, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return invalid(err.Error())
	}
	// EBADF, ENOTTY: not a namespace file at all.
	if kind, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(ns), nsGetNSType, 0); errno != 0 || kind != cloneNewNet {
		return invalid("is not a network namespace")
	}
	runtime.LockOSThread()
	own, err := sameNamespace(ns)
	if err != nil {
		return failed("compare with the plugin's own network namespace", err)
	}
	if own {
		return invalid("is the network namespace of the node, where no pod's interface belongs")
	}
	if _, _, errno := syscall.RawSyscall(sysSetns, uintptr(ns), cloneNewNet, 0); errno != 0 {
		return failed("enter network namespace", errno)
	}
	nl, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return failed("open netlink socket", err)
	}
	if err := syscall.Bind(nl, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return failed("bind netlink socket", err)
	}
	return Pod{NetNS: ns, Netlink: nl}, nil
}

// sameNamespace tells whether ns is the namespace of the calling thread: device
// and inode of the files in /proc say so, namespaces(7).
func sameNamespace(ns int) (bool, error) {
	var a, b syscall.Stat_t
	if err := syscall.Fstat(ns, &a); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	if err := syscall.Stat("/proc/thread-self/ns/net", &b); err != nil {
		return false, os.NewSyscallError("stat /proc/thread-self/ns/net", err)
	}
	return a.Dev == b.Dev && a.Ino == b.Ino, nil
}
