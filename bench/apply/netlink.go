package apply

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Netlink as it is: the floor has nothing between itself and the kernel.

const (
	protoRoute  = unix.NETLINK_ROUTE
	protoFilter = unix.NETLINK_NETFILTER
	bufferBytes = 8 << 20
	readBytes   = 64 << 10
	align4      = 4
)

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
	// A socket without an address is passed over when the kernel tells of changes.
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind netlink socket: %w", err), c.Close())
	}
	for _, option := range []int{unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, bufferBytes); err != nil {
			return nil, errors.Join(fmt.Errorf("set buffer of netlink socket: %w", err), c.Close())
		}
	}
	return c, nil
}

// Close of a conn that was never opened does nothing.
func (c *conn) Close() error {
	if c == nil {
		return nil
	}
	return unix.Close(c.fd)
}

// message is one netlink message; its number comes when it is sent.
type message []byte

func newMessage(kind, flags int, body ...[]byte) message {
	m := make(message, unix.NLMSG_HDRLEN)
	for _, b := range body {
		m = append(m, b...)
	}
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint16(m[4:], uint16(kind))
	binary.NativeEndian.PutUint16(m[6:], uint16(flags|unix.NLM_F_REQUEST))
	return pad(m)
}

func pad(b []byte) []byte {
	for len(b)%align4 != 0 {
		b = append(b, 0)
	}
	return b
}

func (m message) body() []byte { return m[unix.NLMSG_HDRLEN:] }

func attr(kind int, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofNlAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, uint16(kind))
	return pad(append(b, value...))
}

// keep takes of a message behind its fixed part the attributes of these kinds.
func keep(b []byte, kinds ...int) []byte {
	var out []byte
	for len(b) >= unix.SizeofNlAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofNlAttr || length > len(b) {
			break
		}
		kind := int(binary.NativeEndian.Uint16(b[2:])) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if slices.Contains(kinds, kind) {
			out = pad(append(out, b[:length]...))
		}
		b = b[min(len(b), (length+align4-1)&^(align4-1)):]
	}
	return out
}

// value is the first attribute of that kind; nil: there is none.
func value(b []byte, kind int) []byte {
	if a := keep(b, kind); len(a) > 0 {
		return a[unix.SizeofNlAttr:binary.NativeEndian.Uint16(a)]
	}
	return nil
}

// batch is messages with their numbers in place, ready to be sent. The answer to
// the last is waited for.
type batch struct {
	bytes []byte
	last  uint32
}

// number puts a batch together. Every message is sent as it is, and the one at
// index ack is acknowledged; the kernel answers those that fail in any case.
func number(messages []message, ack int) batch {
	var b batch
	for i, m := range messages {
		m = slices.Clone(m)
		seq := uint32(i + 1)
		binary.NativeEndian.PutUint32(m[8:], seq)
		if i == ack {
			b.last = seq
			binary.NativeEndian.PutUint16(m[6:], binary.NativeEndian.Uint16(m[6:])|unix.NLM_F_ACK)
		}
		b.bytes = append(b.bytes, m...)
	}
	return b
}

// send sends a batch in one call and waits for the kernel's answer.
func (c *conn) send(b batch) error {
	if err := unix.Sendto(c.fd, b.bytes, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	for {
		done := false
		err := c.read(0, func(kind int, seq uint32, body []byte) error {
			if kind != unix.NLMSG_ERROR || len(body) < 4 {
				return nil
			}
			if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body))); errno != 0 {
				return fmt.Errorf("message %d: %w", seq, errno)
			}
			done = done || seq == b.last
			return nil
		})
		if err != nil {
			_, _ = c.drain() // what else went wrong follows from it
			return err
		}
		if done {
			return nil
		}
	}
}

// drain reads what is there already and says how many messages it was. If there
// was more than the socket keeps, that is one more.
func (c *conn) drain() (n int, err error) {
	for {
		err := c.read(unix.MSG_DONTWAIT, func(int, uint32, []byte) error { n++; return nil })
		switch {
		case errors.Is(err, unix.ENOBUFS):
			n++
		case errors.Is(err, unix.EAGAIN):
			return n, nil
		case err != nil:
			return n, err
		}
	}
}

// dump lists the answers to a question.
func (c *conn) dump(question message) ([]message, error) {
	c.seq++
	question = slices.Clone(question)
	binary.NativeEndian.PutUint32(question[8:], c.seq)
	binary.NativeEndian.PutUint16(question[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if err := unix.Sendto(c.fd, question, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	var all []message
	for {
		done := false
		err := c.read(0, func(kind int, seq uint32, body []byte) error {
			switch kind {
			case unix.NLMSG_DONE:
				done = true
			case unix.NLMSG_ERROR:
				return unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
			default:
				all = append(all, newMessage(kind, 0, body))
			}
			return nil
		})
		if err != nil || done {
			return all, err
		}
	}
}

// read passes on the messages of one datagram.
func (c *conn) read(flags int, each func(kind int, seq uint32, body []byte) error) error {
	n, _, err := unix.Recvfrom(c.fd, c.buf, flags)
	for errors.Is(err, unix.EINTR) {
		n, _, err = unix.Recvfrom(c.fd, c.buf, flags)
	}
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	for b := c.buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return unix.EBADMSG
		}
		if err := each(int(binary.NativeEndian.Uint16(b[4:])), binary.NativeEndian.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:length]); err != nil {
			return err
		}
		b = b[min(len(b), (length+align4-1)&^(align4-1)):]
	}
	return nil
}

// watcher hears of every change in its namespace.
type watcher struct{ conns []*conn }

// groups are what the kernel tells of routing and nftables.
var groups = map[int][]int{
	protoRoute:  {unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV4_NETCONF},
	protoFilter: {unix.NFNLGRP_NFTABLES},
}

func watch() (*watcher, error) {
	w := &watcher{}
	for protocol, all := range groups {
		c, err := dial(protocol)
		if err != nil {
			return nil, errors.Join(err, w.Close())
		}
		w.conns = append(w.conns, c)
		for _, g := range all {
			if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
				return nil, errors.Join(fmt.Errorf("join group %d: %w", g, err), w.Close())
			}
		}
	}
	return w, nil
}

// Close of a watcher that was never opened does nothing.
func (w *watcher) Close() error {
	var errs []error
	if w != nil {
		for _, c := range w.conns {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// count is how many changes the kernel has told of since the last count.
func (w *watcher) count() (int, error) {
	sum := 0
	for _, c := range w.conns {
		n, err := c.drain()
		if err != nil {
			return sum, err
		}
		sum += n
	}
	return sum, nil
}
