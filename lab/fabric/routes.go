package fabric

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sinkGateway stands at the end of routes to sinks. With a gateway the kernel
// keeps one neighbour for all destinations instead of one for each.
var sinkGateway = netip.MustParseAddr("169.254.0.1")

var everything = netip.MustParsePrefix("0.0.0.0/0")

// routeKey is what the kernel tells routes apart by; priority is the metric.
type routeKey struct {
	table    int
	dst      netip.Prefix
	priority int
}

// nextHop is always onlink: no fabric end has an address.
type nextHop struct {
	index int
	via   netip.Addr
}

// throw is no way out, but back to the rules: main is asked next.
var throw = nextHop{index: -1}

// tableBase is the kernel's table before a place's first route table: above the
// kernel's own (253 to 255).
const tableBase = 1000

// wantedRoutes is the VPC's address table. plugged has the ifindex of each ENI
// that is plugged in.
//
//	main:     default              -> no-route
//	          CIDR of the VPC      -> no-owner
//	          address of an ENI    -> its device, or not-attached
//	default:  default, per device  -> the ENI
//
// Table default (253) is asked last, and main has a route for everything: what
// the kernel forwards never gets there. It is for the answers of sockets that
// are bound to an ENI: those leave by its device even where the asker's address
// is another ENI's, or nobody's (a NAT instance's, with the check off).
func wantedRoutes(v VPC, plugged, sinks map[string]int) map[routeKey]nextHop {
	want := map[routeKey]nextHop{
		{unix.RT_TABLE_MAIN, everything, 0}: {sinks[sinkNoRoute], sinkGateway},
	}
	for _, cidr := range v.CIDRs {
		want[routeKey{unix.RT_TABLE_MAIN, cidr, 0}] = nextHop{sinks[sinkNoOwner], sinkGateway}
	}
	for _, e := range v.ENIs {
		hop := nextHop{sinks[sinkNotAttached], sinkGateway}
		if index, ok := plugged[e.ID]; ok && e.down {
			hop = nextHop{sinks[sinkLinkDown], sinkGateway}
		} else if ok {
			hop = nextHop{index, e.Primary}
			want[routeKey{unix.RT_TABLE_DEFAULT, everything, index}] = hop
		}
		for _, p := range e.owned() {
			want[routeKey{unix.RT_TABLE_MAIN, p, 0}] = hop
		}
	}
	return want
}

// target is what a route of a VPC names.
type target struct {
	kind TargetKind
	id   string
}

// targets lists where the routes of v's tables can lead just now. An ENI
// forwards what is not for itself only with its check off; with it on, what it
// does not own is dropped by the check.
func (f *Fabric) targets(v VPC, plugged map[string]int, b beyond) map[target]nextHop {
	sinks := f.vpcs[v.ID].sinks
	all := map[target]nextHop{}
	for _, e := range v.ENIs {
		index, ok := plugged[e.ID]
		switch {
		case !ok:
		case e.down:
			all[target{ToENI, e.ID}] = nextHop{sinks[sinkLinkDown], sinkGateway}
		case f.ports[e.ID].nat:
			all[target{ToNATGateway, e.ID}] = nextHop{index, e.Primary}
		case e.SourceDestCheck:
			all[target{ToENI, e.ID}] = nextHop{sinks[sinkSrcDstCheck], sinkGateway}
		default:
			all[target{ToENI, e.ID}] = nextHop{index, e.Primary}
		}
	}
	by := func(kind TargetKind, id, linkID string) {
		if index := f.linkPorts[linkKey{linkID, place{placeVPC, v.ID}}]; index != 0 && b.up[linkID] {
			all[target{kind, id}] = nextHop{index, sinkGateway}
		}
	}
	by(ToInternetGateway, v.InternetGateway, v.InternetGateway)
	for _, p := range b.peerings {
		by(ToPeering, p.ID, p.ID) // by has no device of those that are not v's
	}
	for _, g := range b.transit {
		for _, a := range g.Attachments {
			if a.VPC == v.ID {
				by(ToTransitGateway, g.ID, a.ID)
			}
		}
	}
	return all
}

