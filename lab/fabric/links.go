package fabric

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// A link joins two places: namespaces of the fabric that routes lead between.
//
//	VPC  <-- peering -->           VPC
//	VPC  <-- attachment -->        transit gateway
//	VPC  <-- internet gateway -->  internet
//
// It is a veth pair of the implied router's MAC without ARP: the kernel then
// takes the device's own MAC for every neighbour, which is the other end's too.

// placeKind is what a namespace stands for.
type placeKind string

const (
	placeVPC      placeKind = "vpc"
	placeTransit  placeKind = "tgw"
	placeInternet placeKind = "internet"
)

type place struct {
	kind placeKind
	id   string
}

// String is for errors and device aliases.
func (p place) String() string {
	if p.kind == placeInternet {
		return string(p.kind)
	}
	return p.id
}

// link is wanted. Both ends have the device name DeviceName(id).
type link struct {
	id   string
	mtu  int // bytes
	ends [2]linkEnd
}

// linkEnd is a device in a place. Like an ENI's, its ifindex is unique over all
// places: what comes by it and is dropped is counted under it.
type linkEnd struct {
	place   place
	index   int
	in, out *ebpf.Program
	table   int // number of the route table for what comes in; 0: local delivery only
}

// alias tells a person what it is, and Sync whether it is still what is wanted.
func (l link) alias() string {
	return fmt.Sprintf("%s%s %s %s", linkAlias, l.id, l.ends[0].place, l.ends[1].place)
}

const linkAlias = "link "

func isLink(l netlink.Link) bool { return strings.HasPrefix(l.Attrs().Alias, linkAlias) }

// wantedLinks lists the links of a topology, without their numbers.
func (f *Fabric) wantedLinks(c checked) []link {
	var links []link
	vpcs := map[string]VPC{}
	for _, v := range c.vpcs {
		vpcs[v.ID] = v
		if v.InternetGateway != "" {
			links = append(links, link{id: v.InternetGateway, mtu: internetMTU, ends: [2]linkEnd{
				{place: place{placeVPC, v.ID}, in: f.objs.FromIgw, out: f.objs.ToIgw},
				{place: place{placeInternet, ""}},
			}})
		}
	}
	for _, p := range c.peerings {
		l := link{id: p.ID, mtu: peeringMTU(vpcs[p.VPCs[0]], vpcs[p.VPCs[1]])}
		for i, id := range p.VPCs {
			l.ends[i] = linkEnd{place: place{placeVPC, id}, in: f.objs.FromLink, out: f.objs.ToLink}
		}
		links = append(links, l)
	}
	for _, g := range c.transit {
		for _, a := range g.Attachments {
			links = append(links, link{id: a.ID, mtu: transitMTU, ends: [2]linkEnd{
				{place: place{placeVPC, a.VPC}, in: f.objs.FromLink, out: f.objs.ToLink, table: f.subnetTable(vpcs[a.VPC], a.Subnet)},
				{place: place{placeTransit, g.ID}, in: f.objs.FromLink, out: f.objs.ToLink},
			}})
		}
	}
	return links
}

// linkKey is what keeps its ifindex from one Sync to the next.
type linkKey struct {
	id    string
	place place
}

// numberLinks gives each end its ifindex: the one it has, or a new one, whose
// place in the BPF maps no ENI and no other end has.
func (f *Fabric) numberLinks(links []link, enis map[string]port) {
	ports := map[linkKey]int{}
	taken := map[int]bool{}
	for _, p := range enis {
		taken[p.index%eniSlots] = true
	}
	for _, index := range f.linkPorts {
		taken[index%eniSlots] = true
	}
	for i := range links {
		for j := range links[i].ends {
			end := &links[i].ends[j]
			key := linkKey{links[i].id, end.place}
			if end.index = f.linkPorts[key]; end.index == 0 {
				for taken[f.next%eniSlots] && len(taken) < eniSlots {
					f.next++
				}
				end.index = f.next
				taken[end.index%eniSlots] = true
				f.next++
			}
			ports[key] = end.index
		}
	}
	f.linkPorts = ports
}

