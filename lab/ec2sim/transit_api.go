package ec2sim

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
)

var hubListing = listing[TransitGateway]{
	action: "DescribeTransitGateways", maxPage: 1000, idsName: "transitGatewayIds",
	tags: func(h TransitGateway) map[string]string { return h.Tags },
	fields: map[string]func(*state, TransitGateway) []string{
		"transit-gateway-id":      one(func(h TransitGateway) string { return h.ID }),
		"state":                   one(func(TransitGateway) string { return "available" }),
		"owner-id":                ownerField[TransitGateway],
		"options.amazon-side-asn": one(func(h TransitGateway) string { return strconv.Itoa(h.ASN) }),
		"options.association-default-route-table-id": one(func(h TransitGateway) string { return h.AssociationTable }),
		"options.propagation-default-route-table-id": one(func(h TransitGateway) string { return h.PropagationTable }),
	},
}

// DescribeTransitGateways lists transit gateways.
func (c *Cloud) DescribeTransitGateways(q Query) (Page[TransitGateway], error) {
	return cloned(call(c, q, describeHubs))
}

func describeHubs(s *state, q Query) (Page[TransitGateway], error) {
	if err := known(&s.hubs, kindHub, q.IDs); err != nil {
		return Page[TransitGateway]{}, err
	}
	return hubListing.apply(s, q, rows(&s.hubs, q.IDs))
}

var spokeFields = map[string]func(*state, TransitAttachment) []string{
	"transit-gateway-attachment-id": one(func(a TransitAttachment) string { return a.ID }),
	"transit-gateway-id":            one(func(a TransitAttachment) string { return a.GatewayID }),
	"vpc-id":                        one(func(a TransitAttachment) string { return a.VPCID }),
	"state":                         one(func(TransitAttachment) string { return "available" }),
}

var spokeListing = listing[TransitAttachment]{
	action: "DescribeTransitGatewayVpcAttachments", maxPage: 1000, idsName: "transitGatewayAttachmentIds",
	tags: func(a TransitAttachment) map[string]string { return a.Tags }, fields: spokeFields,
}

// anySpokeListing is of attachments to resources of any kind, of which VPCs are
// the only one here.
var anySpokeListing = listing[TransitAttachment]{
	action: "DescribeTransitGatewayAttachments", maxPage: 1000, idsName: "transitGatewayAttachmentIds",
	tags: func(a TransitAttachment) map[string]string { return a.Tags },
	fields: with(spokeFields, map[string]func(*state, TransitAttachment) []string{
		"resource-id":   one(func(a TransitAttachment) string { return a.VPCID }),
		"resource-type": one(func(TransitAttachment) string { return "vpc" }),
		"association.transit-gateway-route-table-id": one(func(a TransitAttachment) string { return a.Table }),
	}),
}

// with gives a copy of a map with more.
func with[K comparable, V any](m, more map[K]V) map[K]V {
	m = maps.Clone(m)
	maps.Copy(m, more)
	return m
}

// DescribeTransitGatewayVPCAttachments lists attachments.
func (c *Cloud) DescribeTransitGatewayVPCAttachments(q Query) (Page[TransitAttachment], error) {
	return cloned(call(c, q, describeSpokes(spokeListing)))
}

func describeSpokes(l listing[TransitAttachment]) func(*state, Query) (Page[TransitAttachment], error) {
	return func(s *state, q Query) (Page[TransitAttachment], error) {
		if err := known(&s.spokes, kindSpoke, q.IDs); err != nil {
			return Page[TransitAttachment]{}, err
		}
		return l.apply(s, q, rows(&s.spokes, q.IDs))
	}
}

func (s *state) defaultAssociation(t TransitRouteTable) bool {
	h, _ := s.hubs.get(t.GatewayID)
	return h.AssociationTable == t.ID
}

func (s *state) defaultPropagation(t TransitRouteTable) bool {
	h, _ := s.hubs.get(t.GatewayID)
	return h.PropagationTable == t.ID
}

var hubTableListing = listing[TransitRouteTable]{
	action: "DescribeTransitGatewayRouteTables", maxPage: 1000, idsName: "transitGatewayRouteTableIds",
	tags: func(t TransitRouteTable) map[string]string { return t.Tags },
	fields: map[string]func(*state, TransitRouteTable) []string{
		"transit-gateway-route-table-id": one(func(t TransitRouteTable) string { return t.ID }),
		"transit-gateway-id":             one(func(t TransitRouteTable) string { return t.GatewayID }),
		"state":                          one(func(TransitRouteTable) string { return "available" }),
		"default-association-route-table": func(s *state, t TransitRouteTable) []string {
			return []string{strconv.FormatBool(s.defaultAssociation(t))}
		},
		"default-propagation-route-table": func(s *state, t TransitRouteTable) []string {
			return []string{strconv.FormatBool(s.defaultPropagation(t))}
		},
	},
}

