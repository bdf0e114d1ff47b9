package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Diagnosis is what an answer means: what the faults have in common, whom they
// concern, and what mends them.
type Diagnosis struct {
	Cause string   `json:"cause,omitempty"`
	Seen  []string `json:"seen,omitempty"`  // where it shows, with readings where the world has them
	Scope *Scope   `json:"scope,omitempty"` // nil: there is nothing to compare with
	Mends []Mend   `json:"mends,omitempty"` // each proven by a replay
	Not   []Mend   `json:"not,omitempty"`   // obvious, and shown not to help
}

// Scope says which of a node's pods a fault concerns.
type Scope struct {
	Node    string   `json:"node"`
	Failing int      `json:"failing"`
	Pods    int      `json:"pods"`
	Others  int      `json:"others,omitempty"` // that fail, and by another fault
	Bad     []string `json:"bad,omitempty"`    // devices all of whose pods fail
	Good    []string `json:"good,omitempty"`   // devices all of whose pods work
}

// Mend is a change, and what the packet meets in a world that has it.
type Mend struct {
	Edits   []Edit  `json:"edits"`
	Words   string  `json:"words"`             // as one would type it
	Lasting string  `json:"lasting,omitempty"` // what keeps it so
	Verdict Verdict `json:"verdict"`
	// Moved is the hop of the answer, from 0, that drops next; -1: none of them.
	Moved int `json:"moved"`

	Cause string `json:"cause,omitempty"` // what it mends, where the first fault does not say it
}

// Diagnose explains an answer of the tracer's. It traces again, for each pod of a
// node and in mended worlds, so it costs more than Trace does. An answer without
// a fault gives an empty diagnosis.
func (t *Tracer) Diagnose(a *Answer) (Diagnosis, error) {
	var d Diagnosis
	faults := a.Faults()
	if len(faults) == 0 {
		return d, nil
	}
	d.Seen = t.seen(a, faults)
	if err := t.mend(a, &d); err != nil {
		return d, err
	}
	d.Cause = cause(a, faults, d.Mends)
	// Behind what could have sent it elsewhere, the packet is followed as it was.
	if by := a.diverters(faults[0]); len(by) > 0 {
		d.Cause = fmt.Sprintf("not known; if %s passed it unchanged: %s", strings.Join(by, " and "), d.Cause)
	}
	var err error
	d.Scope, err = t.scope(a)
	return d, err
}

// cause is what a rule that nearly matched says; else what the first fault does.
func cause(a *Answer, faults []int, mends []Mend) string {
	first := a.Hops[faults[0]]
	if len(faults) == 1 && first.Code == CodeStrict && slices.ContainsFunc(mends, Mend.loosens) {
		return fmt.Sprintf("%s: %s; the answer itself takes the way that the question came", first.Where, first.Matched)
	}
	for _, i := range faults {
		near, p := a.nearOf(i), a.Hops[i].Before
		if near == nil || !near.rule.To.IsValid() || len(mends) == 0 {
			continue
		}
		peer := p.Src
		if near.rule.From.IsValid() && near.rule.From.Contains(peer) || a.Hops[i].Reply {
			peer = p.Dst
		}
		return fmt.Sprintf("rule %d stops at %s; peer %s falls to main", near.rule.Priority, dstString(near.rule.To), peerIn(mends[0], peer))
	}
	if len(mends) > 0 && mends[0].Cause != "" {
		return mends[0].Cause
	}
	if len(faults) > 1 && len(mends) > 0 && len(mends[0].Edits) == 1 {
		return fmt.Sprintf("%s: %s; the other faults follow from it", first.Where, first.Matched)
	}
	return fmt.Sprintf("%s: %s", first.Where, first.Matched)
}

// loosens reports whether all that the mend does is to loosen a filter.
func (m Mend) loosens() bool {
	return len(m.Edits) == 1 && strings.HasSuffix(m.Edits[0].Text, ".rp_filter=2")
}

// peerIn is the block that the mend names, or the address.
func peerIn(m Mend, peer netip.Addr) string {
	f := strings.Fields(m.Words)
	if i := slices.Index(f, "to"); i >= 0 && i+1 < len(f) {
		return f[i+1]
	}
	return peer.String()
}

// nearOf is the rule that nearly matched, at a fault or at the routing decision
// that led to it.
func (a *Answer) nearOf(i int) *nearMiss {
	if n := a.Hops[i].near; n != nil {
		return n
	}
	if r := a.routed(i); r >= 0 {
		return a.Hops[r].near
	}
	return nil
}

