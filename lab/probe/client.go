package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// keySize is how much of a nonce is the same in all messages of a Talk, so that
// its target knows them.
const keySize = nonceSize / 2

// client is who asks: a connected socket in the source's namespace.
type client struct {
	talk Talk
	file *os.File // nil before there is one
	id   uint16   // of ICMP echoes
}

// dial makes the socket, and of TCP the connection.
func (t Talk) dial(ctx context.Context) (client, error) {
	c := client{talk: t, id: t.Source.Port()}
	if c.id == 0 {
		var b [2]byte
		rand.Read(b[:]) // never fails
		c.id = binary.BigEndian.Uint16(b[:])
	}
	err := netns.Do(t.From, func() (err error) {
		c.file, err = t.socket()
		return err
	})
	if err != nil {
		return c, fmt.Errorf("%w: %w", errSocket, err)
	}
	if err := c.file.SetDeadline(time.Now().Add(t.Timeout)); err != nil {
		return c, err
	}
	stop := c.heed(ctx)
	defer stop()
	if t.Proto == TCP {
		return c, connect(c.file, t.To)
	}
	to := t.To
	if t.Proto == ICMP {
		to = netip.AddrPortFrom(to.Addr(), 0)
	}
	err = control(c.file, func(fd int) error {
		return unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	})
	if err != nil {
		return c, fmt.Errorf("find a way: %w", err)
	}
	return c, nil
}

// heed ends what waits when ctx does.
func (c client) heed(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { c.file.SetDeadline(time.Unix(1, 0)) })
}

