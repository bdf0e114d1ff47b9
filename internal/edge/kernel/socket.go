package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// conn is a netlink socket on which many requests travel in one sendmsg. The
// kernel handles them in order. It answers those that fail, and the last one.
type conn struct {
	fd   int
	port uint32 // nlmsg_pid of what the kernel tells others about our requests
	seq  uint32
	buf  []byte
	ask  func() error // [Kernel.FailWrites]; nil: nobody is asked
}

// The numbers of a conn.
const (
	// answerTimeout bounds the wait for the kernel's answers. The kernel answers
	// before sendmsg returns; only a socket that is not what its sender claimed
	// would wait.
	answerTimeout = 5 // seconds
	// chunkBytes bounds one sendmsg of routing requests, which the kernel copies
	// into one piece of memory.
	chunkBytes = 64 << 10
	// bufferBytes are the socket's buffers. An answer takes a kilobyte of the
	// one, and one nftables transaction must fit into the other whole.
	bufferBytes = 4 << 20
	// readBytes is more than the 32 KiB that the kernel puts into one datagram
	// of a dump (netlink_recvmsg).
	readBytes = 64 << 10
	// dumpTries is how often a dump that another writer interrupted is repeated.
	dumpTries = 10
)

// errInterrupted says that the dump may lack entries (NLM_F_DUMP_INTR).
var errInterrupted = errors.New("dump interrupted by another writer")

func dial(protocol int) (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	c := &conn{fd: fd}
	if err := c.bind(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *conn) bind() error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("bind netlink socket: %w", err)
	}
	name, err := unix.Getsockname(c.fd)
	if err != nil {
		return fmt.Errorf("read address of netlink socket: %w", err)
	}
	if sa, ok := name.(*unix.SockaddrNetlink); ok {
		c.port = sa.Pid
	}
	for _, option := range []int{unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE} {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, option, bufferBytes); err != nil {
			return fmt.Errorf("set buffer of netlink socket (needs CAP_NET_ADMIN): %w", err)
		}
	}
	return c.prepare()
}

// prepare sets what a conn relies on; a socket that was handed to us needs it
// too. NETLINK_CAP_ACK leaves the request out of an error's answer, EXT_ACK adds
// the kernel's reason, STRICT_CHK lets a dump be filtered by the kernel.
func (c *conn) prepare() error {
	for name, option := range map[string]int{"NETLINK_CAP_ACK": unix.NETLINK_CAP_ACK,
		"NETLINK_EXT_ACK": unix.NETLINK_EXT_ACK, "NETLINK_GET_STRICT_CHK": unix.NETLINK_GET_STRICT_CHK} {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, option, 1); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
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
	*message
	what string
	fine func(unix.Errno) bool // refusals that are success; nil: none
}

// gone reports the kernel's several ways to say that a thing does not exist.
func gone(errno unix.Errno) bool {
	return errno == unix.ENOENT || errno == unix.ESRCH || errno == unix.ENODEV || errno == unix.EADDRNOTAVAIL
}

func exists(errno unix.Errno) bool { return errno == unix.EEXIST }

// do sends a small batch in one sendmsg and returns the first failure, naming
// the request. The requests after a failed one were handled all the same.
func (c *conn) do(batch ...request) error {
	if c.ask != nil {
		if err := c.ask(); err != nil {
			return fmt.Errorf("%s: %w", batch[0].what, err)
		}
	}
	var first error
	c.send(batch, func(i int, err error) {
		if first == nil {
			first = fmt.Errorf("%s: %w", batch[i].what, err)
		}
	})
	return first
}

// send carries out a batch of any size and tells of each failure.
func (c *conn) send(batch []request, failed func(i int, err error)) {
	for start := 0; start < len(batch); {
		end, size := start, 0
		for end < len(batch) && (end == start || size+len(batch[end].b) <= chunkBytes) {
			size += align(len(batch[end].b))
			end++
		}
		c.sendChunk(batch[start:end], size, func(i int, err error) { failed(start+i, err) })
		start = end
	}
}

