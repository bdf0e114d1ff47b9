package ec2sim

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// RouteTable is a table of a VPC's router. The local routes, one for each block
// of the VPC, are always there and not listed.
type RouteTable struct {
	ID, VPCID string
	Routes    []Route // by destination
	Tags      map[string]string
}

// Route leads a destination to a target, whose identifier tells what it is:
// "igw-", "nat-", "pcx-", "tgw-" or "eni-".
type Route struct {
	Dst    netip.Prefix // IPv4, masked; invalid where List is set
	List   string       // a prefix list, whose entries are the destinations
	Target string
	State  string // filled in for readers; it follows from the target
}

// The states of a [Route]. That of one whose target is gone, or not ready, is
// blackhole. Source: Route, Amazon EC2 API Reference.
const (
	RouteActive    = "active"
	RouteBlackhole = "blackhole"
)

func (t RouteTable) clone() RouteTable {
	t.Routes, t.Tags = slices.Clone(t.Routes), maps.Clone(t.Tags)
	return t
}

// destination names what the route is for, as EC2 does in its messages.
func (r Route) destination() string {
	if r.List != "" {
		return r.List
	}
	return r.Dst.String()
}

func compareDestinations(a, b Route) int {
	return cmp.Or(a.Dst.Addr().Compare(b.Dst.Addr()), cmp.Compare(a.Dst.Bits(), b.Dst.Bits()), cmp.Compare(a.List, b.List))
}

// maxRoutes bounds a route table. Source: "Amazon VPC quotas".
const maxRoutes = 500

// withStates fills in the states of the routes.
func (s *state) withStates(t RouteTable) RouteTable {
	t.Routes = slices.Clone(t.Routes)
	for n, r := range t.Routes {
		t.Routes[n].State = RouteBlackhole
		if s.reachable(t.VPCID, r.Target) {
			t.Routes[n].State = RouteActive
		}
	}
	return t
}

// reachable reports whether a route of a VPC to a target leads anywhere.
func (s *state) reachable(vpcID, target string) bool {
	switch kindOf(target) {
	case kindGateway:
		g, ok := s.gateways.get(target)
		return ok && g.VPCID == vpcID
	case kindNAT:
		g, ok := s.nats.get(target)
		return ok && g.State == NATAvailable
	case kindPeering:
		p, ok := s.peerings.get(target)
		return ok && s.withStatus(p).Status == PeeringActive
	case kindHub:
		_, ok := s.attachmentOf(target, vpcID)
		return ok
	case kindENI:
		e, ok := s.enis.get(target)
		return ok && e.Attachment != nil
	}
	return false
}

// CreateRouteTableInput describes a route table to make.
type CreateRouteTableInput struct {
	VPCID       string
	Tags        map[string]string
	ClientToken string
}

// CreateRouteTable makes a table with nothing but the local routes.
func (c *Cloud) CreateRouteTable(in CreateRouteTableInput) (RouteTable, error) {
	t, err := call(c, in, createRouteTable)
	return t.clone(), err
}

func createRouteTable(s *state, in CreateRouteTableInput) (RouteTable, error) {
	return once(s, "CreateRouteTable", in.ClientToken, in, func(s *state, in CreateRouteTableInput) (RouteTable, error) {
		v, err := s.findVPC(in.VPCID)
		if err != nil {
			return RouteTable{}, err
		}
		if err := checkTags(in.Tags); err != nil {
			return RouteTable{}, err
		}
		return s.newRouteTable(v.ID, in.Tags), s.routeTableQuota(v.ID)
	})
}

func (s *state) newRouteTable(vpcID string, tags map[string]string) RouteTable {
	t := RouteTable{ID: s.newID(kindRouteTable.prefix), VPCID: vpcID, Tags: maps.Clone(tags)}
	s.routeTables.insert(s.nextRow(), t.ID, t)
	return t
}

func (s *state) findRouteTable(id string) (RouteTable, error) {
	if id == "" {
		return RouteTable{}, missing("routeTableId")
	}
	return find(&s.routeTables, kindRouteTable, id)
}

// DeleteRouteTableInput names a table to delete.
type DeleteRouteTableInput struct{ ID string }

