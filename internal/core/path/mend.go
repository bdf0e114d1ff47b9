package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// candidate is a change that might help. An obvious one is what people try first,
// and is only shown where it does not.
type candidate struct {
	edit    Edit
	words   string
	lasting string
	obvious bool
}

const maxMends = 3 // edits that one mend may consist of

// mend tries what might help, each in a copy of the world.
func (t *Tracer) mend(a *Answer, d *Diagnosis) error {
	faults := a.Faults()
	var tried []candidate
	for n, i := range faults {
		for _, c := range t.candidates(a, i) {
			if c.obvious && n > 0 || slices.Contains(tried, c) {
				continue
			}
			tried = append(tried, c)
			m, _, err := t.replay(a, []candidate{c})
			if err != nil {
				return err
			}
			if c.obvious {
				if m.Verdict != Arrived {
					d.Not = append(d.Not, m)
				}
			} else if m.Verdict == Arrived {
				d.Mends = append(d.Mends, m)
			}
		}
	}
	if len(d.Mends) > 0 {
		return nil
	}
	return t.mendTogether(a, d)
}

// mendTogether puts one edit on another: each for the first fault that is left.
func (t *Tracer) mendTogether(a *Answer, d *Diagnosis) error {
	var all []candidate
	now, world := a, t
	for len(all) < maxMends {
		faults := now.Faults()
		if len(faults) == 0 {
			return nil
		}
		more := slices.DeleteFunc(world.candidates(now, faults[0]), func(c candidate) bool { return c.obvious })
		if len(more) == 0 {
			return nil
		}
		all = append(all, more[0])
		m, next, err := t.replay(a, all)
		if err != nil {
			return err
		}
		if m.Verdict == Arrived {
			d.Mends = append(d.Mends, m)
			return nil
		}
		now, world = next.answer, next.tracer
	}
	return nil
}

type replayed struct {
	answer *Answer
	tracer *Tracer
}

