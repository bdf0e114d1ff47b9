package render

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// picture is where things are in an SVG:
//
//	24   300  330         600          870  900  1176
//	+------+   + - - - - - - - - - - - +   +------+   100
//	|pod [ENI]===(router)==bridge==(router)=[ENI] pod|
//	|    [ENI]                            [ENI]   |
//	+------+   + - - - - - - - - - - - +   +------+   400
type picture struct {
	a           *path.Answer
	left, right ender
	routers     []string // VPCs, or one
	bridge      string   // what joins two
	same        bool     // both ends are on one node: no VPC has a part in it
}

// ender is a node, or whatever is at an end.
type ender struct {
	title, pod string
	sites      map[path.Where]bool
}

// The lanes: the packet above, the reply below.
const (
	laneOut, laneBack = 205, 305
	top, bottom       = 92, 400
)

func layout(a *path.Answer) *picture {
	p := &picture{a: a}
	turn := len(a.Hops)
	for i := range a.Hops {
		if a.Hops[i].Reply {
			turn = i
			break
		}
	}
	forward, back := a.Hops[:turn], a.Hops[turn:]
	// The left end is the way to the first VPC, the right end what follows the last.
	first, last := span(forward)
	if first == len(forward) {
		p.oneNode(forward)
		return p
	}
	p.left = endOf(forward[:first], back)
	p.right = endOf(forward[last:], back)
	for _, h := range forward[first:last] {
		switch h.Where.Kind {
		case path.KindTable:
			p.router("VPC " + h.Where.Site)
			if strings.HasPrefix(h.Result, "to VPC ") {
				p.router(h.Result[len("to "):])
				_, target, _ := strings.Cut(h.Matched, " -> ")
				p.bridge = strings.TrimSuffix(target, " active")
			}
		case path.KindTransit, path.KindPeering, path.KindGateway, path.KindNAT:
			if p.bridge == "" || h.Where.Kind != path.KindPeering {
				p.bridge = h.Where.Name
			}
		}
	}
	if p.right.title == "" {
		p.right.title = a.Probe.To
	}
	return p
}

// oneNode is a flow between two of a node, or with the node itself.
func (p *picture) oneNode(forward []path.Hop) {
	p.same = true
	for i, h := range forward {
		switch {
		case h.Where.Kind == path.KindNode:
			p.left.title = h.Where.String()
		case h.Where.Kind == path.KindPod && i == 0:
			p.left.pod = h.Where.Name
		case h.Where.Kind == path.KindPod:
			p.right.pod = h.Where.Name
		}
	}
}

func (p *picture) router(vpc string) {
	if !slices.Contains(p.routers, vpc) && len(p.routers) < 2 {
		p.routers = append(p.routers, vpc)
	}
}

// span is the part of the forward way that is in VPCs: from the first ENI that
// the packet leaves by to behind the last that it comes in by.
func span(hops []path.Hop) (first, last int) {
	first, last = len(hops), len(hops)
	for i, h := range hops {
		k := h.Where.Kind
		if k != path.KindPod && k != path.KindNode {
			first = min(first, i)
			last = i + 1
		}
	}
	return first, last
}

// endOf reads one end: who is there.
func endOf(forward, back []path.Hop) ender {
	e := ender{sites: map[path.Where]bool{}}
	for _, h := range forward {
		e.sites[h.Where] = true
		switch h.Where.Kind {
		case path.KindPod:
			e.pod = h.Where.Name
		case path.KindNode:
			e.title = h.Where.String()
		}
	}
	for _, h := range back {
		if h.Where.Kind == path.KindPod && e.sites[h.Where] {
			e.pod = h.Where.Name
		}
	}
	return e
}

