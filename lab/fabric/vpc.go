package fabric

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// The sinks: a route to one of them is a drop, with the reason that it stands
// for. A veth pair, for every kernel with network namespaces has that device; no
// packet crosses it.
const (
	sinkNoOwner     = "no-owner"
	sinkNotAttached = "not-attached"
	sinkNoRoute     = "no-route"
	sinkLinkDown    = "link-down"
	sinkBlackhole   = "blackhole"
	sinkSrcDstCheck = "src-dst-check"
)

var sinkReasons = map[string]Reason{
	sinkNoOwner:     NoOwner,
	sinkNotAttached: NotAttached,
	sinkNoRoute:     NoRoute,
	sinkLinkDown:    LinkDown,
	sinkBlackhole:   NoRouteTarget,
	sinkSrcDstCheck: SrcDstCheck,
}

// deadGroup marks links for deletion: all of a group go with one request, in the
// 20 ms that each would take by itself. One that is left in it, for the request
// failed, goes with the next whether or not it is wanted again; so it is never kept.
const deadGroup = 0xdead

// sysctls of a VPC namespace and of the others that forward. The programs see to ARP and to spoofed sources.
type sysctl struct{ name, value string }

var sysctls = []sysctl{
	{"ipv6/conf/all/disable_ipv6", "1"},
	{"ipv6/conf/default/disable_ipv6", "1"},
	{"ipv4/ip_forward", "1"},
	// A VPC does not care which way back there is.
	{"ipv4/conf/all/rp_filter", "0"},
	{"ipv4/conf/default/rp_filter", "0"},
	// Every packet leaves by a veth of its own: "go there directly" would be wrong.
	{"ipv4/conf/all/send_redirects", "0"},
	{"ipv4/conf/default/send_redirects", "0"},
	{"ipv4/conf/all/accept_redirects", "0"},
	{"ipv4/conf/default/accept_redirects", "0"},
}

// vpcNet is the network namespace of one VPC, or of a place that links lead to.
type vpcNet struct {
	ns    *os.File
	nl    *netlink.Handle
	progs *bpfPrograms
	sinks map[string]int // ifindex by name
}

// end is the wanted fabric end of an attached ENI.
type end struct {
	eni   ENI
	guest guest
	index int
}

// alias tells a person whose end it is, and Sync whether it is still the one
// that is wanted.
func (d end) alias() string {
	return fmt.Sprintf("%s %s/%s %s %s", d.eni.ID, d.eni.Guest, d.eni.Device, d.eni.MAC, d.guest.netnsName())
}

