package fabric

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// syncTransit makes a transit gateway's routes. Its namespace has no ENI: what
// an attachment brings is asked of the table that the attachment names, and an
// attachment without a table leads nowhere.
//
//	ip rule: iif ATTACHMENT lookup TABLE
//	TABLE:   DST via ... dev ATTACHMENT | dev blackhole
//	main:    default ... dev no-route
func (f *Fabric) syncTransit(g TransitGateway, up map[string]bool) []error {
	n := f.transit[g.ID]
	want := map[routeKey]nextHop{
		{unix.RT_TABLE_MAIN, everything, 0}: {index: n.sinks[sinkNoRoute], via: sinkGateway},
	}
	for _, t := range g.Tables {
		table := tableBase + f.tables[tableKey{place{placeTransit, g.ID}, t.ID}]
		for _, r := range t.Routes {
			hop := nextHop{index: n.sinks[sinkBlackhole], via: sinkGateway}
			if index := f.linkPorts[linkKey{r.Target, place{placeTransit, g.ID}}]; r.Kind == ToAttachment && up[r.Target] && index != 0 {
				hop.index = index
			}
			want[routeKey{table, r.Dst, 0}] = hop
		}
	}
	rules := map[rule]bool{}
	for _, a := range g.Attachments {
		if number := f.tables[tableKey{place{placeTransit, g.ID}, a.Table}]; number != 0 {
			rules[rule{iif: DeviceName(a.ID), table: tableBase + number}] = true
		}
	}
	return append(n.writeRoutes(want), n.syncRules(rules)...)
}

// tableKey names a route table of a VPC or a transit gateway.
type tableKey struct {
	place place
	id    string
}

// numberTables gives each route table its number, 1..65535 in its place: the one
// it has, or one that no table of the last Sync had.
func (f *Fabric) numberTables(c checked) {
	numbers := map[tableKey]int{}
	number := func(p place, tables []RouteTable) {
		used := map[int]bool{}
		for key, n := range f.tables {
			if key.place == p {
				used[n] = true
			}
		}
		for _, t := range tables {
			key := tableKey{p, t.ID}
			n := f.tables[key]
			for next := 1; n == 0; next++ {
				if !used[next] {
					n = next
				}
			}
			used[n] = true
			numbers[key] = n
		}
	}
	for _, v := range c.vpcs {
		number(place{placeVPC, v.ID}, v.RouteTables)
	}
	for _, g := range c.transit {
		number(place{placeTransit, g.ID}, g.Tables)
	}
	f.tables = numbers
}

// subnetTable is the number of a subnet's route table; 0 is none.
func (f *Fabric) subnetTable(v VPC, subnet string) int {
	for _, s := range v.Subnets {
		if s.ID == subnet && subnet != "" {
			return f.tables[tableKey{place{placeVPC, v.ID}, s.RouteTable}]
		}
	}
	return 0
}

// openTransit makes the namespaces of new transit gateways and removes those of
// old ones, whose links are gone by then. Those that failed are left out.
func (f *Fabric) openTransit(wanted []TransitGateway) (open []TransitGateway, errs []error) {
	for id, n := range f.transit {
		if !slices.ContainsFunc(wanted, func(g TransitGateway) bool { return g.ID == id }) {
			if err := n.close(); err != nil {
				errs = append(errs, fmt.Errorf("remove transit gateway %s: %w", id, err))
			}
			delete(f.transit, id)
		}
	}
	for _, g := range wanted {
		n, err := f.transit[g.ID], error(nil)
		if n == nil {
			if n, err = newVPCNet(&f.objs.bpfPrograms); err == nil {
				f.transit[g.ID] = n
			}
		}
		if err == nil {
			err = n.syncBase(nil)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("transit gateway %s: %w", g.ID, err))
			continue
		}
		open = append(open, g)
	}
	return open, errs
}

