package fabric

import (
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestTCPBetweenSubnets(t *testing.T) {
	f := newFabric(t)
	a, b := newGuest(t, f, "i-a"), newGuest(t, f, "i-b")
	mustSync(t, f, vpcOf(eniA(), eniB()))
	a.boot(eniA())
	b.boot(eniB())
	a.serve("10.0.1.10:80", "a")
	b.serve("10.0.2.10:80", "b")
	a.mustAsk("10.0.1.10", "10.0.2.10:80", "b to 10.0.1.10")
	b.mustAsk("10.0.2.10", "10.0.1.10:80", "a to 10.0.2.10")
	for _, id := range []string{eniA().ID, eniB().ID} {
		if diff := cmp.Diff(map[Reason]uint64{}, packets(t, f, id)); diff != "" {
			t.Errorf("drops of %s (-want +got):\n%s", id, diff)
		}
	}
}

func TestDeviceInGuest(t *testing.T) {
	f := newFabric(t)
	a := newGuest(t, f, "i-a")
	mustSync(t, f, vpcOf(eniA()))
	a.do(func() error {
		l, err := netlink.LinkByName("ens5")
		if err != nil {
			return err
		}
		at := l.Attrs()
		if at.HardwareAddr.String() != macA.String() || at.MTU != 9001 || at.Flags&net.FlagUp != 0 {
			t.Errorf("ens5: mac %s mtu %d flags %v, want %s 9001 and down", at.HardwareAddr, at.MTU, at.Flags, macA)
		}
		return nil
	})
	// Detached, the device is gone when Sync returns; attached elsewhere it appears there.
	c := newGuest(t, f, "i-c")
	moved := eniA()
	moved.Guest, moved.Device = "i-c", "ens6"
	mustSync(t, f, vpcOf(moved))
	if got := links(t, a); !cmp.Equal(got, []string{"lo"}) {
		t.Errorf("devices of i-a after its ENI moved: %v", got)
	}
	if got := links(t, c); !cmp.Equal(got, []string{"lo", "ens6"}) {
		t.Errorf("devices of i-c after the ENI came: %v", got)
	}
	mustSync(t, f, vpcOf())
	if got := links(t, c); !cmp.Equal(got, []string{"lo"}) {
		t.Errorf("devices of i-c after the ENI was removed: %v", got)
	}
}

func links(t *testing.T, g *testGuest) []string {
	t.Helper()
	var names []string
	g.do(func() error {
		list, err := netlink.LinkList()
		for _, l := range list {
			names = append(names, l.Attrs().Name)
		}
		return err
	})
	return names
}

func TestJumboFrames(t *testing.T) {
	f := newFabric(t)
	a, b := newGuest(t, f, "i-a"), newGuest(t, f, "i-b")
	mustSync(t, f, vpcOf(eniA(), eniB()))
	a.boot(eniA())
	b.boot(eniB())
	in := b.udp("10.0.2.10:53")
	out := a.udp("10.0.1.10:53")
	control(t, out, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	})
	payload := make([]byte, 9001-28)
	if _, err := out.WriteToUDPAddrPort(payload, netip.MustParseAddrPort("10.0.2.10:53")); err != nil {
		t.Fatal(err)
	}
	if n, _ := receiveUDP(t, in); n != len(payload) {
		t.Errorf("received %d bytes, want %d", n, len(payload))
	}
}

func TestSecondaryAddressAndPrefix(t *testing.T) {
	f := newFabric(t)
	a, b := newGuest(t, f, "i-a"), newGuest(t, f, "i-b")
	ea, eb := eniA(), eniB()
	ea.Addresses = []netip.Addr{netip.MustParseAddr("10.0.1.77")}
	eb.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.0.2.32/28")}
	mustSync(t, f, vpcOf(ea, eb))
	a.boot(ea)
	b.boot(eb)
	a.address("10.0.1.77")
	b.address("10.0.2.32")
	b.address("10.0.2.47")
	a.serve("10.0.1.77:80", "a")
	b.serve("10.0.2.32:80", "b")
	b.mustAsk("10.0.2.47", "10.0.1.77:80", "a to 10.0.2.47")
	a.mustAsk("10.0.1.77", "10.0.2.32:80", "b to 10.0.1.77")
	// The first address behind the prefix is nobody's.
	b.wire("ens5", unix.ETH_P_IP).send(packet{macB, RouterMAC, "10.0.2.48", "10.0.1.77", 64, nil}.frame())
	waitDrops(t, f, eb.ID, map[Reason]uint64{SrcDstCheck: 1})
	a.wire("ens5", unix.ETH_P_IP).send(packet{macA, RouterMAC, "10.0.1.77", "10.0.2.48", 64, nil}.frame())
	waitDrops(t, f, ea.ID, map[Reason]uint64{NoOwner: 1})
}

