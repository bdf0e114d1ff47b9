package node

import (
	"fmt"
	"net/netip"
	"strings"
)

// Rank is the order in which kinds of objects depend on each other: an object
// may only refer to objects of a lower or its own rank. Adds run in ascending
// order, removes in descending order.
type Rank int

// The ranks, in the order a packet's way is built.
const (
	RankSysctl Rank = iota
	RankLink
	RankAddress
	RankRoute
	RankRule
	RankChain
	RankElement
)

// Object is one thing the kernel should hold. Implementations are comparable
// structs: two objects are the same state if and only if they are ==.
type Object interface {
	// Key identifies the thing; a change of anything outside the key is a
	// replacement of the same thing.
	Key() string
	// String is the thing in the words of `ip` and `nft`.
	String() string
	Rank() Rank
}

// Sysctl is one file below /proc/sys in the node's network namespace.
type Sysctl struct {
	Path  string // slash form, relative to /proc/sys
	Value string
}

func (s Sysctl) Key() string    { return "sysctl " + s.Path }
func (s Sysctl) String() string { return "sysctl " + s.Path + " = " + s.Value }
func (s Sysctl) Rank() Rank     { return RankSysctl }

// Link is the administrative state of a device that exists without us: an ENI.
type Link struct {
	Name string
	MTU  int // bytes
	Up   bool
}

func (l Link) Key() string { return "link " + l.Name }
func (l Link) String() string {
	state := "down"
	if l.Up {
		state = "up"
	}
	return fmt.Sprintf("link %s mtu %d %s", l.Name, l.MTU, state)
}
func (l Link) Rank() Rank { return RankLink }

// Address is an IPv4 address on a device. It is always written without the
// connected route that the kernel would add (IFA_F_NOPREFIXROUTE): a second
// connected route for the same subnet would steal the primary ENI's traffic.
type Address struct {
	Link   string
	Prefix netip.Prefix // the address with its subnet's length, not masked
}

func (a Address) Key() string    { return "addr " + a.Prefix.String() + " dev " + a.Link }
func (a Address) String() string { return a.Key() + " noprefixroute" }
func (a Address) Rank() Rank     { return RankAddress }

// RouteKind says what a matching route does with a packet.
type RouteKind uint8

// The kinds of route we write. Unreachable answers with ICMP, so that the
// sender learns at once that a pod is gone.
const (
	Unicast RouteKind = iota
	Unreachable
)

// Route is one IPv4 route of ours; ours are told from others' by [Protocol].
type Route struct {
	Table    int
	Dst      netip.Prefix
	Metric   int
	Kind     RouteKind
	Link     string     // outgoing device; empty for Unreachable
	Gateway  netip.Addr // invalid for a route to the device itself
	OnLink   bool       // the gateway is on the link though no address says so
	PrefSrc  netip.Addr // source address for the node's own packets, or invalid
	Neighbor MACString  // permanent neighbour for the destination, or empty
}

// MACString is a hardware address in colon form; a string keeps Route
// comparable and readable.
type MACString string

func (r Route) Key() string {
	return fmt.Sprintf("route table %d %s metric %d", r.Table, r.Dst, r.Metric)
}

func (r Route) String() string {
	var b strings.Builder
	if r.Kind == Unreachable {
		b.WriteString("unreachable ")
	}
	b.WriteString(r.Dst.String())
	if r.Gateway.IsValid() {
		fmt.Fprintf(&b, " via %s", r.Gateway)
	}
	if r.Link != "" {
		fmt.Fprintf(&b, " dev %s", r.Link)
	}
	fmt.Fprintf(&b, " table %d", r.Table)
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	if r.PrefSrc.IsValid() {
		fmt.Fprintf(&b, " src %s", r.PrefSrc)
	}
	if r.OnLink {
		b.WriteString(" onlink")
	}
	if r.Neighbor != "" {
		fmt.Fprintf(&b, " lladdr %s", r.Neighbor)
	}
	return b.String()
}
func (r Route) Rank() Rank { return RankRoute }

// Rule is one IPv4 policy rule of ours, told from others' by [Protocol].
type Rule struct {
	Priority int
	From     netip.Prefix // invalid: from all
	Mark     uint32
	Mask     uint32 // 0: the mark is not looked at
	Table    int
}

func (r Rule) Key() string {
	return fmt.Sprintf("rule %d %s %#x/%#x", r.Priority, r.from(), r.Mark, r.Mask)
}

func (r Rule) from() string {
	if !r.From.IsValid() {
		return "all"
	}
	return r.From.String()
}

func (r Rule) String() string {
	s := fmt.Sprintf("rule %d: from %s", r.Priority, r.from())
	if r.Mask != 0 {
		s += fmt.Sprintf(" fwmark %#x/%#x", r.Mark, r.Mask)
	}
	return fmt.Sprintf("%s lookup %d", s, r.Table)
}
func (r Rule) Rank() Rank { return RankRule }

// MarkChain is the nftables chain that a packet of an ENI's pods goes to: it
// sets the masked bits of the packet's mark and leaves every other bit alone.
type MarkChain struct {
	Name string
	Mark uint32
	Mask uint32
}

func (c MarkChain) Key() string { return "chain " + c.Name }
func (c MarkChain) String() string {
	return fmt.Sprintf("chain %s { meta mark set mark & %#x | %#x }", c.Name, ^c.Mask, c.Mark)
}
func (c MarkChain) Rank() Rank { return RankChain }

// Admission is the frame that pods' keys hang in: the hook that every packet
// from a pod passes, and the rules that drop what has no key. It is whole or it
// is not there.
type Admission struct{}

func (Admission) Key() string { return "chains prerouting and from-pod" }
func (Admission) String() string {
	return "chains prerouting and from-pod { iifname . saddr vmap @pods; drop }"
}
func (Admission) Rank() Rank { return RankChain }

// PodKey admits the packets of one pod: what comes in by its host-side device
// with its address, and nothing else, goes on to its ENI's chain.
type PodKey struct {
	Veth  string
	Addr  netip.Addr
	Chain string
}

func (k PodKey) Key() string { return "element pods " + k.Veth + " . " + k.Addr.String() }
func (k PodKey) String() string {
	return fmt.Sprintf("element pods { %q . %s : goto %s }", k.Veth, k.Addr, k.Chain)
}
func (k PodKey) Rank() Rank { return RankElement }

// NativePrefix is a destination that pods reach with their own address.
type NativePrefix struct{ Prefix netip.Prefix }

func (n NativePrefix) Key() string    { return "element native " + n.Prefix.String() }
func (n NativePrefix) String() string { return fmt.Sprintf("element native { %s }", n.Prefix) }
func (n NativePrefix) Rank() Rank     { return RankElement }

// SourceNAT rewrites the source of a pod's packet that leaves by Link for a
// destination that is not native: only the ENI's primary address is one that
// an internet gateway translates.
type SourceNAT struct {
	Link string
	To   netip.Addr
}

func (s SourceNAT) Key() string { return "snat" }
func (s SourceNAT) String() string {
	return fmt.Sprintf("oifname %q ip daddr != @native snat to %s", s.Link, s.To)
}
func (s SourceNAT) Rank() Rank { return RankChain }
