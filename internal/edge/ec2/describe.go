package ec2

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// ENIs lists what is attached, being attached or being detached, by card and
// device index. One that is being detached has its Status: it gives pods nothing
// any more, and its device index is not free yet. An EFA-only interface has no
// address: its Primary is the zero Addr.
func (c *Client) ENIs(ctx context.Context, instanceID string) ([]vpc.ENI, error) {
	what := "list the ENIs of " + instanceID
	enis, err := c.list(ctx, what, filter("attachment.instance-id", instanceID))
	if err == nil {
		err = c.setSubnets(ctx, what, enis)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(enis, func(a, b vpc.ENI) int {
		return cmp.Or(cmp.Compare(a.CardIndex, b.CardIndex), cmp.Compare(a.DeviceIndex, b.DeviceIndex), cmp.Compare(a.ID, b.ID))
	})
	return enis, nil
}

// Detached lists the ENIs that were made here for the instance and are attached
// to nothing, by ID. EC2 may leave one out for some seconds after it was made,
// or list one that was attached just now.
func (c *Client) Detached(ctx context.Context, instanceID string) ([]vpc.ENI, error) {
	what := "list the detached ENIs of " + instanceID
	enis, err := c.list(ctx, what, filter("status", "available"), filter("tag:"+TagOwner, Owner), filter("tag:"+TagInstance, instanceID))
	if err == nil {
		err = c.setSubnets(ctx, what, enis)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(enis, byID)
	return enis, nil
}

// Leaked lists the ENIs of the VPC that were made here for any instance and are
// attached to nothing, by ID: those of the cluster, or of all if cluster is
// empty. One that a node has made and is about to attach is among them, so that
// its age (CreatedAt) counts. Subnet is the zero Prefix where it is not known.
func (c *Client) Leaked(ctx context.Context, vpcID, cluster string) ([]vpc.ENI, error) {
	filters := []types.Filter{
		filter("vpc-id", vpcID), filter("status", "available"), filter("tag:"+TagOwner, Owner), filter("tag-key", TagInstance),
	}
	if cluster != "" {
		filters = append(filters, filter("tag:"+TagCluster, cluster))
	}
	enis, err := c.list(ctx, "list the leaked ENIs of "+vpcID, filters...)
	if err != nil {
		return nil, err
	}
	for i := range enis {
		// An ENI that is going to be deleted is not worth a call.
		enis[i].Subnet, _ = c.subnet(enis[i].SubnetID)
	}
	slices.SortFunc(enis, byID)
	return enis, nil
}

func byID(a, b vpc.ENI) int { return cmp.Compare(a.ID, b.ID) }

func filter(name string, values ...string) types.Filter {
	return types.Filter{Name: aws.String(name), Values: values}
}

// list gives the ENIs that all filters let through, without subnets' CIDRs.
func (c *Client) list(ctx context.Context, what string, filters ...types.Filter) ([]vpc.ENI, error) {
	pages := ec2.NewDescribeNetworkInterfacesPaginator(c.api, &ec2.DescribeNetworkInterfacesInput{
		Filters: filters, MaxResults: aws.Int32(pageSize),
	})
	var enis []vpc.ENI
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, wrap("DescribeNetworkInterfaces", what, err)
		}
		for _, n := range page.NetworkInterfaces {
			e, err := eni(n)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", what, err)
			}
			enis = append(enis, e)
		}
	}
	return enis, nil
}

// setSubnets completes ENIs with the CIDRs of their subnets.
func (c *Client) setSubnets(ctx context.Context, what string, enis []vpc.ENI) error {
	var ids []string
	for _, e := range enis {
		ids = append(ids, e.SubnetID)
	}
	if err := c.learnSubnets(ctx, what, ids...); err != nil {
		return err
	}
	for i := range enis {
		var err error
		if enis[i].Subnet, err = c.subnet(enis[i].SubnetID); err != nil {
			return fmt.Errorf("%s: %s: %w", what, enis[i].ID, err)
		}
	}
	return nil
}