// waitDrops demands the drops of an ENI, all of them.
func waitDrops(t *testing.T, f *Fabric, eni string, want map[Reason]uint64) {
	t.Helper()
	total := func(m map[Reason]uint64) (n uint64) {
		for v := range maps.Values(m) {
			n += v
		}
		return n
	}
	waitFor(t, "drops of "+eni, func() bool { return total(packets(t, f, eni)) >= total(want) })
	if diff := cmp.Diff(want, packets(t, f, eni)); diff != "" {
		t.Errorf("drops of %s (-want +got):\n%s", eni, diff)
	}
}

func TestSourceDestCheck(t *testing.T) {
	f := newFabric(t)
	a, b := newGuest(t, f, "i-a"), newGuest(t, f, "i-b")
	mustSync(t, f, vpcOf(eniA(), eniB()))
	a.boot(eniA())
	b.boot(eniB())
	in, out := b.wire("ens5", unix.ETH_P_IP), a.wire("ens5", unix.ETH_P_IP)
	spoofed := packet{macA, RouterMAC, "192.168.7.7", "10.0.2.10", 64, nil}.frame()
	own := packet{macA, RouterMAC, "10.0.1.10", "10.0.2.10", 64, nil}.frame()

	out.send(spoofed)
	out.send(own)
	in.receive(isIPv4("10.0.1.10", "10.0.2.10"))
	waitDrops(t, f, eniA().ID, map[Reason]uint64{SrcDstCheck: 1})
	all, err := f.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := all[eniA().ID][SrcDstCheck].Bytes, uint64(len(spoofed)); got != want {
		t.Errorf("bytes dropped: %d, want %d", got, want)
	}

	unchecked := eniA()
	unchecked.SourceDestCheck = false
	mustSync(t, f, vpcOf(unchecked, eniB()))
	out.send(spoofed)
	in.receive(isIPv4("192.168.7.7", "10.0.2.10"))
	// The MAC is checked all the same.
	out.send(packet{macB, RouterMAC, "10.0.1.10", "10.0.2.10", 64, nil}.frame())
	waitDrops(t, f, eniA().ID, map[Reason]uint64{SrcDstCheck: 1, MACSpoof: 1})
}

