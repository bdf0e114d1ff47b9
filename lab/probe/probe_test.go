package probe

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// pairOfNamespaces makes two namespaces with a veth between them, 10.9.0.1/24 on
// one side and .2 on the other. They end with the test.
func pairOfNamespaces(t *testing.T) (a, b *os.File) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces (CAP_SYS_ADMIN)")
	}
	a, b = newNamespace(t), newNamespace(t)
	err := netns.Do(a, func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v0", PeerNamespace: netlink.NsFd(int(b.Fd())),
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, ns := range []*os.File{a, b} {
		do(t, ns, func() error { return configure("v0", fmt.Sprintf("10.9.0.%d/24", i+1)) })
	}
	for _, ns := range []*os.File{a, b} {
		// Until the kernel has noticed that the veth has a carrier it sends nothing.
		waitIn(t, ns, "the veth to be up", func() bool {
			l, err := netlink.LinkByName("v0")
			return err == nil && l.Attrs().OperState == netlink.OperUp
		})
	}
	return a, b
}

// patience is not reached, however busy the machine.
const patience = time.Minute

// waitIn waits in a namespace for a condition.
func waitIn(t *testing.T, ns *os.File, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ok := false; ; {
		do(t, ns, func() error { ok = cond(); return nil })
		if ok {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("waited %s for %s", patience, what)
		case <-tick.C:
		}
	}
}

func newNamespace(t *testing.T) *os.File {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	do(t, ns, func() error { return configure("lo") })
	return ns
}

func do(t *testing.T, ns *os.File, fn func() error) {
	t.Helper()
	if err := netns.Do(ns, fn); err != nil {
		t.Fatal(err)
	}
}

func configure(link string, addrs ...string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD // usable at once
		if err := netlink.AddrAdd(l, addr); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

func at(name, addr string, ns *os.File) Endpoint {
	return Endpoint{Name: name, Addr: netip.MustParseAddr(addr), NetNS: ns}
}

// probe runs the pairs and gives how each went. Where o says nothing a flow has all the
// time that it may need.
func probe(t *testing.T, eps []Endpoint, pairs []Pair, o Options) []Result {
	t.Helper()
	o.Timeout = cmp.Or(o.Timeout, patience)
	r, err := Run(t.Context(), eps, pairs, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Results) != len(pairs) {
		t.Fatalf("%d results of %d pairs", len(r.Results), len(pairs))
	}
	return r.Results
}

func wantKinds(t *testing.T, got []Result, want ...Kind) {
	t.Helper()
	var kinds []Kind
	for _, r := range got {
		kinds = append(kinds, r.Kind)
	}
	if diff := gocmp.Diff(want, kinds); diff != "" {
		t.Errorf("(-want +got)\n%s%+v", diff, got)
	}
}

// quick is a timeout for flows that are expected to run into it.
const quick = 200 * time.Millisecond

func TestFlows(t *testing.T) {
	a, b := pairOfNamespaces(t)
	v4 := []Endpoint{at("a", "10.9.0.1", a), at("b", "10.9.0.2", b)}
	got := probe(t, v4, append(AllPairs(2), Pair{0, 0}), Options{})
	wantKinds(t, got, OK, OK, OK)
	for _, r := range got {
		if r.RTT <= 0 || r.Detail != "" {
			t.Errorf("flow %v: round trip %v, detail %q", r.Pair, r.RTT, r.Detail)
		}
	}

	// On the loopback: over a veth IPv6 takes seconds to be usable.
	do(t, a, func() error { return configure("lo", "fd09::1/128") })
	waitIn(t, a, "the address to have its route", func() bool {
		routes, err := netlink.RouteGet(net.ParseIP("fd09::1"))
		return err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL
	})
	wantKinds(t, probe(t, []Endpoint{at("a", "fd09::1", a)}, []Pair{{0, 0}}, Options{Port: 9000, Parallel: 1}), OK)
}

// Many more flows than slots, all between the same two.
func TestParallel(t *testing.T) {
	a, b := pairOfNamespaces(t)
	var pairs []Pair
	for range 200 {
		pairs = append(pairs, AllPairs(2)...)
	}
	for _, r := range probe(t, []Endpoint{at("a", "10.9.0.1", a), at("b", "10.9.0.2", b)}, pairs, Options{Parallel: 8}) {
		if r.Kind != OK {
			t.Fatalf("%+v", r)
		}
	}
}

func TestWrongSource(t *testing.T) {
	a, b := pairOfNamespaces(t)
	eps := []Endpoint{at("a", "10.9.0.77", a), at("b", "10.9.0.2", b)}
	got := probe(t, eps, []Pair{{0, 1}}, Options{})
	wantKinds(t, got, WrongSource)
	if want := "source seen 10.9.0.1, want 10.9.0.77"; got[0].Detail != want {
		t.Errorf("detail %q, want %q", got[0].Detail, want)
	}
}

// An address that is not there, one without a route, one that cannot be listened on.
func TestUnreachable(t *testing.T) {
	a, b := pairOfNamespaces(t)
	do(t, b, func() error { return configure("lo", "10.9.0.9/32", "192.0.2.1/32", "10.8.0.1/32") })
	do(t, a, func() error {
		link, err := netlink.LinkByName("v0")
		if err != nil {
			return err
		}
		// A neighbour that nobody is: packets leave and are lost.
		return netlink.NeighAdd(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: net.IPv4(10, 9, 0, 9), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9},
		})
	})
	eps := []Endpoint{
		at("a", "10.9.0.1", a),
		at("lost", "10.9.0.9", b),
		at("no route", "192.0.2.1", b),
		at("not its own", "10.9.0.3", b),
	}
	got := append(probe(t, eps, []Pair{{0, 1}}, Options{Timeout: quick}), probe(t, eps, []Pair{{0, 2}, {0, 3}}, Options{})...)
	wantKinds(t, got, Timeout, Unreachable, NoListener)
	for i, want := range []string{"no answer to the SYN", "network is unreachable", "10.9.0.3:7070"} {
		if !strings.Contains(got[i].Detail, want) {
			t.Errorf("detail %q, want %q in it", got[i].Detail, want)
		}
	}
}

