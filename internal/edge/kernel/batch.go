package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// conn is a NETLINK_ROUTE socket on which a whole batch of requests travels in
// one sendmsg. The kernel handles the requests in order and answers each one.
type conn struct{ fd int }

// answerTimeout bounds the wait for the kernel's answers. The kernel answers
// before sendmsg returns; only a socket that is not what its sender claimed
// would wait.
const answerTimeout = 5 // seconds

func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind netlink socket: %w", err), unix.Close(fd))
	}
	c := &conn{fd: fd}
	if err := c.prepare(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// prepare sets what a batch relies on; a socket that was handed to us needs it
// too. NETLINK_CAP_ACK leaves the request out of an error's answer.
func (c *conn) prepare() error {
	if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return fmt.Errorf("set NETLINK_CAP_ACK: %w", err)
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1); err != nil {
		return fmt.Errorf("set NETLINK_EXT_ACK: %w", err)
	}
	tv := unix.Timeval{Sec: answerTimeout}
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fmt.Errorf("set SO_RCVTIMEO: %w", err)
	}
	return nil
}

func (c *conn) Close() error { return unix.Close(c.fd) }

// request is one message of a batch, with the words for its failure.
type request struct {
	*nl.NetlinkRequest
	what   string
	absent bool // it removes: that the thing does not exist is success
}

// do sends the batch and returns the first failure, naming the request. The
// requests after a failed one were handled all the same.
func (c *conn) do(batch []request) error {
	if len(batch) == 0 {
		return nil
	}
	pending := make(map[uint32]request, len(batch))
	var buf []byte
	for _, r := range batch {
		r.Flags |= unix.NLM_F_REQUEST | unix.NLM_F_ACK
		pending[r.Seq] = r
		buf = append(buf, r.Serialize()...)
	}
	if err := unix.Sendto(c.fd, buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("%s: send: %w", batch[0].what, err)
	}
	var first error
	answer := make([]byte, 32*1024)
	for len(pending) > 0 {
		n, from, err := unix.Recvfrom(c.fd, answer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: read answer: %w", batch[0].what, err)
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue // not the kernel
		}
		if err := acknowledge(answer[:n], pending); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// acknowledge takes the answered requests off pending and returns the first
// refusal among them.
func acknowledge(b []byte, pending map[uint32]request) error {
	var first error
	for len(b) >= unix.NLMSG_HDRLEN {
		length := binary.NativeEndian.Uint32(b)
		kind := binary.NativeEndian.Uint16(b[4:])
		seq := binary.NativeEndian.Uint32(b[8:])
		if length < unix.NLMSG_HDRLEN || int(length) > len(b) {
			return fmt.Errorf("read answer: %w", unix.EBADMSG)
		}
		if r, ok := pending[seq]; ok && kind == unix.NLMSG_ERROR && length >= unix.NLMSG_HDRLEN+4 {
			delete(pending, seq)
			errno := unix.Errno(-int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:])))
			if errno != 0 && !(r.absent && gone(errno)) && first == nil {
				first = fmt.Errorf("%s: %w", r.what, errno)
			}
		}
		b = b[min(len(b), int(length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
	}
	return first
}

// gone reports the kernel's several ways to say that a thing does not exist.
func gone(errno unix.Errno) bool {
	return errno == unix.ENOENT || errno == unix.ESRCH || errno == unix.ENODEV || errno == unix.EADDRNOTAVAIL
}
