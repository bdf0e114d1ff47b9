package kernel

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// newNS moves the test's thread into a network namespace of its own. The thread
// is not given back: it and its namespace end with the test.
func newNS(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare network namespace: %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
}

// pod is a namespace as the CNI plugin hands it over.
type pod struct{ ns, nl *os.File }

func newPod(t testing.TB) pod {
	t.Helper()
	type result struct {
		pod
		err error
	}
	ch := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies here
		var r result
		if r.err = unix.Unshare(unix.CLONE_NEWNET); r.err == nil {
			r.ns, r.err = os.Open("/proc/thread-self/ns/net")
		}
		if r.err == nil {
			var c *conn
			if c, r.err = dial(unix.NETLINK_ROUTE); r.err == nil {
				r.nl = os.NewFile(uintptr(c.fd), "netlink")
			}
		}
		ch <- r
	}()
	r := <-ch
	if r.err != nil {
		t.Fatalf("make pod namespace: %v", r.err)
	}
	t.Cleanup(func() { r.ns.Close(); r.nl.Close() })
	return r.pod
}

// in runs f inside the pod's namespace.
func (p pod) in(t *testing.T, f func() error) {
	t.Helper()
	ch := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(int(p.ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		ch <- err
	}()
	if err := <-ch; err != nil {
		t.Fatal(err)
	}
}

// twoENIs is a node with its primary and one more ENI, both as veths.
func twoENIs(t testing.TB) intent.Snapshot {
	t.Helper()
	for _, name := range []string{"ens5", "ens6"} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "-peer"}); err != nil {
			t.Fatal(err)
		}
		up(t, name+"-peer")
	}
	up(t, "ens5")
	l, err := netlink.LinkByName("ens5")
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := netlink.ParseAddr("10.0.1.5/24")
	if err := netlink.AddrAdd(l, addr); err != nil {
		t.Fatal(err)
	}
	a, p := netip.MustParseAddr, netip.MustParsePrefix
	native := []vpc.Native{{Prefix: p("10.0.0.0/16")}, {Prefix: p("10.1.0.0/16")}, {Prefix: p("192.168.0.0/20")}}
	return intent.Snapshot{
		Config: intent.Default(),
		ENIs: []intent.ENI{
			{Slot: 1, Device: "ens5", Native: native, ENI: vpc.ENI{ID: "eni-1", Subnet: p("10.0.1.0/24"),
				Primary: a("10.0.1.5"), Secondary: []netip.Addr{a("10.0.1.6"), a("10.0.1.7")}}},
			{Slot: 2, Device: "ens6", Native: native, ENI: vpc.ENI{ID: "eni-2", DeviceIndex: 1, Subnet: p("10.0.1.0/24"),
				Primary: a("10.0.1.9"), Prefixes: []netip.Prefix{p("10.0.1.32/28")}}},
		},
	}
}

