package scenarios

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/runtime"
)

// internetHost is the host beyond the internet gateway, in the worlds that have it.
var internetHost = netip.MustParseAddr("203.0.113.10")

// end is one end of a flow.
type end struct {
	name string
	ns   *os.File
	addr netip.Addr
}

func (n *node) podEnd(p runtime.Pod) end { return end{p.Name, n.podNetns(p), podAddr(p)} }
func (n *node) hostEnd() end             { return end{n.name, n.netns(), n.addr} }

// internet is the host beyond the internet gateway.
func (l *lab) internet() end { return end{"the internet", l.Fabric().Internet(), internetHost} }

// stream is a TCP connection on which numbered messages go there and back, some
// each second, for as long as it lives.
type stream struct {
	*talk
	from, to end
	seen     netip.Addr   // the address that the server sees
	broken   func() error // of one that has broken, why
}

// pace is the time between two messages of a stream: they must not take the
// processor from who mends their way.
const pace = 5 * time.Millisecond

// streamTo connects from one end to another.
func streamTo(t *testing.T, from, to end) *stream {
	t.Helper()
	return streamVia(t, from, to, to.addr)
}

// streamVia is streamTo where the client knows the server by another address.
func streamVia(t *testing.T, from, to end, by netip.Addr) *stream {
	t.Helper()
	what := fmt.Sprintf("stream from %s to %s", from.name, to.name)
	port := serve(t, to)
	conn, err := dial(t.Context(), from, netip.AddrPortFrom(by, port))
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	s, err := startStream(t, conn, what)
	if err != nil {
		t.Fatal(err)
	}
	s.from, s.to = from, to
	return s
}

// serve listens at an end until the test ends. It tells each client the address
// that it sees, and sends back what comes.
func serve(t *testing.T, at end) (port uint16) {
	t.Helper()
	var ln net.Listener
	err := netns.Do(at.ns, func() (err error) {
		ln, err = net.Listen("tcp4", netip.AddrPortFrom(at.addr, 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				seen := netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr().As4()
				if _, err := conn.Write(seen[:]); err == nil {
					io.Copy(conn, conn)
				}
			}()
		}
	}()
	return netip.MustParseAddrPort(ln.Addr().String()).Port()
}

// dial connects from an end's own address.
func dial(ctx context.Context, from end, to netip.AddrPort) (net.Conn, error) {
	var conn net.Conn
	err := netns.Do(from.ns, func() (err error) {
		d := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from.addr, 0))}
		conn, err = d.DialContext(ctx, "tcp4", to.String())
		return err
	})
	return conn, err
}

func startStream(t *testing.T, conn net.Conn, what string) (*stream, error) {
	var seen [4]byte
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(conn, seen[:]); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	s := &stream{talk: &talk{what: what}, seen: netip.AddrFrom4(seen)}
	var stopped atomic.Bool
	var broke atomic.Pointer[error]
	s.broken = func() error {
		if err := broke.Load(); err != nil {
			return *err
		}
		return nil
	}
	result := make(chan error, 1)
	go func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		var err error
		for err == nil && !stopped.Load() {
			<-tick.C
			err = s.round(conn)
		}
		if err != nil {
			broke.Store(&err)
		}
		result <- err
	}()
	s.end = sync.OnceValue(func() error {
		stopped.Store(true)
		err := <-result
		conn.Close()
		return err
	})
	t.Cleanup(func() {
		conn.Close() // nobody asks any more whether it works
		s.end()
	})
	return s, nil
}

// seenAs asserts what the server sees.
func (s *stream) seenAs(t *testing.T, want netip.Addr) *stream {
	t.Helper()
	if s.seen != want {
		t.Errorf("%s comes from %s, want %s", s.what, s.seen, want)
	}
	return s
}

// translated says that the server does not see the client's own address.
func (s *stream) translated() bool { return s.seen != s.from.addr }

// allGoOn waits until every stream has got further.
func allGoOn(t *testing.T, streams []*stream) {
	t.Helper()
	const rounds = 20
	from := make([]int64, len(streams))
	for i, s := range streams {
		from[i] = s.rounds.Load()
	}
	eventually(t, "all streams go on", func() error {
		for i, s := range streams {
			if n := s.rounds.Load(); n < from[i]+rounds {
				return fmt.Errorf("%s: %d rounds, want %d (%v)", s.what, n, from[i]+rounds, s.broken())
			}
		}
		return nil
	})
}

// allEnd ends the streams; none of them may have broken.
func allEnd(t *testing.T, streams []*stream) {
	t.Helper()
	allGoOn(t, streams)
	for _, s := range streams {
		if err := s.end(); err != nil {
			t.Error(err)
		}
	}
}

// pulse is UDP that is answered: numbers that go there and back. None is sent
// again, so each that is missing was lost.
type pulse struct {
	what     string
	conn     *net.UDPConn
	sent     atomic.Int64
	answered atomic.Int64
	done     chan struct{}

	mu      sync.Mutex
	missing map[uint64]missed // by number: what is not answered yet
	stop    func()
}

// missed is a packet without an answer: when it was sent, and what the kernel said.
type missed struct {
	at    time.Time
	fault error
}