func (t *Tracer) replay(a *Answer, all []candidate) (Mend, replayed, error) {
	m := Mend{Moved: -1, Lasting: all[len(all)-1].lasting}
	var words []string
	for _, c := range all {
		m.Edits = append(m.Edits, c.edit)
		words = append(words, c.words)
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
	plain := func(target, format string, args ...any) []candidate {
		text := fmt.Sprintf(format, args...)
		return []candidate{{edit: Edit{target, text}, words: target + ": " + text}}
	}
	switch h.Code {
	case CodeStrict, CodeLoose:
		return append(t.mendRule(h.ns, a.nearOf(i), p.Dst, p.Src, h.Device), t.loosen(h)...)
	case CodeSrcDstCheck:
		return t.mendEgress(a, i)
	case CodeGroupIn, CodeGroupOut, CodeGroupRegion:
		return t.mendGroup(h)
	case CodeACLIn, CodeACLOut:
		return t.mendACL(h)
	case CodeNoRoute, CodeBlackhole, CodePrivate, CodeNoPublic, CodeTransitive:
		return t.mendRoute(a, i)
	case CodePeering:
		if f := strings.Fields(h.Matched); len(f) > 2 {
			return plain(f[2], "state active")
		}
	case CodeForwarding:
		name, _, _ := strings.Cut(h.Matched, " ")
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
	return []candidate{{edit: Edit{t.target(ns), "sysctl " + setting}, words: words, obvious: obvious}}
}

// loosen is what everybody tries first.
func (t *Tracer) loosen(h *Hop) []candidate {
	if h.Code != CodeStrict {
		return nil
	}
	return t.sysctl(h.ns, "net.ipv4.conf."+h.Device+".rp_filter=2", "rp_filter=2", true)
}

// mendRule is a rule for own's packets to peer into the table that leads by the
// device. It is written like the one that nearly matched, if one did.
func (t *Tracer) mendRule(ns *Namespace, near *nearMiss, own, peer netip.Addr, dev string) []candidate {
	if t.refs[ns] == nil {
		return nil
	}
	block := t.blockOf(peer)
	prio, table, lasting := 0, 0, ""
	if near != nil {
		prio, table = near.rule.Priority, near.rule.Table
		if near.rule.Priority == ciliumEgress && near.rule.To.IsValid() {
			lasting = fmt.Sprintf("ipv4-native-routing-cidr %s (new pods only)", covering(near.rule.To, block))
		}
	} else if prio, table = tableBy(ns, peer, dev); table == 0 {
		return nil
	}
	text := fmt.Sprintf("ip rule add pref %d from %s to %s lookup %s", prio, own, dstString(block), tableName(table))
	return []candidate{{edit: Edit{t.target(ns), text}, words: text, lasting: lasting}}
}

// ciliumEgress is the priority of Cilium's rules from pods in ENI mode
// (RulePriorityEgressv2 in its linux_defaults).
const ciliumEgress = 111

// blockOf is the CIDR of the VPC that has the address, or the address.
func (t *Tracer) blockOf(a netip.Addr) netip.Prefix {
	for i := range t.w.VPCs {
		for _, c := range t.w.VPCs[i].CIDRs.Value {
			if c.Contains(a) {
				return c
			}
		}
	}
	return netip.PrefixFrom(a, 32)
}

// covering is the smallest prefix that holds both.
func covering(a, b netip.Prefix) netip.Prefix {
	for bits := min(a.Bits(), b.Bits()); bits > 0; bits-- {
		if p := netip.PrefixFrom(a.Addr(), bits).Masked(); p.Contains(b.Addr()) {
			return p
		}
	}
	return everything
}

// tableBy is a table, other than main, that leads to the address by the device,
// and a priority before the rules that lead elsewhere.
func tableBy(ns *Namespace, to netip.Addr, dev string) (prio, table int) {
	for _, r := range ns.Routes.Value {
		if r.Dev == dev && r.Kind == "unicast" && r.Dst.Contains(to) && r.Table != tableMain && r.Table != tableLocal {
			table = r.Table
		}
	}
	prio = 32765
	for _, r := range ns.Rules.Value {
		if r.Priority > 0 && r.Table != tableLocal && r.Table != table && r.From.IsValid() {
			prio = min(prio, r.Priority-1)
		}
	}
	return max(prio, 1), table
}

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
		if d.at != nil && d.at.ns == hop.ns {
			if hop.Before.Src == h.Before.Src {
				out = append(out, t.mendRule(hop.ns, a.nearOf(i), h.Before.Src, h.Before.Dst, d.name)...)
			} else if hop.ns.Iptables.Value.has("mangle", "PREROUTING", "--restore-mark") {
				// The source is the node's again only behind the routing decision: the
				// connection has to remember which way it came.
				text := "iptables -t mangle -I PREROUTING -i " + d.name + " -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80"
				out = append(out, candidate{edit: Edit{t.target(hop.ns), text}, words: text,
					lasting: "AWS_VPC_CNI_NODE_PORT_SUPPORT=true"})
			}
		}
	}
	return out
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

// mendGroup allows what came, and no more.
func (t *Tracer) mendGroup(h *Hop) []candidate {
	if h.eni == nil || len(h.eni.Groups.Value) == 0 {
		return nil
	}
	out := h.Code == CodeGroupOut
	way := "in"
	if out {
		way = "out"
	}
	e := Edit{h.eni.Groups.Value[0], fmt.Sprintf("%s add %s %s %s/32", way, h.Before.what(), preposition(out), h.Before.remote(out))}
	return []candidate{{edit: e, words: e.String()}}
}

// mendACL allows it before the rule that denies it. For a client's port all that
// clients choose from are allowed.
func (t *Tracer) mendACL(h *Hop) []candidate {
	out := h.Code == CodeACLOut
	way, rules := "in", []ACLRule(nil)
	for i := range h.vpc.ACLs.Value {
		if a := &h.vpc.ACLs.Value[i]; a.ID == h.Where.Name {
			if rules = a.In; out {
				rules = a.Out
			}
		}
	}
	if out {
		way = "out"
	}
	number := 100
	for _, r := range rules {
		number = max(number, r.Number+10)
	}
	if _, by := askACL(rules, &h.Before, out); by != nil {
		number = by.Number - 1
	}
	what := h.Before.what()
	if h.Before.DstPort.Lo != h.Before.DstPort.Hi {
		what = string(h.Before.Proto) + " " + translatedPorts.String()
	}
	e := Edit{h.Where.Name, fmt.Sprintf("%s add %d allow %s %s %s", way, number, what, preposition(out), t.blockOf(h.Before.remote(out)))}
	return []candidate{{edit: e, words: e.String()}}
}

// mendRoute leads to the VPC that has the destination, by what joins the two.
func (t *Tracer) mendRoute(a *Answer, i int) []candidate {
	dst := a.Hops[i].Before.Dst
	for ; i >= 0; i-- {
		h := &a.Hops[i]
		if h.Where.Kind != KindTable || h.vpc == nil {
			continue
		}
		w := &walk{t: t}
		o := w.joined(h.vpc, dst)
		if o == nil {
			return nil
		}
		e := Edit{h.Where.Name, "add " + t.blockOf(dst).String() + " " + t.joint(h.vpc, o)}
		return []candidate{{edit: e, words: e.String()}}
	}
	return nil
}

// joint is what joins two VPCs.
func (t *Tracer) joint(a, b *VPC) string {
	for _, p := range t.w.Peerings.Value {
		if p.State == "active" && slices.Contains(p.VPCs[:], a.ID) && slices.Contains(p.VPCs[:], b.ID) {
			return p.ID
		}
	}
	for i := range t.w.TransitGateways.Value {
		if g := &t.w.TransitGateways.Value[i]; g.attachment(a.ID) != nil && g.attachment(b.ID) != nil {
			return g.ID
		}
	}
	return ""
}

// mendPodRoute gives a pod of the node its route back.
func (t *Tracer) mendPodRoute(h *Hop) []candidate {
	r := t.refs[h.ns]
	if r == nil || r.pod != nil {
		return nil
	}
	for _, d := range h.ns.Devices.Value {
		pod, _, ok := strings.Cut(d.Peer, " ")
		if !ok {
			continue
		}
		for _, x := range t.names[pod] {
			if x.node == r.node && x.pod != nil && x.pod.Addr == h.Before.Dst {
				text := "ip route add " + h.Before.Dst.String() + " dev " + d.Name + " scope link"
				return []candidate{{edit: Edit{t.target(h.ns), text}, words: text}}
			}
		}
	}
	return nil
}
