package hostnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/path"
)

const (
	sizeofRuleHdr = 12 // struct fib_rule_hdr, include/uapi/linux/fib_rules.h
	rtaNHID       = 30 // RTA_NH_ID, include/uapi/linux/rtnetlink.h
)

// Names that iproute2 has for numbers (its files rt_protos and rt_scopes).
var (
	protoNames = map[uint8]string{1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra", 16: "dhcp", 42: "babel", 186: "bgp", 188: "ospf"}
	scopeNames = map[uint8]string{0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
	routeKinds = map[uint8]string{unix.RTN_UNICAST: "unicast", unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast",
		unix.RTN_ANYCAST: "anycast", unix.RTN_MULTICAST: "multicast", unix.RTN_BLACKHOLE: "blackhole",
		unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw"}
	ruleActions = map[uint8]string{unix.FR_ACT_TO_TBL: "lookup", unix.FR_ACT_BLACKHOLE: "blackhole",
		unix.FR_ACT_UNREACHABLE: "unreachable", unix.FR_ACT_PROHIBIT: "prohibit"}
)

func name(names map[uint8]string, n uint8) string {
	if s, ok := names[n]; ok {
		return s
	}
	return strconv.Itoa(int(n))
}

// rules lists the IPv4 rules, as the kernel asks them.
func (c *conn) rules() ([]path.IPRule, error) {
	answers, err := c.dump(unix.RTM_GETRULE, append([]byte{unix.AF_INET}, make([]byte, sizeofRuleHdr-1)...))
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	all := []path.IPRule{}
	for _, b := range answers {
		if r, ok := parseRule(b); ok {
			all = append(all, r)
		}
	}
	return all, nil
}

// parseRule reads the body of an RTM_NEWRULE. What it does not understand is
// said in Other.
func parseRule(b []byte) (path.IPRule, bool) {
	if len(b) < sizeofRuleHdr || b[0] != unix.AF_INET || b[1] > 32 || b[2] > 32 {
		return path.IPRule{}, false
	}
	const invert = 2 // FIB_RULE_INVERT
	r := path.IPRule{Suppress: -1, Table: int(b[4]), Action: ruleActions[b[7]], Not: u32(b[8:])&invert != 0}
	var other []string
	say := func(format string, args ...any) { other = append(other, fmt.Sprintf(format, args...)) }
	mask, masked := uint32(0), false
	if b[3] != 0 {
		say("tos %#x", b[3])
	}
	for kind, v := range behind(b, sizeofRuleHdr) {
		switch kind {
		case unix.FRA_PRIORITY:
			r.Priority = int(u32(v))
		case unix.FRA_SRC:
			r.From = netip.PrefixFrom(ipv4(v), int(b[2]))
		case unix.FRA_DST:
			r.To = netip.PrefixFrom(ipv4(v), int(b[1]))
		case unix.FRA_TABLE:
			r.Table = int(u32(v))
		case unix.FRA_FWMARK:
			r.Mark = u32(v)
		case unix.FRA_FWMASK:
			mask, masked = u32(v), true
		case unix.FRA_IIFNAME:
			r.IIF = text(v)
		case unix.FRA_OIFNAME:
			r.OIF = text(v)
		case unix.FRA_SUPPRESS_PREFIXLEN:
			r.Suppress = int(int32(u32(v)))
		case unix.FRA_SUPPRESS_IFGROUP:
			if u32(v) != 1<<32-1 { // the kernel says -1 for none
				say("suppress_ifgroup %d", u32(v))
			}
		case unix.FRA_PROTOCOL:
			if len(v) == 1 && v[0] != unix.RTPROT_UNSPEC && v[0] != unix.RTPROT_KERNEL {
				r.Proto = name(protoNames, v[0])
			}
		case unix.FRA_GOTO:
			say("goto %d", u32(v))
		case unix.FRA_IP_PROTO:
			say("ipproto %d", v)
		case unix.FRA_SPORT_RANGE:
			say("sport %s", portRange(v))
		case unix.FRA_DPORT_RANGE:
			say("dport %s", portRange(v))
		case unix.FRA_UID_RANGE:
			say("uidrange %d", u32(v))
		default:
			say("attribute %d", kind)
		}
	}
	if masked && (mask != 0 || r.Mark != 0) {
		r.Mask = mask
	}
	switch r.Action {
	case "lookup":
	case "":
		say("action %d", b[7])
		fallthrough
	default:
		r.Table = 0
	}
	r.Other = strings.Join(other, " ")
	return r, true
}

// portRange is struct fib_rule_port_range.
func portRange(b []byte) string {
	if len(b) < 4 {
		return "?"
	}
	return fmt.Sprintf("%d-%d", binary.NativeEndian.Uint16(b), binary.NativeEndian.Uint16(b[2:]))
}

// routes lists the IPv4 routes of all tables.
func (c *conn) routes(links []link) ([]path.IPRoute, error) {
	answers, err := c.dump(unix.RTM_GETROUTE, append([]byte{unix.AF_INET}, make([]byte, unix.SizeofRtMsg-1)...))
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	all := []path.IPRoute{}
	for _, b := range answers {
		if r, ok := parseRoute(b, links); ok {
			all = append(all, r)
		}
	}
	return all, nil
}

// parseRoute reads the body of an RTM_NEWROUTE; not one of the route cache's.
func parseRoute(b []byte, links []link) (path.IPRoute, bool) {
	if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET || b[1] > 32 {
		return path.IPRoute{}, false
	}
	flags := u32(b[8:])
	if flags&unix.RTM_F_CLONED != 0 {
		return path.IPRoute{}, false
	}
	r := path.IPRoute{Kind: name(routeKinds, b[7]), Table: int(b[4]), Scope: name(scopeNames, b[6]),
		OnLink: flags&unix.RTNH_F_ONLINK != 0, Dead: flags&unix.RTNH_F_DEAD != 0}
	if b[5] != unix.RTPROT_BOOT {
		r.Proto = name(protoNames, b[5])
	}
	var other []string
	say := func(format string, args ...any) { other = append(other, fmt.Sprintf(format, args...)) }
	if b[3] != 0 {
		say("tos %#x", b[3])
	}
	dst := netip.IPv4Unspecified()
	for kind, v := range behind(b, unix.SizeofRtMsg) {
		switch kind {
		case unix.RTA_TABLE:
			r.Table = int(u32(v))
		case unix.RTA_DST:
			dst = ipv4(v)
		case unix.RTA_PRIORITY:
			r.Metric = int(u32(v))
		case unix.RTA_GATEWAY:
			r.Via = ipv4(v)
		case unix.RTA_PREFSRC:
			r.Src = ipv4(v)
		case unix.RTA_OIF:
			r.Dev = deviceName(links, int32(u32(v)))
		case unix.RTA_METRICS:
			for k, m := range attributes(v) {
				if k == unix.RTAX_MTU {
					r.MTU = int(u32(m))
				}
			}
		case unix.RTA_MULTIPATH:
			say("%s", nexthops(v, links))
		case rtaNHID, unix.RTA_CACHEINFO, unix.RTA_PREF:
			// The next hop that the number names is said too.
		case unix.RTA_VIA:
			say("via-inet6")
		case unix.RTA_ENCAP, unix.RTA_ENCAP_TYPE:
			say("encap")
		case unix.RTA_FLOW:
			say("realm %d", u32(v))
		default:
			say("attribute %d", kind)
		}
	}
	r.Dst = netip.PrefixFrom(dst, int(b[1]))
	r.Other = strings.Join(other, " ")
	return r, dst.IsValid() && routeKinds[b[7]] != ""
}

// nexthops are those of a route with several, as `ip` writes them.
func nexthops(b []byte, links []link) string {
	var out []string
	for len(b) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		hop := "nexthop"
		for kind, v := range behind(b[:n], unix.SizeofRtNexthop) {
			if kind == unix.RTA_GATEWAY {
				hop += " via " + ipv4(v).String()
			}
		}
		out = append(out, fmt.Sprintf("%s dev %s weight %d", hop, deviceName(links, int32(u32(b[4:]))), int(b[3])+1))
		b = b[min(len(b), (n+3)&^3):]
	}
	return strings.Join(out, " ")
}

func deviceName(links []link, index int32) string {
	if i := slices.IndexFunc(links, func(l link) bool { return l.index == index }); i >= 0 {
		return links[i].Name
	}
	return fmt.Sprintf("if%d", index)
}

// neighbours lists the permanent IPv4 entries: others come and go, and the
// kernel asks for them again.
func (c *conn) neighbours(links []link) ([]path.Neighbour, error) {
	answers, err := c.dump(unix.RTM_GETNEIGH, append([]byte{unix.AF_INET}, make([]byte, unix.SizeofNdMsg-1)...))
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	all := []path.Neighbour{}
	for _, b := range answers {
		if len(b) < unix.SizeofNdMsg || b[0] != unix.AF_INET || binary.NativeEndian.Uint16(b[8:])&unix.NUD_PERMANENT == 0 {
			continue
		}
		for kind, v := range behind(b, unix.SizeofNdMsg) {
			if a := ipv4(v); kind == unix.NDA_DST && a.IsValid() {
				all = append(all, path.Neighbour{Addr: a, Device: deviceName(links, int32(u32(b[4:])))})
			}
		}
	}
	return all, nil
}
