package ipam

import (
	"fmt"
	"strings"
	"time"
)

// Wish is what the planner wants the node to have, and why.
type Wish struct {
	Addresses int // for pods; in prefix mode those of the prefixes that are wanted
	Prefixes  int // in prefix mode
	ENIs      int // that this takes, the primary included
	Why       string
}

// Wanted says what the node should have. What it can have may be less: see
// [Capacity].
//
//	mode          wanted
//	IP targets    addresses: max(used + WarmIPs, MinimumIPs)
//	ENIs          ENIs: max(1, used / addresses of an ENI, rounded up) + WarmENIs
//	prefixes      prefixes: used / 16, rounded up, + max(1, WarmPrefixes);
//	              with IP targets: as above, / 16, rounded up
//
// Used are the addresses that are assigned, reserved or cooling, and the pods that
// have none yet. Never more is wanted than MaxPods pods can use.
func Wanted(s State, t Targets) Wish { return newLedger(s, t, time.Time{}).wish(s, t) }

// wish is Wanted; Addresses and Prefixes are those of own units.
func (l *ledger) wish(s State, t Targets) Wish {
	used := l.usedOwn + l.demand
	var w Wish
	var total int // addresses
	switch {
	case t.byIP():
		total, w.Why = l.byIP(t, used)
	case l.prefixes:
		warm := max(1, t.WarmPrefixes)
		total = PrefixSize * (ceil(used, PrefixSize) + warm)
		w.Why = fmt.Sprintf("%s + %s warm", l.inUse(), prefixCount(warm))
	default:
		enis := max(1, ceil(used, s.perENI()))
		total = (enis + max(t.WarmENIs, 0)) * s.perENI()
		w.Why = fmt.Sprintf("%s for %s + %d warm", plural(enis, "ENI"), l.inUse(), max(t.WarmENIs, 0))
	}
	if limit, ok := l.limit(s); ok && total > limit {
		total = limit
		w.Why += fmt.Sprintf(", at most %s for %d pods", addresses(limit), s.MaxPods)
	}
	w.Addresses = total
	w.ENIs = ceil(total, s.perENI())
	if l.prefixes {
		w.Prefixes = ceil(total, PrefixSize)
		w.Addresses = w.Prefixes * PrefixSize
		w.ENIs = ceil(w.Prefixes, s.perENI())
	}
	w.ENIs = max(w.ENIs, 1)
	if s.Network.Enabled {
		w.ENIs++ // the primary, which gives pods nothing
	}
	return w
}

// byIP is the total of the IP targets. Pods on units of the other kind need no
// own ones.
func (l *ledger) byIP(t Targets, used int) (total int, why string) {
	total = used + max(t.WarmIPs, 0)
	if minimum := t.MinimumIPs - l.usedOther; minimum > total {
		return minimum, fmt.Sprintf("%s, at least %d", l.inUse(), t.MinimumIPs)
	}
	return total, fmt.Sprintf("%s + %d warm", l.inUse(), max(t.WarmIPs, 0))
}

// limit is the most own addresses that MaxPods pods can use. Cooling ones are of
// use to nobody, so that they do not count where pods need others; they do where
// it is about warm ones only.
func (l *ledger) limit(s State) (int, bool) {
	if s.MaxPods <= 0 {
		return 0, false
	}
	needed := l.usedOwn + l.usedOther + l.demand
	limit := max(s.MaxPods, min(needed, s.MaxPods+l.cooling))
	return max(limit-l.usedOther, 0), true
}

// inUse says what the pods need.
func (l *ledger) inUse() string {
	parts := []string{fmt.Sprintf("%d used", l.usedOwn+l.usedOther-l.cooling)}
	if l.usedOther > 0 {
		parts[0] += fmt.Sprintf(", of which %d not on prefixes", l.usedOther)
	}
	if l.cooling > 0 {
		parts = append(parts, fmt.Sprintf("%d cooling", l.cooling))
	}
	if l.demand > 0 {
		parts = append(parts, fmt.Sprintf("%d without address", l.demand))
	}
	return strings.Join(parts, " + ")
}

// ceil divides, rounding up; by nothing it gives nothing.
func ceil(n, by int) int {
	if by <= 0 {
		return 0
	}
	return (n + by - 1) / by
}
