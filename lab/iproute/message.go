package iproute

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoDevice says that the namespace has no device of the name that was said.
var ErrNoDevice = errors.New("no such device")

// message is one request to the kernel (rtnetlink(7)), without its header.
type message struct {
	kind  uint16 // RTM_*
	flags uint16 // NLM_F_*, beside NLM_F_REQUEST
	body  []byte
}

// body is what a message says: a fixed part, and attributes behind it. All
// numbers are in the machine's own order.
type body []byte

func (b *body) u8(v ...uint8) { *b = append(*b, v...) }

func (b *body) u16(v uint16) { *b = binary.NativeEndian.AppendUint16(*b, v) }

func (b *body) u32(v uint32) { *b = binary.NativeEndian.AppendUint32(*b, v) }

// attr is a struct rtattr: length with its own four bytes, type, value, and
// filling up to a multiple of four (linux/rtnetlink.h).
func (b *body) attr(kind uint16, value []byte) {
	b.u16(uint16(4 + len(value)))
	b.u16(kind)
	*b = append(*b, value...)
	for len(*b)%4 != 0 {
		*b = append(*b, 0)
	}
}

func (b *body) attr32(kind uint16, v uint32) {
	b.attr(kind, binary.NativeEndian.AppendUint32(nil, v))
}

// text is a name, with a zero at its end.
func (b *body) text(kind uint16, s string) { b.attr(kind, append([]byte(s), 0)) }

func (b *body) addr(kind uint16, a netip.Addr) {
	if a.IsValid() {
		b.attr(kind, a.AsSlice())
	}
}

// names are the devices of a namespace.
type names []Link

func (n names) index(name string) (uint32, error) {
	var there []string
	for _, l := range n {
		if l.Name == name || slices.Contains(l.AltNames, name) {
			return uint32(l.Index), nil
		}
		there = append(there, l.Name)
	}
	return 0, fmt.Errorf("%w %q; there are: %s", ErrNoDevice, name, strings.Join(there, ", "))
}

// name falls back to if7, as ip does.
func (n names) name(index uint32) string {
	for _, l := range n {
		if uint32(l.Index) == index {
			return l.Name
		}
	}
	return fmt.Sprintf("if%d", index)
}

// tableByte is the table where it fits the fixed part of a message; another one
// is in an attribute only.
func tableByte(t uint32) uint8 {
	if t < 256 {
		return uint8(t)
	}
	return unix.RT_TABLE_UNSPEC
}

// bitsOf is the length of a prefix, 0 for all addresses.
func bitsOf(p netip.Prefix) uint8 {
	if !p.IsValid() {
		return 0
	}
	return uint8(p.Bits())
}

