package ec2

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// AssignAddresses gives the ENI n more secondary addresses, which EC2 chooses,
// and returns them. EC2 gives all or none.
func (c *Client) AssignAddresses(ctx context.Context, eniID string, n int) ([]netip.Addr, error) {
	what := fmt.Sprintf("assign %d addresses to %s", n, eniID)
	out, err := c.api.AssignPrivateIpAddresses(ctx, &ec2.AssignPrivateIpAddressesInput{
		NetworkInterfaceId:             aws.String(eniID),
		SecondaryPrivateIpAddressCount: aws.Int32(int32(n)),
	})
	if err != nil {
		return nil, wrap("AssignPrivateIpAddresses", what, err)
	}
	var addrs []netip.Addr
	for _, a := range out.AssignedPrivateIpAddresses {
		addr, err := netip.ParseAddr(aws.ToString(a.PrivateIpAddress))
		if err != nil {
			return nil, &answerError{what, fmt.Errorf("EC2 answered: %w", err)}
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// AssignPrefixes gives the ENI n more /28 prefixes, which EC2 chooses, and returns
// them. EC2 gives all or none. ErrSubnetFull: the subnet has not as many free
// blocks, whatever its count of free addresses says.
func (c *Client) AssignPrefixes(ctx context.Context, eniID string, n int) ([]netip.Prefix, error) {
	what := fmt.Sprintf("assign %d prefixes to %s", n, eniID)
	out, err := c.api.AssignPrivateIpAddresses(ctx, &ec2.AssignPrivateIpAddressesInput{
		NetworkInterfaceId: aws.String(eniID),
		Ipv4PrefixCount:    aws.Int32(int32(n)),
	})
	if err != nil {
		return nil, wrap("AssignPrivateIpAddresses", what, err)
	}
	var prefixes []netip.Prefix
	for _, p := range out.AssignedIpv4Prefixes {
		prefix, err := parseBlock(aws.ToString(p.Ipv4Prefix))
		if err != nil {
			return nil, &answerError{what, fmt.Errorf("EC2 answered: %w", err)}
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

// UnassignAddresses takes secondary addresses off the ENI: all, or none and an
// error. ErrState: it has not got one of them.
func (c *Client) UnassignAddresses(ctx context.Context, eniID string, addrs []netip.Addr) error {
	in := &ec2.UnassignPrivateIpAddressesInput{NetworkInterfaceId: aws.String(eniID)}
	for _, a := range addrs {
		in.PrivateIpAddresses = append(in.PrivateIpAddresses, a.String())
	}
	return c.unassign(ctx, in, fmt.Sprintf("unassign %d addresses of %s", len(addrs), eniID))
}

// UnassignPrefixes takes prefixes off the ENI: all, or none and an error.
// ErrState: it has not got one of them.
func (c *Client) UnassignPrefixes(ctx context.Context, eniID string, prefixes []netip.Prefix) error {
	in := &ec2.UnassignPrivateIpAddressesInput{NetworkInterfaceId: aws.String(eniID)}
	for _, p := range prefixes {
		in.Ipv4Prefixes = append(in.Ipv4Prefixes, p.String())
	}
	return c.unassign(ctx, in, fmt.Sprintf("unassign %d prefixes of %s", len(prefixes), eniID))
}

func (c *Client) unassign(ctx context.Context, in *ec2.UnassignPrivateIpAddressesInput, what string) error {
	if _, err := c.api.UnassignPrivateIpAddresses(ctx, in); err != nil {
		return wrap("UnassignPrivateIpAddresses", what, err)
	}
	return nil
}