// Subnets lists the subnets of the VPC in the zone (by name) that have an IPv4
// CIDR, by ID, with their tags and how many addresses EC2 says are free. That
// count does not say whether a free /28 is among them.
func (c *Client) Subnets(ctx context.Context, vpcID, zone string) ([]vpc.Subnet, error) {
	what := "list the subnets of " + vpcID + " in " + zone
	pages := ec2.NewDescribeSubnetsPaginator(c.api, &ec2.DescribeSubnetsInput{
		Filters:    []types.Filter{filter("vpc-id", vpcID), filter("availability-zone", zone)},
		MaxResults: aws.Int32(pageSize),
	})
	var subnets []vpc.Subnet
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, wrap("DescribeSubnets", what, err)
		}
		for _, s := range page.Subnets {
			cidr, err := c.learn(s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", what, err)
			}
			// Only one that is being made or has failed is in another state.
			if !cidr.IsValid() || s.State != "" && s.State != types.SubnetStateAvailable {
				continue
			}
			free := -1
			if s.AvailableIpAddressCount != nil {
				free = int(*s.AvailableIpAddressCount)
			}
			subnets = append(subnets, vpc.Subnet{
				ID: aws.ToString(s.SubnetId), Zone: aws.ToString(s.AvailabilityZone), CIDR: cidr, Free: free, Tags: tagMap(s.Tags),
			})
		}
	}
	slices.SortFunc(subnets, func(a, b vpc.Subnet) int { return cmp.Compare(a.ID, b.ID) })
	return subnets, nil
}

// Limits asks EC2 for the limits of an instance type, for one that is newer than
// the table of [vpc.LimitsOf]. ErrNotFound: EC2 knows no such type in the region.
func (c *Client) Limits(ctx context.Context, instanceType string) (vpc.Limits, error) {
	what := "read the limits of " + instanceType
	out, err := c.api.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{
		InstanceTypes: []types.InstanceType{types.InstanceType(instanceType)},
	})
	if err != nil {
		return vpc.Limits{}, wrap("DescribeInstanceTypes", what, err)
	}
	for _, t := range out.InstanceTypes {
		if string(t.InstanceType) == instanceType {
			l, err := limits(t)
			if err != nil {
				return l, fmt.Errorf("%s: EC2 answered: %w", what, err)
			}
			return l, nil
		}
	}
	return vpc.Limits{}, fmt.Errorf("%s: EC2 answered without it: %w", what, ErrNotFound)
}

// limits translates what EC2 says of a type, in the terms of the table: it counts
// the ENIs of the primary's card only.
func limits(t types.InstanceTypeInfo) (vpc.Limits, error) {
	const mostCards = 256 // the largest type has 32
	n := t.NetworkInfo
	if n == nil {
		return vpc.Limits{}, fmt.Errorf("no network info")
	}
	l := vpc.Limits{
		ENIs: int(aws.ToInt32(n.MaximumNetworkInterfaces)), IPv4PerENI: int(aws.ToInt32(n.Ipv4AddressesPerInterface)),
		DefaultCard: int(aws.ToInt32(n.DefaultNetworkCardIndex)), Hypervisor: string(t.Hypervisor), BareMetal: aws.ToBool(t.BareMetal),
	}
	if l.Hypervisor == "" {
		l.Hypervisor = "unknown"
	}
	for _, card := range n.NetworkCards {
		index := int(aws.ToInt32(card.NetworkCardIndex))
		if index < 0 || index >= mostCards {
			return vpc.Limits{}, fmt.Errorf("network card %d", index)
		}
		for len(l.Cards) <= index {
			l.Cards = append(l.Cards, 0)
		}
		l.Cards[index] = int(aws.ToInt32(card.MaximumNetworkInterfaces))
	}
	if len(l.Cards) == 0 {
		l.Cards = []int{l.ENIs}
	}
	if l.DefaultCard < 0 || l.DefaultCard >= len(l.Cards) {
		return vpc.Limits{}, fmt.Errorf("default network card %d of %d", l.DefaultCard, len(l.Cards))
	}
	l.ENIs = l.Cards[l.DefaultCard]
	if l.ENIs < 1 || l.IPv4PerENI < 1 {
		return vpc.Limits{}, fmt.Errorf("%d interfaces of %d IPv4 addresses", l.ENIs, l.IPv4PerENI)
	}
	return l, nil
}
