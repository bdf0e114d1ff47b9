package iproute

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// linkFlags are IFF_* (linux/if.h), in ip's order. IFF_RUNNING is not among
// them: that it is missing is said, as NO-CARRIER.
var linkFlags = naming{
	{"LOOPBACK", unix.IFF_LOOPBACK}, {"BROADCAST", unix.IFF_BROADCAST}, {"POINTOPOINT", unix.IFF_POINTOPOINT},
	{"MULTICAST", unix.IFF_MULTICAST}, {"NOARP", unix.IFF_NOARP}, {"ALLMULTI", unix.IFF_ALLMULTI},
	{"PROMISC", unix.IFF_PROMISC}, {"MASTER", unix.IFF_MASTER}, {"SLAVE", unix.IFF_SLAVE}, {"DEBUG", unix.IFF_DEBUG},
	{"DYNAMIC", unix.IFF_DYNAMIC}, {"AUTOMEDIA", unix.IFF_AUTOMEDIA}, {"PORTSEL", unix.IFF_PORTSEL},
	{"NOTRAILERS", unix.IFF_NOTRAILERS}, {"UP", unix.IFF_UP}, {"LOWER_UP", unix.IFF_LOWER_UP},
	{"DORMANT", unix.IFF_DORMANT}, {"ECHO", unix.IFF_ECHO},
}

// linkStates are IF_OPER_* (RFC 2863), linkModes IF_LINK_MODE_* (linux/if.h).
var (
	linkStates = []string{"UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP"}
	linkModes  = []string{"DEFAULT", "DORMANT"}
)

// linkTypes are ARPHRD_* (linux/if_arp.h).
var linkTypes = naming{
	{"ether", unix.ARPHRD_ETHER}, {"loopback", unix.ARPHRD_LOOPBACK}, {"none", unix.ARPHRD_NONE}, {"ppp", unix.ARPHRD_PPP},
	{"ipip", unix.ARPHRD_TUNNEL}, {"tunnel6", unix.ARPHRD_TUNNEL6}, {"sit", unix.ARPHRD_SIT}, {"gre", unix.ARPHRD_IPGRE},
}

// addressFlags are IFA_F_* (linux/if_addr.h), in ip's order. The first has
// another name for IPv6, and the missing one of the last is what is said.
var addressFlags = naming{
	{"secondary", unix.IFA_F_SECONDARY}, {"nodad", unix.IFA_F_NODAD}, {"optimistic", unix.IFA_F_OPTIMISTIC},
	{"dadfailed", unix.IFA_F_DADFAILED}, {"home", unix.IFA_F_HOMEADDRESS}, {"deprecated", unix.IFA_F_DEPRECATED},
	{"tentative", unix.IFA_F_TENTATIVE}, {"mngtmpaddr", unix.IFA_F_MANAGETEMPADDR},
	{"noprefixroute", unix.IFA_F_NOPREFIXROUTE}, {"autojoin", unix.IFA_F_MCAUTOJOIN},
	{"stable-privacy", unix.IFA_F_STABLE_PRIVACY},
}

func listed(list []string, i uint8) string {
	if int(i) < len(list) {
		return list[i]
	}
	return fmt.Sprintf("%#x", i)
}

// flagsOf are the flags of a link, among them two that are read from others: up
// without a carrier, and a lower device that is down.
func flagsOf(l Link, all names) []string {
	out := set(linkFlags, l.Flags)
	if l.Flags&unix.IFF_UP != 0 && l.Flags&unix.IFF_RUNNING == 0 {
		out = slices.Insert(out, 0, "NO-CARRIER")
	}
	if lower, ok := lowerOf(l, all); ok && lower.Flags&unix.IFF_UP == 0 && l.Flags&unix.IFF_UP != 0 {
		out = append(out, "M-DOWN")
	}
	return out
}

// lowerOf is the device that a link is built on, or its other end, where it is
// in the same namespace.
func lowerOf(l Link, all names) (Link, bool) {
	if l.Lower == nil || l.Away != nil {
		return Link{}, false
	}
	i := slices.IndexFunc(all, func(o Link) bool { return o.Index == *l.Lower })
	if i < 0 {
		return Link{}, false
	}
	return all[i], true
}

// nameFields are the name, with the other end's or the lower device's.
func nameFields(l Link, all names) (string, fields) {
	var f fields
	name := l.Name
	lower, here := lowerOf(l, all)
	switch {
	case here:
		name += "@" + lower.Name
		f.key("link", lower.Name)
	case l.Lower != nil && *l.Lower == 0:
		name += "@NONE"
		f.key("link", nil)
	case l.Lower != nil:
		name += fmt.Sprintf("@if%d", *l.Lower)
		f.key("link_index", *l.Lower)
	}
	f.key("ifname", l.Name)
	return name, f
}

