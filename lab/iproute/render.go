package iproute

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// field is one thing that is said of an object: in words, under a JSON key, or
// both. The keys, and null for what is simply so, are ip's own.
type field struct {
	words string
	key   string
	value any
}

// fields are what is said of an object, in ip's order.
type fields []field

// say adds words under no key.
func (f *fields) say(format string, args ...any) {
	*f = append(*f, field{words: fmt.Sprintf(format, args...)})
}

// key adds a JSON key without words.
func (f *fields) key(key string, value any) { *f = append(*f, field{key: key, value: value}) }

// both adds a key, and words for its value.
func (f *fields) both(key string, value any, format string) {
	*f = append(*f, field{words: fmt.Sprintf(format, value), key: key, value: value})
}

// flag adds a word that is its own key.
func (f *fields) flag(name string, value any) {
	*f = append(*f, field{words: name, key: name, value: value})
}

func (f fields) String() string {
	var words []string
	for _, e := range f {
		if e.words != "" {
			words = append(words, e.words)
		}
	}
	return strings.Join(words, " ")
}

// MarshalJSON keeps the order of the fields.
func (f fields) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	for _, e := range f {
		if e.key == "" {
			continue
		}
		value, err := json.Marshal(e.value)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", e.key, err)
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%s", e.key, value)
	}
	return fmt.Appendf(nil, "{%s}", &b), nil
}

// Text is what ip prints: lines, or nothing.
func (a Answer) Text(r Request) string {
	var b strings.Builder
	for _, u := range a.Rules {
		fmt.Fprintf(&b, "%d:\t%s\n", *u.Priority, ruleFields(u))
	}
	for _, t := range a.Routes {
		fmt.Fprintf(&b, "%s\n", routeFields(t, r.Filter))
		if isAnswer(t) && t.Family == unix.AF_INET {
			fmt.Fprintf(&b, "    %s\n", cacheFields(t))
		} else if len(t.Hops) > 1 {
			for _, h := range t.Hops {
				fmt.Fprintf(&b, "\tnexthop %s\n", hopFields(h, t.Family))
			}
		}
	}
	for _, l := range a.Links {
		b.WriteString(linkText(l, a, r))
	}
	for _, n := range a.Neighbours {
		fmt.Fprintf(&b, "%s\n", neighbourFields(n, r.Filter))
	}
	return b.String()
}

// JSON is what ip -j prints, as a value for package json: a list of objects.
func (a Answer) JSON(r Request) any {
	out := []fields{}
	for _, u := range a.Rules {
		out = append(out, append(fields{{key: "priority", value: *u.Priority}}, ruleFields(u)...))
	}
	for _, t := range a.Routes {
		f := routeFields(t, r.Filter)
		switch {
		case isAnswer(t) && t.Family == unix.AF_INET:
			f = append(f, cacheFields(t)...)
		case len(t.Hops) > 1:
			var hops []fields
			for _, h := range t.Hops {
				hops = append(hops, hopFields(h, t.Family))
			}
			f.key("nexthops", hops)
		}
		out = append(out, f)
	}
	for _, l := range a.Links {
		out = append(out, linkJSON(l, a, r))
	}
	for _, n := range a.Neighbours {
		out = append(out, neighbourFields(n, r.Filter))
	}
	return out
}

