package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// ledger tells events that concern us from others. It is told of every event,
// in order, and does nothing else.
type ledger struct {
	route, nft uint32         // ports of our writing sockets
	links      map[int32]link // as the kernel said last; needed to see what changed
}

// verdict is what a datagram of events comes to.
type verdict struct {
	reasons  []string
	suspects map[int32]string // by index of a pod's device: a reason, unless the device was retired
}

func (v *verdict) say(format string, args ...any) {
	v.reasons = append(v.reasons, fmt.Sprintf(format, args...))
}

// routing takes a datagram of the routing socket.
func (l *ledger) routing(b []byte) verdict {
	v := verdict{suspects: make(map[int32]string)}
	for h, body := range messages(b) {
		switch h.kind {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			// To be told of every change, whoever made it: of some the kernel
			// does not say who it was.
			l.link(h, body, &v)
			continue
		}
		if h.port == l.route {
			continue
		}
		switch h.kind {
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			if a, ok := parseAddress(body); ok && l.isHosts(a.index) {
				v.say("address %s on %s was %s", a.prefix, l.links[a.index].name, done(h, unix.RTM_NEWADDR))
			}
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			if r, ok := parseRoute(body); ok && (r.protocol == node.Protocol || isOurs(r.Table)) {
				v.say("route %s was %s", r.Route, done(h, unix.RTM_NEWROUTE))
			}
		case unix.RTM_NEWRULE, unix.RTM_DELRULE:
			if r, ok := parseRule(body); ok && (r.protocol == node.Protocol || isOurs(r.Table)) {
				v.say("%s was %s", r.Rule, done(h, unix.RTM_NEWRULE))
			}
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			n, ok := parseNeighbor(body)
			if d := l.links[n.index]; ok && d.isPod() {
				v.suspects[n.index] = fmt.Sprintf("neighbor %s on %s was %s", ipv4([]byte(n.addr)), d.name, done(h, unix.RTM_NEWNEIGH))
			}
		case unix.RTM_NEWNETCONF:
			l.netconf(body, &v)
		}
	}
	return v
}

func done(h header, written uint16) string {
	if h.kind == written {
		return "written"
	}
	return "removed"
}

// isOurs tells the tables that belong to us.
func isOurs(table int) bool {
	const slots = int(node.SlotMask >> 24)
	return table == node.PodTable ||
		table > node.ENITableBase && table <= node.ENITableBase+slots ||
		table > node.BoundTableBase && table <= node.BoundTableBase+slots
}

// isHosts tells a device that is known, and neither a pod's nor a retired one.
func (l *ledger) isHosts(index int32) bool {
	d, known := l.links[index]
	return known && !d.isPod() && d.group != node.DeadLinkGroup
}

// link follows the devices. That a pod's device comes, or is retired, is our
// own doing: it is the change of a live one, or its end, that counts.
func (l *ledger) link(h header, body []byte, v *verdict) {
	d, ok := parseLink(body)
	if !ok || body[0] != unix.AF_UNSPEC { // bridges tell of their ports in the same words
		return
	}
	old, known := l.links[d.index]
	if h.kind == unix.RTM_DELLINK {
		delete(l.links, d.index)
		if d.group != node.DeadLinkGroup && h.port != l.route {
			v.say("link %s is gone", d.name)
		}
		return
	}
	l.links[d.index] = d
	pod := d.isPod() || known && old.isPod()
	switch {
	case d.group == node.DeadLinkGroup || h.port == l.route || known && old == d:
	case !known && !pod:
		v.say("link %s appeared", d.name)
	case !known || pod && !old.isPod():
		// A pod's device appeared, or its group was put right.
	case pod:
		old.up = old.up && !d.up // to come up is how it begins
		d.up = false
		if old != d {
			v.say("link %s of a pod changed", d.name)
		}
	default:
		v.say("link %s changed", d.name)
	}
}

// Of struct netconfmsg and its attributes, include/uapi/linux/netconf.h.
const (
	sizeofNetconfmsg = 4 // with its padding
	netconfIfIndex   = 1 // NETCONFA_IFINDEX
	netconfAll       = -1
)

// netconf tells of a device's switches: forwarding, rp_filter and others.
func (l *ledger) netconf(body []byte, v *verdict) {
	if len(body) == 0 || body[0] != unix.AF_INET {
		return
	}
	for kind, value := range behind(body, sizeofNetconfmsg) {
		if kind != netconfIfIndex || len(value) != 4 {
			continue
		}
		switch index := int32(u32(value)); {
		case index == netconfAll:
			v.say("IPv4 switches of all devices were written")
		case l.isHosts(index):
			v.say("IPv4 switches of %s were written", l.links[index].name)
		}
	}
}

// tableEvents names the events about a table.
var tableEvents = map[uint16]string{
	unix.NFT_MSG_NEWTABLE: "written", unix.NFT_MSG_DELTABLE: "deleted",
	unix.NFT_MSG_NEWCHAIN: "chain written", unix.NFT_MSG_DELCHAIN: "chain deleted",
	unix.NFT_MSG_NEWRULE: "rule written", unix.NFT_MSG_DELRULE: "rule deleted",
	unix.NFT_MSG_NEWSET: "set written", unix.NFT_MSG_DELSET: "set deleted",
	unix.NFT_MSG_NEWSETELEM: "element written", unix.NFT_MSG_DELSETELEM: "element deleted",
	unix.NFT_MSG_NEWOBJ: "counter written", unix.NFT_MSG_DELOBJ: "counter deleted",
	unix.NFT_MSG_NEWFLOWTABLE: "flowtable written", unix.NFT_MSG_DELFLOWTABLE: "flowtable deleted",
}

// tables takes a datagram of the nftables socket: of all tables, the reasons
// are about ours.
func (l *ledger) tables(b []byte) verdict {
	var v verdict
	for h, body := range messages(b) {
		event, known := tableEvents[h.kind&0xff]
		if !known || h.kind>>8 != unix.NFNL_SUBSYS_NFTABLES || h.port == l.nft || len(body) < sizeofNfgenmsg || body[0] != unix.NFPROTO_INET {
			continue
		}
		for kind, value := range behind(body, sizeofNfgenmsg) {
			if kind == unix.NFTA_TABLE_NAME && text(value) == node.TableName {
				v.say("nftables table %s: %s", node.TableName, event)
			}
		}
	}
	return v
}
