package iproute

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// errShort says that a message of the kernel ends before its fixed part does.
var errShort = errors.New("message of the kernel is cut short")

// attributes calls f with each attribute behind a message's fixed part. What
// does not fit ends the walk.
func attributes(b []byte, f func(kind uint16, value value)) {
	for len(b) >= 4 {
		size := int(binary.NativeEndian.Uint16(b))
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if size < 4 || size > len(b) {
			return
		}
		f(kind, b[4:size])
		b = b[min((size+3)&^3, len(b)):]
	}
}

// value is what an attribute carries. One that is too short reads as zero.
type value []byte

func (v value) u8() uint8 {
	if len(v) < 1 {
		return 0
	}
	return v[0]
}

func (v value) u16() uint16 {
	if len(v) < 2 {
		return 0
	}
	return binary.NativeEndian.Uint16(v)
}

func (v value) u32() uint32 {
	if len(v) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(v)
}

func (v value) text() string {
	s, _, _ := strings.Cut(string(v), "\x00")
	return s
}

func (v value) addr() netip.Addr {
	a, _ := netip.AddrFromSlice(v)
	return a
}

func (v value) mac() net.HardwareAddr { return append(net.HardwareAddr(nil), v...) }

func (v value) prefix(bits uint8) netip.Prefix { return netip.PrefixFrom(v.addr(), int(bits)) }

// ports and users are ranges of two numbers.
func (v value) ports() *Range {
	if len(v) < 4 {
		return nil
	}
	return &Range{uint32(v.u16()), uint32(v[2:].u16())}
}

func (v value) users() *Range {
	if len(v) < 8 {
		return nil
	}
	return &Range{v.u32(), v[4:].u32()}
}

// zeroPrefix is a prefix that the kernel gives by its length only: 0.0.0.0/1.
func zeroPrefix(family, bits uint8) netip.Prefix {
	if bits == 0 {
		return netip.Prefix{}
	}
	a := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		a = netip.IPv6Unspecified()
	}
	return netip.PrefixFrom(a, int(bits))
}

func decodeRule(b []byte) (Rule, error) {
	if len(b) < 12 {
		return Rule{}, fmt.Errorf("rule: %w", errShort)
	}
	flags := value(b[8:]).u32()
	u := Rule{
		Family: b[0], TOS: b[3], Table: uint32(b[4]), Action: b[7], Priority: new(uint32(0)),
		To: zeroPrefix(b[0], b[1]), From: zeroPrefix(b[0], b[2]),
		Not: flags&ruleInvert != 0, Unresolved: flags&ruleUnresolved != 0,
		InGone: flags&ruleInGone != 0, OutGone: flags&ruleOutGone != 0,
	}
	mark := Mark{Mask: ^uint32(0)}
	attributes(b[12:], func(kind uint16, v value) {
		switch kind {
		case unix.FRA_DST:
			u.To = v.prefix(b[1])
		case unix.FRA_SRC:
			u.From = v.prefix(b[2])
		case unix.FRA_IIFNAME:
			u.In = v.text()
		case unix.FRA_OIFNAME:
			u.Out = v.text()
		case unix.FRA_PRIORITY:
			u.Priority = new(v.u32())
		case unix.FRA_FWMARK:
			mark.Value = v.u32()
			u.Mark = &mark
		case unix.FRA_FWMASK:
			mark.Mask = v.u32()
			u.Mark = &mark
		case unix.FRA_TABLE:
			u.Table = v.u32()
		case unix.FRA_GOTO:
			u.Goto = v.u32()
		case unix.FRA_SUPPRESS_PREFIXLEN:
			if n := v.u32(); n != ^uint32(0) {
				u.SuppressPrefix = &n
			}
		case unix.FRA_L3MDEV:
			u.L3MDev = v.u8() != 0
		case unix.FRA_UID_RANGE:
			u.UIDs = v.users()
		case unix.FRA_PROTOCOL:
			u.Protocol = v.u8()
		case unix.FRA_IP_PROTO:
			u.IPProtocol = v.u8()
		case unix.FRA_SPORT_RANGE:
			u.Sports = v.ports()
		case unix.FRA_DPORT_RANGE:
			u.Dports = v.ports()
		}
	})
	if u.Mark != nil && *u.Mark == (Mark{}) {
		u.Mark = nil
	}
	return u, nil
}

// Attributes that package unix does not have: RTA_NH_ID (linux/rtnetlink.h) and
// NDA_PROTOCOL (linux/neighbour.h).
const (
	attrNextHop           = 30
	attrNeighbourProtocol = 12
)

func decodeRoute(b []byte, n names) (Route, error) {
	if len(b) < 12 {
		return Route{}, fmt.Errorf("route: %w", errShort)
	}
	t := Route{
		Family: b[0], Table: uint32(b[4]), Protocol: b[5], Scope: b[6], Type: b[7], Flags: value(b[8:]).u32(),
		Dst: zeroPrefix(b[0], b[1]), From: zeroPrefix(b[0], b[2]),
	}
	hop, hops := Hop{}, []Hop(nil)
	attributes(b[12:], func(kind uint16, v value) {
		switch kind {
		case unix.RTA_DST:
			t.Dst = v.prefix(b[1])
		case unix.RTA_SRC:
			t.From = v.prefix(b[2])
		case unix.RTA_TABLE:
			t.Table = v.u32()
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			hop.Via = gateway(kind, v)
		case unix.RTA_OIF:
			hop.Device = n.name(v.u32())
		case unix.RTA_IIF:
			t.In = n.name(v.u32())
		case unix.RTA_PREFSRC:
			t.Source = v.addr()
		case unix.RTA_PRIORITY:
			t.Metric = new(v.u32())
		case unix.RTA_METRICS:
			t.Metrics = decodeMetrics(v)
		case unix.RTA_MULTIPATH:
			hops = decodeHops(v, n)
		case unix.RTA_MARK:
			t.Mark = v.u32()
		case unix.RTA_UID:
			t.UID = new(v.u32())
		case unix.RTA_PREF:
			t.Pref = new(v.u8())
		case attrNextHop:
			t.NextHop = v.u32()
		}
	})
	if len(hops) > 0 {
		t.Hops = hops
	} else if hop != (Hop{}) {
		t.Hops = []Hop{hop}
	}
	return t, nil
}