// DescribeTransitGatewayRouteTables lists route tables, as they route.
func (c *Cloud) DescribeTransitGatewayRouteTables(q Query) (Page[TransitRouteTable], error) {
	return cloned(call(c, q, describeHubTables))
}

func describeHubTables(s *state, q Query) (Page[TransitRouteTable], error) {
	if err := known(&s.hubTables, kindHubTable, q.IDs); err != nil {
		return Page[TransitRouteTable]{}, err
	}
	page, err := hubTableListing.apply(s, q, rows(&s.hubTables, q.IDs))
	for n, t := range page.Items {
		page.Items[n] = s.withPropagated(t)
	}
	return page, err
}

// SearchTransitRoutesInput asks for routes of a table; at least one filter is
// needed.
type SearchTransitRoutesInput struct {
	TableID string
	Query   Query
}

var hubRouteListing = listing[TransitRoute]{
	action: "SearchTransitGatewayRoutes", maxPage: 1000,
	fields: map[string]func(*state, TransitRoute) []string{
		"state":                    one(func(r TransitRoute) string { return r.State }),
		"type":                     one(TransitRoute.kind),
		"route-search.exact-match": one(func(r TransitRoute) string { return r.Dst.String() }),
		"attachment.transit-gateway-attachment-id": one(func(r TransitRoute) string { return r.Attachment }),
		"attachment.resource-type":                 one(func(r TransitRoute) string { return map[bool]string{true: "vpc"}[r.Attachment != ""] }),
		"attachment.resource-id": func(s *state, r TransitRoute) []string {
			a, _ := s.spokes.get(r.Attachment)
			return []string{a.VPCID}
		},
	},
}

func (r TransitRoute) kind() string {
	if r.Propagated {
		return "propagated"
	}
	return "static"
}

// SearchTransitGatewayRoutes finds routes of a table.
func (c *Cloud) SearchTransitGatewayRoutes(in SearchTransitRoutesInput) (Page[TransitRoute], error) {
	page, err := call(c, in, searchHubRoutes)
	page.Items = slices.Clone(page.Items)
	return page, err
}

// prefixSearch are the filters that compare prefixes instead of texts.
var prefixSearch = map[string]func(route, asked netip.Prefix) bool{
	"route-search.subnet-of-match":   func(r, p netip.Prefix) bool { return r.Bits() >= p.Bits() && p.Contains(r.Addr()) },
	"route-search.supernet-of-match": func(r, p netip.Prefix) bool { return r.Bits() <= p.Bits() && r.Contains(p.Addr()) },
}

func searchHubRoutes(s *state, in SearchTransitRoutesInput) (Page[TransitRoute], error) {
	t, err := s.findHubTable(in.TableID)
	if err != nil {
		return Page[TransitRoute]{}, err
	}
	if len(in.Query.Filters) == 0 {
		return Page[TransitRoute]{}, missing("Filters")
	}
	routes, q := s.withPropagated(t).Routes, in.Query
	q.Filters = nil
	for _, f := range in.Query.Filters {
		match, special := prefixSearch[f.Name]
		if f.Name == "route-search.longest-prefix-match" {
			if routes, err = longest(routes, f.Values); err != nil {
				return Page[TransitRoute]{}, err
			}
			continue
		}
		if !special {
			q.Filters = append(q.Filters, f)
			continue
		}
		asked, err := parsePrefixes(f.Values)
		if err != nil {
			return Page[TransitRoute]{}, err
		}
		routes = slices.DeleteFunc(slices.Clone(routes), func(r TransitRoute) bool {
			return !slices.ContainsFunc(asked, func(p netip.Prefix) bool { return match(r.Dst, p) })
		})
	}
	return hubRouteListing.apply(s, q, counted(routes))
}

