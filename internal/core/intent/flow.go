package intent

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Names in our nftables table.
const (
	setPods   = "pods"       // who may send what: device and source -> chain of the ENI
	setENIs   = "enis"       // where a packet arrives: device -> chain of the ENI
	setFlows  = "flows"      // what a flow is bound to: connection mark -> chain that marks
	setNew    = "new"        // whose flow is not bound: packet mark -> chain that binds
	setNative = "native"     // what pods of the primary ENI reach with their own address
	chainMain = "flow-main"  // marks a packet of a flow that is bound to the main table
	chainPod  = "from-pod"   // all that pods send
	chainIn   = "prerouting" // base chains, named after their hooks
	chainOut  = "postrouting"
	chainHost = "output"
	chainSNAT = "source-nat" // "snat" is a word of nft's

	natHook = "type nat hook postrouting priority 100"

	counterSpoofed = "spoofed"
	counterNotIPv4 = "not-ipv4"
)

// admission is the frame that pods hang in: what their devices send goes by the
// one element that their device and address have, to the chain of their ENI,
// or is counted and dropped.
func admission(s Snapshot) []node.Object {
	in := []string{fmt.Sprintf("meta iifgroup %#x goto %s", node.LinkGroup, chainPod)}
	if s.Config.stateful() {
		in = append(in, "iifname vmap @"+setENIs)
	}
	objects := []node.Object{
		node.Set{Name: setPods, Type: node.TypePods},
		node.Set{Name: counterSpoofed, Type: node.TypeCounter},
		node.Set{Name: counterNotIPv4, Type: node.TypeCounter},
		chain(chainIn, "type filter hook prerouting priority -150", in...),
		chain(chainPod, "",
			fmt.Sprintf("meta nfproto != ipv4 counter name %q drop", counterNotIPv4),
			"iifname . ip saddr vmap @"+setPods,
			fmt.Sprintf("counter name %q drop", counterSpoofed)),
	}
	for _, e := range s.ENIs {
		var rules []string
		if s.Config.stateful() {
			rules = append(rules, restore(s))
		}
		objects = append(objects, chain(e.Slot.Chain(), "", append(rules, setMark(s, e.Slot.Mark()))...))
	}
	return objects
}

// binding keeps a flow on the ENI, or on the main table, that its first packet
// took. The choice is the connection mark; the packet mark is made from it.
//
//	connection mark   slot n and the bound bit   the flow is bound to ENI n
//	                  the bound bit alone        to the main table: source-NATed
//	                  neither                    not bound: new, or local to the node
//
//	packet            made from                  leads to
//	slot n            a pod of ENI n, new flow   rule 110, table 1000+n, else main
//	slot n, bound     the connection mark        rule 105, table 2000+n
//	bound             the connection mark        main
//
// A flow that arrives on an ENI is bound to it there. One that a pod begins is
// bound where it leaves: routing has had its say by then.
func binding(s Snapshot) []node.Object {
	objects := []node.Object{
		node.Set{Name: setENIs, Type: node.TypeInterface},
		node.Set{Name: setFlows, Type: node.TypeMark},
		node.Set{Name: setNew, Type: node.TypeMark},
		chain(chainMain, "", setMark(s, s.Config.BoundMark)),
		node.Element{Set: setFlows, Match: node.Mark(s.Config.BoundMark), Verdict: "goto " + chainMain},
		chain(chainOut, "type filter hook postrouting priority -150",
			fmt.Sprintf("meta mark & %s vmap @%s", node.Mark(s.Config.mask()), setNew)),
		// What the host itself answers, in a flow that came by an ENI and was
		// sent on to it by a service.
		chain(chainHost, "type route hook output priority -150", "ct direction reply "+restore(s)),
	}
	for _, e := range s.ENIs {
		objects = append(objects,
			chain(e.Slot.FlowChain(), "", setMark(s, e.Slot.Mark()|s.Config.BoundMark)),
			node.Element{Set: setFlows, Match: node.Mark(e.Slot.Mark() | s.Config.BoundMark), Verdict: "goto " + e.Slot.FlowChain()},
			chain(e.Slot.NewChain(), "", bindNew(s, e)...),
			node.Element{Set: setNew, Match: node.Mark(e.Slot.Mark()), Verdict: "goto " + e.Slot.NewChain()})
		if e.Device == "" || e.isPrimary() && !s.Config.NodePort {
			continue
		}
		objects = append(objects,
			chain(e.Slot.InChain(), "", arrive(s, e)...),
			node.Element{Set: setENIs, Match: fmt.Sprintf("%q", e.Device), Verdict: "goto " + e.Slot.InChain()})
	}
	return objects
}

