package path

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// candidate is a change that might help. An obvious one is what people try first,
// and is only shown where it does not.
type candidate struct {
	edits   []Edit
	words   string
	command string // in full, where the words are short
	lasting string
	cause   string // what it mends, where the fault's own words do not say it
	obvious bool
	// further: tried only where nothing before it helps.
	further bool
}

func one(target, text string) candidate {
	e := Edit{target, text}
	return candidate{edits: []Edit{e}, words: e.String()}
}

const maxMends = 3 // changes that one mend may consist of

// mend tries what might help, each in a copy of the world.
func (t *Tracer) mend(a *Answer, d *Diagnosis) error {
	faults := a.Faults()
	tried := map[string]bool{}
	var late []Mend
	for n, i := range faults {
		for _, c := range t.candidates(a, i) {
			key := fmt.Sprint(c.edits, c.obvious)
			if c.obvious && n > 0 || c.further && len(d.Mends) > 0 || tried[key] {
				continue
			}
			tried[key] = true
			m, _, err := t.replay(a, []candidate{c})
			if err != nil {
				return err
			}
			switch arrived := m.Verdict == Arrived; {
			case c.obvious && arrived:
				m.Words = cmp.Or(c.command, m.Words)
				late = append(late, m)
			case c.obvious:
				d.Not = append(d.Not, m)
			case arrived:
				d.Mends = append(d.Mends, m)
			}
		}
	}
	if len(d.Mends) == 0 {
		if err := t.mendTogether(a, d); err != nil {
			return err
		}
	}
	for _, m := range late {
		if !slices.ContainsFunc(d.Mends, func(o Mend) bool { return slices.Equal(o.Edits, m.Edits) }) {
			d.Mends = append(d.Mends, m)
		}
	}
	return nil
}

// mendTogether puts one change on another: each for the first fault that is left.
// Of several for one fault the first is taken after which that fault is gone.
func (t *Tracer) mendTogether(a *Answer, d *Diagnosis) error {
	var all []candidate
	now, world := a, t
	for len(all) < maxMends {
		faults := now.Faults()
		if len(faults) == 0 {
			return nil
		}
		better := false
		for _, c := range world.candidates(now, faults[0]) {
			if c.obvious {
				continue
			}
			m, next, err := t.replay(a, append(slices.Clip(all), c))
			if err != nil {
				return err
			}
			if m.Verdict == Arrived {
				d.Mends = append(d.Mends, m)
				return nil
			}
			if !better && !next.answer.has(&now.Hops[faults[0]]) {
				better = true
				all = append(slices.Clip(all), c)
				now, world = next.answer, next.tracer
				break
			}
		}
		if !better {
			return nil
		}
	}
	return nil
}

// has reports whether the answer has the same fault at the same place.
func (a *Answer) has(fault *Hop) bool {
	return slices.ContainsFunc(a.Faults(), func(i int) bool {
		h := &a.Hops[i]
		return h.Where == fault.Where && h.Code == fault.Code && h.Reply == fault.Reply
	})
}

type replayed struct {
	answer *Answer
	tracer *Tracer
}

func (t *Tracer) replay(a *Answer, all []candidate) (Mend, replayed, error) {
	m := Mend{Moved: -1}
	var words []string
	for _, c := range all {
		m.Edits = append(m.Edits, c.edits...)
		words = append(words, c.words)
		m.Lasting = cmp.Or(c.lasting, m.Lasting)
		m.Cause = cmp.Or(c.cause, m.Cause)
	}
	m.Words = strings.Join(words, "; ")
	w, err := t.w.With(m.Edits...)
	if err != nil {
		return m, replayed{}, fmt.Errorf("try %s: %w", m.Words, err)
	}
	r := replayed{tracer: NewTracer(w)}
	if r.answer, err = r.tracer.Trace(a.Probe); err != nil {
		return m, r, err
	}
	m.Verdict = r.answer.Verdict
	if f := r.answer.Faults(); len(f) > 0 {
		first := &r.answer.Hops[f[0]]
		m.Moved = slices.IndexFunc(a.Hops, func(h Hop) bool {
			return h.Where == first.Where && h.Code == first.Code && h.Reply == first.Reply
		})
	}
	return m, r, nil
}

// candidates are what might help at one fault.
func (t *Tracer) candidates(a *Answer, i int) []candidate {
	h := &a.Hops[i]
	p := &h.Before
	switch h.Code {
	case CodeStrict, CodeLoose:
		if t.forNode(a, i) {
			return t.loosenForNode(h)
		}
		return append(t.mendRule(h.ns, a.nearOf(i), p.Dst, p.Src, h.Device), t.loosen(h)...)
	case CodeSrcDstCheck:
		return t.mendEgress(a, i)
	case CodeGroupIn, CodeGroupOut, CodeGroupRegion:
		return t.mendGroup(h)
	case CodeACLIn, CodeACLOut:
		return t.mendACL(h)
	case CodeNoPublic:
		return append(t.mendRoute(a, i), t.mendPublic(h)...)
	case CodeNoRoute, CodeBlackhole, CodePrivate, CodeTransitive:
		return t.mendRoute(a, i)
	case CodeNoOwner:
		return t.mendOverlap(a, i)
	case CodeLoop:
		return t.mendTurned(a, i)
	case CodeMTU:
		return t.mendMTU(a, i)
	case CodePeering:
		if f := strings.Fields(h.Matched); len(f) > 2 {
			return []candidate{one(f[2], "state active")}
		}
	case CodeForwarding:
		name, _, _ := strings.Cut(h.Matched, " ")
		if out := t.mendTurned(a, i); out != nil {
			return out
		}
		return t.sysctl(h.ns, strings.TrimSuffix(name, " ")+"=1", "", false)
	case CodeMartian:
		if h.Device != "" {
			return t.sysctl(h.ns, "net.ipv4.conf."+h.Device+".accept_local=1", "", false)
		}
	case CodeHostRefuses, CodeNoHostRoute:
		return t.mendPodRoute(h)
	}
	return nil
}

// target is how an edit names the namespace, and how a person would.
func (t *Tracer) target(ns *Namespace) string {
	r := t.refs[ns]
	if r == nil {
		return ""
	}
	if r.pod != nil {
		return r.pod.ID()
	}
	if r.node.Cluster != "" {
		return r.node.Cluster + "/" + r.node.Name
	}
	return r.node.Name
}

func (t *Tracer) sysctl(ns *Namespace, setting, words string, obvious bool) []candidate {
	if words == "" {
		words = "sysctl -w " + setting
	}
	return []candidate{{edits: []Edit{{t.target(ns), "sysctl " + setting}}, words: words, command: "sysctl -w " + setting, obvious: obvious}}
}

// loosen is what everybody tries first.
func (t *Tracer) loosen(h *Hop) []candidate {
	if h.Code != CodeStrict {
		return nil
	}
	return t.sysctl(h.ns, "net.ipv4.conf."+h.Device+".rp_filter=2", "rp_filter=2", true)
}