func parsePrefixes(values []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, v := range values {
		p, err := netip.ParsePrefix(v)
		if a, errAddr := netip.ParseAddr(v); errAddr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || !p.Addr().Is4() {
			return nil, invalidValue("Value (%s) is not a valid CIDR block.", v)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// longest keeps the route that decides for each prefix asked for.
func longest(routes []TransitRoute, values []string) ([]TransitRoute, error) {
	asked, err := parsePrefixes(values)
	if err != nil {
		return nil, err
	}
	best := map[netip.Prefix]bool{}
	for _, p := range asked {
		at := -1
		for n, r := range routes {
			if r.Dst.Bits() <= p.Bits() && r.Dst.Contains(p.Addr()) && (at < 0 || r.Dst.Bits() > routes[at].Dst.Bits()) {
				at = n
			}
		}
		if at >= 0 {
			best[routes[at].Dst] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(routes), func(r TransitRoute) bool { return !best[r.Dst] }), nil
}

// hubTies asks what is associated with a table, or propagates to it.
func hubTies(list func(*state, TransitRouteTable) []TransitAttachment) func(*state, SearchTransitRoutesInput) (Page[TransitAttachment], error) {
	return func(s *state, in SearchTransitRoutesInput) (Page[TransitAttachment], error) {
		t, err := s.findHubTable(in.TableID)
		if err != nil {
			return Page[TransitAttachment]{}, err
		}
		return hubTieListing.apply(s, in.Query, counted(list(s, t)))
	}
}

var hubTieListing = listing[TransitAttachment]{
	action: "GetTransitGatewayRouteTable", maxPage: 1000,
	fields: map[string]func(*state, TransitAttachment) []string{
		"transit-gateway-attachment-id": one(func(a TransitAttachment) string { return a.ID }),
		"resource-id":                   one(func(a TransitAttachment) string { return a.VPCID }),
		"resource-type":                 one(func(TransitAttachment) string { return "vpc" }),
	},
}

func associatedSpokes(s *state, t TransitRouteTable) []TransitAttachment {
	var out []TransitAttachment
	for a := range s.spokes.all() {
		if a.Table == t.ID {
			out = append(out, a)
		}
	}
	return out
}

func propagatingSpokes(s *state, t TransitRouteTable) []TransitAttachment {
	var out []TransitAttachment
	for _, id := range t.Propagations {
		a, _ := s.spokes.get(id)
		out = append(out, a)
	}
	return out
}

func parseCreateHub(f form) CreateTransitGatewayInput {
	o := f.in("Options")
	enabled := func(name string) Optional[bool] {
		v := o.in(name).choice("enable", "disable")
		return Optional[bool]{v == "enable", v != ""}
	}
	in := CreateTransitGatewayInput{
		Description: f.in("Description").text(), ASN: int(o.in("AmazonSideAsn").number()),
		Associate: enabled("DefaultRouteTableAssociation"), Propagate: enabled("DefaultRouteTablePropagation"),
		Tags: f.tagsFor(kindHub)[kindHub],
	}
	for _, name := range []string{"AutoAcceptSharedAttachments", "MulticastSupport", "SecurityGroupReferencingSupport"} {
		o.in(name).choice("disable") // not simulated
	}
	enabled("DnsSupport") // there is no resolver, and there are no VPNs
	enabled("VpnEcmpSupport")
	return in
}

func (f form) number() int64 {
	v, ok := f.raw()
	n, err := strconv.ParseInt(v, 10, 64)
	if ok && err != nil {
		f.fail(invalidValue("Value (%s) for parameter %s is invalid. Parameter must be an integer.", v, f.path))
	}
	return n
}

func parseHub(f form) TransitGatewayInput {
	return TransitGatewayInput{ID: f.in("TransitGatewayId").text()}
}

func parseCreateSpoke(f form) CreateTransitAttachmentInput {
	o := f.in("Options")
	o.in("DnsSupport").choice("enable", "disable")
	for _, name := range []string{"ApplianceModeSupport", "Ipv6Support", "SecurityGroupReferencingSupport"} {
		o.in(name).choice("disable") // not simulated
	}
	return CreateTransitAttachmentInput{
		GatewayID: f.in("TransitGatewayId").text(), VPCID: f.in("VpcId").text(), Subnets: f.in("SubnetIds").texts(),
		Tags: f.tagsIn("TagSpecifications", kindSpoke)[kindSpoke],
	}
}

func parseSpoke(f form) TransitAttachmentInput {
	return TransitAttachmentInput{ID: f.in("TransitGatewayAttachmentId").text()}
}

func parseCreateHubTable(f form) CreateTransitTableInput {
	return CreateTransitTableInput{GatewayID: f.in("TransitGatewayId").text(), Tags: f.tagsIn("TagSpecifications", kindHubTable)[kindHubTable]}
}

func parseHubTable(f form) TransitTableInput {
	return TransitTableInput{ID: f.in("TransitGatewayRouteTableId").text()}
}

func parseTie(f form) TransitTieInput {
	return TransitTieInput{TableID: f.in("TransitGatewayRouteTableId").text(), AttachmentID: f.in("TransitGatewayAttachmentId").text()}
}

func parseHubRoute(f form) TransitRouteInput {
	in := parseHubDestination(f)
	in.AttachmentID, in.Blackhole = f.in("TransitGatewayAttachmentId").text(), f.in("Blackhole").flag().Value
	return in
}

func parseHubDestination(f form) TransitRouteInput {
	return TransitRouteInput{TableID: f.in("TransitGatewayRouteTableId").text(), Dst: f.in("DestinationCidrBlock").cidr()}
}

func parseHubSearch(f form) SearchTransitRoutesInput {
	return SearchTransitRoutesInput{TableID: f.in("TransitGatewayRouteTableId").text(), Query: f.query("")}
}
