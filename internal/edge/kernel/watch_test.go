package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/node"
)

func watcher(t *testing.T, k *Kernel) *Watcher {
	t.Helper()
	w, err := Watch(k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// queued is all that the watcher has to say now: the kernel sends an event
// before the call that caused it returns.
func queued(t *testing.T, w *Watcher) []string {
	t.Helper()
	reasons, err := w.drain()
	if err != nil {
		t.Fatal(err)
	}
	return reasons
}

// wiredNode is a node with two ENIs, one pod, and nothing to repair.
func wiredNode(t *testing.T, k *Kernel) Wiring {
	t.Helper()
	s := twoENIs(t)
	converge(t, k, s)
	p := newPod(t)
	w := Wiring{Attachment: attachment("one", "10.0.1.6", 1), MTU: 9001, NetNS: p.ns, Netlink: p.nl}
	if err := k.Wire(w); err != nil {
		t.Fatal(err)
	}
	apply(t, k, diff.Compare(nil, intent.Pod(s, w.Attachment)))
	return w
}

func TestWatcherSeesWhatOthersDo(t *testing.T) {
	newNS(t)
	k := open(t)
	wiring := wiredNode(t, k)
	w := watcher(t, k)
	link := func(name string) netlink.Link {
		t.Helper()
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	ipNet := func(s string) *net.IPNet {
		_, n, err := net.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	write := func(path, value string) func() error {
		return func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/"+path, []byte(value), 0) }
	}
	ours := netlink.NewRule()
	ours.Family, ours.Priority, ours.Table, ours.Protocol = unix.AF_INET, node.PodRulePriority, node.PodTable, node.Protocol
	foreign := netlink.NewRule()
	foreign.Family, foreign.Priority, foreign.Table = unix.AF_INET, 50, 1002
	c, table := foreignTable(t)
	veth := wiring.Veth
	for _, tt := range []struct {
		do   func() error
		want string
	}{
		{func() error { return netlink.RuleDel(ours) }, "rule 20: from all lookup 100 was removed"},
		{func() error { return netlink.RuleAdd(foreign) }, "rule 50: from all lookup 1002 was written"},
		{func() error {
			return netlink.RouteDel(&netlink.Route{Table: 1001, Dst: ipNet("10.0.0.0/16"), Protocol: node.Protocol})
		}, "route 10.0.0.0/16 via 10.0.1.1 table 1001 onlink was removed"},
		{func() error {
			return netlink.RouteAdd(&netlink.Route{Table: node.PodTable, Dst: ipNet("10.3.0.0/16"), Type: unix.RTN_BLACKHOLE})
		}, "route 10.3.0.0/16 table 100 was written"},
		{func() error {
			return netlink.NeighDel(&netlink.Neigh{LinkIndex: link(veth).Attrs().Index, IP: net.IPv4(10, 0, 1, 6)})
		}, "neighbor 10.0.1.6 on " + veth + " was "},
		{func() error { return netlink.LinkSetMTU(link("ens6"), 1400) }, "link ens6 changed"},
		{func() error { return netlink.LinkSetMTU(link(veth), 1400) }, "link " + veth + " of a pod changed"},
		{func() error { return netlink.LinkSetGroup(link(veth), 0) }, "link " + veth + " of a pod changed"},
		{func() error { return netlink.LinkSetGroup(link(veth), node.LinkGroup) }, ""},
		{func() error { return netlink.LinkSetDown(link(veth)) }, "link " + veth + " of a pod changed"},
		{func() error { return netlink.LinkSetUp(link(veth)) }, ""},
		{func() error { return netlink.LinkDel(link(veth)) }, "link " + veth + " is gone"},
		{func() error {
			return netlink.AddrDel(link("ens6"), &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 0, 1, 9), Mask: net.CIDRMask(24, 32)}})
		}, "address 10.0.1.9/24 on ens6 was removed"},
		{func() error { return netlink.LinkSetDown(link("ens6")) }, "link ens6 changed"},
		{func() error { return netlink.LinkSetName(link("ens6"), "ens7") }, "link ens7 changed"},
		{func() error { return netlink.LinkDel(link("ens7")) }, "link ens"},
		{func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "ens8"
			return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "ens8-peer"})
		}, "link ens8"},
		{write("ens5/rp_filter", "1"), "IPv4 switches of ens5 were written"},
		{write("all/rp_filter", "1"), "IPv4 switches of all devices were written"},
		{func() error { c.FlushChain(&nftables.Chain{Table: table, Name: "from-pod"}); return c.Flush() }, "nftables table fairway: rule deleted"},
		{func() error { c.AddChain(&nftables.Chain{Table: table, Name: "mine"}); return c.Flush() }, "nftables table fairway: chain written"},
		{func() error { c.FlushRuleset(); return c.Flush() }, "nftables table fairway: "},
	} {
		if err := tt.do(); err != nil {
			t.Fatalf("%q: %v", tt.want, err)
		}
		got := queued(t, w)
		if tt.want == "" && len(got) > 0 || tt.want != "" && !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, tt.want) }) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	if got := queued(t, w); len(got) > 0 {
		t.Errorf("and %q after all that", got)
	}
}

