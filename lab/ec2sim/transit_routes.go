package ec2sim

import (
	"cmp"
	"net/netip"
	"slices"
)

// TransitRouteInput names a static route of a transit gateway's table and, but
// for deleting, where it leads.
type TransitRouteInput struct {
	TableID      string
	Dst          netip.Prefix
	AttachmentID string
	Blackhole    bool // instead of an attachment
}

// CreateTransitGatewayRoute adds a static route.
func (c *Cloud) CreateTransitGatewayRoute(in TransitRouteInput) error {
	_, err := call(c, in, createHubRoute)
	return err
}

// ReplaceTransitGatewayRoute gives a static route another target.
func (c *Cloud) ReplaceTransitGatewayRoute(in TransitRouteInput) error {
	_, err := call(c, in, replaceHubRoute)
	return err
}

// DeleteTransitGatewayRoute takes a static route away.
func (c *Cloud) DeleteTransitGatewayRoute(in TransitRouteInput) error {
	_, err := call(c, in, deleteHubRoute)
	return err
}

func createHubRoute(s *state, in TransitRouteInput) (TransitRoute, error) {
	return s.editHubRoutes(in, func(t *TransitRouteTable, at int, found bool) error {
		target, err := s.hubTarget(*t, in)
		if err != nil {
			return err
		}
		if found {
			return fail("RouteAlreadyExists", "Route %s already exists in Transit Gateway Route Table %s.", in.Dst.Masked(), t.ID)
		}
		t.Routes = slices.Insert(t.Routes, at, TransitRoute{Dst: in.Dst.Masked(), Attachment: target})
		return nil
	})
}

func replaceHubRoute(s *state, in TransitRouteInput) (TransitRoute, error) {
	return s.editHubRoutes(in, func(t *TransitRouteTable, at int, found bool) error {
		target, err := s.hubTarget(*t, in)
		if err != nil {
			return err
		}
		if !found {
			return noHubRoute(*t, in.Dst)
		}
		t.Routes[at].Attachment = target
		return nil
	})
}

func deleteHubRoute(s *state, in TransitRouteInput) (TransitRoute, error) {
	return s.editHubRoutes(in, func(t *TransitRouteTable, at int, found bool) error {
		if !found {
			return noHubRoute(*t, in.Dst)
		}
		t.Routes = slices.Delete(t.Routes, at, at+1)
		return nil
	})
}

func noHubRoute(t TransitRouteTable, dst netip.Prefix) error {
	return fail("InvalidRoute.NotFound", "Route %s does not exist in Transit Gateway Route Table %s.", dst.Masked(), t.ID)
}

// hubTarget gives the attachment that a route leads to, empty for a black hole.
func (s *state) hubTarget(t TransitRouteTable, in TransitRouteInput) (string, error) {
	switch {
	case in.Blackhole && in.AttachmentID != "":
		return "", invalidCombination("A blackhole route cannot have an attachment.")
	case in.Blackhole:
		return "", nil
	}
	_, a, err := s.tie(TransitTieInput{t.ID, in.AttachmentID})
	return a.ID, err
}

// editHubRoutes changes a copy of a table's static routes; change is told where
// the destination is or belongs. It gives the route as it is afterwards, or was.
func (s *state) editHubRoutes(in TransitRouteInput, change func(*TransitRouteTable, int, bool) error) (TransitRoute, error) {
	t, err := s.findHubTable(in.TableID)
	if err != nil {
		return TransitRoute{}, err
	}
	if !in.Dst.IsValid() {
		return TransitRoute{}, missing("destinationCidrBlock")
	}
	t.Routes = slices.Clone(t.Routes)
	at, found := t.search(in.Dst.Masked())
	var route TransitRoute
	if found {
		route = t.Routes[at]
	}
	if err := change(&t, at, found); err != nil {
		return route, err
	}
	s.hubTables.put(t.ID, t)
	if at, found = t.search(in.Dst.Masked()); found {
		route = t.Routes[at]
	}
	return s.hubRouteState(route), nil
}

func (t TransitRouteTable) search(dst netip.Prefix) (int, bool) {
	return slices.BinarySearchFunc(t.Routes, dst, func(r TransitRoute, dst netip.Prefix) int {
		return cmp.Or(r.Dst.Addr().Compare(dst.Addr()), cmp.Compare(r.Dst.Bits(), dst.Bits()))
	})
}

// withPropagated gives a table as it routes: static routes, and of the
// propagated ones those whose destination no other route has.
func (s *state) withPropagated(t TransitRouteTable) TransitRouteTable {
	t.Routes = slices.Clone(t.Routes)
	for n, r := range t.Routes {
		t.Routes[n] = s.hubRouteState(r)
	}
	for _, id := range t.Propagations {
		a, _ := s.spokes.get(id)
		v, _ := s.vpcs.get(a.VPCID)
		for _, block := range v.CIDRs {
			if at, found := t.search(block); !found {
				t.Routes = slices.Insert(t.Routes, at, TransitRoute{Dst: block, Attachment: id, Propagated: true, State: RouteActive})
			}
		}
	}
	return t
}

func (s *state) hubRouteState(r TransitRoute) TransitRoute {
	r.State = RouteBlackhole
	if _, ok := s.spokes.get(r.Attachment); ok {
		r.State = RouteActive
	}
	return r
}