func (c *conn) sendChunk(chunk []request, size int, failed func(i int, err error)) {
	buf := make([]byte, 0, size)
	first := c.seq + 1
	for i, r := range chunk {
		c.seq++
		flags := 0
		if i == len(chunk)-1 {
			flags = unix.NLM_F_ACK
		}
		buf = append(buf, r.numbered(c.seq, flags)...)
	}
	if err := c.write(buf); err != nil {
		for i := range chunk {
			failed(i, err)
		}
		return
	}
	err := c.answers(first, c.seq, func(seq uint32, errno unix.Errno, err error) bool {
		i := int(seq - first)
		if errno != 0 && (chunk[i].fine == nil || !chunk[i].fine(errno)) {
			failed(i, err)
		}
		return seq == c.seq
	})
	if err != nil {
		failed(len(chunk)-1, err)
	}
}

func (c *conn) write(b []byte) error {
	if err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// answers passes on what the kernel says of the requests first to last, until
// each says that it was all. errno is 0 for success.
func (c *conn) answers(first, last uint32, each func(seq uint32, errno unix.Errno, err error) (done bool)) error {
	for done := false; !done; {
		b, err := c.read()
		if err != nil {
			return err
		}
		for h, body := range messages(b) {
			if h.kind == unix.NLMSG_ERROR && h.seq-first <= last-first && len(body) >= 4 {
				errno, err := refusal(h, body)
				done = each(h.seq, errno, err) || done
			}
		}
	}
	return nil
}

// refusal is the error of an answer, with the kernel's words for it if it has
// any (NLMSGERR_ATTR_MSG).
func refusal(h header, body []byte) (unix.Errno, error) {
	errno := unix.Errno(-int32(u32(body)))
	if errno == 0 {
		return 0, nil
	}
	if h.flags&unix.NLM_F_ACK_TLVS != 0 {
		// The error and, NLM_F_CAPPED, the header of the request come first.
		for kind, value := range behind(body, 4+unix.NLMSG_HDRLEN) {
			if kind == unix.NLMSGERR_ATTR_MSG {
				return errno, fmt.Errorf("%w (%s)", errno, text(value))
			}
		}
	}
	return errno, errno
}

// read waits for one datagram of the kernel. It is good until the next read.
func (c *conn) read() ([]byte, error) {
	if c.buf == nil {
		c.buf = make([]byte, readBytes)
	}
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read answer: %w", err)
		}
		if n > len(c.buf) {
			return nil, fmt.Errorf("read answer: %d bytes: %w", n, unix.EMSGSIZE)
		}
		if sa, ok := from.(*unix.SockaddrNetlink); ok && sa.Pid == 0 {
			return c.buf[:n], nil
		} // else: not the kernel
	}
}

// get sends one question and passes on the payloads of its answers, which are
// good during the call only.
func (c *conn) get(m *message, each func(body []byte)) error {
	c.seq++
	flags := unix.NLM_F_ACK
	if m.isDump() {
		flags = 0 // it ends with NLMSG_DONE
	}
	if err := c.write(m.numbered(c.seq, flags)); err != nil {
		return err
	}
	interrupted := false
	for {
		b, err := c.read()
		if err != nil {
			return err
		}
		for h, body := range messages(b) {
			if h.seq != c.seq {
				continue
			}
			interrupted = interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
			switch h.kind {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				if errno, err := refusal(h, body); errno != 0 {
					return err
				}
				if interrupted {
					return errInterrupted
				}
				return nil
			}
			each(body)
		}
	}
}

// dump lists what the question asks for, as parse reads it. A dump that was
// interrupted is repeated; under constant change it gives up after some tries.
func dump[T any](c *conn, question func() *message, parse func(body []byte) (T, bool)) ([]T, error) {
	var all []T
	for i := 1; ; i++ {
		all = all[:0]
		err := c.get(question(), func(body []byte) {
			if v, ok := parse(body); ok {
				all = append(all, v)
			}
		})
		if err == nil {
			return all, nil
		}
		if i == dumpTries || !errors.Is(err, errInterrupted) {
			return nil, err
		}
	}
}
