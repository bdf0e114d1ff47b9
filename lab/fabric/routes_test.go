package fabric

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestSubnetRouteTables(t *testing.T) {
	f := newFabric(t)
	v := routed("vpc-1", eniA(), eniB()).public("10.0.1.10", "198.51.100.1", "10.0.2.10", "198.51.100.2")
	w := world(v.route("i-a", v.toInternet()))
	g := start(t, f, w)
	g["internet"].web(host)
	g["i-a"].web("10.0.1.10")
	mustReach(t, g["i-a"], "10.0.1.10", host, "198.51.100.1")
	// The other subnet's table has no such route, but the local one.
	g["i-b"].send(eniB(), host)
	waitDrops(t, f, eniB().ID, map[Reason]uint64{NoRoute: 1})
	mustReach(t, g["i-b"], "10.0.2.10", "10.0.1.10", "10.0.2.10")
	// Another table for the subnet holds at once; so does none at all.
	shared := w.VPCs[0]
	shared.Subnets = []Subnet{shared.Subnets[0], shared.Subnets[1]}
	shared.Subnets[1].RouteTable = "rtb-i-a"
	mustHold(t, f, world(shared))
	mustReach(t, g["i-b"], "10.0.2.10", host, "198.51.100.2")
	shared.Subnets = []Subnet{shared.Subnets[0], shared.Subnets[1]}
	shared.Subnets[1].RouteTable = ""
	mustHold(t, f, world(shared))
	g["i-b"].send(eniB(), host)
	waitDrops(t, f, eniB().ID, map[Reason]uint64{NoRoute: 2})
	mustReach(t, g["i-b"], "10.0.2.10", "10.0.1.10", "10.0.2.10")
}

func TestLongestPrefixWins(t *testing.T) {
	f := newFabric(t)
	v := routed("vpc-1", eniA(), eniB()).public("10.0.1.10", "198.51.100.1")
	v = v.route("i-a", v.toInternet(),
		Route{Dst: pfx("203.0.113.8/32"), Kind: Blackhole},
		Route{Dst: pfx("10.0.0.0/8"), Kind: Blackhole}) // less specific than local
	g := start(t, f, world(v))
	g["internet"].web(host)
	g["i-b"].web("10.0.2.10")
	mustReach(t, g["i-a"], "10.0.1.10", host, "198.51.100.1")
	mustReach(t, g["i-a"], "10.0.1.10", "10.0.2.10", "10.0.1.10")
	g["i-a"].send(eniA(), hostB)
	g["i-a"].send(eniA(), "10.9.9.9")
	waitDrops(t, f, eniA().ID, map[Reason]uint64{NoRouteTarget: 2})
}

func TestLostTargetIsABlackhole(t *testing.T) {
	f := newFabric(t)
	v := routed("vpc-1", eniA(), eniB()).public("10.0.1.10", "198.51.100.1")
	b := v.ENIs[1]
	v = v.route("i-a", v.toInternet(),
		Route{pfx("10.1.0.0/16"), ToPeering, "pcx-1"},
		Route{pfx("10.7.0.0/16"), ToTransitGateway, "tgw-1"},
		Route{pfx("10.8.0.0/16"), ToENI, eniB().ID},
		Route{pfx("10.9.0.0/16"), ToNATGateway, "nat-1"})
	v.ENIs[1].SourceDestCheck = false
	w := world(v, routed("vpc-2", eniC()).route("i-c", Route{pfx("10.0.0.0/16"), ToPeering, "pcx-1"}))
	w.Peerings = []Peering{{"pcx-1", [2]string{"vpc-1", "vpc-2"}}}
	g := start(t, f, w)
	g["i-c"].web("10.1.1.10")
	mustReach(t, g["i-a"], "10.0.1.10", "10.1.1.10", "10.0.1.10")
	// The default route leads to the internet, yet nothing takes it.
	b.Guest = ""
	v.ENIs = []ENI{v.ENIs[0], b}
	w.VPCs = []VPC{v}
	w.Peerings = nil
	mustHold(t, f, w)
	for _, dst := range []string{"10.1.1.10", "10.7.7.7", "10.8.8.8", "10.9.9.9"} {
		g["i-a"].send(eniA(), dst)
	}
	waitDrops(t, f, eniA().ID, map[Reason]uint64{NoRouteTarget: 4})
}

