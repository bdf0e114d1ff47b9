package ec2sim

func parseCreateRouteTable(f form) CreateRouteTableInput {
	return CreateRouteTableInput{
		VPCID: f.in("VpcId").text(), Tags: f.tagsFor(kindRouteTable)[kindRouteTable], ClientToken: f.in("ClientToken").text(),
	}
}

func parseDeleteRouteTable(f form) DeleteRouteTableInput {
	return DeleteRouteTableInput{ID: f.in("RouteTableId").text()}
}

func parseRoute(f form) RouteInput {
	in := parseDestination(f)
	in.Gateway, in.NAT, in.Peering = f.in("GatewayId").text(), f.in("NatGatewayId").text(), f.in("VpcPeeringConnectionId").text()
	in.Transit, in.Interface, in.Instance = f.in("TransitGatewayId").text(), f.in("NetworkInterfaceId").text(), f.in("InstanceId").text()
	return in
}

func parseDestination(f form) RouteInput {
	return RouteInput{TableID: f.in("RouteTableId").text(), Dst: f.in("DestinationCidrBlock").cidr(), List: f.in("DestinationPrefixListId").text()}
}

func parseAssociateTable(f form) AssociateRouteTableInput {
	return AssociateRouteTableInput{TableID: f.in("RouteTableId").text(), SubnetID: f.in("SubnetId").text()}
}

func parseDisassociateTable(f form) DisassociateRouteTableInput {
	return DisassociateRouteTableInput{AssociationID: f.in("AssociationId").text()}
}

func parseReplaceTable(f form) ReplaceRouteTableAssociationInput {
	return ReplaceRouteTableAssociationInput{AssociationID: f.in("AssociationId").text(), TableID: f.in("RouteTableId").text()}
}

// tableAssociation ties a table to a subnet, or to its VPC as the main one.
type tableAssociation struct {
	id, subnet string
	main       bool
}

func (s *state) associations(t RouteTable) []tableAssociation {
	var out []tableAssociation
	if v, _ := s.vpcs.get(t.VPCID); v.MainRouteTable == t.ID {
		out = append(out, tableAssociation{id: v.MainAssociation, main: true})
	}
	for n := range s.subnets.all() {
		if n.RouteTable == t.ID {
			out = append(out, tableAssociation{id: n.RouteTableAssociation, subnet: n.ID})
		}
	}
	return out
}

func associationField(field func(tableAssociation) string) func(*state, RouteTable) []string {
	return func(s *state, t RouteTable) []string {
		var out []string
		for _, a := range s.associations(t) {
			if v := field(a); v != "" {
				out = append(out, v)
			}
		}
		return out
	}
}

func targetField(k kind) func(*state, RouteTable) []string {
	return func(_ *state, t RouteTable) []string {
		var out []string
		for _, r := range t.Routes {
			if kindOf(r.Target) == k {
				out = append(out, r.Target)
			}
		}
		return out
	}
}

var routeTableListing = listing[RouteTable]{
	action: "DescribeRouteTables", maxPage: 100, idsName: "routeTableId",
	tags: func(t RouteTable) map[string]string { return t.Tags },
	fields: map[string]func(*state, RouteTable) []string{
		"route-table-id":                         one(func(t RouteTable) string { return t.ID }),
		"vpc-id":                                 one(func(t RouteTable) string { return t.VPCID }),
		"owner-id":                               ownerField[RouteTable],
		"association.route-table-association-id": associationField(func(a tableAssociation) string { return a.id }),
		"association.subnet-id":                  associationField(func(a tableAssociation) string { return a.subnet }),
		"association.main": associationField(func(a tableAssociation) string {
			return map[bool]string{true: "true", false: "false"}[a.main]
		}),
		"association.route-table-id": func(s *state, t RouteTable) []string {
			if len(s.associations(t)) == 0 {
				return nil
			}
			return []string{t.ID}
		},
		"route.destination-cidr-block": func(s *state, t RouteTable) []string {
			v, _ := s.vpcs.get(t.VPCID)
			out := texts(v.CIDRs...)
			for _, r := range t.Routes {
				if r.List == "" {
					out = append(out, r.Dst.String())
				}
			}
			return out
		},
		"route.destination-prefix-list-id": func(_ *state, t RouteTable) []string {
			var out []string
			for _, r := range t.Routes {
				if r.List != "" {
					out = append(out, r.List)
				}
			}
			return out
		},
		"route.state": func(s *state, t RouteTable) []string {
			out := []string{RouteActive} // the local ones
			for _, r := range s.withStates(t).Routes {
				out = append(out, r.State)
			}
			return out
		},
		"route.gateway-id":                targetField(kindGateway),
		"route.nat-gateway-id":            targetField(kindNAT),
		"route.transit-gateway-id":        targetField(kindHub),
		"route.vpc-peering-connection-id": targetField(kindPeering),
	},
}

