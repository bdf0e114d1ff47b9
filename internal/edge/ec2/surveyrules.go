package ec2

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// Rules and routes are read into the lines of package path, which says what is
// one and what is not.

const tablePage = 100 // the most route tables that a page has

func (s *surveyor) tables(ctx context.Context, id string) (all []path.RouteTable, err error) {
	err = each(ctx, s, "DescribeRouteTables", ec2.NewDescribeRouteTablesPaginator(s.api, &ec2.DescribeRouteTablesInput{
		Filters: inVPC(id), MaxResults: aws.Int32(tablePage)}),
		func(o *ec2.DescribeRouteTablesOutput) error {
			for _, t := range o.RouteTables {
				table := path.RouteTable{ID: aws.ToString(t.RouteTableId), Routes: []path.VPCRoute{}}
				for _, a := range t.Associations {
					if st := a.AssociationState; st != nil && st.State != types.RouteTableAssociationStateCodeAssociated {
						continue
					}
					table.Main = table.Main || aws.ToBool(a.Main)
					if sub := aws.ToString(a.SubnetId); sub != "" {
						table.Subnets = append(table.Subnets, sub)
					}
				}
				slices.Sort(table.Subnets)
				for _, r := range t.Routes {
					line := routeLine(r)
					if line == "" {
						continue
					}
					var route path.VPCRoute
					if err := route.UnmarshalText([]byte(line)); err != nil {
						return fmt.Errorf("%s: %w", table.ID, err)
					}
					table.Routes = append(table.Routes, route)
				}
				all = append(all, table)
			}
			return nil
		})
	slices.SortFunc(all, func(a, b path.RouteTable) int { return strings.Compare(a.ID, b.ID) })
	return all, err
}

// routeLine is empty for a route of IPv6.
func routeLine(r types.Route) string {
	dst := first(r.DestinationCidrBlock, r.DestinationPrefixListId)
	if dst == "" {
		return ""
	}
	// An instance's route names its ENI too, which is what counts.
	target := first(r.NetworkInterfaceId, r.VpcPeeringConnectionId, r.TransitGatewayId, r.NatGatewayId, r.GatewayId,
		r.CarrierGatewayId, r.LocalGatewayId, r.CoreNetworkArn, r.EgressOnlyInternetGatewayId, r.InstanceId, r.OdbNetworkArn)
	if target == "" {
		target = "unknown-target"
	}
	line := dst + " " + target
	if r.State == types.RouteStateBlackhole {
		line += " blackhole"
	}
	return line
}

func first(texts ...*string) string {
	for _, t := range texts {
		if s := aws.ToString(t); s != "" {
			return s
		}
	}
	return ""
}

func (s *surveyor) acls(ctx context.Context, id string) (all []path.ACL, err error) {
	err = each(ctx, s, "DescribeNetworkAcls", ec2.NewDescribeNetworkAclsPaginator(s.api, &ec2.DescribeNetworkAclsInput{
		Filters: inVPC(id), MaxResults: aws.Int32(pageSize)}),
		func(o *ec2.DescribeNetworkAclsOutput) error {
			for _, n := range o.NetworkAcls {
				a := path.ACL{ID: aws.ToString(n.NetworkAclId), Default: aws.ToBool(n.IsDefault), In: []path.ACLRule{}, Out: []path.ACLRule{}}
				for _, x := range n.Associations {
					a.Subnets = append(a.Subnets, aws.ToString(x.SubnetId))
				}
				slices.Sort(a.Subnets)
				for _, e := range n.Entries {
					line := aclLine(e)
					if line == "" {
						continue
					}
					var r path.ACLRule
					if err := r.UnmarshalText([]byte(line)); err != nil {
						return fmt.Errorf("%s: %w", a.ID, err)
					}
					if r.Out {
						a.Out = append(a.Out, r)
					} else {
						a.In = append(a.In, r)
					}
				}
				byNumber := func(a, b path.ACLRule) int { return a.Number - b.Number }
				slices.SortFunc(a.In, byNumber)
				slices.SortFunc(a.Out, byNumber)
				all = append(all, a)
			}
			return nil
		})
	slices.SortFunc(all, func(a, b path.ACL) int { return strings.Compare(a.ID, b.ID) })
	return all, err
}

// lastRule is the number of the rule that denies what no other has decided, and
// that every ACL has.
const lastRule = 32767

// aclLine is empty for a rule of IPv6, and for the last one.
func aclLine(e types.NetworkAclEntry) string {
	if aws.ToString(e.CidrBlock) == "" || aws.ToInt32(e.RuleNumber) == lastRule {
		return ""
	}
	from, to := int32(-1), int32(-1)
	if p := e.PortRange; p != nil {
		from, to = aws.ToInt32(p.From), aws.ToInt32(p.To)
	}
	if i := e.IcmpTypeCode; i != nil {
		from, to = aws.ToInt32(i.Type), aws.ToInt32(i.Code)
	}
	way := "from"
	if aws.ToBool(e.Egress) {
		way = "to"
	}
	what, ok := matchLine(aws.ToString(e.Protocol), from, to)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d %s %s %s %s", aws.ToInt32(e.RuleNumber), e.RuleAction, what, way, *e.CidrBlock)
}