func newVPCNet(progs *bpfPrograms) (*vpcNet, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	v := &vpcNet{ns: ns, progs: progs}
	err = netns.Do(ns, func() error {
		v.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink socket: %w", err), ns.Close())
	}
	return v, nil
}

// close removes the devices at once, which closing the namespace alone would
// leave to a worker of the kernel.
func (v *vpcNet) close() error {
	var ends []netlink.Link
	links, err := dump(v.nl.LinkList)
	for _, l := range links {
		if !isOwn(l) || isLink(l) {
			ends = append(ends, l)
		}
	}
	err = errors.Join(err, v.removeLinks(ends))
	v.nl.Close()
	return errors.Join(err, v.ns.Close())
}

// isOwn tells lo, the sinks, links and the devices of faults from the ends of ENIs.
func isOwn(l netlink.Link) bool {
	_, sink := sinkReasons[l.Attrs().Name]
	return sink || isLink(l) || isFaultDevice(l) || l.Attrs().Flags&net.FlagLoopback != 0
}

// syncBase makes what the namespace has whatever the topology says.
func (v *vpcNet) syncBase(services []netip.Addr) error {
	err := netns.Do(v.ns, func() error {
		for _, s := range sysctls {
			if err := setSysctl("/proc/sys/net/"+s.name, s.value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := v.syncLoopback(services); err != nil {
		return err
	}
	return v.syncSinks()
}

func setSysctl(path, value string) error {
	have, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && bytes.Contains([]byte(path), []byte("/ipv6/")) {
		return nil // a kernel without IPv6 has nothing to disable
	}
	if err != nil {
		return fmt.Errorf("read sysctl: %w", err)
	}
	if string(bytes.TrimSpace(have)) == value {
		return nil // writing the same would flush the routing cache
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("write sysctl: %w", err)
	}
	return nil
}

func (v *vpcNet) syncLoopback(services []netip.Addr) error {
	lo, err := v.nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback device: %w", err)
	}
	if lo.Attrs().Flags&net.FlagUp == 0 {
		if err := v.nl.LinkSetUp(lo); err != nil {
			return fmt.Errorf("set loopback device up: %w", err)
		}
	}
	have, err := dump(func() ([]netlink.Addr, error) { return v.nl.AddrList(lo, unix.AF_INET) })
	if err != nil {
		return fmt.Errorf("list loopback addresses: %w", err)
	}
	for _, a := range services {
		want := netip.PrefixFrom(a, 32)
		if slices.ContainsFunc(have, func(h netlink.Addr) bool { return prefixOf(h.IPNet) == want }) {
			continue
		}
		if err := v.nl.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(want)}); err != nil {
			return fmt.Errorf("add service address %s: %w", a, err)
		}
	}
	for _, h := range have {
		a := prefixOf(h.IPNet).Addr()
		if !a.IsLoopback() && !slices.Contains(services, a) {
			if err := v.nl.AddrDel(lo, &h); err != nil {
				return fmt.Errorf("remove service address %s: %w", a, err)
			}
		}
	}
	return nil
}

func (v *vpcNet) syncSinks() error {
	links, err := dump(v.nl.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	have := byName(links)
	for _, pair := range [][2]string{{sinkNoOwner, sinkNotAttached}, {sinkNoRoute, sinkLinkDown}, {sinkBlackhole, sinkSrcDstCheck}} {
		if have[pair[0]] == nil {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.MTU = pair[0], 65535 // never too big for a drop
			veth := netlink.NewVeth(attrs)
			veth.PeerName = pair[1]
			if err := v.nl.LinkAdd(veth); err != nil {
				return fmt.Errorf("create sink %s: %w", pair[0], err)
			}
		}
	}
	if links, err = dump(v.nl.LinkList); err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	have = byName(links)
	v.sinks = map[string]int{}
	for name, reason := range sinkReasons {
		l := have[name]
		if l == nil {
			return fmt.Errorf("find sink %s: %w", name, os.ErrNotExist)
		}
		v.sinks[name] = l.Attrs().Index
		if err := v.attach(l, v.progs.ToSink, netlink.HANDLE_MIN_EGRESS, reason); err != nil {
			return fmt.Errorf("sink %s: %w", name, err)
		}
		if l.Attrs().RawFlags&unix.IFF_NOARP == 0 {
			if err := v.nl.LinkSetARPOff(l); err != nil {
				return fmt.Errorf("set arp off on sink %s: %w", name, err)
			}
		}
		if l.Attrs().Flags&net.FlagUp == 0 {
			if err := v.nl.LinkSetUp(l); err != nil {
				return fmt.Errorf("set sink %s up: %w", name, err)
			}
		}
	}
	return nil
}

// syncEnds makes the fabric ends and their peers in the guests. failed has the
// errors by ENI; extra are ends that nobody wants any more, still in place.
func (v *vpcNet) syncEnds(ctx context.Context, ends []end) (extra []netlink.Link, failed map[string]error, err error) {
	links, err := dump(v.nl.LinkList)
	if err != nil {
		return nil, nil, fmt.Errorf("list links: %w", err)
	}
	have := byName(links)
	// A device that is plugged in wrongly gives way first: the right one has its
	// name and ifindex.
	var wrong []netlink.Link
	wanted := map[string]bool{}
	for _, d := range ends {
		name := DeviceName(d.eni.ID)
		wanted[name] = true
		if l := have[name]; l != nil && (l.Attrs().Alias != d.alias() || l.Attrs().Index != d.index || l.Attrs().Group == deadGroup) {
			wrong = append(wrong, l)
			delete(have, name)
		}
	}
	if err := v.removeLinks(wrong); err != nil {
		return nil, nil, err
	}
	for _, l := range links {
		if !wanted[l.Attrs().Name] && !isOwn(l) {
			extra = append(extra, l)
		}
	}
	failed = map[string]error{}
	for _, d := range ends {
		if err := ctx.Err(); err != nil {
			return nil, nil, err // no ENI loses its routes for an impatient caller
		}
		if err := v.syncEnd(d, have[DeviceName(d.eni.ID)]); err != nil {
			failed[d.eni.ID] = fmt.Errorf("plug eni %s into %s as %s: %w", d.eni.ID, d.eni.Guest, d.eni.Device, err)
		}
	}
	return extra, failed, nil
}

// syncEnd makes or mends one end. The peer stays down: the guest's own programs
// find the new device and set it up, as after a hot plug.
func (v *vpcNet) syncEnd(d end, have netlink.Link) error {
	if have == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Index, attrs.MTU = DeviceName(d.eni.ID), d.index, d.eni.mtu()
		attrs.HardwareAddr = RouterMAC[:]
		veth := netlink.NewVeth(attrs)
		// The peer is born in the guest: moving it there later would hold the
		// kernel's RTNL lock for 15 ms.
		veth.PeerName, veth.PeerHardwareAddr, veth.PeerNamespace = d.eni.Device, d.eni.MAC[:], netlink.NsFd(d.guest.netns.Fd())
		if err := v.nl.LinkAdd(veth); err != nil {
			return fmt.Errorf("create veth: %w", err)
		}
		if err := v.nl.LinkSetAlias(veth, d.alias()); err != nil {
			return fmt.Errorf("set alias: %w", err)
		}
		have = veth
	}
	a := have.Attrs()
	if a.MTU != d.eni.mtu() {
		if err := v.nl.LinkSetMTU(have, d.eni.mtu()); err != nil {
			return fmt.Errorf("set mtu %d: %w", d.eni.mtu(), err)
		}
	}
	if !bytes.Equal(a.HardwareAddr, RouterMAC[:]) {
		if err := v.nl.LinkSetHardwareAddr(have, RouterMAC[:]); err != nil {
			return fmt.Errorf("set router mac: %w", err)
		}
	}
	// Programs before up: no packet passes unseen.
	if err := v.attach(have, v.progs.FromEni, netlink.HANDLE_MIN_INGRESS, 0); err != nil {
		return err
	}
	if err := v.attach(have, v.progs.ToEni, netlink.HANDLE_MIN_EGRESS, 0); err != nil {
		return err
	}
	if a.Flags&net.FlagUp == 0 && !d.eni.down {
		if err := v.nl.LinkSetUp(have); err != nil {
			return fmt.Errorf("set up: %w", err)
		}
	}
	return nil
}

// mainPriority is that of the VPC's own filters; those of faults come before or
// after it.
const mainPriority = 10

// attach puts a program of the VPC's own rules on a device. class is for the
// program to read; 0 is none.
func (v *vpcNet) attach(l netlink.Link, prog *ebpf.Program, parent uint32, class Reason) error {
	return v.filter(l, hook{parent, mainPriority, int(class)}, prog, true)
}

// removeLinks deletes all of them with one wait.
func (v *vpcNet) removeLinks(links []netlink.Link) error {
	if len(links) == 0 {
		return nil
	}
	for _, l := range links {
		if err := v.nl.LinkSetGroup(l, deadGroup); err != nil && !isGone(err) {
			return fmt.Errorf("remove device %s: %w", l.Attrs().Name, err)
		}
	}
	err := netns.Do(v.ns, func() error {
		req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(deadGroup)))
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if err != nil && !isGone(err) {
		return fmt.Errorf("remove %d devices: %w", len(links), err)
	}
	return nil
}

func byName(links []netlink.Link) map[string]netlink.Link {
	m := make(map[string]netlink.Link, len(links))
	for _, l := range links {
		m[l.Attrs().Name] = l
	}
	return m
}

// dump asks again when the kernel says that its answer is a mix of before and
// after: guests set their ends up and down at any time.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	for range 10 {
		got, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return got, err
		}
	}
	return list()
}
