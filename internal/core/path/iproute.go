package path

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// IPRoute is one line of `ip route show table all`.
type IPRoute struct {
	Kind    string // unicast, local, broadcast, unreachable, blackhole, prohibit, throw
	Dst     netip.Prefix
	Via     netip.Addr
	Dev     string
	Table   int
	Metric  int
	Src     netip.Addr // source address of what the node itself sends
	MTU     int        // bytes, 0: the device's
	OnLink  bool
	Dead    bool   // the kernel does not use it: its device is down
	Scope   string // global, link, host
	Proto   string
	Other   string // words that are not modelled, such as nexthop
	HasLink bool   // lladdr: a permanent neighbour comes with it
}

func (r IPRoute) String() string {
	var b strings.Builder
	if r.Kind != "unicast" {
		b.WriteString(r.Kind + " ")
	}
	b.WriteString(dstString(r.Dst))
	if r.Via.IsValid() {
		b.WriteString(" via " + r.Via.String())
	}
	if r.Dev != "" {
		b.WriteString(" dev " + r.Dev)
	}
	if r.Table != tableMain {
		b.WriteString(" table " + tableName(r.Table))
	}
	if r.Proto != "" {
		b.WriteString(" proto " + r.Proto)
	}
	if r.Scope != "global" {
		b.WriteString(" scope " + r.Scope)
	}
	if r.Src.IsValid() {
		b.WriteString(" src " + r.Src.String())
	}
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	if r.MTU != 0 {
		fmt.Fprintf(&b, " mtu %d", r.MTU)
	}
	if r.OnLink {
		b.WriteString(" onlink")
	}
	if r.Dead {
		b.WriteString(" dead")
	}
	if r.Other != "" {
		b.WriteString(" " + r.Other)
	}
	return b.String()
}

// MarshalText writes the line.
func (r IPRoute) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a line of `ip route`.
func (r *IPRoute) UnmarshalText(b []byte) (err error) {
	if *r, err = parseIPRoute(strings.Fields(string(b))); err != nil {
		return fmt.Errorf("parse ip route %q: %w", b, err)
	}
	return nil
}

func parseIPRoute(f []string) (IPRoute, error) {
	r := IPRoute{Kind: "unicast", Table: tableMain}
	if len(f) == 0 {
		return r, fmt.Errorf("empty")
	}
	switch f[0] {
	case "unicast", "local", "broadcast", "unreachable", "blackhole", "prohibit", "throw", "multicast", "anycast":
		r.Kind, f = f[0], f[1:]
	}
	if len(f) == 0 {
		return r, fmt.Errorf("no destination")
	}
	var err error
	if r.Dst, err = parseDst(f[0]); err != nil {
		return r, err
	}
	var other []string
	for i := 1; i < len(f); i++ {
		if f[i] == "nexthop" { // several ways, each with words of its own
			other = append(other, f[i:]...)
			break
		}
		known, err := r.flag(f[i])
		if known {
			continue
		}
		if err == nil && i+1 < len(f) {
			if known, err = r.word(f[i], f[i+1]); known {
				i++
			}
		}
		if err != nil {
			return r, err
		}
		if !known {
			other = append(other, f[i])
		}
	}
	r.Other = strings.Join(other, " ")
	switch {
	case r.Scope != "":
	case r.Kind == "local":
		r.Scope = "host"
	case r.Kind == "broadcast":
		r.Scope = "link"
	default:
		r.Scope = "global"
	}
	return r, nil
}

func (r *IPRoute) flag(word string) (known bool, err error) {
	switch word {
	case "onlink":
		r.OnLink = true
	case "dead":
		r.Dead = true
	case "linkdown", "offload", "pervasive", "notify":
		// A route whose link has no carrier is still used, unless
		// ignore_routes_with_linkdown says otherwise.
	default:
		return false, nil
	}
	return true, nil
}

func (r *IPRoute) word(word, value string) (known bool, err error) {
	switch word {
	case "via":
		r.Via, err = netip.ParseAddr(value)
	case "dev":
		r.Dev = value
	case "table":
		r.Table, err = parseTable(value)
	case "metric":
		r.Metric, err = strconv.Atoi(value)
	case "src":
		r.Src, err = netip.ParseAddr(value)
	case "mtu":
		r.MTU, err = strconv.Atoi(value)
	case "scope":
		r.Scope = value
	case "proto":
		r.Proto = value
	case "lladdr":
		r.HasLink = true
	case "pref", "error", "advmss", "initcwnd", "initrwnd", "quickack", "congctl", "rto_min":
		// They change nothing about where a packet goes.
	default:
		return false, nil
	}
	return true, err
}