// wantedTables is the VPC's route tables, each in a table of the kernel:
//
//	CIDR of the VPC           throw            the local route: main delivers
//	destination of a route    -> its target, or blackhole
//
// What no route matches falls through to main, whose default is no-route. A
// route that is more specific than the local one and leads to an ENI with the
// check on still delivers what the ENI owns.
func (f *Fabric) wantedTables(v VPC, targets map[target]nextHop) map[routeKey]nextHop {
	sinks := f.vpcs[v.ID].sinks
	want := map[routeKey]nextHop{}
	for _, t := range v.RouteTables {
		table := tableBase + f.tables[tableKey{place{placeVPC, v.ID}, t.ID}]
		for _, cidr := range v.CIDRs {
			want[routeKey{table, cidr, 0}] = throw
		}
		for _, r := range t.Routes {
			hop, ok := targets[target{r.Kind, r.Target}]
			if !ok {
				hop = nextHop{sinks[sinkBlackhole], sinkGateway}
			}
			want[routeKey{table, r.Dst, 0}] = hop
		}
		for _, r := range t.Routes {
			for _, p := range v.ownedByChecked(r) {
				if key := (routeKey{table, p, 0}); want[key] == (nextHop{}) {
					want[key] = throw
				}
			}
		}
	}
	return want
}

// ownedByChecked lists what the target of r owns within r's destination, if it
// is an ENI with the check on.
func (v VPC) ownedByChecked(r Route) []netip.Prefix {
	var own []netip.Prefix
	for _, e := range v.ENIs {
		if r.Kind != ToENI || e.ID != r.Target || !e.SourceDestCheck {
			continue
		}
		for _, p := range e.owned() {
			if r.Dst.Overlaps(p) && p.Bits() > r.Dst.Bits() {
				own = append(own, p)
			}
		}
	}
	return own
}

// writeRoutes makes the kernel hold the wanted routes and no others, but for
// those to the namespace's own addresses. A route that changes its next hop is
// replaced in one step.
func (v *vpcNet) writeRoutes(want map[routeKey]nextHop) (errs []error) {
	have, err := v.allRoutes()
	if err != nil {
		return []error{err}
	}
	var extra []netlink.Route
	for _, r := range have {
		key := routeKey{r.Table, prefixOf(r.Dst), r.Priority}
		hop, ok := want[key]
		switch {
		case !ok:
			extra = append(extra, r)
		case hop == hopOf(r):
			delete(want, key)
		}
	}
	for key, hop := range want {
		if err := v.replaceRoute(key, hop); err != nil {
			errs = append(errs, err)
		}
	}
	return append(errs, v.removeRoutes(extra)...)
}

// removeRoutes counts those as removed that went with their devices.
func (v *vpcNet) removeRoutes(extra []netlink.Route) (errs []error) {
	for _, r := range extra {
		if err := v.nl.RouteDel(&r); err != nil && !isGone(err) {
			errs = append(errs, fmt.Errorf("remove route to %s: %w", r.Dst, err))
		}
	}
	return errs
}

// isGone tells what the kernel says of a route, a neighbour or a device that it
// has taken away itself: those of a dead guest go whenever its worker comes to
// them, at any step of a Sync.
func isGone(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}

// allRoutes lists the routes of all tables but local, which is the kernel's.
func (v *vpcNet) allRoutes() ([]netlink.Route, error) {
	have, err := dump(func() ([]netlink.Route, error) {
		return v.nl.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return slices.DeleteFunc(have, func(r netlink.Route) bool { return r.Table == unix.RT_TABLE_LOCAL }), nil
}

func (v *vpcNet) replaceRoute(key routeKey, hop nextHop) error {
	r := &netlink.Route{Table: key.table, Dst: ipNet(key.dst), Priority: key.priority, Protocol: unix.RTPROT_STATIC}
	if hop == throw {
		r.Type = unix.RTN_THROW
	} else {
		r.LinkIndex, r.Gw, r.Flags = hop.index, hop.via.AsSlice(), int(netlink.FLAG_ONLINK)
	}
	if err := v.nl.RouteReplace(r); err != nil {
		return fmt.Errorf("add route to %s in table %d: %w", key.dst, key.table, err)
	}
	return nil
}

// blackholeRoutes is for devices that are about to go.
func (v *vpcNet) blackholeRoutes(links []netlink.Link) error {
	if len(links) == 0 {
		return nil
	}
	have, err := v.allRoutes()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range have {
		if slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Index == r.LinkIndex }) {
			errs = append(errs, v.replaceRoute(routeKey{r.Table, prefixOf(r.Dst), r.Priority}, nextHop{v.sinks[sinkBlackhole], sinkGateway}))
		}
	}
	return errors.Join(errs...)
}

