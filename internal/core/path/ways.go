package path

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
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

// ways collects outcomes.
type ways struct {
	t    *Tracer
	ends []wayEnd
}

// wayEnd is one outcome's end.
type wayEnd struct {
	way        Way
	addr       netip.Addr
	place      string // of addr: what makes two alike
	by         Where  // who changed the destination, if anybody did
	translated bool
	blind      bool // something that is not known may have translated
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
			e.by, e.translated = h.Where, true
		}
		e.addr, e.way.To = h.After.Dst, h.After.Dst.String()
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
	note := func(text string) {
		if !slices.Contains(a.Notes, text) {
			a.Notes = append(a.Notes, text)
		}
	}
	for _, e := range s.ends {
		switch {
		case v.Addr.IsValid() && !e.translated && !e.blind && to.asked.Proto != ICMP && a.Ready > 0:
			note(fmt.Sprintf("no rule of %s translates %s: kube-proxy does not run there, or has not come to it", s.ends[0].at(worst), v.Addr))
		case v.Backends.Known && e.translated && !slices.ContainsFunc(known, func(b Backend) bool { return b.Addr == e.addr }):
			note(fmt.Sprintf("the rules of %s lead to %s, which is no backend of it: they are old", e.by, e.way.To))
		}
	}
	return a
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
