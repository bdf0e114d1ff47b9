package path

import (
	"fmt"
	"net/netip"
	"slices"
)

// MTUs of what joins VPCs, in bytes. Source: "Network maximum transmission unit
// (MTU) for your EC2 instance"; "Quotas for your transit gateways"; "NAT gateway
// basics".
const (
	mtuVPC      = 9001
	mtuRegions  = 8500
	mtuTransit  = 8500
	mtuNAT      = 8500
	mtuInternet = 1500
)

// link is the MTU of what the packet crosses.
func (w *walk) link(where Where, name string, mtu int, p *Packet) {
	w.narrow(mtu)
	if p.Size > mtu {
		w.add(Hop{Where: where, Matched: fmt.Sprintf("%d bytes, and %s takes %d", p.Size, name, mtu), Verdict: Drop, Code: CodeMTU, mtu: mtu})
	}
}

// peering takes the packet to the other VPC, which delivers it to an address of
// its own or not at all. Source: "VPC peering limitations".
func (w *walk) peering(v *VPC, h Hop, id string, p *Packet) step {
	i := slices.IndexFunc(w.t.w.Peerings.Value, func(q Peering) bool { return q.ID == id })
	if i < 0 {
		w.blindHop(h.Where, w.t.w.Peerings.unknown(id), true)
		return nil
	}
	x := &w.t.w.Peerings.Value[i]
	side := slices.Index(x.VPCs[:], v.ID)
	if side < 0 {
		w.blindHop(h.Where, "not known: "+id+" is no peering of VPC "+v.Name, true)
		return nil
	}
	o := w.t.w.vpc(x.VPCs[1-side])
	h.Result = "to " + x.VPCs[1-side]
	if o != nil {
		h.Result = "to VPC " + o.Name
	}
	h.Matched += " " + x.State
	if x.State != "active" {
		h.Verdict, h.Code = Drop, CodePeering
	}
	w.add(h)
	if o == nil {
		w.blindHop(Where{"", KindPeering, id}, "not known: "+x.VPCs[1-side]+", at the other end", true)
		return nil
	}
	mtu := mtuVPC
	if o.Region != v.Region {
		mtu = mtuRegions
		w.cost("inter-region transfer, billed to each sender")
	}
	w.link(Where{v.Name, KindPeering, id}, id, mtu, p)
	if o.CIDRs.Known && !o.has(p.Dst) {
		w.add(Hop{Where: Where{o.Name, KindPeering, id}, Matched: p.Dst.String() + " is not in VPC " + o.Name + ": a peering leads no further",
			Verdict: Drop, Code: CodeTransitive})
		return nil
	}
	return func() step { return w.local(o, "", p) }
}

// ifRouted goes on as if the missing route were there: by a peering or a transit
// gateway that joins the VPC with the one that has the destination.
func (w *walk) ifRouted(v *VPC, p *Packet) step {
	o := w.joined(v, p.Dst)
	if o == nil {
		return nil
	}
	return func() step { return w.local(o, "", p) }
}

// joined is a VPC that has the address and that an active peering or a transit
// gateway joins with v.
func (w *walk) joined(v *VPC, a netip.Addr) *VPC {
	for i := range w.t.w.Peerings.Value {
		x := &w.t.w.Peerings.Value[i]
		side := slices.Index(x.VPCs[:], v.ID)
		if side < 0 || x.State != "active" {
			continue
		}
		if o := w.t.w.vpc(x.VPCs[1-side]); o != nil && o.has(a) {
			return o
		}
	}
	for i := range w.t.w.TransitGateways.Value {
		g := &w.t.w.TransitGateways.Value[i]
		if g.attachment(v.ID) == nil {
			continue
		}
		for j := range g.Attachments {
			if o := w.t.w.vpc(g.Attachments[j].VPC); o != nil && o != v && o.has(a) {
				return o
			}
		}
	}
	return nil
}