func up(t testing.TB, name string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB) *Kernel {
	t.Helper()
	k, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// converge does what the agent does at its start.
func converge(t testing.TB, k *Kernel, s intent.Snapshot) {
	t.Helper()
	want := intent.Desired(s)
	have, err := k.Read(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Apply(diff.Compare(have, want)); err != nil {
		t.Fatal(err)
	}
}

func apply(t testing.TB, k *Kernel, changes []diff.Change) {
	t.Helper()
	if err := k.Apply(changes); err != nil {
		t.Fatal(err)
	}
}

// settled fails unless the kernel holds exactly what the snapshot asks for.
func settled(t testing.TB, k *Kernel, s intent.Snapshot) {
	t.Helper()
	want := intent.Desired(s)
	have, err := k.Read(want)
	if err != nil {
		t.Fatal(err)
	}
	if changes := diff.Compare(have, want); len(changes) > 0 {
		t.Errorf("kernel differs from intent:\n%s", lines(changes))
	}
}

// step is a part of a test with a name in the log. It is no subtest: that would
// run on another thread, in another network namespace.
func step(t *testing.T, name string, f func()) {
	t.Helper()
	t.Log(name)
	f()
}

func lines(changes []diff.Change) string {
	var b strings.Builder
	for _, c := range changes {
		b.WriteString(c.String() + "\n")
	}
	return b.String()
}

func attachment(id, addr string, slot node.Slot) node.Attachment {
	return node.Attachment{ContainerID: id, IfName: "eth0", Addr: netip.MustParseAddr(addr), Slot: slot,
		Veth: node.VethName(node.DefaultVethPrefix, id, "eth0"), Wired: true}
}

func TestKernelHoldsWhatIntentSays(t *testing.T) {
	newNS(t)
	s := twoENIs(t)
	k := open(t)
	converge(t, k, s)
	settled(t, k, s)

	p1, p2 := newPod(t), newPod(t)
	for _, w := range []Wiring{
		{Attachment: attachment("one", "10.0.1.6", 1), MTU: 9001, NetNS: p1.ns, Netlink: p1.nl},
		{Attachment: attachment("two", "10.0.1.33", 2), MTU: 9001, NetNS: p2.ns, Netlink: p2.nl},
	} {
		if err := k.Wire(w); err != nil {
			t.Fatal(err)
		}
		if err := k.Apply(diff.Compare(nil, intent.Pod(s, w.Attachment))); err != nil {
			t.Fatal(err)
		}
		s.Pods = append(s.Pods, w.Attachment)
		settled(t, k, s)
		if err := k.Verify(w); err != nil {
			t.Error(err)
		}
	}

	step(t, "another agent finds nothing to do", func() {
		again := open(t)
		settled(t, again, s)
		converge(t, again, s)
		settled(t, again, s)
	})

	step(t, "what drifted comes back, what is foreign stays", func() {
		foreign := &netlink.Route{Dst: &net.IPNet{IP: net.IPv4(203, 0, 113, 0), Mask: net.CIDRMask(24, 32)}, Table: node.PodTable,
			Protocol: unix.RTPROT_STATIC, Type: unix.RTN_BLACKHOLE}
		if err := netlink.RouteAdd(foreign); err != nil {
			t.Fatal(err)
		}
		stale := s
		stale.ENIs = slices.Clone(s.ENIs)
		stale.ENIs[0].Native = append(slices.Clone(s.ENIs[0].Native), vpc.Native{Prefix: netip.MustParsePrefix("172.16.0.0/16")})
		stale.Config.RandomizeSNAT = intent.NoRandom
		converge(t, k, stale)
		settled(t, k, stale)
		apply(t, k, diff.Compare([]node.Object{node.Rule{Priority: node.PodRulePriority, Table: node.PodTable}}, nil))
		converge(t, k, s)
		settled(t, k, s)
		got, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: node.PodTable, Protocol: unix.RTPROT_STATIC},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		if err != nil || len(got) != 1 {
			t.Errorf("foreign route: got %v, %v, want it untouched", got, err)
		}
	})

	step(t, "a released pod leaves nothing", func() {
		gone := s.Pods[1]
		s.Pods = s.Pods[:1]
		for range 2 { // a second DEL finds nothing and succeeds
			if err := k.Apply(diff.Compare(intent.Pod(s, gone), nil)); err != nil {
				t.Fatal(err)
			}
			if err := k.Unwire(gone); err != nil {
				t.Fatal(err)
			}
			settled(t, k, s)
			if err := k.Reap(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := netlink.LinkByName(gone.Veth); err == nil {
			t.Errorf("link %s is still there after Reap", gone.Veth)
		}
		if _, err := netlink.LinkByName(s.Pods[0].Veth); err != nil {
			t.Errorf("link of the other pod: %v", err)
		}
	})
}

func TestPodSide(t *testing.T) {
	newNS(t)
	k := open(t)
	p := newPod(t)
	w := Wiring{Attachment: attachment("one", "10.0.1.6", 1), MTU: 1500, NetNS: p.ns, Netlink: p.nl}
	if err := k.Wire(w); err != nil {
		t.Fatal(err)
	}
	p.in(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if got := l.Attrs(); got.MTU != 1500 || got.HardwareAddr.String() != "02:fb:0a:00:01:06" || got.Flags&net.FlagUp == 0 {
			t.Errorf("eth0: got %+v", got)
		}
		addrs, err := netlink.AddrList(l, unix.AF_UNSPEC)
		if err != nil {
			return err
		}
		if len(addrs) != 1 || addrs[0].IPNet.String() != "10.0.1.6/32" {
			t.Errorf("addresses: got %v, want 10.0.1.6/32 alone", addrs)
		}
		routes, err := netlink.RouteList(l, unix.AF_INET)
		if err != nil {
			return err
		}
		var got []string
		for _, r := range routes {
			dst := "default"
			if r.Dst != nil && r.Dst.String() != "0.0.0.0/0" {
				dst = r.Dst.String()
			}
			got = append(got, dst+" via "+r.Gw.String()+" "+r.Scope.String())
		}
		slices.Sort(got)
		if d := cmp.Diff([]string{"169.254.1.1/32 via <nil> link", "default via 169.254.1.1 universe"}, got); d != "" {
			t.Errorf("routes (-want +got):\n%s", d)
		}
		neighbors, err := netlink.NeighList(l.Attrs().Index, unix.AF_INET)
		if err != nil {
			return err
		}
		if len(neighbors) != 1 || neighbors[0].State != unix.NUD_PERMANENT || neighbors[0].HardwareAddr.String() != string(node.GatewayMAC) {
			t.Errorf("neighbors: got %v, want the gateway, permanent", neighbors)
		}
		return nil
	})
	for name, want := range map[string]string{"rp_filter": "0", "accept_local": "1"} {
		b, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + w.Veth + "/" + name)
		if err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s of the host side: got %q, %v, want %s", name, b, err, want)
		}
	}
}

