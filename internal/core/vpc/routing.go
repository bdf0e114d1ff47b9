package vpc

import (
	"cmp"
	"net/netip"
	"slices"
)

// Routing is what EC2 says of where the packets of one VPC go.
type Routing struct {
	CIDRs       []netip.Prefix // the VPC's own, IPv4
	Tables      []RouteTable
	PrefixLists map[string][]netip.Prefix // entries by ID of the list
	Peerings    map[string]bool           // by ID: whether it is active
}

// RouteTable is one route table of the VPC.
type RouteTable struct {
	ID      string
	Main    bool     // serves the subnets that are associated with no other
	Subnets []string // IDs of those that are associated with it
	Routes  []Route
}

// Route is one IPv4 route. It has either a destination or a prefix list.
type Route struct {
	Dst        netip.Prefix
	PrefixList string
	Target     Target
	TargetID   string
	Blackhole  bool // EC2's own word for a route whose target is gone
}

// Target is the kind of what a route leads to.
type Target uint8

// The kinds that matter here. What is behind the first four knows pods by
// their own addresses, so a packet needs no translation on its way there.
const (
	OtherTarget Target = iota // internet and NAT gateways, instances, ENIs, endpoints
	PeeringTarget
	TransitTarget
	VPNTarget         // a virtual private gateway
	CoreNetworkTarget // of AWS Cloud WAN
)

// NativePolicy is what the user decides about native destinations.
type NativePolicy struct {
	VPCOnly bool           // nothing but the VPC's CIDRs and Also
	Also    []netip.Prefix // always
}

// Native is a destination that sees a pod's own address, and why.
type Native struct {
	Prefix netip.Prefix
	Why    string
}

// NativeOf lists the native destinations of pods whose ENI is in a subnet: the
// VPC, and what the subnet's own route table sends to a peering, a transit or a
// virtual private gateway. The user's are always there. Each prefix comes once,
// with the first reason, in order of address and length.
//
// A default route is never native: it would end the source NAT that the
// internet needs. Subnets in addresses that VPCs take for their second, not
// routable CIDRs have nobody to answer them outside of the VPC.
func NativeOf(r Routing, p NativePolicy, subnetID string, subnet netip.Prefix) []Native {
	var all []Native
	for _, c := range r.CIDRs {
		all = append(all, Native{c, "CIDR of the VPC"})
	}
	for _, c := range p.Also {
		all = append(all, Native{c, "configured"})
	}
	if table, ok := r.table(subnetID); ok && !p.VPCOnly && !unroutable(subnet) {
		for _, route := range table.Routes {
			why, ok := r.knowsPods(route)
			if !ok {
				continue
			}
			for _, dst := range r.destinations(route) {
				all = append(all, Native{dst, why + " in " + table.ID})
			}
		}
	}
	all = slices.DeleteFunc(all, func(n Native) bool { return n.Prefix.Bits() == 0 || !n.Prefix.Addr().Is4() })
	slices.SortStableFunc(all, func(a, b Native) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return slices.CompactFunc(all, func(a, b Native) bool { return a.Prefix == b.Prefix })
}

// table is the one that serves the subnet: its own, or the main one. Source:
// "Subnet route tables", Amazon VPC User Guide.
func (r Routing) table(subnetID string) (RouteTable, bool) {
	for _, t := range r.Tables {
		if slices.Contains(t.Subnets, subnetID) {
			return t, true
		}
	}
	for _, t := range r.Tables {
		if t.Main {
			return t, true
		}
	}
	return RouteTable{}, false
}

func (r Routing) knowsPods(route Route) (why string, ok bool) {
	if route.Blackhole {
		return "", false
	}
	switch route.Target {
	case PeeringTarget:
		return "route to " + route.TargetID, r.Peerings[route.TargetID]
	case TransitTarget, VPNTarget, CoreNetworkTarget:
		return "route to " + route.TargetID, true
	}
	return "", false
}

func (r Routing) destinations(route Route) []netip.Prefix {
	if route.PrefixList != "" {
		return r.PrefixLists[route.PrefixList]
	}
	return []netip.Prefix{route.Dst}
}

// Source: "Subnet CIDR blocks", Amazon VPC User Guide: 100.64.0.0/10 and
// 198.19.0.0/16 are what EKS documents for pods that need no route from outside.
var unroutableRanges = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("198.19.0.0/16")}

func unroutable(subnet netip.Prefix) bool {
	return slices.ContainsFunc(unroutableRanges, func(p netip.Prefix) bool { return subnet.IsValid() && p.Contains(subnet.Addr()) })
}