// TestWatcherIsQuiet: not about what this process writes, nor about what does
// not concern us.
func TestWatcherIsQuiet(t *testing.T) {
	newNS(t)
	k := open(t)
	s := twoENIs(t)
	// Of sysctls and devices the kernel does not say who it was.
	first := slices.DeleteFunc(intent.Desired(s), func(o node.Object) bool { return o.Rank() > node.RankLink })
	apply(t, k, diff.Compare(nil, first))
	w := watcher(t, k)
	other := open(t)
	p := newPod(t)
	wiring := Wiring{Attachment: attachment("one", "10.0.1.6", 1), MTU: 9001, NetNS: p.ns, Netlink: p.nl}
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, quiet := range []struct {
		name string
		do   func() error
	}{
		{"routing and the table", func() error { return k.Apply(diff.Compare(first, intent.Desired(s))) }},
		{"an ADD", func() error {
			return errors.Join(k.Wire(wiring), k.Apply(diff.Compare(nil, intent.Pod(s, wiring.Attachment))))
		}},
		{"a CHECK", func() error { return k.Verify(wiring) }},
		{"a packet from the pod", func() error {
			p.in(t, func() error {
				conn, err := net.Dial("udp4", "10.0.1.5:9")
				if err != nil {
					return err
				}
				defer conn.Close()
				_, err = conn.Write([]byte("x"))
				return err
			})
			return nil
		}},
		{"a DEL", func() error {
			return errors.Join(k.Apply(diff.Compare(intent.Pod(s, wiring.Attachment), nil)), k.Unwire(wiring.Attachment), k.Reap())
		}},
		{"the table, replaced whole", func() error { return k.resetTable(intent.Desired(s)) }},
		{"somebody's rule, route and neighbour", func() error {
			r := netlink.NewRule()
			r.Family, r.Priority, r.Table = unix.AF_INET, 50, 300
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return errors.Join(netlink.RuleAdd(r),
				netlink.RouteAdd(&netlink.Route{Table: 300, Dst: &net.IPNet{IP: net.IPv4(9, 0, 0, 0), Mask: net.CIDRMask(8, 32)}, Type: unix.RTN_BLACKHOLE}),
				netlink.NeighSet(&netlink.Neigh{LinkIndex: lo.Attrs().Index, State: unix.NUD_PERMANENT, IP: net.IPv4(10, 0, 1, 77), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}))
		}},
		{"somebody's table of many rules", func() error {
			chain := node.Chain{Name: "services", Rules: strings.Repeat("return\n", 5000)}
			tx, err := compose("kube-proxy", diff.Compare(nil, []node.Object{chain}))
			if err != nil {
				return err
			}
			return errors.Join(other.nft.commit(tx.requests()), other.nft.commit([]request{tx.name.delete()}))
		}},
		{"somebody's table of our name in another family", func() error {
			t := c.AddTable(&nftables.Table{Name: node.TableName, Family: nftables.TableFamilyIPv4})
			c.AddChain(&nftables.Chain{Table: t, Name: "from-pod"})
			c.DelTable(t)
			return c.Flush()
		}},
	} {
		if err := quiet.do(); err != nil {
			t.Fatalf("%s: %v", quiet.name, err)
		}
		if got := queued(t, w); len(got) > 0 {
			t.Errorf("%s: got %q, want nothing", quiet.name, got)
		}
	}
}

// TestWatcherKnowsThatItLost: a queue that is too short for what comes.
func TestWatcherKnowsThatItLost(t *testing.T) {
	newNS(t)
	k := open(t)
	w := watcher(t, k)
	for _, c := range []*conn{w.route, w.nft} {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
			t.Fatal(err)
		}
	}
	s := twoENIs(t)
	converge(t, open(t), s) // another one
	for range 50 {
		converge(t, k, s)
	}
	why, err := w.Next(t.Context())
	if err != nil || !strings.Contains(why, "more") {
		t.Errorf("got %q, %v", why, err)
	}
	if _, known := w.ledger.links[1]; !known || len(w.ledger.links) != 5 {
		t.Errorf("links after the loss: got %v, want lo and two pairs", w.ledger.links)
	}
}

