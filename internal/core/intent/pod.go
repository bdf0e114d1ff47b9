package intent

import (
	"net/netip"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// podTable is what is there for local pods whatever pods there are: the rule
// that looks the table up, and an unreachable for every address the VPC
// delivers to this node for pods.
func podTable(s Snapshot) []node.Object {
	objects := []node.Object{node.Rule{Priority: node.PodRulePriority, Table: node.PodTable}}
	for _, e := range s.ENIs {
		for _, a := range e.Secondary {
			objects = append(objects, unreachable(netip.PrefixFrom(a, a.BitLen())))
		}
		for _, p := range e.Prefixes {
			objects = append(objects, unreachable(p))
		}
	}
	return objects
}

func unreachable(dst netip.Prefix) node.Route {
	return node.Route{Table: node.PodTable, Dst: dst, Metric: node.UnreachableMetric, Kind: node.Unreachable}
}

// Pod is all that exists in the node's kernel for one pod: its device, one
// route with its permanent neighbour, and one element. No rule, ever.
//
// A pod whose device is gone (its namespace died before the runtime's DEL) or
// whose address is on none of the node's ENIs has none of them: the unreachable
// below answers for it.
func Pod(s Snapshot, p node.Attachment) []node.Object {
	if !p.Wired || p.Slot == 0 {
		return nil
	}
	route := node.Route{
		Table: node.PodTable, Dst: netip.PrefixFrom(p.Addr, p.Addr.BitLen()),
		Link: p.Veth, Neighbor: node.PodMAC(p.Addr),
	}
	if e, ok := s.primary(); ok {
		// Without it the kernel looks for a source address on every device of
		// the node, one after the other, each time a route is added.
		route.PrefSrc = e.Primary
	}
	return []node.Object{
		node.Link{Name: p.Veth, Group: node.LinkGroup, MAC: node.GatewayMAC, Up: true},
		route,
		// Names of ours need no escapes, and fmt is slow for a full node's pods.
		node.Element{Set: setPods, Match: `"` + p.Veth + `" . ` + p.Addr.String(), Verdict: "goto " + p.Slot.Chain()},
	}
}
