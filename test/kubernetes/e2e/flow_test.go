//go:build e2e

package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// traffic is requests that go on while something happens, each on a connection of
// its own. A request without an answer is lost; none may be.
type traffic struct {
	c    *cluster
	stop chan struct{}
	wg   sync.WaitGroup

	mu   sync.Mutex
	ways []*way
}

// way is one client with one address to ask.
type way struct {
	from     place
	to       netip.AddrPort
	answered int
	lost     []error
}

// pace is the time between a client's requests: all clients together must leave
// processors for who serves.
const pace = 50 * time.Millisecond

func (c *cluster) startTraffic(ways ...*way) *traffic {
	t := &traffic{c: c, stop: make(chan struct{}), ways: ways}
	for _, w := range ways {
		t.wg.Go(func() { t.ask(w) })
	}
	c.t.Cleanup(t.end)
	return t
}

func (t *traffic) ask(w *way) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-tick.C:
		}
		_, err := w.from.ask(w.to, "/hostname")
		t.mu.Lock()
		if err == nil {
			w.answered++
		} else {
			w.lost = append(w.lost, fmt.Errorf("%s: %w", time.Now().UTC().Format("15:04:05.000"), err))
		}
		t.mu.Unlock()
	}
}

// goesOn waits until each client has got some more answers.
func (t *traffic) goesOn() {
	t.c.t.Helper()
	const more = 10
	from := t.counts()
	t.c.eventually("requests go on", func() error {
		for i, n := range t.counts() {
			if n < from[i]+more {
				return fmt.Errorf("%s to %s: %d answers, want %d", t.ways[i].from.name, t.ways[i].to, n, from[i]+more)
			}
		}
		return nil
	})
}

func (t *traffic) counts() (list []int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, w := range t.ways {
		list = append(list, w.answered)
	}
	return list
}

func (t *traffic) end() {
	select {
	case <-t.stop:
	default:
		close(t.stop)
	}
	t.wg.Wait()
}

// lostNone ends the traffic, of which nothing may be lost.
func (t *traffic) lostNone() {
	t.c.t.Helper()
	t.goesOn()
	t.end()
	all := 0
	for _, w := range t.ways {
		all += w.answered
		if len(w.lost) > 0 {
			t.c.t.Errorf("%s to %s: %d of %d requests lost, the first: %v", w.from.name, w.to, len(w.lost), len(w.lost)+w.answered, w.lost[0])
		}
	}
	t.c.t.Logf("%d requests of %d clients were answered", all, len(t.ways))
}

// pulse is UDP that is answered: numbers that go there and back. None is sent
// again, so each that is missing was lost.
type pulse struct {
	c        *cluster
	what     string
	conn     *net.UDPConn
	sent     atomic.Int64
	answered atomic.Int64
	stop     func()
}

// startPulse sends numbers from one place to another, 20 a second. They begin when the
// way has carried one, which is not counted: a device may be a moment old, and the lab's
// ENI loses what comes before the kernel has started its queue.
func (c *cluster) startPulse(from, to place) *pulse {
	c.t.Helper()
	server := c.openUDP(to.ns, func() (*net.UDPConn, error) {
		return net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.addr, 0)))
	})
	go func() {
		buf := make([]byte, 16)
		for {
			n, peer, err := server.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				server.WriteToUDPAddrPort(buf[:n], peer)
			}
		}
	}()
	p := &pulse{c: c, what: from.name + " to " + to.name}
	p.conn = c.openUDP(from.ns, func() (*net.UDPConn, error) {
		return net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.addr, 0)), server.LocalAddr().(*net.UDPAddr))
	})
	open := make(chan struct{})
	go p.receive(sync.OnceFunc(func() { close(open) }))
	c.eventually("the way "+p.what+" is open", func() error {
		p.conn.Write(binary.BigEndian.AppendUint64(nil, 0))
		select {
		case <-open:
			return nil
		default:
			return errors.New("no answer")
		}
	})
	stop, done := make(chan struct{}), make(chan struct{})
	p.stop = sync.OnceFunc(func() { close(stop); <-done })
	go func() {
		defer close(done)
		p.send(stop)
	}()
	c.t.Cleanup(p.stop)
	return p
}

func (p *pulse) send(stop <-chan struct{}) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		// That the way is not there is an error of this or of the next call, and
		// the number is lost like another.
		p.conn.Write(binary.BigEndian.AppendUint64(nil, uint64(p.sent.Add(1))))
	}
}

func (p *pulse) receive(opened func()) {
	buf := make([]byte, 16)
	for {
		n, err := p.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != 8 {
			continue
		}
		if binary.BigEndian.Uint64(buf) == 0 {
			opened()
		} else {
			p.answered.Add(1)
		}
	}
}

// goesOn waits until some more are answered.
func (p *pulse) goesOn() {
	p.c.t.Helper()
	const more = 10
	from := p.answered.Load()
	p.c.eventually("the pulse from "+p.what+" goes on", func() error {
		if n := p.answered.Load(); n < from+more {
			return fmt.Errorf("%d answers, want %d", n, from+more)
		}
		return nil
	})
}

// lostNone ends the pulse, and waits for an answer to every number.
func (p *pulse) lostNone() {
	p.c.t.Helper()
	p.stop()
	p.c.eventually("the pulse from "+p.what+" is answered", func() error {
		sent, answered := p.sent.Load(), p.answered.Load()
		if answered != sent {
			return fmt.Errorf("%d sent, %d answered: %d lost", sent, answered, sent-answered)
		}
		return nil
	})
	p.c.t.Logf("from %s: %d packets, none lost", p.what, p.sent.Load())
}

// openUDP opens a socket in a namespace. Its buffer is so large that a process
// which waits for the processor loses nothing.
func (c *cluster) openUDP(ns *os.File, open func() (*net.UDPConn, error)) *net.UDPConn {
	c.t.Helper()
	var conn *net.UDPConn
	err := netns.Do(ns, func() (err error) {
		conn, err = open()
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	raw, err := conn.SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	var fault error
	err = raw.Control(func(fd uintptr) {
		fault = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
	})
	if err := errors.Join(err, fault); err != nil {
		c.t.Fatal(err)
	}
	return conn
}
