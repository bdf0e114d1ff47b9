package kernel

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// odd is a thing of ours that [node.Object] has no words for: somebody else
// changed it, or an agent of another version wrote it. It differs from all that
// can be wanted, so it is removed. Routes and rules are removed by the kernel's
// own description of them.
type odd struct {
	rank node.Rank
	what string
	raw  string // the body of the message that described it; empty: of nftables
}

func (o odd) Key() string     { return "odd " + o.what + " " + o.raw }
func (o odd) String() string  { return o.what }
func (o odd) Rank() node.Rank { return o.rank }

// route is a route as it was read.
type route struct {
	node.Route
	index    int32
	protocol uint8
	odd      bool
	raw      string
}

// parseRoute reads the body of an RTM_NEWROUTE or RTM_DELROUTE. False: not IPv4.
func parseRoute(body []byte) (route, bool) {
	if len(body) < unix.SizeofRtMsg || body[0] != unix.AF_INET || body[1] > 32 {
		return route{}, false
	}
	r := route{protocol: body[5]}
	r.Table, r.OnLink = int(body[4]), u32(body[8:])&unix.RTNH_F_ONLINK != 0
	switch body[7] {
	case unix.RTN_UNICAST:
	case unix.RTN_UNREACHABLE:
		r.Kind = node.Unreachable
	case unix.RTN_THROW:
		r.Kind = node.Throw
	default:
		r.odd = true
	}
	r.odd = r.odd || body[3] != 0 // a type of service
	dst := netip.IPv4Unspecified()
	for kind, value := range behind(body, unix.SizeofRtMsg) {
		switch kind {
		case unix.RTA_TABLE:
			r.Table = int(u32(value))
		case unix.RTA_DST:
			dst = ipv4(value)
		case unix.RTA_PRIORITY:
			r.Metric = int(u32(value))
		case unix.RTA_GATEWAY:
			r.Gateway = ipv4(value)
		case unix.RTA_PREFSRC:
			r.PrefSrc = ipv4(value)
		case unix.RTA_OIF:
			r.index = int32(u32(value))
		default: // several next hops, metrics, a realm, an encapsulation
			r.odd = true
		}
	}
	r.Dst = netip.PrefixFrom(dst, int(body[1]))
	if r.odd {
		r.raw = string(body)
	}
	return r, dst.IsValid()
}

// readRoutes lists IPv4 routes of one protocol; of one device if index is not 0.
func readRoutes(c *conn, protocol uint8, index int32) ([]route, error) {
	routes, err := dump(c, func() *message {
		m := newMessage(unix.RTM_GETROUTE, unix.NLM_F_DUMP, unix.SizeofRtMsg)
		m.fixed()[0], m.fixed()[5] = unix.AF_INET, protocol
		if index != 0 {
			m.u32(unix.RTA_OIF, uint32(index))
		}
		return m
	}, func(body []byte) (route, bool) {
		r, ok := parseRoute(body)
		return r, ok && r.protocol == protocol
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return routes, nil
}

// rule is a rule as it was read.
type rule struct {
	node.Rule
	protocol uint8
	odd      bool
	raw      string
}

// parseRule reads the body of an RTM_NEWRULE or RTM_DELRULE. False: not IPv4.
func parseRule(body []byte) (rule, bool) {
	if len(body) < sizeofRuleHdr || body[0] != unix.AF_INET || body[2] > 32 {
		return rule{}, false
	}
	var r rule
	r.Table = int(body[4])
	r.odd = body[1] != 0 || body[3] != 0 || body[7] != unix.FR_ACT_TO_TBL || u32(body[8:])&ruleInvert != 0
	for kind, value := range behind(body, sizeofRuleHdr) {
		switch kind {
		case unix.FRA_PRIORITY:
			r.Priority = int(u32(value))
		case unix.FRA_SRC:
			r.From = netip.PrefixFrom(ipv4(value), int(body[2]))
		case unix.FRA_TABLE:
			r.Table = int(u32(value))
		case unix.FRA_FWMARK:
			r.Mark = u32(value)
		case unix.FRA_FWMASK:
			r.Mask = u32(value)
		case unix.FRA_PROTOCOL:
			if len(value) == 1 {
				r.protocol = value[0]
			}
		case unix.FRA_SUPPRESS_PREFIXLEN, unix.FRA_SUPPRESS_IFGROUP:
			r.odd = r.odd || u32(value) != 1<<32-1 // the kernel says -1 for no
		default: // interfaces, ports, users
			r.odd = true
		}
	}
	if r.odd {
		r.raw = string(body)
	}
	return r, true
}

// readRules lists the IPv4 rules of our protocol.
func readRules(c *conn) ([]rule, error) {
	rules, err := dump(c, func() *message {
		m := newMessage(unix.RTM_GETRULE, unix.NLM_F_DUMP, sizeofRuleHdr)
		m.fixed()[0] = unix.AF_INET
		return m
	}, func(body []byte) (rule, bool) {
		r, ok := parseRule(body)
		return r, ok && r.protocol == node.Protocol
	})
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	return rules, nil
}

// ifAddr is an IPv4 address of a device.
type ifAddr struct {
	index  int32
	prefix netip.Prefix // not masked
}

// parseAddress reads the body of an RTM_NEWADDR or RTM_DELADDR.
func parseAddress(body []byte) (ifAddr, bool) {
	if len(body) < unix.SizeofIfAddrmsg || body[0] != unix.AF_INET {
		return ifAddr{}, false
	}
	for kind, value := range behind(body, unix.SizeofIfAddrmsg) {
		if kind == unix.IFA_LOCAL {
			p := netip.PrefixFrom(ipv4(value), int(body[1]))
			return ifAddr{index: int32(u32(body[4:])), prefix: p}, p.IsValid()
		}
	}
	return ifAddr{}, false
}

// readAddresses lists IPv4 addresses of one device; of all with index 0.
func readAddresses(c *conn, index int32) ([]ifAddr, error) {
	addrs, err := dump(c, func() *message {
		m := newMessage(unix.RTM_GETADDR, unix.NLM_F_DUMP, unix.SizeofIfAddrmsg)
		m.fixed()[0] = unix.AF_INET
		putIndex(m.fixed()[4:], index)
		return m
	}, parseAddress)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return addrs, nil
}

// ipv4 is invalid for what is no IPv4 address.
func ipv4(b []byte) netip.Addr {
	if len(b) != 4 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(b))
}

// removal asks for the removal of an odd route or rule by its description.
func (o odd) removal() *message {
	kind := unix.RTM_DELRULE
	if o.rank == node.RankRoute {
		kind = unix.RTM_DELROUTE
	}
	m := newMessage(kind, 0, 0)
	m.b = append(m.b, o.raw...)
	return m
}

// macString is a hardware address in colon form.
func macString(b string) node.MACString { return node.MACString(net.HardwareAddr(b).String()) }
