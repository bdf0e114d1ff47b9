package fabric

import (
	"testing"
)

func peered() Topology {
	w := world(
		routed("vpc-1", eniA()).route("i-a", Route{pfx("10.1.0.0/16"), ToPeering, "pcx-1"}),
		routed("vpc-2", eniC()).route("i-c", Route{pfx("10.0.0.0/16"), ToPeering, "pcx-1"}))
	w.Peerings = []Peering{{"pcx-1", [2]string{"vpc-1", "vpc-2"}}}
	return w
}

func TestPeeringNeedsRoutesOnBothSides(t *testing.T) {
	f := newFabric(t)
	w := peered()
	back := w.VPCs[1]
	w.VPCs[1] = routed("vpc-2", eniC())
	g := start(t, f, w)
	g["i-c"].web("10.1.1.10")
	g["i-a"].web("10.0.1.10")
	// There, but not back.
	in := g["i-c"].wire("ens5", 0x0800)
	g["i-a"].send(eniA(), "10.1.1.10")
	in.receive(isIPv4("10.0.1.10", "10.1.1.10"))
	g["i-c"].send(eniC(), "10.0.1.10")
	waitFor(t, "the answer to be dropped", func() bool { return packets(t, f, eniC().ID)[NoRoute] > 0 })
	w.VPCs[1] = back
	mustHold(t, f, w)
	mustReach(t, g["i-a"], "10.0.1.10", "10.1.1.10", "10.0.1.10")
	mustReach(t, g["i-c"], "10.1.1.10", "10.0.1.10", "10.1.1.10")
}

func TestPeeringCountsWhatHasNoOwner(t *testing.T) {
	f := newFabric(t)
	g := start(t, f, peered())
	g["i-a"].send(eniA(), "10.1.9.9")
	waitLinkDrops(t, f, "pcx-1", map[Reason]uint64{NoOwner: 1})
	waitDrops(t, f, eniA().ID, map[Reason]uint64{})
}

func TestPeeringKeepsTTL(t *testing.T) {
	f := newFabric(t)
	g := start(t, f, peered())
	in := g["i-c"].wire("ens5", 0x0800)
	out := g["i-a"].wire("ens5", 0x0800)
	for _, ttl := range []byte{1, 2, 64, 254, 255} {
		out.send(packet{macA, RouterMAC, "10.0.1.10", "10.1.1.10", ttl, nil}.frame())
		got := in.receive(isIPv4("10.0.1.10", "10.1.1.10"))
		if got[22] != ttl || sum(got[14:34]) != 0xffff {
			t.Errorf("sent ttl %d: got ttl %d, checksum sums to %#x", ttl, got[22], sum(got[14:34]))
		}
	}
}

// vpc-1 -- vpc-2 -- vpc-3: the routes of vpc-2 are for its own subnets only.
func TestPeeringIsNotTransitive(t *testing.T) {
	f := newFabric(t)
	w := world(
		routed("vpc-1", eniA()).route("i-a", Route{pfx("10.0.0.0/8"), ToPeering, "pcx-1"}),
		routed("vpc-2", eniC()).route("i-c", Route{pfx("10.0.0.0/16"), ToPeering, "pcx-1"}, Route{pfx("10.2.0.0/16"), ToPeering, "pcx-2"}),
		routed("vpc-3", eniD()).route("i-d", Route{pfx("10.0.0.0/8"), ToPeering, "pcx-2"}))
	w.Peerings = []Peering{{"pcx-1", [2]string{"vpc-1", "vpc-2"}}, {"pcx-2", [2]string{"vpc-2", "vpc-3"}}}
	g := start(t, f, w)
	g["i-c"].web("10.1.1.10")
	mustReach(t, g["i-a"], "10.0.1.10", "10.1.1.10", "10.0.1.10")
	mustReach(t, g["i-d"], "10.2.1.10", "10.1.1.10", "10.2.1.10")
	g["i-a"].send(eniA(), "10.2.1.10")
	waitLinkDrops(t, f, "pcx-1", map[Reason]uint64{NoRoute: 1})
}

// The internet gateway, or NAT gateway, of a peer is not there for others.
func TestNoEdgeToEdgeRouting(t *testing.T) {
	f := newFabric(t)
	peer := routed("vpc-2", eniC()).public("10.1.1.10", "198.51.100.1", "10.1.1.200", "198.51.100.2")
	peer.NATGateways = []NATGateway{{"nat-1", "subnet-i-c", adr("10.1.1.200")}}
	peer = peer.route("i-c", peer.toInternet(), Route{pfx("10.0.0.0/16"), ToPeering, "pcx-1"})
	w := world(routed("vpc-1", eniA()).route("i-a", Route{everything, ToPeering, "pcx-1"}), peer)
	w.Peerings = []Peering{{"pcx-1", [2]string{"vpc-1", "vpc-2"}}}
	g := start(t, f, w)
	g["internet"].web(host)
	mustReach(t, g["i-c"], "10.1.1.10", host, "198.51.100.1")
	g["i-a"].send(eniA(), host)
	waitLinkDrops(t, f, "pcx-1", map[Reason]uint64{NoRoute: 1})
}