// boxes draws the ends and what is between.
func (p *picture) boxes(b *strings.Builder) {
	if p.same {
		fmt.Fprintf(b, "<rect class=\"b\" x=\"24\" y=\"%d\" width=\"1152\" height=\"%d\" rx=\"10\"/>\n", top, bottom-top)
		return
	}
	fmt.Fprintf(b, "<rect class=\"b\" x=\"24\" y=\"%d\" width=\"276\" height=\"%d\" rx=\"10\"/>\n", top, bottom-top)
	fmt.Fprintf(b, "<rect class=\"b\" x=\"900\" y=\"%d\" width=\"276\" height=\"%d\" rx=\"10\"/>\n", top, bottom-top)
	switch len(p.routers) {
	case 2:
		for i, x := range []int{324, 612} {
			fmt.Fprintf(b, "<rect class=\"v\" x=\"%d\" y=\"%d\" width=\"264\" height=\"%d\" rx=\"10\"/>\n", x, top, bottom-top)
			middle(b, x+132, top+28, "d", clip(p.routers[i], 26))
			fmt.Fprintf(b, "<circle class=\"n\" cx=\"%d\" cy=\"255\" r=\"72\"/>\n", x+132)
		}
		fmt.Fprintf(b, "<rect class=\"n\" x=\"540\" y=\"186\" width=\"120\" height=\"138\" rx=\"10\"/>\n")
	default:
		fmt.Fprintf(b, "<rect class=\"v\" x=\"324\" y=\"%d\" width=\"552\" height=\"%d\" rx=\"10\"/>\n", top, bottom-top)
		if len(p.routers) == 1 {
			middle(b, 600, top+28, "d", clip(p.routers[0], 56))
			fmt.Fprintf(b, "<circle class=\"n\" cx=\"600\" cy=\"255\" r=\"72\"/>\n")
		}
	}
}

// labels come last, so that no line crosses them.
func (p *picture) labels(b *strings.Builder) {
	text(b, 40, top+28, "", clip(first(p.left.title, p.left.pod, p.a.Probe.From), 28))
	if p.same {
		middle(b, 600, 261, "d", "the node's own tables")
	} else {
		text(b, 916, top+28, "", clip(first(p.right.title, p.right.pod, p.a.Probe.To), 28))
	}
	if p.left.pod != "" {
		pod(b, 40, p.left.pod)
	}
	if p.right.pod != "" {
		pod(b, 1050, p.right.pod)
	}
	if p.bridge != "" {
		x := 600
		if len(p.routers) < 2 {
			x = 780
		}
		middle(b, x, 261, "", clip(p.bridge, 13))
	}
	if len(p.routers) == 2 {
		middle(b, 456, 261, "d", "router")
		middle(b, 744, 261, "d", "router")
	} else if len(p.routers) == 1 {
		middle(b, 600, 261, "d", "router")
	}
}

func pod(b *strings.Builder, x int, name string) {
	fmt.Fprintf(b, "<rect class=\"n\" x=\"%d\" y=\"170\" width=\"110\" height=\"170\" rx=\"8\"/>\n", x)
	middle(b, x+55, 261, "", clip(name, 12))
}

func first(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}

// point is a place on a way.
type point struct {
	x, y int
	hop  int // of the answer
}

// ways draws both ways with their octagons, and gives the rows of those.
func (p *picture) ways(b *strings.Builder, all []row) []int {
	var points []point
	for i := range p.a.Hops {
		if x, y, ok := p.at(i); ok {
			points = append(points, point{x, y, i})
		}
	}
	var marks []int
	var stops []string
	broken := false
	for i, q := range points {
		if i > 0 {
			prev := points[i-1]
			class := "o"
			if p.a.Hops[q.hop].Reply {
				class = "r"
			}
			if broken {
				class = "x"
			}
			if prev.x != q.x || prev.y != q.y {
				fmt.Fprintf(b, "<path class=\"%s\" d=\"M%d %dL%d %d\"/>\n", class, prev.x, prev.y, q.x, q.y)
			}
		}
		if v := p.a.Hops[q.hop].Verdict; v != path.Pass {
			broken = broken || v == path.Drop
			number := numberOf(all, q.hop)
			var mark strings.Builder
			octagon(&mark, q.x, q.y, number, v == path.Blind)
			stops = append(stops, mark.String())
			if !slices.Contains(marks, number) && number > 0 {
				marks = append(marks, number)
			}
		}
	}
	p.gates(b)
	for _, s := range stops {
		b.WriteString(s)
	}
	return marks
}

