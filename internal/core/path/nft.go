package path

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Ruleset is a kernel's nftables as `nft list ruleset` prints it: kept as text,
// which is what is stored, and as what the text means.
type Ruleset struct {
	text   []string
	tables []nftTable
}

type nftTable struct {
	family, name string
	sets         map[string]*nftSet
	chains       []*nftChain
}

// nftChain is a chain; hook is empty for one that is only jumped to.
type nftChain struct {
	name, hook, kind string // kind: filter, nat, route
	priority         int
	drop             bool // policy
	rules            []nftRule
}

type nftRule struct {
	text  string
	stmts []nftStmt
}

// nftSet is a set or map. exact finds a key of single values; ranges are the
// elements that need a look at each.
type nftSet struct {
	exact  map[string]string // joined key -> verdict, or data, or ""
	ranges []nftElement
}

type nftElement struct {
	key  []string
	data string
}

const (
	maxLines = 1 << 20
	maxLine  = 1 << 16 // bytes
)

// ParseRuleset reads the lines of `nft list ruleset`, or of `nft list table`. A
// statement that is not modelled is kept and is no error: a packet that meets it
// says so. A text whose braces do not close is one.
func ParseRuleset(lines []string) (Ruleset, error) {
	r := Ruleset{text: lines}
	if len(lines) > maxLines {
		return r, fmt.Errorf("parse nftables: %d lines, at most %d", len(lines), maxLines)
	}
	p := nftParser{lines: lines}
	for {
		words, ok := p.next()
		if !ok {
			return r, nil
		}
		if len(words) == 0 {
			continue
		}
		if words[0] != "table" || len(words) != 4 || words[3] != "{" {
			return r, p.fail("want table FAMILY NAME {")
		}
		t := nftTable{family: words[1], name: words[2], sets: map[string]*nftSet{}}
		if err := p.table(&t); err != nil {
			return r, err
		}
		r.tables = append(r.tables, t)
	}
}

// MarshalJSON writes the lines.
func (r Ruleset) MarshalJSON() ([]byte, error) {
	if r.text == nil {
		return []byte("[]"), nil
	}
	return json.Marshal(r.text)
}

// UnmarshalJSON reads them.
func (r *Ruleset) UnmarshalJSON(b []byte) (err error) {
	var lines []string
	if err := json.Unmarshal(b, &lines); err != nil {
		return err
	}
	*r, err = ParseRuleset(lines)
	return err
}

type nftParser struct {
	lines []string
	n     int // of the line that was read last, from 1
}

func (p *nftParser) fail(why string) error {
	return fmt.Errorf("parse nftables: line %d: %s", p.n, why)
}

// next gives the next line's words. A list of elements goes over several lines:
// lines are joined until their inner braces close.
func (p *nftParser) next() ([]string, bool) {
	if p.n >= len(p.lines) {
		return nil, false
	}
	words := nftWords(p.lines[p.n])
	p.n++
	if i := slices.Index(words, "="); i == 1 && words[0] == "elements" {
		for !slices.Contains(words, "}") && p.n < len(p.lines) {
			words = append(words, nftWords(p.lines[p.n])...)
			p.n++
		}
	}
	return words, true
}

// nftWords splits a line: blanks separate, braces, commas and semicolons are
// words, a quoted text is one word that keeps its first quote.
func nftWords(line string) []string {
	if len(line) > maxLine {
		line = line[:maxLine]
	}
	var out []string
	for i := 0; i < len(line); {
		c := line[i]
		switch {
		case c == ' ' || c == '\t' || c == '\r':
			i++
		case c == '#':
			return out
		case strings.IndexByte("{},;", c) >= 0:
			out = append(out, line[i:i+1])
			i++
		case c == '"':
			end := strings.IndexByte(line[i+1:], '"')
			if end < 0 {
				end = len(line) - i - 1
			}
			out = append(out, line[i:i+1+end])
			i += end + 2
		default:
			end := strings.IndexAny(line[i:], " \t\r{},;\"")
			if end < 0 {
				end = len(line) - i
			}
			out = append(out, line[i:i+end])
			i += end
		}
	}
	return out
}

func (p *nftParser) table(t *nftTable) error {
	for {
		words, ok := p.next()
		switch {
		case !ok:
			return p.fail("table " + t.name + " does not end")
		case len(words) == 0, words[0] == "comment", words[0] == "flags":
			continue
		case words[0] == "}":
			return nil
		case len(words) < 3 || words[len(words)-1] != "{":
			return p.fail("want chain, set, map or an object, and {")
		}
		var err error
		switch words[0] {
		case "chain":
			c := &nftChain{name: words[1]}
			t.chains = append(t.chains, c)
			err = p.chain(c)
		case "set", "map":
			s := &nftSet{exact: map[string]string{}}
			t.sets[words[1]] = s
			err = p.set(s)
		default: // counters, quotas and other objects decide nothing by themselves
			err = p.skip()
		}
		if err != nil {
			return err
		}
	}
}

func (p *nftParser) skip() error {
	for depth := 1; depth > 0; {
		words, ok := p.next()
		if !ok {
			return p.fail("an object does not end")
		}
		for _, w := range words {
			switch w {
			case "{":
				depth++
			case "}":
				depth--
			}
		}
	}
	return nil
}

func (p *nftParser) set(s *nftSet) error {
	for {
		words, ok := p.next()
		switch {
		case !ok:
			return p.fail("a set does not end")
		case len(words) == 0:
		case words[0] == "}":
			return nil
		case words[0] == "elements" && len(words) > 3 && words[2] == "{":
			end := slices.Index(words[3:], "}")
			if end < 0 {
				return p.fail("elements do not end")
			}
			s.add(words[3 : 3+end])
		}
	}
}