// DeleteRouteTable deletes a table that is not the main one and that no subnet
// has.
func (c *Cloud) DeleteRouteTable(in DeleteRouteTableInput) error {
	_, err := call(c, in, deleteRouteTable)
	return err
}

func deleteRouteTable(s *state, in DeleteRouteTableInput) (struct{}, error) {
	var none struct{}
	t, err := s.findRouteTable(in.ID)
	if err != nil {
		return none, err
	}
	if v, _ := s.vpcs.get(t.VPCID); v.MainRouteTable == t.ID {
		return none, dependency("routeTable", t.ID)
	}
	for n := range s.subnets.all() {
		if n.RouteTable == t.ID {
			return none, dependency("routeTable", t.ID)
		}
	}
	s.routeTables.remove(t.ID)
	return none, nil
}

// RouteInput names a destination in a table and, but for deleting, exactly one
// target.
type RouteInput struct {
	TableID                                   string
	Dst                                       netip.Prefix
	List                                      string // instead of Dst: a prefix list
	Gateway, NAT, Peering, Transit, Interface string // identifiers
	Instance                                  string // instead of its only network interface
}

func (in RouteInput) route() Route {
	if in.List != "" {
		return Route{List: in.List}
	}
	return Route{Dst: in.Dst.Masked()}
}

// CreateRoute adds a route.
func (c *Cloud) CreateRoute(in RouteInput) error { _, err := call(c, in, createRoute); return err }

// ReplaceRoute gives a route another target.
func (c *Cloud) ReplaceRoute(in RouteInput) error { _, err := call(c, in, replaceRoute); return err }

// DeleteRoute takes a route away.
func (c *Cloud) DeleteRoute(in RouteInput) error { _, err := call(c, in, deleteRoute); return err }

func createRoute(s *state, in RouteInput) (struct{}, error) {
	return s.editRoutes(in, func(t RouteTable, at int, found bool) ([]Route, error) {
		target, err := s.routeTarget(t, in)
		switch {
		case err != nil:
			return nil, err
		case found:
			return nil, fail("RouteAlreadyExists", "The route identified by %s already exists.", in.route().destination())
		case len(t.Routes) >= maxRoutes:
			return nil, fail("RouteLimitExceeded", "The maximum number of routes (%d) has been reached.", maxRoutes)
		}
		route := in.route()
		route.Target = target
		return slices.Insert(t.Routes, at, route), nil
	})
}

func replaceRoute(s *state, in RouteInput) (struct{}, error) {
	return s.editRoutes(in, func(t RouteTable, at int, found bool) ([]Route, error) {
		target, err := s.routeTarget(t, in)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, invalidValue("There is no route defined for '%s' in the route table. Use CreateRoute instead.", in.route().destination())
		}
		t.Routes[at].Target = target
		return t.Routes, nil
	})
}

func deleteRoute(s *state, in RouteInput) (struct{}, error) {
	return s.editRoutes(in, func(t RouteTable, at int, found bool) ([]Route, error) {
		v, _ := s.vpcs.get(t.VPCID)
		if in.List == "" && slices.Contains(v.CIDRs, in.Dst.Masked()) {
			return nil, invalidValue("cannot remove local route %s in route table %s", in.Dst, t.ID)
		}
		if !found {
			return nil, fail("InvalidRoute.NotFound", "no route with destination-cidr-block %s in route table %s", in.route().destination(), t.ID)
		}
		return slices.Delete(t.Routes, at, at+1), nil
	})
}

// editRoutes changes a copy of a table's routes; change is told where the
// destination is or belongs.
func (s *state) editRoutes(in RouteInput, change func(RouteTable, int, bool) ([]Route, error)) (struct{}, error) {
	var none struct{}
	t, err := s.findRouteTable(in.TableID)
	if err != nil {
		return none, err
	}
	switch {
	case in.List != "" && in.Dst.IsValid():
		return none, invalidCombination("The parameter destinationCidrBlock cannot be used with the parameter destinationPrefixListId")
	case in.List != "":
		if _, err := s.findList(in.List); err != nil {
			return none, err
		}
	case !in.Dst.IsValid():
		return none, missing("destinationCidrBlock")
	}
	t.Routes = slices.Clone(t.Routes)
	at, found := slices.BinarySearchFunc(t.Routes, in.route(), compareDestinations)
	if t.Routes, err = change(t, at, found); err != nil {
		return none, err
	}
	s.routeTables.put(t.ID, t)
	return none, nil
}

