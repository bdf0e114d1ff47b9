// Command floor is what an ADD cannot be faster than: a Go program that is
// started, makes one pod's interface by writing ready-made netlink messages, and
// ends. There is no agent, no protocol, no address to choose, nothing to record.
//
// The messages come on standard input, made by the bench, which also checks
// that they leave the kernel in the state that a real ADD leaves:
//
//	u32 length, rtnetlink batch for the node      veth with its peer in the pod, up
//	u32 length, rtnetlink batch for the pod       up, address, routes, neighbour
//	u32 length, rtnetlink batch for the node      route, neighbour
//	u32 length, nftables transaction              one map element
//
// Its argument is the path of the pod's network namespace; the messages know
// the namespace by file descriptor [NetNSFD]. It runs in one thread, which
// stays in the pod's namespace. Exit status 0, or 1 with a line on standard error.
package main

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
)

// NetNSFD is the descriptor of the pod's namespace: a number that the messages
// can name before it is opened. Package add has the same one. It is below 64: for
// a higher one the kernel enlarges the table of descriptors, and in a program of
// several threads, as all of Go's are, waits 5 to 20 ms for an RCU grace period
// to do so (expand_fdtable in fs/file.c).
const NetNSFD = 60

const (
	cloneNewNet    = 0x40000000 // CLONE_NEWNET, linux/sched.h
	netlinkFilter  = 12         // NETLINK_NETFILTER, linux/netlink.h
	flagAck        = 4          // NLM_F_ACK, linux/netlink.h
	messageError   = 2          // NLMSG_ERROR, linux/netlink.h
	headerLen      = 16         // struct nlmsghdr
	maxInput       = 64 << 10   // bytes; a pod takes 1.5 KiB
	sectionsOfAPod = 4
)

func main() {
	if len(os.Args) != 2 {
		fail("usage: floor NETNS <messages", nil)
	}
	sections := input()
	ns, err := syscall.Open(os.Args[1], syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err == nil {
		err = syscall.Dup3(ns, NetNSFD, syscall.O_CLOEXEC)
	}
	if err != nil {
		fail("open "+os.Args[1], err)
	}
	node := open(syscall.NETLINK_ROUTE)
	filter := open(netlinkFilter)

	write(node, sections[0], "node's side")
	runtime.LockOSThread()
	if _, _, errno := syscall.RawSyscall(sysSetns, NetNSFD, cloneNewNet, 0); errno != 0 {
		fail("enter "+os.Args[1], errno)
	}
	write(open(syscall.NETLINK_ROUTE), sections[1], "pod's side")
	write(node, sections[2], "route to the pod")
	write(filter, sections[3], "admission of the pod")
}

// input reads the four batches.
func input() [sectionsOfAPod][]byte {
	buf := make([]byte, maxInput)
	n := 0
	for {
		got, err := syscall.Read(0, buf[n:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			fail("read messages", err)
		}
		if got == 0 {
			break
		}
		n += got
	}
	buf = buf[:n]
	var sections [sectionsOfAPod][]byte
	for i := range sections {
		if len(buf) < 4 || len(buf)-4 < int(native32(buf)) {
			fail("messages are cut short at batch "+strconv.Itoa(i), nil)
		}
		length := int(native32(buf))
		sections[i], buf = buf[4:4+length], buf[4+length:]
	}
	return sections
}

func open(protocol int) int {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, protocol)
	if err != nil {
		fail("open netlink socket", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		fail("bind netlink socket", err)
	}
	return fd
}

// write sends a batch at once and reads the answers that it asks for.
func write(fd int, batch []byte, what string) {
	if err := syscall.Sendto(fd, batch, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		fail(what+": send", err)
	}
	pending := 0
	for b := batch; len(b) >= headerLen; b = next(b) {
		if native16(b[6:])&flagAck != 0 {
			pending++
		}
	}
	answer := make([]byte, 8<<10)
	for pending > 0 {
		n, err := syscall.Read(fd, answer)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			fail(what+": read answer", err)
		}
		for b := answer[:n]; len(b) >= headerLen+4; b = next(b) {
			if native16(b[4:]) != messageError {
				continue
			}
			if errno := -int32(native32(b[headerLen:])); errno != 0 {
				fail(what+": message "+strconv.Itoa(int(native32(b[8:]))), syscall.Errno(errno))
			}
			pending--
		}
	}
}

// next is what follows the first message of b.
func next(b []byte) []byte {
	length := (int(native32(b)) + 3) &^ 3
	if length < headerLen || length > len(b) {
		return nil
	}
	return b[length:]
}

// Both architectures that are built for are little-endian.
func native16(b []byte) uint16 { return uint16(b[0]) | uint16(b[1])<<8 }
func native32(b []byte) uint32 { return uint32(native16(b)) | uint32(native16(b[2:]))<<16 }

func fail(what string, err error) {
	if err != nil {
		what += ": " + err.Error()
	}
	os.Stderr.WriteString("floor: " + what + "\n")
	os.Exit(1)
}