// add reads elements: KEY [: DATA], with " . " between the parts of a key.
func (s *nftSet) add(words []string) {
	for _, e := range split(words, ",") {
		data := ""
		if i := slices.Index(e, ":"); i >= 0 {
			data, e = strings.Join(e[i+1:], " "), e[:i]
		}
		if i := slices.IndexFunc(e, func(w string) bool { return w == "counter" || w == "comment" || w == "timeout" || w == "expires" }); i >= 0 {
			e = e[:i]
		}
		var key []string
		plain := true
		for _, part := range split(e, ".") {
			w := strings.TrimPrefix(strings.Join(part, " "), "\"")
			key = append(key, w)
			plain = plain && !strings.ContainsAny(w, "/-*")
		}
		switch {
		case len(key) == 0:
		case plain:
			for i := range key {
				key[i] = canonical(key[i])
			}
			s.exact[strings.Join(key, " . ")] = data
		default:
			s.ranges = append(s.ranges, nftElement{key, data})
		}
	}
}

// canonical gives numbers one form, so that 0x80 and 128 are one key.
func canonical(w string) string {
	if len(w) > 0 && w[0] >= '0' && w[0] <= '9' {
		if n, err := strconv.ParseUint(w, 0, 32); err == nil {
			return strconv.FormatUint(n, 10)
		}
	}
	return w
}

func split(words []string, at string) [][]string {
	var out [][]string
	var part []string
	for _, w := range words {
		if w == at {
			if len(part) > 0 {
				out = append(out, part)
			}
			part = nil
			continue
		}
		part = append(part, w)
	}
	if len(part) > 0 {
		out = append(out, part)
	}
	return out
}

func (p *nftParser) chain(c *nftChain) error {
	for {
		words, ok := p.next()
		switch {
		case !ok:
			return p.fail("chain " + c.name + " does not end")
		case len(words) == 0, words[0] == "comment":
		case words[0] == "}":
			return nil
		case words[0] == "type" && c.hook == "" && slices.Contains(words, "hook"):
			if err := c.base(words); err != nil {
				return p.fail(err.Error())
			}
		default:
			c.rules = append(c.rules, parseNftRule(words))
		}
	}
}

// priorities that nft prints by name (nft(8), "Standard priority names").
var nftPriorities = map[string]int{"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}

// base reads: type KIND hook HOOK [device ...] priority P [+ N]; policy POLICY;
func (c *nftChain) base(words []string) error {
	for i := 0; i+1 < len(words); i++ {
		switch words[i] {
		case "type":
			c.kind = words[i+1]
		case "hook":
			c.hook = words[i+1]
		case "policy":
			c.drop = words[i+1] == "drop"
		case "priority":
			n, named := nftPriorities[words[i+1]]
			if !named {
				v, err := strconv.Atoi(words[i+1])
				if err != nil {
					return fmt.Errorf("priority %q", words[i+1])
				}
				n = v
			}
			if i+3 < len(words) && (words[i+2] == "+" || words[i+2] == "-") {
				v, err := strconv.Atoi(words[i+2] + words[i+3])
				if err != nil {
					return fmt.Errorf("priority %q", strings.Join(words[i+1:i+4], " "))
				}
				n += v
			}
			c.priority = n
		}
	}
	return nil
}

func (t *nftTable) chain(name string) *nftChain {
	for _, c := range t.chains {
		if c.name == name {
			return c
		}
	}
	return nil
}

// find looks a key up: exact elements first, then those with ranges, prefixes
// and wildcards.
func (s *nftSet) find(key []string) (data string, ok bool) {
	if len(key) == 1 {
		data, ok = s.exact[key[0]]
	} else {
		data, ok = s.exact[strings.Join(key, " . ")]
	}
	if ok {
		return data, true
	}
	for _, e := range s.ranges {
		if len(e.key) != len(key) {
			continue
		}
		all := true
		for i := range key {
			all = all && nftEqual(key[i], e.key[i])
		}
		if all {
			return e.data, true
		}
	}
	return "", false
}

// nftEqual compares a packet's value, in canonical form, with a value of a rule:
// an address, a number, a name, a prefix, a range or a name with a wildcard.
func nftEqual(have, want string) bool {
	switch {
	case have == canonical(want):
		return true
	case strings.HasSuffix(want, "*"):
		return strings.HasPrefix(have, want[:len(want)-1])
	case strings.Contains(want, "/"):
		p, err := netip.ParsePrefix(want)
		a, err2 := netip.ParseAddr(have)
		return err == nil && err2 == nil && p.Contains(a)
	}
	lo, hi, ok := strings.Cut(want, "-")
	if !ok {
		return false
	}
	if a, err := netip.ParseAddr(have); err == nil {
		l, err1 := netip.ParseAddr(lo)
		h, err2 := netip.ParseAddr(hi)
		return err1 == nil && err2 == nil && l.Compare(a) <= 0 && a.Compare(h) <= 0
	}
	n, err := strconv.ParseUint(have, 10, 32)
	l, err1 := strconv.ParseUint(lo, 0, 32)
	h, err2 := strconv.ParseUint(hi, 0, 32)
	return err == nil && err1 == nil && err2 == nil && l <= n && n <= h
}

// NftLeftOut is what nft says on standard error when it leaves a part of a rule out
// of what it prints, "XT match conntrack not found", or "": a build that is to print
// iptables' matches in iptables' words, without iptables' files. The rule then looks
// as if it asked for nothing.
func NftLeftOut(said string) string {
	for line := range strings.Lines(said) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "XT ") && strings.HasSuffix(line, " not found") {
			return line
		}
	}
	return ""
}
