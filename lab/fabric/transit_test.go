package fabric

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// hub joins vpc-1 (a), vpc-2 (c) and vpc-3 (d). vpc-2 is shared: the spokes 1
// and 3 have a table that leads there only.
func hub() Topology {
	all := Route{pfx("10.0.0.0/8"), ToTransitGateway, "tgw-1"}
	w := world(
		routed("vpc-1", eniA()).route("i-a", all),
		routed("vpc-2", eniC()).route("i-c", all),
		routed("vpc-3", eniD()).route("i-d", all))
	w.TransitGateways = []TransitGateway{{
		ID: "tgw-1",
		Attachments: []Attachment{
			{ID: "tgw-attach-0000000000000001", VPC: "vpc-1", Table: "spokes"},
			{ID: "tgw-attach-0000000000000002", VPC: "vpc-2", Table: "shared"},
			{ID: "tgw-attach-0000000000000003", VPC: "vpc-3", Table: "spokes"},
		},
		Tables: []RouteTable{
			{"spokes", []Route{{pfx("10.1.0.0/16"), ToAttachment, "tgw-attach-0000000000000002"}, {Dst: pfx("10.2.1.0/24"), Kind: Blackhole}}},
			{"shared", []Route{
				{pfx("10.0.0.0/16"), ToAttachment, "tgw-attach-0000000000000001"},
				{pfx("10.2.0.0/16"), ToAttachment, "tgw-attach-0000000000000003"},
				{pfx("10.4.0.0/16"), ToAttachment, "tgw-attach-0000000000000009"},
			}},
		},
	}}
	return w
}

func TestTransitGatewayTablesIsolate(t *testing.T) {
	f := newFabric(t)
	g := start(t, f, hub())
	g["i-c"].web("10.1.1.10")
	g["i-a"].web("10.0.1.10")
	mustReach(t, g["i-a"], "10.0.1.10", "10.1.1.10", "10.0.1.10")
	mustReach(t, g["i-d"], "10.2.1.10", "10.1.1.10", "10.2.1.10")
	mustReach(t, g["i-c"], "10.1.1.10", "10.0.1.10", "10.1.1.10")
	g["i-a"].send(eniA(), "10.2.1.10")
	waitLinkDrops(t, f, "tgw-attach-0000000000000001", map[Reason]uint64{NoRouteTarget: 1})
	g["i-d"].send(eniD(), "10.0.1.10")
	waitLinkDrops(t, f, "tgw-attach-0000000000000003", map[Reason]uint64{NoRoute: 1})
	g["i-c"].send(eniC(), "10.4.1.1") // a route to an attachment that is not there
	waitLinkDrops(t, f, "tgw-attach-0000000000000002", map[Reason]uint64{NoRouteTarget: 1})
	// An attachment without a table leads nowhere.
	w := hub()
	w.TransitGateways[0].Attachments[0].Table = ""
	mustHold(t, f, w)
	g["i-a"].send(eniA(), "10.1.1.10")
	waitLinkDrops(t, f, "tgw-attach-0000000000000001", map[Reason]uint64{NoRouteTarget: 1, NoRoute: 1})
}

