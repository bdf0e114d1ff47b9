package render

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// boxes draws the ends and what is between.
func (p *picture) boxes(b *strings.Builder) {
	box := func(class string, x, width int) {
		fmt.Fprintf(b, "<rect class=\"%s\" x=\"%d\" y=\"0\" width=\"%d\" height=\"%d\" rx=\"10\"/>\n", class, x, width, bodyHeight)
	}
	defer p.hosts(b)
	if p.same {
		box("b", margin, inner)
		return
	}
	box("b", margin, endWidth)
	box("b", width-margin-endWidth, endWidth)
	box("v", vpcLeft, width-2*vpcLeft)
	if len(p.routers) == 2 { // one VPC ends where the other begins
		fmt.Fprintf(b, "<path class=\"v\" d=\"M%d 0v40m0 %dv20\"/>\n", centre, bodyHeight-60)
	}
	for i := range p.routers {
		fmt.Fprintf(b, "<circle class=\"n\" cx=\"%d\" cy=\"146\" r=\"%d\"/>\n", p.routerAt(i), circle)
	}
	if p.bridge != "" {
		fmt.Fprintf(b, "<rect class=\"n\" x=\"%d\" y=\"78\" width=\"%d\" height=\"136\" rx=\"10\"/>\n", p.bridgeAt()-bridgeWidth/2, bridgeWidth)
	}
}

// labels come last, so that no line crosses them.
func (p *picture) labels(b *strings.Builder) {
	p.end(b, p.left, margin+16, first(p.left.title, p.left.pod, p.a.Probe.From))
	if p.same {
		middle(b, centre, between, "d", "the node's own tables")
		middle(b, centre, 66, "m d", p.out)
		middle(b, centre, 236, "m d", p.back)
		return
	}
	p.end(b, p.right, width-margin-endWidth+16, first(p.right.title, p.right.pod, p.a.Probe.To))
	middle(b, centre, 62, "m d", p.out)
	middle(b, centre, 240, "m d", p.back)
	if p.bridge != "" {
		middle(b, p.bridgeAt(), between, "", squeeze(p.bridge, fits(bridgeWidth-6, plainChar)))
	}
	for i, name := range p.routers {
		x, wide := p.routerAt(i), centre-vpcLeft
		if len(p.routers) == 1 {
			x, wide = centre, 2*wide
		}
		middle(b, x, 28, "d", squeeze(name, fits(wide-16, plainChar)))
		middle(b, p.routerAt(i), between, "d", "router")
	}
}

// end names a node, and what it makes of the packet's addresses.
func (p *picture) end(b *strings.Builder, e ender, x int, title string) {
	text(b, x, 27, "", clip(title, fits(endWidth-32, plainChar)))
	for i, change := range e.nat[:min(len(e.nat), 2)] {
		text(b, x, []int{50, 260}[i], "m d", clip("NAT "+change, fits(endWidth-32, monoChar)))
	}
}

// hosts draws who sends and who receives: a pod, or the node itself.
func (p *picture) hosts(b *strings.Builder) {
	for i, e := range []ender{p.left, p.right} {
		x := []int{leftPod - podWidth, rightPod}[i]
		if e.host != "" {
			fmt.Fprintf(b, "<rect class=\"n\" x=\"%d\" y=\"72\" width=\"%d\" height=\"148\" rx=\"8\"/>\n", x, podWidth)
			middle(b, x+podWidth/2, between, "", squeeze(e.host, fits(podWidth-12, plainChar)))
		}
	}
}

func first(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}

// stroke is a piece of a way.
type stroke struct {
	x1, y1, x2, y2 int
	class          string
}