// routed is the node's routing decision before hop i of an ENI, or -1.
func (a *Answer) routed(i int) int {
	if a.Hops[i].Where.Kind != KindENI {
		return -1
	}
	for j := i - 1; j >= 0 && a.Hops[j].Reply == a.Hops[i].Reply; j-- {
		if a.Hops[j].Where.Kind == KindNode && strings.HasPrefix(a.Hops[j].Result, "out ") {
			return j
		}
	}
	return -1
}

// seen names the counters that grow where the faults are.
func (t *Tracer) seen(a *Answer, faults []int) []string {
	var out []string
	for _, i := range faults {
		h := &a.Hops[i]
		r, _ := Explain(h.Code)
		ref := t.refs[h.ns]
		if r.Counter == "" || ref == nil {
			continue
		}
		line := "nstat " + r.Counter + " on " + ref.node.Name
		if c := ref.node.Counters[r.Counter]; len(c) == 1 {
			line = fmt.Sprintf("nstat %s %d on %s", r.Counter, c[0], ref.node.Name)
		} else if len(c) > 1 {
			line = fmt.Sprintf("nstat %s %d -> %d on %s", r.Counter, c[0], c[len(c)-1], ref.node.Name)
		}
		if !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out
}

// scope asks the same of each pod of the node at the end that is a pod.
func (t *Tracer) scope(a *Answer) (*Scope, error) {
	p := a.Probe
	vary := &p.To
	host, port, hasPort := cutPort(p.To)
	ref := t.podOf(host)
	if ref == nil {
		vary, hasPort = &p.From, false
		if ref = t.podOf(p.From); ref == nil {
			return nil, nil // an end that is no pod has nobody beside it
		}
	}
	s := &Scope{Node: ref.node.Name}
	bad, works, all := map[string]int{}, map[string]int{}, map[string]int{}
	for i := range ref.node.Pods.Value {
		pod := &ref.node.Pods.Value[i]
		*vary = ref.where.Site + ":" + pod.ID()
		if hasPort {
			*vary += fmt.Sprintf(":%d", port)
			p.Port = 0
		}
		b, err := t.Trace(p)
		if err != nil {
			return nil, err
		}
		dev := t.deviceOf(ref.node, pod.Addr)
		s.Pods++
		all[dev]++
		switch {
		case !b.fails():
			works[dev]++
		case b.Hops[b.Faults()[0]].Code == a.Hops[a.Faults()[0]].Code:
			s.Failing++
			bad[dev]++
		default:
			s.Others++
		}
	}
	for dev, n := range all {
		switch n {
		case bad[dev]:
			s.Bad = append(s.Bad, dev)
		case works[dev]:
			s.Good = append(s.Good, dev)
		}
	}
	if s.Pods < 2 || s.Failing == 0 {
		return nil, nil // nobody else, or nobody else's trouble
	}
	slices.Sort(s.Bad)
	slices.Sort(s.Good)
	return s, nil
}

// podOf is the pod that a probe's end names, or nil.
func (t *Tracer) podOf(name string) *nsRef {
	r, _, err := t.end(name)
	if err != nil || r == nil || r.pod == nil {
		return nil
	}
	return r
}

// fails leaves out what a pod alone is to blame for: that nothing listens.
func (a *Answer) fails() bool {
	return a.Verdict == Dropped && slices.ContainsFunc(a.Faults(), func(i int) bool { return a.Hops[i].Code != CodeNotListening })
}

// deviceOf is the node's device whose ENI has the address, or "".
func (t *Tracer) deviceOf(n *Node, a netip.Addr) string {
	for j := range n.Host.Devices.Value {
		d := &n.Host.Devices.Value[j]
		if d.ENI == "" {
			continue
		}
		if e, _ := t.w.eni(d.ENI); e != nil && e.Owns(a) {
			return d.Name
		}
	}
	return ""
}

func (s *Scope) String() string {
	if s.Failing == s.Pods {
		return fmt.Sprintf("all %d pods on %s", s.Pods, s.Node)
	}
	text := fmt.Sprintf("%d of %d pods on %s", s.Failing, s.Pods, s.Node)
	if len(s.Bad) > 0 {
		text += " (" + strings.Join(s.Bad, ", ") + ")"
	}
	if s.Others > 0 {
		text += fmt.Sprintf("; %d fail for another reason", s.Others)
	}
	switch work := s.Pods - s.Failing - s.Others; {
	case work == 0:
		return text
	case len(s.Bad) > 0 && len(s.Good) > 0:
		return fmt.Sprintf("%s; %d on %s work: \"sometimes\"", text, work, strings.Join(s.Good, ", "))
	}
	return text + ": \"sometimes\""
}
