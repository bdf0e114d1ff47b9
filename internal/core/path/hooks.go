package path

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// conn is a connection that a namespace's kernel tracks.
type conn struct {
	at             *nsRef
	orig, reply    tuple // as its packets arrive: reply is orig inverted, and translated
	mark           uint32
	srcNAT, dstNAT bool // the choice about each translation has been made
}

// visit is a packet in a namespace.
type visit struct {
	w        *walk
	at       *nsRef
	p        *Packet
	iif, oif string
	hop      netip.Addr // the next one
	ct       *conn      // nil: the packet belongs to none and begins none
	reply    bool       // the packet goes against the connection's first
	fresh    bool       // the packet begins the connection
	hook     string
	steps    int // of rules, against chains that jump in circles
}

// baseChain is a chain that a hook of the kernel runs.
type baseChain struct {
	priority int
	nat      bool
	reroutes bool
	nft      *nftChain
	table    *nftTable
	ipt      *iptChain
	ipTable  *iptTable
}

func (c *baseChain) name() string {
	if c.nft != nil {
		return "nft " + c.table.name + " " + c.nft.name
	}
	return "iptables " + c.ipTable.name + " " + c.ipt.name
}

// Where iptables' tables hook in (include/uapi/linux/netfilter_ipv4.h).
var iptHooks = map[string]map[string]int{
	"raw":      {"prerouting": -300, "output": -300},
	"mangle":   {"prerouting": -150, "input": -150, "forward": -150, "output": -150, "postrouting": -150},
	"nat":      {"prerouting": -100, "input": 100, "output": -100, "postrouting": 100},
	"filter":   {"input": 0, "forward": 0, "output": 0},
	"security": {"input": 50, "forward": 50, "output": 50},
}

// baseChains lists what a hook runs, in its order. Of two chains of one priority
// the kernel runs the younger one first (nf_hook_entries_grow), which is the one
// that nft lists later.
func baseChains(ns *Namespace, hook string) []baseChain {
	var out []baseChain
	for i := range slices.Backward(ns.Nftables.Value.tables) {
		t := &ns.Nftables.Value.tables[i]
		if t.family != "ip" && t.family != "inet" {
			continue
		}
		for _, c := range slices.Backward(t.chains) {
			if c.hook == hook {
				out = append(out, baseChain{c.priority, c.kind == "nat", c.kind == "route", c, t, nil, nil})
			}
		}
	}
	for i := range ns.Iptables.Value.tables {
		t := &ns.Iptables.Value.tables[i]
		priority, hooks := iptHooks[t.name][hook]
		if c := t.chains[strings.ToUpper(hook)]; c != nil && hooks {
			out = append(out, baseChain{priority, t.name == "nat", t.name == "mangle" && hook == "output", nil, nil, c, t})
		}
	}
	slices.SortStableFunc(out, func(a, b baseChain) int { return a.priority - b.priority })
	return out
}

// conntrackPriority is where a connection is looked up (NF_IP_PRI_CONNTRACK).
const conntrackPriority = -200

// outcome is what a chain says.
type outcome uint8

const (
	fallThrough outcome = iota
	accepted
	refused
	translated
)

// natPriority is where a known connection's translation happens at a hook.
func natPriority(hook string) int {
	if hook == "prerouting" || hook == "output" {
		return -100
	}
	return 100
}

// run takes the packet through a hook: its chains by priority, and the
// translation of its connection. changed says that a mark or an address is
// another, so that the kernel routes a packet of its own again.
func (v *visit) run(hook string) (changed bool) {
	v.hook = hook
	before := *v.p
	if !v.at.ns.Nftables.Known {
		v.w.blindOnce(v, v.at.ns.Nftables.unknown("nftables"))
	}
	if !v.at.ns.Iptables.Known {
		v.w.blindOnce(v, v.at.ns.Iptables.unknown("iptables"))
	}
	mapped := false
	for i, chains := 0, v.at.chains(hook); i < len(chains); i++ {
		c := &chains[i]
		if !mapped && c.priority >= natPriority(hook) {
			v.mapKnown()
			mapped = true
		}
		if c.nat && !v.wantsNAT() {
			continue
		}
		v.base(c)
	}
	if !mapped {
		v.mapKnown()
	}
	v.settle()
	return v.p.Mark != before.Mark || v.p.Dst != before.Dst || v.p.Src != before.Src
}

func (v *visit) base(c *baseChain) {
	var o outcome
	var text string
	drop := false
	if c.priority < conntrackPriority && (v.hook == "prerouting" && v.iif != "lo" || v.hook == "output") {
		// These chains run before the kernel has looked the connection up; at the
		// other hooks it has, and what comes by the loopback device brings with it what
		// was looked up when it was sent (nf_conntrack_in).
		defer func(ct *conn) { v.ct = ct }(v.ct)
		v.ct = nil
	}
	if c.nft != nil {
		o, text = v.nftChain(c, c.nft, 0)
		drop = o == fallThrough && c.nft.drop
	} else {
		o, text = v.iptChain(c, c.ipt, 0)
		drop = o == fallThrough && c.ipt.drop
	}
	if drop {
		o, text = refused, c.name()+": policy drop"
	}
	if o == refused {
		code := CodeFirewall
		if c.nft != nil && strings.Contains(text, "\"spoofed\"") {
			code = CodeSpoofed
		}
		v.w.hop(v, Hop{Matched: text, Verdict: Drop, Code: code})
	}
}

