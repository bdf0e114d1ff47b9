package fabric

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	if f.closed {
		return Result{}, ErrClosed
	}
	good := t.check()
	errs := good.errs
	res := Result{ENIs: map[string]Status{}}
	for id, err := range good.enis {
		res.ENIs[id] = Status{Err: err}
	}

	ports := f.number(good.vpcs)
	wanted := wantedMaps(good.vpcs, ports)
	stale, err := f.addToMaps(wanted)
	if err != nil {
		// Without its entries an ENI would be deaf; better not to touch the rest.
		return res, errors.Join(append(errs, err)...)
	}
	f.ports = ports

	errs = append(errs, f.removeVPCs(good.vpcs)...)
	for _, v := range good.vpcs {
		vpcErrs := f.syncVPC(ctx, v, res)
		for _, err := range vpcErrs {
			errs = append(errs, fmt.Errorf("vpc %s: %w", v.ID, err))
		}
	}
	errs = append(errs, f.removeFromMaps(stale))
	f.listeners.closeUnless(func(o owner) bool {
		_, vpc := f.vpcs[o.vpc]
		return vpc && (o.eni == "" || f.ports[o.eni].vpc == o.vpc)
	})
	return res, errors.Join(errs...)
}

// number gives each ENI its ifindex: the one it has, or a new one.
func (f *Fabric) number(vpcs []VPC) map[string]port {
	ports := map[string]port{}
	for _, v := range vpcs {
		for _, e := range v.ENIs {
			index := f.ports[e.ID].index
			if index == 0 {
				index = f.next
				f.next++
			}
			ports[e.ID] = port{v.ID, index}
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

// syncVPC puts the status of v's ENIs into res.
func (f *Fabric) syncVPC(ctx context.Context, v VPC, res Result) []error {
	fail := func(err error) []error {
		for _, e := range v.ENIs {
			res.ENIs[e.ID] = Status{Err: err}
		}
		return []error{err}
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	n, ok := f.vpcs[v.ID]
	if !ok {
		made, err := newVPCNet(&f.objs.bpfPrograms)
		if err != nil {
			return fail(err)
		}
		n, f.vpcs[v.ID] = made, made
	}
	if err := n.syncBase(f.services); err != nil {
		return fail(err)
	}

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
	errs = append(errs, n.syncRoutes(v, plugged)...)
	if err := n.removeLinks(extra); err != nil {
		errs = append(errs, err)
	}
	return errs
}