func TestNextWaitsAndEnds(t *testing.T) {
	newNS(t)
	k := open(t)
	converge(t, k, twoENIs(t))
	w := watcher(t, k)
	next := func(ctx context.Context) chan string {
		ch := make(chan string)
		go func() {
			why, err := w.Next(ctx)
			ch <- fmt.Sprintf("%s %v", why, err)
		}()
		return ch
	}

	ctx, cancel := context.WithCancel(t.Context())
	got := next(ctx)
	cancel()
	if s := <-got; s != " context canceled" {
		t.Errorf("Next with a context that ends: got %q", s)
	}
	if s := <-next(ctx); s != " context canceled" {
		t.Errorf("Next with a context that has ended: got %q", s)
	}

	got = next(t.Context())
	other := open(t)
	o := []node.Object{node.Route{Table: 1001, Dst: netip.MustParsePrefix("10.7.0.0/16"), Kind: node.Throw}}
	apply(t, k, diff.Compare(nil, o)) // not an event
	apply(t, other, diff.Compare(o, nil))
	if s := <-got; s != "route throw 10.7.0.0/16 table 1001 was removed <nil>" {
		t.Errorf("Next: got %q", s)
	}
}

// FuzzEvents: no datagram makes the ledger panic, and whatever it says is text.
func FuzzEvents(f *testing.F) {
	add := func(kind int, m *message) {
		b := slices.Clone(m.numbered(1, 0))
		b[4], b[5] = byte(kind), byte(kind>>8)
		f.Add(b)
	}
	dev := linkMessage(unix.RTM_NEWLINK, 0, 7)
	dev.text(unix.IFLA_IFNAME, "ens5")
	dev.u32(unix.IFLA_GROUP, node.LinkGroup)
	add(unix.RTM_NEWLINK, dev)
	add(unix.RTM_DELLINK, dev)
	add(unix.RTM_NEWADDR, newAddress(3, netip.MustParsePrefix("10.0.1.5/24"), 0))
	add(unix.RTM_DELROUTE, routeMessage(unix.RTM_NEWROUTE, 0, node.Route{Table: 100, Dst: netip.MustParsePrefix("10.0.1.6/32")}, 7))
	add(unix.RTM_NEWRULE, ruleMessage(unix.RTM_NEWRULE, 0, node.Rule{Priority: 20, Table: 100}))
	add(unix.RTM_NEWNEIGH, permanentNeighbor(7, node.GatewayAddr, node.GatewayMAC))
	netconf := newMessage(unix.RTM_NEWNETCONF, 0, sizeofNetconfmsg)
	netconf.fixed()[0] = unix.AF_INET
	netconf.u32(netconfIfIndex, 1<<32-1)
	add(unix.RTM_NEWNETCONF, netconf)
	add(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELTABLE, ourTable.delete().message)
	f.Fuzz(func(t *testing.T, b []byte) {
		l := ledger{route: 1, nft: 2, links: map[int32]link{3: {index: 3, name: "ens5"}, 7: {index: 7, name: "fwy0", group: node.LinkGroup, up: true}}}
		r := slices.Concat(l.routing(b).reasons, l.tables(b).reasons)
		if len(r) > len(b)/unix.NLMSG_HDRLEN*8 {
			t.Errorf("%d bytes are %d reasons", len(b), len(r))
		}
		if len(l.links) > 2+len(b)/unix.NLMSG_HDRLEN {
			t.Errorf("%d links", len(l.links))
		}
	})
}

// TestWatcherLooksAgain: where the devices could not be read after events were
// lost, they are at the next event.
func TestWatcherLooksAgain(t *testing.T) {
	newNS(t)
	k := open(t)
	wiredNode(t, k)
	w := watcher(t, k)
	w.blind, w.ledger.links = true, map[int32]link{}
	ens6, err := netlink.LinkByName("ens6")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetMTU(ens6, 1400); err != nil {
		t.Fatal(err)
	}
	if got := queued(t, w); len(got) == 0 || w.blind {
		t.Errorf("heard %q, blind: %t", got, w.blind)
	}
	links, err := netlink.LinkList()
	if err != nil || len(w.ledger.links) != len(links) {
		t.Errorf("%d devices are known of %d (%v)", len(w.ledger.links), len(links), err)
	}
}