func TestDropReasons(t *testing.T) {
	f := newFabric(t)
	a := newGuest(t, f, "i-a")
	unplugged := testENI("eni-0ccccccccccccccc1", "", MAC{2, 0xc, 0, 0, 0, 1}, "10.0.3.10")
	good := packet{macA, RouterMAC, "10.0.1.10", "10.0.9.9", 64, nil}
	with := func(change func(*packet)) []byte {
		p := good
		change(&p)
		return p.frame()
	}
	broken := func(change func(ip []byte)) []byte {
		f := good.frame()
		change(f[14:])
		f[24], f[25] = 0, 0
		binary.BigEndian.PutUint16(f[24:], ^sum(f[14:34]))
		return f
	}
	badSum := good.frame()
	badSum[24] ^= 0xff
	everyone := MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	tests := []struct {
		name    string
		reason  Reason
		frame   []byte
		nocheck bool // source/destination check off
	}{
		{"checksum", Malformed, badSum, false},
		{"ttl 0", Malformed, with(func(p *packet) { p.ttl = 0 }), false},
		{"version 6 in an IPv4 frame", Malformed, broken(func(ip []byte) { ip[0] = 0x65 }), false},
		{"header length 4", Malformed, broken(func(ip []byte) { ip[0] = 0x44 }), false},
		{"longer than the frame", Malformed, broken(func(ip []byte) { ip[3] = 29 }), false},
		{"shorter than its header", Malformed, broken(func(ip []byte) { ip[3] = 19 }), false},
		{"cut IPv4 header", Malformed, good.frame()[:14+19], false},
		{"cut arp", Malformed, ethernet(macA, everyone, unix.ETH_P_ARP, make([]byte, 27)), false},
		{"arp for another link layer", Malformed, ethernet(macA, everyone, unix.ETH_P_ARP, make([]byte, 28)), false},
		{"frame from another mac", MACSpoof, with(func(p *packet) { p.from = macB }), false},
		{"arp in another mac's name", MACSpoof, arpRequest(macA, macB, "10.0.1.10", "10.0.1.1"), false},
		{"frame to a peer's mac", NotRouterMAC, with(func(p *packet) { p.to = macB }), false},
		{"ipv6", NotIPv4, ethernet(macA, RouterMAC, unix.ETH_P_IPV6, make([]byte, 40)), false},
		{"vlan", NotIPv4, ethernet(macA, RouterMAC, unix.ETH_P_8021Q, append([]byte{0, 7, 8, 0}, good.frame()[14:]...)), false},
		{"multicast", Multicast, with(func(p *packet) { p.dst, p.to = "224.0.0.251", MAC{1, 0, 0x5e, 0, 0, 0xfb} }), false},
		{"multicast to the router", Multicast, with(func(p *packet) { p.dst = "239.1.1.1" }), false},
		{"dhcp", Multicast, with(func(p *packet) { p.src, p.dst, p.to = "0.0.0.0", "255.255.255.255", everyone }), false},
		{"broadcast of the subnet", Multicast, with(func(p *packet) { p.dst, p.to = "10.0.1.255", everyone }), false},
		{"record route", IPOptions, with(func(p *packet) { p.options = []byte{7, 7, 4, 0, 0, 0, 0, 0} }), false},
		{"source not of the eni", SrcDstCheck, with(func(p *packet) { p.src = "10.0.1.11" }), false},
		{"loopback source", Martian, with(func(p *packet) { p.src = "127.0.0.1" }), true},
		{"multicast source", Martian, with(func(p *packet) { p.src = "224.0.0.1" }), true},
		{"loopback destination", Martian, with(func(p *packet) { p.dst = "127.0.0.1" }), false},
		{"null destination", Martian, with(func(p *packet) { p.dst = "0.0.0.1" }), false},
		{"unknown link-local", LinkLocal, with(func(p *packet) { p.dst = "169.254.1.1" }), false},
		{"link-local source", LinkLocal, with(func(p *packet) { p.src = "169.254.1.1" }), true},
		{"a service's own address as source", LinkLocal, with(func(p *packet) { p.src = imds.String() }), true},
		{"unassigned address", NoOwner, with(func(p *packet) {}), false},
		{"the gateway itself", NoOwner, with(func(p *packet) { p.dst = "10.0.1.1" }), false},
		{"eni without instance", NotAttached, with(func(p *packet) { p.dst = "10.0.3.10" }), false},
		{"outside the vpc", NoRoute, with(func(p *packet) { p.dst = "8.8.8.8" }), false},
	}
	mustSync(t, f, vpcOf(eniA(), unplugged))
	a.boot(eniA())
	out := a.wire("ens5", unix.ETH_P_IP)
	seen := map[Reason]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			seen[tt.reason] = true
			e := eniA()
			e.SourceDestCheck = !tt.nocheck
			mustSync(t, f, vpcOf(e, unplugged))
			want := packets(t, f, e.ID)
			want[tt.reason]++
			out.send(tt.frame)
			waitDrops(t, f, e.ID, want)
		})
	}
	for _, r := range []Reason{LinkDown, Partitioned, FaultLoss} {
		seen[r] = true // only with a fault: fault_test.go
	}
	for _, r := range []Reason{NoRouteTarget, NoPublicAddress, TooBig, NoTranslation} {
		seen[r] = true // only on the way out of a VPC: routes_test.go and others
	}
	for _, r := range []Reason{SGEgress, SGIngress, NACLEgress, NACLIngress, Fragment} {
		seen[r] = true // only with filters: group_test.go and acl_test.go
	}
	for _, r := range Reasons() {
		if !seen[r] {
			t.Errorf("no row for reason %s", r)
		}
		if r.Meaning() == "" || strings.HasPrefix(r.String(), "REASON_") {
			t.Errorf("reason %d has no name or meaning", r)
		}
	}
}

