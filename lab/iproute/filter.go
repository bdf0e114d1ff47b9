package iproute

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

func (f Filter) hasRule(u Rule) bool {
	return (f.Priority == nil || *f.Priority == *u.Priority) && (f.Table == 0 || f.Table == u.Table)
}

func (f Filter) hasLink(l Link) bool {
	return (f.Device == "" || f.Device == l.Name) && (!f.Up || l.Flags&unix.IFF_UP != 0)
}

// hasNeighbour leaves out what is no entry yet, and what needs no resolving, as
// ip does.
func (f Filter) hasNeighbour(n Neighbour) bool {
	return n.State&^unix.NUD_NOARP != 0 && n.Addr.IsValid() &&
		(f.Device == "" || f.Device == n.Device) && (!f.Dst.IsValid() || f.Dst.Addr() == n.Addr)
}

// hasRoute keeps multipath routes of which one hop leads by the device; ip would
// leave them out.
func (f Filter) hasRoute(t Route) bool {
	if isAnswer(t) || f.Table != 0 && f.Table != t.Table {
		return false
	}
	if f.Device != "" && !slices.ContainsFunc(t.Hops, func(h Hop) bool { return h.Device == f.Device }) {
		return false
	}
	// The default route is the prefix of length 0.
	asked, dst := whole(f.Dst, t.Family), whole(t.Dst, t.Family)
	switch f.Match {
	case Exact:
		return asked == dst
	case Within:
		return asked.Bits() <= dst.Bits() && asked.Contains(dst.Addr())
	case Holds:
		return dst.Bits() <= asked.Bits() && dst.Contains(asked.Addr())
	}
	return true
}

// whole is p, or the prefix of all addresses in place of none.
func whole(p netip.Prefix, family uint8) netip.Prefix {
	switch {
	case p.IsValid():
		return p
	case family == unix.AF_INET6:
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}
