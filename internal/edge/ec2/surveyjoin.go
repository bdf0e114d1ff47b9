package ec2

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// peerings reads those that have one of the VPCs at an end.
func (s *surveyor) peerings(ctx context.Context) (all []path.Peering, err error) {
	all = []path.Peering{}
	for _, end := range []string{"requester-vpc-info.vpc-id", "accepter-vpc-info.vpc-id"} {
		err := each(ctx, s, "DescribeVpcPeeringConnections", ec2.NewDescribeVpcPeeringConnectionsPaginator(s.api,
			&ec2.DescribeVpcPeeringConnectionsInput{Filters: []types.Filter{filter(end, s.Scope.VPCs...)}, MaxResults: aws.Int32(pageSize)}),
			func(o *ec2.DescribeVpcPeeringConnectionsOutput) error {
				for _, n := range o.VpcPeeringConnections {
					id := aws.ToString(n.VpcPeeringConnectionId)
					known := slices.ContainsFunc(all, func(p path.Peering) bool { return p.ID == id })
					if known || n.RequesterVpcInfo == nil || n.AccepterVpcInfo == nil {
						continue
					}
					p := path.Peering{ID: id, VPCs: [2]string{aws.ToString(n.RequesterVpcInfo.VpcId), aws.ToString(n.AccepterVpcInfo.VpcId)}}
					if n.Status != nil {
						p.State = string(n.Status.Code)
					}
					all = append(all, p)
					for _, far := range []*types.VpcPeeringConnectionVpcInfo{n.RequesterVpcInfo, n.AccepterVpcInfo} {
						s.beyond(FarVPC{ID: aws.ToString(far.VpcId), Region: aws.ToString(far.Region), Account: aws.ToString(far.OwnerId), By: id})
					}
				}
				return nil
			})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b path.Peering) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// beyond notes a VPC that the survey is not of.
func (s *surveyor) beyond(v FarVPC) {
	if v.ID != "" && !slices.Contains(s.Scope.VPCs, v.ID) &&
		!slices.ContainsFunc(s.out.Beyond, func(o FarVPC) bool { return o.ID == v.ID }) {
		s.out.Beyond = append(s.out.Beyond, v)
	}
}

// transitGateways reads those that the VPCs are attached to, whole. One of another
// account shows that account alone what its tables hold; it is left out, so that
// nobody takes it for empty.
func (s *surveyor) transitGateways(ctx context.Context) ([]path.TransitGateway, error) {
	ids, err := s.attachedTo(ctx)
	if err != nil || len(ids) == 0 {
		return []path.TransitGateway{}, err
	}
	var accounts []string
	for _, v := range s.out.VPCs {
		accounts = appendNew(accounts, v.Account)
	}
	all := []path.TransitGateway{}
	err = each(ctx, s, "DescribeTransitGateways", ec2.NewDescribeTransitGatewaysPaginator(s.api, &ec2.DescribeTransitGatewaysInput{
		Filters: []types.Filter{filter("transit-gateway-id", ids...)}, MaxResults: aws.Int32(pageSize)}),
		func(o *ec2.DescribeTransitGatewaysOutput) error {
			for _, n := range o.TransitGateways {
				id, owner := aws.ToString(n.TransitGatewayId), aws.ToString(n.OwnerId)
				if !slices.Contains(accounts, owner) {
					if slices.Contains(accounts, "") {
						continue // whose the VPCs are was refused, which has been said
					}
					s.out.Refused = append(s.out.Refused, fmt.Sprintf("%s is account %s's, which alone sees its route tables", id, owner))
					continue
				}
				all = append(all, path.TransitGateway{ID: id, Attachments: []path.Attachment{}, Tables: []path.TransitTable{},
					GroupReferences: n.Options != nil && n.Options.SecurityGroupReferencingSupport == types.SecurityGroupReferencingSupportValueEnable})
			}
			return nil
		})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b path.TransitGateway) int { return strings.Compare(a.ID, b.ID) })
	for i := range all {
		if err := s.transitGateway(ctx, &all[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// attachedTo is which gateways the VPCs are attached to.
func (s *surveyor) attachedTo(ctx context.Context) (ids []string, err error) {
	err = s.vpcAttachments(ctx, filter("vpc-id", s.Scope.VPCs...), func(a types.TransitGatewayVpcAttachment) {
		ids = appendNew(ids, aws.ToString(a.TransitGatewayId))
	})
	return ids, err
}

func (s *surveyor) vpcAttachments(ctx context.Context, f types.Filter, take func(types.TransitGatewayVpcAttachment)) error {
	return each(ctx, s, "DescribeTransitGatewayVpcAttachments", ec2.NewDescribeTransitGatewayVpcAttachmentsPaginator(s.api,
		&ec2.DescribeTransitGatewayVpcAttachmentsInput{Filters: []types.Filter{f}, MaxResults: aws.Int32(pageSize)}),
		func(o *ec2.DescribeTransitGatewayVpcAttachmentsOutput) error {
			for _, a := range o.TransitGatewayVpcAttachments {
				take(a)
			}
			return nil
		})
}

func (s *surveyor) transitGateway(ctx context.Context, g *path.TransitGateway) error {
	of := filter("transit-gateway-id", g.ID)
	subnets := map[string][]string{} // of this account's attachments; others' are theirs to show
	err := s.vpcAttachments(ctx, of, func(a types.TransitGatewayVpcAttachment) {
		subnets[aws.ToString(a.TransitGatewayAttachmentId)] = slices.Sorted(slices.Values(a.SubnetIds))
	})
	if err != nil {
		return err
	}
	err = each(ctx, s, "DescribeTransitGatewayAttachments", ec2.NewDescribeTransitGatewayAttachmentsPaginator(s.api,
		&ec2.DescribeTransitGatewayAttachmentsInput{Filters: []types.Filter{of}, MaxResults: aws.Int32(pageSize)}),
		func(o *ec2.DescribeTransitGatewayAttachmentsOutput) error {
			for _, n := range o.TransitGatewayAttachments {
				if n.ResourceType != types.TransitGatewayAttachmentResourceTypeVpc {
					continue // a route to it leads to what is not modelled
				}
				a := path.Attachment{ID: aws.ToString(n.TransitGatewayAttachmentId), VPC: aws.ToString(n.ResourceId), State: string(n.State)}
				a.Subnets = subnets[a.ID]
				if n.Association != nil && n.Association.State == types.TransitGatewayAssociationStateAssociated {
					a.Table = aws.ToString(n.Association.TransitGatewayRouteTableId)
				}
				g.Attachments = append(g.Attachments, a)
				s.beyond(FarVPC{ID: a.VPC, Region: s.Region, Account: aws.ToString(n.ResourceOwnerId), By: g.ID})
			}
			return nil
		})
	if err != nil {
		return err
	}
	slices.SortFunc(g.Attachments, func(a, b path.Attachment) int { return strings.Compare(a.ID, b.ID) })
	err = each(ctx, s, "DescribeTransitGatewayRouteTables", ec2.NewDescribeTransitGatewayRouteTablesPaginator(s.api,
		&ec2.DescribeTransitGatewayRouteTablesInput{Filters: []types.Filter{of}, MaxResults: aws.Int32(pageSize)}),
		func(o *ec2.DescribeTransitGatewayRouteTablesOutput) error {
			for _, t := range o.TransitGatewayRouteTables {
				g.Tables = append(g.Tables, path.TransitTable{ID: aws.ToString(t.TransitGatewayRouteTableId), Routes: []path.VPCRoute{}})
			}
			return nil
		})
	if err != nil {
		return err
	}
	slices.SortFunc(g.Tables, func(a, b path.TransitTable) int { return strings.Compare(a.ID, b.ID) })
	for i := range g.Tables {
		if err := s.transitRoutes(ctx, &g.Tables[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *surveyor) transitRoutes(ctx context.Context, t *path.TransitTable) error {
	return each(ctx, s, "SearchTransitGatewayRoutes", ec2.NewSearchTransitGatewayRoutesPaginator(s.api, &ec2.SearchTransitGatewayRoutesInput{
		TransitGatewayRouteTableId: aws.String(t.ID), Filters: []types.Filter{filter("state", "active", "blackhole")}, MaxResults: aws.Int32(pageSize)}),
		func(o *ec2.SearchTransitGatewayRoutesOutput) error {
			if aws.ToBool(o.AdditionalRoutesAvailable) && aws.ToString(o.NextToken) == "" {
				return fmt.Errorf("%s has more routes than it shows", t.ID)
			}
			for _, n := range o.Routes {
				dst := first(n.DestinationCidrBlock)
				if dst == "" || strings.Contains(dst, ":") {
					continue
				}
				line, target := dst, "none"
				if len(n.TransitGatewayAttachments) > 0 {
					target = aws.ToString(n.TransitGatewayAttachments[0].TransitGatewayAttachmentId)
				}
				line += " " + target
				if n.State == types.TransitGatewayRouteStateBlackhole {
					line += " blackhole"
				}
				var r path.VPCRoute
				if err := r.UnmarshalText([]byte(line)); err != nil {
					return fmt.Errorf("%s: %w", t.ID, err)
				}
				t.Routes = append(t.Routes, r)
			}
			return nil
		})
}

// VPCsOf lists the VPCs that ENIs are in. An ENI that is not in the region is nowhere.
func (c *Client) VPCsOf(ctx context.Context, enis []string) ([]string, error) {
	const most = 200 // values of a filter ("Filter", Amazon EC2 API Reference)
	var vpcs []string
	for some := range slices.Chunk(enis, most) {
		pages := ec2.NewDescribeNetworkInterfacesPaginator(c.api, &ec2.DescribeNetworkInterfacesInput{
			Filters: []types.Filter{{Name: aws.String("network-interface-id"), Values: some}}, MaxResults: aws.Int32(pageSize)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return nil, wrap("DescribeNetworkInterfaces", "find the vpcs of enis", err)
			}
			for _, n := range page.NetworkInterfaces {
				vpcs = append(vpcs, aws.ToString(n.VpcId))
			}
		}
	}
	slices.Sort(vpcs)
	return slices.Compact(vpcs), nil
}
