package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// mendRule is a rule for own's packets to peer into the table that leads by the
// device. It is written like the one that nearly matched, if one did; else like
// those of other pods; else it is the first of its kind.
func (t *Tracer) mendRule(ns *Namespace, near *nearMiss, own, peer netip.Addr, dev string) []candidate {
	if t.refs[ns] == nil {
		return nil
	}
	rule := func(prio int, to netip.Prefix, table int) candidate {
		text := fmt.Sprintf("ip rule add pref %d from %s", prio, own)
		if to.IsValid() && to.Bits() > 0 {
			text += " to " + dstString(to)
		}
		text += " lookup " + tableName(table)
		return candidate{edits: []Edit{{t.target(ns), text}}, words: text}
	}
	block := t.blockOf(peer)
	if near != nil {
		if !block.IsValid() { // outside of all VPCs: a rule for one address would help one
			// Behind those that are there: the kernel takes a rule that asks less for the
			// same one (fib4_rule_compare).
			return []candidate{rule(near.rule.Priority+1, everything, near.rule.Table)}
		}
		c := rule(near.rule.Priority, block, near.rule.Table)
		if near.rule.Priority == ciliumEgress && near.rule.To.IsValid() {
			c.lasting = fmt.Sprintf("ipv4-native-routing-cidr %s (new pods only)", covering(near.rule.To, block))
		}
		return []candidate{c}
	}
	if r := sibling(ns, own, peer, dev); r != nil {
		c := rule(r.Priority, r.To, r.Table)
		c.cause = fmt.Sprintf("rule %d from %s is missing, and other pods of %s have theirs; it falls to main", r.Priority, own, dev)
		return []candidate{c}
	}
	if prio, table := tableBy(ns, peer, dev); table != 0 {
		c := rule(prio, block, table)
		if r := other(ns, own); r != nil && (!r.To.IsValid() || r.To.Contains(peer)) {
			c = rule(r.Priority, r.To, table)
		}
		c.cause = fmt.Sprintf("no rule leads %s to table %s, which leads by %s; it falls to main", own, tableName(table), dev)
		return []candidate{c}
	}
	return t.makeTable(ns, own, dev, rule)
}

// sibling is the rule of another address that leads to the peer by the device.
func sibling(ns *Namespace, own, peer netip.Addr, dev string) *IPRule {
	leads := func(table int) bool {
		return slices.ContainsFunc(ns.Routes.Value, func(r IPRoute) bool {
			return r.Table == table && r.Dev == dev && r.Kind == "unicast" && r.Dst.Contains(peer)
		})
	}
	for i := range ns.Rules.Value {
		r := &ns.Rules.Value[i]
		if r.fromOther(ns, own) && (!r.To.IsValid() || r.To.Contains(peer)) && leads(r.Table) {
			return r
		}
	}
	return nil
}

// other is the rule of another address that leads to a table of its own.
func other(ns *Namespace, own netip.Addr) *IPRule {
	for i := range ns.Rules.Value {
		if r := &ns.Rules.Value[i]; r.fromOther(ns, own) {
			return r
		}
	}
	return nil
}

// fromOther: it leads what another address sends, which is no device's, to a table
// of its own.
func (r *IPRule) fromOther(ns *Namespace, own netip.Addr) bool {
	return r.Action == "lookup" && r.Table != tableMain && r.From.IsValid() && r.From.Bits() == 32 && r.From.Addr() != own && !ns.has(r.From.Addr())
}

