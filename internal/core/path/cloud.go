package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A VPC, in the order of "Infrastructure security in Amazon VPC":
//
//	ENI: check, group out -> ACL out -> route table -> ACL in -> ENI: group in
//	                                        |
//	                                        +-> peering, transit, internet, NAT

// eniFlow is what a security group's state is kept by: an ENI, and the flow as
// the ENI sees its first packet. Source: "Amazon EC2 security group connection
// tracking".
type eniFlow struct {
	eni string
	t   tuple
	out bool
}

// checks collects what one place says, and puts it on the way as one hop where
// all of it passes.
type checks struct {
	w      *walk
	where  Where
	passed []string
	hop    Hop
}

func (c *checks) pass(text string) { c.passed = append(c.passed, text) }

func (c *checks) fail(text string, code Code) {
	h := c.hop
	h.Where, h.Matched, h.Verdict, h.Code = c.where, text, Drop, code
	c.w.add(h)
	c.passed = nil
}

func (c *checks) blind(text string) {
	c.w.blindHop(c.where, text, false)
	c.passed = nil
}

func (c *checks) done(result string) {
	if len(c.passed) > 0 {
		h := c.hop
		h.Where, h.Matched, h.Result, h.Verdict = c.where, strings.Join(c.passed, "; "), result, Pass
		c.w.add(h)
	}
}

// eniOut is a packet that an instance sends by its ENI. dev is the ENI's device
// there, or empty where its kernel is not in the world.
func (w *walk) eniOut(e *ENI, v *VPC, dev string, p *Packet) step {
	c := &checks{w: w, where: Where{v.Name, KindENI, e.ID}, hop: Hop{eni: e, vpc: v, Device: dev}}
	if p.Dst.IsLinkLocalUnicast() || p.Dst.IsMulticast() {
		w.blindHop(c.where, "not modelled: "+p.Dst.String()+", which is no address of a VPC's", true)
		return nil
	}
	switch {
	case e.Owns(p.Src):
		c.pass("owns " + p.Src.String())
	case !e.Check.Known:
		c.blind(e.Check.unknown("source/destination check of " + e.ID))
	case e.Check.Value:
		whose := e.ID
		if dev != "" {
			whose = dev + "'s ENI"
		}
		c.fail(whose+" does not own "+p.Src.String(), CodeSrcDstCheck)
	default:
		c.pass("check off")
	}
	w.group(c, e, v, p, true)
	c.done("pass")
	return w.routeOut(v, e.Subnet, p)
}

// group asks an ENI's security groups, unless they remember the flow.
func (w *walk) group(c *checks, e *ENI, v *VPC, p *Packet, out bool) {
	key := eniFlow{e.ID, p.tuple(), out}
	if w.tracked[eniFlow{e.ID, key.t.inverse(), !out}] {
		c.pass("tracked")
		return
	}
	w.tracked[key] = true
	way, code := "in", CodeGroupIn
	if out {
		way, code = "out", CodeGroupOut
	}
	if !e.Groups.Known {
		c.blind(e.Groups.unknown("security groups of " + e.ID))
		return
	}
	r := w.askGroups(e, v, p, out)
	switch {
	case r.all == yes:
		c.pass(r.by + " " + way + " " + r.rule)
	case r.blind != "":
		c.blind(r.blind)
	case r.all == some:
		w.add(Hop{Where: c.where, Matched: fmt.Sprintf("%s: only some of ports %s", strings.Join(e.Groups.Value, ", "), p.DstPort),
			Verdict: Blind, Code: CodePorts, eni: e, vpc: v})
	case r.otherRegion != "":
		c.fail(fmt.Sprintf("%s names %s, which is of another region", r.by, r.otherRegion), CodeGroupRegion)
	default:
		c.fail(fmt.Sprintf("%s %s: no rule for %s %s %s", strings.Join(e.Groups.Value, ", "), way, p.what(), preposition(out), p.remote(out)), code)
	}
}

func preposition(out bool) string {
	if out {
		return "to"
	}
	return "from"
}

func (p *Packet) remote(out bool) netip.Addr {
	if out {
		return p.Dst
	}
	return p.Src
}

// what is the packet as a rule would name it.
func (p *Packet) what() string {
	if p.Proto == ICMP {
		return fmt.Sprintf("icmp %d/0", p.icmpType())
	}
	return string(p.Proto) + " " + p.DstPort.String()
}