// b's address is also somebody else's, in a namespace that answers instead.
func TestDeliveredElsewhere(t *testing.T) {
	a, b := pairOfNamespaces(t)
	c := newNamespace(t)
	do(t, c, func() error { return configure("lo", "10.9.0.2/32") })
	eps := []Endpoint{at("a", "10.9.0.1", a), at("b", "10.9.0.2", c), at("elsewhere", "10.9.0.2", b)}
	got := probe(t, eps, []Pair{{0, 1}, {0, 2}}, Options{})
	wantKinds(t, got, WrongAnswer, OK)
	if got[0].Detail != "answered by elsewhere" {
		t.Errorf("detail %q", got[0].Detail)
	}

	// Nobody listens where the flow goes.
	wantKinds(t, probe(t, eps[:2], []Pair{{0, 1}}, Options{}), Refused)
}

// Who answers is not a probe: it says too little, nonsense, or nothing.
func TestForeignServer(t *testing.T) {
	a, b := pairOfNamespaces(t)
	elsewhere := newNamespace(t)
	do(t, elsewhere, func() error { return configure("lo", "10.9.0.2/32") })
	eps := []Endpoint{at("a", "10.9.0.1", a), at("b", "10.9.0.2", elsewhere)}
	for _, tt := range []struct {
		name  string
		serve func(net.Conn)
		want  Kind
	}{
		{"closes", func(c net.Conn) { io.ReadFull(c, make([]byte, nonceSize)) }, WrongAnswer},
		{"nonsense", func(c net.Conn) { c.Write(make([]byte, answerSize)); io.Copy(io.Discard, c) }, WrongAnswer},
		{"another endpoint", func(c net.Conn) {
			buf := make([]byte, answerSize)
			io.ReadFull(c, buf[:nonceSize])
			binary.BigEndian.PutUint32(buf[nonceSize:], 99)
			c.Write(buf)
			io.Copy(io.Discard, c)
		}, WrongAnswer},
		{"silent", func(c net.Conn) { io.Copy(io.Discard, c) }, Timeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var l net.Listener
			do(t, b, func() (err error) { l, err = net.Listen("tcp", "10.9.0.2:7070"); return err })
			done := make(chan struct{})
			go func() {
				defer close(done)
				if conn, err := l.Accept(); err == nil {
					tt.serve(conn)
					conn.Close()
				}
			}()
			var o Options
			if tt.want == Timeout {
				o.Timeout = quick
			}
			wantKinds(t, probe(t, eps, []Pair{{0, 1}}, o), tt.want)
			l.Close()
			<-done
		})
	}
}

func TestRunCancelled(t *testing.T) {
	a, b := pairOfNamespaces(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := Run(ctx, []Endpoint{at("a", "10.9.0.1", a), at("b", "10.9.0.2", b)}, AllPairs(2), Options{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	wantKinds(t, r.Results, NotTried, NotTried)
}

func TestRunRefusesNonsense(t *testing.T) {
	ns, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	good := at("a", "10.9.0.1", ns)
	for _, tt := range []struct {
		name string
		eps  []Endpoint
		pair Pair
		want string
	}{
		{"no such endpoint", []Endpoint{good}, Pair{0, 1}, "there are 1 endpoints"},
		{"negative", []Endpoint{good}, Pair{-1, 0}, "there are 1 endpoints"},
		{"no namespace", []Endpoint{{Name: "x", Addr: good.Addr}}, Pair{0, 0}, `"x" has no namespace`},
		{"no address", []Endpoint{{Name: "x", NetNS: ns}}, Pair{0, 0}, "want IPv4 or IPv6"},
		{"two families", []Endpoint{good, at("b", "fd09::2", ns)}, Pair{0, 1}, "one address family"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Run(t.Context(), tt.eps, []Pair{tt.pair}, Options{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
	// A file that is no namespace is found out when it is entered.
	wantKinds(t, probe(t, []Endpoint{good}, []Pair{{0, 0}}, Options{}), NoListener)
	if _, err := ask(t.Context(), good, netip.MustParseAddrPort("10.9.0.1:1"), quick); kindOf(err) != Failed {
		t.Errorf("got %v, want a failure of the namespace", err)
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, answerSize))
	f.Add(append(make([]byte, nonceSize), "\xff\xff\xff\xff0123456789abcdef"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAnswer(b, [nonceSize]byte{})
		if err == nil && (len(b) != answerSize || !a.seen.IsValid() || a.server < 0) {
			t.Fatalf("accepted %x as %+v", b, a)
		}
		if err != nil && !errors.Is(err, errAnswer) {
			t.Fatal(err)
		}
	})
}
