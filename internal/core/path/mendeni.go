package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// mendEgress leads what leaves by the wrong ENI to the right one.
func (t *Tracer) mendEgress(a *Answer, i int) []candidate {
	h := &a.Hops[i]
	r := a.routed(i)
	if r < 0 {
		return nil
	}
	hop := &a.Hops[r]
	var out []candidate
	if e := h.vpc.owner(h.Before.Src); e != nil {
		d := t.enis[e.ID]
		switch {
		case d.at == nil || d.at.ns != hop.ns:
		case hop.Before.Src == h.Before.Src:
			out = t.mendRule(hop.ns, a.nearOf(i), h.Before.Src, h.Before.Dst, d.name)
		default:
			out = t.remember(a, hop, d.name)
		}
	}
	text := "sourceDestCheck off"
	return append(out, candidate{edits: []Edit{{h.eni.ID, text}}, words: h.eni.ID + ": " + text + " (one flow by two ENIs)", obvious: true})
}

// The bit by which the Amazon VPC CNI and Cilium remember that a connection came
// for the node's own address (AWS_VPC_K8S_CNI_CONNMARK; MarkMultinodeNodeport).
const nodePortMark = 0x80

// remember leads the answers of a connection that came for the node's own address
// out by the device that it came by. The source is the node's again only behind
// the routing decision, so the connection has to remember: it is marked where it
// comes in (1), its mark is the packet's where the pod answers (2), and a rule
// leads what is marked to main (3). What is there already is tried to be enough.
func (t *Tracer) remember(a *Answer, hop *Hop, dev string) []candidate {
	host := t.target(hop.ns)
	cause := fmt.Sprintf("the answer is routed as the pod's, before it has the node's address again, and nothing reminds it of %s", dev)
	var out []candidate
	if hop.ns.Iptables.Value.has("mangle", "PREROUTING", "--restore-mark") {
		text := "iptables -t mangle -I PREROUTING -i " + dev + " -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80"
		out = append(out, candidate{edits: []Edit{{host, text}}, words: text, cause: cause, lasting: "AWS_VPC_CNI_NODE_PORT_SUPPORT=true"})
	}
	pods := t.podDevices(hop)
	if hop.rule == nil || pods == "" {
		return out
	}
	set := fmt.Sprintf("iifname \"%s\" fib daddr type local ct mark set ct mark | %#x; ", dev, nodePortMark)
	restore := fmt.Sprintf("iifname \"%s\" meta mark set ct mark & %#x; ", pods, nodePortMark)
	table := func(rules string) Edit {
		return Edit{host, "nft add table ip nodeport { chain prerouting { type filter hook prerouting priority -150; " + rules + "} }"}
	}
	rule := Edit{host, fmt.Sprintf("ip rule add pref %d fwmark %#x/%#x lookup main", min(hop.rule.Priority-1, 1024), nodePortMark, nodePortMark)}
	for _, edits := range [][]Edit{{rule}, {table(restore)}, {table(set)}, {table(restore), rule}, {table(set), rule}, {table(set + restore)}, {table(set + restore), rule}} {
		var words []string
		for _, e := range edits {
			words = append(words, e.Text)
		}
		out = append(out, candidate{edits: edits, words: strings.Join(words, "; "), cause: cause, further: true})
	}
	return out
}

// mendTurned is for an answer that its node gives back to the pod, which has to
// leave by the device that the question came by.
func (t *Tracer) mendTurned(a *Answer, i int) []candidate {
	for j := i - 1; j >= 0 && a.Hops[j].Reply; j-- {
		hop := &a.Hops[j]
		if hop.Where.Kind != KindNode || hop.rule == nil || hop.Result != "pod" {
			continue
		}
		for k := range a.Hops[:j] {
			in := &a.Hops[k]
			if in.eni != nil && !in.Reply && strings.HasPrefix(in.Result, "in ") && t.enis[in.eni.ID].at == t.refs[hop.ns] {
				return t.remember(a, hop, in.Device)
			}
		}
	}
	return nil
}

// podDevices is how rules name the devices of a CNI's pods, if the hop's packet is
// a pod's of its node.
func (t *Tracer) podDevices(hop *Hop) string {
	for _, d := range hop.ns.Devices.Value {
		pod, _, ok := strings.Cut(d.Peer, " ")
		if !ok || d.Kind != "veth" {
			continue
		}
		for _, r := range t.names[pod] {
			if r.pod == nil || r.pod.Addr != hop.Before.Src || r.node != t.refs[hop.ns].node {
				continue
			}
			for _, prefix := range []string{"eni", "lxc", "veth"} {
				if strings.HasPrefix(d.Name, prefix) {
					return prefix + "*"
				}
			}
			return d.Name
		}
	}
	return ""
}

// forNode: was the packet for the node's own address, and was translated to a
// pod's?
func (t *Tracer) forNode(a *Answer, i int) bool {
	r := t.refs[a.Hops[i].ns]
	return r != nil && !a.Hops[i].Reply && slices.ContainsFunc(a.Hops[:i], func(h Hop) bool {
		return h.ns == r.ns && h.Before.Dst != h.After.Dst && h.After.Dst == a.Hops[i].Before.Dst && r.ready().fib.local(h.Before.Dst)
	})
}

// loosenForNode is what has to be done beside marks: the reverse lookup has no
// mark, and finds the pod's own way.
func (t *Tracer) loosenForNode(h *Hop) []candidate {
	if h.Code != CodeStrict {
		return nil
	}
	setting := "net.ipv4.conf." + h.Device + ".rp_filter=2"
	return append(t.loosen(h), t.sysctl(h.ns, setting, "", false)...)
}

// mendMTU has TCP's sender know what fits.
func (t *Tracer) mendMTU(a *Answer, i int) []candidate {
	h := &a.Hops[i]
	if h.mtu == 0 || a.Probe.Proto != TCP {
		return nil // what an application sends in one piece, no MTU makes smaller
	}
	for j := range a.Hops {
		s := &a.Hops[j]
		if s.Reply != h.Reply || s.ns == nil || s.Device == "" {
			continue
		}
		text := fmt.Sprintf("ip link set %s mtu %d", s.Device, h.mtu)
		return []candidate{{edits: []Edit{{t.target(s.ns), text}}, words: t.target(s.ns) + ": " + text}}
	}
	return nil
}

// mendPublic is an address that the internet gateway can translate to.
func (t *Tracer) mendPublic(h *Hop) []candidate {
	if h.vpc == nil {
		return nil
	}
	e := h.vpc.owner(h.Before.Src)
	if e == nil {
		return nil
	}
	// Which address EC2 gives is not known: one for documentation stands for it
	// (RFC 5737, TEST-NET-1).
	public := netip.AddrFrom4([4]byte{192, 0, 2, 1})
	return []candidate{{
		edits: []Edit{{e.ID, fmt.Sprintf("public %s %s", h.Before.Src, public)}},
		words: fmt.Sprintf("associate an Elastic IP with %s of %s", h.Before.Src, e.ID),
	}}
}

// has reports whether a built-in chain has a rule with the word.
func (t Iptables) has(table, chain, word string) bool {
	for i := range t.tables {
		if c := t.tables[i].chains[chain]; t.tables[i].name == table && c != nil {
			return slices.ContainsFunc(c.rules, func(r iptRule) bool { return strings.Contains(r.text, word) })
		}
	}
	return false
}