func (g *TransitGateway) attachment(vpc string) *Attachment {
	for i := range g.Attachments {
		if g.Attachments[i].VPC == vpc {
			return &g.Attachments[i]
		}
	}
	return nil
}

// transit takes the packet through a transit gateway. Source: "How transit
// gateways work"; for the ACLs "Network ACLs for transit gateways".
func (w *walk) transit(v *VPC, subnet string, h Hop, id string, p *Packet) step {
	i := slices.IndexFunc(w.t.w.TransitGateways.Value, func(g TransitGateway) bool { return g.ID == id })
	if i < 0 {
		w.blindHop(h.Where, w.t.w.TransitGateways.unknown(id), true)
		return nil
	}
	g := &w.t.w.TransitGateways.Value[i]
	h.Result = "to " + id
	w.add(h)
	where := Where{"", KindTransit, id}
	from := g.attachment(v.ID)
	if from == nil {
		w.add(Hop{Where: where, Matched: "VPC " + v.Name + " has no attachment", Verdict: Drop, Code: CodeTransitNoRoute})
		return w.ifRouted(v, p)
	}
	if len(from.Subnets) == 0 {
		w.blindHop(where, "not known: subnets of "+from.ID, true)
		return nil
	}
	door := v.inZone(from.Subnets, subnet)
	if door == "" && !v.Subnets.Known {
		w.blindHop(where, v.Subnets.unknown("the zones of VPC "+v.Name+"'s subnets"), false)
		door = from.Subnets[0]
	}
	if door == "" {
		w.add(Hop{Where: where, Matched: from.ID + " has no subnet in the zone of " + subnet, Verdict: Drop, Code: CodeTransitZone})
		door = from.Subnets[0]
	}
	w.link(where, id, mtuTransit, p)
	w.acl(v, door, p, false)
	to, why := w.transitRoute(g, from, p.Dst)
	if to == nil {
		if why.Verdict == Blind {
			w.blindHop(where, why.Matched, true)
			return nil
		}
		why.Where = where
		w.add(why)
		return w.ifRouted(v, p)
	}
	o := w.t.w.vpc(to.VPC)
	if o == nil {
		w.blindHop(where, "not known: "+to.VPC+", behind "+to.ID, true)
		return nil
	}
	w.add(Hop{Where: where, Matched: why.Matched, Result: "to VPC " + o.Name, Verdict: Pass})
	return func() step { return w.fromTransit(o, to, p) }
}

// inZone is the subnet of the list that is in the zone of another, or "".
func (v *VPC) inZone(list []string, of string) string {
	s := v.subnet(of)
	for _, id := range list {
		if o := v.subnet(id); id == of || s != nil && o != nil && o.Zone == s.Zone {
			return id
		}
	}
	return ""
}

// transitRoute asks the table that the attachment is associated with.
func (w *walk) transitRoute(g *TransitGateway, from *Attachment, dst netip.Addr) (*Attachment, Hop) {
	drop := func(text string) (*Attachment, Hop) {
		return nil, Hop{Matched: text, Verdict: Drop, Code: CodeTransitNoRoute}
	}
	if from.State != "available" {
		return drop(from.ID + " is " + from.State)
	}
	i := slices.IndexFunc(g.Tables, func(t TransitTable) bool { return t.ID == from.Table })
	if i < 0 {
		return drop(from.ID + " is associated with no route table")
	}
	r, _ := longestRoute(g.Tables[i].Routes, Part[map[string][]netip.Prefix]{}, dst)
	switch {
	case r == nil:
		return drop(g.Tables[i].ID + " has no route to " + dst.String())
	case r.Blackhole:
		return drop(g.Tables[i].ID + " " + r.Dst.String() + " blackhole")
	}
	for j := range g.Attachments {
		if g.Attachments[j].ID == r.Target {
			return &g.Attachments[j], Hop{Matched: g.Tables[i].ID + " " + r.Dst.String() + " -> " + r.Target}
		}
	}
	return nil, Hop{Matched: "not modelled: a route of " + g.ID + " to " + r.Target, Verdict: Blind}
}