// startPulse sends a number from one end to another at every interval.
func startPulse(t *testing.T, from, to end, interval time.Duration) *pulse {
	t.Helper()
	server := openUDP(t, to.ns, func() (*net.UDPConn, error) {
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
	p := &pulse{what: fmt.Sprintf("pulse from %s to %s", from.name, to.name), done: make(chan struct{}), missing: make(map[uint64]missed)}
	p.conn = openUDP(t, from.ns, func() (*net.UDPConn, error) {
		return net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.addr, 0)), server.LocalAddr().(*net.UDPAddr))
	})
	go p.receive()
	stop := make(chan struct{})
	p.stop = sync.OnceFunc(func() { close(stop); <-p.done })
	go p.send(interval, stop)
	t.Cleanup(p.stop)
	return p
}

// startSteadyPulse is startPulse on a way that has carried some already, for those who
// count what is lost. A device may be a moment old, and the lab's ENI loses what comes
// before the kernel has started its queue: see the known limits of docs/design/fabric.md.
func startSteadyPulse(t *testing.T, from, to end, interval time.Duration) *pulse {
	t.Helper()
	first := startPulse(t, from, to, interval)
	first.goesOn(t)
	first.stop()
	return startPulse(t, from, to, interval)
}

func (p *pulse) send(interval time.Duration, stop <-chan struct{}) {
	defer close(p.done)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		// That the way is not there is an error of this or of the next call, and
		// the number is lost like another.
		n := uint64(p.sent.Add(1))
		p.mu.Lock()
		p.missing[n] = missed{at: time.Now()}
		p.mu.Unlock()
		if _, err := p.conn.Write(binary.BigEndian.AppendUint64(nil, n)); err != nil {
			p.mu.Lock()
			p.missing[n] = missed{time.Now(), err}
			p.mu.Unlock()
		}
	}
}

func (p *pulse) receive() {
	buf := make([]byte, 16)
	for {
		n, err := p.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n == 8 {
			p.mu.Lock()
			delete(p.missing, binary.BigEndian.Uint64(buf))
			p.mu.Unlock()
			p.answered.Add(1)
		}
	}
}

// goesOn waits until some more are answered.
func (p *pulse) goesOn(t *testing.T) {
	t.Helper()
	const more = 10
	from := p.answered.Load()
	eventually(t, p.what+" goes on", func() error {
		if n := p.answered.Load(); n < from+more {
			return fmt.Errorf("%d answers, want %d", n, from+more)
		}
		return nil
	})
}

// lostNone ends the pulse, and waits for an answer to every number.
func (p *pulse) lostNone(t *testing.T) {
	t.Helper()
	p.stop()
	eventually(t, p.what+" is answered", func() error {
		if sent, answered := p.sent.Load(), p.answered.Load(); answered != sent {
			return fmt.Errorf("%d sent, %d answered: %s", sent, answered, p.lost())
		}
		return nil
	})
}

// lost says which are missing, to be compared with the logs.
func (p *pulse) lost() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var text strings.Builder
	for _, n := range slices.Sorted(maps.Keys(p.missing)) {
		m := p.missing[n]
		fmt.Fprintf(&text, "%d lost, sent at %s (%v); ", n, m.at.UTC().Format("15:04:05.000"), m.fault)
	}
	return text.String()
}

// openUDP opens a socket in a namespace. Its buffer is so large that a process
// which waits for the processor loses nothing.
func openUDP(t *testing.T, ns *os.File, open func() (*net.UDPConn, error)) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := netns.Do(ns, func() (err error) {
		conn, err = open()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fault error
	err = raw.Control(func(fd uintptr) {
		fault = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	})
	if err := errors.Join(err, fault); err != nil {
		t.Fatal(err)
	}
	return conn
}

// plan asks the node's agent what it would change.
func (n *node) plan(ctx context.Context) (agentapi.Plan, error) {
	return agentapi.NewClient(n.file(agentapi.DefaultSocket)).Plan(ctx)
}

// repaired waits until the agent has nothing to change, and gives what the kernel
// then holds, as the agent lists it.
func (n *node) repaired(what string) string {
	n.t.Helper()
	var actual string
	eventually(n.t, what+": the kernel of "+n.name+" is as it should be", func() error {
		p, err := n.plan(n.t.Context())
		if err != nil {
			return err
		}
		if len(p.Changes) > 0 {
			return fmt.Errorf("%d changes, the first: %s", len(p.Changes), p.Changes[0].Text)
		}
		actual = p.Actual
		return nil
	})
	return actual
}

// restartAgent ends the agent by a signal and starts it again.
func (n *node) restartAgent(sig unix.Signal, flags ...string) {
	n.t.Helper()
	if err := n.SignalDaemon(n.t.Context(), "agent", sig); err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.WaitDaemon(n.t.Context(), "agent"); err != nil {
		n.t.Fatal(err)
	}
	n.startAgent(flags...)
}

// onSecondENI picks a pod whose address is on its node's second ENI.
func (l *lab) onSecondENI(pods []runtime.Pod) runtime.Pod {
	l.t.Helper()
	for _, p := range pods {
		for _, e := range l.Cloud().Snapshot().Interfaces {
			if slices.Contains(e.Secondary, podAddr(p)) && e.Attachment != nil && e.Attachment.DeviceIndex == 1 {
				return p
			}
		}
	}
	l.t.Fatalf("none of %d pods is on a second ENI", len(pods))
	return runtime.Pod{}
}
