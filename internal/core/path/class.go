package path

import (
	"fmt"
	"slices"
	"strings"
)

// Class is pods of one node that are alike to every rule that this package
// reads: one ENI, and the same rules, routes and elements but for the address.
type Class struct {
	Node   string `json:"node"`
	Site   string `json:"site"`
	Device string `json:"device"` // of the ENI that has the addresses
	Pods   int    `json:"pods"`
	One    string `json:"one"` // one of them, as a probe names it
}

// Pair is one class to another class, node or the internet.
type Pair struct {
	From    string  `json:"from"`
	To      string  `json:"to"`
	Flows   int     `json:"flows"` // pods times pods that the pair stands for
	Verdict Verdict `json:"verdict"`
	Code    Code    `json:"code,omitempty"` // of the first fault or blind hop
}

// Classes lists a world's pods by class, in the order of nodes and pods.
func (t *Tracer) Classes() []Class {
	var out []Class
	for i := range t.w.Nodes {
		n := &t.w.Nodes[i]
		at := map[string]int{}
		marks := signatures(n)
		for j := range n.Pods.Value {
			p := &n.Pods.Value[j]
			dev := t.deviceOf(n, p.Addr)
			key := dev + "\n" + marks[p.Addr.String()] + "\n" + inside(p)
			if k, ok := at[key]; ok {
				out[k].Pods++
				continue
			}
			at[key] = len(out)
			site := t.refs[&n.Host].where.Site
			out = append(out, Class{Node: n.Name, Site: site, Device: dev, Pods: 1, One: site + ":" + p.ID()})
		}
	}
	return out
}

// signatures is what a node's kernel holds for each address alone.
func signatures(n *Node) map[string]string {
	marks := map[string][]string{}
	for i := range n.Host.Rules.Value {
		r := &n.Host.Rules.Value[i]
		if r.From.IsValid() && r.From.Bits() == 32 {
			a := r.From.Addr().String()
			marks[a] = append(marks[a], fmt.Sprint(r.Priority, " from ", r.To, r.Table, r.Action, r.Mark, r.Mask, r.IIF, r.Other))
		}
		if r.To.IsValid() && r.To.Bits() == 32 {
			a := r.To.Addr().String()
			marks[a] = append(marks[a], fmt.Sprint(r.Priority, " to ", r.Table, r.Action, r.Mark, r.Mask, r.IIF, r.Other))
		}
	}
	for i := range n.Host.Routes.Value {
		if r := &n.Host.Routes.Value[i]; r.Dst.Bits() == 32 {
			a := r.Dst.Addr().String()
			marks[a] = append(marks[a], fmt.Sprint("route ", r.Kind, r.Table, r.Metric, r.Dead, r.Via, r.MTU))
		}
	}
	for i := range n.Host.Nftables.Value.tables {
		for name, s := range n.Host.Nftables.Value.tables[i].sets {
			for key, data := range s.exact {
				parts := strings.Split(key, " . ")
				marks[parts[len(parts)-1]] = append(marks[parts[len(parts)-1]], "set "+name+" "+data)
			}
		}
	}
	out := map[string]string{}
	for a, m := range marks {
		slices.Sort(m)
		out[a] = strings.Join(m, "\n")
	}
	return out
}

// inside is what a pod's own namespace says, but for its address.
func inside(p *Pod) string {
	var b strings.Builder
	for i := range p.Net.Routes.Value {
		if r := &p.Net.Routes.Value[i]; r.Dst.Addr() != p.Addr {
			fmt.Fprintln(&b, r)
		}
	}
	fmt.Fprintln(&b, len(p.Net.Rules.Value), p.Net.Sysctls.Value, p.Net.Nftables.Value.text, p.Net.Iptables.Value.text)
	for i := range p.Net.Devices.Value {
		d := &p.Net.Devices.Value[i]
		fmt.Fprintln(&b, d.Name, d.Kind, d.Down, d.MTU, d.BPF)
	}
	return b.String()
}

// All traces one pod of each class to one pod of each class, to each node and to
// the internet, on a port where nothing needs to listen.
func (t *Tracer) All(proto Proto) ([]Pair, error) {
	classes := t.Classes()
	type end struct {
		name, label string
		pods        int
	}
	var ends []end
	for _, c := range classes {
		ends = append(ends, end{c.One, fmt.Sprintf("%s/%s %s", c.Site, c.Node, c.Device), c.Pods})
	}
	for i := range t.w.Nodes {
		r := t.refs[&t.w.Nodes[i].Host]
		ends = append(ends, end{r.where.Site + ":node:" + r.node.Name, r.where.String(), 1})
	}
	ends = append(ends, end{"internet", "internet", 1})
	var out []Pair
	for i, c := range classes {
		for j, e := range ends {
			if i == j {
				continue
			}
			a, err := t.Trace(Probe{From: c.One, To: e.name, Proto: proto, Port: anyService(proto)})
			if err != nil {
				return nil, err
			}
			p := Pair{From: ends[i].label, To: e.label, Flows: c.Pods * e.pods, Verdict: Arrived}
			p.Verdict, p.Code = a.withoutSockets()
			out = append(out, p)
		}
	}
	return out, nil
}

func anyService(p Proto) uint16 {
	if p == ICMP {
		return 0
	}
	return 80
}

// withoutSockets is the verdict as if something listened.
func (a *Answer) withoutSockets() (Verdict, Code) {
	b := Answer{Hops: slices.Clone(a.Hops)}
	code := Code("")
	for i := range b.Hops {
		h := &b.Hops[i]
		if h.Code == CodeNotListening {
			h.Verdict = Pass
		}
		if h.Verdict != Pass && code == "" {
			code = h.Code
		}
	}
	return b.verdict(), code
}
