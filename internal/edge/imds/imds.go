// Package imds reads from the EC2 instance metadata service who this instance
// is and what ENIs it has. It is the one source an agent has before it has any
// other, so its errors say what to check.
//
// Only IMDSv2 is spoken: a token first, never the token-less version 1. An
// answer is returned whole and checked, or not at all. Each call ends within
// [Timeout], or [ENIsTimeout], whatever the service does.
//
// A Client is safe for concurrent use.
package imds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Timeout bounds each call. A healthy service answers within milliseconds; the
// SDK's own three attempts fit well into it.
const Timeout = 5 * time.Second

// maxText bounds one answer in bytes. The longest list we read is that of a
// VPC's CIDR blocks, at most 50 of 18 characters ("Amazon VPC quotas").
const maxText = 16 << 10

var (
	// ErrUnavailable says that no metadata service answers as one.
	ErrUnavailable = errors.New("instance metadata service (IMDS) is unavailable")
	// ErrNotFound says that the service answers and has no such item.
	ErrNotFound = errors.New("no such item in the instance metadata")
)

// Identity is who this instance is.
type Identity struct {
	InstanceID   string
	InstanceType string
	Region       string
	AZ           string // availability zone, by name
	AccountID    string // empty where the service does not say

	// Of the primary ENI.
	MAC      vpc.MAC
	SubnetID string
	VPCID    string
	Groups   []string // security group IDs
}

// Client asks the metadata service.
type Client struct {
	api *imds.Client
}

// New makes a client with the endpoint and retries that cfg says; the SDK's
// default is http://169.254.169.254.
func New(cfg aws.Config) *Client { return newClient(cfg) }

// newClient lets the tests take away the pauses between attempts.
func newClient(cfg aws.Config, change ...func(*imds.Options)) *Client {
	ours := func(o *imds.Options) {
		// Version 1 lets any process that can make the agent fetch a URL
		// read the instance's credentials.
		o.EnableFallback = aws.FalseTernary
		o.APIOptions = append(o.APIOptions, noteAnswers)
	}
	return &Client{api: imds.NewFromConfig(cfg, append([]func(*imds.Options){ours}, change...)...)}
}

// Identity reads who this instance is. Errors: ErrUnavailable, ErrNotFound, and
// others where the answers make no sense.
func (c *Client) Identity(ctx context.Context) (Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	id, err := c.identity(ctx)
	if err != nil {
		return Identity{}, fmt.Errorf("read instance identity: %w", err)
	}
	return id, nil
}

func (c *Client) identity(ctx context.Context) (Identity, error) {
	ctx, last := withAnswer(ctx)
	doc, err := c.api.GetInstanceIdentityDocument(ctx, nil)
	if err != nil {
		return Identity{}, explain(ctx, "dynamic/instance-identity/document", *last, err)
	}
	id := Identity{
		InstanceID: doc.InstanceID, InstanceType: doc.InstanceType,
		Region: doc.Region, AZ: doc.AvailabilityZone, AccountID: doc.AccountID,
	}
	mac, err := c.get(ctx, "mac")
	if err != nil {
		return Identity{}, err
	}
	if id.MAC, err = vpc.ParseMAC(mac); err != nil {
		return Identity{}, fmt.Errorf("metadata item mac: %w", err)
	}
	eni := "network/interfaces/macs/" + id.MAC.String() + "/"
	if id.SubnetID, err = c.get(ctx, eni+"subnet-id"); err != nil {
		return Identity{}, err
	}
	if id.VPCID, err = c.get(ctx, eni+"vpc-id"); err != nil {
		return Identity{}, err
	}
	groups, err := c.get(ctx, eni+"security-group-ids")
	if err != nil {
		return Identity{}, err
	}
	id.Groups = strings.Fields(groups)
	return id, id.check()
}

// check refuses what only another service than IMDS, such as a proxy's error
// page, can have answered: the strings end up in EC2 requests.
func (id Identity) check() error {
	fields := []struct{ name, value, prefix string }{
		{"instance id", id.InstanceID, "i-"},
		{"instance type", id.InstanceType, ""},
		{"region", id.Region, ""},
		{"availability zone", id.AZ, ""},
		{"subnet id", id.SubnetID, "subnet-"},
		{"vpc id", id.VPCID, "vpc-"},
	}
	for _, g := range id.Groups {
		fields = append(fields, struct{ name, value, prefix string }{"security group id", g, "sg-"})
	}
	for _, f := range fields {
		if !plain(f.value) || !strings.HasPrefix(f.value, f.prefix) {
			return fmt.Errorf("metadata has %s %s, which is none", f.name, short(f.value))
		}
	}
	if len(id.Groups) == 0 {
		return errors.New("metadata has no security group for the primary network interface")
	}
	return nil
}

// plain holds for the characters of EC2's identifiers and names.
func plain(s string) bool {
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.'
	}
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, bad)
}

// VPCPrefixes reads the IPv4 CIDR blocks of the VPC that the ENI is in.
func (c *Client) VPCPrefixes(ctx context.Context, mac vpc.MAC) ([]netip.Prefix, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	text, err := c.get(ctx, "network/interfaces/macs/"+mac.String()+"/vpc-ipv4-cidr-blocks")
	if err != nil {
		return nil, fmt.Errorf("read VPC prefixes: %w", err)
	}
	prefixes, err := parsePrefixes(text)
	if err != nil {
		return nil, fmt.Errorf("read VPC prefixes: %w", err)
	}
	return prefixes, nil
}

func parsePrefixes(text string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, field := range strings.Fields(text) {
		p, err := netip.ParsePrefix(field)
		if err != nil || !p.Addr().Is4() {
			return nil, fmt.Errorf("metadata has VPC CIDR block %s, which is none", short(field))
		}
		prefixes = append(prefixes, p.Masked())
	}
	if len(prefixes) == 0 {
		return nil, errors.New("metadata has no VPC CIDR block")
	}
	return prefixes, nil
}

// get reads one item below meta-data/.
func (c *Client) get(ctx context.Context, path string) (string, error) {
	ctx, last := withAnswer(ctx)
	out, err := c.api.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil {
		return "", explain(ctx, path, *last, err)
	}
	defer out.Content.Close()
	data, err := io.ReadAll(io.LimitReader(out.Content, maxText+1))
	if err != nil {
		return "", explain(ctx, path, *last, err)
	}
	if len(data) > maxText {
		return "", fmt.Errorf("metadata item %s: more than %d bytes", path, maxText)
	}
	return strings.TrimSpace(string(data)), nil
}
