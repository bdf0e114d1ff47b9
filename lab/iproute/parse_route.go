package iproute

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

var routeWords = []string{"to", "via", "dev|oif", "table", "scope", "src", "metric|priority|preference", "protocol", "onlink", "mtu", "advmss"}

func parseRoute(w *words, r *Request) error {
	if err := verbOf(w, r, Get, Add, Replace, Delete); err != nil {
		return err
	}
	switch r.Verb {
	case Show:
		return parseRouteShow(w, r)
	case Get:
		return parseRouteGet(w, r)
	}
	t := &r.Route
	hop := &Hop{}
	err := w.each(routeWords, func(key string) error { return w.route(key, r, hop) }, func(word string) (bool, error) {
		// A type stands in front of the destination, which needs no word.
		if kind, ok := routeTypes.number(word); ok && t.Type == 0 && !slices.Contains(w.seen, "to") {
			t.Type = uint8(kind)
			return true, nil
		}
		if slices.Contains(w.seen, "to") {
			return false, nil
		}
		if _, ok := prefixOf(word); !ok {
			return true, w.fail("unknown word %q; want a destination, a type (%s) or one of: %s", word, routeTypes.names(), strings.Join(routeWords, ", "))
		}
		w.back()
		w.seen = append(w.seen, "to")
		return true, w.route("to", r, hop)
	})
	if err != nil {
		return err
	}
	if !slices.Contains(w.seen, "to") {
		return w.missing("want where the route leads to: a prefix such as 10.0.0.0/16, or default")
	}
	t.Family = r.Family
	if t.Family == unix.AF_UNSPEC {
		t.Family = unix.AF_INET
	}
	if hop.Via.IsValid() || hop.Device != "" {
		t.Hops = []Hop{*hop}
	}
	w.routeDefaults(t, r.Verb)
	if needsHop := t.Type == unix.RTN_UNICAST || t.Type == unix.RTN_LOCAL; needsHop && r.Verb != Delete && len(t.Hops) == 0 {
		return w.missing("want via and a gateway, or dev and a device, or both")
	}
	return nil
}

// routeDefaults fills in what was left unsaid, as iproute_modify in iproute2's
// ip/iproute.c does.
func (w *words) routeDefaults(t *Route, verb Verb) {
	said := func(key string) bool { return slices.Contains(w.seen, key) }
	if verb != Delete {
		if t.Type == 0 {
			t.Type = unix.RTN_UNICAST
		}
		if !said("protocol") {
			t.Protocol = unix.RTPROT_BOOT
		}
	}
	its := []uint8{unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_ANYCAST}
	switch {
	case t.Table != 0:
	case slices.Contains(its, t.Type):
		t.Table = unix.RT_TABLE_LOCAL
	default:
		t.Table = unix.RT_TABLE_MAIN
	}
	switch {
	case said("scope") || t.Family == unix.AF_INET6:
	case t.Type == unix.RTN_LOCAL:
		t.Scope = unix.RT_SCOPE_HOST
	case t.Type == unix.RTN_BROADCAST || t.Type == unix.RTN_MULTICAST || t.Type == unix.RTN_ANYCAST:
		t.Scope = unix.RT_SCOPE_LINK
	case t.Type == unix.RTN_UNICAST && !said("via") && verb != Delete:
		t.Scope = unix.RT_SCOPE_LINK
	case verb == Delete && t.Type <= unix.RTN_UNICAST:
		t.Scope = unix.RT_SCOPE_NOWHERE
	}
}

// route reads what belongs to a keyword of a route.
func (w *words) route(key string, r *Request, hop *Hop) error {
	t := &r.Route
	var n uint32
	var err error
	switch key {
	case "to":
		t.Dst, err = w.prefix(key, &r.Family)
	case "via":
		hop.Via, err = w.addr(key, &r.Family)
	case "dev":
		hop.Device, err = w.device(key)
	case "table":
		t.Table, err = w.table(key)
	case "scope":
		n, err = w.named(key, scopes, 8)
		t.Scope = uint8(n)
	case "src":
		t.Source, err = w.addr(key, &r.Family)
	case "metric":
		n, err = w.number(key, 32)
		t.Metric = &n
	case "protocol":
		n, err = w.named(key, protocols, 8)
		t.Protocol = uint8(n)
	case "onlink":
		t.Flags |= unix.RTNH_F_ONLINK
	case "mtu", "advmss":
		kind, _ := metricNames.number(key)
		m := Metric{Kind: uint16(kind)}
		if word, ok := w.take(); ok && word == "lock" {
			m.Locked = true
		} else if ok {
			w.back()
		}
		m.Value, err = w.number(key, 32)
		t.Metrics = append(t.Metrics, m)
	default:
		return fmt.Errorf("no reader for %q", key)
	}
	return err
}

func parseRouteShow(w *words, r *Request) error {
	f := &r.Filter
	f.Table = unix.RT_TABLE_MAIN
	dst := func(match Match) (err error) {
		f.Match = match
		f.Dst, err = w.prefix(string(match), &r.Family)
		return err
	}
	return w.each([]string{"table", "dev|oif", "exact|to", "root", "match"}, func(key string) (err error) {
		switch key {
		case "table":
			if word, ok := w.take(); ok && word == "all" {
				f.Table = 0
				return nil
			} else if ok {
				w.back()
			}
			f.Table, err = w.table(key)
		case "dev":
			f.Device, err = w.device(key)
		default:
			if f.Match != "" {
				return w.fail("one destination can be asked for")
			}
			err = dst(Match(key))
		}
		return err
	}, func(word string) (bool, error) {
		if _, ok := prefixOf(word); !ok || f.Match != "" {
			return false, nil
		}
		w.back()
		return true, dst(Exact)
	})
}

func parseRouteGet(w *words, r *Request) error {
	l := &r.Lookup
	dst := func() (err error) {
		p, err := w.prefix("to", &r.Family)
		if err == nil && (!p.IsValid() || !p.IsSingleIP()) {
			return w.fail("to: want an address such as 10.0.1.1")
		}
		l.Dst = p.Addr()
		return err
	}
	err := w.each([]string{"to", "from", "iif", "oif|dev", "mark"}, func(key string) (err error) {
		switch key {
		case "to":
			err = dst()
		case "from":
			l.Source, err = w.addr(key, &r.Family)
		case "iif":
			l.In, err = w.device(key)
		case "oif":
			l.Out, err = w.device(key)
		case "mark":
			l.Mark, err = w.number(key, 32)
		}
		return err
	}, func(word string) (bool, error) {
		if _, ok := prefixOf(word); !ok || l.Dst.IsValid() {
			return false, nil
		}
		w.back()
		return true, dst()
	})
	if err == nil && !l.Dst.IsValid() {
		err = w.missing("want the address that a packet goes to")
	}
	return err
}

// lastOf is the last address of the prefix of so many bits around a.
func lastOf(a netip.Addr, bits int) netip.Addr {
	b := a.AsSlice()
	for i := bits; i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}