// routeOut is a packet that leaves a subnet: its ACL, then its route table.
func (w *walk) routeOut(v *VPC, subnet string, p *Packet) step {
	r, table, blind := v.route(subnet, p.Dst)
	local := blind == "" && r != nil && r.Target == "local"
	switch v.inSubnet(subnet, p.Dst) {
	case yes:
		if !local {
			w.acl(v, subnet, p, true)
		}
	case no:
		w.acl(v, subnet, p, true)
	case some:
		w.blindHop(Where{v.Name, KindACL, "ACL of " + subnet}, v.Subnets.unknown("whether "+p.Dst.String()+" is in "+subnet), false)
	}
	where := Where{v.Name, KindTable, "route table of " + subnet}
	if table != nil {
		where.Name = table.ID
	}
	if blind != "" {
		w.blindHop(where, blind, true)
		return nil
	}
	if r == nil {
		text := "no route to " + p.Dst.String()
		if table != nil && table.Main {
			text += " (the main table; " + subnet + " has none of its own)"
		}
		w.add(Hop{Where: where, Matched: text, Verdict: Drop, Code: CodeNoRoute, vpc: v})
		return w.ifRouted(v, p)
	}
	return w.target(v, subnet, where, r, p)
}

// inSubnet: is the address of the subnet? some: nobody knows. An ACL is asked at
// the subnet's border, and not within.
func (v *VPC) inSubnet(id string, a netip.Addr) three {
	if s := v.subnet(id); s != nil {
		if s.CIDR.Contains(a) {
			return yes
		}
		return no
	}
	if e := v.owner(a); e != nil {
		if e.Subnet == id {
			return yes
		}
		return no
	}
	if v.CIDRs.Known && !v.has(a) {
		return no
	}
	return some
}

// route finds the subnet's route. Source: "Route priority", Amazon VPC User
// Guide: the longest prefix; of equals the local one, then a CIDR before a
// prefix list.
func (v *VPC) route(subnet string, dst netip.Addr) (*VPCRoute, *RouteTable, string) {
	if !v.RouteTables.Known {
		return nil, nil, v.RouteTables.unknown("route tables of VPC " + v.Name)
	}
	t := v.table(subnet)
	if t == nil {
		return nil, nil, "not known: the route table of " + subnet
	}
	routes := t.Routes
	if v.has(dst) && !slices.ContainsFunc(routes, func(r VPCRoute) bool { return r.Target == "local" && r.Dst.Contains(dst) }) {
		for _, c := range v.CIDRs.Value {
			routes = append(slices.Clip(routes), VPCRoute{Dst: c, Target: "local"})
		}
	}
	r, blind := longestRoute(routes, v.PrefixLists, dst)
	if r == nil && blind == "" && !v.CIDRs.Known {
		blind = v.CIDRs.unknown("CIDRs of VPC " + v.Name)
	}
	return r, t, blind
}

func longestRoute(routes []VPCRoute, lists Part[map[string][]netip.Prefix], dst netip.Addr) (*VPCRoute, string) {
	var best *VPCRoute
	bits, blind := -1, ""
	for i := range routes {
		r := &routes[i]
		prefixes := []netip.Prefix{r.Dst}
		if r.PrefixList != "" {
			list, ok := lists.Value[r.PrefixList]
			if !ok {
				blind = "not known: entries of " + r.PrefixList
			}
			prefixes = list
		}
		for _, p := range prefixes {
			if !p.Contains(dst) {
				continue
			}
			if p.Bits() > bits || p.Bits() == bits && (r.Target == "local" || best.PrefixList != "" && r.PrefixList == "") {
				best, bits = r, p.Bits()
			}
		}
	}
	return best, blind
}

// target takes the packet to where the route leads.
func (w *walk) target(v *VPC, subnet string, where Where, r *VPCRoute, p *Packet) step {
	h := Hop{Where: where, Matched: r.destination() + " -> " + r.Target, Verdict: Pass, vpc: v}
	if r.Blackhole {
		h.Matched, h.Verdict, h.Code = h.Matched+" blackhole: the target is gone", Drop, CodeBlackhole
		w.add(h)
		return w.ifRouted(v, p)
	}
	kind, _, _ := strings.Cut(r.Target, "-")
	switch kind {
	case "local":
		h.Matched, h.Result = "local", "in VPC "+v.Name
		w.add(h)
		return func() step { return w.local(v, subnet, p) }
	case "pcx":
		return w.peering(v, h, r.Target, p)
	case "tgw":
		return w.transit(v, subnet, h, r.Target, p)
	case "igw":
		h.Result = "to internet gateway"
		w.add(h)
		return func() step { return w.internetOut(v, r.Target, p) }
	case "nat":
		h.Result = "to NAT gateway"
		w.add(h)
		return func() step { return w.natOut(v, subnet, r.Target, p) }
	case "eni":
		return w.toENI(v, subnet, h, r.Target, p)
	}
	w.blindHop(where, "not modelled: a route to "+r.Target, true)
	return nil
}

// toENI is a route to an appliance, which gets what is not its own only with
// its check off. Source: "Elastic network interfaces", source/destination check.
func (w *walk) toENI(v *VPC, subnet string, h Hop, id string, p *Packet) step {
	e, _ := w.t.w.eni(id)
	if e == nil {
		w.blindHop(h.Where, "not known: "+id, true)
		return nil
	}
	h.Result = "to " + id
	w.add(h)
	return func() step {
		if !e.Owns(p.Dst) {
			where := Where{v.Name, KindENI, e.ID}
			switch {
			case !e.Check.Known:
				w.blindHop(where, e.Check.unknown("source/destination check of "+e.ID), false)
			case e.Check.Value:
				w.add(Hop{Where: where, Matched: e.ID + " does not own " + p.Dst.String(), Verdict: Drop, Code: CodeSrcDstCheck, eni: e, vpc: v})
			}
		}
		return w.eniIn(e, v, subnet, p)
	}
}

