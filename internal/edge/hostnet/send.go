package hostnet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/sighting"
)

// Shot is one packet that is ready to be sent: its socket has its port.
type Shot struct {
	Proto path.Proto
	To    netip.AddrPort
	Port  uint16 // of the socket; of ICMP 0
	Nonce uint64 // the first 8 bytes of a datagram's or an echo's data

	fd   int
	size int
}

// Load makes the socket in a namespace. size is the packet's, in bytes, the IP
// header included; a SYN has its own.
func Load(ns *os.File, p path.Proto, to netip.AddrPort, size int) (*Shot, error) {
	s := &Shot{Proto: p, To: to, Nonce: rand.Uint64(), fd: -1, size: size}
	err := inside(ns, s.open)
	if err != nil && s.fd >= 0 {
		unix.Close(s.fd)
	}
	if err != nil {
		return nil, fmt.Errorf("make a socket of %s: %w", p, err)
	}
	return s, nil
}

func (s *Shot) open() (err error) {
	kind, proto := unix.SOCK_STREAM, unix.IPPROTO_TCP
	switch s.Proto {
	case path.UDP:
		kind, proto = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case path.ICMP:
		// Raw: a ping socket is for the groups that the namespace lists, by default none.
		kind, proto = unix.SOCK_RAW, unix.IPPROTO_ICMP
	}
	if s.fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto); err != nil {
		return err
	}
	if s.Proto == path.ICMP {
		return unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	}
	if s.Proto == path.TCP { // a reset ends what was only asked for
		err = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	} else {
		err = unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	}
	if err != nil {
		return err
	}
	// A port without an address: which one is the routes' choice.
	if err := unix.Bind(s.fd, &unix.SockaddrInet4{}); err != nil {
		return err
	}
	name, err := unix.Getsockname(s.fd)
	if in, ok := name.(*unix.SockaddrInet4); ok {
		s.Port = uint16(in.Port)
	}
	return err
}

// Close ends the socket.
func (s *Shot) Close() error { return unix.Close(s.fd) }

// headers of IPv4 and of UDP or an ICMP echo, in bytes.
const headers = 28

// Fire sends the packet, and waits for the answer, until the context ends: that is
// silence and no error. Of TCP the kernel repeats what is not answered.
func (s *Shot) Fire(ctx context.Context) (sighting.Trip, error) {
	began := time.Now()
	trip := sighting.Trip{Answered: sighting.Silence}
	end := func(a sighting.Answered, err error) (sighting.Trip, error) {
		trip.Answered, trip.Waited = a, time.Since(began)
		switch a {
		case sighting.Yes, sighting.Refused:
			trip.RTT = trip.Waited
		case sighting.Failed:
			trip.Error = err.Error()
		}
		return trip, nil
	}
	err := unix.Connect(s.fd, &unix.SockaddrInet4{Addr: s.To.Addr().As4(), Port: int(s.To.Port())})
	if err == nil && s.Proto != path.TCP {
		_, err = unix.Write(s.fd, s.data())
	}
	for {
		switch {
		case errors.Is(err, unix.ECONNREFUSED):
			return end(sighting.Refused, nil)
		case err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EAGAIN):
			return end(sighting.Failed, err)
		}
		var answered bool
		if answered, err = s.wait(); answered {
			return end(sighting.Yes, nil)
		}
		if ctx.Err() != nil {
			return end(sighting.Silence, nil)
		}
	}
}

// wait polls for a moment. An error is the socket's.
func (s *Shot) wait() (answered bool, err error) {
	const moment = 50 // milliseconds: how late the end of the context is noticed
	want := int16(unix.POLLIN)
	if s.Proto == path.TCP {
		want = unix.POLLOUT
	}
	fds := []unix.PollFd{{Fd: int32(s.fd), Events: want}}
	if n, err := unix.Poll(fds, moment); n == 0 || errors.Is(err, unix.EINTR) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	no, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil || no != 0 {
		return false, errors.Join(err, unix.Errno(no))
	}
	if s.Proto == path.TCP {
		return true, nil
	}
	buffer := make([]byte, 128)
	n, err := unix.Read(s.fd, buffer)
	if err != nil || s.Proto == path.UDP {
		return err == nil, err
	}
	// A raw socket hears all of ICMP: behind the header of IP, 0 is an echo reply.
	ip := int(buffer[0]&15) * 4
	return n >= ip+16 && buffer[ip] == 0 && binary.NativeEndian.Uint64(buffer[ip+8:]) == s.Nonce, nil
}

// data is a datagram's, or an echo whole.
func (s *Shot) data() []byte {
	data := binary.NativeEndian.AppendUint64(nil, s.Nonce)
	data = append(data, make([]byte, max(0, s.size-headers-len(data)))...)
	if s.Proto == path.UDP {
		return data
	}
	id := uint16(s.Nonce)
	echo := append([]byte{8, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}, data...)
	sum := checksum(echo)
	echo[2], echo[3] = byte(sum>>8), byte(sum)
	return echo
}

// checksum is the internet's (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