// at finds the namespace of a place; nil where it could not be made.
func (f *Fabric) at(p place) *vpcNet {
	switch p.kind {
	case placeVPC:
		return f.vpcs[p.id]
	case placeTransit:
		return f.transit[p.id]
	default:
		return f.internet
	}
}

// places lists the namespaces that links can be in, as they are now.
func (f *Fabric) places() map[place]*vpcNet {
	all := map[place]*vpcNet{{placeInternet, ""}: f.internet}
	for id, n := range f.vpcs {
		all[place{placeVPC, id}] = n
	}
	for id, n := range f.transit {
		all[place{placeTransit, id}] = n
	}
	return all
}

// retireLinks removes the links that nobody wants any more, before the places
// at their other ends go. Their routes become black holes first: a route that
// goes with its device would let packets follow the next shorter prefix.
func (f *Fabric) retireLinks(links []link) []error {
	type key struct {
		place place
		name  string
	}
	want := map[key]string{}
	for _, l := range links {
		for _, e := range l.ends {
			want[key{e.place, DeviceName(l.id)}] = fmt.Sprintf("%s %d", l.alias(), e.index)
		}
	}
	var errs []error
	gone := map[*vpcNet][]netlink.Link{}
	for p, n := range f.places() {
		have, err := dump(n.nl.LinkList)
		if err != nil {
			errs = append(errs, fmt.Errorf("list links of %s: %w", p, err))
			continue
		}
		for _, l := range have {
			a := l.Attrs()
			if isLink(l) && want[key{p, a.Name}] != fmt.Sprintf("%s %d", a.Alias, a.Index) {
				gone[n] = append(gone[n], l)
			}
		}
		if err := n.blackholeRoutes(gone[n]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p, err))
		}
	}
	for n, links := range gone {
		errs = append(errs, n.removeLinks(links))
	}
	return errs
}

// syncLinks makes the links and gives the IDs of those that are up.
func (f *Fabric) syncLinks(ctx context.Context, links []link) (up map[string]bool, errs []error) {
	up = map[string]bool{}
	if err := ctx.Err(); err != nil {
		return up, []error{err}
	}
	have := map[place]map[string]netlink.Link{}
	for p, n := range f.places() {
		list, err := dump(n.nl.LinkList)
		if err != nil {
			return up, []error{fmt.Errorf("list links of %s: %w", p, err)}
		}
		have[p] = byName(list)
	}
	for _, l := range links {
		if err := f.syncLink(l, have); err != nil {
			errs = append(errs, fmt.Errorf("link %s: %w", l.id, err))
			continue
		}
		up[l.id] = true
	}
	return up, errs
}

func (f *Fabric) syncLink(l link, have map[place]map[string]netlink.Link) error {
	name := DeviceName(l.id)
	var found [2]netlink.Link
	for i, e := range l.ends {
		if f.at(e.place) == nil {
			return fmt.Errorf("place %s is not there", e.place)
		}
		if d := have[e.place][name]; d != nil && d.Attrs().Alias == l.alias() && d.Attrs().Index == e.index && d.Attrs().Group != deadGroup {
			found[i] = d
		}
	}
	if found[0] == nil || found[1] == nil {
		for _, e := range l.ends {
			if d := have[e.place][name]; d != nil {
				if err := f.at(e.place).removeLinks([]netlink.Link{d}); err != nil {
					return err
				}
			}
		}
		if err := f.createLink(l); err != nil {
			return err
		}
		for i, e := range l.ends {
			d, err := f.at(e.place).nl.LinkByIndex(e.index)
			if err != nil {
				return fmt.Errorf("find device %d: %w", e.index, err)
			}
			found[i] = d
		}
	}
	for i, e := range l.ends {
		if err := f.at(e.place).syncLinkEnd(l, e, found[i]); err != nil {
			return fmt.Errorf("end in %s: %w", e.place, err)
		}
	}
	for _, e := range l.ends {
		if err := f.at(e.place).startQueue(e.index); err != nil {
			return fmt.Errorf("end in %s: %w", e.place, err)
		}
	}
	return nil
}

