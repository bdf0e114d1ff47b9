package cniserver

import (
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
)

// message is one frame as it came in, with the descriptors that came with it.
type message struct {
	text []byte
	fds  []int
}

// close closes the descriptors that no [Call] has taken over.
func (m *message) close() {
	for _, fd := range m.fds {
		unix.Close(fd)
	}
	m.fds = nil
}

// errNothing: the connection closed before its first byte, as that of an agent
// does which looks whether another one is alive.
var errNothing = errors.New("connection closed before a request")

// maxFDs is room for more descriptors than a request has, so that a client that
// sends more hears how many are right. Beyond it the kernel closes them.
const maxFDs = 16

// readMessage reads one frame. The message is to be closed also when there is
// an error.
func readMessage(conn *net.UnixConn) (*message, error) {
	m := &message{}
	// The descriptors come with the first byte. Later bytes are read without
	// room for any, and the kernel closes what comes with those.
	buf := make([]byte, 4096)
	oob := make([]byte, unix.CmsgSpace(4*maxFDs))
	n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob) // sets MSG_CMSG_CLOEXEC
	m.fds = rights(oob[:oobn])
	switch {
	case n == 0 && (err == nil || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET)):
		return m, errNothing
	case err != nil:
		return m, fmt.Errorf("read: %w", err)
	case flags&unix.MSG_CTRUNC != 0:
		return m, fmt.Errorf("more than %d file descriptors", maxFDs)
	}
	buf = buf[:n]
	if len(buf) < cniapi.HeaderLen {
		header := make([]byte, cniapi.HeaderLen)
		copy(header, buf)
		if _, err := io.ReadFull(conn, header[n:]); err != nil {
			return m, fmt.Errorf("read length: %w", err)
		}
		buf = header
	}
	size, err := cniapi.Length(buf)
	if err != nil {
		return m, err
	}
	body := buf[cniapi.HeaderLen:]
	if len(body) > size {
		return m, fmt.Errorf("%d bytes follow the frame of %d", len(body)-size, size)
	}
	m.text = make([]byte, size)
	copy(m.text, body)
	if _, err := io.ReadFull(conn, m.text[len(body):]); err != nil {
		return m, fmt.Errorf("read frame of %d bytes: %w", size, err)
	}
	return m, nil
}

// rights gives every descriptor in the control messages, also where some of
// them cannot be understood: they are open in this process now.
func rights(oob []byte) []int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for _, msg := range msgs {
		if got, err := unix.ParseUnixRights(&msg); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// checkNetNS wants a network namespace that is not the agent's own.
func checkNetNS(fd int) error {
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return errors.New("the first file descriptor is not a network namespace")
	}
	var its, own unix.Stat_t
	if err := unix.Fstat(fd, &its); err != nil {
		return fmt.Errorf("stat network namespace: %w", err)
	}
	// Of the thread, and one that goroutines run on: the process's first thread,
	// which /proc/self shows, may have been taken to another namespace for good.
	if err := unix.Stat("/proc/thread-self/ns/net", &own); err != nil {
		return fmt.Errorf("stat the agent's network namespace: %w", err)
	}
	if its.Dev == own.Dev && its.Ino == own.Ino {
		return errors.New("the network namespace is the agent's own, where no pod's interface belongs")
	}
	return nil
}

// checkNetlink wants a NETLINK_ROUTE socket that was opened in the namespace:
// what the agent writes to it must not end up in another one.
func checkNetlink(fd, netns int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_NETLINK {
		return errors.New("the second file descriptor is not a netlink socket")
	}
	if proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || proto != unix.NETLINK_ROUTE {
		return fmt.Errorf("the netlink socket is of protocol %d, not NETLINK_ROUTE", proto)
	}
	// Which namespace a socket is in: SIOCGSKNS, since Linux 4.9.
	ns, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if err != nil {
		return fmt.Errorf("ask for the network namespace of the netlink socket: %w", err)
	}
	defer unix.Close(ns)
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(ns, &a), unix.Fstat(netns, &b)); err != nil {
		return fmt.Errorf("stat network namespace: %w", err)
	}
	if a.Dev != b.Dev || a.Ino != b.Ino {
		return errors.New("the netlink socket belongs to another network namespace than the one given")
	}
	return nil
}
