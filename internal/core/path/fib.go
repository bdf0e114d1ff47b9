package path

import (
	"net/netip"
	"strconv"
)

// flow is what a routing decision looks at.
type flow struct {
	src, dst netip.Addr
	iif, oif string // oif: only routes by this device
	mark     uint32
}

// found is what a routing decision says.
type found struct {
	route *IPRoute // nil: nothing matched, or a rule refused
	rule  *IPRule
	near  *nearMiss
	blind string // what the decision depends on and is not known
}

// nearMiss is a rule that asked for this source or mark and another destination,
// and whose table would have led elsewhere.
type nearMiss struct {
	rule  IPRule
	route IPRoute
}

// kind is the route's, or that of the rule which refused, or "none".
func (f found) kind() string {
	switch {
	case f.route != nil:
		return f.route.Kind
	case f.rule != nil:
		return f.rule.Action
	}
	return "none"
}

// fib is a namespace's routes by table, in the order of their dump.
type fib struct {
	ns     *Namespace
	tables map[int][]*IPRoute
	// single finds the routes of 32 bits of a table: a node has one for each pod.
	single map[hostKey][]*IPRoute
	custom bool // there are rules beside the kernel's three
}

type hostKey struct {
	table int
	addr  netip.Addr
}

func newFIB(ns *Namespace) *fib {
	f := &fib{ns: ns, tables: map[int][]*IPRoute{}, single: map[hostKey][]*IPRoute{}}
	for i := range ns.Routes.Value {
		r := &ns.Routes.Value[i]
		if r.Dst.Bits() == 32 {
			k := hostKey{r.Table, r.Dst.Addr()}
			f.single[k] = append(f.single[k], r)
		} else {
			f.tables[r.Table] = append(f.tables[r.Table], r)
		}
	}
	for i := range ns.Rules.Value {
		r := &ns.Rules.Value[i]
		stock := r.Priority == 0 && r.Table == tableLocal || r.Priority == 32766 && r.Table == tableMain || r.Priority == 32767 && r.Table == tableDefault
		f.custom = f.custom || !stock
	}
	return f
}

// lookup is the kernel's fib_lookup: rules by priority, in each rule's table the
// longest prefix, of these the lowest metric. A table without a route, and a
// route of type throw, leave the decision to the next rule (kernel,
// net/ipv4/fib_rules.c and fib_trie.c; ip-rule(8)).
func (f *fib) lookup(q flow) found {
	if !f.ns.Rules.Known {
		return found{blind: f.ns.Rules.unknown("ip rules")}
	}
	if !f.ns.Routes.Known {
		return found{blind: f.ns.Routes.unknown("routes")}
	}
	var near *nearMiss
	for i := range f.ns.Rules.Value {
		r := &f.ns.Rules.Value[i]
		match, onlyTo := r.matches(q)
		if !match {
			if onlyTo && near == nil && r.Action == "lookup" {
				if route := f.longest(r.Table, q); route != nil && route.Kind == "unicast" {
					near = &nearMiss{*r, *route}
				}
			}
			continue
		}
		if r.Other != "" {
			return found{blind: "not modelled: ip rule " + r.String()}
		}
		if r.Action != "lookup" {
			return found{rule: r, near: near}
		}
		route := f.longest(r.Table, q)
		if route == nil || route.Kind == "throw" || r.suppresses(route) {
			continue
		}
		if route.Other != "" {
			return found{blind: "not modelled: route " + route.String()}
		}
		if near != nil && near.route.Dev == route.Dev {
			near = nil
		}
		return found{route: route, rule: r, near: near}
	}
	return found{near: near}
}

// suppresses: a rule passes over a prefix that is no longer than it says, but not
// over a route that refuses: that one has ended the lookup (fib_rules_lookup).
func (r *IPRule) suppresses(route *IPRoute) bool {
	switch route.Kind {
	case "unreachable", "blackhole", "prohibit":
		return false
	}
	return r.Suppress >= route.Dst.Bits()
}

// matches reports whether the rule applies. onlyTo: all but the destination
// does, and the rule asks for a source or a mark.
func (r *IPRule) matches(q flow) (match, onlyTo bool) {
	rest := (!r.From.IsValid() || r.From.Contains(q.src)) &&
		(r.Mask == 0 || q.mark&r.Mask == r.Mark) &&
		(r.IIF == "" || r.IIF == q.iif) &&
		(r.OIF == "" || r.OIF == q.oif)
	to := !r.To.IsValid() || r.To.Contains(q.dst)
	if r.Not {
		return !(rest && to), false
	}
	return rest && to, rest && !to && (r.From.IsValid() && r.From.Bits() > 0 || r.Mask != 0)
}

