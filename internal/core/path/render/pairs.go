package render

import (
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// pair is one place with what decided there on both ways.
type pair struct {
	where     path.Where
	out, back side
}

type side struct {
	decided []string
	result  string
	hops    []int
}

// paired joins the two ways of a flow that is delivered by the same places. A
// route table that only one way asks says "local" on the other.
func paired(r *Report) ([]pair, bool) {
	a := r.Answer
	if a.Verdict != path.Arrived || !a.SameENIs {
		return nil, false
	}
	var there, back []pair
	for i := range a.Hops {
		h := &a.Hops[i]
		list := &there
		if h.Reply {
			list = &back
		}
		add(list, h, i)
	}
	slices.Reverse(back)
	for i, b := range back {
		at := find(there, b.where)
		if at >= 0 {
			there[at].back = b.out
			continue
		}
		if b.where.Kind == path.KindPod || b.where.Kind == path.KindNode || b.where.Kind == path.KindENI {
			return nil, false
		}
		// It stands before what follows it on the way back, read backwards.
		at = len(there)
		for _, next := range back[i+1:] {
			if n := find(there, next.where); n >= 0 {
				at = n
				break
			}
		}
		there = slices.Insert(there, at, pair{where: b.where, back: b.out})
	}
	for i := range there {
		p := &there[i]
		empty := side{decided: []string{"-"}, result: "-"}
		if p.where.Kind == path.KindTable {
			empty = side{decided: []string{"local"}, result: "ok"}
		}
		if p.out.decided == nil {
			p.out = empty
		}
		if p.back.decided == nil {
			if k := p.where.Kind; k == path.KindPod || k == path.KindNode || k == path.KindENI {
				return nil, false
			}
			p.back = empty
		}
	}
	return there, true
}

func find(list []pair, w path.Where) int {
	return slices.IndexFunc(list, func(p pair) bool { return p.where == w })
}

// add puts a hop to its place; of several at one place the last says what came.
func add(list *[]pair, h *path.Hop, number int) {
	i := find(*list, h.Where)
	if i < 0 {
		*list = append(*list, pair{where: h.Where})
		i = len(*list) - 1
	}
	s := &(*list)[i].out
	decided := h.Matched
	if h.Where.Kind == path.KindNode {
		// Which rule led to which table; the device is said beside.
		decided = strings.TrimPrefix(decided, "connection: ")
		decided, _, _ = strings.Cut(decided, ": ")
		if strings.HasPrefix(h.Result, "src ") || strings.HasPrefix(h.Result, "dst ") {
			decided += " (" + h.Result + ")"
		}
	}
	s.hops = append(s.hops, number)
	s.decided = append(s.decided, strings.TrimSuffix(decided, " active"))
	if r := short(h); r != "" || s.result == "" {
		s.result = r
	}
}

// short is a hop's result in one word.
func short(h *path.Hop) string {
	switch {
	case h.Where.Kind == path.KindTable:
		_, target, led := strings.Cut(h.Matched, " -> ")
		if !led {
			return "ok"
		}
		return strings.Fields(target)[0]
	case h.Result == "pod":
		return "veth"
	case strings.HasPrefix(h.Result, "out "):
		if h.Where.Kind == path.KindPod {
			return ""
		}
		return h.Result[len("out "):]
	case h.Where.Kind == path.KindPod, h.Where.Kind == path.KindInternet:
		return h.Result
	case h.Where.Kind == path.KindNode && !strings.Contains(h.Result, " "):
		return h.Result
	case h.Where.Kind == path.KindNode:
		return ""
	}
	return "ok"
}

func (s Style) pairs(b *strings.Builder, r *Report, pairs []pair) {
	var lines []line
	for i, p := range pairs {
		out, back := strings.Join(p.out.decided, "; "), strings.Join(p.back.decided, "; ")
		decided := out + " | " + back
		if p.where.Kind == path.KindPod {
			// At its ends a flow is what it is: the way out, or who listens.
			decided = p.out.decided[0]
			if i == 0 && p.out.result == "" {
				p.out.result = arrives(pairs)
			} else if i > 0 {
				p.back.result = pairs[0].back.result
			}
		}
		for _, side := range []*side{&p.out, &p.back} {
			if side.result != "-" && !r.seen(side.hops...) {
				side.result = "~" + side.result
			}
		}
		lines = append(lines, line{p.where.String(), decided, []string{p.out.result, p.back.result}, path.Pass})
	}
	t := s.table([]string{"OUT", "BACK"}, "DECIDED BY (out | back)", lines)
	t.head(b)
	for i, l := range lines {
		t.line(b, i+1, l)
	}
}

// arrives is what the last place got, which is what the first one sent.
func arrives(pairs []pair) string {
	for _, p := range slices.Backward(pairs) {
		if p.out.result != "" {
			return p.out.result
		}
	}
	return "-"
}
