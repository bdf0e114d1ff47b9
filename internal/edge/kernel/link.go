package kernel

import (
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Device is a network device as the kernel names it now.
type Device struct {
	Name  string
	Index int
	MAC   vpc.MAC
	Group uint32
}

// Devices lists the namespace's devices. ENIs are found among them by MAC: a
// name may change milliseconds after the device appears.
func (k *Kernel) Devices() ([]Device, error) {
	links, err := readLinks(k.route)
	if err != nil {
		return nil, err
	}
	devices := make([]Device, 0, len(links))
	for _, l := range links {
		d := Device{Name: l.name, Index: int(l.index), Group: l.group}
		if len(l.mac) == len(d.MAC) {
			d.MAC = vpc.MAC([]byte(l.mac))
		}
		devices = append(devices, d)
	}
	return devices, nil
}

// link is what there is to know about a device: the kernel says ten times as
// much, and most of the time of a dump goes into saying it.
type link struct {
	index int32
	name  string
	mtu   int
	group uint32
	up    bool
	mac   string // the bytes
}

// noStats is RTEXT_FILTER_SKIP_STATS, include/uapi/linux/rtnetlink.h.
const noStats = 1 << 3

func readLinks(c *conn) ([]link, error) {
	links, err := dump(c, func() *message {
		m := linkMessage(unix.RTM_GETLINK, unix.NLM_F_DUMP, 0)
		m.u32(unix.IFLA_EXT_MASK, noStats)
		return m
	}, parseLink)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return links, nil
}

// readLink asks for one device by name. The error is ENODEV if there is none.
func readLink(c *conn, name string) (link, error) {
	m := linkMessage(unix.RTM_GETLINK, 0, 0)
	m.text(unix.IFLA_IFNAME, name)
	l, err := oneLink(c, m)
	if err != nil {
		return l, fmt.Errorf("look up link %s: %w", name, err)
	}
	return l, nil
}

// readLinkAt asks for one device by index.
func readLinkAt(c *conn, index int32) (link, error) {
	l, err := oneLink(c, linkMessage(unix.RTM_GETLINK, 0, index))
	if err != nil {
		return l, fmt.Errorf("look up link %d: %w", index, err)
	}
	return l, nil
}

func oneLink(c *conn, m *message) (link, error) {
	m.u32(unix.IFLA_EXT_MASK, noStats)
	var l link
	err := c.get(m, func(body []byte) { l, _ = parseLink(body) })
	return l, err
}

// parseLink reads the body of an RTM_NEWLINK or RTM_DELLINK.
func parseLink(body []byte) (link, bool) {
	if len(body) < unix.SizeofIfInfomsg {
		return link{}, false
	}
	l := link{index: int32(u32(body[4:])), up: u32(body[8:])&unix.IFF_UP != 0}
	for kind, value := range behind(body, unix.SizeofIfInfomsg) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.name = text(value)
		case unix.IFLA_ADDRESS:
			l.mac = string(value)
		case unix.IFLA_MTU:
			l.mtu = int(u32(value))
		case unix.IFLA_GROUP:
			l.group = u32(value)
		}
	}
	return l, l.name != ""
}

// isPod tells a host-side device of a live pod.
func (l link) isPod() bool { return l.group == node.LinkGroup }

// object is the device in the terms of want: of what want does not decide,
// nothing is said.
func (l link) object(want node.Link) node.Link {
	o := node.Link{Name: l.name, Up: l.up}
	if want.MTU != 0 {
		o.MTU = l.mtu
	}
	if want.Group != 0 {
		o.Group = l.group
	}
	if want.MAC != "" {
		o.MAC = node.MACString(net.HardwareAddr(l.mac).String())
	}
	return o
}

// linkSettings writes what o decides.
func linkSettings(index int32, o node.Link) *message {
	m := linkMessage(unix.RTM_SETLINK, 0, index)
	var flags uint32
	if o.Up {
		flags = unix.IFF_UP
	}
	setFlags(m, flags, unix.IFF_UP)
	if o.MTU != 0 {
		m.u32(unix.IFLA_MTU, uint32(o.MTU))
	}
	if o.Group != 0 {
		m.u32(unix.IFLA_GROUP, o.Group)
	}
	if o.MAC != "" {
		m.attr(unix.IFLA_ADDRESS, hw(o.MAC))
	}
	return m
}

// index gives a device's index by name, by the cheapest call there is.
func (k *Kernel) index(name string) (int32, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("look up link %q: %w", name, err)
	}
	if err := unix.IoctlIfreq(k.route.fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, fmt.Errorf("look up link %q: %w", name, err)
	}
	return int32(ifr.Uint32()), nil
}

// neighbor is one IPv4 neighbour entry.
type neighbor struct {
	index     int32
	addr      string // the bytes
	mac       string // the bytes
	permanent bool
}

// parseNeighbor reads the body of an RTM_NEWNEIGH or RTM_DELNEIGH.
func parseNeighbor(body []byte) (neighbor, bool) {
	if len(body) < unix.SizeofNdMsg || body[0] != unix.AF_INET {
		return neighbor{}, false
	}
	n := neighbor{index: int32(u32(body[4:])), permanent: binary.NativeEndian.Uint16(body[8:])&unix.NUD_PERMANENT != 0}
	for kind, value := range behind(body, unix.SizeofNdMsg) {
		switch kind {
		case unix.NDA_DST:
			n.addr = string(value)
		case unix.NDA_LLADDR:
			n.mac = string(value)
		}
	}
	return n, true
}

// readNeighbors lists neighbours of one device; of all with index 0.
func readNeighbors(c *conn, index int32) ([]neighbor, error) {
	neighbors, err := dump(c, func() *message {
		m := newMessage(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, unix.SizeofNdMsg)
		m.fixed()[0] = unix.AF_INET
		if index != 0 {
			m.u32(unix.NDA_IFINDEX, uint32(index))
		}
		return m
	}, parseNeighbor)
	if err != nil {
		return nil, fmt.Errorf("list neighbors: %w", err)
	}
	return neighbors, nil
}
