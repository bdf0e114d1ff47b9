package guest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrNoDevice says that no device of the guest has the MAC that was asked for:
// the fabric has not plugged it in.
var ErrNoDevice = errors.New("no device with this MAC")

// Boot is what an instance learns by DHCP about its primary ENI.
type Boot struct {
	MAC     net.HardwareAddr
	Address netip.Prefix // the ENI's primary IPv4 address with the subnet's length
	Gateway netip.Addr   // the subnet's implied router
	MTU     int          // bytes; 0 leaves the device's own
}

// Configure does what an instance's own operating system does at boot: loopback
// up, and the device of the MAC up with its address and a default route. It may
// be repeated. Devices of further ENIs are left to whoever runs in the guest,
// as on EC2.
func (g *Guest) Configure(b Boot) error {
	if !b.Address.Addr().Is4() || !b.Gateway.Is4() || !b.Address.Masked().Contains(b.Gateway) {
		return fmt.Errorf("configure guest %s: address %v, gateway %v: want IPv4, the gateway in the address's subnet", g.cfg.ID, b.Address, b.Gateway)
	}
	// Sends by a socket that was opened in the guest's namespace.
	h, err := netlink.NewHandleAt(netns.NsHandle(g.netns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("configure guest %s: open netlink: %w", g.cfg.ID, err)
	}
	defer h.Close()
	if err := configure(h, b); err != nil {
		return fmt.Errorf("configure guest %s: %w", g.cfg.ID, err)
	}
	return nil
}

func configure(h *netlink.Handle, b Boot) error {
	links, err := devices(h)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	i := slices.IndexFunc(links, func(l netlink.Link) bool { return l.Attrs().Flags&net.FlagLoopback != 0 })
	if i < 0 {
		return errors.New("set loopback up: the namespace has none")
	}
	if err := h.LinkSetUp(links[i]); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	i = slices.IndexFunc(links, func(l netlink.Link) bool {
		return slices.Equal(l.Attrs().HardwareAddr, b.MAC)
	})
	if i < 0 {
		return fmt.Errorf("find device %v: %w", b.MAC, ErrNoDevice)
	}
	dev := links[i]
	name := dev.Attrs().Name
	if b.MTU > 0 {
		if err := h.LinkSetMTU(dev, b.MTU); err != nil {
			return fmt.Errorf("set mtu %d on %s: %w", b.MTU, name, err)
		}
	}
	if err := h.LinkSetUp(dev); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	address := &netlink.Addr{IPNet: &net.IPNet{
		IP:   b.Address.Addr().AsSlice(),
		Mask: net.CIDRMask(b.Address.Bits(), 32),
	}}
	if err := h.AddrReplace(dev, address); err != nil {
		return fmt.Errorf("add %v to %s: %w", b.Address, name, err)
	}
	route := &netlink.Route{
		LinkIndex: dev.Attrs().Index,
		Gw:        b.Gateway.AsSlice(),
		Src:       b.Address.Addr().AsSlice(),
		Protocol:  unix.RTPROT_DHCP,
	}
	if err := h.RouteReplace(route); err != nil {
		return fmt.Errorf("add default route via %v on %s: %w", b.Gateway, name, err)
	}
	return awaitQueues(h, name)
}

// devices lists all, and again where the kernel says that they changed meanwhile:
// the list may lack some then.
func devices(h *netlink.Handle) (links []netlink.Link, err error) {
	for range 10 {
		if links, err = h.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return links, err
}

// The kernel starts the queue of a device that gets its carrier in a work of its
// own (net/core/link_watch.c), and drops without a count until then. Setting ens5
// up gives the carrier to it and to its other end, in this order; so does the work.
const (
	queueTime = 2 * time.Second // that it may take; a busy machine needs some ms
	queueLook = 2 * time.Millisecond
)

// awaitQueues returns when both ends of a device carry packets, or when it takes
// too long: that is no reason for an instance not to run. It reads all devices:
// asking for one would have the kernel start that one's queue, and not the other's.
func awaitQueues(h *netlink.Handle, name string) error {
	for end := time.Now().Add(queueTime); ; time.Sleep(queueLook) {
		links, err := devices(h)
		if err != nil {
			return fmt.Errorf("list links: %w", err)
		}
		waits := slices.ContainsFunc(links, func(l netlink.Link) bool {
			// IFF_RUNNING is no sign: a new device has it before the work ran.
			a := l.Attrs()
			return a.Name == name && a.RawFlags&unix.IFF_LOWER_UP != 0 && a.OperState != netlink.OperUp
		})
		if !waits || time.Now().After(end) {
			return nil
		}
	}
}