// changeFlags are the header flags of a verb that changes something.
func changeFlags(v Verb) uint16 {
	switch v {
	case Add:
		return unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_EXCL
	case Replace:
		return unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	return unix.NLM_F_ACK
}

// encode makes the message of a request that changes something.
func encode(r Request, n names) (message, error) {
	var m message
	var err error
	var of, gone uint16 // types for making and for deleting
	switch r.Object {
	case Rules:
		of, gone = unix.RTM_NEWRULE, unix.RTM_DELRULE
		m.body = encodeRule(r.Rule)
	case Routes:
		of, gone = unix.RTM_NEWROUTE, unix.RTM_DELROUTE
		m.body, err = encodeRoute(r.Route, n)
	case Addresses:
		of, gone = unix.RTM_NEWADDR, unix.RTM_DELADDR
		m.body, err = encodeAddress(r.Address, n)
	case Links:
		of, gone = unix.RTM_NEWLINK, unix.RTM_DELLINK
		if r.Verb == Add {
			m.body, err = encodePair(r.Link)
		} else {
			m.body, err = encodeLink(r.Link, n)
		}
	case Neighbours:
		of, gone = unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH
		m.body, err = encodeNeighbour(r.Neighbour, n)
	}
	m.kind, m.flags = of, changeFlags(r.Verb)
	if r.Verb == Delete {
		m.kind = gone
	}
	return m, err
}

// encodeRule is struct fib_rule_hdr and FRA_* (linux/fib_rules.h).
func encodeRule(u Rule) []byte {
	var flags uint32
	if u.Not {
		flags |= ruleInvert
	}
	var b body
	b.u8(u.Family, bitsOf(u.To), bitsOf(u.From), u.TOS, tableByte(u.Table), 0, 0, u.Action)
	b.u32(flags)
	b.addr(unix.FRA_DST, u.To.Addr())
	b.addr(unix.FRA_SRC, u.From.Addr())
	if u.In != "" {
		b.text(unix.FRA_IIFNAME, u.In)
	}
	if u.Out != "" {
		b.text(unix.FRA_OIFNAME, u.Out)
	}
	if u.Priority != nil {
		b.attr32(unix.FRA_PRIORITY, *u.Priority)
	}
	if u.Mark != nil {
		b.attr32(unix.FRA_FWMARK, u.Mark.Value)
		b.attr32(unix.FRA_FWMASK, u.Mark.Mask)
	}
	if u.Table != 0 {
		b.attr32(unix.FRA_TABLE, u.Table)
	}
	if u.SuppressPrefix != nil {
		b.attr32(unix.FRA_SUPPRESS_PREFIXLEN, *u.SuppressPrefix)
	}
	if u.Protocol != 0 {
		b.attr(unix.FRA_PROTOCOL, []byte{u.Protocol})
	}
	return b
}

// encodeRoute is struct rtmsg and RTA_* (linux/rtnetlink.h).
func encodeRoute(t Route, n names) ([]byte, error) {
	var b body
	b.u8(t.Family, bitsOf(t.Dst), 0, 0, tableByte(t.Table), t.Protocol, t.Scope, t.Type)
	b.u32(t.Flags)
	b.attr32(unix.RTA_TABLE, t.Table)
	b.addr(unix.RTA_DST, t.Dst.Addr())
	for _, h := range t.Hops {
		b.addr(unix.RTA_GATEWAY, h.Via)
		if h.Device != "" {
			index, err := n.index(h.Device)
			if err != nil {
				return nil, err
			}
			b.attr32(unix.RTA_OIF, index)
		}
	}
	b.addr(unix.RTA_PREFSRC, t.Source)
	if t.Metric != nil {
		b.attr32(unix.RTA_PRIORITY, *t.Metric)
	}
	if len(t.Metrics) > 0 {
		var inner body
		var locks uint32 // a bit for each RTAX_*
		for _, m := range t.Metrics {
			inner.attr32(m.Kind, m.Value)
			if m.Locked {
				locks |= 1 << m.Kind
			}
		}
		if locks != 0 {
			inner.attr32(unix.RTAX_LOCK, locks)
		}
		b.attr(unix.RTA_METRICS, inner)
	}
	return b, nil
}

// encodeLookup asks which route a packet takes, and in which table it is.
func encodeLookup(l Lookup, n names) (message, error) {
	var b body
	var from uint8
	if l.Source.IsValid() {
		from = uint8(l.Source.BitLen())
	}
	b.u8(familyOf(l.Dst), uint8(l.Dst.BitLen()), from, 0, 0, 0, 0, 0)
	// Without it an IPv4 answer says table main, whichever it is from; for IPv6 it
	// is refused, and not needed.
	var flags uint32
	if l.Dst.Is4() {
		flags = unix.RTM_F_LOOKUP_TABLE
	}
	b.u32(flags)
	b.addr(unix.RTA_DST, l.Dst)
	b.addr(unix.RTA_SRC, l.Source)
	for kind, device := range map[uint16]string{unix.RTA_IIF: l.In, unix.RTA_OIF: l.Out} {
		if device == "" {
			continue
		}
		index, err := n.index(device)
		if err != nil {
			return message{}, err
		}
		b.attr32(kind, index)
	}
	if l.Mark != 0 {
		b.attr32(unix.RTA_MARK, l.Mark)
	}
	return message{kind: unix.RTM_GETROUTE, body: b}, nil
}

// encodeAddress is struct ifaddrmsg and IFA_* (linux/if_addr.h).
func encodeAddress(a Address, n names) ([]byte, error) {
	index, err := n.index(a.Device)
	if err != nil {
		return nil, err
	}
	var b body
	b.u8(a.Family, uint8(a.Bits), 0, a.Scope)
	b.u32(index)
	b.addr(unix.IFA_LOCAL, a.Local)
	b.addr(unix.IFA_ADDRESS, a.Local)
	b.addr(unix.IFA_BROADCAST, a.Broadcast)
	if a.Flags != 0 {
		b.attr32(unix.IFA_FLAGS, a.Flags)
	}
	return b, nil
}

// encodeLink is struct ifinfomsg and IFLA_* (linux/if_link.h).
func encodeLink(l LinkChange, n names) ([]byte, error) {
	index, err := n.index(l.Device)
	if err != nil {
		return nil, err
	}
	var flags, change uint32
	if l.Up != nil {
		change = unix.IFF_UP
		if *l.Up {
			flags = unix.IFF_UP
		}
	}
	var b body
	b.u8(unix.AF_UNSPEC, 0)
	b.u16(0)
	b.u32(index)
	b.u32(flags)
	b.u32(change)
	if l.MTU != nil {
		b.attr32(unix.IFLA_MTU, *l.MTU)
	}
	if l.Address != nil {
		b.attr(unix.IFLA_ADDRESS, l.Address)
	}
	if l.Name != "" {
		b.text(unix.IFLA_IFNAME, l.Name)
	}
	return b, nil
}

// vethInfoPeer is VETH_INFO_PEER (linux/veth.h).
const vethInfoPeer = 1

// encodePair is a new veth pair: the peer is a message of the same kind within
// the first one's (linux/veth.h).
func encodePair(l LinkChange) ([]byte, error) {
	peer := make(body, unix.SizeofIfInfomsg)
	peer.text(unix.IFLA_IFNAME, l.Peer.Device)
	switch {
	case l.Peer.In != nil:
		peer.attr32(unix.IFLA_NET_NS_FD, uint32(l.Peer.In.Fd()))
	case l.Peer.NetNS != "":
		return nil, fmt.Errorf("network namespace %q is not open", l.Peer.NetNS)
	}
	var data, info body
	data.attr(vethInfoPeer, peer)
	info.attr(unix.IFLA_INFO_KIND, []byte("veth"))
	info.attr(unix.IFLA_INFO_DATA, data)
	b := make(body, unix.SizeofIfInfomsg)
	b.text(unix.IFLA_IFNAME, l.Device)
	if l.MTU != nil {
		b.attr32(unix.IFLA_MTU, *l.MTU)
	}
	if l.Address != nil {
		b.attr(unix.IFLA_ADDRESS, l.Address)
	}
	b.attr(unix.IFLA_LINKINFO, info)
	return b, nil
}

// encodeNeighbour is struct ndmsg and NDA_* (linux/neighbour.h).
func encodeNeighbour(e Neighbour, n names) ([]byte, error) {
	index, err := n.index(e.Device)
	if err != nil {
		return nil, err
	}
	var b body
	b.u8(e.Family, 0)
	b.u16(0)
	b.u32(index)
	b.u16(e.State)
	b.u8(e.Flags, 0)
	b.addr(unix.NDA_DST, e.Addr)
	if e.MAC != nil {
		b.attr(unix.NDA_LLADDR, e.MAC)
	}
	return b, nil
}

// dump asks for all objects of a kind. What the message carries beside the
// family, the kernel takes as a filter: the socket asks for strict checks.
func dump(object Object, family uint8, table uint32) message {
	m := message{flags: unix.NLM_F_DUMP}
	var b body
	switch object {
	case Rules:
		m.kind = unix.RTM_GETRULE
		b = append(body{family}, make([]byte, 11)...)
	case Routes:
		m.kind = unix.RTM_GETROUTE
		b = append(body{family, 0, 0, 0, tableByte(table)}, make([]byte, 7)...)
		if table != 0 {
			b.attr32(unix.RTA_TABLE, table)
		}
	case Addresses:
		m.kind = unix.RTM_GETADDR
		b = append(body{family}, make([]byte, 7)...)
	case Links:
		m.kind = unix.RTM_GETLINK
		b = make([]byte, 16)
	case Neighbours:
		m.kind = unix.RTM_GETNEIGH
		b = append(body{family}, make([]byte, 11)...)
	}
	m.body = b
	return m
}

// ruleInvert and the others are flags of a rule (linux/fib_rules.h).
const (
	ruleInvert     = 0x2
	ruleUnresolved = 0x4
	ruleInGone     = 0x8
	ruleOutGone    = 0x10
)