// has reports whether the address is one of the namespace's devices.
func (n *Namespace) has(a netip.Addr) bool {
	return slices.ContainsFunc(n.Devices.Value, func(d Device) bool {
		return slices.ContainsFunc(d.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
	})
}

// vpcCNIEgress is the priority of the Amazon VPC CNI's rules from pods.
const vpcCNIEgress = 1536

// makeTable leads by the device where no table does. Its number is that of a rule
// that is there and leads to nothing, or one that nobody uses.
func (t *Tracer) makeTable(ns *Namespace, own netip.Addr, dev string, rule func(int, netip.Prefix, int) candidate) []candidate {
	d := ns.device(dev)
	if d == nil {
		return nil
	}
	e, v := t.w.eni(d.ENI)
	if e == nil || v.subnet(e.Subnet) == nil || d.Down {
		return nil
	}
	used := map[int]bool{}
	for _, r := range ns.Routes.Value {
		used[r.Table] = true
	}
	table := 0
	for _, r := range ns.Rules.Value {
		if !used[r.Table] && r.From.IsValid() && ns.has(r.From.Addr()) && r.Table < tableDefault {
			table = r.Table
		}
	}
	for _, r := range ns.Rules.Value {
		used[r.Table] = true
	}
	for n := 2; table == 0; n++ {
		if !used[n] {
			table = n
		}
	}
	gateway := v.subnet(e.Subnet).CIDR.Masked().Addr().Next() // "Subnet CIDR blocks": the router's
	host := t.target(ns)
	c := rule(vpcCNIEgress, everything, table)
	c.edits = append([]Edit{
		{host, fmt.Sprintf("ip route add %s dev %s scope link table %d", gateway, dev, table)},
		{host, fmt.Sprintf("ip route add default via %s dev %s table %d", gateway, dev, table)},
	}, c.edits...)
	c.words = c.edits[0].Text + "; " + c.edits[1].Text + "; " + c.words
	c.cause = fmt.Sprintf("no table leads by %s, whose ENI has %s; it falls to main", dev, own)
	return []candidate{c}
}

// ciliumEgress is the priority of Cilium's rules from pods in ENI mode
// (RulePriorityEgressv2 in its linux_defaults).
const ciliumEgress = 111

// blockOf is the CIDR of the VPC that has the address, or none.
func (t *Tracer) blockOf(a netip.Addr) netip.Prefix {
	for i := range t.w.VPCs {
		for _, c := range t.w.VPCs[i].CIDRs.Value {
			if c.Contains(a) {
				return c
			}
		}
	}
	return netip.Prefix{}
}

// blockOr is the CIDR of the VPC that has the address, or the address.
func (t *Tracer) blockOr(a netip.Addr) netip.Prefix {
	if p := t.blockOf(a); p.IsValid() {
		return p
	}
	return netip.PrefixFrom(a, 32)
}

// covering is the smallest prefix that holds both.
func covering(a, b netip.Prefix) netip.Prefix {
	for bits := min(a.Bits(), b.Bits()); bits > 0; bits-- {
		if p := netip.PrefixFrom(a.Addr(), bits).Masked(); p.Contains(b.Addr()) {
			return p
		}
	}
	return everything
}

// tableBy is a table, other than main, that leads to the address by the device,
// and a priority before the rules that lead elsewhere.
func tableBy(ns *Namespace, to netip.Addr, dev string) (prio, table int) {
	for _, r := range ns.Routes.Value {
		if r.Dev == dev && r.Kind == "unicast" && r.Dst.Contains(to) && r.Table != tableMain && r.Table != tableLocal {
			table = r.Table
		}
	}
	prio = 32765
	for _, r := range ns.Rules.Value {
		if r.Priority > 0 && r.Table != tableLocal && r.Table != table && r.From.IsValid() {
			prio = min(prio, r.Priority-1)
		}
	}
	return max(prio, 1), table
}

// mendPodRoute gives a pod of the node its route back.
func (t *Tracer) mendPodRoute(h *Hop) []candidate {
	r := t.refs[h.ns]
	if r == nil || r.pod != nil {
		return nil
	}
	for _, d := range h.ns.Devices.Value {
		pod, _, ok := strings.Cut(d.Peer, " ")
		if !ok {
			continue
		}
		for _, x := range t.names[pod] {
			if x.node == r.node && x.pod != nil && x.pod.Addr == h.Before.Dst {
				text := "ip route add " + h.Before.Dst.String() + " dev " + d.Name + " scope link"
				return []candidate{{edits: []Edit{{t.target(h.ns), text}}, words: text}}
			}
		}
	}
	return nil
}