// wantsNAT: a translation is chosen once, for a connection's first packet, per
// kind of translation.
func (v *visit) wantsNAT() bool {
	if v.ct == nil || !v.fresh {
		return false
	}
	if natPriority(v.hook) < 0 {
		return !v.ct.dstNAT
	}
	return !v.ct.srcNAT
}

// settle ends the choice of a translation at this hook.
func (v *visit) settle() {
	if v.ct == nil || !v.fresh || v.hook == "forward" {
		return
	}
	if natPriority(v.hook) < 0 {
		v.ct.dstNAT = true
	} else {
		v.ct.srcNAT = true
	}
}

// mapKnown translates a packet of a connection whose translation was chosen.
func (v *visit) mapKnown() {
	if v.ct == nil || v.fresh || v.hook == "forward" {
		return // no translation happens at forward
	}
	want := v.ct.reply.inverse()
	if v.reply {
		want = v.ct.orig.inverse()
	}
	before := *v.p
	if natPriority(v.hook) < 0 {
		v.p.Dst, v.p.DstPort = want.dst, want.dp
	} else {
		v.p.Src, v.p.SrcPort = want.src, want.sp
	}
	switch {
	case v.p.Dst != before.Dst:
		v.w.hopFrom(v, before, Hop{Matched: "connection: translation undone", Result: "dst " + v.p.Dst.String(), Verdict: Pass})
	case v.p.Src != before.Src:
		v.w.hopFrom(v, before, Hop{Matched: "connection: translation undone", Result: "src " + v.p.Src.String(), Verdict: Pass})
	}
}

// translateSrc and translateDst carry out what a rule says.
func (v *visit) translateSrc(to netip.Addr, random bool, text string) {
	before := *v.p
	v.p.Src = to
	if random && v.p.Proto != ICMP {
		v.p.SrcPort = translatedPorts
	}
	v.ct.reply.dst, v.ct.reply.dp = v.p.Src, v.p.SrcPort
	v.w.ans.Translated = true
	v.w.hopFrom(v, before, Hop{Matched: text, Result: "src " + to.String(), Verdict: Pass})
}

func (v *visit) translateDst(to netip.Addr, port Ports, text string) {
	before := *v.p
	v.p.Dst = to
	if port != (Ports{}) {
		v.p.DstPort = port
	}
	v.ct.reply.src, v.ct.reply.sp = v.p.Dst, v.p.DstPort
	v.w.ans.Translated = true
	v.w.hopFrom(v, before, Hop{Matched: text, Result: "dst " + to.String() + portSuffix(v.p), Verdict: Pass})
}

func portSuffix(p *Packet) string {
	if p.Proto == ICMP {
		return ""
	}
	return ":" + p.DstPort.String()
}

// masquerade translates to the address that the kernel would give a packet of
// its own that leaves by the device.
func (v *visit) masquerade(text string, random bool) {
	to := netip.Addr{}
	if v.at.ns.device(v.oif) != nil {
		to = v.at.ns.selectAddr(v.oif, v.hop)
	}
	if !to.IsValid() {
		v.w.blind(v, "not known: an address of "+v.oif+" to masquerade with")
		return
	}
	v.translateSrc(to, random, text)
}

// parseTarget reads ADDRESS[:PORT[-PORT]].
func parseTarget(s string) (netip.Addr, Ports, bool) {
	host, port, with := strings.Cut(s, ":")
	a, err := netip.ParseAddr(host)
	if err != nil || !a.Is4() {
		return a, Ports{}, false
	}
	if !with {
		return a, Ports{}, true
	}
	p, err := parsePorts(port)
	return a, p, err == nil
}

// state is the packet's as connection tracking names it.
func (v *visit) state() string {
	switch {
	case v.ct == nil:
		return "invalid"
	case v.fresh:
		return "new"
	}
	return "established"
}

func (v *visit) direction() string {
	if v.reply {
		return "reply"
	}
	return "original"
}

// diverts: what is not modelled at this hook could change where the packet goes.
func (v *visit) diverts(c *baseChain) bool {
	return c.nat || v.hook != "forward" && v.hook != "input"
}

const maxRuleSteps = 200_000 // rules that a packet meets at a hook; kube-proxy with 10,000 services has fewer

func (v *visit) tooMany() bool {
	v.steps++
	return v.steps > maxRuleSteps
}

// localType is what `fib daddr type` and addrtype say of an address.
func (v *visit) localType(a netip.Addr) string {
	switch {
	case v.at.fib.local(a):
		return "local"
	case a.IsMulticast():
		return "multicast"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "broadcast"
	}
	for _, r := range v.at.fib.single[hostKey{tableLocal, a}] {
		if r.Kind == "broadcast" {
			return "broadcast"
		}
	}
	return "unicast"
}

func (v *visit) group(device string) string {
	if d := v.at.ns.device(device); d != nil {
		return strconv.FormatUint(uint64(d.Group), 10)
	}
	return ""
}
