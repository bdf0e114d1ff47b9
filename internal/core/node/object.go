package node

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Rank is the order in which kinds of objects depend on each other: an object
// may only refer to objects of a lower or its own rank. Adds run in ascending
// order, removes in descending order.
type Rank int

// The ranks, in the order a packet's way is built. From RankSet on an object
// is of nftables, and all changes of those ranks are one transaction.
const (
	RankSysctl Rank = iota
	RankLink
	RankAddress
	RankRoute
	RankRule
	RankSet
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

// Link is the state of a device that exists already: an ENI, or the host side
// of a pod. MTU 0, group 0 and no MAC mean that they are not ours to decide: a
// pod's MTU is part of what its runtime asked for, an ENI's group and MAC are its
// own.
type Link struct {
	Name  string
	MTU   int // bytes
	Group uint32
	MAC   MACString
	Up    bool
}

func (l Link) Key() string { return "link " + l.Name }
func (l Link) String() string {
	state := "down"
	if l.Up {
		state = "up"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "link %s", l.Name)
	if l.MTU != 0 {
		fmt.Fprintf(&b, " mtu %d", l.MTU)
	}
	if l.Group != 0 {
		fmt.Fprintf(&b, " group %#x", l.Group)
	}
	if l.MAC != "" {
		fmt.Fprintf(&b, " address %s", l.MAC)
	}
	return b.String() + " " + state
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
// sender learns at once that a pod is gone. Throw ends the lookup in its table
// as if nothing matched: the next rule is asked.
const (
	Unicast RouteKind = iota
	Unreachable
	Throw
)

// Route is one IPv4 route of ours; ours are told from others' by [Protocol].
type Route struct {
	Table    int
	Dst      netip.Prefix
	Metric   int
	Kind     RouteKind
	Link     string     // outgoing device; only of Unicast
	Gateway  netip.Addr // invalid for a route to the device itself
	OnLink   bool       // the gateway is on the link though no address says so
	PrefSrc  netip.Addr // source address for the node's own packets, or invalid
	Neighbor MACString  // permanent neighbour for the destination, or empty
}

// MACString is a hardware address in colon form; a string keeps Route
// comparable and readable.
type MACString string

func (r Route) Key() string {
	// Not by fmt: a comparison asks a thousand routes for their keys.
	return "route table " + strconv.Itoa(r.Table) + " " + r.Dst.String() + " metric " + strconv.Itoa(r.Metric)
}

func (r Route) String() string {
	var b strings.Builder
	switch r.Kind {
	case Unreachable:
		b.WriteString("unreachable ")
	case Throw:
		b.WriteString("throw ")
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
	return fmt.Sprintf("rule %05d %s %#x/%#x", r.Priority, r.from(), r.Mark, r.Mask)
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

// Render lists objects for a person, in the order in which they are written: by
// rank, then by key. Everything that shows the state of a kernel shows it so.
func Render(objects []Object) string {
	sorted := slices.SortedFunc(slices.Values(objects), func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.Rank(), b.Rank()), cmp.Compare(a.Key(), b.Key()))
	})
	var b strings.Builder
	for _, o := range sorted {
		lines := []string{o.String()}
		if c, ok := o.(Chain); ok {
			lines = c.Lines()
		}
		for _, l := range lines {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}