// fromTransit is a packet that comes out of an attachment: the table of the
// attachment's subnet is asked, and the subnet's ACL unless the receiver is in it.
func (w *walk) fromTransit(v *VPC, to *Attachment, p *Packet) step {
	if len(to.Subnets) == 0 {
		w.blindHop(Where{v.Name, KindTransit, to.ID}, "not known: subnets of "+to.ID, true)
		return nil
	}
	// Which of several subnets, the gateway decides.
	door := to.Subnets[w.choose(len(to.Subnets))]
	return w.routeOut(v, door, p)
}

// internetOut is what an internet gateway does: private to public, one to one.
// Source: "Enable internet access for a VPC using an internet gateway".
func (w *walk) internetOut(v *VPC, id string, p *Packet) step {
	where := Where{v.Name, KindGateway, id}
	w.link(where, id, mtuInternet, p)
	public := v.publicOf(p.Src)
	if !public.IsValid() {
		w.add(Hop{Where: where, Matched: p.Src.String() + " has no public address", Verdict: Drop, Code: CodeNoPublic, vpc: v})
		if o := w.joined(v, p.Dst); o != nil {
			return func() step { return w.local(o, "", p) }
		}
		return nil
	}
	before := *p
	p.Src = public
	w.add(Hop{Where: where, Matched: before.Src.String() + " is " + public.String(), Result: "src " + public.String(), Verdict: Pass, Before: before})
	if p.Dst.IsPrivate() || shared.Contains(p.Dst) {
		w.add(Hop{Where: Where{"", KindInternet, "internet"}, Matched: "nobody out there has " + p.Dst.String(), Verdict: Drop, Code: CodePrivate})
		return nil
	}
	return func() step { return w.onInternet(p) }
}

// shared is no public space: RFC 6598.
var shared = netip.MustParsePrefix("100.64.0.0/10")

func (v *VPC) publicOf(a netip.Addr) netip.Addr {
	if e := v.owner(a); e != nil {
		return e.Public[a]
	}
	for i := range v.NATGateways.Value {
		if g := &v.NATGateways.Value[i]; g.Private == a {
			return g.Public
		}
	}
	return netip.Addr{}
}

// onInternet finds who has a public address: somebody of this world behind his
// internet gateway, or somebody out there who answers.
func (w *walk) onInternet(p *Packet) step {
	for i := range w.t.w.VPCs {
		v := &w.t.w.VPCs[i]
		private := v.privateOf(p.Dst)
		if !private.IsValid() {
			continue
		}
		if len(w.ans.Hops) == 0 || w.ans.Hops[len(w.ans.Hops)-1].Where.Kind != KindGateway {
			// Somebody out there sends it; what came by a gateway has been asked.
			w.link(Where{"", KindInternet, "internet"}, "the internet", mtuInternet, p)
		}
		before := *p
		p.Dst = private
		w.add(Hop{Where: Where{v.Name, KindGateway, "internet gateway"}, Matched: before.Dst.String() + " is " + private.String(),
			Result: "dst " + private.String(), Verdict: Pass, Before: before})
		return func() step { return w.local(v, "", p) }
	}
	result := p.kind()
	w.add(Hop{Where: Where{"", KindInternet, "internet"}, Matched: "answers, one supposes", Result: result, Verdict: Pass})
	if w.reply {
		w.end = w.sender(p.Dst)
		return nil
	}
	w.end = &nsRef{internet: true, public: p.Dst, where: Where{"", KindInternet, "internet"}}
	return nil
}

// sender is who began on the internet, if the reply is for him.
func (w *walk) sender(a netip.Addr) *nsRef {
	if w.from.internet && w.from.public == a {
		return w.from
	}
	return &nsRef{internet: true, public: a}
}

