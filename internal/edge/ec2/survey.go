package ec2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// Scope is what a survey is of.
type Scope struct {
	Region string   // of the client
	VPCs   []string // IDs
	// Pauses are the waits after EC2 has throttled a call, one for each further
	// attempt; nil: some seconds in all. A survey is a person's, who would only
	// start it again.
	Pauses []time.Duration
}

// Survey is what one account's EC2 says, in one region, of some VPCs and of what
// joins them with others. A part that EC2 refused is unknown.
type Survey struct {
	VPCs            []path.VPC
	Peerings        path.Part[[]path.Peering]
	TransitGateways path.Part[[]path.TransitGateway]
	// Beyond are the VPCs at the other ends, and those of the scope that this
	// account and region do not have.
	Beyond []FarVPC
	// Instances are the instances that ENIs are attached to, by ENI.
	Instances map[string]string
	// Refused says what could not be read, for people: the call and why.
	Refused []string
}

// FarVPC is a VPC that something names and the survey is not of.
type FarVPC struct {
	ID      string
	Region  string // empty: not known
	Account string // empty: not known
	By      string // the peering or transit gateway that leads to it; empty: it was asked for
}

// surveyor makes the calls of one survey.
type surveyor struct {
	*Client
	Scope
	out Survey
}

// Survey reads VPCs whole, page by page: subnets, route tables, ACLs, groups,
// ENIs, NAT gateways, the prefix lists that they name, their peerings, and the
// transit gateways that they are attached to. A refusal, or an
// answer that makes no sense, makes its part unknown and is no error; an error is
// one of the context, or that EC2 does not answer.
func (c *Client) Survey(ctx context.Context, scope Scope) (Survey, error) {
	if scope.Pauses == nil {
		scope.Pauses = []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}
	}
	s := &surveyor{Client: c, Scope: scope, out: Survey{Instances: map[string]string{}}}
	if err := s.vpcs(ctx); err != nil {
		return s.out, err
	}
	for i := range s.out.VPCs {
		if err := s.vpc(ctx, &s.out.VPCs[i]); err != nil {
			return s.out, err
		}
	}
	peerings, err := s.peerings(ctx)
	if s.out.Peerings, err = surveyed(s, peerings, err); err != nil {
		return s.out, err
	}
	gateways, err := s.transitGateways(ctx)
	s.out.TransitGateways, err = surveyed(s, gateways, err)
	return s.out, err
}

// surveyed makes a part of what was read, or of why it was not. It passes on the
// errors that end the survey.
func surveyed[T any](s *surveyor, v T, err error) (path.Part[T], error) {
	var e *Error
	why := ""
	switch {
	case err == nil:
		return path.Known(v), nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.As(err, &e) && e.Code == "":
		return path.Unknown[T](err.Error()), err
	case e == nil:
		why = err.Error()
	case errors.Is(err, ErrUnauthorized):
		why = "no right to ec2:" + e.Action
	default:
		why = "EC2 refused " + e.Action + ": " + e.Code
	}
	if !slices.Contains(s.out.Refused, why) {
		s.out.Refused = append(s.out.Refused, why)
	}
	return path.Unknown[T](why), nil
}

// pager is one of the SDK's.
type pager[O any] interface {
	HasMorePages() bool
	NextPage(context.Context, ...func(*ec2.Options)) (O, error)
}

// each gives all pages of a listing, and waits where EC2 throttles or an answer
// breaks off.
func each[O any](ctx context.Context, s *surveyor, action string, pages pager[O], take func(O) error) error {
	what := "survey region " + s.Region
	for pages.HasMorePages() {
		var page O
		for i := 0; ; i++ {
			got, err := pages.NextPage(ctx)
			if err == nil {
				page = got
				break
			}
			if err = wrap(action, what, err); !errors.Is(err, ErrThrottled) && !cutOff(err) || i >= len(s.Pauses) {
				return err
			}
			select {
			case <-time.After(s.Pauses[i]):
			case <-ctx.Done():
				return fmt.Errorf("%s: %w", what, ctx.Err())
			}
		}
		if err := take(page); err != nil {
			return fmt.Errorf("%s: %s: EC2 answered: %w", what, action, err)
		}
	}
	return nil
}

