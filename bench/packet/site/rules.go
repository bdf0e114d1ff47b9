package site

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// The layout of the Amazon VPC CNI: priorities from its package networkutils
// (ToContainerRulePriority, FromPodRulePriority). Its connection marks and its
// source NAT, which are iptables rules, are left out: what is measured is the
// least that such a node costs, without connection tracking.
const (
	toPodPriority   = 512
	fromPodPriority = 1536
	tableOfENI      = 1 // plus the device index
)

// writeRules gives the node two rules per pod instead of our state:
//
//	 512  to POD      lookup main        POD dev VETH
//	1536  from POD    lookup 1+index     default via GATEWAY dev ENI
//
// A pod on the primary ENI has the first alone. Pods' neighbours are permanent,
// as ours are, so that no address resolution is measured.
func (n *Node) writeRules() error {
	h, err := handle(n.NS)
	if err != nil {
		return err
	}
	defer h.Close()
	for i, e := range n.Snapshot.ENIs[1:] {
		device, err := h.LinkByName(e.Device)
		if err != nil {
			return err
		}
		err = h.RouteAdd(&netlink.Route{LinkIndex: device.Attrs().Index, Gw: e.Gateway().AsSlice(),
			Flags: int(netlink.FLAG_ONLINK), Table: tableOfENI + 1 + i})
		if err != nil {
			return fmt.Errorf("default route of %s: %w", e.Device, err)
		}
	}
	for _, p := range n.Snapshot.Pods {
		if err := writePodRules(h, p); err != nil {
			return fmt.Errorf("rules of pod %s: %w", p.Addr, err)
		}
	}
	return n.Do(func() error {
		// Package kernel wires with accept_local, which is ours.
		for _, p := range n.Snapshot.Pods {
			if err := WriteSysctl("net/ipv4/conf/"+p.Veth+"/accept_local", "0"); err != nil {
				return err
			}
		}
		return WriteSysctl("net/ipv4/ip_forward", "1")
	})
}

func writePodRules(h *netlink.Handle, p node.Attachment) error {
	device, err := h.LinkByName(p.Veth)
	if err != nil {
		return err
	}
	dst := ipNet(netip.PrefixFrom(p.Addr, 32))
	if err := h.RouteAdd(&netlink.Route{LinkIndex: device.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}); err != nil {
		return err
	}
	mac, err := net.ParseMAC(string(node.PodMAC(p.Addr)))
	if err != nil {
		return err
	}
	if err := h.NeighSet(permanent(device, p.Addr, mac)); err != nil {
		return err
	}
	to := netlink.NewRule()
	to.Priority, to.Dst, to.Table = toPodPriority, dst, unix.RT_TABLE_MAIN
	if err := h.RuleAdd(to); err != nil {
		return err
	}
	if p.Slot == 1 {
		return nil
	}
	from := netlink.NewRule()
	from.Priority, from.Src, from.Table = fromPodPriority, dst, tableOfENI+int(p.Slot)-1
	return h.RuleAdd(from)
}
