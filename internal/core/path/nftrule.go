package path

import (
	"slices"
	"strconv"
	"strings"
)

// nftStmt is one statement of a rule.
type nftStmt struct {
	op     nftOp
	fields []nftField // match, vmap: what is compared, one or a concatenation
	not    bool
	want   []string // match: any of these
	set    string   // match, vmap: a named set or map
	inline *nftSet  // match, vmap: one in place; dnat: by number, whom to choose from
	word   string   // verdict: accept, drop, return ...; jump, goto: the chain
	expr   []string // set mark: the expression; nat: the address and port
	ctMark bool     // set mark: the connection's
	random int      // numgen, and dnat by one: how many
	text   string   // other: what is not modelled
}

type nftOp uint8

const (
	nftMatch nftOp = iota
	nftVmap
	nftNumgen
	nftVerdict
	nftJump
	nftGoto
	nftSetMark
	nftSNAT
	nftDNAT
	nftMasquerade
	nftNothing // counters, comments, logs
	nftOther
)

// nftField is a value of the packet, possibly through a mask.
type nftField struct {
	name string
	mask uint32 // 0: none
}

// Fields of one word, and of two.
var nftFields1 = []string{"iifname", "oifname", "iif", "oif", "iifgroup", "oifgroup", "mark"}
var nftFields2 = []string{
	"meta iifname", "meta oifname", "meta iifgroup", "meta oifgroup", "meta nfproto", "meta l4proto", "meta mark", "meta protocol",
	"ct mark", "ct state", "ct direction", "ct status", "ip saddr", "ip daddr", "ip protocol",
	"tcp dport", "tcp sport", "udp dport", "udp sport", "th dport", "th sport",
	"icmp type", "icmp code", "tcp flags",
}

// parseNftRule reads a rule as `nft list` prints it. The first word that is not
// understood makes the rest of the rule one statement that is not modelled.
func parseNftRule(words []string) nftRule {
	r := nftRule{text: nftText(words)}
	for len(words) > 0 {
		s, rest, ok := parseNftStmt(words)
		if !ok {
			r.stmts = append(r.stmts, nftStmt{op: nftOther, text: nftText(words)})
			break
		}
		r.stmts = append(r.stmts, s)
		words = rest
	}
	return r
}

func nftText(words []string) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 && w != "," && w != ";" {
			b.WriteByte(' ')
		}
		b.WriteString(w)
		if strings.HasPrefix(w, "\"") {
			b.WriteByte('"')
		}
	}
	return b.String()
}

func parseNftStmt(w []string) (s nftStmt, rest []string, ok bool) {
	switch w[0] {
	case "accept", "drop", "return", "continue":
		return nftStmt{op: nftVerdict, word: w[0]}, w[1:], true
	case "reject":
		return nftStmt{op: nftVerdict, word: "reject"}, nil, true
	case "jump", "goto":
		if len(w) < 2 {
			return s, nil, false
		}
		op := nftJump
		if w[0] == "goto" {
			op = nftGoto
		}
		return nftStmt{op: op, word: w[1]}, w[2:], true
	case "counter":
		n := 1
		if len(w) > 2 && w[1] == "name" {
			n = 3
		} else if len(w) > 4 && w[1] == "packets" {
			n = 5
		}
		return nftStmt{op: nftNothing}, w[n:], true
	case "comment":
		return nftStmt{op: nftNothing}, w[min(2, len(w)):], true
	case "log":
		n := 1
		for n+1 < len(w) && slices.Contains([]string{"prefix", "level", "group", "snaplen", "flags"}, w[n]) {
			n += 2
		}
		return nftStmt{op: nftNothing}, w[n:], true
	case "masquerade":
		return nftStmt{op: nftMasquerade, expr: w[1:]}, nil, true
	case "snat", "dnat":
		return parseNftNAT(w)
	case "numgen":
		return parseNumgen(w, "vmap")
	}
	if s, rest, ok := parseSetMark(w); ok {
		return s, rest, true
	}
	return parseNftMatch(w)
}

// parseNftNAT reads: snat|dnat [ip [addr . port]] to ADDRESS[:PORT] [flags], and
// what kube-proxy writes since 1.36: dnat ip to numgen random mod N map { I : ADDRESS
// . PORT, ... }.
func parseNftNAT(w []string) (s nftStmt, rest []string, ok bool) {
	op := nftSNAT
	if w[0] == "dnat" {
		op = nftDNAT
	}
	f := w[1:]
	if len(f) > 0 && f[0] == "ip" {
		f = f[1:]
	}
	if len(f) > 3 && strings.Join(f[:3], " ") == "addr . port" {
		f = f[3:]
	}
	if op == nftDNAT && len(f) > 1 && f[0] == "to" && f[1] == "numgen" {
		s, rest, ok = parseNumgen(f[1:], "map")
		s.op = op
		return s, rest, ok
	}
	if len(f) < 2 || f[0] != "to" {
		return s, nil, false
	}
	for _, flag := range f[2:] {
		if !slices.Contains([]string{"random", "fully-random", "persistent", ","}, flag) {
			return s, nil, false
		}
	}
	return nftStmt{op: op, expr: f[1:]}, nil, true
}