// ways draws both ways with their octagons, and gives the rows of those.
func (p *picture) ways(b *strings.Builder, all []row) []row {
	var marks []row
	var strokes []stroke
	var stops strings.Builder
	dropped := false
	for i := range p.a.Hops {
		h := &p.a.Hops[i]
		x, y := p.at(i)
		if i > 0 {
			s := stroke{x2: x, y2: y, class: "o"}
			s.x1, s.y1 = p.at(i - 1)
			switch {
			case dropped:
				s.class = "x"
			case h.Reply:
				s.class = "r"
			}
			// Within a pod there is no way to be seen: it turns there.
			turns := h.Where.Kind == path.KindPod && p.a.Hops[i-1].Where == h.Where
			if !turns && (s.x1 != s.x2 || s.y1 != s.y2) {
				strokes = append(strokes, s)
			}
		}
		if h.Verdict == path.Pass {
			continue
		}
		dropped = dropped || h.Verdict == path.Drop
		number := numberOf(all, i)
		octagon(&stops, x, y, number, h.Verdict == path.Blind)
		if number > 0 && !slices.ContainsFunc(marks, func(m row) bool { return m.number == number }) {
			marks = append(marks, all[number-1])
		}
	}
	for _, s := range strokes {
		fmt.Fprintf(b, "<path class=\"%s\" d=\"M%d %dL%d %d\"/>\n", s.class, s.x1, s.y1, s.x2, s.y2)
	}
	p.heads(b, strokes)
	b.WriteString(stops.String())
	return marks
}

// heads draws the arrows: one in the middle of each way, and one where it ends.
func (p *picture) heads(b *strings.Builder, strokes []stroke) {
	for i, s := range strokes {
		left := s.x2 < s.x1
		if s.y1 != s.y2 {
			continue
		}
		if lo, hi := min(s.x1, s.x2), max(s.x1, s.x2); lo <= centre && centre <= hi && s.x2 != centre {
			arrow(b, centre+map[bool]int{true: -8, false: 8}[left], s.y1, s.class, left)
		}
		if last := i == len(strokes)-1 || strokes[i+1].y1 != s.y1 || strokes[i+1].x1 != s.x2; last && (s.x2 == leftPod || s.x2 == rightPod) {
			arrow(b, s.x2, s.y1, s.class, left)
		}
	}
}

// gates draws the ENIs that the ways pass, each where its lane is, with the name
// of its device where the node has said it.
func (p *picture) gates(b *strings.Builder) {
	type gate struct {
		right bool
		name  string
	}
	lanes, devices := map[gate][]int{}, map[gate]string{}
	var order []gate
	for i := range p.a.Hops {
		h := &p.a.Hops[i]
		if h.Where.Kind != path.KindENI {
			continue
		}
		x, y := p.at(i)
		g := gate{x > centre, h.Where.Name}
		if lanes[g] == nil {
			order = append(order, g)
		}
		if !slices.Contains(lanes[g], y) {
			lanes[g] = append(lanes[g], y)
		}
		devices[g] = first(devices[g], p.device(i))
	}
	for _, g := range order {
		lo, hi := slices.Min(lanes[g]), slices.Max(lanes[g])
		x := leftENI
		if g.right {
			x = rightENI
		}
		fmt.Fprintf(b, "<rect class=\"n\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"6\"/>\n", x-eniWidth/2, lo-20, eniWidth, hi-lo+40)
		name, device := between-12, between+12
		switch {
		case lo == hi: // the name stands below the lane's box, the device above it
			name, device = lo+41, lo-26
		case devices[g] == "":
			name = between
		}
		middle(b, x, name, "", squeeze(g.name, fits(eniWidth-6, plainChar)))
		if devices[g] != "" {
			middle(b, x, device, "d", clip(devices[g], fits(eniWidth-6, plainChar)))
		}
	}
}

// device is by which one the packet left its node for the ENI of a hop, or came in
// from it.
func (p *picture) device(i int) string {
	hops := p.a.Hops
	if name, found := strings.CutPrefix(hops[i].Result, "in "); found && !strings.Contains(name, " ") {
		return name
	}
	for i--; i >= 0 && hops[i].Where.Kind == path.KindNode; i-- {
		if hops[i].Device != "" {
			return hops[i].Device
		}
	}
	return ""
}
