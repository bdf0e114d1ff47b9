package path

import (
	"slices"
	"strconv"
	"strings"
)

const maxJumps = 32 // nested chains; the kernel allows 16

// nftChain runs a chain and those that it leads to.
func (v *visit) nftChain(c *baseChain, chain *nftChain, depth int) (outcome, string) {
	if depth > maxJumps {
		return fallThrough, ""
	}
	for i := range chain.rules {
		if v.tooMany() {
			v.w.blind(v, "not modelled: "+c.name()+" has more rules than are followed")
			return fallThrough, ""
		}
		if o, text, end := v.nftRule(c, chain, &chain.rules[i], depth); end {
			return o, text
		}
	}
	return fallThrough, ""
}

// nftRule runs one rule. end: the chain is left, with the outcome.
func (v *visit) nftRule(c *baseChain, chain *nftChain, r *nftRule, depth int) (o outcome, text string, end bool) {
	quote := func() string { return "nft " + c.table.name + " " + chain.name + ": " + r.text }
	for i := range r.stmts {
		s := &r.stmts[i]
		switch s.op {
		case nftMatch:
			if !v.nftMatches(c, s) {
				return 0, "", false
			}
		case nftVmap, nftNumgen:
			data, ok := v.nftLookup(c, s)
			if !ok {
				return 0, "", false
			}
			return v.nftVerdict(c, data, quote(), depth)
		case nftVerdict:
			return v.nftVerdict(c, s.word, quote(), depth)
		case nftJump:
			return v.nftVerdict(c, "jump "+s.word, quote(), depth)
		case nftGoto:
			return v.nftVerdict(c, "goto "+s.word, quote(), depth)
		case nftSetMark:
			v.nftSetMark(s)
		case nftSNAT, nftDNAT, nftMasquerade:
			return v.nftTranslate(s, "nft "+c.table.name+" "+chain.name+": ")
		case nftOther:
			v.w.blindAt(v, "not modelled: "+quote(), v.diverts(c))
			return 0, "", false
		}
	}
	return 0, "", false
}

func (v *visit) nftVerdict(c *baseChain, verdict, quote string, depth int) (outcome, string, bool) {
	word, chain, _ := strings.Cut(verdict, " ")
	switch word {
	case "accept":
		return accepted, "", true
	case "drop", "reject":
		return refused, quote, true
	case "return":
		return fallThrough, "", true
	case "jump", "goto":
		to := c.table.chain(chain)
		if to == nil {
			v.w.blind(v, "not known: chain "+chain+" of nft "+c.table.name)
			return 0, "", false
		}
		o, text := v.nftChain(c, to, depth+1)
		return o, text, o != fallThrough || word == "goto"
	}
	return 0, "", false
}

func (v *visit) nftSetMark(s *nftStmt) {
	ctMark := uint32(0)
	if v.ct != nil {
		ctMark = v.ct.mark
	}
	value, _ := evalMark(s.expr, v.p.Mark, ctMark)
	switch {
	case !s.ctMark:
		v.p.Mark = value
	case v.ct != nil:
		v.ct.mark = value
	}
}

// nftTranslate carries out a translation; quote begins what is said of it.
func (v *visit) nftTranslate(s *nftStmt, quote string) (outcome, string, bool) {
	if v.ct == nil {
		return accepted, "", true
	}
	if s.inline != nil {
		to, _ := s.inline.find([]string{strconv.Itoa(v.w.choose(s.random))})
		s = &nftStmt{op: s.op, expr: []string{strings.ReplaceAll(to, " . ", ":")}}
	}
	quote += s.natText()
	random := slices.Contains(s.expr, "fully-random") || slices.Contains(s.expr, "random")
	if s.op == nftMasquerade {
		v.masquerade(quote, random)
		return translated, "", true
	}
	to, port, ok := parseTarget(s.expr[0])
	switch {
	case !ok:
		v.w.blind(v, "not modelled: "+quote)
	case s.op == nftSNAT:
		v.translateSrc(to, random, quote)
	default:
		v.translateDst(to, port, quote)
	}
	return translated, "", true
}

