package intent

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// sysctls are the switches that forwarding for pods needs.
//
// The effective rp_filter is the greater of `all` and the device's (kernel
// documentation, ip-sysctl). `all` is the host's and stays as it is: where it is
// strict (1), loose (2) on the device is greater and lets in what arrives by
// another ENI than the main table would answer by. accept_local spares the
// source validation lookup, which every custom rule makes as dear as a second
// routing decision.
func sysctls(s Snapshot) []node.Object {
	demux := "1"
	if s.Config.NoEarlyDemux {
		demux = "0"
	}
	objects := []node.Object{
		node.Sysctl{Path: "net/ipv4/ip_forward", Value: "1"},
		node.Sysctl{Path: "net/ipv4/tcp_early_demux", Value: demux},
		// An ICMP error goes back by the ENI that its packet came by, and so must
		// have that ENI's address: the VPC drops another's.
		node.Sysctl{Path: "net/ipv4/icmp_errors_use_inbound_ifaddr", Value: "1"},
	}
	filter := 0
	if s.HostRPFilter != 0 {
		filter = 2
	}
	for _, e := range s.ENIs {
		if e.Device == "" {
			continue
		}
		conf := "net/ipv4/conf/" + e.Device
		objects = append(objects, node.Sysctl{Path: conf + "/accept_local", Value: "1"})
		if s.Config.ConfigureRPFilter {
			objects = append(objects, node.Sysctl{Path: conf + "/rp_filter", Value: strconv.Itoa(filter)})
		}
	}
	return objects
}

// forENI is one ENI's device, tables and rules:
//
//	new flow of slot n   --> rule 110 --> table 1000+n: native prefixes, or with
//	                                      external SNAT everything; else go on to main
//	flow bound to slot n --> rule 105 --> table 2000+n: everything
//	from its primary     --> rule 120 --> the same
//
// The primary ENI's address is the operating system's: the node had it before us
// and keeps it after us. What the host itself sends from it finds main.
func forENI(s Snapshot, e ENI) []node.Object {
	objects := []node.Object{
		node.Rule{Priority: node.NewRulePriority, Mark: e.Slot.Mark(), Mask: s.Config.mask(), Table: e.Slot.Table()},
	}
	if s.Config.stateful() {
		objects = append(objects, node.Rule{Priority: node.BoundRulePriority,
			Mark: e.Slot.Mark() | s.Config.BoundMark, Mask: s.Config.mask(), Table: e.Slot.BoundTable()})
	}
	if e.Device == "" {
		return objects
	}
	for _, n := range newFlows(s, e) {
		objects = append(objects, byENI(e, e.Slot.Table(), n.Prefix))
	}
	for _, p := range s.Config.ExternalServices {
		objects = append(objects, node.Route{Table: e.Slot.Table(), Dst: p, Kind: node.Throw})
	}
	objects = append(objects, node.Link{Name: e.Device, MTU: s.Config.ENIMTU, Up: true})
	if s.Config.stateful() || !e.isPrimary() {
		objects = append(objects, byENI(e, e.Slot.BoundTable(), everything))
	}
	if e.isPrimary() {
		return objects
	}
	return append(objects,
		node.Address{Link: e.Device, Prefix: netip.PrefixFrom(e.Primary, e.Subnet.Bits())},
		node.Rule{Priority: node.FromRulePriority, From: netip.PrefixFrom(e.Primary, 32), Table: e.Slot.BoundTable()})
}

var everything = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

// newFlows is where a new flow of the ENI's pods leaves by the ENI. It leaves
// out a native prefix that is an external service: the two would be one route. A
// shorter or longer one is another route, and the longest decides.
func newFlows(s Snapshot, e ENI) []vpc.Native {
	native := e.Native
	if s.Config.ExternalSNAT {
		native = []vpc.Native{{Prefix: everything, Why: "external SNAT"}}
	}
	return slices.DeleteFunc(slices.Clone(native), func(n vpc.Native) bool {
		return slices.Contains(s.Config.ExternalServices, n.Prefix)
	})
}

// Reasons says of objects why they are there, by key: of those whose reason is
// outside of the node. An object may be there for more reasons; one is said.
func Reasons(s Snapshot) map[string]string {
	reasons := make(map[string]string)
	for _, e := range s.ENIs {
		for _, n := range newFlows(s, e) {
			reasons[byENI(e, e.Slot.Table(), n.Prefix).Key()] = n.Why
		}
	}
	return reasons
}

func byENI(e ENI, table int, dst netip.Prefix) node.Route {
	return node.Route{Table: table, Dst: dst, Gateway: e.Gateway(), Link: e.Device, OnLink: true}
}
