package kubernetes

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// place is a network namespace and its address there: a pod, or an instance.
type place struct {
	name string
	ns   *os.File
	addr netip.Addr
}

// tryTime bounds one attempt to connect: those that fail do so in silence.
const tryTime = time.Second

// serve listens on a port of the place until the test ends. It tells each client
// its name and the address that it sees, and sends back what comes.
func serve(t *testing.T, at place, port uint16) {
	t.Helper()
	var ln net.Listener
	err := netns.Do(at.ns, func() (err error) {
		ln, err = net.Listen("tcp4", netip.AddrPortFrom(netip.IPv4Unspecified(), port).String())
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
				seen := netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr()
				if _, err := fmt.Fprintln(conn, at.name, seen); err == nil {
					io.Copy(conn, conn)
				}
			}()
		}
	}()
}

// flow is a TCP connection that is open.
type flow struct {
	what   string
	conn   net.Conn
	in     *bufio.Reader
	server string     // the name of who answers
	seen   netip.Addr // the client's address as the server sees it
	rounds uint64
}

// connect opens a flow and has one round on it.
func connect(from place, to netip.AddrPort) (*flow, error) {
	f := &flow{what: fmt.Sprintf("%s to %s", from.name, to)}
	err := netns.Do(from.ns, func() (err error) {
		f.conn, err = net.DialTimeout("tcp4", to.String(), tryTime)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.what, err)
	}
	f.in = bufio.NewReader(f.conn)
	f.conn.SetDeadline(time.Now().Add(patience))
	var seen string
	if _, err := fmt.Fscanln(f.in, &f.server, &seen); err != nil {
		f.conn.Close()
		return nil, fmt.Errorf("%s: %w", f.what, err)
	}
	if f.seen, err = netip.ParseAddr(seen); err == nil {
		err = f.round()
	}
	if err != nil {
		f.conn.Close()
		return nil, err
	}
	return f, nil
}

// round sends the next number and waits until it is back.
func (f *flow) round() error {
	var out, in [8]byte
	binary.BigEndian.PutUint64(out[:], f.rounds)
	f.conn.SetDeadline(time.Now().Add(patience))
	if _, err := f.conn.Write(out[:]); err != nil {
		return fmt.Errorf("%s: after %d rounds: %w", f.what, f.rounds, err)
	}
	if _, err := io.ReadFull(f.in, in[:]); err != nil {
		return fmt.Errorf("%s: after %d rounds: %w", f.what, f.rounds, err)
	}
	if in != out {
		return fmt.Errorf("%s: sent %x, got %x back", f.what, out, in)
	}
	f.rounds++
	return nil
}

// reach connects, tried again until patience is at its end, and asserts who
// answers. The flow stays open until the test ends.
func reach(t *testing.T, from place, to netip.AddrPort, server string) *flow {
	t.Helper()
	var f *flow
	eventually(t, fmt.Sprintf("%s reaches %s at %s", from.name, server, to), func() (err error) {
		f, err = connect(from, to)
		return err
	})
	t.Cleanup(func() { f.conn.Close() })
	if f.server != server {
		t.Errorf("%s: %s answers, want %s", f.what, f.server, server)
	}
	return f
}

// seenAs asserts which of the addresses the server sees.
func (f *flow) seenAs(t *testing.T, want ...netip.Addr) *flow {
	t.Helper()
	for _, a := range want {
		if a == f.seen {
			return f
		}
	}
	t.Errorf("%s comes from %s, want one of %s", f.what, f.seen, want)
	return f
}

// allGoOn has a round on every flow.
func allGoOn(t *testing.T, when string, flows []*flow) {
	t.Helper()
	for _, f := range flows {
		if err := f.round(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
}

// refused asserts that nobody answers.
func refused(t *testing.T, from place, to netip.AddrPort) {
	t.Helper()
	if f, err := connect(from, to); err == nil {
		f.conn.Close()
		t.Errorf("%s: %s answers, want nobody", f.what, f.server)
	}
}
