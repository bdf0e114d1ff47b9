package ec2

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Routing reads where packets of the VPC go: its CIDRs, its route tables, which
// of its peerings are active, and the prefix lists that routes name. Of lists and
// peerings only those that a route needs are asked for: where there are none,
// it is two calls.
func (c *Client) Routing(ctx context.Context, vpcID string) (vpc.Routing, error) {
	what := "read the routing of " + vpcID
	var r vpc.Routing
	vpcs, err := c.api.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{VpcIds: []string{vpcID}})
	if err != nil {
		return r, wrap("DescribeVpcs", what, err)
	}
	for _, v := range vpcs.Vpcs {
		if r.CIDRs, err = vpcCIDRs(v); err != nil {
			return r, fmt.Errorf("%s: EC2 answered: %w", what, err)
		}
	}
	if len(r.CIDRs) == 0 {
		return r, fmt.Errorf("%s: EC2 answered without a CIDR: %w", what, ErrNotFound)
	}
	pages := ec2.NewDescribeRouteTablesPaginator(c.api, &ec2.DescribeRouteTablesInput{
		Filters:    []types.Filter{{Name: aws.String("vpc-id"), Values: []string{vpcID}}},
		MaxResults: aws.Int32(100), // the most that it gives
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return r, wrap("DescribeRouteTables", what, err)
		}
		for _, t := range page.RouteTables {
			table, err := routeTable(t)
			if err != nil {
				return r, fmt.Errorf("%s: EC2 answered: %w", what, err)
			}
			r.Tables = append(r.Tables, table)
		}
	}
	if err := c.learnPeerings(ctx, what, &r); err != nil {
		return r, err
	}
	return r, c.learnPrefixLists(ctx, what, &r)
}

func vpcCIDRs(v types.Vpc) ([]netip.Prefix, error) {
	var cidrs []netip.Prefix
	for _, a := range v.CidrBlockAssociationSet {
		if s := a.CidrBlockState; s != nil && s.State != types.VpcCidrBlockStateCodeAssociated {
			continue
		}
		p, err := netip.ParsePrefix(aws.ToString(a.CidrBlock))
		if err != nil {
			return nil, err
		}
		cidrs = append(cidrs, p.Masked())
	}
	return cidrs, nil
}

func routeTable(t types.RouteTable) (vpc.RouteTable, error) {
	table := vpc.RouteTable{ID: aws.ToString(t.RouteTableId)}
	for _, a := range t.Associations {
		if s := a.AssociationState; s != nil && s.State != types.RouteTableAssociationStateCodeAssociated {
			continue
		}
		table.Main = table.Main || aws.ToBool(a.Main)
		if id := aws.ToString(a.SubnetId); id != "" {
			table.Subnets = append(table.Subnets, id)
		}
	}
	for _, r := range t.Routes {
		route := vpc.Route{PrefixList: aws.ToString(r.DestinationPrefixListId), Blackhole: r.State == types.RouteStateBlackhole}
		if s := aws.ToString(r.DestinationCidrBlock); s != "" {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return table, err
			}
			route.Dst = p.Masked()
		} else if route.PrefixList == "" {
			continue // of IPv6
		}
		route.Target, route.TargetID = target(r)
		table.Routes = append(table.Routes, route)
	}
	return table, nil
}

func target(r types.Route) (vpc.Target, string) {
	switch {
	case aws.ToString(r.VpcPeeringConnectionId) != "":
		return vpc.PeeringTarget, aws.ToString(r.VpcPeeringConnectionId)
	case aws.ToString(r.TransitGatewayId) != "":
		return vpc.TransitTarget, aws.ToString(r.TransitGatewayId)
	case aws.ToString(r.CoreNetworkArn) != "":
		return vpc.CoreNetworkTarget, aws.ToString(r.CoreNetworkArn)
	}
	id := aws.ToString(r.GatewayId)
	if len(id) > 4 && id[:4] == "vgw-" {
		return vpc.VPNTarget, id
	}
	return vpc.OtherTarget, id
}

func (c *Client) learnPeerings(ctx context.Context, what string, r *vpc.Routing) error {
	var ids []string
	for route := range routes(r) {
		if route.Target == vpc.PeeringTarget && !route.Blackhole {
			ids = appendNew(ids, route.TargetID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	r.Peerings = make(map[string]bool)
	// By filter: an ID that is gone is an error otherwise.
	pages := ec2.NewDescribeVpcPeeringConnectionsPaginator(c.api, &ec2.DescribeVpcPeeringConnectionsInput{
		Filters:    []types.Filter{{Name: aws.String("vpc-peering-connection-id"), Values: ids}},
		MaxResults: aws.Int32(100),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return wrap("DescribeVpcPeeringConnections", what, err)
		}
		for _, p := range page.VpcPeeringConnections {
			r.Peerings[aws.ToString(p.VpcPeeringConnectionId)] = p.Status != nil && p.Status.Code == types.VpcPeeringConnectionStateReasonCodeActive
		}
	}
	return nil
}

func (c *Client) learnPrefixLists(ctx context.Context, what string, r *vpc.Routing) error {
	var ids []string
	for route := range routes(r) {
		if route.PrefixList != "" && route.Target != vpc.OtherTarget {
			ids = appendNew(ids, route.PrefixList)
		}
	}
	for _, id := range ids {
		pages := ec2.NewGetManagedPrefixListEntriesPaginator(c.api, &ec2.GetManagedPrefixListEntriesInput{
			PrefixListId: aws.String(id), MaxResults: aws.Int32(100),
		})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return wrap("GetManagedPrefixListEntries", what, err)
			}
			for _, e := range page.Entries {
				p, err := netip.ParsePrefix(aws.ToString(e.Cidr))
				if err != nil {
					return fmt.Errorf("%s: %s: EC2 answered: %w", what, id, err)
				}
				if r.PrefixLists == nil {
					r.PrefixLists = make(map[string][]netip.Prefix)
				}
				r.PrefixLists[id] = append(r.PrefixLists[id], p.Masked())
			}
		}
	}
	return nil
}

// routes gives every route of every table.
func routes(r *vpc.Routing) func(func(vpc.Route) bool) {
	return func(yield func(vpc.Route) bool) {
		for _, t := range r.Tables {
			for _, route := range t.Routes {
				if !yield(route) {
					return
				}
			}
		}
	}
}

func appendNew(ids []string, id string) []string {
	for _, have := range ids {
		if have == id {
			return ids
		}
	}
	return append(ids, id)
}
