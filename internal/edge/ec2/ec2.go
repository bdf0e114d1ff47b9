// Package ec2 makes the few EC2 calls of a node and of those who clean up after
// nodes: what ENIs there are, one more, one less, more or fewer addresses on one.
// It speaks core types; the SDK's stay inside.
//
// One method is one EC2 call, or the pages of one listing; whoever calls it
// plans what comes next. The exception is the CIDR of a subnet, which EC2 never
// changes and an ENI's description lacks: it is asked for before the first call
// that needs it, and remembered.
//
//	            CreateENI          AttachENI      MarkDeleteOnTermination
//	(nothing) ------------> detached ------> attached ------> goes with its instance
//	     ^      DeleteENI      |  ^             |
//	     +---------------------+  +-------------+
//	                                 DetachENI
//
// Every error of the API is an [*Error] with one of the classes below, so that a
// caller branches on what happened and never on text; [Advice] says what a person
// can do, and [UnknownOutcome] whether EC2 may have done it nevertheless.
//
// The caller owns retries: a call is one attempt, whatever the aws.Config says.
// Only where a connection breaks and EC2 would do the same thing no second time,
// a call is sent once more; see repeatable. Endpoint, region and credentials are
// those of the aws.Config. A call lasts as long as its context lets it.
//
// A Client is safe for concurrent use. It remembers the CIDRs of subnets and
// nothing else.
package ec2

import (
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

// The tags of ENIs. The first four are the names that the Amazon VPC CNI uses
// and that tools and policies of its users know. An ENI that was made here has
// TagOwner too: without it an ENI is the Amazon VPC CNI's or somebody else's,
// and is neither listed as detached nor as leaked.
const (
	TagInstance = "node.k8s.amazonaws.com/instance_id" // of the instance that it was made for
	TagCreated  = "node.k8s.amazonaws.com/createdAt"   // RFC 3339, UTC
	TagCluster  = "cluster.k8s.amazonaws.com/name"     // where the cluster has a name
	TagNoManage = "node.k8s.amazonaws.com/no_manage"   // "true": the user's own, not for pods; never set here
	TagOwner    = "fairway-cni/owner"
)

// Owner is the value of TagOwner.
const Owner = "fairway"

// pageSize is the most that a page of ENIs or subnets can have. Without it EC2
// takes the call as unpaginated, for which it has a smaller budget ("Request
// throttling for the Amazon EC2 API").
const pageSize = 1000

// Client calls EC2.
type Client struct {
	// Observe, if set, is told of each request that was made, when it is over.
	// It is set before the first call, and may be called concurrently.
	Observe func(Call)

	api *ec2.Client

	mu      sync.Mutex
	subnets map[string]netip.Prefix // IPv4 CIDR by subnet ID; the zero Prefix: it has none
}

// New makes a client.
func New(cfg aws.Config) *Client {
	if cfg.Credentials != nil {
		cfg.Credentials = named{cfg.Credentials}
	}
	c := &Client{subnets: map[string]netip.Prefix{}}
	c.api = ec2.NewFromConfig(cfg, c.attempts)
	return c
}

// Know tells the client the CIDRs of the ENIs' subnets, which the metadata service
// says too, so that it need not ask for them.
func (c *Client) Know(enis []vpc.ENI) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range enis {
		if e.SubnetID != "" && e.Subnet.IsValid() {
			c.subnets[e.SubnetID] = e.Subnet.Masked()
		}
	}
}

// learnSubnets asks for the CIDRs of those subnets that are not known yet.
func (c *Client) learnSubnets(ctx context.Context, what string, ids ...string) error {
	var unknown []string
	c.mu.Lock()
	for _, id := range ids {
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
	for _, s := range out.Subnets {
		if _, err := c.learn(s); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// learn remembers the CIDR of a subnet. One for IPv6 alone has none.
func (c *Client) learn(s types.Subnet) (netip.Prefix, error) {
	var cidr netip.Prefix
	if text := aws.ToString(s.CidrBlock); text != "" {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return cidr, fmt.Errorf("subnet %s: EC2 answered: %w", aws.ToString(s.SubnetId), err)
		}
		cidr = p.Masked()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subnets[aws.ToString(s.SubnetId)] = cidr
	return cidr, nil
}

// subnet is what is remembered of a subnet.
func (c *Client) subnet(id string) (netip.Prefix, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cidr, ok := c.subnets[id]
	if !ok {
		return cidr, fmt.Errorf("EC2 does not know its subnet %s: %w", id, ErrNotFound)
	}
	return cidr, nil
}

// eni translates what EC2 says of an interface, apart from its subnet's CIDR.
func eni(n types.NetworkInterface) (vpc.ENI, error) {
	e := vpc.ENI{
		ID: aws.ToString(n.NetworkInterfaceId), SubnetID: aws.ToString(n.SubnetId),
		Zone: aws.ToString(n.AvailabilityZone), Type: string(n.InterfaceType), Tags: tagMap(n.TagSet),
	}
	bad := func(err error) (vpc.ENI, error) {
		return vpc.ENI{ID: e.ID}, fmt.Errorf("%s: EC2 answered: %w", e.ID, err)
	}
	// A time that somebody else wrote in another form is as good as none.
	e.CreatedAt, _ = time.Parse(time.RFC3339, e.Tags[TagCreated])
	var err error
	if e.MAC, err = vpc.ParseMAC(aws.ToString(n.MacAddress)); err != nil {
		return bad(err)
	}
	if a := n.Attachment; a != nil {
		e.AttachmentID, e.Status = aws.ToString(a.AttachmentId), string(a.Status)
		e.DeviceIndex = int(aws.ToInt32(a.DeviceIndex))
		e.CardIndex = int(aws.ToInt32(a.NetworkCardIndex))
		e.DeleteOnTermination = aws.ToBool(a.DeleteOnTermination)
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
		prefix, err := parseBlock(aws.ToString(p.Ipv4Prefix))
		if err != nil {
			return bad(err)
		}
		e.Prefixes = append(e.Prefixes, prefix)
	}
	for _, g := range n.Groups {
		e.Groups = append(e.Groups, aws.ToString(g.GroupId))
	}
	return e, nil
}

// parseBlock reads a prefix of an ENI. EC2 has no other size than a /28
// ("Assign prefixes to network interfaces", Amazon EC2 User Guide), and whoever
// lists a block's addresses counts on a small one.
func parseBlock(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, err
	}
	if !p.Addr().Is4() || p.Bits() != 28 {
		return p, fmt.Errorf("prefix %s is no IPv4 /28", s)
	}
	return p.Masked(), nil
}

// tagMap is never nil: EC2 has said what tags there are.
func tagMap(tags []types.Tag) map[string]string {
	m := make(map[string]string, len(tags))
	for _, t := range tags {
		m[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return m
}