func (f *fib) longest(table int, q flow) *IPRoute {
	var best *IPRoute
	better := func(r *IPRoute) {
		if r.Dead || q.oif != "" && r.Dev != q.oif && r.Kind == "unicast" {
			return
		}
		if best == nil || r.Dst.Bits() > best.Dst.Bits() || r.Dst.Bits() == best.Dst.Bits() && r.Metric < best.Metric {
			best = r
		}
	}
	for _, r := range f.single[hostKey{table, q.dst}] {
		better(r)
	}
	if best != nil {
		return best
	}
	for _, r := range f.tables[table] {
		if r.Dst.Contains(q.dst) {
			better(r)
		}
	}
	return best
}

// local reports whether the address is one of the namespace's own.
func (f *fib) local(a netip.Addr) bool {
	for _, r := range f.single[hostKey{tableLocal, a}] {
		if r.Kind == "local" {
			return true
		}
	}
	for _, r := range f.tables[tableLocal] {
		if r.Kind == "local" && r.Dst.Contains(a) {
			return true
		}
	}
	return false
}

// localOn reports whether the address is the namespace's own, on this device.
func (f *fib) localOn(a netip.Addr, dev string) bool {
	for _, r := range f.single[hostKey{tableLocal, a}] {
		if r.Kind == "local" && r.Dev == dev {
			return true
		}
	}
	return false
}

// source is the address that the kernel gives to a packet of its own: the
// route's, or one of the device's.
func (f *fib) source(r *IPRoute, dst netip.Addr) netip.Addr {
	if r.Src.IsValid() {
		return r.Src
	}
	if r.Via.IsValid() {
		dst = r.Via
	}
	return f.ns.selectAddr(r.Dev, dst)
}

// selectAddr is the kernel's inet_select_addr: of the device's addresses the one
// in whose subnet the next hop is, else its first; of a device without any, the
// first of the other devices.
func (n *Namespace) selectAddr(dev string, hop netip.Addr) netip.Addr {
	first := netip.Addr{}
	of := func(d *Device) bool {
		for _, p := range d.Addresses {
			if p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() {
				continue
			}
			if !first.IsValid() {
				first = p.Addr()
			}
			if p.Contains(hop) {
				first = p.Addr()
				break
			}
		}
		return first.IsValid()
	}
	if d := n.device(dev); d != nil && of(d) {
		return first
	}
	for i := range n.Devices.Value {
		if of(&n.Devices.Value[i]) {
			break
		}
	}
	return first
}

// decided writes a routing decision as a hop quotes it.
func (f found) decided(dst netip.Addr) string {
	switch f.kind() {
	case "none":
		return "no ip rule's table has a route to " + dst.String()
	case "blackhole", "unreachable", "prohibit":
		if f.route == nil {
			return "ip rule " + strconv.Itoa(f.rule.Priority) + " " + f.rule.Action
		}
	}
	r, table := f.rule, tableName(f.rule.Table)
	if f.near != nil {
		return "ip rule " + strconv.Itoa(f.near.rule.Priority) + " wants to " + dstString(f.near.rule.To) + ": no; " +
			strconv.Itoa(r.Priority) + " " + table
	}
	how := "ip rule " + strconv.Itoa(r.Priority)
	switch {
	case r.ours() && r.Mask != 0:
		how = r.slot()
	case r.ours() && r.Table == podTable && f.route.Kind == "unicast":
		return "table pods " + dst.String()
	case r.Mask != 0:
		how += " fwmark " + markString(r.Mark, r.Mask)
	case r.From.IsValid() && r.From.Bits() > 0:
		how += " from " + dstString(r.From)
	}
	if r.To.IsValid() && r.To.Bits() > 0 {
		how += " to " + dstString(r.To)
	}
	how += " lookup " + table
	if f.route.Kind != "unicast" {
		return how + ": " + f.route.Kind + " " + dstString(f.route.Dst)
	}
	if r.To.IsValid() && r.To.Bits() == 32 {
		return how
	}
	return how + ": " + dstString(f.route.Dst) + " dev " + f.route.Dev
}

func markString(mark, mask uint32) string {
	s := "0x" + strconv.FormatUint(uint64(mark), 16)
	if mask != ^uint32(0) {
		s += "/0x" + strconv.FormatUint(uint64(mask), 16)
	}
	return s
}
