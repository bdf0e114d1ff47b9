package fabric

import (
	"context"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The tests of what leaves a VPC use this world, in parts:
//
//	a 10.0.1.10, b 10.0.2.10 in vpc-1 (10.0.0.0/16), c 10.1.1.10 in vpc-2
//	(10.1.0.0/16), d 10.2.1.10 in vpc-3 (10.2.0.0/16), internet 203.0.113.7 and .8

const (
	host  = "203.0.113.7"
	hostB = "203.0.113.8"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func adr(s string) netip.Addr   { return netip.MustParseAddr(s) }

func eniC() ENI { return testENI("eni-0ccccccccccccccc1", "i-c", MAC{2, 0xc, 0, 0, 0, 1}, "10.1.1.10") }
func eniD() ENI { return testENI("eni-0ddddddddddddddd1", "i-d", MAC{2, 0xd, 0, 0, 0, 1}, "10.2.1.10") }

// routed is a VPC with a /16 around its ENIs. Each ENI is alone in its subnet
// "subnet-<guest>", which has the table "rtb-<guest>", empty so far.
func routed(id string, enis ...ENI) VPC {
	cidr, _ := enis[0].Primary.Prefix(16)
	v := VPC{ID: id, CIDRs: []netip.Prefix{cidr}, Region: "eu-west-1", Public: map[netip.Addr]netip.Addr{}}
	for _, e := range enis {
		e.SubnetID = "subnet-" + e.Guest
		v.Subnets = append(v.Subnets, Subnet{ID: e.SubnetID, CIDR: e.Subnet, RouteTable: "rtb-" + e.Guest})
		v.RouteTables = append(v.RouteTables, RouteTable{ID: "rtb-" + e.Guest})
		v.ENIs = append(v.ENIs, e)
	}
	return v
}

// route adds routes to the table of the guest's subnet.
func (v VPC) route(guest string, routes ...Route) VPC {
	tables := append([]RouteTable(nil), v.RouteTables...)
	for i := range tables {
		if tables[i].ID == "rtb-"+guest {
			tables[i].Routes = append(append([]Route(nil), tables[i].Routes...), routes...)
		}
	}
	v.RouteTables = tables
	return v
}

// public is v with an internet gateway and addresses in pairs of private, public.
func (v VPC) public(pairs ...string) VPC {
	v.InternetGateway = "igw-" + v.ID
	v.Public = map[netip.Addr]netip.Addr{}
	for i := 0; i < len(pairs); i += 2 {
		v.Public[adr(pairs[i])] = adr(pairs[i+1])
	}
	return v
}

func (v VPC) toInternet() Route { return Route{everything, ToInternetGateway, v.InternetGateway} }

func world(vpcs ...VPC) Topology {
	return Topology{VPCs: vpcs, Internet: Internet{Hosts: []netip.Addr{adr(host), adr(hostB)}}}
}

func mustHold(t *testing.T, f *Fabric, topology Topology) {
	t.Helper()
	if _, err := f.Sync(context.Background(), topology); err != nil {
		t.Fatal(err)
	}
}

// start makes the guests of all ENIs of the topology, and boots them.
func start(t *testing.T, f *Fabric, topology Topology) map[string]*testGuest {
	t.Helper()
	guests := map[string]*testGuest{"internet": {t, "internet", f.Internet()}}
	for _, v := range topology.VPCs {
		for _, e := range v.ENIs {
			guests[e.Guest] = newGuest(t, f, e.Guest)
		}
	}
	mustHold(t, f, topology)
	for _, v := range topology.VPCs {
		for _, e := range v.ENIs {
			guests[e.Guest].boot(e)
		}
	}
	return guests
}

// send puts one packet on a guest's wire.
func (g *testGuest) send(e ENI, dst string) {
	g.t.Helper()
	g.wire(e.Device, unix.ETH_P_IP).send(packet{e.MAC, RouterMAC, e.Primary.String(), dst, 64, nil}.frame())
}

// waitLinkDrops demands the drops of what came by a link, all of them.
func waitLinkDrops(t *testing.T, f *Fabric, id string, want map[Reason]uint64) {
	t.Helper()
	read := func() map[Reason]uint64 {
		all, err := f.LinkCounters()
		if err != nil {
			t.Fatal(err)
		}
		got := map[Reason]uint64{}
		for r, c := range all[id] {
			got[r] = c.Packets
		}
		return got
	}
	waitFor(t, "drops of "+id, func() bool { return len(read()) >= len(want) })
	if diff := cmp.Diff(want, read()); diff != "" {
		t.Errorf("drops of %s (-want +got):\n%s", id, diff)
	}
}

// mustReach asks a web server at to, which sees the asker as seen.
func mustReach(t *testing.T, from *testGuest, source, to, seen string) {
	t.Helper()
	from.mustAsk(source, to+":80", to+" to "+seen)
}

// web serves addr with the word that mustReach expects.
func (g *testGuest) web(addr string) {
	g.t.Helper()
	g.serve(addr+":80", addr)
}

// allDump is the dump of every namespace of the fabric.
func allDump(t *testing.T, f *Fabric) map[string][]any {
	t.Helper()
	all := map[string][]any{}
	for p, n := range f.places() {
		all[p.String()] = placeDump(t, f, n)
	}
	return all
}

// forward makes a guest forward what is not for itself.
func (g *testGuest) forward() {
	g.t.Helper()
	g.do(func() error { return setSysctl("/proc/sys/net/ipv4/ip_forward", "1") })
}

// icmp finds the ICMP messages of one type and code.
func icmp(kind, code byte) func([]byte) bool {
	return func(f []byte) bool {
		return len(f) >= 42 && binary.BigEndian.Uint16(f[12:]) == unix.ETH_P_IP && f[23] == unix.IPPROTO_ICMP && f[34] == kind && f[35] == code
	}
}
