package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Bounds of a dump. The kernel fills datagrams of at most 32 KiB.
const (
	readBytes    = 64 << 10
	dumpMessages = 1 << 20
	dumpTries    = 10
	answerWait   = 5         // seconds; the kernel answers before sendto returns
	typeMask     = 1<<14 - 1 // NLA_TYPE_MASK
)

// errInterrupted: another writer changed the list while it was read.
var errInterrupted = errors.New("the list changed while it was read")

// conn is a netlink socket of the namespace in which it was opened.
type conn struct {
	fd  int
	seq uint32
	buf []byte
}

func dial(protocol int) (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	c := &conn{fd: fd, buf: make([]byte, readBytes)}
	tv := unix.Timeval{Sec: answerWait}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return nil, errors.Join(fmt.Errorf("set SO_RCVTIMEO: %w", err), c.Close())
	}
	return c, nil
}

func (c *conn) Close() error { return unix.Close(c.fd) }

// dump lists what the question asks for; body is the message behind its header.
// A list that changed meanwhile is read anew, some times.
func (c *conn) dump(kind uint16, body []byte) ([][]byte, error) {
	for i := 1; ; i++ {
		all, err := c.ask(kind, unix.NLM_F_DUMP, body)
		if err == nil || i == dumpTries || !errors.Is(err, errInterrupted) {
			return all, err
		}
	}
}

// ask sends one question and gives the bodies of its answers.
func (c *conn) ask(kind, flags uint16, body []byte) ([][]byte, error) {
	c.seq++
	if flags&unix.NLM_F_DUMP == 0 {
		flags |= unix.NLM_F_ACK
	}
	m := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(body))
	binary.NativeEndian.PutUint32(m, uint32(unix.NLMSG_HDRLEN+len(body)))
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(m[8:], c.seq)
	if err := unix.Sendto(c.fd, append(m, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	var all [][]byte
	interrupted := false
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read answer: %w", err)
		}
		if n > len(c.buf) || len(all) > dumpMessages {
			return nil, fmt.Errorf("read answer: %w", unix.EMSGSIZE)
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue // not the kernel
		}
		for h, body := range messages(c.buf[:n]) {
			if h.seq != c.seq {
				continue
			}
			interrupted = interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
			if h.kind != unix.NLMSG_ERROR && h.kind != unix.NLMSG_DONE {
				all = append(all, append([]byte(nil), body...))
				continue
			}
			if len(body) >= 4 {
				if errno := -int32(u32(body)); errno != 0 {
					return nil, unix.Errno(errno)
				}
			}
			if interrupted {
				return nil, errInterrupted
			}
			return all, nil
		}
	}
}

type header struct {
	kind, flags uint16
	seq         uint32
}

// messages are those of one datagram; what is cut off is left out.
func messages(b []byte) iter.Seq2[header, []byte] {
	return func(yield func(header, []byte) bool) {
		for len(b) >= unix.NLMSG_HDRLEN {
			n := int(u32(b))
			if n < unix.NLMSG_HDRLEN || n > len(b) {
				return
			}
			h := header{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), u32(b[8:])}
			if !yield(h, b[unix.NLMSG_HDRLEN:n]) {
				return
			}
			b = b[min(len(b), (n+3)&^3):]
		}
	}
}

// attributes are those of a list, without the flags of their kinds.
func attributes(b []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			n, kind := int(binary.NativeEndian.Uint16(b)), int(binary.NativeEndian.Uint16(b[2:]))
			if n < unix.SizeofNlAttr || n > len(b) {
				return
			}
			if !yield(kind&typeMask, b[unix.SizeofNlAttr:n]) {
				return
			}
			b = b[min(len(b), (n+3)&^3):]
		}
	}
}

// behind are the attributes behind a message's fixed part.
func behind(body []byte, fixed int) iter.Seq2[int, []byte] {
	return attributes(body[min(len(body), (fixed+3)&^3):])
}

// attr makes one attribute.
func attr(kind int, value []byte) []byte {
	b := make([]byte, unix.SizeofNlAttr, unix.SizeofNlAttr+len(value)+3)
	binary.NativeEndian.PutUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	binary.NativeEndian.PutUint16(b[2:], uint16(kind))
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func bytes32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// u32 is 0 for what is too short.
func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

func text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// ipv4 is invalid for what is no IPv4 address.
func ipv4(b []byte) netip.Addr {
	if len(b) != 4 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(b))
}