// One VPC's NAT gateway serves another by the transit gateway, where the
// attachment's subnet has the routes.
func TestTransitGatewayAsksTheTableOfTheAttachmentsSubnet(t *testing.T) {
	f := newFabric(t)
	v1 := routed("vpc-1", eniA()).route("i-a", Route{everything, ToTransitGateway, "tgw-1"})
	v2 := routed("vpc-2", eniC()).public("10.1.1.200", "198.51.100.200")
	v2.NATGateways = []NATGateway{{"nat-1", "subnet-i-c", adr("10.1.1.200")}}
	v2.Subnets = append(v2.Subnets, Subnet{ID: "subnet-tgw", CIDR: pfx("10.1.2.0/28"), RouteTable: "rtb-tgw"})
	v2.RouteTables = append(v2.RouteTables, RouteTable{"rtb-tgw", []Route{{everything, ToNATGateway, "nat-1"}}})
	v2 = v2.route("i-c", v2.toInternet(), Route{pfx("10.0.0.0/16"), ToTransitGateway, "tgw-1"})
	w := world(v1, v2)
	w.TransitGateways = []TransitGateway{{
		ID:          "tgw-1",
		Attachments: []Attachment{{ID: "att-1", VPC: "vpc-1", Table: "t"}, {ID: "att-2", VPC: "vpc-2", Table: "t", Subnet: "subnet-tgw"}},
		Tables:      []RouteTable{{"t", []Route{{everything, ToAttachment, "att-2"}, {pfx("10.0.0.0/16"), ToAttachment, "att-1"}}}},
	}}
	g := start(t, f, w)
	g["internet"].web(host)
	mustReach(t, g["i-a"], "10.0.1.10", host, "198.51.100.200")
	w.TransitGateways[0].Attachments[1].Subnet = ""
	mustHold(t, f, w)
	g["i-a"].send(eniA(), host)
	waitLinkDrops(t, f, "att-2", map[Reason]uint64{NoRoute: 1})
}

func TestCheckLinks(t *testing.T) {
	v1 := routed("vpc-1", eniA()).public("10.0.1.10", "198.51.100.1")
	v2 := routed("vpc-2", eniC()).public("10.1.1.10", "198.51.100.1")
	v2.InternetGateway = "igw-vpc-1"
	v2.NATGateways = []NATGateway{{"nat-1", "subnet-nowhere", adr("10.1.1.200")}, {"nat-2", "subnet-i-c", adr("10.1.1.10")}}
	v2 = v2.route("i-c", Route{Dst: netip.MustParsePrefix("10.0.0.1/16"), Kind: Blackhole})
	w := world(v1, v2)
	w.Peerings = []Peering{{"pcx-1", [2]string{"vpc-1", "vpc-9"}}, {"pcx-2", [2]string{"vpc-1", "vpc-1"}}, {"no-route", [2]string{"vpc-1", "vpc-2"}}}
	w.TransitGateways = []TransitGateway{{
		ID:          "tgw-1",
		Attachments: []Attachment{{ID: "att-1", VPC: "vpc-1"}, {ID: "att-2", VPC: "vpc-1"}, {ID: "att-1", VPC: "vpc-2"}},
		Tables:      []RouteTable{{"t", []Route{{Dst: pfx("10.0.0.0/8"), Kind: Blackhole}, {Dst: pfx("10.0.0.0/8"), Kind: Blackhole}}}},
	}}
	got := w.check()
	want := `vpc vpc-2: route table rtb-i-c: destination 10.0.0.1/16 is not an IPv4 prefix without host bits
vpc vpc-2: nat gateway nat-1: no subnet "subnet-nowhere" in vpc vpc-2
vpc vpc-2: nat gateway nat-2: address 10.1.1.10/32 belongs to eni-0ccccccccccccccc1
vpc vpc-2: internet gateway igw-vpc-1: igw-vpc-1 is taken by igw-vpc-1
vpc vpc-2: public address 198.51.100.1 of 10.1.1.10: belongs to 10.0.1.10 in vpc-1
peering pcx-1: vpc vpc-9: no such vpc in the fabric
peering pcx-2: both ends are in one vpc
peering no-route: vpc-1 no-route is taken by the fabric
attachment att-2 of tgw-1: its vpc has another attachment to this transit gateway
attachment att-1 of tgw-1: att-1 is taken by att-1
transit gateway tgw-1: route table t: two routes to 10.0.0.0/8`
	if diff := cmp.Diff(want, errors.Join(got.errs...).Error()); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
	// The rest of it works.
	f := newFabric(t)
	newGuest(t, f, "i-a")
	newGuest(t, f, "i-c")
	if res, err := f.Sync(context.Background(), w); err == nil || !res.ENIs[eniA().ID].Plugged || !res.ENIs[eniC().ID].Plugged {
		t.Errorf("sync of a bad topology: %v, %v", res, err)
	}
}