// prefixText is the prefix; an address where it holds but one.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func ruleFields(u Rule) fields {
	var f fields
	if u.Not {
		f.flag("not", nil)
	}
	prefix := func(word, key string, p netip.Prefix) {
		f.say("%s %s", word, prefixText(p))
		f.key(key, p.Addr().String())
		if !p.IsSingleIP() {
			f.key(key+"len", p.Bits())
		}
	}
	if u.From.IsValid() {
		prefix("from", "src", u.From)
	} else {
		f.both("src", "all", "from %s")
	}
	if u.To.IsValid() {
		prefix("to", "dst", u.To)
	}
	if u.TOS != 0 {
		f.both("tos", fmt.Sprintf("%#x", u.TOS), "tos %s")
	}
	if m := u.Mark; m != nil {
		words := fmt.Sprintf("fwmark %#x", m.Value)
		f.key("fwmark", fmt.Sprintf("%#x", m.Value))
		if m.Mask != ^uint32(0) {
			words += fmt.Sprintf("/%#x", m.Mask)
			f.key("fwmask", fmt.Sprintf("%#x", m.Mask))
		}
		f.say("%s", words)
	}
	device := func(key, name string, gone bool) {
		if name == "" {
			return
		}
		f.both(key, name, key+" %s")
		if gone {
			f.say("[detached]")
			f.key(key+"_detached", nil)
		}
	}
	device("iif", u.In, u.InGone)
	device("oif", u.Out, u.OutGone)
	if u.L3MDev {
		f.say("lookup [l3mdev-table]")
		f.key("l3mdev", nil)
	}
	span := func(word, first, last, alone string, s *Range) {
		switch {
		case s == nil:
		case s.First == s.Last && alone != "":
			f.both(alone, s.First, word+" %d")
		default:
			f.say("%s %d-%d", word, s.First, s.Last)
			f.key(first, s.First)
			f.key(last, s.Last)
		}
	}
	span("uidrange", "uid_start", "uid_end", "", u.UIDs)
	if u.IPProtocol != 0 {
		f.both("ipproto", ipProtocols.name(uint32(u.IPProtocol)), "ipproto %s")
	}
	span("sport", "sport_start", "sport_end", "sport", u.Sports)
	span("dport", "dport_start", "dport_end", "dport", u.Dports)
	return append(f, ruleEnd(u)...)
}

// ruleEnd is what a rule does with the packets that it is for.
func ruleEnd(u Rule) fields {
	var f fields
	if u.Table != 0 {
		f.both("table", tables.name(u.Table), "lookup %s")
		if u.SuppressPrefix != nil {
			f.both("suppress_prefixlen", *u.SuppressPrefix, "suppress_prefixlength %d")
		}
	}
	switch u.Action {
	case actTable:
	case actGoto:
		f.both("goto", u.Goto, "goto %d")
		if u.Unresolved {
			f.say("[unresolved]")
			f.key("unresolved", nil)
		}
	case actNop:
		f.flag("nop", nil)
	default:
		f.both("action", ruleTypes.name(uint32(u.Action)), "%s")
	}
	if u.Protocol != 0 && u.Protocol != unix.RTPROT_KERNEL {
		f.both("protocol", protocols.name(uint32(u.Protocol)), "proto %s")
	}
	return f
}

func neighbourFields(n Neighbour, show Filter) fields {
	var f fields
	f.both("dst", n.Addr.String(), "%s")
	if show.Device == "" {
		f.both("dev", n.Device, "dev %s")
	}
	if len(n.MAC) > 0 {
		f.both("lladdr", n.MAC.String(), "lladdr %s")
	}
	for _, flag := range neighbourFlags {
		if uint32(n.Flags)&flag.number != 0 {
			f.flag(flag.name, nil)
		}
	}
	states := []string{}
	for _, s := range neighbourStates {
		if uint32(n.State)&s.number != 0 {
			states = append(states, strings.ToUpper(s.name))
		}
	}
	f.say("%s", strings.Join(states, ","))
	f.key("state", states)
	if n.Protocol != 0 {
		f.both("protocol", protocols.name(uint32(n.Protocol)), "proto %s")
	}
	return f
}

// neighbourFlags are NTF_* (linux/neighbour.h).
var neighbourFlags = naming{{"router", unix.NTF_ROUTER}, {"proxy", unix.NTF_PROXY}, {"extern_learn", unix.NTF_EXT_LEARNED}, {"offload", unix.NTF_OFFLOADED}}