// gates draws the ENIs that the ways pass, each where its lane is.
func (p *picture) gates(b *strings.Builder) {
	type gate struct {
		right bool
		name  string
	}
	lanes := map[gate][]int{}
	var order []gate
	for i := range p.a.Hops {
		h := &p.a.Hops[i]
		if h.Where.Kind != path.KindENI {
			continue
		}
		x, y, _ := p.at(i)
		g := gate{x > 600, h.Where.Name}
		if lanes[g] == nil {
			order = append(order, g)
		}
		if !slices.Contains(lanes[g], y) {
			lanes[g] = append(lanes[g], y)
		}
	}
	for _, g := range order {
		lo, hi := slices.Min(lanes[g]), slices.Max(lanes[g])
		x := 176
		if g.right {
			x = 912
		}
		fmt.Fprintf(b, "<rect class=\"n\" x=\"%d\" y=\"%d\" width=\"112\" height=\"%d\" rx=\"6\" fill-opacity=\"0.85\"/>\n", x, lo-24, hi-lo+48)
		middle(b, x+56, (lo+hi)/2+labelShift(lo, hi), "", clip(g.name, 13))
	}
}

// labelShift keeps a name off the one lane that its box is on.
func labelShift(lo, hi int) int {
	if lo == hi {
		return 42
	}
	return 6
}

// at is where a hop is drawn.
func (p *picture) at(i int) (x, y int, ok bool) {
	h := &p.a.Hops[i]
	y = laneOut
	if h.Reply {
		y = laneBack
	}
	if p.same {
		switch {
		case h.Where.Kind != path.KindPod:
			return 600, y, true
		case h.Where.Name == p.left.pod:
			return 120, y, true
		}
		return 1080, y, true
	}
	right := p.onRight(i)
	side := func(l, r int) (int, int, bool) {
		if right {
			return r, y, true
		}
		return l, y, true
	}
	switch h.Where.Kind {
	case path.KindPod:
		return side(120, 1080)
	case path.KindNode:
		return side(163, 1037)
	case path.KindENI:
		return side(232, 968)
	case path.KindACL:
		return side(312, 888)
	case path.KindTable:
		if len(p.routers) < 2 {
			return 600, y, true
		}
		return side(456, 744)
	case path.KindPeering, path.KindTransit, path.KindNAT, path.KindGateway:
		if len(p.routers) < 2 {
			return 780, y, true
		}
		return 600, y, true
	}
	return 1037, y, true
}

// onRight: is the hop at the far end? A place of the left end is left; within
// the VPCs the side is that of the site, or of the order on the way.
func (p *picture) onRight(i int) bool {
	h := &p.a.Hops[i]
	if p.left.sites[h.Where] {
		return p.right.sites[h.Where] && h.Reply != p.beforeTurn(i)
	}
	if p.right.sites[h.Where] {
		return true
	}
	if len(p.routers) == 2 && p.leftSite() != "" {
		return h.Where.Site != p.leftSite()
	}
	// One VPC: what stands before the route table is on the sender's side.
	passed := false
	for j := range p.a.Hops[:i] {
		if p.a.Hops[j].Reply == h.Reply && p.a.Hops[j].Where.Kind == path.KindTable {
			passed = true
		}
	}
	return passed != h.Reply
}

func (p *picture) leftSite() string {
	for w := range p.left.sites {
		if w.Site != "" {
			return w.Site
		}
	}
	return ""
}

// beforeTurn is for a node that is both ends: its first half is the sender's.
func (p *picture) beforeTurn(i int) bool { return p.a.Hops[i].Reply }
