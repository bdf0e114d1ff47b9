package fabric

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	lab "github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

const (
	frameLength = 60 // 64 bytes with the frame check sequence
	firstPort   = 1024
	packetPort  = 4000
	bulkPort    = 5001
	batch       = 64 // frames in one call of sendmmsg(2)
)

// sender is a raw socket in a guest, which sends its frames round and round.
type sender struct {
	fd     int
	frames [][]byte
	next   int
}

func newSender(guest *os.File, from, to lab.ENI, flows int) (*sender, error) {
	s := &sender{fd: -1}
	for i := range flows {
		s.frames = append(s.frames, frame(from, to, uint16(firstPort+i)))
	}
	err := netns.Do(guest, func() error {
		l, err := netlink.LinkByName(from.Device)
		if err != nil {
			return err
		}
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open packet socket: %w", err)
		}
		if err := unix.Bind(s.fd, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index}); err != nil {
			return errors.Join(fmt.Errorf("bind packet socket: %w", err), unix.Close(s.fd))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// frame is a UDP packet without a checksum, which IPv4 allows (RFC 768).
func frame(from, to lab.ENI, port uint16) []byte {
	b := make([]byte, 0, frameLength)
	b = append(append(b, lab.RouterMAC[:]...), from.MAC[:]...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	ip := ipv4Header(from.Primary, to.Primary, frameLength-14)
	b = append(b, ip[:]...)
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint16(b, packetPort)
	b = binary.BigEndian.AppendUint16(b, frameLength-14-20)
	return b[:frameLength]
}

func ipv4Header(from, to netip.Addr, length uint16) (h [20]byte) {
	const ttl, udp = 64, 17
	h[0], h[8], h[9] = 0x45, ttl, udp
	binary.BigEndian.PutUint16(h[2:], length)
	copy(h[12:], from.AsSlice())
	copy(h[16:], to.AsSlice())
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum+sum>>16))
	return h
}

// mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	_   [8]byte // what was sent of it
}

// send sends n frames.
func (s *sender) send(n int) error {
	var messages [batch]mmsghdr
	var vectors [batch]unix.Iovec
	for n > 0 {
		k := min(n, batch)
		for i := range k {
			frame := s.frames[(s.next+i)%len(s.frames)]
			vectors[i].Base = &frame[0]
			vectors[i].SetLen(len(frame))
			messages[i].hdr.Iov = &vectors[i]
			messages[i].hdr.SetIovlen(1)
		}
		sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&messages)), uintptr(k), 0, 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return fmt.Errorf("send packets: %w", errno)
		}
		n -= int(sent)
		s.next = (s.next + int(sent)) % len(s.frames)
	}
	return nil
}

// stream is a TCP connection between two guests.
type stream struct {
	from, to net.Conn
	out, in  []byte
}

func newStream(guests []*os.File, from, to lab.ENI) (*stream, error) {
	at := netip.AddrPortFrom(to.Primary, bulkPort)
	var listener net.Listener
	err := netns.Do(guests[1], func() (err error) {
		if err = boot(to); err == nil {
			listener, err = net.Listen("tcp4", at.String())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	s := &stream{out: make([]byte, 1<<20), in: make([]byte, 1<<20)}
	if err := netns.Do(guests[0], func() (err error) {
		if err = boot(from); err == nil {
			s.from, err = net.DialTimeout("tcp4", at.String(), 10*time.Second)
		}
		return err
	}); err != nil {
		return nil, err
	}
	if s.to, err = listener.Accept(); err != nil {
		return nil, errors.Join(err, s.from.Close())
	}
	return s, nil
}

// turnTime bounds a turn: a connection that has died must not hang the bench.
const turnTime = 30 * time.Second

// turn sends n bytes and gives the bytes in a second, until the last is read.
func (s *stream) turn(n int) (float64, error) {
	began := time.Now()
	if err := errors.Join(s.from.SetDeadline(began.Add(turnTime)), s.to.SetDeadline(began.Add(turnTime))); err != nil {
		return 0, err
	}
	read := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(discard{}, io.LimitReader(s.to, int64(n)), s.in)
		read <- err
	}()
	var err error
	for left := n; left > 0 && err == nil; {
		var k int
		k, err = s.from.Write(s.out[:min(left, len(s.out))])
		left -= k
	}
	if err = errors.Join(err, <-read); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// discard hides io.Discard's own small buffer.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func (s *stream) close() error { return errors.Join(s.from.Close(), s.to.Close()) }