// headFields are the first line of a link, behind its name.
func headFields(l Link, a Answer, r Request) fields {
	var f fields
	flags := flagsOf(l, a.all)
	f.say("<%s>", strings.Join(flags, ","))
	f.key("flags", flags)
	f.both("mtu", l.MTU, "mtu %d")
	if l.Qdisc != "" {
		f.both("qdisc", l.Qdisc, "qdisc %s")
	}
	if l.Master != 0 {
		f.both("master", a.all.name(uint32(l.Master)), "master %s")
	}
	f.both("operstate", listed(linkStates, l.State), "state %s")
	if r.Object == Links {
		f.both("linkmode", listed(linkModes, l.Mode), "mode %s")
	}
	f.both("group", naming{{"default", 0}}.name(l.Group), "group %s")
	if l.QueueLen != 0 {
		f.both("txqlen", l.QueueLen, "qlen %d")
	}
	return f
}

// hardwareFields are the second line.
func hardwareFields(l Link) fields {
	var f fields
	kind := linkTypes.name(uint32(l.Type))
	f.key("link_type", kind)
	f.say("link/%s", kind)
	if len(l.Address) > 0 {
		f.both("address", l.Address.String(), "%s")
	}
	if len(l.Broadcast) > 0 {
		word := "brd"
		if l.Flags&unix.IFF_POINTOPOINT != 0 {
			word = "peer"
		}
		f.both("broadcast", l.Broadcast.String(), word+" %s")
	}
	return f
}

// awayFields say in which namespace the other end is.
func awayFields(l Link) fields {
	var f fields
	if l.Away != nil {
		f.both("link_netnsid", *l.Away, "link-netnsid %d")
	}
	return f
}

// hasHardware says whether a link's second line is shown: not among the
// addresses of one family.
func hasHardware(r Request) bool { return r.Object == Links || r.Family == unix.AF_UNSPEC }

func linkText(l Link, a Answer, r Request) string {
	name, _ := nameFields(l, a.all)
	var b strings.Builder
	head := headFields(l, a, r)
	if hasHardware(r) {
		fmt.Fprintf(&b, "%d: %s: %s\n    %s\n", l.Index, name, head, append(hardwareFields(l), awayFields(l)...))
		if l.Alias != "" {
			fmt.Fprintf(&b, "    alias %s\n", l.Alias)
		}
		for _, alt := range l.AltNames {
			fmt.Fprintf(&b, "    altname %s\n", alt)
		}
	} else {
		fmt.Fprintf(&b, "%d: %s: %s\n", l.Index, name, append(head, awayFields(l)...))
	}
	for _, of := range a.Addresses {
		if of.Device == l.Name {
			fmt.Fprintf(&b, "    %s\n       valid_lft %s preferred_lft %s\n", addressFields(of), life(of.Valid), life(of.Preferred))
		}
	}
	return b.String()
}

func linkJSON(l Link, a Answer, r Request) fields {
	_, name := nameFields(l, a.all)
	f := append(fields{{key: "ifindex", value: l.Index}}, name...)
	f = append(f, headFields(l, a, r)...)
	if hasHardware(r) {
		f = append(f, hardwareFields(l)...)
	}
	f = append(f, awayFields(l)...)
	if l.Alias != "" {
		f.key("ifalias", l.Alias)
	}
	if len(l.AltNames) > 0 {
		f.key("altnames", l.AltNames)
	}
	if r.Object != Addresses {
		return f
	}
	info := []fields{}
	for _, of := range a.Addresses {
		if of.Device == l.Name {
			g := addressFields(of)
			g.key("valid_life_time", of.Valid)
			g.key("preferred_life_time", of.Preferred)
			info = append(info, g)
		}
	}
	f.key("addr_info", info)
	return f
}

func addressFields(a Address) fields {
	var f fields
	v6 := a.Family == unix.AF_INET6
	f.key("family", "inet")
	word := "inet"
	if v6 {
		word, f[0].value = "inet6", "inet6"
	}
	f.key("local", a.Local.String())
	if a.Peer.IsValid() {
		f.say("%s %s peer %s/%d", word, a.Local, a.Peer, a.Bits)
		f.key("address", a.Peer.String())
	} else {
		f.say("%s %s/%d", word, a.Local, a.Bits)
	}
	f.key("prefixlen", a.Bits)
	if a.Broadcast.IsValid() {
		f.both("broadcast", a.Broadcast.String(), "brd %s")
	}
	f.both("scope", scopes.name(uint32(a.Scope)), "scope %s")
	flags := set(addressFlags, a.Flags)
	if i := slices.Index(flags, "secondary"); i >= 0 && v6 {
		flags[i] = "temporary"
	}
	if a.Flags&unix.IFA_F_PERMANENT == 0 {
		flags = append(flags, "dynamic")
	}
	for _, name := range flags {
		f.flag(name, true)
	}
	if a.Label != "" {
		f.both("label", a.Label, "%s")
	}
	return f
}

// life is how long an address is there.
func life(seconds uint32) string {
	if seconds == ^uint32(0) {
		return "forever"
	}
	return fmt.Sprintf("%dsec", seconds)
}
