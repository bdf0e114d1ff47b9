package render

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// picture is where things are in an SVG, below its heading:
//
//	24      346 358                  842 854     1176
//	+----------+ + - - - - - - - - - - + +----------+   0
//	|pod  [ENI]===(router)=bridge=(router)===[ENI]  pod|  packet
//	|     [ENI]---(router)-bridge-(router)---[ENI]     |  reply
//	+----------+ + - - - - - - - - - - + +----------+   268
type picture struct {
	a           *path.Answer
	left, right ender
	routers     []string // VPCs, or one
	bridge      string   // what joins two, or leads out
	same        bool     // both ends are on one node: no VPC has a part in it
	out, back   string   // the packet and its reply, as the VPC has them
}

// ender is a node, or whatever is at an end.
type ender struct {
	title string
	host  string // who sends or receives: a pod, or the node itself
	pod   string
	sites map[path.Where]bool
	nat   []string // what the node makes of the packet's addresses
}

// The lanes: the packet above, the reply below. A name stands between them.
const (
	laneOut, laneBack = 98, 194
	between           = 152
	bodyHeight        = 268
)

// Where things stand, from left to right.
const (
	leftPod, leftNode, leftENI, leftACL     = 160, 179, 264, 352
	rightACL, rightENI, rightNode, rightPod = 848, 936, 1021, 1040
	centre, firstVPC, secondVPC             = 600, 476, 724
	podWidth, eniWidth, bridgeWidth, circle = 124, 132, 124, 56
	endWidth, vpcLeft                       = 322, 358 // of a node; of what is between
)

func layout(a *path.Answer) *picture {
	p := &picture{a: a}
	defer p.captions()
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
			p.left.pod, p.left.host = h.Where.Name, h.Where.Name
		case h.Where.Kind == path.KindPod:
			p.right.pod, p.right.host = h.Where.Name, h.Where.Name
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
		if h.Where.Kind == path.KindNode && (h.Before.Src != h.After.Src || h.Before.Dst != h.After.Dst) {
			e.nat = append(e.nat, h.Result)
		}
		switch h.Where.Kind {
		case path.KindPod:
			e.pod = h.Where.Name
		case path.KindNode:
			e.title, e.host = h.Where.String(), "host"
		}
	}
	for _, h := range back {
		if h.Where.Kind == path.KindPod && e.sites[h.Where] {
			e.pod = h.Where.Name
		}
	}
	if e.pod != "" {
		e.host = e.pod
	}
	return e
}

// at is where a hop is drawn.
func (p *picture) at(i int) (x, y int) {
	h := &p.a.Hops[i]
	y = laneOut
	if h.Reply {
		y = laneBack
	}
	if p.same {
		switch {
		case h.Where.Kind != path.KindPod:
			return centre, y
		case p.left.pod == p.right.pod: // a Service's pod that asks itself
			if p.passedNode(i) != h.Reply {
				return rightPod, y
			}
			return leftPod, y
		case h.Where.Name == p.left.pod:
			return leftPod, y
		}
		return rightPod, y
	}
	right := p.onRight(i)
	side := func(l, r int) (int, int) {
		if right {
			return r, y
		}
		return l, y
	}
	switch h.Where.Kind {
	case path.KindPod:
		return side(leftPod, rightPod)
	case path.KindNode:
		if right && p.right.pod == "" || !right && p.left.pod == "" {
			return side(leftPod, rightPod) // the node is the end itself
		}
		return side(leftNode, rightNode)
	case path.KindENI:
		return side(leftENI, rightENI)
	case path.KindACL:
		return side(leftACL, rightACL)
	case path.KindTable:
		if len(p.routers) < 2 {
			return p.routerAt(0), y
		}
		return side(firstVPC, secondVPC)
	case path.KindPeering, path.KindTransit, path.KindNAT, path.KindGateway:
		return p.bridgeAt(), y
	}
	return rightPod, y
}

// passedNode reports whether the packet, or its reply, has been in a node before a hop.
func (p *picture) passedNode(i int) bool {
	reply := p.a.Hops[i].Reply
	for i--; i >= 0 && p.a.Hops[i].Reply == reply; i-- {
		if p.a.Hops[i].Where.Kind == path.KindNode {
			return true
		}
	}
	return false
}

// routerAt is where the circle of a VPC stands.
func (p *picture) routerAt(i int) int {
	switch {
	case len(p.routers) == 2:
		return []int{firstVPC, secondVPC}[i]
	case p.bridge != "":
		return firstVPC
	}
	return centre
}

// bridgeAt is where what joins two VPCs stands, or what leads out of one.
func (p *picture) bridgeAt() int {
	if len(p.routers) == 2 {
		return centre
	}
	return secondVPC
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

// captions are the addresses of the packet and of its reply, as they leave the
// node that they come from: what flow logs and groups know them by.
func (p *picture) captions() {
	for i := range p.a.Hops {
		h := &p.a.Hops[i]
		if k := h.Where.Kind; !p.same && (k == path.KindPod || k == path.KindNode) {
			continue
		}
		switch {
		case h.Reply && p.back == "":
			p.back = ends(h.Before)
		case !h.Reply && p.out == "":
			p.out = ends(h.Before)
		}
	}
}

// ends are a packet's addresses, with the ports that are decided.
func ends(k path.Packet) string {
	end := func(a netip.Addr, p path.Ports) string {
		switch {
		case !a.IsValid():
			return "?"
		case p.Lo != p.Hi || p.Lo == 0:
			return a.String()
		}
		return netip.AddrPortFrom(a, p.Lo).String()
	}
	return end(k.Src, k.SrcPort) + " → " + end(k.Dst, k.DstPort)
}
