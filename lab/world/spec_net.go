package world

import "net/netip"

// The name that the group and the network ACL have which every VPC is born with.
// To describe them is to change them.
const defaultName = "default"

// PrefixList is a managed prefix list, made in every region.
type PrefixList struct {
	Pos     Pos
	Name    string
	Entries []netip.Prefix

	keys keyLines
}

// SecurityGroup is a group of a VPC. A direction that is nil is as EC2 makes it:
// nothing in, or for the default group its own members, and everything out.
type SecurityGroup struct {
	Pos             Pos
	Name            string // unique in its VPC
	Ingress, Egress []GroupRule

	keys keyLines
}

// GroupRule allows something.
type GroupRule struct {
	Pos Pos
	Traffic
	// Remote is a CIDR block, a group as GROUP of the same VPC or VPC/GROUP, or
	// prefixList/NAME.
	Remote string

	keys keyLines
}

// Traffic is a protocol and its ports.
type Traffic struct {
	Protocol string // "tcp", "udp", "icmp", a number or, also if empty, "all"
	Ports    string // "80", "80-90"; of ICMP "TYPE" or "TYPE/CODE"; empty: all
}

// NetworkACL is a network ACL of a VPC. A direction that is nil is as EC2 makes
// it: nothing passes, or for the default one everything.
type NetworkACL struct {
	Pos             Pos
	Name            string   // unique in its VPC
	Subnets         []string // of the VPC, that have it
	Ingress, Egress []ACLEntry

	keys keyLines
}

// ACLEntry decides by its number.
type ACLEntry struct {
	Pos    Pos
	Number int
	Action string // "allow" or "deny"
	Traffic
	CIDR netip.Prefix

	keys keyLines
}

// RouteTable is a route table of a VPC. The local routes are always there.
type RouteTable struct {
	Pos     Pos
	Name    string   // unique in its VPC
	Main    bool     // it is the one of the subnets that have none
	Subnets []string // of the VPC, that have it
	Routes  []Route

	keys keyLines
}

// Route leads a destination somewhere.
type Route struct {
	Pos Pos
	To  netip.Prefix
	// Via is internetGateway, nat/NAME, peering/NAME, transitGateway/NAME or
	// instance/NAME; in the table of a transit gateway vpc/NAME or blackhole.
	Via string

	keys keyLines
}

// NATGateway is a NAT gateway in a subnet of its VPC. A public one gets an
// elastic address.
type NATGateway struct {
	Pos     Pos
	Name    string
	Subnet  string
	Private bool

	keys keyLines
}

// Peering joins two VPCs; the second one accepts.
type Peering struct {
	Pos    Pos
	Name   string // empty: the two VPCs' names with a hyphen between them
	VPCs   []string
	Routes bool // all route tables of each VPC lead to the other

	keys keyLines
}

// TransitGateway joins VPCs of one region.
type TransitGateway struct {
	Pos    Pos
	Name   string
	VPCs   []string
	Routes bool           // all route tables of each VPC lead to the others
	Tables []TransitTable // none: one table for all, that all propagate to

	keys keyLines
}

// TransitTable is a route table of a transit gateway.
type TransitTable struct {
	Pos       Pos
	Name      string
	VPCs      []string // whose attachments are associated with it
	Propagate []string // VPCs whose blocks are routes
	Routes    []Route

	keys keyLines
}

// Internet is what is beyond the internet gateways.
type Internet struct {
	Pos   Pos
	Hosts []netip.Addr // each answers ping and can be listened on

	keys keyLines
}

// RegionOf is where a VPC of the World is.
func (w *World) RegionOf(v VPC) string {
	if v.Region == "" {
		return w.Region
	}
	return v.Region
}

// Regions lists the World's own region and those of its VPCs, each once.
func (w *World) Regions() []string {
	regions := []string{w.Region}
	seen := map[string]bool{w.Region: true}
	for _, v := range w.VPCs {
		if r := w.RegionOf(v); !seen[r] {
			seen[r] = true
			regions = append(regions, r)
		}
	}
	return regions
}

// findVPC gives a VPC by its name.
func (w *World) findVPC(name string) (VPC, bool) {
	for _, v := range w.VPCs {
		if v.Name == name {
			return v, true
		}
	}
	return VPC{}, false
}

// findInstance gives an instance by its name.
func (w *World) findInstance(name string) (Instance, bool) {
	for _, in := range w.Instances {
		if in.Name == name {
			return in, true
		}
	}
	return Instance{}, false
}