func arpRequest(eth, sender MAC, from, to string) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	b = append(b, sender[:]...)
	b = append(b, netip.MustParseAddr(from).AsSlice()...)
	b = append(b, make([]byte, 6)...)
	b = append(b, netip.MustParseAddr(to).AsSlice()...)
	return ethernet(eth, MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, unix.ETH_P_ARP, b)
}

func TestARP(t *testing.T) {
	f := newFabric(t)
	a, b := newGuest(t, f, "i-a"), newGuest(t, f, "i-b")
	ea := eniA()
	ea.Addresses = []netip.Addr{netip.MustParseAddr("10.0.1.77")}
	ea.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.0.1.32/28")}
	peer := testENI("eni-0bbbbbbbbbbbbbbb1", "i-b", macB, "10.0.1.20")
	mustSync(t, f, vpcOf(ea, peer))
	a.boot(ea)
	b.boot(peer)
	w := a.wire("ens5", unix.ETH_P_ARP)

	for _, asked := range []string{"10.0.1.1", "10.0.1.20", "10.0.1.200", "10.9.9.9", imds.String(), "8.8.8.8"} {
		w.send(arpRequest(macA, macA, "10.0.1.10", asked))
		got := w.receive(isARPReply)
		want := ethernet(RouterMAC, macA, unix.ETH_P_ARP, []byte{0, 1, 8, 0, 6, 4, 0, 2})
		want = append(want, RouterMAC[:]...)
		want = append(want, netip.MustParseAddr(asked).AsSlice()...)
		want = append(want, macA[:]...)
		want = append(want, 10, 0, 1, 10)
		if diff := cmp.Diff(want, got[:42]); diff != "" {
			t.Errorf("answer for %s (-want +got):\n%s", asked, diff)
		}
	}
	// Nothing for the asker's own: the next answer is the one for the gateway.
	for _, own := range []string{"10.0.1.10", "10.0.1.77", "10.0.1.32", "10.0.1.47"} {
		w.send(arpRequest(macA, macA, "0.0.0.0", own))
		w.send(arpRequest(macA, macA, "10.0.1.10", "10.0.1.1"))
		if got := netip.AddrFrom4([4]byte(w.receive(isARPReply)[28:32])); got.String() != "10.0.1.1" {
			t.Errorf("asked for own %s: answer for %s", own, got)
		}
	}
	if got := packets(t, f, ea.ID); len(got) != 0 {
		t.Errorf("ARP counted as drops: %v", got)
	}
}

func TestOverlappingVPCs(t *testing.T) {
	f := newFabric(t)
	a1, b1 := newGuest(t, f, "i-a"), newGuest(t, f, "i-b")
	a2, b2 := newGuest(t, f, "i-a2"), newGuest(t, f, "i-b2")
	ea2, eb2 := eniA(), eniB()
	ea2.ID, ea2.Guest = "eni-0aaaaaaaaaaaaaaa2", "i-a2"
	eb2.ID, eb2.Guest = "eni-0bbbbbbbbbbbbbbb2", "i-b2"
	two := vpcOf(ea2, eb2)
	two.ID = "vpc-2"
	only1 := testENI("eni-0ccccccccccccccc1", "", MAC{2, 0xc, 0, 0, 0, 1}, "10.0.3.10")
	mustSync(t, f, vpcOf(eniA(), eniB(), only1), two)
	for g, e := range map[*testGuest]ENI{a1: eniA(), b1: eniB(), a2: ea2, b2: eb2} {
		g.boot(e)
	}
	b1.serve("10.0.2.10:80", "first")
	b2.serve("10.0.2.10:80", "second")
	a1.mustAsk("10.0.1.10", "10.0.2.10:80", "first to 10.0.1.10")
	a2.mustAsk("10.0.1.10", "10.0.2.10:80", "second to 10.0.1.10")
	// What one VPC has, the other has not.
	a2.wire("ens5", unix.ETH_P_IP).send(packet{macA, RouterMAC, "10.0.1.10", "10.0.3.10", 64, nil}.frame())
	waitDrops(t, f, ea2.ID, map[Reason]uint64{NoOwner: 1})
	// One goes, the other stays.
	mustSync(t, f, two)
	a2.mustAsk("10.0.1.10", "10.0.2.10:80", "second to 10.0.1.10")
	if got := links(t, a1); !cmp.Equal(got, []string{"lo"}) {
		t.Errorf("devices of i-a after its VPC was removed: %v", got)
	}
}