func TestWireRefusals(t *testing.T) {
	newNS(t)
	k := open(t)
	p := newPod(t)
	one := Wiring{Attachment: attachment("one", "10.0.1.6", 1), MTU: 9001, NetNS: p.ns, Netlink: p.nl}
	if err := k.Verify(one); !errors.Is(err, ErrNotWired) {
		t.Errorf("Verify before Wire: got %v, want %v", err, ErrNotWired)
	}
	if err := k.Wire(one); err != nil {
		t.Fatal(err)
	}

	step(t, "a taken interface name", func() {
		two := Wiring{Attachment: attachment("two", "10.0.1.7", 1), MTU: 9001, NetNS: p.ns, Netlink: p.nl}
		if err := k.Wire(two); !errors.Is(err, ErrIfNameTaken) {
			t.Fatalf("got %v, want %v", err, ErrIfNameTaken)
		}
		if _, err := netlink.LinkByName(two.Veth); err == nil {
			t.Error("the refused request left a device")
		}
	})
	step(t, "a retired device of the same attachment goes first", func() {
		if err := k.Unwire(one.Attachment); err != nil {
			t.Fatal(err)
		}
		if err := k.Wire(one); err != nil {
			t.Fatal(err)
		}
		if err := k.Verify(one); err != nil {
			t.Error(err)
		}
	})
	step(t, "an index that is taken", func() {
		other := newPod(t)
		before, err := netlink.LinkByName(one.Veth)
		if err != nil {
			t.Fatal(err)
		}
		k.next = before.Attrs().Index // as an agent that has just started
		w := Wiring{Attachment: attachment("three", "10.0.1.8", 1), MTU: 9001, NetNS: other.ns, Netlink: other.nl}
		if err := k.Wire(w); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(k.Verify(w), k.Verify(one)); err != nil {
			t.Error(err)
		}
	})
	step(t, "a foreign device of our name is not touched", func() {
		other := newPod(t)
		w := Wiring{Attachment: attachment("four", "10.0.1.10", 1), MTU: 9001, NetNS: other.ns, Netlink: other.nl}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = w.Veth
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "foreign"}); err != nil {
			t.Fatal(err)
		}
		if err := k.Wire(w); err == nil || !strings.Contains(err.Error(), "not ours") {
			t.Errorf("got %v, want a refusal", err)
		}
		if _, err := netlink.LinkByName("foreign"); err != nil {
			t.Errorf("foreign device: %v", err)
		}
	})
	step(t, "verify names what is wrong", func() {
		p.in(t, func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			a, _ := netlink.ParseAddr("10.0.1.6/32")
			return netlink.AddrDel(l, a)
		})
		if err := k.Verify(one); err == nil || !strings.Contains(err.Error(), "10.0.1.6") {
			t.Errorf("got %v, want one that names the address", err)
		}
	})
}

// TestOnlyItsOwnAddress sends real packets from a pod: its own source passes,
// another pod's and the node's are dropped and counted.
func TestOnlyItsOwnAddress(t *testing.T) {
	newNS(t)
	s := twoENIs(t)
	k := open(t)
	converge(t, k, s)
	pods := []pod{newPod(t), newPod(t)}
	for i, p := range pods {
		a := attachment([]string{"one", "two"}[i], []string{"10.0.1.6", "10.0.1.7"}[i], 1)
		if err := k.Wire(Wiring{Attachment: a, MTU: 9001, NetNS: p.ns, Netlink: p.nl}); err != nil {
			t.Fatal(err)
		}
		if err := k.Apply(diff.Compare(nil, intent.Pod(s, a))); err != nil {
			t.Fatal(err)
		}
		s.Pods = append(s.Pods, a)
	}
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 0, 1, 5), Port: 4000})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()

	send := func(source string) {
		pods[0].in(t, func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			if source != "10.0.1.6" {
				a, _ := netlink.ParseAddr(source + "/32")
				if err := netlink.AddrAdd(l, a); err != nil {
					return err
				}
			}
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(source)}, &net.UDPAddr{IP: net.IPv4(10, 0, 1, 5), Port: 4000})
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("from " + source))
			return err
		})
	}
	send("10.0.1.7")
	send("10.0.1.9")
	send("10.0.1.6")
	const patience = time.Minute
	end := time.Now().Add(patience)
	if err := sink.SetReadDeadline(end); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := sink.Read(buf)
	if err != nil || string(buf[:n]) != "from 10.0.1.6" {
		t.Errorf("first packet: got %q, %v, want the one from its own address", buf[:n], err)
	}
	// Packets of one sender may be worked on by two processors: the last can be there
	// before the first is counted.
	var dropped map[string]uint64
	for dropped[CounterSpoofed] < 2 && time.Now().Before(end) {
		if dropped, err = k.Dropped(); err != nil {
			t.Fatal(err)
		}
	}
	if dropped[CounterSpoofed] != 2 {
		t.Errorf("counters: got %v, want 2 spoofed", dropped)
	}
}

func TestProbeLeavesNoTrace(t *testing.T) {
	newNS(t)
	k := open(t)
	if err := k.Probe(); err != nil {
		t.Fatal(err)
	}
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := c.ListTables()
	if err != nil || len(tables) != 0 {
		t.Errorf("tables after the probe: got %v, %v, want none", tables, err)
	}
}