// local delivers within a VPC. subnet is where the packet comes from, or empty
// for one from outside.
func (w *walk) local(v *VPC, subnet string, p *Packet) step {
	where := Where{v.Name, KindTable, "VPC " + v.Name}
	if !v.ENIs.Known {
		w.blindHop(where, v.ENIs.unknown("ENIs of VPC "+v.Name), true)
		return nil
	}
	for i := range v.NATGateways.Value {
		if g := &v.NATGateways.Value[i]; g.Private == p.Dst {
			return w.natIn(v, subnet, g, p)
		}
	}
	e := v.owner(p.Dst)
	if e == nil {
		w.add(Hop{Where: where, Matched: "nobody in VPC " + v.Name + " has " + p.Dst.String(), Verdict: Drop, Code: CodeNoOwner, vpc: v})
		return nil
	}
	return w.eniIn(e, v, subnet, p)
}

// eniIn is a packet that reaches the ENI of an instance.
func (w *walk) eniIn(e *ENI, v *VPC, subnet string, p *Packet) step {
	d, known := w.t.enis[e.ID]
	c := &checks{w: w, where: Where{v.Name, KindENI, e.ID}, hop: Hop{eni: e, vpc: v, Device: d.name}}
	if e.Attached.Known && !e.Attached.Value {
		c.fail(e.ID+" is attached to no instance", CodeNotAttached)
	}
	if subnet != e.Subnet {
		w.acl(v, e.Subnet, p, false)
	}
	w.group(c, e, v, p, false)
	if known {
		// What is longer than the receiving host's MTU does not get in either: "Path
		// MTU Discovery", in "Network maximum transmission unit (MTU)".
		switch dev := d.at.ns.device(d.name); {
		case dev == nil:
		case dev.Down:
			c.fail(d.name+" is down", CodeDown)
		case dev.MTU > 0 && p.Size > dev.MTU:
			c.hop.mtu = dev.MTU
			c.fail(fmt.Sprintf("%d bytes, and %s takes %d", p.Size, d.name, dev.MTU), CodeMTU)
		}
	}
	result := "in " + e.ID
	if known {
		result = "in " + d.name
	}
	c.done(result)
	if !known {
		w.add(Hop{Where: c.where, Matched: "not known: the kernel of " + e.ID + "'s instance", Verdict: Blind, Code: CodeKernelNotInWorld,
			Diverts: true, eni: e, vpc: v})
		w.end = w.t.ghostOf(e, v)
		return nil
	}
	w.inENI = append(w.inENI, e.ID)
	return func() step { return w.arrive(d.at, d.name, p) }
}

// ghostOf gives an ENI without a kernel one place for the whole of a world.
func (t *Tracer) ghostOf(e *ENI, v *VPC) *nsRef {
	if t.ghosts == nil {
		t.ghosts = map[string]*nsRef{}
	}
	if t.ghosts[e.ID] == nil {
		t.ghosts[e.ID] = &nsRef{ghost: e, ghostVPC: v, where: Where{v.Name, KindENI, e.ID}}
	}
	return t.ghosts[e.ID]
}

// acl asks the network ACL of a subnet, which remembers nothing. Source: "Control
// subnet traffic with network access control lists".
func (w *walk) acl(v *VPC, subnet string, p *Packet, out bool) {
	way, code := "in", CodeACLIn
	if out {
		way, code = "out", CodeACLOut
	}
	where := Where{v.Name, KindACL, "ACL of " + subnet}
	if !v.ACLs.Known {
		w.blindHop(where, v.ACLs.unknown("network ACLs of VPC "+v.Name), false)
		return
	}
	a := v.acl(subnet)
	if a == nil {
		w.blindHop(where, "not known: the network ACL of "+subnet, false)
		return
	}
	where.Name = a.ID
	rules := a.In
	if out {
		rules = a.Out
	}
	h := Hop{Where: where, Verdict: Pass, Result: "pass", vpc: v}
	allowed, by := askACL(rules, p, out)
	switch {
	case allowed == yes:
		h.Matched = fmt.Sprintf("%s %d%s", way, by.Number, by.narrow())
	case allowed == some:
		h.Matched = fmt.Sprintf("%s: only some of ports %s", way, p.DstPort)
		h.Verdict, h.Code = Blind, CodePorts
	case by == nil:
		h.Matched = fmt.Sprintf("%s %s: no rule for %s %s %s", a.ID, way, p.what(), preposition(out), p.remote(out))
		h.Verdict, h.Code = Drop, code
	default:
		h.Matched = fmt.Sprintf("%s %s %s", a.ID, way, by)
		h.Verdict, h.Code = Drop, code
	}
	w.add(h)
}
