package kernel

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// Numbers of the kernel's interface that x/sys does not name.
const (
	addrGenModeNone    = 1 // IN6_ADDR_GEN_MODE_NONE, include/uapi/linux/if_link.h
	devconfRPFilter    = 8 // IPV4_DEVCONF_RP_FILTER, include/uapi/linux/ip.h
	devconfAcceptLocal = 23
)

func u8(v uint8) []byte   { return []byte{v} }
func u32(v uint32) []byte { return nl.Uint32Attr(v) }
func str(s string) []byte { return nl.ZeroTerminated(s) }
func hw(m node.MACString) []byte {
	b, err := net.ParseMAC(string(m))
	if err != nil {
		panic(fmt.Sprintf("mac %q is not one of ours: %v", m, err)) // only [node.GatewayMAC] and [node.PodMAC] come here
	}
	return b
}

func linkRequest(kind, flags int, index int32, what string) (request, *nl.IfInfomsg) {
	r := request{NetlinkRequest: nl.NewNetlinkRequest(kind, flags), what: what}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = index
	r.AddData(msg)
	return r, msg
}

// newVeth creates both ends at once, each where it belongs. Creating the pair
// here and moving one end would hold the kernel's RTNL lock for an RCU grace
// period, about 15 ms.
func newVeth(w Wiring, index int32) request {
	r, _ := linkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, "create veth "+w.Veth)
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, str(w.Veth)))
	r.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, hw(node.GatewayMAC)))
	r.AddData(nl.NewRtAttr(unix.IFLA_MTU, u32(uint32(w.MTU))))
	r.AddData(nl.NewRtAttr(unix.IFLA_GROUP, u32(node.LinkGroup)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, []byte("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = index
	peer.AddChild(msg)
	peer.AddRtAttr(unix.IFLA_IFNAME, str(w.IfName))
	peer.AddRtAttr(unix.IFLA_ADDRESS, hw(node.PodMAC(w.Addr)))
	peer.AddRtAttr(unix.IFLA_MTU, u32(uint32(w.MTU)))
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, u32(uint32(w.NetNS.Fd())))
	r.AddData(info)
	return r
}

// linkUp sets the administrative state. It is a message of its own, after the
// device's settings: the kernel acts on flags before it acts on settings, and
// IPv6 would start its duplicate address detection in between.
func linkUp(index int32, what string) request {
	r, msg := linkRequest(unix.RTM_SETLINK, 0, index, what)
	msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	return r
}

// hostSettings opens the reverse path filter of one host-side device (the
// admission by interface and source is stricter), spares its source validation
// lookup, and keeps IPv6 from giving it an address.
func hostSettings(index int32, ipv6 bool) request {
	r, _ := linkRequest(unix.RTM_SETLINK, 0, index, "set up host side")
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	conf := spec.AddRtAttr(unix.AF_INET, nil).AddRtAttr(unix.IFLA_INET_CONF, nil)
	conf.AddRtAttr(devconfRPFilter, u32(0))
	conf.AddRtAttr(devconfAcceptLocal, u32(1))
	if ipv6 {
		spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, u8(addrGenModeNone))
	}
	r.AddData(spec)
	return r
}

func noIPv6Address(index int32) request {
	r, _ := linkRequest(unix.RTM_SETLINK, 0, index, "set up pod side")
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, u8(addrGenModeNone))
	r.AddData(spec)
	return r
}

func newAddress(index int32, addr netip.Addr) request {
	r := request{NetlinkRequest: nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL),
		what: "add address " + addr.String()}
	msg := nl.NewIfAddrmsg(unix.AF_INET)
	msg.Prefixlen = uint8(addr.BitLen())
	msg.Index = uint32(index)
	r.AddData(msg)
	r.AddData(nl.NewRtAttr(unix.IFA_LOCAL, addr.AsSlice()))
	r.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, addr.AsSlice()))
	return r
}

// routeRequest writes or removes one of our routes. index is 0 where the route
// names no device.
func routeRequest(kind, flags int, rt node.Route, index int32) request {
	r := request{NetlinkRequest: nl.NewNetlinkRequest(kind, flags), what: "write " + rt.String()}
	msg := nl.NewRtMsg()
	msg.Family = unix.AF_INET
	msg.Dst_len = uint8(rt.Dst.Bits())
	msg.Protocol = node.Protocol
	msg.Table = unix.RT_TABLE_UNSPEC // the attribute counts: tables above 255 do not fit here
	msg.Type = unix.RTN_UNICAST
	msg.Scope = unix.RT_SCOPE_UNIVERSE
	if kind == unix.RTM_DELROUTE {
		msg.Scope = unix.RT_SCOPE_NOWHERE // any: the key says which route
	}
	if rt.Kind == node.Unreachable {
		msg.Type = unix.RTN_UNREACHABLE
	} else if !rt.Gateway.IsValid() && kind == unix.RTM_NEWROUTE {
		msg.Scope = unix.RT_SCOPE_LINK
	}
	if rt.OnLink {
		msg.Flags |= unix.RTNH_F_ONLINK
	}
	r.AddData(msg)
	r.AddData(nl.NewRtAttr(unix.RTA_TABLE, u32(uint32(rt.Table))))
	if rt.Dst.Bits() > 0 {
		r.AddData(nl.NewRtAttr(unix.RTA_DST, rt.Dst.Addr().AsSlice()))
	}
	if rt.Metric != 0 {
		r.AddData(nl.NewRtAttr(unix.RTA_PRIORITY, u32(uint32(rt.Metric))))
	}
	if rt.Gateway.IsValid() {
		r.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, rt.Gateway.AsSlice()))
	}
	if rt.PrefSrc.IsValid() {
		r.AddData(nl.NewRtAttr(unix.RTA_PREFSRC, rt.PrefSrc.AsSlice()))
	}
	if index != 0 {
		r.AddData(nl.NewRtAttr(unix.RTA_OIF, u32(uint32(index))))
	}
	return r
}

// permanentNeighbor tells the kernel a hardware address that it need never ask
// for, nor believe anyone else about.
func permanentNeighbor(index int32, addr netip.Addr, mac node.MACString) request {
	r := request{NetlinkRequest: nl.NewNetlinkRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE),
		what: "add neighbor " + addr.String()}
	r.AddData(&neighborMsg{family: unix.AF_INET, index: index, state: unix.NUD_PERMANENT})
	r.AddData(nl.NewRtAttr(unix.NDA_DST, addr.AsSlice()))
	r.AddData(nl.NewRtAttr(unix.NDA_LLADDR, hw(mac)))
	return r
}

// neighborMsg is struct ndmsg, include/uapi/linux/neighbour.h.
type neighborMsg struct {
	family uint8
	index  int32
	state  uint16
}

func (m *neighborMsg) Len() int { return 12 }
func (m *neighborMsg) Serialize() []byte {
	b := make([]byte, 12)
	b[0] = m.family
	nl.NativeEndian().PutUint32(b[4:], uint32(m.index))
	nl.NativeEndian().PutUint16(b[8:], m.state)
	return b
}

func groupAttr(group uint32) *nl.RtAttr { return nl.NewRtAttr(unix.IFLA_GROUP, u32(group)) }