// rule leads packets with a mark, or from a device, to a table.
type rule struct {
	mark  uint32 // in MARK_TABLE of bpf/fabric.h
	iif   string
	table int
}

const (
	markTable = 0xffff // MARK_TABLE in bpf/fabric.h
	// rulePriority is between the kernel's rules for local (0) and main (32766).
	rulePriority = 1000
)

func (v *vpcNet) syncRules(want map[rule]bool) (errs []error) {
	have, err := dump(func() ([]netlink.Rule, error) { return v.nl.RuleList(unix.AF_INET) })
	if err != nil {
		return []error{fmt.Errorf("list rules: %w", err)}
	}
	var extra []netlink.Rule
	for _, r := range have {
		k := rule{r.Mark, r.IifName, r.Table}
		switch {
		case r.Table < tableBase: // the kernel's own
		case r.Priority == rulePriority && want[k]:
			delete(want, k)
		default:
			extra = append(extra, r)
		}
	}
	for k := range want {
		r := netlink.NewRule()
		r.Family, r.Priority, r.Table, r.Mark, r.IifName = unix.AF_INET, rulePriority, k.table, k.mark, k.iif
		if mask := uint32(markTable); k.mark != 0 {
			r.Mask = &mask
		}
		if err := v.nl.RuleAdd(r); err != nil {
			errs = append(errs, fmt.Errorf("add rule for table %d: %w", k.table, err))
		}
	}
	for _, r := range extra {
		if err := v.nl.RuleDel(&r); err != nil {
			errs = append(errs, fmt.Errorf("remove rule for table %d: %w", r.Table, err))
		}
	}
	return errs
}

// syncNeighbours makes each plugged ENI's primary address known by its MAC for
// good: the VPC asks no guest who it is, and believes none.
func (v *vpcNet) syncNeighbours(vpc VPC, plugged map[string]int) []error {
	type key struct {
		index int
		addr  netip.Addr
	}
	want := map[key]MAC{}
	for _, e := range vpc.ENIs {
		if index, ok := plugged[e.ID]; ok && !e.down {
			want[key{index, e.Primary}] = e.MAC
		}
	}
	have, err := v.permanentNeighbours()
	if err != nil {
		return []error{err}
	}
	var extra []netlink.Neigh
	for _, n := range have {
		addr, _ := netip.AddrFromSlice(n.IP.To4())
		k := key{n.LinkIndex, addr}
		mac, ok := want[k]
		switch {
		case !ok:
			extra = append(extra, n)
		case bytes.Equal(mac[:], n.HardwareAddr):
			delete(want, k)
		}
	}
	errs := v.removeNeighbours(extra)
	for k, mac := range want {
		err := v.nl.NeighSet(&netlink.Neigh{
			LinkIndex:    k.index,
			Family:       unix.AF_INET,
			State:        unix.NUD_PERMANENT,
			IP:           k.addr.AsSlice(),
			HardwareAddr: mac[:],
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("add neighbour %s: %w", k.addr, err))
		}
	}
	return errs
}

// permanentNeighbours leaves out the kernel's own, for the sinks.
func (v *vpcNet) permanentNeighbours() ([]netlink.Neigh, error) {
	have, err := dump(func() ([]netlink.Neigh, error) { return v.nl.NeighList(0, unix.AF_INET) })
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	return slices.DeleteFunc(have, func(n netlink.Neigh) bool { return n.State&unix.NUD_PERMANENT == 0 }), nil
}

// removeNeighbours counts those as removed that went with their devices.
func (v *vpcNet) removeNeighbours(extra []netlink.Neigh) (errs []error) {
	for _, n := range extra {
		if err := v.nl.NeighDel(&n); err != nil && !isGone(err) {
			errs = append(errs, fmt.Errorf("remove neighbour %s: %w", n.IP, err))
		}
	}
	return errs
}

func hopOf(r netlink.Route) nextHop {
	if r.Type == unix.RTN_THROW {
		return throw
	}
	if r.Flags&int(netlink.FLAG_ONLINK) == 0 || r.Type != unix.RTN_UNICAST {
		return nextHop{}
	}
	via, _ := netip.AddrFromSlice(r.Gw.To4())
	return nextHop{r.LinkIndex, via}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// prefixOf reads the kernel's form; none at all is the default route.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return everything
	}
	addr, _ := netip.AddrFromSlice(n.IP.To4())
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr, bits)
}
