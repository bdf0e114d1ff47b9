package path

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// iptChain runs a chain and those that it leads to.
func (v *visit) iptChain(c *baseChain, chain *iptChain, depth int) (outcome, string) {
	if depth > maxJumps {
		return fallThrough, ""
	}
	for i := range chain.rules {
		if v.tooMany() {
			v.w.blind(v, "not modelled: "+c.name()+" has more rules than are followed")
			return fallThrough, ""
		}
		r := &chain.rules[i]
		if !v.iptMatches(r) {
			continue
		}
		if r.other != "" {
			v.w.blindAt(v, "not modelled: iptables "+c.ipTable.name+": "+r.text, v.diverts(c))
			continue
		}
		if r.jump {
			o, text := v.iptChain(c, c.ipTable.chains[r.target], depth+1)
			if o != fallThrough || r.goTo {
				return o, text
			}
			continue
		}
		if o, text, end := v.iptTarget(c, r); end {
			return o, text
		}
	}
	return fallThrough, ""
}

func (v *visit) iptTarget(c *baseChain, r *iptRule) (outcome, string, bool) {
	quote := "iptables " + c.ipTable.name + ": " + r.text
	switch r.target {
	case "ACCEPT":
		return accepted, "", true
	case "RETURN":
		return fallThrough, "", true
	case "DROP", "REJECT":
		return refused, quote, true
	case "MARK":
		v.p.Mark = iptSetMark(v.p.Mark, r.args)
	case "CONNMARK":
		v.iptConnmark(r.args)
	case "SNAT", "DNAT", "MASQUERADE":
		if v.ct == nil {
			return accepted, "", true
		}
		v.iptTranslate(r, quote)
		return translated, "", true
	}
	return fallThrough, "", false
}

// iptSetMark carries out --set-xmark V/M (clear the mask's bits, then exclusive
// or), --set-mark V/M (clear the mask's and the value's bits, then or), --or-mark
// and --and-mark (iptables-extensions(8)).
func iptSetMark(mark uint32, args []string) uint32 {
	for i := 0; i+1 < len(args); i++ {
		v, m, err := parseMark(args[i+1])
		if err != nil {
			continue
		}
		switch args[i] {
		case "--set-xmark":
			return mark&^m ^ v
		case "--set-mark":
			return mark&^(m|v) | v
		case "--or-mark":
			return mark | v
		case "--and-mark":
			return mark & v
		case "--xor-mark":
			return mark ^ v
		}
	}
	return mark
}

func (v *visit) iptConnmark(args []string) {
	if v.ct == nil || len(args) == 0 {
		return
	}
	nf, ct := ^uint32(0), ^uint32(0)
	for i := 0; i+1 < len(args); i++ {
		n, err := strconv.ParseUint(args[i+1], 0, 32)
		if err != nil {
			continue
		}
		switch args[i] {
		case "--mask":
			nf, ct = uint32(n), uint32(n)
		case "--nfmask":
			nf = uint32(n)
		case "--ctmask":
			ct = uint32(n)
		}
	}
	switch args[0] {
	case "--restore-mark":
		v.p.Mark = v.p.Mark&^nf ^ v.ct.mark&ct
	case "--save-mark":
		v.ct.mark = v.ct.mark&^ct ^ v.p.Mark&nf
	default:
		v.ct.mark = iptSetMark(v.ct.mark, args)
	}
}

func (v *visit) iptTranslate(r *iptRule, quote string) {
	random := slices.Contains(r.args, "--random-fully") || slices.Contains(r.args, "--random")
	if r.target == "MASQUERADE" {
		v.masquerade(v.whyTranslated("masquerade", r), random)
		return
	}
	for i := 0; i+1 < len(r.args); i++ {
		if r.args[i] != "--to-source" && r.args[i] != "--to-destination" {
			continue
		}
		to, port, ok := parseTarget(r.args[i+1])
		switch {
		case !ok:
			v.w.blind(v, "not modelled: "+quote)
		case r.target == "SNAT":
			v.translateSrc(to, random, v.whyTranslated("source NAT", r))
		default:
			v.translateDst(to, port, v.whyTranslated("DNAT", r))
		}
		return
	}
	v.w.blind(v, "not modelled: "+quote)
}