// checkLinks sorts out what contradicts itself in what joins the VPCs that are
// good. Each is left out alone.
func (c *checked) checkLinks(t Topology) {
	taken := map[string]string{} // device name in a place, or ID -> link
	vpcs := map[string]bool{}
	for _, v := range c.vpcs {
		vpcs[v.ID] = true
		for _, e := range v.ENIs {
			taken[v.ID+" "+DeviceName(e.ID)] = e.ID
		}
		for name := range sinkReasons {
			taken[v.ID+" "+name] = "the fabric"
		}
	}
	claim := func(id string, vpcIDs ...string) error {
		if err := checkID(id); err != nil {
			return err
		}
		keys := []string{id}
		for _, v := range vpcIDs {
			if !vpcs[v] {
				return fmt.Errorf("vpc %s: %w", v, ErrUnknownVPC)
			}
			keys = append(keys, v+" "+DeviceName(id))
		}
		for i, k := range keys {
			if slices.Contains(keys[:i], k) {
				return errors.New("both ends are in one vpc")
			}
			if other, ok := taken[k]; ok {
				return fmt.Errorf("%s is taken by %s", k, other)
			}
		}
		for _, k := range keys {
			taken[k] = id
		}
		return nil
	}
	public := map[netip.Addr]string{}
	for i := range c.vpcs {
		v := &c.vpcs[i]
		if v.InternetGateway != "" {
			if err := claim(v.InternetGateway, v.ID); err != nil {
				c.errs = append(c.errs, fmt.Errorf("vpc %s: internet gateway %s: %w", v.ID, v.InternetGateway, err))
				v.InternetGateway = ""
			}
		}
		good, err := claimPublic(public, *v)
		v.Public = good
		c.errs = append(c.errs, err)
	}
	for _, p := range t.Peerings {
		if err := claim(p.ID, p.VPCs[:]...); err != nil {
			c.errs = append(c.errs, fmt.Errorf("peering %s: %w", p.ID, err))
			continue
		}
		c.peerings = append(c.peerings, p)
	}
	for _, g := range t.TransitGateways {
		if err := claim(g.ID); err != nil {
			c.errs = append(c.errs, fmt.Errorf("transit gateway %s: %w", g.ID, err))
			continue
		}
		good := TransitGateway{ID: g.ID}
		for _, a := range g.Attachments {
			err := claim(a.ID, a.VPC)
			if err == nil && slices.ContainsFunc(good.Attachments, func(b Attachment) bool { return b.VPC == a.VPC }) {
				err = errors.New("its vpc has another attachment to this transit gateway")
			}
			if err != nil {
				c.errs = append(c.errs, fmt.Errorf("attachment %s of %s: %w", a.ID, g.ID, err))
				continue
			}
			good.Attachments = append(good.Attachments, a)
		}
		tables, err := checkTables(g.Tables)
		good.Tables = tables
		if err != nil {
			c.errs = append(c.errs, fmt.Errorf("transit gateway %s: %w", g.ID, err))
		}
		c.transit = append(c.transit, good)
	}
	c.errs = slices.DeleteFunc(c.errs, func(err error) bool { return err == nil })
}

// claimPublic gives v the public addresses that no VPC before it has.
func claimPublic(taken map[netip.Addr]string, v VPC) (map[netip.Addr]netip.Addr, error) {
	good := map[netip.Addr]netip.Addr{}
	var errs []error
	for _, private := range slices.SortedFunc(maps.Keys(v.Public), netip.Addr.Compare) {
		public := v.Public[private]
		switch other, ok := taken[public]; {
		case !private.Is4() || !public.Is4():
			errs = append(errs, fmt.Errorf("vpc %s: public address %s of %s: not IPv4", v.ID, public, private))
		case ok:
			errs = append(errs, fmt.Errorf("vpc %s: public address %s of %s: belongs to %s", v.ID, public, private, other))
		default:
			taken[public], good[private] = private.String()+" in "+v.ID, public
		}
	}
	return good, errors.Join(errs...)
}

// checkTables leaves out tables and routes that cannot be.
func checkTables(tables []RouteTable) ([]RouteTable, error) {
	var good []RouteTable
	var errs []error
	for _, t := range tables {
		if err := checkID(t.ID); err != nil {
			errs = append(errs, fmt.Errorf("route table: %w", err))
			continue
		}
		if slices.ContainsFunc(good, func(g RouteTable) bool { return g.ID == t.ID }) {
			errs = append(errs, fmt.Errorf("route table %s is in the topology twice", t.ID))
			continue
		}
		kept := RouteTable{ID: t.ID}
		for _, r := range t.Routes {
			switch {
			case !r.Dst.IsValid() || !r.Dst.Addr().Is4() || r.Dst != r.Dst.Masked():
				errs = append(errs, fmt.Errorf("route table %s: destination %s is not an IPv4 prefix without host bits", t.ID, r.Dst))
			case slices.ContainsFunc(kept.Routes, func(k Route) bool { return k.Dst == r.Dst }):
				errs = append(errs, fmt.Errorf("route table %s: two routes to %s", t.ID, r.Dst))
			default:
				kept.Routes = append(kept.Routes, r)
			}
		}
		good = append(good, kept)
	}
	return good, errors.Join(errs...)
}
