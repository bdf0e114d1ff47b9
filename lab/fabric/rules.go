package fabric

import "net/netip"

// Subnet is a part of a VPC: it says which route table and which network ACL
// the packets of its ENIs meet.
type Subnet struct {
	ID         string
	CIDR       netip.Prefix
	Zone       string // such as "eu-west-1a"
	RouteTable string // ID of one of the VPC's route tables; empty: only the local routes
	ACL        string // ID of one of the VPC's network ACLs; empty: everything passes
}

// RouteTable is a table of a VPC's implied router, or of a transit gateway. The
// longest prefix decides. The local routes, one per CIDR of the VPC, are always
// there and not listed.
type RouteTable struct {
	ID     string
	Routes []Route
}

// Route leads a destination to a target. A target that does not exist (any
// more), or is not active, is a black hole.
type Route struct {
	Dst    netip.Prefix
	Kind   TargetKind
	Target string // ID of the target; unused for Blackhole
}

// TargetKind is what a route leads to.
type TargetKind string

// The kinds of target.
const (
	ToInternetGateway TargetKind = "igw"
	ToNATGateway      TargetKind = "nat"
	ToPeering         TargetKind = "pcx"
	ToTransitGateway  TargetKind = "tgw"
	ToENI             TargetKind = "eni"        // in a VPC's table; its source/destination check must be off for it to forward
	ToAttachment      TargetKind = "tgw-attach" // in a transit gateway's table: a VPC attachment
	Blackhole         TargetKind = "blackhole"
)

// Protocol is an IP protocol number; -1 is all.
type Protocol int

// The protocols that have ports or types.
const (
	AllProtocols Protocol = -1
	ICMP         Protocol = 1
	TCP          Protocol = 6
	UDP          Protocol = 17
)

// Ports is a range of destination ports for TCP and UDP; for ICMP, From is the
// type and To the code, -1 meaning all. Other protocols have none.
type Ports struct{ From, To int }

// SecurityGroup is a stateful, allow-only filter of the ENIs that name it.
type SecurityGroup struct {
	ID              string
	Ingress, Egress []GroupRule
}

// GroupRule allows one protocol, ports and remote. Exactly one of CIDR and
// Group is set; prefix lists are resolved to CIDRs by the caller.
type GroupRule struct {
	Protocol Protocol
	Ports    Ports
	CIDR     netip.Prefix
	Group    string // ID: the private addresses of the group's ENIs, also in a peered VPC of the same region
}

// NetworkACL is a stateless filter at a subnet's border, not inside it.
type NetworkACL struct {
	ID              string
	Ingress, Egress []ACLRule
}

// ACLRule decides by its number: the lowest that matches counts; no match
// denies.
type ACLRule struct {
	Number   int
	Allow    bool
	Protocol Protocol
	Ports    Ports // destination ports
	CIDR     netip.Prefix
}

// NATGateway translates the sources of what is routed to it to its own address.
// It lives in a subnet and is reached and left by that subnet's rules.
type NATGateway struct {
	ID      string
	Subnet  string
	Address netip.Addr // private; its public address is in VPC.Public
}

// Peering joins two VPCs. Only active ones are listed. It is not transitive:
// what comes by it is delivered only to the addresses of the VPC it comes to.
type Peering struct {
	ID   string
	VPCs [2]string
}

// TransitGateway routes between its attachments by tables of its own.
type TransitGateway struct {
	ID          string
	Attachments []Attachment
	Tables      []RouteTable // routes of kind ToAttachment or Blackhole
}

// Attachment joins a VPC to a transit gateway.
type Attachment struct {
	ID    string
	VPC   string
	Table string // the transit gateway's table that is asked about what comes by this attachment

	// Subnet is the VPC's subnet that the attachment is in: its route table is
	// asked about what comes from the transit gateway. Empty: local delivery only.
	Subnet string
}

// Internet is what is beyond the internet gateways: one namespace with hosts,
// each an address on its loopback that answers ping, and that a test can listen
// on.
type Internet struct {
	Hosts []netip.Addr
}