// DescribeRouteTables lists route tables.
func (c *Cloud) DescribeRouteTables(q Query) (Page[RouteTable], error) {
	return cloned(call(c, q, describeRouteTables))
}

func describeRouteTables(s *state, q Query) (Page[RouteTable], error) {
	if err := known(&s.routeTables, kindRouteTable, q.IDs); err != nil {
		return Page[RouteTable]{}, err
	}
	page, err := routeTableListing.apply(s, q, rows(&s.routeTables, q.IDs))
	for n, t := range page.Items {
		page.Items[n] = s.withStates(t)
	}
	return page, err
}

type xmlRouteTable struct {
	ID           string                   `xml:"routeTableId"`
	VPCID        string                   `xml:"vpcId"`
	OwnerID      string                   `xml:"ownerId"`
	Routes       set[xmlRoute]            `xml:"routeSet"`
	Associations set[xmlTableAssociation] `xml:"associationSet"`
	Propagating  struct{}                 `xml:"propagatingVgwSet"`
	Tags         set[xmlTag]              `xml:"tagSet"`
}

type xmlRoute struct {
	Dst           string `xml:"destinationCidrBlock,omitempty"`
	List          string `xml:"destinationPrefixListId,omitempty"`
	Gateway       string `xml:"gatewayId,omitempty"`
	NAT           string `xml:"natGatewayId,omitempty"`
	Peering       string `xml:"vpcPeeringConnectionId,omitempty"`
	Transit       string `xml:"transitGatewayId,omitempty"`
	Interface     string `xml:"networkInterfaceId,omitempty"`
	Instance      string `xml:"instanceId,omitempty"`
	InstanceOwner string `xml:"instanceOwnerId,omitempty"`
	State         string `xml:"state"`
	Origin        string `xml:"origin"`
}

type xmlTableAssociation struct {
	ID       string              `xml:"routeTableAssociationId"`
	TableID  string              `xml:"routeTableId"`
	SubnetID string              `xml:"subnetId,omitempty"`
	Main     bool                `xml:"main"`
	State    xmlAssociationState `xml:"associationState"`
}

type xmlAssociationState struct {
	State string `xml:"state"`
}

func (s *state) showRoute(r Route) xmlRoute {
	out := xmlRoute{List: r.List, State: r.State, Origin: "CreateRoute"}
	if r.List == "" {
		out.Dst = r.Dst.String()
	}
	switch kindOf(r.Target) {
	case kindGateway:
		out.Gateway = r.Target
	case kindNAT:
		out.NAT = r.Target
	case kindPeering:
		out.Peering = r.Target
	case kindHub:
		out.Transit = r.Target
	case kindENI:
		out.Interface = r.Target
		if e, ok := s.enis.get(r.Target); ok && e.Attachment != nil {
			out.Instance, out.InstanceOwner = e.Attachment.InstanceID, s.cfg.Account
		}
	}
	return out
}

func (s *state) showRouteTable(t RouteTable) xmlRouteTable {
	out := xmlRouteTable{ID: t.ID, VPCID: t.VPCID, OwnerID: s.cfg.Account, Tags: showTags(t.Tags)}
	v, _ := s.vpcs.get(t.VPCID)
	for _, p := range v.CIDRs {
		out.Routes.Items = append(out.Routes.Items, xmlRoute{Dst: p.String(), Gateway: "local", State: RouteActive, Origin: "CreateRouteTable"})
	}
	for _, r := range s.withStates(t).Routes {
		out.Routes.Items = append(out.Routes.Items, s.showRoute(r))
	}
	out.Associations = setOf(s.associations(t), func(a tableAssociation) xmlTableAssociation {
		return xmlTableAssociation{a.id, t.ID, a.subnet, a.main, xmlAssociationState{"associated"}}
	})
	return out
}

func renderCreateRouteTable(s *state, t RouteTable) replier {
	return &struct {
		reply
		Table xmlRouteTable `xml:"routeTable"`
	}{Table: s.showRouteTable(t)}
}

func renderRouteTables(s *state, page Page[RouteTable]) replier {
	return &struct {
		reply
		Set  set[xmlRouteTable] `xml:"routeTableSet"`
		Next string             `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showRouteTable), Next: page.NextToken}
}

func renderAssociated(_ *state, id string) replier {
	return &struct {
		reply
		ID    string              `xml:"associationId"`
		State xmlAssociationState `xml:"associationState"`
	}{ID: id, State: xmlAssociationState{"associated"}}
}

func renderReassociated(_ *state, id string) replier {
	return &struct {
		reply
		ID    string              `xml:"newAssociationId"`
		State xmlAssociationState `xml:"associationState"`
	}{ID: id, State: xmlAssociationState{"associated"}}
}