// arrive binds a flow that comes by the ENI, and gives an answer that comes by
// it for another ENI's flow that flow's mark: the host forwards for services.
// What arrives for a pod needs no mark, as rule 20 is before all of them.
func arrive(s Snapshot, e ENI) []string {
	mask, bound := node.Mark(s.Config.mask()), e.Slot.Mark()|s.Config.BoundMark
	return []string{
		fmt.Sprintf("ct mark & %s == %s accept", mask, node.Mark(bound)),
		"ct direction reply " + restore(s),
		// Not only new ones: also those that are older than this agent.
		fmt.Sprintf("ct direction original ct mark & %s == %s %s", mask, node.Mark(0), setCTMark(s, bound)),
	}
}

// bindNew binds a flow that a pod of the ENI begins, where its first packet
// leaves the node: to the ENI, or to the main table.
func bindNew(s Snapshot, e ENI) []string {
	unbound := fmt.Sprintf("ct direction original ct mark & %s == %s ", node.Mark(s.Config.mask()), node.Mark(0))
	var rules []string
	primary, known := s.primary()
	if e.Device != "" {
		to := ""
		if e.isPrimary() && !s.Config.ExternalSNAT {
			// The main table leads to the same device, so the device does not
			// tell which of the two the packet took.
			to = fmt.Sprintf("ip daddr @%s ", setNative)
		}
		rules = append(rules, fmt.Sprintf("oifname %q %s%s%s return", e.Device, to, unbound,
			setCTMark(s, e.Slot.Mark()|s.Config.BoundMark)))
	}
	if known && primary.Device != "" {
		rules = append(rules, fmt.Sprintf("oifname %q %s%s", primary.Device, unbound, setCTMark(s, s.Config.BoundMark)))
	}
	return rules
}

// sourceNAT translates what a pod begins and main leads out of the node: it
// leaves by the primary ENI and must carry that ENI's primary address, or the
// VPC's source/destination check drops it.
func sourceNAT(s Snapshot) []node.Object {
	objects := []node.Object{node.Set{Name: setNative, Type: node.TypePrefixes}}
	e, ok := s.primary()
	if !ok || e.Device == "" {
		return objects
	}
	for _, n := range maximal(newFlows(s, e)) {
		objects = append(objects, node.Element{Set: setNative, Match: n.Prefix.String()})
	}
	random := ""
	switch s.Config.RandomizeSNAT {
	case HashRandom:
		random = " random"
	case PRNG:
		random = " fully-random"
	}
	return append(objects, chain(chainSNAT, natHook,
		fmt.Sprintf("oifname %q ct mark & %s == %s snat ip to %s%s", e.Device,
			node.Mark(s.Config.mask()), node.Mark(s.Config.BoundMark), e.Primary, random)))
}

func chain(name, hook string, rules ...string) node.Chain {
	return node.Chain{Name: name, Hook: hook, Rules: strings.Join(rules, "\n")}
}

// restore makes the packet mark from the connection mark. A map from one to the
// other would write the bits of others, so it leads to a chain of constants.
func restore(s Snapshot) string {
	return fmt.Sprintf("ct mark & %s vmap @%s", node.Mark(s.Config.mask()), setFlows)
}

func setMark(s Snapshot, v uint32) string   { return change("meta mark", s.Config.mask(), v) }
func setCTMark(s Snapshot, v uint32) string { return change("ct mark", s.Config.mask(), v) }

func change(what string, mask, v uint32) string {
	return fmt.Sprintf("%s set %s & %s | %s", what, what, node.Mark(^mask), node.Mark(v))
}

// maximal drops every prefix that lies within another: an nftables interval set
// takes no overlap, while a routing table may well hold both.
func maximal(native []vpc.Native) []vpc.Native {
	return slices.DeleteFunc(slices.Clone(native), func(p vpc.Native) bool {
		return slices.ContainsFunc(native, func(q vpc.Native) bool {
			return q.Prefix.Bits() < p.Prefix.Bits() && q.Prefix.Contains(p.Prefix.Addr())
		})
	})
}