func (v *VPC) privateOf(public netip.Addr) netip.Addr {
	for i := range v.ENIs.Value {
		for private, q := range v.ENIs.Value[i].Public {
			if q == public {
				return private
			}
		}
	}
	for i := range v.NATGateways.Value {
		if g := &v.NATGateways.Value[i]; g.Public == public {
			return g.Private
		}
	}
	return netip.Addr{}
}

func (w *walk) fromInternet(p *Packet) step {
	if p.Dst.IsPrivate() || shared.Contains(p.Dst) {
		for i := range w.t.w.VPCs {
			if v := &w.t.w.VPCs[i]; !v.ENIs.Known && (v.has(p.Dst) || !v.CIDRs.Known) {
				w.blindHop(Where{"", KindInternet, "internet"}, v.ENIs.unknown("the public address of "+p.Dst.String()), true)
				return nil
			}
		}
		w.add(Hop{Where: Where{"", KindInternet, "internet"}, Matched: p.Dst.String() + " has no public address", Verdict: Drop, Code: CodeNoPublic})
		return nil
	}
	return w.onInternet(p)
}

// natFlow is a flow that a NAT gateway translates.
type natFlow struct {
	gateway     string
	orig, reply tuple
	subnet      string // where it came from
}

// natOut translates what instances send by a NAT gateway. Source: "NAT gateway
// basics".
func (w *walk) natOut(v *VPC, subnet, id string, p *Packet) step {
	where := Where{v.Name, KindNAT, id}
	g := v.natGateway(id)
	if g == nil {
		w.blindHop(where, v.NATGateways.unknown(id), true)
		return nil
	}
	w.link(where, id, mtuNAT, p)
	if g.Subnet != subnet {
		w.acl(v, g.Subnet, p, false)
	}
	if g.State != "available" {
		w.add(Hop{Where: where, Matched: id + " is " + g.State, Verdict: Drop, Code: CodeNATGateway})
	}
	if p.Src == g.Private {
		w.add(Hop{Where: where, Matched: "gets what it sent itself: the route table of its subnet leads to it", Verdict: Drop, Code: CodeLoop})
		return nil
	}
	if p.Reply && p.Proto != UDP {
		w.add(Hop{Where: where, Matched: "knows no connection that this " + p.kind() + " is of", Verdict: Drop, Code: CodeNATGateway})
		return w.ifRouted(v, p)
	}
	before := *p
	p.Src = g.Private
	if p.Proto != ICMP {
		p.SrcPort = translatedPorts
	}
	w.nats = append(w.nats, natFlow{id, before.tuple(), p.tuple().inverse(), subnet})
	w.ans.Translated = true
	w.cost("NAT gateway, per byte")
	w.add(Hop{Where: where, Matched: "translates " + before.Src.String(), Result: "src " + g.Private.String(), Verdict: Pass, Before: before})
	return func() step { return w.routeOut(v, g.Subnet, p) }
}

// natIn is what comes back to a NAT gateway; nobody gets in unasked.
func (w *walk) natIn(v *VPC, subnet string, g *NATGateway, p *Packet) step {
	where := Where{v.Name, KindNAT, g.ID}
	w.link(where, g.ID, mtuNAT, p)
	if subnet != g.Subnet {
		w.acl(v, g.Subnet, p, false)
	}
	for _, f := range w.nats {
		if f.gateway != g.ID || f.reply != p.tuple() {
			continue
		}
		before := *p
		p.Dst, p.DstPort = f.orig.src, f.orig.sp
		w.add(Hop{Where: where, Matched: "translation undone", Result: "dst " + p.Dst.String(), Verdict: Pass, Before: before})
		return func() step { return w.routeOut(v, g.Subnet, p) }
	}
	w.add(Hop{Where: where, Matched: "nobody behind " + g.ID + " asked", Verdict: Drop, Code: CodeNATGateway})
	return nil
}

func (w *walk) cost(text string) {
	if !slices.Contains(w.ans.Cost, text) {
		w.ans.Cost = append(w.ans.Cost, text)
	}
}