// whyTranslated says it by the destination that the rule leaves out, which is
// what people look for; else by the rule's chain and comment.
func (v *visit) whyTranslated(what string, r *iptRule) string {
	for _, m := range r.matches {
		if m.opt == "-d" && m.not {
			return what + ": " + v.p.Dst.String() + " not in " + m.args[0]
		}
	}
	if r.comment != "" {
		return what + ": " + r.chain + " (" + r.comment + ")"
	}
	return what + ": " + r.chain
}

func (v *visit) iptMatches(r *iptRule) bool {
	for i := range r.matches {
		if v.iptMatch(r, &r.matches[i]) == r.matches[i].not {
			return false
		}
	}
	return true
}

func (v *visit) iptMatch(r *iptRule, m *iptMatch) bool {
	arg := ""
	if len(m.args) > 0 {
		arg = m.args[0]
	}
	p := v.p
	switch m.opt {
	case "-s":
		return m.net.Contains(p.Src)
	case "-d":
		return m.net.Contains(p.Dst)
	case "-i":
		return iptDevice(v.iif, arg)
	case "-o":
		return iptDevice(v.oif, arg)
	case "-p":
		return arg == "all" || arg == string(p.Proto)
	case "--dport", "--dports":
		return iptPort(p.DstPort, arg)
	case "--sport", "--sports":
		return iptPort(p.SrcPort, arg)
	case "--icmp-type":
		return p.Proto == ICMP && strings.HasPrefix(arg, strconv.Itoa(p.icmpType()))
	case "--mark":
		value, mask, err := parseMark(arg)
		return err == nil && p.Mark&mask == value
	case "--ctmark":
		value, mask, err := parseMark(arg)
		return err == nil && v.ct != nil && v.ct.mark&mask == value
	case "--ctstate", "--state":
		return slices.Contains(strings.Split(strings.ToLower(arg), ","), v.state()) || v.natState(arg)
	case "--ctdir":
		return v.ct != nil && strings.EqualFold(arg, v.direction())
	case "--dst-type":
		return v.addrType(r, p.Dst, arg)
	case "--src-type":
		return v.addrType(r, p.Src, arg)
	case "--mode", "--limit-iface-in", "--limit-iface-out":
		// --mode says how --probability is meant; the limits are part of the type.
		return !m.not
	case "--probability":
		return v.w.choose(2) == 0
	}
	return false
}

func (v *visit) natState(arg string) bool {
	if v.ct == nil {
		return false
	}
	return strings.Contains(arg, "DNAT") && v.ct.reply.src != v.ct.orig.dst ||
		strings.Contains(arg, "SNAT") && v.ct.reply.dst != v.ct.orig.src
}

func (v *visit) addrType(r *iptRule, a netip.Addr, want string) bool {
	if strings.EqualFold(want, "LOCAL") {
		for i := range r.matches {
			switch r.matches[i].opt {
			case "--limit-iface-in":
				return v.at.fib.localOn(a, v.iif)
			case "--limit-iface-out":
				return v.at.fib.localOn(a, v.oif)
			}
		}
	}
	return strings.EqualFold(want, v.localType(a))
}

func iptDevice(have, want string) bool {
	if prefix, any := strings.CutSuffix(want, "+"); any {
		return strings.HasPrefix(have, prefix)
	}
	return have == want
}

func iptPort(have Ports, want string) bool {
	for w := range strings.SplitSeq(want, ",") {
		r, err := parsePorts(strings.ReplaceAll(w, ":", "-"))
		if err == nil && have.within(r) != no && have.Lo >= r.Lo {
			return true
		}
	}
	return false
}
