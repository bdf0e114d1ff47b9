// Package ec2 makes the few EC2 calls of a node: what ENIs the instance has, one
// more, more addresses on one. It speaks core types; the SDK's stay inside.
//
// Every error of the API is an [*Error] with one of the classes below, so that a
// caller branches on what happened and never on text, and [Advice] says what a
// person can do. A call that fails leaves nothing behind in EC2 that it could
// remove; what it could not remove it names.
//
// Endpoint, region, credentials and retries are those of the aws.Config.
//
// A Client is safe for concurrent use. It remembers the CIDRs of subnets, which
// EC2 never changes, and nothing else.
package ec2

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Tags of the ENIs that are created here, by which a later clean-up knows whose
// they were.
const (
	TagInstance = "fairway-cni/instance-id"
	TagCreated  = "fairway-cni/created-at" // RFC 3339, UTC
)

// pageSize is the most that DescribeNetworkInterfaces gives in one page. Without
// it EC2 takes the call as unpaginated, for which it has a smaller budget
// ("Request throttling for the Amazon EC2 API").
const pageSize = 1000

// Client calls EC2.
type Client struct {
	api *ec2.Client
	// notFoundPauses are the waits between attempts to attach an ENI that EC2
	// has created but does not know everywhere yet.
	notFoundPauses []time.Duration

	mu      sync.Mutex
	subnets map[string]netip.Prefix // IPv4 CIDR by subnet ID
}

// New makes a client.
func New(cfg aws.Config) *Client {
	const ms = time.Millisecond
	if cfg.Credentials != nil {
		cfg.Credentials = named{cfg.Credentials}
	}
	return &Client{
		api: ec2.NewFromConfig(cfg),
		// The API is eventually consistent, usually within a second or two
		// ("Eventual consistency in the Amazon EC2 API").
		notFoundPauses: []time.Duration{250 * ms, 500 * ms, 1000 * ms, 2000 * ms, 4000 * ms},
		subnets:        map[string]netip.Prefix{},
	}
}

// ENIs lists what is attached or being attached to the instance, by card and
// device index. One that is being detached is left out. An EFA-only interface
// has no address: its Primary is the zero Addr.
func (c *Client) ENIs(ctx context.Context, instanceID string) ([]vpc.ENI, error) {
	what := "list the ENIs of " + instanceID
	pages := ec2.NewDescribeNetworkInterfacesPaginator(c.api, &ec2.DescribeNetworkInterfacesInput{
		Filters:    []types.Filter{{Name: aws.String("attachment.instance-id"), Values: []string{instanceID}}},
		MaxResults: aws.Int32(pageSize),
	})
	var found []types.NetworkInterface
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, wrap("DescribeNetworkInterfaces", what, err)
		}
		for _, n := range page.NetworkInterfaces {
			if a := n.Attachment; a != nil && a.Status != types.AttachmentStatusDetaching && a.Status != types.AttachmentStatusDetached {
				found = append(found, n)
			}
		}
	}
	if err := c.learnSubnets(ctx, what, found); err != nil {
		return nil, err
	}
	enis := make([]vpc.ENI, 0, len(found))
	for _, n := range found {
		e, err := c.eni(n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		enis = append(enis, e)
	}
	slices.SortFunc(enis, func(a, b vpc.ENI) int {
		return cmp.Or(cmp.Compare(a.CardIndex, b.CardIndex), cmp.Compare(a.DeviceIndex, b.DeviceIndex), cmp.Compare(a.ID, b.ID))
	})
	return enis, nil
}

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
			return nil, fmt.Errorf("%s: EC2 answered: %w", what, err)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// learnSubnets asks for the CIDRs of the ENIs' subnets that are not known yet.
func (c *Client) learnSubnets(ctx context.Context, what string, enis []types.NetworkInterface) error {
	var unknown []string
	c.mu.Lock()
	for _, n := range enis {
		id := aws.ToString(n.SubnetId)
		if _, ok := c.subnets[id]; !ok && !slices.Contains(unknown, id) {
			unknown = append(unknown, id)
		}
	}
	c.mu.Unlock()
	if len(unknown) == 0 {
		return nil
	}
	// By ID and so without pages: an instance's ENIs are in few subnets.
	out, err := c.api.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{SubnetIds: unknown})
	if err != nil {
		return wrap("DescribeSubnets", what, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range out.Subnets {
		p, err := netip.ParsePrefix(aws.ToString(s.CidrBlock))
		if err != nil {
			return fmt.Errorf("%s: subnet %s: EC2 answered: %w", what, aws.ToString(s.SubnetId), err)
		}
		c.subnets[aws.ToString(s.SubnetId)] = p.Masked()
	}
	return nil
}

// eni translates what EC2 says of an interface. Its subnet must be learnt.
func (c *Client) eni(n types.NetworkInterface) (vpc.ENI, error) {
	c.mu.Lock()
	subnet, ok := c.subnets[aws.ToString(n.SubnetId)]
	c.mu.Unlock()
	e := vpc.ENI{ID: aws.ToString(n.NetworkInterfaceId), SubnetID: aws.ToString(n.SubnetId), Subnet: subnet}
	if !ok {
		return vpc.ENI{}, fmt.Errorf("%s: EC2 does not know its subnet %s: %w", e.ID, e.SubnetID, ErrNotFound)
	}
	bad := func(err error) (vpc.ENI, error) { return vpc.ENI{}, fmt.Errorf("%s: EC2 answered: %w", e.ID, err) }
	var err error
	if e.MAC, err = vpc.ParseMAC(aws.ToString(n.MacAddress)); err != nil {
		return bad(err)
	}
	if a := n.Attachment; a != nil {
		e.AttachmentID = aws.ToString(a.AttachmentId)
		e.DeviceIndex = int(aws.ToInt32(a.DeviceIndex))
		e.CardIndex = int(aws.ToInt32(a.NetworkCardIndex))
	}
	for _, a := range n.PrivateIpAddresses {
		addr, err := netip.ParseAddr(aws.ToString(a.PrivateIpAddress))
		switch {
		case err != nil:
			return bad(err)
		case aws.ToBool(a.Primary):
			e.Primary = addr
		default:
			e.Secondary = append(e.Secondary, addr)
		}
	}
	for _, p := range n.Ipv4Prefixes {
		prefix, err := netip.ParsePrefix(aws.ToString(p.Ipv4Prefix))
		if err != nil {
			return bad(err)
		}
		e.Prefixes = append(e.Prefixes, prefix.Masked())
	}
	for _, g := range n.Groups {
		e.Groups = append(e.Groups, aws.ToString(g.GroupId))
	}
	return e, nil
}
