package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Tables that have names (include/uapi/linux/rtnetlink.h).
const (
	tableDefault = 253
	tableMain    = 254
	tableLocal   = 255
)

func parseTable(s string) (int, error) {
	switch s {
	case "local":
		return tableLocal, nil
	case "main":
		return tableMain, nil
	case "default":
		return tableDefault, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("table %q is neither a number nor local, main or default", s)
	}
	return int(n), nil
}

func tableName(t int) string {
	switch t {
	case tableLocal:
		return "local"
	case tableMain:
		return "main"
	case tableDefault:
		return "default"
	}
	return strconv.Itoa(t)
}

// parseDst reads an address or prefix as `ip` writes it: an address alone is a
// prefix of 32 bits, "default" and "all" are everything.
func parseDst(s string) (netip.Prefix, error) {
	if s == "default" || s == "all" {
		return everything, nil
	}
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err == nil && !a.Is4() {
			err = fmt.Errorf("%s is not IPv4", s)
		}
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(a, 32), nil
	}
	p, err := netip.ParsePrefix(s)
	if err == nil && !p.Addr().Is4() {
		err = fmt.Errorf("%s is not IPv4", s)
	}
	return p, err
}

var everything = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

func dstString(p netip.Prefix) string {
	switch {
	case p.Bits() == 0:
		return "default"
	case p.Bits() == 32:
		return p.Addr().String()
	}
	return p.String()
}

// IPRule is one line of `ip rule`.
type IPRule struct {
	Priority   int
	Not        bool
	From, To   netip.Prefix // invalid: all
	Mark, Mask uint32       // Mask 0: the mark is not looked at
	IIF, OIF   string
	Table      int    // 0 where Action is something else
	Action     string // lookup, or blackhole, unreachable, prohibit
	Suppress   int    // suppress_prefixlength, -1: none
	Proto      string // who wrote it
	Other      string // words that are not modelled
}

func (r IPRule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:", r.Priority)
	if r.Not {
		b.WriteString(" not")
	}
	from := "all"
	if r.From.IsValid() {
		from = dstString(r.From)
	}
	b.WriteString(" from " + from)
	if r.To.IsValid() {
		b.WriteString(" to " + dstString(r.To))
	}
	if r.Mask == ^uint32(0) {
		fmt.Fprintf(&b, " fwmark %#x", r.Mark)
	} else if r.Mask != 0 {
		fmt.Fprintf(&b, " fwmark %#x/%#x", r.Mark, r.Mask)
	}
	if r.IIF != "" {
		b.WriteString(" iif " + r.IIF)
	}
	if r.OIF != "" {
		b.WriteString(" oif " + r.OIF)
	}
	if r.Action == "lookup" {
		b.WriteString(" lookup " + tableName(r.Table))
	} else if r.Action != "" {
		b.WriteString(" " + r.Action)
	}
	if r.Suppress >= 0 {
		fmt.Fprintf(&b, " suppress_prefixlength %d", r.Suppress)
	}
	if r.Proto != "" {
		b.WriteString(" proto " + r.Proto)
	}
	if r.Other != "" {
		b.WriteString(" " + r.Other) // last, so that it is read back as it was
	}
	return b.String()
}

// MarshalText writes the line.
func (r IPRule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a line of `ip rule`.
func (r *IPRule) UnmarshalText(b []byte) error {
	prio, rest, ok := strings.Cut(string(b), ":")
	n, err := strconv.ParseUint(strings.TrimSpace(prio), 10, 32)
	if !ok || err != nil {
		return fmt.Errorf("parse ip rule %q: want PRIORITY and a colon first", b)
	}
	*r, err = parseIPRule(strings.Fields(rest))
	r.Priority = int(n)
	if err != nil {
		return fmt.Errorf("parse ip rule %q: %w", b, err)
	}
	return nil
}

// parseIPRule reads the words behind the priority, also those of `ip rule add`.
func parseIPRule(f []string) (IPRule, error) {
	r := IPRule{Suppress: -1}
	var other []string
	for i := 0; i < len(f); i++ {
		word := f[i]
		if word == "not" {
			r.Not = true
			continue
		}
		if slices.Contains([]string{"blackhole", "unreachable", "prohibit"}, word) {
			r.Action = word
			continue
		}
		if i+1 >= len(f) {
			other = append(other, word)
			break
		}
		known, err := r.word(word, f[i+1])
		if err != nil {
			return r, err
		}
		if !known {
			other = append(other, word, f[i+1])
		}
		i++
	}
	r.Other = strings.Join(other, " ")
	if r.Action == "" && r.Other == "" {
		return r, fmt.Errorf("no action")
	}
	return r, nil
}

// word reads one word and its value; known is false for one that is not modelled.
func (r *IPRule) word(word, value string) (known bool, err error) {
	switch word {
	case "from":
		if value != "all" {
			r.From, err = parseDst(value)
		}
	case "to":
		if value != "all" {
			r.To, err = parseDst(value)
		}
	case "fwmark":
		r.Mark, r.Mask, err = parseMark(value)
	case "iif", "dev":
		r.IIF = value
	case "oif":
		r.OIF = value
	case "lookup", "table":
		r.Action = "lookup"
		r.Table, err = parseTable(value)
	case "suppress_prefixlength":
		r.Suppress, err = strconv.Atoi(value)
	case "proto", "protocol":
		r.Proto = value
	case "pref", "priority":
		r.Priority, err = strconv.Atoi(value)
	default:
		return false, nil
	}
	return true, err
}

// parseMark reads MARK or MARK/MASK.
func parseMark(s string) (mark, mask uint32, err error) {
	m, k, masked := strings.Cut(s, "/")
	v, err := strconv.ParseUint(m, 0, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("mark %q", s)
	}
	if !masked {
		return uint32(v), ^uint32(0), nil
	}
	w, err := strconv.ParseUint(k, 0, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("mark %q", s)
	}
	return uint32(v), uint32(w), nil
}
