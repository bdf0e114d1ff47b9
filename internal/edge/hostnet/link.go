package hostnet

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// link is a device and what else is needed to tell what it is.
type link struct {
	path.Device
	index  int32
	mac    string // colon form
	master int32
	peer   int32 // of a veth: the index of the other end in its namespace
	peerNS int32 // the number that this namespace has for that one; -1: this one
}

const (
	skipStats   = 1 << 3 // RTEXT_FILTER_SKIP_STATS, include/uapi/linux/rtnetlink.h
	xdpAttached = 2      // IFLA_XDP_ATTACHED, include/uapi/linux/if_link.h
	xdpProgram  = 4      // IFLA_XDP_PROG_ID
)

// links lists the devices with their IPv4 addresses.
func (c *conn) links() ([]link, error) {
	body := append(make([]byte, unix.SizeofIfInfomsg), attr(unix.IFLA_EXT_MASK, bytes32(skipStats))...)
	answers, err := c.dump(unix.RTM_GETLINK, body)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var all []link
	for _, b := range answers {
		if l, ok := parseLink(b); ok {
			all = append(all, l)
		}
	}
	answers, err = c.dump(unix.RTM_GETADDR, append([]byte{unix.AF_INET}, make([]byte, unix.SizeofIfAddrmsg-1)...))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, b := range answers {
		index, p, ok := parseAddress(b)
		if i := slices.IndexFunc(all, func(l link) bool { return l.index == index }); ok && i >= 0 {
			all[i].Addresses = append(all[i].Addresses, p)
		}
	}
	for i := range all {
		if m := slices.IndexFunc(all, func(l link) bool { return all[i].master != 0 && l.index == all[i].master }); m >= 0 {
			// What a bridge or a VRF does to its ports' packets is not modelled.
			all[i].Kind = "port of " + all[m].Name
		}
	}
	return all, nil
}

// parseLink reads the body of an RTM_NEWLINK.
func parseLink(b []byte) (link, bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return link{}, false
	}
	flags := u32(b[8:])
	l := link{index: int32(u32(b[4:])), peerNS: -1}
	l.Down = flags&unix.IFF_UP == 0
	for kind, value := range behind(b, unix.SizeofIfInfomsg) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = text(value)
		case unix.IFLA_ADDRESS:
			l.mac = net.HardwareAddr(value).String()
		case unix.IFLA_MTU:
			l.MTU = int(u32(value))
		case unix.IFLA_GROUP:
			l.Group = u32(value)
		case unix.IFLA_MASTER:
			l.master = int32(u32(value))
		case unix.IFLA_LINK:
			l.peer = int32(u32(value))
		case unix.IFLA_LINK_NETNSID:
			l.peerNS = int32(u32(value))
		case unix.IFLA_LINKINFO:
			for k, v := range attributes(value) {
				if k == unix.IFLA_INFO_KIND {
					l.Kind = text(v)
				}
			}
		case unix.IFLA_XDP:
			if p, ok := parseXDP(value); ok {
				l.BPF = append(l.BPF, p)
			}
		}
	}
	if flags&unix.IFF_LOOPBACK != 0 {
		l.Kind = "loopback"
	}
	return l, l.Name != ""
}

func parseXDP(value []byte) (string, bool) {
	attached, id := false, uint32(0)
	for k, v := range attributes(value) {
		switch k {
		case xdpAttached:
			attached = len(v) > 0 && v[0] != 0
		case xdpProgram:
			id = u32(v)
		}
	}
	return fmt.Sprintf("xdp id %d", id), attached
}

// parseAddress reads the body of an RTM_NEWADDR.
func parseAddress(b []byte) (index int32, p netip.Prefix, ok bool) {
	if len(b) < unix.SizeofIfAddrmsg || b[0] != unix.AF_INET || b[1] > 32 {
		return 0, p, false
	}
	for kind, value := range behind(b, unix.SizeofIfAddrmsg) {
		if kind == unix.IFA_LOCAL && len(value) == 4 {
			return int32(u32(b[4:])), netip.PrefixFrom(ipv4(value), int(b[1])), true
		}
	}
	return 0, p, false
}
