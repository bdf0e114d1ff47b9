package path

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Way is where choices that are made at random lead to, with others of the same
// node, device and end that are alike.
type Way struct {
	To      string  `json:"to"`            // address and port
	Pod     string  `json:"pod,omitempty"` // namespace/name; empty: nobody's name is known
	Verdict Verdict `json:"verdict"`
	Code    Code    `json:"code,omitempty"` // of the first hop that does not pass
	Alike   int     `json:"alike"`          // further ones
}

// AskedService is what is known of the Service that a probe named.
type AskedService struct {
	ID       string     `json:"id"` // namespace/name
	Addr     netip.Addr `json:"addr,omitzero"`
	Port     uint16     `json:"port,omitempty"`
	Backends int        `json:"backends"` // of the port; -1: not known
	Ready    int        `json:"ready"`
	// Notes say where the API server and the nodes' rules differ.
	Notes []string `json:"notes,omitempty"`
}

// ways is outcomes by where they end.
type ways struct {
	t    *Tracer
	ends []wayEnd
}

// waysOf looks at outcomes. It costs more than a trace does, whose usual answer has
// one way and nobody who asks.
func (t *Tracer) waysOf(all []*Answer) *ways {
	s := &ways{t: t}
	for _, a := range all {
		s.add(a)
	}
	return s
}

// wayEnd is one outcome's end.
type wayEnd struct {
	way        Way
	addr       netip.Addr
	place      string // of addr: what makes two alike
	by         Where  // who changed the destination, if anybody did
	translated bool
	ns         *Namespace // of by
	port       uint16
	blind      bool // something that is not known may have translated
	unsure     bool // something that is not known came before the translation
}

// add notes where an outcome ended: where the packet last was for.
func (s *ways) add(a *Answer) {
	e := wayEnd{way: Way{Verdict: a.Verdict}}
	for i := range a.Hops {
		h := &a.Hops[i]
		if h.Verdict != Pass && e.way.Code == "" {
			e.way.Code = h.Code
		}
		e.blind = e.blind || h.Verdict == Blind
		if h.Reply {
			continue
		}
		if h.After.Dst != h.Before.Dst {
			e.by, e.translated, e.ns, e.unsure = h.Where, true, h.ns, e.blind
		}
		e.addr, e.port, e.way.To = h.After.Dst, h.After.DstPort.Lo, h.After.Dst.String()
		if h.After.Proto != ICMP {
			e.way.To += ":" + h.After.DstPort.String()
		}
	}
	e.way.Pod, e.place = s.t.whose(e.addr)
	s.ends = append(s.ends, e)
}

// list is one way for all that are alike.
func (s *ways) list() []Way {
	at := map[string]int{}
	var out []Way
	for _, e := range s.ends {
		key := fmt.Sprint(e.place, e.way.Verdict, e.way.Code)
		if i, ok := at[key]; ok {
			out[i].Alike++
			continue
		}
		at[key] = len(out)
		out = append(out, e.way)
	}
	slices.SortStableFunc(out, func(a, b Way) int { return cmp.Compare(rank(b.Verdict), rank(a.Verdict)) })
	return out
}

