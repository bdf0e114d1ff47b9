package site

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// Site is two nodes and the router between them.
type Site struct {
	Nodes  [2]*Node
	router *os.File
}

// Layout is how a node keeps its pods' routes.
type Layout uint8

// The layouts.
const (
	Bare  Layout = iota // no pods at all: the host's own path
	Ours                // intent.Desired
	Rules               // two rules per pod, as the VPC CNI has them
)

// New builds a site with that many pods on each node. It can carry packets after
// [Site.Settle].
func New(layout Layout, pods int, config intent.Config) (_ *Site, err error) {
	s := &Site{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.router, err = newNamespace(); err != nil {
		return nil, err
	}
	for side := range s.Nodes {
		snapshot := Snapshot(side, pods, config)
		if layout == Bare {
			snapshot = Snapshot(side, 0, config)
			snapshot.ENIs = snapshot.ENIs[:1]
		}
		if s.Nodes[side], err = NewNode(side, s.router, snapshot); err != nil {
			return nil, err
		}
	}
	if err := netns.Do(s.router, func() error { return WriteSysctl("net/ipv4/ip_forward", "1") }); err != nil {
		return nil, err
	}
	for _, n := range s.Nodes {
		switch layout {
		case Ours:
			err = n.Do(n.Settle)
		case Rules:
			err = n.writeRules()
		case Bare:
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Settle waits until every device can send. One that is brought up before its
// other end drops packets until the kernel has got around to looking at it again
// (linkwatch_run_queue), which it does for a hundred a second. Who asks for one
// device by itself has it look at once (rtnl_getlink).
func (s *Site) Settle() error {
	for _, ns := range []*os.File{s.router, s.Nodes[0].NS, s.Nodes[1].NS, s.Nodes[0].park, s.Nodes[1].park, s.Nodes[0].Pod, s.Nodes[1].Pod} {
		if err := settle(ns); err != nil {
			return err
		}
	}
	return nil
}

func settle(ns *os.File) error {
	h, err := handle(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	var waiting []netlink.Link
	if err := Until(func() (bool, error) {
		waiting, err = h.LinkList()
		return err == nil, ignore(err, netlink.ErrDumpInterrupted)
	}); err != nil {
		return err
	}
	return Until(func() (bool, error) {
		var still []netlink.Link
		for _, l := range waiting {
			now, err := h.LinkByIndex(l.Attrs().Index)
			if err != nil {
				return false, err
			}
			if now.Attrs().RawFlags&unix.IFF_RUNNING == 0 {
				still = append(still, l)
			}
		}
		waiting = still
		return len(waiting) == 0, nil
	})
}

// Until waits for what comes by itself.
func Until(done func() (bool, error)) error {
	const patience = 10 * time.Second
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the kernel is not ready after %s", patience)
		}
	}
}

func ignore(err, harmless error) error {
	if errors.Is(err, harmless) {
		return nil
	}
	return err
}

// Close gives up the site.
func (s *Site) Close() error {
	var errs []error
	for _, n := range s.Nodes {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	if s.router != nil {
		errs = append(errs, s.router.Close())
	}
	return errors.Join(errs...)
}

// NewNode makes a node with its ENIs on a router and its pods' interfaces, and
// with nothing of what they need besides. Without a router it gets one of its own.
func NewNode(side int, router *os.File, s intent.Snapshot) (_ *Node, err error) {
	n, err := newNode(s)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if router == nil {
		if router, err = newNamespace(); err != nil {
			return nil, err
		}
		n.files = append(n.files, router)
	}
	if err := n.attach(side, router); err != nil {
		return nil, fmt.Errorf("attach ENIs: %w", err)
	}
	return n, n.wirePods()
}

// handle opens netlink in a namespace.
func handle(ns *os.File) (*netlink.Handle, error) {
	var h *netlink.Handle
	err := netns.Do(ns, func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	return h, err
}

// attach makes the node's ENIs, which are up with the primary's address, and
// teaches router and node the way to each other.
func (n *Node) attach(side int, router *os.File) error {
	there, err := handle(router)
	if err != nil {
		return err
	}
	defer there.Close()
	here, err := handle(n.NS)
	if err != nil {
		return err
	}
	defer here.Close()
	gateway := n.Snapshot.ENIs[0].Gateway()
	var ports []netlink.Link
	for i := range n.Snapshot.ENIs {
		port, device, err := cable(there, here, n.NS, side, i)
		if err != nil {
			return err
		}
		ports = append(ports, port)
		if err := here.NeighSet(permanent(device, gateway, routerMAC(side, i))); err != nil {
			return fmt.Errorf("neighbour on %s: %w", Device(i), err)
		}
		if i > 0 {
			continue
		}
		address := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(n.Snapshot.ENIs[0].Primary, subnet(side).Bits()))}
		if err := here.AddrAdd(device, address); err != nil {
			return fmt.Errorf("address of %s: %w", Device(i), err)
		}
		if err := here.RouteAdd(&netlink.Route{LinkIndex: device.Attrs().Index, Gw: gateway.AsSlice()}); err != nil {
			return fmt.Errorf("default route of the node: %w", err)
		}
	}
	for i := range MaxENIs {
		e := i
		if e >= len(ports) {
			e = 0 // an ENI that is not there: the route is, as in every router
		}
		via, index := at(side, e, hostPart), ports[e].Attrs().Index
		if err := there.NeighSet(permanent(ports[e], via, eniMAC(side, e))); err != nil {
			return fmt.Errorf("neighbour of block %d: %w", i, err)
		}
		route := &netlink.Route{LinkIndex: index, Gw: via.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
			Dst: ipNet(netip.PrefixFrom(at(side, i, 0), blockBits))}
		if err := there.RouteAdd(route); err != nil {
			return fmt.Errorf("route to block %d: %w", i, err)
		}
	}
	return nil
}

// cable makes an ENI of the node and the router's port for it, both up.
func cable(there, here *netlink.Handle, ns *os.File, side, eni int) (port, device netlink.Link, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = fmt.Sprintf("f%d-%d", side, eni), mtu, routerMAC(side, eni)
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerMTU, veth.PeerHardwareAddr = Device(eni), mtu, eniMAC(side, eni)
	veth.PeerNamespace = netlink.NsFd(int(ns.Fd()))
	if err := there.LinkAdd(veth); err != nil {
		return nil, nil, fmt.Errorf("create %s: %w", attrs.Name, err)
	}
	if device, err = here.LinkByName(Device(eni)); err != nil {
		return nil, nil, err
	}
	if port, err = there.LinkByName(attrs.Name); err != nil {
		return nil, nil, err
	}
	return port, device, errors.Join(here.LinkSetUp(device), there.LinkSetUp(port))
}

func permanent(l netlink.Link, addr netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: mac}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