// matchLine is a protocol with ports, or with ICMP's type and code; false for
// what is no protocol of IPv4. Groups name protocols, ACLs number them (IANA).
func matchLine(proto string, from, to int32) (string, bool) {
	switch proto {
	case "-1":
		return "all", true
	case "tcp", "6":
		proto = "tcp"
	case "udp", "17":
		proto = "udp"
	case "icmp", "1":
		switch {
		case from < 0:
			return "icmp", true
		case to < 0:
			return fmt.Sprintf("icmp %d", from), true
		}
		return fmt.Sprintf("icmp %d/%d", from, to), true
	case "icmpv6", "58":
		return "", false
	default:
		return proto, true
	}
	switch {
	case from < 0 || from == 0 && to == 65535:
		return proto, true
	case from == to:
		return proto + " " + strconv.Itoa(int(from)), true
	}
	return fmt.Sprintf("%s %d-%d", proto, from, to), true
}

func (s *surveyor) groups(ctx context.Context, id string) (all []path.Group, err error) {
	err = each(ctx, s, "DescribeSecurityGroups", ec2.NewDescribeSecurityGroupsPaginator(s.api, &ec2.DescribeSecurityGroupsInput{
		Filters: inVPC(id), MaxResults: aws.Int32(pageSize)}),
		func(o *ec2.DescribeSecurityGroupsOutput) error {
			for _, n := range o.SecurityGroups {
				g := path.Group{ID: aws.ToString(n.GroupId)}
				var err error
				if g.In, err = groupRules(n.IpPermissions, "from"); err != nil {
					return fmt.Errorf("%s: %w", g.ID, err)
				}
				if g.Out, err = groupRules(n.IpPermissionsEgress, "to"); err != nil {
					return fmt.Errorf("%s: %w", g.ID, err)
				}
				all = append(all, g)
			}
			return nil
		})
	slices.SortFunc(all, func(a, b path.Group) int { return strings.Compare(a.ID, b.ID) })
	return all, err
}

func groupRules(list []types.IpPermission, way string) ([]path.GroupRule, error) {
	rules := []path.GroupRule{}
	for _, p := range list {
		from, to := int32(-1), int32(-1)
		if p.FromPort != nil && p.ToPort != nil {
			from, to = *p.FromPort, *p.ToPort
		}
		what, ok := matchLine(aws.ToString(p.IpProtocol), from, to)
		if !ok {
			continue
		}
		var remotes []string
		for _, r := range p.IpRanges {
			remotes = append(remotes, aws.ToString(r.CidrIp))
		}
		for _, r := range p.PrefixListIds {
			remotes = append(remotes, aws.ToString(r.PrefixListId))
		}
		for _, r := range p.UserIdGroupPairs {
			remotes = append(remotes, aws.ToString(r.GroupId))
		}
		for _, remote := range remotes {
			var rule path.GroupRule
			if err := rule.UnmarshalText([]byte(what + " " + way + " " + remote)); err != nil {
				return nil, err
			}
			rules = append(rules, rule)
		}
	}
	return rules, nil
}

// prefixLists reads those that the VPC's routes and groups name.
func (s *surveyor) prefixLists(ctx context.Context, v *path.VPC) (map[string][]netip.Prefix, error) {
	var ids []string
	for _, t := range v.RouteTables.Value {
		for _, r := range t.Routes {
			if r.PrefixList != "" {
				ids = appendNew(ids, r.PrefixList)
			}
		}
	}
	for _, g := range v.Groups.Value {
		for _, r := range slices.Concat(g.In, g.Out) {
			if strings.HasPrefix(r.Remote, "pl-") {
				ids = appendNew(ids, r.Remote)
			}
		}
	}
	all := map[string][]netip.Prefix{}
	for _, id := range ids {
		all[id] = []netip.Prefix{}
		err := each(ctx, s, "GetManagedPrefixListEntries", ec2.NewGetManagedPrefixListEntriesPaginator(s.api,
			&ec2.GetManagedPrefixListEntriesInput{PrefixListId: aws.String(id), MaxResults: aws.Int32(tablePage)}),
			func(o *ec2.GetManagedPrefixListEntriesOutput) error {
				for _, e := range o.Entries {
					p, err := netip.ParsePrefix(aws.ToString(e.Cidr))
					if err != nil {
						return fmt.Errorf("%s: %w", id, err)
					}
					if p.Addr().Is4() {
						all[id] = append(all[id], p.Masked())
					}
				}
				return nil
			})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
