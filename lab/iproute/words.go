package iproute

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// naming is a list of names for numbers, in the order in which people are told
// about them. Of several names for a number the first is printed.
type naming []struct {
	name   string
	number uint32
}

func (n naming) number(name string) (uint32, bool) {
	for _, e := range n {
		if e.name == name {
			return e.number, true
		}
	}
	return 0, false
}

// name falls back to the number itself, as ip does.
func (n naming) name(number uint32) string {
	for _, e := range n {
		if e.number == number {
			return e.name
		}
	}
	return strconv.FormatUint(uint64(number), 10)
}

func (n naming) names() string {
	var out []string
	for _, e := range n {
		out = append(out, e.name)
	}
	return strings.Join(out, ", ")
}

// tables are the kernel's own (linux/rtnetlink.h, RT_TABLE_*).
var tables = naming{{"local", unix.RT_TABLE_LOCAL}, {"main", unix.RT_TABLE_MAIN}, {"default", unix.RT_TABLE_DEFAULT}}

// scopes are iproute2's etc/iproute2/rt_scopes.
var scopes = naming{
	{"global", unix.RT_SCOPE_UNIVERSE}, {"universe", unix.RT_SCOPE_UNIVERSE}, {"site", unix.RT_SCOPE_SITE},
	{"link", unix.RT_SCOPE_LINK}, {"host", unix.RT_SCOPE_HOST}, {"nowhere", unix.RT_SCOPE_NOWHERE},
}

// protocols are iproute2's etc/iproute2/rt_protos: who made a route or rule.
var protocols = naming{
	{"unspec", 0}, {"redirect", 1}, {"kernel", 2}, {"boot", 3}, {"static", 4}, {"gated", 8}, {"ra", 9}, {"mrt", 10},
	{"zebra", 11}, {"bird", 12}, {"dnrouted", 13}, {"xorp", 14}, {"ntk", 15}, {"dhcp", 16}, {"keepalived", 18},
	{"babel", 42}, {"openr", 99}, {"bgp", 186}, {"isis", 187}, {"ospf", 188}, {"rip", 189}, {"eigrp", 192},
}

// routeTypes are what a route, or a rule, does with a packet (RTN_*).
var routeTypes = naming{
	{"unicast", unix.RTN_UNICAST}, {"local", unix.RTN_LOCAL}, {"unreachable", unix.RTN_UNREACHABLE},
	{"blackhole", unix.RTN_BLACKHOLE}, {"prohibit", unix.RTN_PROHIBIT}, {"throw", unix.RTN_THROW},
	{"broadcast", unix.RTN_BROADCAST}, {"anycast", unix.RTN_ANYCAST}, {"multicast", unix.RTN_MULTICAST},
}

// ruleTypes are those of them that a rule can have in place of a table. Their
// numbers are the same as the actions' (FR_ACT_*, linux/fib_rules.h).
var ruleTypes = naming{
	{"unreachable", actUnreachable}, {"blackhole", actBlackhole}, {"prohibit", actProhibit},
}

// Actions of a rule (linux/fib_rules.h).
const (
	actNone        = 0 // of a rule to delete: any
	actTable       = 1
	actGoto        = 2
	actNop         = 3
	actBlackhole   = 6
	actUnreachable = 7
	actProhibit    = 8
)

// neighbourStates are ip-neighbour(8)'s; the kernel's are a bit each (NUD_*).
var neighbourStates = naming{
	{"permanent", unix.NUD_PERMANENT}, {"reachable", unix.NUD_REACHABLE}, {"noarp", unix.NUD_NOARP},
	{"none", unix.NUD_NONE}, {"stale", unix.NUD_STALE}, {"delay", unix.NUD_DELAY}, {"probe", unix.NUD_PROBE},
	{"failed", unix.NUD_FAILED}, {"incomplete", unix.NUD_INCOMPLETE},
}

// metricNames are the metrics of a route that are plain numbers (RTAX_*).
var metricNames = naming{
	{"mtu", unix.RTAX_MTU}, {"window", unix.RTAX_WINDOW}, {"ssthresh", unix.RTAX_SSTHRESH}, {"cwnd", unix.RTAX_CWND},
	{"advmss", unix.RTAX_ADVMSS}, {"reordering", unix.RTAX_REORDERING}, {"hoplimit", unix.RTAX_HOPLIMIT},
	{"initcwnd", unix.RTAX_INITCWND}, {"initrwnd", unix.RTAX_INITRWND}, {"quickack", unix.RTAX_QUICKACK},
}

// ipProtocols are those of /etc/protocols that rules are made for.
var ipProtocols = naming{{"icmp", unix.IPPROTO_ICMP}, {"tcp", unix.IPPROTO_TCP}, {"udp", unix.IPPROTO_UDP},
	{"ipv6-icmp", unix.IPPROTO_ICMPV6}, {"sctp", unix.IPPROTO_SCTP}}

// number reads decimal, 0x and octal numbers, as ip does.
func number(word string, bits int) (uint32, error) {
	n, err := strconv.ParseUint(word, 0, bits)
	if err != nil || strings.Contains(word, "_") {
		return 0, fmt.Errorf("%q: want a number from 0 to %d", word, uint64(1)<<bits-1)
	}
	return uint32(n), nil
}

// named reads a name of the list, or a number.
func named(n naming, word string, bits int) (uint32, error) {
	if v, ok := n.number(word); ok {
		return v, nil
	}
	v, err := number(word, bits)
	if err != nil {
		return 0, fmt.Errorf("%q: want %s, or a number from 0 to %d", word, n.names(), uint64(1)<<bits-1)
	}
	return v, nil
}