// gateway is an address, or one with its family in front, as for an IPv4 route
// by way of an IPv6 neighbour.
func gateway(kind uint16, v value) netip.Addr {
	if kind == unix.RTA_VIA && len(v) > 2 {
		return v[2:].addr()
	}
	return v.addr()
}

func decodeMetrics(v value) []Metric {
	var out []Metric
	var locks uint32
	attributes(v, func(kind uint16, v value) {
		if kind == unix.RTAX_LOCK {
			locks = v.u32()
		} else {
			out = append(out, Metric{Kind: kind, Value: v.u32()})
		}
	})
	for i := range out {
		out[i].Locked = out[i].Kind < 32 && locks&(1<<out[i].Kind) != 0
	}
	return out
}

// decodeHops reads a list of struct rtnexthop, each with attributes behind it.
func decodeHops(v value, n names) []Hop {
	var out []Hop
	for len(v) >= 8 {
		size := int(v.u16())
		if size < 8 || size > len(v) {
			break
		}
		h := Hop{Flags: uint32(v[2]), Weight: int(v[3]) + 1, Device: n.name(v[4:].u32())}
		attributes(v[8:size], func(kind uint16, v value) {
			if kind == unix.RTA_GATEWAY || kind == unix.RTA_VIA {
				h.Via = gateway(kind, v)
			}
		})
		out = append(out, h)
		v = v[min((size+3)&^3, len(v)):]
	}
	return out
}

func decodeAddress(b []byte, n names) (Address, error) {
	if len(b) < 8 {
		return Address{}, fmt.Errorf("address: %w", errShort)
	}
	a := Address{Family: b[0], Bits: int(b[1]), Flags: uint32(b[2]), Scope: b[3], Device: n.name(value(b[4:]).u32()), Valid: ^uint32(0), Preferred: ^uint32(0)}
	var local, address netip.Addr
	attributes(b[8:], func(kind uint16, v value) {
		switch kind {
		case unix.IFA_LOCAL:
			local = v.addr()
		case unix.IFA_ADDRESS:
			address = v.addr()
		case unix.IFA_BROADCAST:
			a.Broadcast = v.addr()
		case unix.IFA_LABEL:
			a.Label = v.text()
		case unix.IFA_FLAGS:
			a.Flags = v.u32()
		case unix.IFA_CACHEINFO:
			if len(v) >= 8 {
				a.Preferred, a.Valid = v.u32(), v[4:].u32()
			}
		}
	})
	a.Local = local
	if !local.IsValid() {
		a.Local = address
	}
	if address != a.Local {
		a.Peer = address
	}
	return a, nil
}

func decodeLink(b []byte) (Link, error) {
	if len(b) < 16 {
		return Link{}, fmt.Errorf("link: %w", errShort)
	}
	l := Link{Type: value(b[2:]).u16(), Index: int(value(b[4:]).u32()), Flags: value(b[8:]).u32()}
	attributes(b[16:], func(kind uint16, v value) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = v.text()
		case unix.IFLA_PROP_LIST:
			attributes(v, func(kind uint16, v value) {
				if kind == unix.IFLA_ALT_IFNAME {
					l.AltNames = append(l.AltNames, v.text())
				}
			})
		case unix.IFLA_IFALIAS:
			l.Alias = v.text()
		case unix.IFLA_MTU:
			l.MTU = v.u32()
		case unix.IFLA_QDISC:
			l.Qdisc = v.text()
		case unix.IFLA_MASTER:
			l.Master = int(v.u32())
		case unix.IFLA_OPERSTATE:
			l.State = v.u8()
		case unix.IFLA_LINKMODE:
			l.Mode = v.u8()
		case unix.IFLA_GROUP:
			l.Group = v.u32()
		case unix.IFLA_TXQLEN:
			l.QueueLen = v.u32()
		case unix.IFLA_ADDRESS:
			l.Address = v.mac()
		case unix.IFLA_BROADCAST:
			l.Broadcast = v.mac()
		case unix.IFLA_LINK:
			l.Lower = new(int(v.u32()))
		case unix.IFLA_LINK_NETNSID:
			l.Away = new(int32(v.u32()))
		}
	})
	return l, nil
}

func decodeNeighbour(b []byte, n names) (Neighbour, error) {
	if len(b) < 12 {
		return Neighbour{}, fmt.Errorf("neighbour: %w", errShort)
	}
	e := Neighbour{Family: b[0], Device: n.name(value(b[4:]).u32()), State: value(b[8:]).u16(), Flags: b[10]}
	attributes(b[12:], func(kind uint16, v value) {
		switch kind {
		case unix.NDA_DST:
			e.Addr = v.addr()
		case unix.NDA_LLADDR:
			e.MAC = v.mac()
		case attrNeighbourProtocol:
			e.Protocol = v.u8()
		}
	})
	return e, nil
}