// natText is the statement without what its rule asks.
func (s *nftStmt) natText() string {
	switch s.op {
	case nftMasquerade:
		return "masquerade"
	case nftSNAT:
		return "snat to " + s.expr[0]
	}
	return "dnat to " + s.expr[0]
}

func (v *visit) nftMatches(c *baseChain, s *nftStmt) bool {
	key, ok := v.nftKey(s.fields)
	if !ok {
		return false
	}
	hit := false
	switch {
	case s.set != "":
		set := c.table.sets[s.set]
		if set == nil {
			v.w.blind(v, "not known: set "+s.set+" of nft "+c.table.name)
			return false
		}
		_, hit = set.find(key)
	case s.inline != nil:
		_, hit = s.inline.find(key)
	default:
		for _, w := range s.want {
			hit = hit || len(key) == 1 && nftEqual(key[0], w)
		}
	}
	return hit != s.not
}

func (v *visit) nftLookup(c *baseChain, s *nftStmt) (string, bool) {
	if s.op == nftNumgen {
		return s.inline.find([]string{strconv.Itoa(v.w.choose(s.random))})
	}
	key, ok := v.nftKey(s.fields)
	if !ok {
		return "", false
	}
	set := s.inline
	if s.set != "" {
		if set = c.table.sets[s.set]; set == nil {
			v.w.blind(v, "not known: map "+s.set+" of nft "+c.table.name)
			return "", false
		}
	}
	return set.find(key)
}

// nftKey reads the fields; ok is false where the packet has no such field, which
// makes the rule not match.
func (v *visit) nftKey(fields []nftField) ([]string, bool) {
	key := make([]string, len(fields))
	for i, f := range fields {
		s, ok := v.nftField(f.name)
		if !ok {
			return nil, false
		}
		if f.mask != 0 {
			n, err := strconv.ParseUint(s, 10, 32)
			if err != nil {
				return nil, false
			}
			s = strconv.FormatUint(n&uint64(f.mask), 10)
		}
		key[i] = s
	}
	return key, true
}

func (v *visit) nftField(name string) (string, bool) {
	p := v.p
	switch name {
	case "iifname", "iif":
		return v.iif, v.iif != ""
	case "oifname", "oif":
		return v.oif, v.oif != ""
	case "iifgroup":
		return v.group(v.iif), v.iif != ""
	case "oifgroup":
		return v.group(v.oif), v.oif != ""
	case "nfproto":
		return "ipv4", true
	case "protocol":
		return "ip", true
	case "l4proto", "ip protocol":
		return string(p.Proto), true
	case "mark":
		return strconv.FormatUint(uint64(p.Mark), 10), true
	case "ip saddr":
		return p.Src.String(), true
	case "ip daddr":
		return p.Dst.String(), true
	case "fib daddr":
		return v.localType(p.Dst), true
	case "fib saddr":
		return v.localType(p.Src), true
	case "ct state":
		return v.state(), true
	case "icmp type":
		names := map[int]string{0: "echo-reply", 8: "echo-request"}
		return names[p.icmpType()], p.Proto == ICMP
	case "icmp code":
		return "0", p.Proto == ICMP
	case "tcp flags":
		return "syn", p.Proto == TCP && !p.Reply
	}
	if strings.HasPrefix(name, "ct ") {
		return v.ctField(name)
	}
	return v.portField(name)
}

func (v *visit) ctField(name string) (string, bool) {
	if v.ct == nil {
		return "", false
	}
	switch name {
	case "ct mark":
		return strconv.FormatUint(uint64(v.ct.mark), 10), true
	case "ct direction":
		return v.direction(), true
	case "ct status":
		switch {
		case v.ct.reply.src != v.ct.orig.dst:
			return "dnat", true
		case v.ct.reply.dst != v.ct.orig.src:
			return "snat", true
		}
		return "", true
	}
	return "", false
}

func (v *visit) portField(name string) (string, bool) {
	proto, field, _ := strings.Cut(name, " ")
	if v.p.Proto == ICMP || proto != "th" && proto != string(v.p.Proto) {
		return "", false
	}
	ports := v.p.SrcPort
	if field == "dport" {
		ports = v.p.DstPort
	}
	// A port that is not decided is compared by its first value: rules of
	// translation ask for services' ports, which are.
	return strconv.Itoa(int(ports.Lo)), true
}