// createLink makes both ends in one request: the ifindex of the other end can be
// chosen only there.
func (f *Fabric) createLink(l link) error {
	end := func(parent *nl.RtAttr, attrs ...*nl.RtAttr) {
		for _, a := range attrs {
			parent.AddChild(a)
		}
	}
	attrs := func() []*nl.RtAttr {
		return []*nl.RtAttr{
			nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(DeviceName(l.id))),
			nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(l.mtu))),
			nl.NewRtAttr(unix.IFLA_ADDRESS, RouterMAC[:]),
		}
	}
	here, there := l.ends[0], l.ends[1]
	err := netns.Do(f.at(here.place).ns, func() error {
		req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
		msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index = int32(here.index)
		req.AddData(msg)
		for _, a := range attrs() {
			req.AddData(a)
		}
		info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
		peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
		nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC).Index = int32(there.index)
		end(peer, append(attrs(), nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(f.at(there.place).ns.Fd()))))...)
		req.AddData(info)
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("create veth: %w", err)
	}
	return nil
}

// syncLinkEnd makes or mends what a device does not have from its creation.
func (v *vpcNet) syncLinkEnd(l link, e linkEnd, have netlink.Link) error {
	a := have.Attrs()
	if a.Alias != l.alias() {
		if err := v.nl.LinkSetAlias(have, l.alias()); err != nil {
			return fmt.Errorf("set alias: %w", err)
		}
	}
	if a.MTU != l.mtu {
		if err := v.nl.LinkSetMTU(have, l.mtu); err != nil {
			return fmt.Errorf("set mtu %d: %w", l.mtu, err)
		}
	}
	if !slices.Equal(a.HardwareAddr, RouterMAC[:]) {
		if err := v.nl.LinkSetHardwareAddr(have, RouterMAC[:]); err != nil {
			return fmt.Errorf("set router mac: %w", err)
		}
	}
	if a.RawFlags&unix.IFF_NOARP == 0 {
		if err := v.nl.LinkSetARPOff(have); err != nil {
			return fmt.Errorf("set arp off: %w", err)
		}
	}
	if e.in != nil {
		err := v.attach(have, e.in, netlink.HANDLE_MIN_INGRESS, Reason(e.table))
		if err = cmp.Or(err, v.attach(have, e.out, netlink.HANDLE_MIN_EGRESS, 0)); err != nil {
			return err
		}
	}
	if a.Flags&net.FlagUp == 0 {
		if err := v.nl.LinkSetUp(have); err != nil {
			return fmt.Errorf("set up: %w", err)
		}
	}
	return nil
}

// startQueue has the kernel start the queue of a device that has got its carrier,
// which it would do a moment later, and drop until then. To ask for one device is
// what does it (linkwatch_sync_dev in rtnl_getlink, since Linux 6.8).
func (v *vpcNet) startQueue(index int) error {
	if _, err := v.nl.LinkByIndex(index); err != nil {
		return fmt.Errorf("find device %d: %w", index, err)
	}
	return nil
}

// LinkCounters gives what was dropped of the packets that came by each peering,
// transit gateway attachment, internet gateway and NAT gateway of the topology,
// by its ID: no ENI of the place that dropped them had sent them there. Reasons
// that never occurred are absent.
func (f *Fabric) LinkCounters() (map[string]map[Reason]Count, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, ErrClosed
	}
	all := map[string]map[Reason]Count{}
	var errs []error
	add := func(id string, counts map[Reason]Count, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("read drop counters of %s: %w", id, err))
		}
		if all[id] == nil {
			all[id] = map[Reason]Count{}
		}
		for r, c := range counts {
			have := all[id][r]
			all[id][r] = Count{have.Packets + c.Packets, have.Bytes + c.Bytes}
		}
	}
	for key, index := range f.linkPorts {
		counts, err := f.countsOf(index)
		add(key.id, counts, err)
	}
	for id, p := range f.ports {
		if p.nat {
			counts, err := f.countsOf(p.index)
			add(id, counts, err)
			counts, err = f.untranslated(id)
			add(id, counts, err)
		}
	}
	return all, errors.Join(errs...)
}
