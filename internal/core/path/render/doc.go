// Package render shows an answer of package path to a person: as text, as a
// picture (SVG), as a Mermaid diagram, and as JSON for a program.
//
// The same report gives the same bytes. Nothing here decides anything about the
// packet: a renderer orders, joins and leaves out.
//
// The package is pure, holds no state and is safe for concurrent use.
package render

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/sighting"
)

// Report is what is shown: an answer and what it means.
type Report struct {
	Answer    *path.Answer   `json:"answer"`
	Diagnosis path.Diagnosis `json:"diagnosis"`
	Taken     string         `json:"taken,omitempty"`   // when the world was collected, in its own words
	Command   string         `json:"command,omitempty"` // that showed it
	Live      *sighting.Live `json:"live,omitempty"`    // nil: nothing was sent
}

// JSON is the whole, every hop, for programs. Its codes and verdicts are stable.
func JSON(r Report) ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	return append(b, '\n'), err
}

// seen says whether one of the hops was met. Without a packet that was sent there
// is nothing to tell apart, and all count as seen.
func (r *Report) seen(hops ...int) bool {
	return r.Live == nil || slices.ContainsFunc(hops, func(h int) bool { return slices.Contains(r.Live.Seen, h) })
}

// row is a line of the report: one hop, or several that a person reads as one.
type row struct {
	number  int // from 1
	where   path.Where
	decided string
	result  string
	verdict path.Verdict
	code    path.Code
	reply   bool
	diverts bool // as [path.Hop.Diverts]
	hops    []int
}

// rows joins the hops of an answer: an ACL with the ENI beside it, a pod with
// its node, where all of it passes. What follows the last fault is left out, as
// it merely passes.
func rows(a *path.Answer) []row {
	last := len(a.Hops) - 1
	if a.Verdict != path.Arrived {
		for last >= 0 && a.Hops[last].Verdict == path.Pass {
			last--
		}
	}
	var out []row
	for i := 0; i <= last; i++ {
		h := &a.Hops[i]
		r := row{where: h.Where, decided: h.Matched, result: h.Result, verdict: h.Verdict, code: h.Code, reply: h.Reply, diverts: h.Diverts, hops: []int{i}}
		var prev *row
		if len(out) > 0 && out[len(out)-1].verdict == path.Pass && out[len(out)-1].reply == r.reply {
			prev = &out[len(out)-1]
		}
		switch pass := r.verdict == path.Pass; {
		case pass && h.Where.Kind == path.KindPod && strings.HasPrefix(r.result, "out "):
			continue
		case pass && h.Where.Kind == path.KindPod && prev != nil && toPod(out, prev) != nil:
			to := toPod(out, prev)
			to.result = "pod; " + answers(a, i)
			to.hops = append(to.hops, i)
			continue
		case pass && prev != nil && h.Where.Kind == path.KindACL && prev.where.Kind == path.KindENI:
			prev.decided += "; " + h.Where.Name + " " + r.decided
			prev.hops = append(prev.hops, i)
			continue
		case pass && prev != nil && h.Where.Kind == path.KindENI && prev.where.Kind == path.KindACL:
			r.decided = prev.where.Name + " " + prev.decided + "; " + r.decided
			r.hops = append(prev.hops, i)
			out = out[:len(out)-1]
		}
		out = append(out, r)
	}
	for i := range out {
		out[i].number = i + 1
	}
	return out
}

// toPod is the row that led to the pod: the one before, or the one before a
// translation.
func toPod(out []row, prev *row) *row {
	if n := len(out); strings.HasPrefix(prev.result, "src ") && n > 1 && out[n-2].where == prev.where {
		prev = &out[n-2]
	}
	if prev.result != "pod" {
		return nil
	}
	return prev
}

// answers is what the pod sends next, or what it got.
func answers(a *path.Answer, i int) string {
	for _, h := range a.Hops[i:] {
		if h.Reply != a.Hops[i].Reply {
			switch a.Probe.Proto {
			case path.TCP:
				return "SYN-ACK"
			case path.ICMP:
				return "echo reply"
			}
			return "answer"
		}
	}
	return a.Hops[i].Result
}

// numberOf is the row that has the hop; 0: none.
func numberOf(rows []row, hop int) int {
	for _, r := range rows {
		for _, h := range r.hops {
			if h == hop {
				return r.number
			}
		}
	}
	return 0
}

// Sentence is the verdict, as the first line of the text and the title of the
// picture.
func Sentence(a *path.Answer) string { return sentence(a, rows(a)) }

func sentence(a *path.Answer, all []row) string {
	switch a.Verdict {
	case path.Arrived:
		text := "DELIVERED  both ways"
		if a.SameENIs {
			text += ", same ENIs"
		} else {
			text += ", by other ENIs back"
		}
		if a.Translated {
			text += ", NAT undone"
		} else {
			text += ", no NAT"
		}
		return fmt.Sprintf("%s, MTU %d", text, a.MTU)
	case path.Dropped:
		var parts []string
		for _, r := range all {
			if r.verdict == path.Drop {
				parts = append(parts, fmt.Sprintf("%s at hop %d %s", who(a, r), r.number, r.code))
			}
		}
		return "DROPPED  " + strings.Join(parts, "; behind it, ")
	}
	for _, r := range all {
		if r.verdict == path.Blind {
			return fmt.Sprintf("CANNOT TELL  %s at hop %d: %s", who(a, r), r.number, r.decided)
		}
	}
	return "CANNOT TELL"
}

func who(a *path.Answer, r row) string {
	if r.reply {
		return "reply"
	}
	return map[path.Proto]string{path.TCP: "SYN", path.UDP: "datagram", path.ICMP: "echo"}[a.Probe.Proto]
}
