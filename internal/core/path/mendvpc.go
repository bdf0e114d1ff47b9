package path

import (
	"fmt"
	"slices"
)

// mendGroup allows what came, and no more.
func (t *Tracer) mendGroup(h *Hop) []candidate {
	if h.eni == nil || len(h.eni.Groups.Value) == 0 {
		return nil
	}
	out := h.Code == CodeGroupOut
	way := "in"
	if out {
		way = "out"
	}
	e := Edit{h.eni.Groups.Value[0], fmt.Sprintf("%s add %s %s %s/32", way, h.Before.what(), preposition(out), h.Before.remote(out))}
	return []candidate{{edits: []Edit{e}, words: e.String()}}
}

// mendACL allows it before the rule that denies it. For a client's port all that
// clients choose from are allowed.
func (t *Tracer) mendACL(h *Hop) []candidate {
	out := h.Code == CodeACLOut
	way, rules := "in", []ACLRule(nil)
	for i := range h.vpc.ACLs.Value {
		if a := &h.vpc.ACLs.Value[i]; a.ID == h.Where.Name {
			if rules = a.In; out {
				rules = a.Out
			}
		}
	}
	if out {
		way = "out"
	}
	number := 100
	for _, r := range rules {
		number = max(number, r.Number+10)
	}
	if _, by := askACL(rules, &h.Before, out); by != nil {
		number = by.Number - 1
	}
	what := h.Before.what()
	if h.Before.DstPort.Lo != h.Before.DstPort.Hi {
		what = string(h.Before.Proto) + " " + translatedPorts.String()
	}
	e := Edit{h.Where.Name, fmt.Sprintf("%s add %d allow %s %s %s", way, number, what, preposition(out), t.blockOr(h.Before.remote(out)))}
	return []candidate{{edits: []Edit{e}, words: e.String()}}
}

// mendRoute leads to the VPC that has the destination, by what joins the two: by a
// table that does already, or by another route.
func (t *Tracer) mendRoute(a *Answer, i int) []candidate {
	dst := a.Hops[i].Before.Dst
	h := a.tableBefore(i)
	if h == nil {
		return nil
	}
	var out []candidate
	if subnet, other := a.elsewhere(h, i); other != nil {
		c := one(other.ID, "associate "+subnet)
		c.cause = fmt.Sprintf("%s is associated with no route table and has the main one; the route is in %s", subnet, other.ID)
		out = append(out, c)
	}
	w := &walk{t: t}
	if o := w.joined(h.vpc, dst); o != nil {
		out = append(out, one(h.Where.Name, "add "+t.blockOr(dst).String()+" "+t.joint(h.vpc, o)))
	}
	return out
}

// tableBefore is the route table's hop at i, or the last before it.
func (a *Answer) tableBefore(i int) *Hop {
	for ; i >= 0; i-- {
		if h := &a.Hops[i]; h.Where.Kind == KindTable && h.vpc != nil {
			return h
		}
	}
	return nil
}

// elsewhere is the table of the VPC, beside the main one that a subnet without an
// association has, that has a route.
func (a *Answer) elsewhere(h *Hop, i int) (subnet string, other *RouteTable) {
	for ; i >= 0 && subnet == ""; i-- {
		if e := a.Hops[i].eni; e != nil && a.Hops[i].vpc == h.vpc {
			subnet = e.Subnet
		}
	}
	tables := h.vpc.RouteTables.Value
	if subnet == "" || slices.ContainsFunc(tables, func(t RouteTable) bool { return slices.Contains(t.Subnets, subnet) }) {
		return "", nil
	}
	for i := range tables {
		r, blind := longestRoute(tables[i].Routes, h.vpc.PrefixLists, h.Before.Dst)
		if blind == "" && r != nil && !tables[i].Main && !r.Blackhole && r.Target != "local" {
			return subnet, &tables[i]
		}
	}
	return "", nil
}

// mendOverlap leads to another VPC that has the address: the block of its subnet.
func (t *Tracer) mendOverlap(a *Answer, i int) []candidate {
	dst, wrong := a.Hops[i].Before.Dst, a.Hops[i].vpc
	h := a.tableBefore(i - 1)
	if h == nil {
		return nil
	}
	for i := range t.w.VPCs {
		o := &t.w.VPCs[i]
		e := o.owner(dst)
		joint := t.joint(h.vpc, o)
		if o == wrong || o == h.vpc || e == nil || joint == "" || o.subnet(e.Subnet) == nil {
			continue
		}
		c := one(h.Where.Name, "add "+o.subnet(e.Subnet).CIDR.String()+" "+joint)
		c.cause = fmt.Sprintf("VPC %s and VPC %s both have a block that holds %s; %s leads it to %s, and %s has it", wrong.Name, o.Name, dst, h.Where.Name, wrong.Name, o.Name)
		return []candidate{c}
	}
	return nil
}

// joint is what joins two VPCs.
func (t *Tracer) joint(a, b *VPC) string {
	for _, p := range t.w.Peerings.Value {
		if p.State == "active" && slices.Contains(p.VPCs[:], a.ID) && slices.Contains(p.VPCs[:], b.ID) {
			return p.ID
		}
	}
	for i := range t.w.TransitGateways.Value {
		if g := &t.w.TransitGateways.Value[i]; g.attachment(a.ID) != nil && g.attachment(b.ID) != nil {
			return g.ID
		}
	}
	return ""
}
