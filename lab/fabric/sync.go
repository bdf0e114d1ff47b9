package fabric

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Result is what came of each ENI of the topology.
type Result struct {
	ENIs map[string]Status // by ENI ID
}

// Status of an ENI: plugged into its guest, or not, because it is not attached
// (Err is nil) or because of Err.
type Status struct {
	Plugged bool
	Err     error
}

// Sync makes the kernel hold what the topology says: it creates, changes and
// removes. It does what it can, and returns the errors of the rest joined; the
// same call again tries these again. An address that moves between ENIs of a VPC
// is at every moment at one of them. When Sync returns, an ENI that is gone from
// the topology is gone from its guest.
func (f *Fabric) Sync(ctx context.Context, t Topology) (Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sync(ctx, t)
}

// sync is Sync for those who hold f.mu.
func (f *Fabric) sync(ctx context.Context, t Topology) (Result, error) {
	if f.closed {
		return Result{}, ErrClosed
	}
	f.last = t
	good := t.check()
	f.faults.holdDown(good.vpcs)
	errs := good.errs
	res := Result{ENIs: map[string]Status{}}
	for id, err := range good.enis {
		res.ENIs[id] = Status{Err: err}
	}

	ports := f.number(good.vpcs)
	f.numberTables(good)
	links := f.wantedLinks(good)
	f.numberLinks(links, ports)
	filters, rules, filterErrs := wantedFilters(good)
	errs = append(errs, filterErrs...)
	wanted := wantedMaps(good.vpcs, ports, filters, f.subnetTable)
	for key, index := range f.linkPorts {
		wanted.drops[uint32(index)] = true
		if filter, ok := filters[key.id]; ok && key.place.kind == placeVPC {
			wanted.enis[uint32(index)] = bpfEni{Ifindex: uint32(index), Filter: filter}
		}
	}
	staleRules, err := f.addRules(rules)
	if err != nil {
		return res, errors.Join(append(errs, err)...)
	}
	stale, err := f.addToMaps(f.keepTables(wanted))
	if err != nil {
		// Without its entries an ENI would be deaf; better not to touch the rest.
		return res, errors.Join(append(errs, err)...)
	}
	f.ports = ports

	errs = append(errs, f.retireLinks(links)...)
	errs = append(errs, f.removeVPCs(good.vpcs)...)
	transit, transitErrs := f.openTransit(good.transit)
	errs = append(append(errs, transitErrs...), f.openNATs(good.vpcs)...)
	failed := f.openVPCs(good.vpcs)
	errs = append(errs, f.syncNAT(f.wantedNAT(good.vpcs)), f.internet.syncBase(t.Internet.Hosts))
	up, linkErrs := f.syncLinks(ctx, links)
	errs = append(errs, linkErrs...)
	for _, g := range transit {
		errs = append(errs, f.syncTransit(g, up)...)
	}
	errs = append(errs, f.syncInternet(good.vpcs, up)...)
	for _, v := range good.vpcs {
		vpcErrs := f.syncVPC(ctx, v, res, beyond{failed[v.ID], up, good.peerings, good.transit})
		for _, err := range vpcErrs {
			errs = append(errs, fmt.Errorf("vpc %s: %w", v.ID, err))
		}
	}
	_, err = f.addToMaps(wanted) // the tables are there now
	errs = append(errs, err, f.removeFromMaps(stale), f.removeRules(staleRules), f.syncFaults(good.vpcs, res))
	f.closeNATs(good.vpcs)
	f.listeners.closeUnless(func(o owner) bool {
		_, vpc := f.vpcs[o.vpc]
		return vpc && (o.eni == "" || f.ports[o.eni].vpc == o.vpc)
	})
	return res, errors.Join(errs...)
}

// number gives each ENI its ifindex: the one it has, or a new one, whose place
// in the BPF maps no other has or had a moment ago.
func (f *Fabric) number(vpcs []VPC) map[string]port {
	ports := map[string]port{}
	taken := map[int]bool{}
	for _, p := range f.ports {
		taken[p.index%eniSlots] = true
	}
	for _, index := range f.linkPorts {
		taken[index%eniSlots] = true
	}
	for _, v := range vpcs {
		for _, e := range v.ENIs {
			index := f.ports[e.ID].index
			if index == 0 {
				for taken[f.next%eniSlots] && len(taken) < eniSlots {
					f.next++
				}
				index = f.next
				taken[index%eniSlots] = true
				f.next++
			}
			ports[e.ID] = port{strings.HasPrefix(e.Guest, natGuest("")), v.ID, index, e.Primary}
		}
	}
	return ports
}

