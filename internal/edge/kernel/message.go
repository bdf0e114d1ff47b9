package kernel

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// Numbers of the kernel's interface that x/sys does not name.
const (
	addrGenModeNone    = 1 // IN6_ADDR_GEN_MODE_NONE, include/uapi/linux/if_link.h
	vethInfoPeer       = 1 // VETH_INFO_PEER, include/uapi/linux/veth.h
	devconfRPFilter    = 8 // IPV4_DEVCONF_RP_FILTER, include/uapi/linux/ip.h
	devconfAcceptLocal = 23
	sizeofRuleHdr      = 12 // struct fib_rule_hdr, include/uapi/linux/fib_rules.h
	ruleInvert         = 2  // FIB_RULE_INVERT
	sizeofNfgenmsg     = 4  // struct nfgenmsg, include/uapi/linux/netfilter/nfnetlink.h
)

func hw(m node.MACString) []byte {
	b, err := net.ParseMAC(string(m))
	if err != nil {
		panic(fmt.Sprintf("mac %q is not one of ours: %v", m, err)) // only [node.GatewayMAC] and [node.PodMAC] come here
	}
	return b
}

// linkMessage is struct ifinfomsg.
func linkMessage(kind, flags int, index int32) *message {
	m := newMessage(kind, flags, unix.SizeofIfInfomsg)
	putIndex(m.fixed()[4:], index)
	return m
}

func putIndex(b []byte, index int32) { binary.NativeEndian.PutUint32(b, uint32(index)) }

// setFlags has the kernel set the device flags that mask names.
func setFlags(m *message, flags, mask uint32) {
	binary.NativeEndian.PutUint32(m.fixed()[8:], flags)
	binary.NativeEndian.PutUint32(m.fixed()[12:], mask)
}

// newVeth creates both ends at once, each where it belongs. Creating the pair
// here and moving one end would hold the kernel's RTNL lock for an RCU grace
// period, about 15 ms.
func newVeth(w Wiring, index int32) request {
	m := linkMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index)
	m.text(unix.IFLA_IFNAME, w.Veth)
	m.attr(unix.IFLA_ADDRESS, hw(node.GatewayMAC))
	m.u32(unix.IFLA_MTU, uint32(w.MTU))
	m.u32(unix.IFLA_GROUP, node.LinkGroup)
	m.nest(unix.IFLA_LINKINFO, func() {
		m.attr(unix.IFLA_INFO_KIND, []byte("veth"))
		m.nest(unix.IFLA_INFO_DATA, func() {
			m.nest(vethInfoPeer, func() {
				peer := make([]byte, unix.SizeofIfInfomsg)
				putIndex(peer[4:], index)
				m.b = append(m.b, peer...)
				m.text(unix.IFLA_IFNAME, w.IfName)
				m.attr(unix.IFLA_ADDRESS, hw(node.PodMAC(w.Addr)))
				m.u32(unix.IFLA_MTU, uint32(w.MTU))
				m.u32(unix.IFLA_NET_NS_FD, uint32(w.NetNS.Fd()))
			})
		})
	})
	return request{message: m, what: "create veth " + w.Veth}
}

// linkUp sets the administrative state. It is a message of its own, after the
// device's settings: the kernel acts on flags before it acts on settings, and
// IPv6 would start its duplicate address detection in between.
func linkUp(index int32, what string) request {
	m := linkMessage(unix.RTM_SETLINK, 0, index)
	setFlags(m, unix.IFF_UP, unix.IFF_UP)
	return request{message: m, what: what}
}

// hostSettings opens the reverse path filter of one host-side device (the
// admission by interface and source is stricter), spares its source validation
// lookup, and keeps IPv6 from giving it an address.
func hostSettings(index int32, ipv6 bool) request {
	m := linkMessage(unix.RTM_SETLINK, 0, index)
	m.nest(unix.IFLA_AF_SPEC, func() {
		m.nest(unix.AF_INET, func() {
			m.nest(unix.IFLA_INET_CONF, func() {
				m.u32(devconfRPFilter, 0)
				m.u32(devconfAcceptLocal, 1)
			})
		})
		if ipv6 {
			m.nest(unix.AF_INET6, func() { m.u8(unix.IFLA_INET6_ADDR_GEN_MODE, addrGenModeNone) })
		}
	})
	return request{message: m, what: "set up host side"}
}

func noIPv6Address(index int32) request {
	m := linkMessage(unix.RTM_SETLINK, 0, index)
	m.nest(unix.IFLA_AF_SPEC, func() {
		m.nest(unix.AF_INET6, func() { m.u8(unix.IFLA_INET6_ADDR_GEN_MODE, addrGenModeNone) })
	})
	return request{message: m, what: "set up pod side"}
}