func TestAddressMoves(t *testing.T) {
	f := newFabric(t)
	a, b, c := newGuest(t, f, "i-a"), newGuest(t, f, "i-b"), newGuest(t, f, "i-c")
	ec := testENI("eni-0ccccccccccccccc1", "i-c", MAC{2, 0xc, 0, 0, 0, 1}, "10.0.2.20")
	pod := netip.MustParseAddr("10.0.2.99")
	withPod := func(e ENI) ENI { e.Addresses = []netip.Addr{pod}; return e }
	mustSync(t, f, vpcOf(eniA(), withPod(eniB()), ec))
	a.boot(eniA())
	b.boot(eniB())
	c.boot(ec)
	for g, word := range map[*testGuest]string{b: "b", c: "c"} {
		g.address(pod.String())
		g.serve(pod.String()+":80", word)
	}
	a.mustAsk("10.0.1.10", "10.0.2.99:80", "b to 10.0.1.10")
	mustSync(t, f, vpcOf(eniA(), eniB(), withPod(ec)))
	a.mustAsk("10.0.1.10", "10.0.2.99:80", "c to 10.0.1.10")
	// Its last owner may no longer send from it.
	b.wire("ens5", unix.ETH_P_IP).send(packet{macB, RouterMAC, pod.String(), "10.0.1.10", 64, nil}.frame())
	waitDrops(t, f, eniB().ID, map[Reason]uint64{SrcDstCheck: 1})
}

func TestTTLIsPreserved(t *testing.T) {
	f := newFabric(t)
	a, b := newGuest(t, f, "i-a"), newGuest(t, f, "i-b")
	mustSync(t, f, vpcOf(eniA(), eniB()))
	a.boot(eniA())
	b.boot(eniB())
	in := b.wire("ens5", unix.ETH_P_IP)
	out := a.wire("ens5", unix.ETH_P_IP)
	for _, ttl := range []byte{1, 2, 3, 64, 127, 128, 253, 254, 255} {
		// The checksum's high byte, which the correction moves, takes every value.
		for id := 0; id <= 0xffff; id += 0x100 {
			frame := packet{macA, RouterMAC, "10.0.1.10", "10.0.2.10", ttl, nil}.frame()
			binary.BigEndian.PutUint16(frame[18:], uint16(id))
			frame[24], frame[25] = 0, 0
			binary.BigEndian.PutUint16(frame[24:], ^sum(frame[14:34]))
			out.send(frame)
			got := in.receive(isIPv4("10.0.1.10", "10.0.2.10"))
			if got[22] != ttl || sum(got[14:34]) != 0xffff {
				t.Errorf("sent ttl %d id %#x: got ttl %d, checksum sums to %#x", ttl, id, got[22], sum(got[14:34]))
			}
		}
	}
	if got := packets(t, f, eniA().ID); len(got) != 0 {
		t.Errorf("drops: %v", got)
	}
}

// udp opens a socket in the guest.
func (g *testGuest) udp(addr string) *net.UDPConn {
	g.t.Helper()
	var c *net.UDPConn
	g.do(func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	})
	g.t.Cleanup(func() { c.Close() })
	return c
}