// From the moment that a link goes to the Sync's writing of routes, too.
func TestRemovedLinkLeavesABlackhole(t *testing.T) {
	f := newFabric(t)
	w := peered()
	w.VPCs[0] = w.VPCs[0].public()
	w.VPCs[0] = w.VPCs[0].route("i-a", w.VPCs[0].toInternet())
	g := start(t, f, w)
	keep := f.wantedLinks(world(w.VPCs...).check()) // without the peering
	for i := range keep {
		for j := range keep[i].ends {
			keep[i].ends[j].index = f.linkPorts[linkKey{keep[i].id, keep[i].ends[j].place}]
		}
	}
	f.retireLinks(keep)
	g["i-a"].send(eniA(), "10.1.1.10")
	waitDrops(t, f, eniA().ID, map[Reason]uint64{NoRouteTarget: 1})
}

func TestRouteToENI(t *testing.T) {
	f := newFabric(t)
	third := testENI("eni-0ccccccccccccccc1", "i-c", MAC{2, 0xc, 0, 0, 0, 1}, "10.0.3.10")
	v := routed("vpc-1", eniA(), eniB(), third).route("i-a",
		Route{pfx("203.0.113.0/24"), ToENI, eniB().ID},
		Route{pfx("10.0.3.0/24"), ToENI, eniB().ID}) // more specific than local
	v.ENIs[1].Addresses = []netip.Addr{adr("10.0.3.77")}
	g := start(t, f, world(v))
	in := g["i-b"].wire("ens5", unix.ETH_P_IP)
	// With the check on, it gets only what it owns.
	g["i-a"].send(eniA(), host)
	g["i-a"].send(eniA(), "10.0.3.10")
	waitDrops(t, f, eniA().ID, map[Reason]uint64{SrcDstCheck: 2})
	g["i-a"].send(eniA(), "10.0.3.77")
	in.receive(isIPv4("10.0.1.10", "10.0.3.77"))
	// With the check off, all that is routed to it.
	v.ENIs[1].SourceDestCheck = false
	mustHold(t, f, world(v))
	for _, dst := range []string{host, "10.0.3.10"} {
		g["i-a"].send(eniA(), dst)
		in.receive(isIPv4("10.0.1.10", dst))
	}
	// The other subnets go there directly.
	g["i-c"].send(third, "10.0.1.10")
	g["i-a"].wire("ens5", unix.ETH_P_IP) // a's own answers go by b: see the counters
	waitDrops(t, f, eniA().ID, map[Reason]uint64{SrcDstCheck: 2})
}

func TestNATInstance(t *testing.T) {
	f := newFabric(t)
	v := routed("vpc-1", eniA(), eniB()).public("10.0.2.10", "198.51.100.2")
	v.ENIs[1].SourceDestCheck = false
	v = v.route("i-a", Route{everything, ToENI, eniB().ID}).route("i-b", v.toInternet())
	g := start(t, f, world(v))
	g["internet"].web(host)
	g["i-b"].forward()
	g["i-b"].do(func() error { return masquerade(adr("10.0.2.10")) })
	mustReach(t, g["i-a"], "10.0.1.10", host, "198.51.100.2")
	// With the check on it is no NAT instance.
	v.ENIs[1].SourceDestCheck = true
	mustHold(t, f, world(v))
	g["i-a"].send(eniA(), host)
	waitDrops(t, f, eniA().ID, map[Reason]uint64{SrcDstCheck: 1})
}

func TestVPCCIDRsComeAndGo(t *testing.T) {
	f := newFabric(t)
	v := routed("vpc-1", eniA(), eniC()).public()
	v = v.route("i-a", v.toInternet())
	second := v
	second.CIDRs = append(second.CIDRs, pfx("10.1.0.0/16"))
	second.InternetGateway = v.InternetGateway
	g := start(t, f, world(second))
	g["i-c"].web("10.1.1.10")
	mustReach(t, g["i-a"], "10.0.1.10", "10.1.1.10", "10.0.1.10")
	g["i-a"].send(eniA(), "10.1.9.9")
	waitDrops(t, f, eniA().ID, map[Reason]uint64{NoOwner: 1})
	// Without the CIDR the address is out there.
	without := second
	without.CIDRs, without.ENIs = v.CIDRs, v.ENIs[:1]
	mustHold(t, f, world(without))
	g["i-a"].send(eniA(), "10.1.9.9")
	waitDrops(t, f, eniA().ID, map[Reason]uint64{NoOwner: 1, NoPublicAddress: 1})
}

