package iproute

import (
	"golang.org/x/sys/unix"
)

// isAnswer tells the answer to a lookup from a route of a table.
func isAnswer(t Route) bool { return t.Flags&unix.RTM_F_CLONED != 0 }

// hopFlags are what a route's or a hop's flags say (RTNH_F_*), in ip's order.
var hopFlags = naming{
	{"dead", unix.RTNH_F_DEAD}, {"onlink", unix.RTNH_F_ONLINK}, {"pervasive", unix.RTNH_F_PERVASIVE},
	{"offload", unix.RTNH_F_OFFLOAD}, {"trap", unix.RTNH_F_TRAP}, {"linkdown", unix.RTNH_F_LINKDOWN},
	{"unresolved", unix.RTNH_F_UNRESOLVED},
}

// cacheFlags are what is said of an answer (RTCF_*, linux/in_route.h).
var cacheFlags = naming{
	{"local", 0x80000000}, {"reject", 0x40000000}, {"mc", 0x20000000}, {"brd", 0x10000000},
	{"src-direct", 0x04000000}, {"redirected", 0x00040000}, {"redirect", 0x01000000},
}

// prefs are how much an IPv6 router wants to be used (RFC 4191, 2.1).
var prefs = naming{{"medium", 0}, {"high", 1}, {"low", 3}}

func set(n naming, flags uint32) []string {
	out := []string{}
	for _, e := range n {
		if flags&e.number != 0 {
			out = append(out, e.name)
		}
	}
	return out
}

// routeFields are the first line of a route. What show asked for goes without
// saying: the table and the device.
func routeFields(t Route, show Filter) fields {
	var f fields
	if t.Type != unix.RTN_UNICAST {
		f.both("type", routeTypes.name(uint32(t.Type)), "%s")
	}
	dst := "default"
	if t.Dst.IsValid() && t.Dst.Bits() > 0 {
		dst = prefixText(t.Dst)
	}
	f.both("dst", dst, "%s")
	if t.From.IsValid() {
		f.both("from", prefixText(t.From), "from %s")
	}
	if t.NextHop != 0 {
		f.both("nhid", t.NextHop, "nhid %d")
	}
	if len(t.Hops) == 1 {
		f = append(f, wayFields(t.Hops[0], t.Family, show.Device == "")...)
	}
	if t.Table != unix.RT_TABLE_MAIN && show.Table == 0 {
		f.both("table", tables.name(t.Table), "table %s")
	}
	if !isAnswer(t) {
		if t.Protocol != unix.RTPROT_BOOT {
			f.both("protocol", protocols.name(uint32(t.Protocol)), "proto %s")
		}
		if t.Scope != unix.RT_SCOPE_UNIVERSE {
			f.both("scope", scopes.name(uint32(t.Scope)), "scope %s")
		}
	}
	if t.Source.IsValid() {
		f.both("prefsrc", t.Source.String(), "src %s")
	}
	if t.Metric != nil {
		f.both("metric", *t.Metric, "metric %d")
	}
	flags := set(hopFlags, t.Flags&0xff) // above it are flags of other kinds
	f.key("flags", flags)
	for _, name := range flags {
		f.say("%s", name)
	}
	if t.Mark != 0 {
		f.both("mark", t.Mark, "mark %#x")
	}
	if t.UID != nil {
		f.both("uid", *t.UID, "uid %d")
	}
	if isAnswer(t) && t.Family == unix.AF_INET {
		return f // the rest is in the line of the cache
	}
	return append(f, restFields(t)...)
}

// cacheFields are the second line of the answer to an IPv4 lookup.
func cacheFields(t Route) fields {
	flags := set(cacheFlags, t.Flags)
	f := fields{{words: "cache", key: "cache", value: flags}}
	if len(flags) > 0 {
		list := ""
		for _, name := range flags {
			list += "," + name
		}
		f.say("<%s>", list[1:])
	}
	return append(f, restFields(t)...)
}

// restFields are the end of a route, whichever line it is in.
func restFields(t Route) fields {
	var f, metrics fields
	for _, m := range t.Metrics {
		name := metricNames.name(uint32(m.Kind))
		if _, known := metricNames.number(name); !known {
			continue
		}
		lock := ""
		if m.Locked {
			lock = "lock "
		}
		f.say("%s %s%d", name, lock, m.Value)
		metrics.key(name, m.Value)
	}
	if metrics != nil {
		f.key("metrics", []fields{metrics})
	}
	if t.In != "" {
		f.both("iif", t.In, "iif %s")
	}
	if t.Pref != nil {
		f.both("pref", prefs.name(uint32(*t.Pref)), "pref %s")
	}
	return f
}

// wayFields are a gateway and a device. A gateway of the other family is said
// to be so.
func wayFields(h Hop, family uint8, device bool) fields {
	var f fields
	switch {
	case !h.Via.IsValid():
	case familyOf(h.Via) == family:
		f.both("gateway", h.Via.String(), "via %s")
	default:
		name := "inet"
		if h.Via.Is6() {
			name = "inet6"
		}
		f.say("via %s %s", name, h.Via)
		f.key("via", fields{{key: "family", value: name}, {key: "host", value: h.Via.String()}})
	}
	if h.Device != "" && device {
		f.both("dev", h.Device, "dev %s")
	}
	return f
}

// hopFields are one hop of a multipath route.
func hopFields(h Hop, family uint8) fields {
	const device = true
	f := wayFields(h, family, device)
	f.both("weight", h.Weight, "weight %d")
	flags := set(hopFlags, h.Flags)
	f.key("flags", flags)
	for _, name := range flags {
		f.say("%s", name)
	}
	return f
}
