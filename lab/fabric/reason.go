package fabric

import "fmt"

// Reason says why the fabric dropped a packet. The values are those of the BPF
// programs; the names are stable.
type Reason uint32

const (
	Malformed    = Reason(bpfReasonREASON_MALFORMED)
	MACSpoof     = Reason(bpfReasonREASON_MAC_SPOOF)
	NotRouterMAC = Reason(bpfReasonREASON_NOT_ROUTER_MAC)
	NotIPv4      = Reason(bpfReasonREASON_NOT_IPV4)
	Multicast    = Reason(bpfReasonREASON_MULTICAST)
	IPOptions    = Reason(bpfReasonREASON_IP_OPTIONS)
	SrcDstCheck  = Reason(bpfReasonREASON_SRC_DST_CHECK)
	Martian      = Reason(bpfReasonREASON_MARTIAN)
	LinkLocal    = Reason(bpfReasonREASON_LINK_LOCAL)
	NoOwner      = Reason(bpfReasonREASON_NO_OWNER)
	NotAttached  = Reason(bpfReasonREASON_NOT_ATTACHED)
	NoRoute      = Reason(bpfReasonREASON_NO_ROUTE)
	LinkDown     = Reason(bpfReasonREASON_LINK_DOWN)
	Partitioned  = Reason(bpfReasonREASON_PARTITION)
	FaultLoss    = Reason(bpfReasonREASON_FAULT)

	NoRouteTarget   = Reason(bpfReasonREASON_BLACKHOLE)
	NoPublicAddress = Reason(bpfReasonREASON_NO_PUBLIC_ADDRESS)
	TooBig          = Reason(bpfReasonREASON_MTU)
	NoTranslation   = Reason(bpfReasonREASON_NO_TRANSLATION)

	SGEgress    = Reason(bpfReasonREASON_SG_EGRESS)
	SGIngress   = Reason(bpfReasonREASON_SG_INGRESS)
	NACLEgress  = Reason(bpfReasonREASON_NACL_EGRESS)
	NACLIngress = Reason(bpfReasonREASON_NACL_INGRESS)
	Fragment    = Reason(bpfReasonREASON_FRAGMENT)
)

var reasons = map[Reason]struct{ name, meaning string }{
	Malformed:    {"MALFORMED", "the frame or the IPv4 header is broken: length, version, checksum or TTL 0 (RFC 791, RFC 1812 5.2.2)"},
	MACSpoof:     {"MAC_SPOOF", "the frame's source is not the MAC of the ENI (\"Elastic network interfaces\": a MAC address is an attribute of the interface)"},
	NotRouterMAC: {"NOT_ROUTER_MAC", "the frame is not for the MAC that the implied router gives in ARP (the lab's choice: AWS documents no other way into a VPC)"},
	NotIPv4:      {"NOT_IPV4", "neither ARP nor IPv4, or VLAN-tagged: IPv6 is not in the fabric yet (\"IP addressing for your VPCs and subnets\")"},
	Multicast:    {"MULTICAST", "a VPC carries no broadcast, and multicast only by a transit gateway (\"Subnet CIDR blocks\": broadcast; \"Multicast in Amazon VPC Transit Gateways\")"},
	IPOptions:    {"IP_OPTIONS", "the IPv4 header has options (the lab's choice: AWS documents none; the kernel drops some of them without a word)"},
	SrcDstCheck:  {"SRC_DST_CHECK", "the source is no address of the ENI it left by, and the check is on (\"Elastic network interfaces\": source/destination checking)"},
	Martian:      {"MARTIAN", "source or destination is 0.0.0.0/8, 127.0.0.0/8 or a multicast source: on no wire (RFC 1122 3.2.1.3)"},
	LinkLocal:    {"LINK_LOCAL", "169.254.0.0/16 is for the VPC's own services, and this is none of them (RFC 3927 2.7; \"Amazon EC2 instance IP addressing\": link-local addresses)"},
	NoOwner:      {"NO_OWNER", "the destination is in the VPC, but no ENI has it (\"Subnet route tables\": the local route)"},
	NotAttached:  {"NOT_ATTACHED", "the destination belongs to an ENI that is not plugged into an instance (\"Elastic network interfaces\": status available)"},
	NoRoute:      {"NO_ROUTE", "the destination is outside the VPC, and no route leads there (\"Subnet route tables\": route priority)"},
	LinkDown:     {"LINK_DOWN", "a fault holds the link of the destination's ENI down (the lab's own: Faults)"},
	Partitioned:  {"PARTITION", "a fault cuts off the zone of the destination from the zone of the sender (the lab's own: Faults)"},
	FaultLoss:    {"FAULT", "a fault of the ENI lost the packet, on its way out or in (the lab's own: Faults)"},

	NoRouteTarget:   {"BLACKHOLE", "the route's target does not exist (any more), is not active, or is a black hole by intent (\"Route tables\": route states)"},
	NoPublicAddress: {"NO_PUBLIC_ADDRESS", "an internet gateway is the way, but the source has no public address (\"Enable internet access for a VPC using an internet gateway\")"},
	TooBig:          {"MTU", "longer than the way's MTU, and must not be fragmented; the sender was told by ICMP (\"Network maximum transmission unit (MTU) for your EC2 instance\")"},
	NoTranslation:   {"NO_TRANSLATION", "the NAT gateway has no connection that it belongs to, or does not translate its protocol (\"NAT gateway basics\")"},

	SGEgress:    {"SG_EGRESS", "no outbound rule of the sending ENI's security groups allows it, and no tracked flow (\"Security groups for your VPC\")"},
	SGIngress:   {"SG_INGRESS", "no inbound rule of the receiving ENI's security groups allows it, and no tracked flow; counted for the receiving ENI (\"Security groups for your VPC\")"},
	NACLEgress:  {"NACL_EGRESS", "it leaves the subnet, whose network ACL's lowest matching outbound rule denies it, or none matches (\"Control subnet traffic with network access control lists\")"},
	NACLIngress: {"NACL_INGRESS", "it comes from outside the subnet, whose network ACL's lowest matching inbound rule denies it, or none matches; counted for the receiving ENI (\"Control subnet traffic with network access control lists\")"},
	Fragment:    {"FRAGMENT", "a later fragment at an ENI with filters, where the first one has not passed before it (the lab's choice: ports are in the first one only, RFC 791 3.2)"},
}

// Reasons lists every reason, in the order of their numbers.
func Reasons() []Reason {
	list := make([]Reason, 0, len(reasons))
	for r := Reason(1); int(r) <= len(reasons); r++ {
		list = append(list, r)
	}
	return list
}

// String gives the stable name: "SRC_DST_CHECK".
func (r Reason) String() string {
	if d, ok := reasons[r]; ok {
		return d.name
	}
	return fmt.Sprintf("REASON_%d", uint32(r))
}

// Meaning explains the reason in one line and names the page it comes from: an
// AWS page's title in quotes, or an RFC.
func (r Reason) Meaning() string { return reasons[r].meaning }

// Count is how many packets, and bytes with their Ethernet headers, were dropped.
type Count struct {
	Packets, Bytes uint64
}