func TestSyncOfAWholeWorldTwiceChangesNothing(t *testing.T) {
	f := newFabric(t)
	w := wholeWorld()
	for _, v := range w.VPCs {
		for _, e := range v.ENIs {
			newGuest(t, f, e.Guest)
		}
	}
	mustHold(t, f, w)
	want := allDump(t, f)
	mustHold(t, f, w)
	if diff := cmp.Diff(want, allDump(t, f), dumpOptions); diff != "" {
		t.Errorf("second Sync changed the kernel (-first +second):\n%s", diff)
	}
	// What others did to it is mended: a rule, a table's route, a link.
	n := f.vpcs["vpc-1"]
	rules, err := n.nl.RuleList(unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if r.Table >= tableBase {
			if err := n.nl.RuleDel(&r); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, id := range []string{"pcx-1", "att-3", "igw-vpc-1"} {
		l, err := n.nl.LinkByName(DeviceName(id))
		if id == "att-3" {
			l, err = f.vpcs["vpc-3"].nl.LinkByName(id)
		}
		if err != nil {
			t.Fatal(err)
		}
		at := n
		if id == "att-3" {
			at = f.vpcs["vpc-3"]
		}
		if err := at.nl.LinkDel(l); err != nil {
			t.Fatal(err)
		}
	}
	if cmp.Equal(want, allDump(t, f), dumpOptions) {
		t.Fatal("the dump does not see the harm")
	}
	mustHold(t, f, w)
	if diff := cmp.Diff(want, allDump(t, f), dumpOptions); diff != "" {
		t.Errorf("not mended (-want +got):\n%s", diff)
	}
	// All of it goes again.
	w.Peerings, w.TransitGateways = nil, nil
	for i := range w.VPCs {
		w.VPCs[i].InternetGateway, w.VPCs[i].NATGateways, w.VPCs[i].RouteTables = "", nil, nil
	}
	mustHold(t, f, w)
	for p, n := range f.places() {
		links, err := n.nl.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			if isLink(l) {
				t.Errorf("%s has %s still", p, l.Attrs().Name)
			}
		}
		routes, err := n.allRoutes()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			if r.Table >= tableBase {
				t.Errorf("%s has a route still: %v", p, r)
			}
		}
	}
	if len(f.transit) != 0 {
		t.Errorf("transit gateways still: %v", f.transit)
	}
}

// wholeWorld has one of everything.
func wholeWorld() Topology {
	v1 := routed("vpc-1", eniA(), eniB()).public("10.0.1.10", "198.51.100.1", "10.0.2.200", "198.51.100.200")
	v1.NATGateways = []NATGateway{{"nat-1", "subnet-i-b", adr("10.0.2.200")}}
	v1 = v1.route("i-b", v1.toInternet()).route("i-a", Route{everything, ToNATGateway, "nat-1"},
		Route{pfx("10.1.0.0/16"), ToPeering, "pcx-1"}, Route{pfx("10.2.0.0/16"), ToTransitGateway, "tgw-1"})
	v3 := routed("vpc-3", eniD()).route("i-d", Route{pfx("10.0.0.0/8"), ToTransitGateway, "tgw-1"})
	w := world(v1, routed("vpc-2", eniC()), v3)
	w.Peerings = []Peering{{"pcx-1", [2]string{"vpc-1", "vpc-2"}}}
	w.TransitGateways = []TransitGateway{{
		ID:          "tgw-1",
		Attachments: []Attachment{{ID: "att-1", VPC: "vpc-1", Table: "hub"}, {ID: "att-3", VPC: "vpc-3", Table: "hub"}},
		Tables:      []RouteTable{{"hub", []Route{{pfx("10.0.0.0/16"), ToAttachment, "att-1"}, {pfx("10.2.0.0/16"), ToAttachment, "att-3"}}}},
	}}
	return w
}