// service compares what the API server has with where the nodes' rules lead.
func (s *ways) service(to target, worst *Answer) *AskedService {
	v := to.service
	a := &AskedService{ID: v.ID(), Addr: v.Addr, Port: to.asked.Port, Backends: -1}
	if worst.Probe.Proto == ICMP {
		a.Port = 0
	}
	if to.asked.Proto != ICMP && !slices.Contains(v.Ports, to.asked) {
		a.Backends = 0
		a.Notes = []string{fmt.Sprintf("it has no port %d/%s; it has %s", to.asked.Port, to.asked.Proto, v.portList())}
		return a
	}
	known := v.of(to.asked)
	if v.Backends.Known {
		a.Backends = len(known)
		for _, b := range known {
			if b.Ready {
				a.Ready++
			}
		}
	}
	for _, e := range s.ends {
		if v.Addr.IsValid() && !e.translated && !e.blind && to.asked.Proto != ICMP && a.Ready > 0 {
			a.note(fmt.Sprintf("no rule of %s translates %s: kube-proxy does not run there, or has not come to it", s.ends[0].at(worst), v.Addr))
		}
		if !v.Backends.Known || !e.translated {
			continue
		}
		i := slices.IndexFunc(known, func(b Backend) bool { return b.Addr == e.addr && (b.Port == e.port || to.asked.Proto == ICMP) })
		switch {
		case i < 0:
			a.note(fmt.Sprintf("the rules of %s lead to %s, which is no backend of it: they are old", e.by, e.way.To))
		case !known[i].Ready && a.Ready > 0 && !v.Partial:
			a.note(fmt.Sprintf("the rules of %s lead to %s, which is not ready: they are old", e.by, e.way.To))
		}
	}
	if v.Addr.IsValid() && v.Backends.Known && !v.Partial && to.asked.Proto != ICMP {
		s.missing(a, known, worst.More)
	}
	return a
}

func (a *AskedService) note(text string) {
	if !slices.Contains(a.Notes, text) {
		a.Notes = append(a.Notes, text)
	}
}

// mostMissing bounds the backends that a note names.
const mostMissing = 3

// missing notes backends that are ready and that the rules of no node lead to. It
// says nothing where the way to them may be one that is not known. If not all choices
// were followed, a backend is missing if the rules do not have its address.
func (s *ways) missing(a *AskedService, known []Backend, more bool) {
	for _, e := range s.ends {
		if !e.translated || e.unsure || e.by != s.ends[0].by || e.ns == nil {
			return
		}
	}
	first := s.ends[0]
	var list []string
	for _, b := range known {
		led := slices.ContainsFunc(s.ends, func(e wayEnd) bool { return e.addr == b.Addr && e.port == b.Port })
		if !b.Ready || led || more && first.ns.rulesName(b.Addr) {
			continue
		}
		text := netip.AddrPortFrom(b.Addr, b.Port).String()
		if pod, _ := s.t.whose(b.Addr); pod != "" {
			text += " " + pod
		}
		list = append(list, text)
	}
	if len(list) == 0 {
		return
	}
	is := "is"
	if len(list) > 1 {
		is = "are"
	}
	text := strings.Join(list[:min(len(list), mostMissing)], ", ")
	if n := len(list) - mostMissing; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	a.note(fmt.Sprintf("the rules of %s do not lead to %s, which %s ready: they are old", first.by, text, is))
}

// rulesName reports whether a line of nftables or iptables has the address.
func (n *Namespace) rulesName(a netip.Addr) bool {
	text := a.String()
	inWord := func(c byte) bool { return c == '.' || c >= '0' && c <= '9' }
	has := func(line string) bool {
		for i := 0; ; {
			at := strings.Index(line[i:], text)
			if at < 0 {
				return false
			}
			at += i
			if i = at + len(text); (at == 0 || !inWord(line[at-1])) && (i == len(line) || !inWord(line[i])) {
				return true
			}
		}
	}
	return slices.ContainsFunc(n.Nftables.Value.text, has) || slices.ContainsFunc(n.Iptables.Value.text, has)
}

// at is the node that should have translated: the first on the way.
func (e wayEnd) at(a *Answer) string {
	for i := range a.Hops {
		if a.Hops[i].Where.Kind == KindNode {
			return a.Hops[i].Where.String()
		}
	}
	return a.Probe.From
}

// whose is the pod that has an address, and what makes two addresses' ways alike:
// the node and the ENI.
func (t *Tracer) whose(a netip.Addr) (pod, place string) {
	for i := range t.w.VPCs {
		if e := t.w.VPCs[i].owner(a); e != nil {
			place = e.ID
			break
		}
	}
	for _, r := range t.addrs[a] {
		if r.pod != nil {
			return r.pod.ID(), place
		}
	}
	for i := range t.w.Pods.Value {
		if p := &t.w.Pods.Value[i]; p.Addr == a && !p.HostNetwork {
			return p.ID(), place
		}
	}
	if place == "" {
		place = a.String()
	}
	return "", place
}
