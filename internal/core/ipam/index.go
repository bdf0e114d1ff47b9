package ipam

import (
	"container/heap"
	"net/netip"
)

// The pool's index: it finds the address for the next pod without looking at
// all of them.
//
//	Pool.enis --> eniIndex eni-0 --> group: its single addresses --> queue of free ones
//	          |                  '-> group: 10.0.9.16/28         --> queue of free ones
//	          '-> eniIndex eni-1 ...
//
// A slot is in one queue at most: the free ones of its group, or those that cool.

// eniIndex is one ENI's groups.
type eniIndex struct {
	id     string
	pods   int // addresses that are assigned or reserved
	groups []*group
}

// group is what an ENI was given in one way: a prefix, or its single addresses.
type group struct {
	eni    *eniIndex
	prefix netip.Prefix // zero: single addresses
	pods   int          // assigned or reserved
	busy   int          // those and the cooling ones
	free   queue        // what may be given out
}

func newGroup(e *eniIndex, prefix netip.Prefix) *group {
	return &group{eni: e, prefix: prefix, free: queue{less: longerFree}}
}

// longerFree orders the free addresses of a group: a never used one first, then
// the one that has been free the longest.
func longerFree(a, b *slot) bool {
	switch {
	case a.used != b.used:
		return !a.used
	case a.used && !a.since.Equal(b.since):
		return a.since.Before(b.since)
	}
	return a.addr.Less(b.addr)
}

// count adds n addresses in the state.
func (g *group) count(state AddrState, n int) {
	switch state {
	case Assigned, Reserved:
		g.pods, g.busy, g.eni.pods = g.pods+n, g.busy+n, g.eni.pods+n
	case CoolingDown:
		g.busy += n
	}
}

// rank is the order in which kinds of groups are used, the lowest first. Where
// single addresses are preferred, a prefix that pods are on already comes before
// one that could be given back whole.
func (g *group) rank(prefixes bool) int {
	switch {
	case g.prefix.IsValid() == prefixes:
		return 0
	case prefixes || g.busy > 0:
		return 1
	}
	return 2
}

// pick is the best free slot, or nil.
//
// The kind that is preferred comes first. Then the primary ENI, as it can never
// be given back, then the one with the most pods, so that the others run empty.
// Within an ENI the prefix with the most pods, for the same reason; then see
// longerFree.
func (p *Pool) pick() *slot {
	var best *group
	for _, e := range p.enis {
		if p.excluded[e.id] {
			continue
		}
		for _, g := range e.groups {
			if len(g.free.slots) > 0 && (best == nil || p.better(g, best)) {
				best = g
			}
		}
	}
	if best == nil {
		return nil
	}
	return best.free.first()
}

// better reports whether g is to be used before h, which comes before g in the
// order of devices and addresses.
func (p *Pool) better(g, h *group) bool {
	if a, b := g.rank(p.prefixes), h.rank(p.prefixes); a != b {
		return a < b
	}
	if g.eni != h.eni {
		return h.eni != p.enis[0] && g.eni.pods > h.eni.pods
	}
	return g.pods > h.pods
}

// move puts a slot into a state, with all that follows from it. A free or
// leaving one that no ENI has is forgotten.
func (p *Pool) move(s *slot, state AddrState) {
	if s.group != nil {
		s.group.count(s.state, -1)
		s.group.count(state, 1)
	}
	if s.state == Assigned && state != Assigned {
		delete(p.owners, s.owner)
		s.owner = Owner{}
	}
	s.state = state
	p.unqueue(s)
	switch {
	case s.gone && (state == Free || state == Leaving):
		delete(p.slots, s.addr)
	case state == Free && !s.disputed():
		s.group.free.add(s)
	case state == CoolingDown:
		p.cooling.add(s)
	}
}

func (p *Pool) unqueue(s *slot) {
	if s.queue != nil {
		heap.Remove(s.queue, s.pos)
	}
}

// queue is slots, the least of them first.
type queue struct {
	less  func(a, b *slot) bool
	slots []*slot
}

func (q *queue) add(s *slot) { heap.Push(q, s) }

func (q *queue) first() *slot {
	if len(q.slots) == 0 {
		return nil
	}
	return q.slots[0]
}

// What follows is for container/heap.

func (q *queue) Len() int           { return len(q.slots) }
func (q *queue) Less(i, j int) bool { return q.less(q.slots[i], q.slots[j]) }

func (q *queue) Swap(i, j int) {
	q.slots[i], q.slots[j] = q.slots[j], q.slots[i]
	q.slots[i].pos, q.slots[j].pos = i, j
}

func (q *queue) Push(x any) {
	s := x.(*slot)
	s.queue, s.pos = q, len(q.slots)
	q.slots = append(q.slots, s)
}

func (q *queue) Pop() any {
	last := len(q.slots) - 1
	s := q.slots[last]
	q.slots[last] = nil
	q.slots = q.slots[:last]
	s.queue = nil
	return s
}