// routeTarget checks that a route may be, and gives its target.
func (s *state) routeTarget(t RouteTable, in RouteInput) (string, error) {
	var given []string
	for _, id := range []string{in.Gateway, in.NAT, in.Peering, in.Transit, in.Interface, in.Instance} {
		if id != "" {
			given = append(given, id)
		}
	}
	if len(given) == 0 {
		return "", missing("gatewayId")
	}
	if len(given) > 1 {
		return "", invalidCombination("Only one route target can be specified, not %s.", strings.Join(given, " and "))
	}
	if err := s.checkDestination(t, in); err != nil {
		return "", err
	}
	v, _ := s.vpcs.get(t.VPCID)
	switch {
	case in.Gateway != "":
		g, err := find(&s.gateways, kindGateway, in.Gateway)
		if err != nil {
			return "", err
		}
		if g.VPCID != v.ID {
			return "", differentNetworks(t.ID, g.ID)
		}
	case in.NAT != "":
		g, err := s.findNAT(in.NAT)
		if err != nil {
			return "", err
		}
		if g.VPCID != v.ID {
			return "", differentNetworks(t.ID, g.ID)
		}
		if g.State != NATAvailable {
			return "", fail("InvalidNatGatewayID.NotFound", "The natGateway ID '%s' does not exist", g.ID)
		}
	case in.Peering != "":
		p, err := s.findPeering(in.Peering)
		if err != nil {
			return "", err
		}
		if !p.has(v.ID) {
			return "", differentNetworks(t.ID, p.ID)
		}
		if p.Status != PeeringActive && p.Status != PeeringPending {
			return "", kindPeering.missing(p.ID)
		}
	case in.Transit != "":
		if _, err := s.findHub(in.Transit); err != nil {
			return "", err
		}
		if _, ok := s.attachmentOf(in.Transit, v.ID); !ok {
			return "", kindHub.missing(in.Transit) // so it is for a VPC that is not attached
		}
	default:
		return s.routeInterface(t, in)
	}
	return given[0], nil
}

// routeInterface gives the ENI that a route leads to, named or by its instance.
func (s *state) routeInterface(t RouteTable, in RouteInput) (string, error) {
	if in.Instance != "" {
		i, err := find(&s.instances, kindInstance, in.Instance)
		if err != nil {
			return "", err
		}
		if len(i.Interfaces) != 1 {
			return "", fail("InvalidInstanceID", "There are multiple interfaces attached to instance '%s'. Please specify an interface ID for the operation instead.", i.ID)
		}
		in.Interface = i.Interfaces[0]
	}
	e, err := s.findENI(in.Interface)
	if err != nil {
		return "", err
	}
	if e.VPCID != t.VPCID {
		return "", differentNetworks(t.ID, e.ID)
	}
	return e.ID, nil
}

func differentNetworks(table, target string) error {
	return invalidValue("route table %s and network gateway %s belong to different networks", table, target)
}

// checkDestination refuses a route that covers a local one exactly, or lies
// inside one without being a whole subnet that leads to a device that forwards.
// Source: "Configure route tables", Amazon VPC User Guide: routes that are more
// specific than the local route.
func (s *state) checkDestination(t RouteTable, in RouteInput) error {
	if in.List != "" {
		return nil
	}
	v, _ := s.vpcs.get(t.VPCID)
	dst := in.Dst.Masked()
	for _, block := range v.CIDRs {
		if dst == block {
			return fail("RouteAlreadyExists", "The route identified by %s already exists.", dst)
		}
		if dst.Bits() < block.Bits() || !block.Overlaps(dst) {
			continue
		}
		if in.NAT == "" && in.Interface == "" && in.Instance == "" {
			return invalidValue("The destination CIDR block %s is equal to or more specific than one of this VPC's CIDR blocks. This route can target only an interface or an instance.", dst)
		}
		for n := range s.subnets.all() {
			if n.VPCID == v.ID && n.CIDR == dst {
				return nil
			}
		}
		return invalidValue("Route destination %s doesn't match any subnet CIDR blocks.", dst)
	}
	return nil
}