// newAddress adds an address; flags are IFA_F_*.
func newAddress(index int32, p netip.Prefix, flags uint32) *message {
	m := newMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.SizeofIfAddrmsg)
	m.fixed()[0], m.fixed()[1] = unix.AF_INET, uint8(p.Bits())
	putIndex(m.fixed()[4:], index)
	m.attr(unix.IFA_LOCAL, p.Addr().AsSlice())
	m.attr(unix.IFA_ADDRESS, p.Addr().AsSlice())
	if flags != 0 {
		m.u32(unix.IFA_FLAGS, flags)
	}
	return m
}

// oldAddress removes an address.
func oldAddress(index int32, p netip.Prefix) *message {
	m := newMessage(unix.RTM_DELADDR, 0, unix.SizeofIfAddrmsg)
	m.fixed()[0], m.fixed()[1] = unix.AF_INET, uint8(p.Bits())
	putIndex(m.fixed()[4:], index)
	m.attr(unix.IFA_LOCAL, p.Addr().AsSlice())
	return m
}

// routeMessage writes or removes one of our routes. index is 0 where the route
// names no device.
func routeMessage(kind, flags int, rt node.Route, index int32) *message {
	m := newMessage(kind, flags, unix.SizeofRtMsg)
	// struct rtmsg; its table is RT_TABLE_UNSPEC, since those above 255 do not
	// fit and the attribute counts.
	b := m.fixed()
	b[0], b[1], b[5] = unix.AF_INET, uint8(rt.Dst.Bits()), node.Protocol
	b[6], b[7] = unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	switch {
	case kind == unix.RTM_DELROUTE:
		b[6] = unix.RT_SCOPE_NOWHERE // any: the key says which route
	case rt.Kind == node.Unicast && !rt.Gateway.IsValid():
		b[6] = unix.RT_SCOPE_LINK
	}
	switch rt.Kind {
	case node.Unreachable:
		b[7] = unix.RTN_UNREACHABLE
	case node.Throw:
		b[7] = unix.RTN_THROW
	}
	if rt.OnLink {
		binary.NativeEndian.PutUint32(b[8:], unix.RTNH_F_ONLINK)
	}
	m.u32(unix.RTA_TABLE, uint32(rt.Table))
	if rt.Dst.Bits() > 0 {
		m.attr(unix.RTA_DST, rt.Dst.Addr().AsSlice())
	}
	if rt.Metric != 0 {
		m.u32(unix.RTA_PRIORITY, uint32(rt.Metric))
	}
	if rt.Gateway.IsValid() {
		m.attr(unix.RTA_GATEWAY, rt.Gateway.AsSlice())
	}
	if rt.PrefSrc.IsValid() {
		m.attr(unix.RTA_PREFSRC, rt.PrefSrc.AsSlice())
	}
	if index != 0 {
		m.u32(unix.RTA_OIF, uint32(index))
	}
	return m
}

// ruleMessage writes or removes one of our rules.
func ruleMessage(kind, flags int, o node.Rule) *message {
	m := newMessage(kind, flags, sizeofRuleHdr)
	b := m.fixed()
	b[0], b[7] = unix.AF_INET, unix.FR_ACT_TO_TBL
	if o.From.IsValid() {
		b[2] = uint8(o.From.Bits())
		m.attr(unix.FRA_SRC, o.From.Addr().AsSlice())
	}
	m.u32(unix.FRA_PRIORITY, uint32(o.Priority))
	m.u32(unix.FRA_TABLE, uint32(o.Table))
	m.u8(unix.FRA_PROTOCOL, node.Protocol)
	if o.Mask != 0 {
		m.u32(unix.FRA_FWMARK, o.Mark)
		m.u32(unix.FRA_FWMASK, o.Mask)
	}
	return m
}

// permanentNeighbor tells the kernel a hardware address that it need never ask
// for, nor believe anyone else about.
func permanentNeighbor(index int32, addr netip.Addr, mac node.MACString) *message {
	m := newMessage(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, unix.SizeofNdMsg)
	m.fixed()[0] = unix.AF_INET
	putIndex(m.fixed()[4:], index)
	binary.NativeEndian.PutUint16(m.fixed()[8:], unix.NUD_PERMANENT)
	m.attr(unix.NDA_DST, addr.AsSlice())
	m.attr(unix.NDA_LLADDR, hw(mac))
	return m
}
