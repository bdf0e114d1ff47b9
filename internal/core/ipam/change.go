package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Kind is what a [Change] does. It is also the class by which refusals are
// remembered, as EC2 grants rights and throttles by action.
type Kind string

const (
	CreateENI         Kind = "create eni" // with all its first addresses or prefixes; it is attached by a change of its own
	AttachENI         Kind = "attach eni"
	MarkENI           Kind = "mark eni" // to be deleted with its instance
	AssignAddresses   Kind = "assign addresses"
	AssignPrefixes    Kind = "assign prefixes"
	UnassignAddresses Kind = "unassign addresses"
	UnassignPrefixes  Kind = "unassign prefixes"
	DetachENI         Kind = "detach eni"
	DeleteENI         Kind = "delete eni"
	TagENI            Kind = "tag eni" // with the tags that ENIs of this node have
)

// Change is one call to EC2. A crash between two of them is mended by planning
// again, from what EC2 then says.
type Change struct {
	Kind         Kind
	ENI          string         // ID; empty for CreateENI
	AttachmentID string         // DetachENI and MarkENI
	Count        int            // addresses, for CreateENI and AssignAddresses
	PrefixCount  int            // /28 prefixes, for CreateENI and AssignPrefixes
	Addrs        []netip.Addr   // UnassignAddresses
	Prefixes     []netip.Prefix // UnassignPrefixes

	DeviceIndex, CardIndex int // AttachENI

	// TagENI: the tags by which the planner sees that it is done; the caller
	// may write more.
	Tags map[string]string

	// For CreateENI. SubnetID is set for Assign* too, as refusals can be the
	// subnet's.
	SubnetID string
	Groups   []string

	Why string // a sentence for people
}

// String says what and why in one line.
func (c Change) String() string {
	what := string(c.Kind) + " " + c.ENI
	switch c.Kind {
	case CreateENI:
		what = "create an ENI in " + c.SubnetID
		if n := units(c.Count, c.PrefixCount); n != "" {
			what += " with " + n
		}
	case AttachENI:
		what = fmt.Sprintf("attach %s as device %d", c.ENI, c.DeviceIndex)
	case MarkENI:
		what = "mark " + c.ENI + " to be deleted with the instance"
	case AssignAddresses, AssignPrefixes:
		what = fmt.Sprintf("assign %s to %s", units(c.Count, c.PrefixCount), c.ENI)
	case UnassignAddresses:
		what = fmt.Sprintf("unassign %s from %s", list(c.Addrs), c.ENI)
	case UnassignPrefixes:
		what = fmt.Sprintf("unassign %s from %s", list(c.Prefixes), c.ENI)
	case DetachENI, DeleteENI, TagENI:
		verb, _, _ := strings.Cut(string(c.Kind), " ")
		what = verb + " " + c.ENI
	}
	return what + ": " + c.Why
}

// BlockKey is what EC2 refuses. Target is a subnet's ID, an ENI's ID, or empty
// for every change of the kind.
//
//	{AssignAddresses, subnet}  the subnet has no free address; no ENI fits there either
//	{AssignPrefixes, subnet}   the subnet has no free /28: single addresses are asked for there, by CreateENI too
//	{CreateENI, subnet}        no ENI in this subnet
//	{Assign..., eni}           the ENI takes no more, whatever the limits of the type say
//	{any, ""}                  no such call at all: rights, throttling, an outage
type BlockKey struct {
	Kind   Kind
	Target string
}

// Block says that EC2 refused something lately and should be left alone.
type Block struct {
	Until  time.Time
	Reason string // what was refused and what to do about it, for people
	// Fatal: waiting does not help, as with missing rights. An ADD then fails
	// at once.
	Fatal bool
	// Cause is a word for what it was refused for, where that is known.
	Cause Cause
}

// Cause of a [Block].
type Cause string

// The causes that a person can do something about.
const (
	NoRights   Cause = "unauthorized"
	SubnetFull Cause = "subnet_full"
	AtLimit    Cause = "limit"
	NoAnswer   Cause = "unreachable"
)

// units names a number of addresses, of prefixes, or of both.
func units(addrs, prefixes int) string {
	var parts []string
	if addrs > 0 {
		parts = append(parts, addresses(addrs))
	}
	if prefixes > 0 {
		parts = append(parts, prefixCount(prefixes))
	}
	return strings.Join(parts, " and ")
}

func prefixCount(n int) string {
	if n == 1 {
		return "1 prefix"
	}
	return fmt.Sprintf("%d prefixes", n)
}

func addresses(n int) string {
	if n == 1 {
		return "1 address"
	}
	return fmt.Sprintf("%d addresses", n)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// list names the first few and counts the rest.
func list[T fmt.Stringer](all []T) string {
	const most = 3
	var names []string
	for _, x := range all[:min(len(all), most)] {
		names = append(names, x.String())
	}
	text := strings.Join(names, ", ")
	if n := len(all) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// addressesOf lists a prefix from its first address to its last.
func addressesOf(p netip.Prefix) []netip.Addr {
	var addrs []netip.Addr
	for a := p.Masked().Addr(); p.Contains(a); a = a.Next() {
		addrs = append(addrs, a)
	}
	return addrs
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
