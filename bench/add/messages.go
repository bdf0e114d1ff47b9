package add

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// What a floor pod is told from the agent's by. The agent numbers its devices
// from 1<<20 and takes addresses from the VPC's range only.
const (
	floorPrefix     = "flr"
	floorFirstIndex = 1 << 21
	floorNetNSFD    = 60 // NetNSFD of program floor
)

// floorFirst is the address of the first floor pod: of the range for benchmarks
// (RFC 2544), which no VPC of this lab has.
var floorFirst = netip.MustParseAddr("198.18.0.1")

// Numbers of the kernel's interface that x/sys does not name.
const (
	addrGenModeNone    = 1  // IN6_ADDR_GEN_MODE_NONE, include/uapi/linux/if_link.h
	devconfRPFilter    = 8  // IPV4_DEVCONF_RP_FILTER, include/uapi/linux/ip.h
	devconfAcceptLocal = 23 // IPV4_DEVCONF_ACCEPT_LOCAL
)

// floorPod is one pod that the floor makes.
type floorPod struct {
	model
	index int32
	veth  string
	addr  netip.Addr
}

// model is what floor pods take over from a pod that our own ADD has made.
type model struct {
	mtu     int        // bytes
	prefSrc netip.Addr // of the node's route to the pod
	chain   string     // that the pod's packets go to
	ipv6    bool       // the kernel has IPv6 at all
}

// frame is the input of program floor: what the agent writes for a pod, batch by
// batch and message by message (package kernel has the reasons). That it comes
// to the same is not believed but compared, see compare.go.
func (p floorPod) frame() []byte {
	var b []byte
	for _, batch := range [][]byte{p.nodeSide(), p.podSide(), p.nodeRoute(), p.admission()} {
		b = binary.NativeEndian.AppendUint32(b, uint32(len(batch)))
		b = append(b, batch...)
	}
	return b
}

func (p floorPod) nodeSide() []byte {
	veth, _ := link(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, p.index)
	veth.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(p.veth)))
	veth.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, hw(node.GatewayMAC)))
	veth.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(p.mtu))))
	veth.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(node.LinkGroup)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, []byte("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = p.index
	peer.AddChild(msg)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(ifName))
	peer.AddRtAttr(unix.IFLA_ADDRESS, hw(node.PodMAC(p.addr)))
	peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(p.mtu)))
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(floorNetNSFD))
	veth.AddData(info)

	settings, _ := link(unix.RTM_SETLINK, 0, p.index)
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	conf := spec.AddRtAttr(unix.AF_INET, nil).AddRtAttr(unix.IFLA_INET_CONF, nil)
	conf.AddRtAttr(devconfRPFilter, nl.Uint32Attr(0))
	conf.AddRtAttr(devconfAcceptLocal, nl.Uint32Attr(1))
	if p.ipv6 {
		noAddress(spec)
	}
	settings.AddData(spec)
	return serialize(veth, settings, up(p.index))
}

func (p floorPod) podSide() []byte {
	var batch []*nl.NetlinkRequest
	if p.ipv6 {
		settings, _ := link(unix.RTM_SETLINK, 0, p.index)
		spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
		noAddress(spec)
		settings.AddData(spec)
		batch = append(batch, settings)
	}
	address := nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	msg := nl.NewIfAddrmsg(unix.AF_INET)
	msg.Prefixlen, msg.Index = 32, uint32(p.index)
	address.AddData(msg)
	address.AddData(nl.NewRtAttr(unix.IFA_LOCAL, p.addr.AsSlice()))
	address.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, p.addr.AsSlice()))

	const flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	gateway := route(flags, node.Route{Table: unix.RT_TABLE_MAIN, Dst: netip.PrefixFrom(node.GatewayAddr, 32)}, p.index)
	standard := route(flags, node.Route{Table: unix.RT_TABLE_MAIN, Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Gateway: node.GatewayAddr}, p.index)
	return serialize(append(batch, up(p.index), address, gateway, standard, neighbor(p.index, node.GatewayAddr, node.GatewayMAC))...)
}

func (p floorPod) nodeRoute() []byte {
	const flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	to := node.Route{Table: node.PodTable, Dst: netip.PrefixFrom(p.addr, 32), PrefSrc: p.prefSrc}
	return serialize(route(flags, to, p.index), neighbor(p.index, p.addr, node.PodMAC(p.addr)))
}