// The ACL of an attachment's subnet is asked about what instances send to the
// transit gateway, and about what comes from it for other subnets.
func TestTransitGatewayAsksTheACLOfTheAttachmentsSubnet(t *testing.T) {
	all, none := []ACLRule{aclRule(100, true, AllProtocols, 0, 0, "0.0.0.0/0")}, []ACLRule{}
	both := Route{pfx("10.0.0.0/8"), ToTransitGateway, "tgw-1"}
	v1, v2 := routed("vpc-1", eniA()).route("i-a", both), routed("vpc-2", eniC()).route("i-c", both)
	v2.Subnets = append(v2.Subnets, Subnet{ID: "subnet-tgw", CIDR: pfx("10.1.2.0/28"), RouteTable: "rtb-i-c"})
	w := world(v1, v2)
	w.TransitGateways = []TransitGateway{{
		ID:          "tgw-1",
		Attachments: []Attachment{{ID: "att-1", VPC: "vpc-1", Table: "t"}, {ID: "att-2", VPC: "vpc-2", Table: "t"}},
		Tables:      []RouteTable{{"t", []Route{{pfx("10.0.0.0/16"), ToAttachment, "att-1"}, {pfx("10.1.0.0/16"), ToAttachment, "att-2"}}}},
	}}
	f := newFabric(t)
	g := start(t, f, w)
	a, c := g["i-a"].udp("10.0.1.10:5000"), g["i-c"].udp("10.1.1.10:5000")
	drops := map[Reason]uint64{}
	ask := func(attachedTo, aclOf string, acl NetworkACL, fromA bool, reason Reason) {
		t.Helper()
		v := w.VPCs[1]
		v.ACLs = []NetworkACL{{ID: "acl", Ingress: acl.Ingress, Egress: acl.Egress}}
		for i := range v.Subnets {
			v.Subnets[i].ACL = ""
			if v.Subnets[i].ID == aclOf {
				v.Subnets[i].ACL = "acl"
			}
		}
		w.VPCs[1] = v
		w.TransitGateways[0].Attachments[1].Subnet = attachedTo
		mustHold(t, f, w)
		from, to, at := a, c, "10.1.1.10:5000"
		if !fromA {
			from, to, at = c, a, "10.0.1.10:5000"
		}
		if _, err := from.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort(at)); err != nil {
			t.Fatal(err)
		}
		if reason == 0 {
			receiveUDP(t, to)
		} else {
			drops[reason]++
		}
		waitLinkDrops(t, f, "att-2", drops)
	}
	deny, in, out := NetworkACL{Ingress: none, Egress: none}, NetworkACL{Ingress: all, Egress: none}, NetworkACL{Ingress: none, Egress: all}
	ask("subnet-i-c", "subnet-i-c", deny, true, 0) // within the subnet nothing is asked
	ask("subnet-i-c", "subnet-i-c", out, false, NACLIngress)
	ask("subnet-tgw", "subnet-tgw", out, false, NACLIngress)
	ask("subnet-tgw", "subnet-tgw", in, false, 0)
	ask("subnet-tgw", "subnet-tgw", in, true, NACLEgress)
	ask("subnet-tgw", "subnet-tgw", out, true, 0)
}

// An ENI that forwards with another's source sends from its own subnet.
func TestACLKnowsWhoSentByTheENI(t *testing.T) {
	ea, eb := eniA(), testENI(eniB().ID, "i-b", macB, "10.0.1.20")
	ea.SubnetID, eb.SubnetID = "subnet-a", "subnet-a"
	ea.SourceDestCheck = false
	l := newFilterLab(t, ea, eb)
	l.vpc.Subnets = []Subnet{{ID: "subnet-a", CIDR: ea.Subnet, ACL: "acl-1"}}
	l.vpc.ACLs = []NetworkACL{{ID: "acl-1"}}
	l.sync()
	l.passes(ipFrame(macA, "10.9.9.9", "10.0.1.20", 17, 0, udp(4000, 53)))
}
