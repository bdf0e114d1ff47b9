package world

import (
	"fmt"
	"net/netip"
	"slices"
)

func (c *checker) peerings(w *World) {
	names := map[string]Pos{}
	pairs := map[[2]string]Pos{}
	for _, p := range w.Peerings {
		at := p.keys.at(p.Pos, "vpcs")
		if p.keys["vpcs"].bad {
			continue
		}
		if len(p.VPCs) != 2 {
			c.failf(at, "a peering joins exactly two VPCs: vpcs: [a, b]")
			continue
		}
		c.name(p.Pos, p.keys, "peering", p.Name, names)
		a, okA := w.findVPC(p.VPCs[0])
		b, okB := w.findVPC(p.VPCs[1])
		for i, ok := range []bool{okA, okB} {
			if !ok {
				c.failf(at, "peering %s: there is no vpc %s", quoted(p.Name), quoted(p.VPCs[i]))
			}
		}
		if !okA || !okB {
			continue
		}
		if a.Name == b.Name {
			c.failf(at, "peering %s: a VPC cannot be peered with itself", quoted(p.Name))
			continue
		}
		pair := [2]string{min(a.Name, b.Name), max(a.Name, b.Name)}
		if prev, twice := pairs[pair]; twice {
			c.failf(at, "peering %s: %s and %s are peered already%s", quoted(p.Name), quoted(a.Name), quoted(b.Name), inLine(prev))
			continue
		}
		pairs[pair] = at
		if x, y, overlap := overlapping(a, b); overlap {
			c.failf(at, "peering %s: %s of vpc %s overlaps %s of vpc %s: VPCs whose CIDRs overlap cannot be peered", quoted(p.Name), x, quoted(a.Name), y, quoted(b.Name))
		}
	}
}

// overlapping gives blocks of two VPCs that overlap.
func overlapping(a, b VPC) (x, y netip.Prefix, found bool) {
	for _, x := range usable(a) {
		for _, y := range usable(b) {
			if x.Overlaps(y) {
				return x, y, true
			}
		}
	}
	return x, y, false
}

func (c *checker) transit(w *World) {
	names := map[string]Pos{}
	for _, g := range w.TransitGateways {
		c.name(g.Pos, g.keys, "transit gateway", g.Name, names)
		what := fmt.Sprintf("transit gateway %s", quoted(g.Name))
		if !g.keys["vpcs"].bad {
			c.attachments(w, what, g)
		}
		tables := map[string]Pos{}
		associated := map[string]string{}
		for _, t := range g.Tables {
			c.name(t.Pos, t.keys, "table", t.Name, tables)
			c.transitTable(what, g, t, associated)
		}
	}
}

// attachments checks the VPCs of a transit gateway.
func (c *checker) attachments(w *World, what string, g TransitGateway) {
	at := g.keys.at(g.Pos, "vpcs")
	if len(g.VPCs) == 0 {
		c.failf(at, "%s has no vpcs: it needs at least one", what)
	}
	var known []VPC
	for i, name := range g.VPCs {
		v, ok := w.findVPC(name)
		switch {
		case !ok:
			c.failf(at, "%s: there is no vpc %s", what, quoted(name))
		case slices.Contains(g.VPCs[:i], name):
			c.failf(at, "%s: vpc %s is there twice: a VPC is attached once", what, quoted(name))
		case len(v.Subnets) == 0:
			c.failf(at, "%s: vpc %s has no subnet for the attachment to be in", what, quoted(name))
		default:
			known = append(known, v)
		}
	}
	for i, v := range known {
		if w.RegionOf(v) != w.RegionOf(known[0]) {
			c.failf(at, "%s: vpc %s is in %s and vpc %s in %s: a transit gateway attaches VPCs of its own region",
				what, quoted(known[0].Name), quotedBare(w.RegionOf(known[0])), quoted(v.Name), quotedBare(w.RegionOf(v)))
		}
		for _, o := range known[:i] {
			if x, y, overlap := overlapping(o, v); overlap && g.Routes {
				c.failf(at, "%s: %s of vpc %s overlaps %s of vpc %s, so there can be no routes between them: write routes: false, and the routes you want", what, x, quoted(o.Name), y, quoted(v.Name))
			}
		}
	}
}

func (c *checker) transitTable(what string, g TransitGateway, t TransitTable, associated map[string]string) {
	what = fmt.Sprintf("%s: table %s", what, quoted(t.Name))
	for _, name := range t.VPCs {
		switch other, twice := associated[name]; {
		case t.keys["vpcs"].bad:
		case !slices.Contains(g.VPCs, name):
			c.failf(t.keys.at(t.Pos, "vpcs"), "%s: vpc %s is not attached", what, quoted(name))
		case twice:
			c.failf(t.keys.at(t.Pos, "vpcs"), "%s: vpc %s is associated with %s already: an attachment has one table", what, quoted(name), quoted(other))
		default:
			associated[name] = t.Name
		}
	}
	for i, name := range t.Propagate {
		switch at := t.keys.at(t.Pos, "propagate"); {
		case t.keys["propagate"].bad:
		case !slices.Contains(g.VPCs, name):
			c.failf(at, "%s: vpc %s is not attached", what, quoted(name))
		case slices.Contains(t.Propagate[:i], name):
			c.failf(at, "%s: vpc %s is there twice", what, quoted(name))
		}
	}
	seen := map[netip.Prefix]Pos{}
	for _, r := range t.Routes {
		if !c.destination(what, r, seen) || r.keys["via"].bad {
			continue
		}
		kind, name := via(r.Via)
		if r.Via != "blackhole" && (kind != "vpc" || !slices.Contains(g.VPCs, name)) {
			c.failf(r.keys.at(r.Pos, "via"), "%s: route to %s: via %s: want vpc/NAME of a VPC that is attached, or blackhole", what, r.To, quoted(r.Via))
		}
	}
}