func (f *Fabric) removeVPCs(wanted []VPC) []error {
	var errs []error
	for id, v := range f.vpcs {
		if slices.ContainsFunc(wanted, func(w VPC) bool { return w.ID == id }) {
			continue
		}
		f.listeners.closeUnless(func(o owner) bool { return o.vpc != id })
		if err := v.close(); err != nil {
			errs = append(errs, fmt.Errorf("remove vpc %s: %w", id, err))
		}
		delete(f.vpcs, id)
	}
	return errs
}

// openVPCs makes the namespaces of new VPCs, and gives the errors by VPC.
func (f *Fabric) openVPCs(wanted []VPC) map[string]error {
	failed := map[string]error{}
	for _, v := range wanted {
		n, ok := f.vpcs[v.ID]
		if !ok {
			made, err := newVPCNet(&f.objs.bpfPrograms)
			if err != nil {
				failed[v.ID] = err
				continue
			}
			n, f.vpcs[v.ID] = made, made
		}
		if err := n.syncBase(f.services); err != nil {
			failed[v.ID] = err
		}
	}
	return failed
}

// beyond is what a VPC's Sync needs to know of what was done before it: whether
// its namespace failed, the links that are up, and what they are.
type beyond struct {
	failed   error
	up       map[string]bool
	peerings []Peering
	transit  []TransitGateway
}

// syncVPC puts the status of v's ENIs into res.
func (f *Fabric) syncVPC(ctx context.Context, v VPC, res Result, b beyond) []error {
	fail := func(err error) []error {
		for _, e := range v.ENIs {
			res.ENIs[e.ID] = Status{Err: err}
		}
		return []error{err}
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	if b.failed != nil {
		return fail(b.failed)
	}
	n := f.vpcs[v.ID]

	var errs []error
	var ends []end
	for _, e := range v.ENIs {
		if e.Guest == "" {
			res.ENIs[e.ID] = Status{}
			continue
		}
		g, ok := f.guests[e.Guest]
		if !ok {
			err := fmt.Errorf("plug eni %s into %s: %w", e.ID, e.Guest, ErrUnknownGuest)
			res.ENIs[e.ID] = Status{Err: err}
			errs = append(errs, err)
			continue
		}
		ends = append(ends, end{eni: e, guest: g, index: f.ports[e.ID].index})
	}
	extra, failed, err := n.syncEnds(ctx, ends)
	if err != nil {
		return fail(err)
	}
	plugged := map[string]int{}
	for _, d := range ends {
		if err := failed[d.eni.ID]; err != nil {
			errs = append(errs, err)
			res.ENIs[d.eni.ID] = Status{Err: err}
			continue
		}
		plugged[d.eni.ID] = d.index
		res.ENIs[d.eni.ID] = Status{Plugged: true}
	}
	// Routes before removal: a packet for an ENI that is being unplugged finds
	// the sink for that, never a route that went with the device.
	errs = append(errs, n.syncNeighbours(v, plugged)...)
	want := wantedRoutes(v, plugged, n.sinks)
	maps.Copy(want, f.wantedTables(v, f.targets(v, plugged, b)))
	errs = append(errs, n.writeRoutes(want)...)
	rules := map[rule]bool{}
	for _, t := range v.RouteTables {
		number := f.tables[tableKey{place{placeVPC, v.ID}, t.ID}]
		rules[rule{mark: uint32(number), table: tableBase + number}] = true
	}
	errs = append(errs, n.syncRules(rules)...)
	for _, g := range v.NATGateways {
		if _, ok := plugged[g.ID]; ok {
			if err := f.syncNATGateway(v, g); err != nil {
				errs = append(errs, err)
			}
		}
		delete(res.ENIs, g.ID)
	}
	errs = append(errs, n.setLinksDown(v, plugged)...)
	if err := n.removeLinks(extra); err != nil {
		errs = append(errs, err)
	}
	return errs
}
