package intent

import (
	"net/netip"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// sysctls are the switches that forwarding for pods needs. rp_filter is
// max(all, device), so a strict `all` would overrule ours: it is opened here
// and decided per device. accept_local spares the source validation lookup,
// which every custom rule makes as dear as a second routing decision.
func sysctls(s Snapshot) []node.Object {
	objects := []node.Object{
		node.Sysctl{Path: "net/ipv4/ip_forward", Value: "1"},
		node.Sysctl{Path: "net/ipv4/conf/all/rp_filter", Value: "0"},
	}
	for _, e := range s.ENIs {
		if e.Device == "" {
			continue
		}
		objects = append(objects,
			node.Sysctl{Path: "net/ipv4/conf/" + e.Device + "/rp_filter", Value: "0"},
			node.Sysctl{Path: "net/ipv4/conf/" + e.Device + "/accept_local", Value: "1"})
	}
	return objects
}

// forENI is one ENI's device, table and rules:
//
//	mark n ---> rule 110 ---> table 1000+n: native prefixes via the subnet's router
//	from its primary address ---> rule 120 ---> the same table
//
// The primary ENI's address is the operating system's: the node had it before us
// and keeps it after us.
func forENI(s Snapshot, e ENI) []node.Object {
	objects := []node.Object{
		node.MarkChain{Name: e.Slot.Chain(), Mark: e.Slot.Mark(), Mask: node.MarkMask},
		node.Rule{Priority: node.MarkRulePriority, Mark: e.Slot.Mark(), Mask: node.MarkMask, Table: e.Slot.Table()},
	}
	if e.Device == "" {
		return objects
	}
	for _, p := range s.Native {
		objects = append(objects, node.Route{
			Table: e.Slot.Table(), Dst: p, Gateway: e.Gateway(), Link: e.Device, OnLink: true,
		})
	}
	objects = append(objects, node.Link{Name: e.Device, MTU: s.MTU, Up: true})
	if e.DeviceIndex == 0 && e.CardIndex == 0 {
		return objects
	}
	return append(objects,
		node.Address{Link: e.Device, Prefix: netip.PrefixFrom(e.Primary, e.Subnet.Bits())},
		node.Rule{Priority: node.FromRulePriority, From: netip.PrefixFrom(e.Primary, 32), Table: e.Slot.Table()})
}

// sourceNAT covers what finds no native route: it falls to the main table,
// leaves by the primary ENI and must carry that ENI's primary address, or the
// VPC's source/destination check drops it.
func sourceNAT(s Snapshot) []node.Object {
	var objects []node.Object
	for _, p := range maximal(s.Native) {
		objects = append(objects, node.NativePrefix{Prefix: p})
	}
	if e, ok := s.primary(); ok && e.Device != "" {
		objects = append(objects, node.SourceNAT{Link: e.Device, To: e.Primary})
	}
	return objects
}

// maximal drops every prefix that lies within another: an nftables interval set
// takes no overlap, while a routing table may well hold both.
func maximal(prefixes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		covered := false
		for _, q := range prefixes {
			covered = covered || q.Bits() < p.Bits() && q.Contains(p.Addr())
		}
		if !covered {
			out = append(out, p)
		}
	}
	return out
}