// socket makes the socket of a Talk in the calling thread's namespace.
func (t Talk) socket() (*os.File, error) {
	kind, proto := unix.SOCK_STREAM, unix.IPPROTO_TCP
	switch t.Proto {
	case UDP:
		kind, proto = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case ICMP:
		kind, proto = unix.SOCK_RAW, unix.IPPROTO_ICMP
	}
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), string(t.Proto))
	if err := t.configure(fd); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func (t Talk) configure(fd int) error {
	ip := map[int]int{unix.IP_RECVERR: 1}
	if t.TTL > 0 {
		ip[unix.IP_TTL] = t.TTL
	}
	if t.Proto != TCP {
		// PROBE, not DO: a path MTU that the kernel remembers would answer in the
		// place of the path.
		ip[unix.IP_MTU_DISCOVER] = unix.IP_PMTUDISC_DONT
		if t.DontFragment {
			ip[unix.IP_MTU_DISCOVER] = unix.IP_PMTUDISC_PROBE
		}
	}
	for option, value := range ip {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, option, value); err != nil {
			return fmt.Errorf("set option %d of IPPROTO_IP: %w", option, err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("set SO_REUSEADDR: %w", err)
	}
	if t.Source == (netip.AddrPort{}) {
		return nil
	}
	at := &unix.SockaddrInet4{Port: int(t.Source.Port())}
	if t.Source.Addr().IsValid() {
		at.Addr = t.Source.Addr().As4()
	}
	if t.Proto == ICMP {
		at.Port = 0
	}
	if err := unix.Bind(fd, at); err != nil {
		return fmt.Errorf("bind to %s: %w", t.Source, err)
	}
	return nil
}

// message sends one message and waits for its answer.
func (c client) message(ctx context.Context, target *target, key [keySize]byte, number int) error {
	if c.talk.Proto == TCP && c.talk.Target == nil {
		return nil // connected, and nobody there knows the protocol
	}
	if err := c.file.SetDeadline(time.Now().Add(c.talk.Timeout)); err != nil {
		return err
	}
	stop := c.heed(ctx)
	defer stop()
	payload := make([]byte, c.talk.Size)
	rand.Read(payload[copy(payload, key[:]):nonceSize]) // never fails
	out := payload
	if c.talk.Proto == ICMP {
		out = echo(c.id, uint16(number), payload)
	}
	if _, err := c.file.Write(out); err != nil {
		return fmt.Errorf("send: %w", cause(err, "nothing was taken"))
	}
	nonce := [nonceSize]byte(payload)
	if c.talk.Proto == TCP {
		var buf [answerSize]byte
		if _, err := io.ReadFull(c.file, buf[:]); err != nil {
			return fmt.Errorf("receive: %w", cause(err, "connected, and then no answer came"))
		}
		return c.judge(buf[:], nonce, target)
	}
	return c.await(nonce, target)
}

// await reads datagrams until one is the answer. What is an answer to another
// message, late, is passed over.
func (c client) await(nonce [nonceSize]byte, target *target) error {
	buf := make([]byte, 1<<16)
	var wrong error
	for {
		n, err := c.file.Read(buf)
		if err != nil {
			if wrong != nil && errors.Is(err, os.ErrDeadlineExceeded) {
				return wrong
			}
			return fmt.Errorf("receive: %w", cause(err, "no answer"))
		}
		got := buf[:n]
		if c.talk.Proto == ICMP {
			if isEchoReply(got, c.id, nonce) {
				return nil
			}
			continue // raw sockets get all ICMP
		}
		if c.talk.Target == nil {
			return nil
		}
		late := n == answerSize && bytes.Equal(got[:keySize], nonce[:keySize]) && !bytes.Equal(got[:nonceSize], nonce[:])
		if late {
			continue
		}
		if err := c.judge(got, nonce, target); err == nil {
			return nil
		} else {
			wrong = err
		}
	}
}

// judge says whether an answer is that of the target.
func (c client) judge(got []byte, nonce [nonceSize]byte, target *target) error {
	a, err := parseAnswer(got, nonce)
	if err != nil {
		return err
	}
	if uint32(a.server) != target.id {
		return fmt.Errorf("%w: from another than the one that was meant", errAnswer)
	}
	return nil
}

// close ends the conversation; without grace TCP by a reset.
func (c client) close(grace bool) {
	if c.file == nil {
		return
	}
	if c.talk.Proto == TCP && !grace {
		_ = control(c.file, func(fd int) error { // without it there is a TIME-WAIT, no more
			return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		})
	}
	c.file.Close()
}

// control runs fn on the descriptor of a file in the netpoller.
func control(file *os.File, fn func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) { result = fn(int(fd)) })
	return errors.Join(err, result)
}

// echo is an ICMP echo message (RFC 792) around a payload.
func echo(id, number uint16, payload []byte) []byte {
	m := binary.BigEndian.AppendUint16([]byte{8, 0, 0, 0}, id)
	m = append(binary.BigEndian.AppendUint16(m, number), payload...)
	var sum uint32
	for i := 0; i < len(m); i += 2 {
		sum += uint32(m[i]) << 8
		if i+1 < len(m) {
			sum += uint32(m[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum))
	return m
}

// echoAt gives the source, identifier and payload of an ICMP echo message of
// that type in an IPv4 packet, as raw(7) sockets receive it.
func echoAt(packet []byte, kind byte) (from netip.Addr, id uint16, payload []byte, ok bool) {
	if len(packet) < 20 || packet[0]>>4 != 4 {
		return from, 0, nil, false
	}
	header := int(packet[0]&0xf) * 4
	if header < 20 || len(packet) < header+8 || packet[header] != kind {
		return from, 0, nil, false
	}
	m := packet[header:]
	return netip.AddrFrom4([4]byte(packet[12:16])), binary.BigEndian.Uint16(m[4:]), m[8:], true
}

func isEchoReply(packet []byte, id uint16, nonce [nonceSize]byte) bool {
	_, got, payload, ok := echoAt(packet, 0)
	return ok && got == id && bytes.HasPrefix(payload, nonce[:])
}

// nativeUint32 reads what the kernel wrote for programs of this machine.
func nativeUint32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