// AssociateRouteTableInput gives a subnet a table of its own.
type AssociateRouteTableInput struct{ TableID, SubnetID string }

// AssociateRouteTable gives a subnet that follows the main table one of its own,
// and tells the identifier of the association.
func (c *Cloud) AssociateRouteTable(in AssociateRouteTableInput) (string, error) {
	return call(c, in, associateRouteTable)
}

func associateRouteTable(s *state, in AssociateRouteTableInput) (string, error) {
	t, err := s.findRouteTable(in.TableID)
	if err != nil {
		return "", err
	}
	n, err := s.findSubnet(in.SubnetID)
	if err != nil {
		return "", err
	}
	switch {
	case n.VPCID != t.VPCID:
		return "", invalidValue("route table %s and subnet %s belong to different networks", t.ID, n.ID)
	case n.RouteTable == t.ID:
		return n.RouteTableAssociation, nil // a repeat gets the association there is
	case n.RouteTable != "":
		return "", fail("Resource.AlreadyAssociated", "the specified association for route table %s conflicts with an existing association", t.ID)
	}
	n.RouteTable, n.RouteTableAssociation = t.ID, s.newID(kindTableAssociation.prefix)
	s.subnets.put(n.ID, n)
	return n.RouteTableAssociation, nil
}

// DisassociateRouteTableInput names an association to end.
type DisassociateRouteTableInput struct{ AssociationID string }

// DisassociateRouteTable makes a subnet follow the main table.
func (c *Cloud) DisassociateRouteTable(in DisassociateRouteTableInput) error {
	_, err := call(c, in, disassociateRouteTable)
	return err
}

func disassociateRouteTable(s *state, in DisassociateRouteTableInput) (struct{}, error) {
	var none struct{}
	n, v, err := s.findTableAssociation(in.AssociationID)
	if err != nil {
		return none, err
	}
	if n.ID == "" {
		return none, invalidValue("cannot disassociate the main route table association %s of %s", in.AssociationID, v.ID)
	}
	n.RouteTable, n.RouteTableAssociation = "", ""
	s.subnets.put(n.ID, n)
	return none, nil
}

// findTableAssociation gives the subnet of an association, or a zero one and the
// VPC whose main association it is.
func (s *state) findTableAssociation(id string) (Subnet, VPC, error) {
	if id == "" {
		return Subnet{}, VPC{}, missing("associationId")
	}
	if err := kindTableAssociation.check(id); err != nil {
		return Subnet{}, VPC{}, err
	}
	for n := range s.subnets.all() {
		if n.RouteTableAssociation == id {
			v, _ := s.vpcs.get(n.VPCID)
			return n, v, nil
		}
	}
	for v := range s.vpcs.all() {
		if v.MainAssociation == id {
			return Subnet{}, v, nil
		}
	}
	return Subnet{}, VPC{}, kindTableAssociation.missing(id)
}

// ReplaceRouteTableAssociationInput gives another table to what an association
// ties to one.
type ReplaceRouteTableAssociationInput struct{ AssociationID, TableID string }

// ReplaceRouteTableAssociation gives a subnet another table or, by the main
// association, the VPC another main table. It tells the new identifier.
func (c *Cloud) ReplaceRouteTableAssociation(in ReplaceRouteTableAssociationInput) (string, error) {
	return call(c, in, replaceTableAssociation)
}

func replaceTableAssociation(s *state, in ReplaceRouteTableAssociationInput) (string, error) {
	n, v, err := s.findTableAssociation(in.AssociationID)
	if err != nil {
		return "", err
	}
	t, err := s.findRouteTable(in.TableID)
	if err != nil {
		return "", err
	}
	if t.VPCID != v.ID {
		return "", invalidValue("route table %s and association %s belong to different networks", t.ID, in.AssociationID)
	}
	id := s.newID(kindTableAssociation.prefix)
	if n.ID == "" {
		v.MainRouteTable, v.MainAssociation = t.ID, id
		s.vpcs.put(v.ID, v)
	} else {
		n.RouteTable, n.RouteTableAssociation = t.ID, id
		s.subnets.put(n.ID, n)
	}
	return id, nil
}