// admission is the transaction that puts the pod into the map of those that may
// send: begin, one element, end. Only the element is acknowledged, as a
// transaction that fails answers by it.
func (p floorPod) admission() []byte {
	begin := nl.NewNetlinkRequest(unix.NFNL_MSG_BATCH_BEGIN, 0)
	begin.AddRawData(nfgenmsg(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES))
	end := nl.NewNetlinkRequest(unix.NFNL_MSG_BATCH_END, 0)
	end.AddRawData(nfgenmsg(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES))

	add := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_ACK)
	add.AddRawData(nfgenmsg(unix.NFPROTO_INET, 0))
	key := slices.Concat([]byte(p.veth), make([]byte, unix.IFNAMSIZ-len(p.veth)), p.addr.AsSlice())
	goTo := int32(unix.NFT_GOTO)
	element := nested(1, // the first of the list
		nested(unix.NFTA_SET_ELEM_KEY, attr(unix.NFTA_DATA_VALUE, key)),
		nested(unix.NFTA_SET_ELEM_DATA, nested(unix.NFTA_DATA_VERDICT,
			attr(unix.NFTA_VERDICT_CODE, binary.BigEndian.AppendUint32(nil, uint32(goTo))),
			attr(unix.NFTA_VERDICT_CHAIN, nl.ZeroTerminated(p.chain)))))
	for _, a := range [][]byte{
		attr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(podMap)),
		attr(unix.NFTA_SET_ELEM_LIST_SET_ID, make([]byte, 4)),
		attr(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated(node.TableName)),
		nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, element),
	} {
		add.AddRawData(a)
	}
	return serialize(begin, add, end)
}

func link(kind, flags int, index int32) (*nl.NetlinkRequest, *nl.IfInfomsg) {
	r := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = index
	r.AddData(msg)
	return r, msg
}

func up(index int32) *nl.NetlinkRequest {
	r, msg := link(unix.RTM_SETLINK, 0, index)
	msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	return r
}

func noAddress(spec *nl.RtAttr) {
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{addrGenModeNone})
}

func route(flags int, rt node.Route, index int32) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_NEWROUTE, flags|unix.NLM_F_ACK)
	msg := nl.NewRtMsg()
	msg.Family, msg.Dst_len = unix.AF_INET, uint8(rt.Dst.Bits())
	msg.Protocol, msg.Table, msg.Type = node.Protocol, unix.RT_TABLE_UNSPEC, unix.RTN_UNICAST
	msg.Scope = unix.RT_SCOPE_UNIVERSE
	if !rt.Gateway.IsValid() {
		msg.Scope = unix.RT_SCOPE_LINK
	}
	r.AddData(msg)
	r.AddData(nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(uint32(rt.Table))))
	if rt.Dst.Bits() > 0 {
		r.AddData(nl.NewRtAttr(unix.RTA_DST, rt.Dst.Addr().AsSlice()))
	}
	if rt.Gateway.IsValid() {
		r.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, rt.Gateway.AsSlice()))
	}
	if rt.PrefSrc.IsValid() {
		r.AddData(nl.NewRtAttr(unix.RTA_PREFSRC, rt.PrefSrc.AsSlice()))
	}
	r.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	return r
}

func neighbor(index int32, addr netip.Addr, mac node.MACString) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	msg := make([]byte, 12) // struct ndmsg, include/uapi/linux/neighbour.h
	msg[0] = unix.AF_INET
	binary.NativeEndian.PutUint32(msg[4:], uint32(index))
	binary.NativeEndian.PutUint16(msg[8:], unix.NUD_PERMANENT)
	r.AddRawData(slices.Concat(msg, attr(unix.NDA_DST, addr.AsSlice()), attr(unix.NDA_LLADDR, hw(mac))))
	return r
}

func hw(m node.MACString) []byte {
	b, err := net.ParseMAC(string(m))
	if err != nil {
		panic(err) // of package node's own making
	}
	return b
}

// nfgenmsg is struct nfgenmsg, include/uapi/linux/netfilter/nfnetlink.h.
func nfgenmsg(family uint8, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

func attr(kind int, value []byte) []byte { return nl.NewRtAttr(kind, value).Serialize() }

func nested(kind int, children ...[]byte) []byte {
	return attr(kind|unix.NLA_F_NESTED, slices.Concat(children...))
}

func serialize(batch ...*nl.NetlinkRequest) []byte {
	var b []byte
	for _, r := range batch {
		b = append(b, r.Serialize()...)
	}
	return b
}
