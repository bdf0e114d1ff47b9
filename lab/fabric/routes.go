package fabric

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"

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
		if index, ok := plugged[e.ID]; ok {
			hop = nextHop{index, e.Primary}
			want[routeKey{unix.RT_TABLE_DEFAULT, everything, index}] = hop
		}
		for _, p := range e.owned() {
			want[routeKey{unix.RT_TABLE_MAIN, p, 0}] = hop
		}
	}
	return want
}

// syncRoutes writes neighbours and routes. A route that changes its next hop is
// replaced in one step.
func (v *vpcNet) syncRoutes(vpc VPC, plugged map[string]int) []error {
	errs := v.syncNeighbours(vpc, plugged)
	want := wantedRoutes(vpc, plugged, v.sinks)
	var extra []netlink.Route
	for _, table := range []int{unix.RT_TABLE_MAIN, unix.RT_TABLE_DEFAULT} {
		have, err := dump(func() ([]netlink.Route, error) {
			return v.nl.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return append(errs, fmt.Errorf("list routes: %w", err))
		}
		for _, r := range have {
			key := routeKey{table, prefixOf(r.Dst), r.Priority}
			hop, ok := want[key]
			switch {
			case !ok:
				extra = append(extra, r)
			case hop == hopOf(r):
				delete(want, key)
			}
		}
	}
	for key, hop := range want {
		err := v.nl.RouteReplace(&netlink.Route{
			Table:     key.table,
			Dst:       ipNet(key.dst),
			Priority:  key.priority,
			LinkIndex: hop.index,
			Gw:        hop.via.AsSlice(),
			Flags:     int(netlink.FLAG_ONLINK),
			Protocol:  unix.RTPROT_STATIC,
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("add route to %s: %w", key.dst, err))
		}
	}
	for _, r := range extra {
		if err := v.nl.RouteDel(&r); err != nil {
			errs = append(errs, fmt.Errorf("remove route to %s: %w", r.Dst, err))
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
		if index, ok := plugged[e.ID]; ok {
			want[key{index, e.Primary}] = e.MAC
		}
	}
	have, err := dump(func() ([]netlink.Neigh, error) { return v.nl.NeighList(0, unix.AF_INET) })
	if err != nil {
		return []error{fmt.Errorf("list neighbours: %w", err)}
	}
	var errs []error
	for _, n := range have {
		if n.State&unix.NUD_PERMANENT == 0 {
			continue // the kernel's own, for the sinks
		}
		addr, _ := netip.AddrFromSlice(n.IP.To4())
		k := key{n.LinkIndex, addr}
		mac, ok := want[k]
		switch {
		case !ok:
			if err := v.nl.NeighDel(&n); err != nil {
				errs = append(errs, fmt.Errorf("remove neighbour %s: %w", addr, err))
			}
		case bytes.Equal(mac[:], n.HardwareAddr):
			delete(want, k)
		}
	}
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

func hopOf(r netlink.Route) nextHop {
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
