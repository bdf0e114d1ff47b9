package iproute

import (
	"net"
	"net/netip"
	"os"
)

// Object is a kind of thing that a command is about.
type Object string

// The objects.
const (
	Rules      Object = "rule"
	Routes     Object = "route"
	Addresses  Object = "address"
	Links      Object = "link"
	Neighbours Object = "neighbour"
)

// Verb is what a command does.
type Verb string

// The verbs. Only Show and Get leave everything as it is.
const (
	Show    Verb = "show"
	Get     Verb = "get"
	Add     Verb = "add"
	Replace Verb = "replace"
	Delete  Verb = "delete"
	Set     Verb = "set"
)

// Request is one command line as data. The objects that it names belong to Add,
// Replace, Delete and Set; Show has a Filter and Get a Lookup.
type Request struct {
	Object Object
	Verb   Verb
	Family uint8 // AF_INET, AF_INET6, or AF_UNSPEC where neither is said nor follows
	JSON   bool

	Filter    Filter
	Lookup    Lookup
	Rule      Rule
	Route     Route
	Address   Address
	Link      LinkChange
	Neighbour Neighbour
}

// Filter chooses what is shown. Its zero value lets everything pass.
type Filter struct {
	Device   string
	Table    uint32 // of routes; 0: all
	Priority *uint32
	// Dst chooses routes: the one to it exactly, those within it, or those that
	// hold it. For neighbours it is the address.
	Dst   netip.Prefix
	Match Match
	Up    bool
}

// Match says how a destination compares with the one asked for.
type Match string

// The ways to compare destinations, in ip-route(8)'s words.
const (
	Exact  Match = "exact"
	Within Match = "root"
	Holds  Match = "match"
)

// Lookup is a question to the kernel: which way does this packet go?
type Lookup struct {
	Dst    netip.Addr
	Source netip.Addr // may be invalid: the kernel's choice
	In     string     // device that it comes in by; empty: it is the host's own
	Out    string
	Mark   uint32
}

// Rule is a policy routing rule (ip-rule(8)).
type Rule struct {
	Family     uint8
	Priority   *uint32 // nil: the kernel's choice, or any
	Not        bool
	From, To   netip.Prefix // invalid: all
	In, Out    string
	InGone     bool // there is no device of that name
	OutGone    bool
	TOS        uint8
	Mark       *Mark
	L3MDev     bool
	UIDs       *Range
	IPProtocol uint8
	Sports     *Range
	Dports     *Range

	Action         uint8
	Table          uint32
	Goto           uint32
	Unresolved     bool // nothing is at Goto
	SuppressPrefix *uint32
	Protocol       uint8
}

// Mark is a firewall mark and the bits of it that count.
type Mark struct{ Value, Mask uint32 }

// Range is inclusive.
type Range struct{ First, Last uint32 }

// Route is a route, or the kernel's answer to a Lookup (ip-route(8)).
type Route struct {
	Family   uint8
	Type     uint8
	Dst      netip.Prefix // invalid: default
	From     netip.Prefix
	Hops     []Hop // more than one: multipath
	Table    uint32
	Protocol uint8
	Scope    uint8
	Source   netip.Addr
	Metric   *uint32
	Flags    uint32 // of linux/rtnetlink.h: RTNH_F_*, RTM_F_*, and RTCF_* where it is an answer
	NextHop  uint32 // ID of a next hop object
	Mark     uint32
	UID      *uint32
	In       string
	Metrics  []Metric
	Pref     *uint8
}

// Hop is where a route leads: a gateway, a device, or both.
type Hop struct {
	Via    netip.Addr
	Device string
	Weight int // from 1; of multipath routes
	Flags  uint32
}

// Metric is a property of the path, RTAX_* and its value. MTU is in bytes.
type Metric struct {
	Kind   uint16
	Value  uint32
	Locked bool
}

// Address is an address of a device (ip-address(8)).
type Address struct {
	Family    uint8
	Device    string
	Local     netip.Addr
	Bits      int // length of the prefix
	Peer      netip.Addr
	Broadcast netip.Addr
	Scope     uint8
	Flags     uint32 // IFA_F_*
	Label     string
	Valid     uint32 // seconds; the largest number: forever
	Preferred uint32 // seconds
}

// Link is a network device (ip-link(8)).
type Link struct {
	Index     int
	Name      string
	AltNames  []string
	Alias     string
	Type      uint16 // ARPHRD_*
	Flags     uint32 // IFF_*
	MTU       uint32 // bytes
	Qdisc     string
	Master    int // index, or 0
	State     uint8
	Mode      uint8
	Group     uint32
	QueueLen  uint32
	Address   net.HardwareAddr
	Broadcast net.HardwareAddr
	Lower     *int   // index of the other end, or of what it is built on
	Away      *int32 // ID of the namespace that Lower is in, where it is another
}

// LinkChange is what `link set` changes; nil and empty stay as they are. What is
// added is a veth pair.
type LinkChange struct {
	Device  string
	Up      *bool
	MTU     *uint32 // bytes
	Address net.HardwareAddr
	Name    string
	Peer    Peer
}

// Peer is the other end of a new veth pair.
type Peer struct {
	Device string
	NetNS  string // its name; empty: the same as the first end's
	// In is what NetNS names, opened by the caller: names are not the kernel's.
	In *os.File
}

// Neighbour is an entry of the ARP or neighbour discovery cache (ip-neighbour(8)).
type Neighbour struct {
	Family   uint8
	Addr     netip.Addr
	Device   string
	MAC      net.HardwareAddr
	State    uint16 // NUD_*
	Flags    uint8  // NTF_*
	Protocol uint8
}

// Answer is what the kernel has, of the kind that the Request asked for.
type Answer struct {
	all names // every device there is, for the names of others

	Rules      []Rule
	Routes     []Route
	Links      []Link
	Addresses  []Address
	Neighbours []Neighbour
}
