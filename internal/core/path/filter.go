package path

import (
	"fmt"
	"net/netip"
	"slices"
)

// asked is what security groups say of a packet.
type asked struct {
	all         three  // whether all, some or none of the ports it may have pass
	by, rule    string // the group that allows it, or that nearly did, and its rule
	otherRegion string // a group that a rule names, whose member the remote is, in vain
	blind       string
}

// askGroups: one rule of one group that allows is enough.
func (w *walk) askGroups(e *ENI, v *VPC, p *Packet, out bool) asked {
	a := asked{}
	var rules []Match
	for _, id := range e.Groups.Value {
		g := v.group(id)
		if g == nil {
			a.blind = v.Groups.unknown("rules of " + id)
			continue
		}
		list := g.In
		if out {
			list = g.Out
		}
		for i := range list {
			m := &list[i].Match
			matches, why := w.remoteOf(v, m, p, out)
			if why.blind != "" {
				a.blind = why.blind
			}
			if why.otherRegion != "" && m.service(p) != no {
				a.otherRegion, a.by = why.otherRegion, id
			}
			if !matches {
				continue
			}
			if m.service(p) == yes {
				return asked{all: yes, by: id, rule: m.short()}
			}
			rules = append(rules, *m)
		}
	}
	if len(rules) > 0 {
		a.all = overPorts(rules, p, func(q *Packet) bool {
			return slices.ContainsFunc(rules, func(m Match) bool { return m.service(q) == yes })
		})
		if a.all == yes {
			a.by, a.rule = e.Groups.Value[0], "several rules"
		}
	}
	return a
}

// remoteOf: is the other end one that the rule names?
func (w *walk) remoteOf(v *VPC, m *Match, p *Packet, out bool) (bool, asked) {
	addr := p.remote(out)
	switch {
	case m.CIDR.IsValid():
		return m.CIDR.Contains(addr), asked{}
	case m.Remote[0] == 'p':
		list, ok := v.PrefixLists.Value[m.Remote]
		if !ok {
			return false, asked{blind: "not known: entries of " + m.Remote}
		}
		return slices.ContainsFunc(list, func(c netip.Prefix) bool { return c.Contains(addr) }), asked{}
	}
	return w.member(v, m.Remote, addr)
}

// member: is the address a private one of an ENI that is in the group? Groups
// are referenced within a VPC, in VPCs peered in the same region, and through a
// transit gateway that allows it. Source: "Security group rules", "Update your
// security groups to reference peer security groups".
func (w *walk) member(v *VPC, group string, addr netip.Addr) (bool, asked) {
	why := asked{}
	in := func(o *VPC) bool {
		e := o.owner(addr)
		switch {
		case e == nil && !o.ENIs.Known && (o.has(addr) || !o.CIDRs.Known):
			why.blind = o.ENIs.unknown("ENIs of VPC " + o.Name)
		case e != nil && !e.Groups.Known:
			why.blind = e.Groups.unknown("security groups of " + e.ID)
		}
		return e != nil && slices.Contains(e.Groups.Value, group)
	}
	if in(v) {
		return true, asked{}
	}
	if !w.t.w.Peerings.Known && !v.has(addr) {
		why.blind = w.t.w.Peerings.unknown("peerings")
	}
	for i := range w.t.w.Peerings.Value {
		p := &w.t.w.Peerings.Value[i]
		side := slices.Index(p.VPCs[:], v.ID)
		if side < 0 || p.State != "active" {
			continue
		}
		o := w.t.w.vpc(p.VPCs[1-side])
		switch {
		case o == nil:
			if v.group(group) == nil {
				why.blind = "not known: members of " + group + ", of the VPC behind " + p.ID
			}
		case !in(o):
		case o.Region != v.Region:
			why.otherRegion = group
		default:
			return true, asked{}
		}
	}
	for i := range w.t.w.TransitGateways.Value {
		g := &w.t.w.TransitGateways.Value[i]
		if !g.GroupReferences || g.attachment(v.ID) == nil {
			continue
		}
		for j := range g.Attachments {
			if o := w.t.w.vpc(g.Attachments[j].VPC); o != nil && o.Region == v.Region && in(o) {
				return true, asked{}
			}
		}
	}
	return false, why
}

// service: do protocol and ports match?
func (m *Match) service(p *Packet) three {
	switch {
	case m.Proto == "all":
		return yes
	case m.Proto == number(p.Proto):
		return yes
	case m.Proto != string(p.Proto):
		return no
	case p.Proto == ICMP:
		if m.Type >= 0 && m.Type != p.icmpType() || m.Code > 0 {
			return no
		}
		return yes
	}
	return p.DstPort.within(m.Ports)
}

// number of a protocol, as EC2 gives those that it has no name for.
func number(p Proto) string {
	return map[Proto]string{TCP: "6", UDP: "17", ICMP: "1"}[p]
}

// askACL: of the rules that match the one with the lowest number decides. by is
// the rule, or nil where none matches.
func askACL(rules []ACLRule, p *Packet, out bool) (three, *ACLRule) {
	sorted := slices.Clone(rules)
	slices.SortStableFunc(sorted, func(a, b ACLRule) int { return a.Number - b.Number })
	first := func(q *Packet) *ACLRule {
		for i := range sorted {
			if sorted[i].CIDR.Contains(q.remote(out)) && sorted[i].service(q) == yes {
				return &sorted[i]
			}
		}
		return nil
	}
	matches := make([]Match, len(sorted))
	for i := range sorted {
		matches[i] = sorted[i].Match
	}
	all := overPorts(matches, p, func(q *Packet) bool {
		r := first(q)
		return r != nil && r.Allow
	})
	one := *p
	one.DstPort = OnePort(p.DstPort.Lo)
	return all, first(&one)
}

// overPorts asks for every range of the packet's ports that the rules tell
// apart: an ephemeral port is not decided.
func overPorts(rules []Match, p *Packet, allowed func(*Packet) bool) three {
	q := *p
	ports := []uint16{p.DstPort.Lo, p.DstPort.Hi}
	for i := range rules {
		r := rules[i].Ports
		for _, b := range []int{int(r.Lo), int(r.Lo) - 1, int(r.Hi), int(r.Hi) + 1} {
			if b >= int(p.DstPort.Lo) && b <= int(p.DstPort.Hi) {
				ports = append(ports, uint16(b))
			}
		}
	}
	pass := 0
	for _, port := range ports {
		q.DstPort = OnePort(port)
		if allowed(&q) {
			pass++
		}
	}
	switch pass {
	case 0:
		return no
	case len(ports):
		return yes
	}
	return some
}

// narrow is what of an ACL's rule is worth a word: that it is for some ports.
func (r *ACLRule) narrow() string {
	if r.Proto == "all" || r.Ports == anyPort {
		return ""
	}
	return fmt.Sprintf(" %s %s", r.Proto, r.Ports)
}