// parseNumgen reads: numgen random|inc mod N [offset 0] vmap { I : VERDICT, ... }, or a
// map by another kind's name.
func parseNumgen(w []string, kind string) (s nftStmt, rest []string, ok bool) {
	if len(w) < 7 || w[2] != "mod" {
		return s, nil, false
	}
	n, err := strconv.Atoi(w[3])
	f := w[4:]
	if len(f) > 2 && f[0] == "offset" && f[1] == "0" {
		f = f[2:]
	}
	if err != nil || n < 1 || f[0] != kind {
		return s, nil, false
	}
	set, _, rest, ok := parseNftSet(f[1:])
	return nftStmt{op: nftNumgen, random: n, inline: set}, rest, ok && set != nil
}

// parseSetMark reads: meta|ct mark set VALUE [OPERATOR VALUE]..., where a value is
// a number or a mark.
func parseSetMark(w []string) (s nftStmt, rest []string, ok bool) {
	if len(w) < 4 || w[1] != "mark" || w[2] != "set" || w[0] != "meta" && w[0] != "ct" {
		return s, nil, false
	}
	end := 3
	for end < len(w) {
		if w[end] == "meta" || w[end] == "ct" {
			end++
		}
		end++
		if end >= len(w) || !slices.Contains([]string{"&", "|", "^", "and", "or", "xor", "<<", ">>"}, w[end]) {
			break
		}
		end++
	}
	end = min(end, len(w))
	s = nftStmt{op: nftSetMark, ctMark: w[0] == "ct", expr: w[3:end]}
	if _, ok := evalMark(s.expr, 0, 0); !ok {
		return s, nil, false
	}
	return s, w[end:], true
}

// evalMark computes an expression over marks, from left to right: nft prints the
// operators in an order for which that is right (&, then ^, then |).
func evalMark(expr []string, mark, ctMark uint32) (uint32, bool) {
	value, op := uint32(0), "="
	for i := 0; i < len(expr); i++ {
		var v uint32
		switch expr[i] {
		case "meta", "ct":
			if i+1 >= len(expr) || expr[i+1] != "mark" {
				return 0, false
			}
			v = mark
			if expr[i] == "ct" {
				v = ctMark
			}
			i++
		case "&", "and", "|", "or", "^", "xor":
			op = expr[i]
			continue
		default:
			n, err := strconv.ParseUint(expr[i], 0, 32)
			if err != nil {
				return 0, false
			}
			v = uint32(n)
		}
		switch op {
		case "=":
			value = v
		case "&", "and":
			value &= v
		case "|", "or":
			value |= v
		case "^", "xor":
			value ^= v
		default:
			return 0, false
		}
		op = ""
	}
	return value, op == ""
}

// parseNftMatch reads: FIELD [. FIELD] [& MASK] [==|!=] VALUES, or ... vmap MAP.
func parseNftMatch(w []string) (s nftStmt, rest []string, ok bool) {
	if len(w) > 3 && w[0] == "fib" && (w[1] == "daddr" || w[1] == "saddr") && w[2] == "type" {
		s.fields, w = []nftField{{name: "fib " + w[1]}}, w[3:]
	} else if s.fields, w, ok = parseNftFields(w); !ok {
		return s, nil, false
	}
	if len(w) == 0 {
		return s, nil, false
	}
	switch w[0] {
	case "==":
		w = w[1:]
	case "!=":
		s.not, w = true, w[1:]
	case "vmap":
		s.op = nftVmap
		s.inline, s.set, rest, ok = parseNftSet(w[1:])
		return s, rest, ok
	case "set", "&", "and", "|", "<", ">", "<=", ">=", "map", "offset", "/":
		return s, nil, false
	}
	if len(w) == 0 {
		return s, nil, false
	}
	if w[0] == "{" || strings.HasPrefix(w[0], "@") {
		s.inline, s.set, rest, ok = parseNftSet(w)
		return s, rest, ok
	}
	// A list such as new,established has commas and no braces.
	s.want = []string{strings.TrimPrefix(w[0], "\"")}
	w = w[1:]
	for len(w) > 1 && w[0] == "," {
		s.want = append(s.want, strings.TrimPrefix(w[1], "\""))
		w = w[2:]
	}
	return s, w, true
}

func parseNftFields(w []string) (fields []nftField, rest []string, ok bool) {
	for {
		var f nftField
		switch {
		case len(w) > 1 && slices.Contains(nftFields2, w[0]+" "+w[1]):
			f.name, w = strings.TrimPrefix(w[0]+" "+w[1], "meta "), w[2:]
		case len(w) > 0 && slices.Contains(nftFields1, w[0]):
			f.name, w = w[0], w[1:]
		default:
			return nil, nil, false
		}
		if len(w) > 1 && (w[0] == "&" || w[0] == "and") {
			n, err := strconv.ParseUint(w[1], 0, 32)
			if err != nil {
				return nil, nil, false
			}
			f.mask, w = uint32(n), w[2:]
		}
		fields = append(fields, f)
		if len(w) == 0 || w[0] != "." {
			return fields, w, true
		}
		w = w[1:]
	}
}

// parseNftSet reads @NAME or { ELEMENTS }.
func parseNftSet(w []string) (inline *nftSet, name string, rest []string, ok bool) {
	switch {
	case len(w) > 0 && strings.HasPrefix(w[0], "@"):
		return nil, w[0][1:], w[1:], true
	case len(w) > 0 && w[0] == "{":
		end := slices.Index(w, "}")
		if end < 0 {
			return nil, "", nil, false
		}
		s := &nftSet{exact: map[string]string{}}
		s.add(w[1:end])
		return s, "", w[end+1:], true
	}
	return nil, "", nil, false
}