// cutOff holds for an answer that began and did not come whole. A listing can be
// asked for again.
func cutOff(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

func inVPC(id string) []types.Filter { return []types.Filter{filter("vpc-id", id)} }

// vpcs finds which of the scope's there are.
func (s *surveyor) vpcs(ctx context.Context) error {
	found := map[string]path.VPC{}
	err := each(ctx, s, "DescribeVpcs", ec2.NewDescribeVpcsPaginator(s.api, &ec2.DescribeVpcsInput{
		Filters: []types.Filter{filter("vpc-id", s.Scope.VPCs...)}, MaxResults: aws.Int32(pageSize)}),
		func(o *ec2.DescribeVpcsOutput) error {
			for _, v := range o.Vpcs {
				cidrs, err := vpcCIDRs(v)
				if err != nil {
					return err
				}
				id := aws.ToString(v.VpcId)
				found[id] = path.VPC{ID: id, Name: label(tagMap(v.Tags)["Name"], id), Account: aws.ToString(v.OwnerId),
					Region: s.Region, CIDRs: path.Known(cidrs)}
			}
			return nil
		})
	cidrs, end := surveyed(s, []netip.Prefix(nil), err)
	if end != nil {
		return end
	}
	for _, id := range s.Scope.VPCs {
		v, ok := found[id]
		switch {
		case ok:
			s.out.VPCs = append(s.out.VPCs, v)
		case !cidrs.Known: // it may be there, and other calls may tell
			s.out.VPCs = append(s.out.VPCs, path.VPC{ID: id, Name: id, Region: s.Region, CIDRs: cidrs})
		default:
			s.out.Beyond = append(s.out.Beyond, FarVPC{ID: id, Region: s.Region})
		}
	}
	for i := range s.out.VPCs { // a label of two VPCs is none
		v := &s.out.VPCs[i]
		if slices.ContainsFunc(s.out.VPCs, func(o path.VPC) bool { return o.ID != v.ID && o.Name == v.Name }) {
			v.Name = v.ID
		}
	}
	return nil
}

// label is a name by which places can be told, or the ID.
func label(name, id string) string {
	if name == "" || len(name) > 64 || name == "node" || strings.ContainsAny(name, ":/ \t\n\"'") {
		return id
	}
	return name
}

// vpc reads what is inside one.
func (s *surveyor) vpc(ctx context.Context, v *path.VPC) error {
	var end error
	keep := func(err error) { end = errors.Join(end, err) }
	subnets, err := s.subnets(ctx, v.ID)
	v.Subnets, err = surveyed(s, subnets, err)
	keep(err)
	tables, err := s.tables(ctx, v.ID)
	v.RouteTables, err = surveyed(s, tables, err)
	keep(err)
	acls, err := s.acls(ctx, v.ID)
	v.ACLs, err = surveyed(s, acls, err)
	keep(err)
	groups, err := s.groups(ctx, v.ID)
	v.Groups, err = surveyed(s, groups, err)
	keep(err)
	nats, err := s.natGateways(ctx, v.ID)
	v.NATGateways, err = surveyed(s, nats, err)
	keep(err)
	enis, err := s.enis(ctx, v.ID, v.NATGateways.Known)
	v.ENIs, err = surveyed(s, enis, err)
	keep(err)
	lists, err := s.prefixLists(ctx, v)
	v.PrefixLists, err = surveyed(s, lists, err)
	keep(err)
	return end
}

func (s *surveyor) subnets(ctx context.Context, id string) (all []path.Subnet, err error) {
	err = each(ctx, s, "DescribeSubnets", ec2.NewDescribeSubnetsPaginator(s.api, &ec2.DescribeSubnetsInput{
		Filters: inVPC(id), MaxResults: aws.Int32(pageSize)}),
		func(o *ec2.DescribeSubnetsOutput) error {
			for _, n := range o.Subnets {
				if aws.ToString(n.CidrBlock) == "" {
					continue // of IPv6 alone
				}
				cidr, err := netip.ParsePrefix(aws.ToString(n.CidrBlock))
				if err != nil {
					return err
				}
				all = append(all, path.Subnet{ID: aws.ToString(n.SubnetId), CIDR: cidr.Masked(), Zone: aws.ToString(n.AvailabilityZone)})
			}
			return nil
		})
	slices.SortFunc(all, func(a, b path.Subnet) int { return strings.Compare(a.ID, b.ID) })
	return all, err
}

func (s *surveyor) natGateways(ctx context.Context, id string) (all []path.NATGateway, err error) {
	err = each(ctx, s, "DescribeNatGateways", ec2.NewDescribeNatGatewaysPaginator(s.api, &ec2.DescribeNatGatewaysInput{
		Filter: inVPC(id), MaxResults: aws.Int32(pageSize)}),
		func(o *ec2.DescribeNatGatewaysOutput) error {
			for _, g := range o.NatGateways {
				n := path.NATGateway{ID: aws.ToString(g.NatGatewayId), Subnet: aws.ToString(g.SubnetId), State: string(g.State)}
				for _, a := range g.NatGatewayAddresses {
					// A further address serves further flows, in the same way.
					if n.Private.IsValid() && !aws.ToBool(a.IsPrimary) {
						continue
					}
					n.Private, _ = netip.ParseAddr(aws.ToString(a.PrivateIp)) // none of one that failed
					n.Public, _ = netip.ParseAddr(aws.ToString(a.PublicIp))
				}
				all = append(all, n)
			}
			return nil
		})
	slices.SortFunc(all, func(a, b path.NATGateway) int { return strings.Compare(a.ID, b.ID) })
	return all, err
}

// enis reads the VPC's ENIs. Those of NAT gateways are the gateways' own, where
// those are known.
func (s *surveyor) enis(ctx context.Context, id string, natsKnown bool) (all []path.ENI, err error) {
	err = each(ctx, s, "DescribeNetworkInterfaces", ec2.NewDescribeNetworkInterfacesPaginator(s.api, &ec2.DescribeNetworkInterfacesInput{
		Filters: inVPC(id), MaxResults: aws.Int32(pageSize)}),
		func(o *ec2.DescribeNetworkInterfacesOutput) error {
			for _, n := range o.NetworkInterfaces {
				if natsKnown && n.InterfaceType == types.NetworkInterfaceTypeNatGateway {
					continue
				}
				e, err := surveyENI(n)
				if err != nil {
					return fmt.Errorf("%s: %w", aws.ToString(n.NetworkInterfaceId), err)
				}
				if len(e.Addresses) == 0 {
					continue // for IPv6 or EFA alone
				}
				if n.Attachment != nil && aws.ToString(n.Attachment.InstanceId) != "" {
					s.out.Instances[e.ID] = aws.ToString(n.Attachment.InstanceId)
				}
				all = append(all, e)
			}
			return nil
		})
	slices.SortFunc(all, func(a, b path.ENI) int { return strings.Compare(a.ID, b.ID) })
	return all, err
}

func surveyENI(n types.NetworkInterface) (path.ENI, error) {
	e := path.ENI{ID: aws.ToString(n.NetworkInterfaceId), Subnet: aws.ToString(n.SubnetId),
		Attached: path.Known(n.Attachment != nil && n.Attachment.Status == types.AttachmentStatusAttached)}
	if n.SourceDestCheck != nil {
		e.Check = path.Known(*n.SourceDestCheck)
	}
	groups := []string{}
	for _, g := range n.Groups {
		groups = append(groups, aws.ToString(g.GroupId))
	}
	e.Groups = path.Known(groups)
	for _, a := range n.PrivateIpAddresses {
		addr, err := netip.ParseAddr(aws.ToString(a.PrivateIpAddress))
		if err != nil {
			return e, err
		}
		if aws.ToBool(a.Primary) {
			e.Addresses = slices.Insert(e.Addresses, 0, addr)
		} else {
			e.Addresses = append(e.Addresses, addr)
		}
		if a.Association == nil || aws.ToString(a.Association.PublicIp) == "" {
			continue
		}
		public, err := netip.ParseAddr(*a.Association.PublicIp)
		if err != nil {
			return e, err
		}
		if e.Public == nil {
			e.Public = map[netip.Addr]netip.Addr{}
		}
		e.Public[addr] = public
	}
	for _, p := range n.Ipv4Prefixes {
		block, err := netip.ParsePrefix(aws.ToString(p.Ipv4Prefix))
		if err != nil {
			return e, err
		}
		e.Prefixes = append(e.Prefixes, block.Masked())
	}
	return e, nil
}
