package packet

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/bench/packet/site"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// work is what a sample does.
type work string

const (
	rtt  work = "rtt"
	pps  work = "pps"
	bulk work = "bulk"
)

var works = []work{rtt, pps, bulk}

// Sizes, in bytes.
const (
	// payload makes an Ethernet frame of 64 with its headers and check sum:
	// 14 + 20 + 8 + 18 + 4.
	payload   = 18
	writeSize = 64 << 10
)

const (
	port  = 5001
	burst = 64 // packets one way before they are read: fits into any socket's buffer
)

// lane is the sockets at both ends of one design: 0 the client, 1 the server.
type lane struct {
	Design
	udp, tcp [2]int
	times    map[work]int // operations in a sample
	buf      []byte
	closers  []int
}

func newLane(d Design, s *site.Site) (_ *lane, err error) {
	l := &lane{Design: d, times: make(map[work]int), buf: make([]byte, writeSize)}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	var ns [2]*os.File
	var addrs [2]netip.Addr
	for i, n := range s.Nodes {
		if d.Kind == Host {
			ns[i], addrs[i] = n.NS, n.Snapshot.ENIs[0].Primary
		} else {
			ns[i], addrs[i] = n.Pod, n.Last().Addr
		}
	}
	for i := range ns {
		if l.udp[i], err = l.socket(ns[i], unix.SOCK_DGRAM, addrs[i]); err != nil {
			return nil, err
		}
	}
	for i := range ns {
		if err := unix.Connect(l.udp[i], sockaddr(addrs[1-i])); err != nil {
			return nil, fmt.Errorf("connect udp: %w", err)
		}
	}
	return l, l.connect(ns, addrs)
}

// connect makes the TCP connection.
func (l *lane) connect(ns [2]*os.File, addrs [2]netip.Addr) error {
	listener, err := l.socket(ns[1], unix.SOCK_STREAM, addrs[1])
	if err != nil {
		return err
	}
	if err := unix.Listen(listener, 1); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if l.tcp[0], err = l.socket(ns[0], unix.SOCK_STREAM, addrs[0]); err != nil {
		return err
	}
	if err := unix.Connect(l.tcp[0], sockaddr(addrs[1])); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect tcp: %w", err)
	}
	for deadline := time.Now().Add(patience); ; nap(time.Millisecond) {
		l.tcp[1], _, err = unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == nil {
			l.closers = append(l.closers, l.tcp[1])
			return nil
		}
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(deadline) {
			return fmt.Errorf("accept: %w", err)
		}
	}
}

func (l *lane) socket(ns *os.File, kind int, addr netip.Addr) (fd int, err error) {
	err = netns.Do(ns, func() error {
		fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	l.closers = append(l.closers, fd)
	if err := unix.Bind(fd, sockaddr(addr)); err != nil {
		return 0, fmt.Errorf("bind %s: %w", addr, err)
	}
	return fd, nil
}

func sockaddr(a netip.Addr) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: port, Addr: a.As4()}
}

func (l *lane) close() error {
	var errs []error
	for _, fd := range l.closers {
		errs = append(errs, unix.Close(fd))
	}
	l.closers = nil
	return errors.Join(errs...)
}

// check makes sure that packets take the way that is to be measured: out and in
// by the ENIs that the two pods' addresses are on.
func (l *lane) check(s *site.Site) error {
	before, err := sent(s)
	if err != nil {
		return err
	}
	const packets = 10
	if err := l.roundTrips(packets); err != nil {
		return err
	}
	after, err := sent(s)
	if err != nil {
		return err
	}
	for i := range s.Nodes {
		if got := after[i] - before[i]; got < packets {
			return fmt.Errorf("node %d sent %d of %d packets by the pod's own ENI", i, got, packets)
		}
	}
	return nil
}

// sent reads how many packets each node has sent by its last ENI.
func sent(s *site.Site) (n [2]uint64, err error) {
	for i, node := range s.Nodes {
		device := site.Device(len(node.Snapshot.ENIs) - 1)
		if n[i], err = node.Sent(device); err != nil {
			return n, err
		}
	}
	return n, nil
}

// calibrate finds how many operations take about [sampleTime].
func (l *lane) calibrate() error {
	for _, w := range works {
		n := 4
		for {
			start := time.Now()
			if err := l.do(w, n); err != nil {
				return fmt.Errorf("%s: %w", w, err)
			}
			took := time.Since(start)
			if took >= sampleTime/2 {
				l.times[w] = max(1, int(float64(n)*float64(sampleTime)/float64(took)))
				break
			}
			n *= 2
		}
	}
	return nil
}

// sample is the time of one operation, in microseconds: a packet there and
// back, a packet, a write. A sample in which the kernel put something off, which
// it does under load, is repeated.
func (l *lane) sample(w work) (float64, error) {
	const tries = 10
	for i := 1; ; i++ {
		err := l.roundTrips(warmUp)
		start := time.Now()
		if err == nil {
			err = l.do(w, l.times[w])
		}
		took := time.Since(start)
		if err == nil {
			return float64(took) / float64(time.Microsecond) / float64(l.times[w]), nil
		}
		if !errors.Is(err, errLate) || i == tries {
			return 0, err
		}
	}
}

func (l *lane) do(w work, n int) error {
	switch w {
	case rtt:
		return l.roundTrips(n)
	case pps:
		return l.oneWay(n)
	default:
		return l.stream(n)
	}
}

// errLate says that a packet was not there when the call that sent it returned.
var errLate = errors.New("packet was late")

// patience bounds the wait for a packet that is late.
const patience = time.Second

func (l *lane) roundTrips(n int) error {
	client, server := l.udp[0], l.udp[1]
	var late error
	for range n {
		for _, way := range [2][2]int{{client, server}, {server, client}} {
			if err := send(way[0], l.buf[:payload]); err != nil {
				return err
			}
			late = first(late, receive(way[1], l.buf[:payload]))
			if late != nil && !errors.Is(late, errLate) {
				return late
			}
		}
	}
	return late
}

func (l *lane) oneWay(n int) error {
	var late error
	for n > 0 {
		some := min(n, burst)
		for range some {
			if err := send(l.udp[0], l.buf[:payload]); err != nil {
				return err
			}
		}
		for range some {
			late = first(late, receive(l.udp[1], l.buf[:payload]))
			if late != nil && !errors.Is(late, errLate) {
				return late
			}
		}
		n -= some
	}
	return late
}

func first(a, b error) error {
	if a == nil || b != nil && !errors.Is(b, errLate) {
		return b
	}
	return a
}

// stream brings n times 64 KiB from one end to the other.
func (l *lane) stream(n int) error {
	left, idle := n*writeSize, 0
	toSend := left
	for left > 0 {
		moved := 0
		if toSend > 0 {
			k, errno := transfer(unix.SYS_SENDTO, l.tcp[0], l.buf[:min(toSend, writeSize)])
			if errno != 0 && errno != unix.EAGAIN {
				return fmt.Errorf("write: %w", errno)
			}
			toSend -= k
			moved += k
		}
		for left > 0 {
			k, errno := transfer(unix.SYS_RECVFROM, l.tcp[1], l.buf[:min(left, writeSize)])
			if errno != 0 && errno != unix.EAGAIN {
				return fmt.Errorf("read: %w", errno)
			}
			if k == 0 {
				break
			}
			left -= k
			moved += k
		}
		if moved > 0 {
			idle = 0
			continue
		}
		if idle++; idle > 1000 {
			return fmt.Errorf("stream stands still with %d bytes to go", left)
		}
		nap(time.Millisecond)
	}
	return nil
}
