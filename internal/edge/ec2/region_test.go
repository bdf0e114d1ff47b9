package ec2

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// region is a simulated EC2 with one m5.large in a subnet of eu-west-1a.
type region struct {
	sim      *ec2sim.Cloud
	c        *Client
	calls    *calls
	vpc      string
	subnet   string
	group    string
	instance string
	tags     map[string]string // of the user, on what spec makes
}

// calls is what a client's observer was told.
type calls struct {
	mu  sync.Mutex
	all []Call
}

func (l *calls) add(c Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, c)
}

// take gives the calls since the last time.
func (l *calls) take() []Call {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.all
	l.all = nil
	return out
}

func newRegion(t *testing.T, cfg ec2sim.Config, subnetCIDR string) region {
	t.Helper()
	sim := ec2sim.New(cfg)
	v, err := sim.CreateVPC(ec2sim.CreateVPCInput{CIDR: netip.MustParsePrefix("10.0.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	n, err := sim.CreateSubnet(ec2sim.CreateSubnetInput{VPCID: v.ID, CIDR: netip.MustParsePrefix(subnetCIDR), Zone: "eu-west-1a"})
	if err != nil {
		t.Fatal(err)
	}
	run, err := sim.RunInstances(ec2sim.RunInstancesInput{Type: "m5.large", SubnetID: n.ID, InstanceProfile: "node"})
	if err != nil {
		t.Fatal(err)
	}
	instance := run.Instances[0].ID
	r := region{sim: sim, calls: new(calls), vpc: v.ID, subnet: n.ID, group: sim.Snapshot().Interfaces[0].Groups[0], instance: instance,
		tags: map[string]string{"team": "net", TagInstance: "i-forged"}}
	r.c = r.as(t, instance)
	return r
}

// as is a client with the credentials of an instance, if it has any.
func (r region) as(t *testing.T, instance string) *Client {
	t.Helper()
	keys := credentials
	if given, ok := r.sim.Credentials(instance); ok {
		keys = func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: given.AccessKeyID, SecretAccessKey: given.SecretAccessKey, SessionToken: given.Token}, nil
		}
	}
	c := New(aws.Config{
		Region: "eu-west-1", BaseEndpoint: aws.String("http://ec2"), HTTPClient: &http.Client{Transport: r.sim.Transport()},
		Credentials: aws.CredentialsProviderFunc(keys),
	})
	c.Observe = r.calls.add
	return c
}

func (r region) enis(t *testing.T) []vpc.ENI {
	t.Helper()
	enis, err := r.c.ENIs(t.Context(), r.instance)
	if err != nil {
		t.Fatal(err)
	}
	return enis
}

// spec is an ENI beside the primary.
func (r region) spec(addresses, prefixes int) Spec {
	return Spec{InstanceID: r.instance, Cluster: "blue", SubnetID: r.subnet, Groups: []string{r.group},
		Addresses: addresses, Prefixes: prefixes, Tags: r.tags}
}

func (r region) create(t *testing.T, spec Spec) vpc.ENI {
	t.Helper()
	e, err := r.c.CreateENI(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// wantENIs compares all that is said of ENIs.
func wantENIs(t *testing.T, what string, got []vpc.ENI, want ...vpc.ENI) {
	t.Helper()
	if d := gocmp.Diff(want, got, cmpAddr); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// method is a call of the client that works in a new region.
type method struct {
	action string // what it is to EC2
	do     func(c *Client, ctx context.Context) (any, error)
}

// methods are all that a client has, each on an ENI of its own: those that need
// one make it behind the client's back.
func (r region) methods() []method {
	made := func(tags map[string]string, attach bool) (string, string) {
		e, err := r.sim.CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: r.subnet,
			Tags: tags, Addresses: ec2sim.Addressing{Count: 1}})
		if err != nil {
			panic(err)
		}
		if !attach {
			return e.ID, ""
		}
		a, err := r.sim.AttachNetworkInterface(ec2sim.AttachNetworkInterfaceInput{InterfaceID: e.ID, InstanceID: r.instance, DeviceIndex: 1})
		if err != nil {
			panic(err)
		}
		return e.ID, a.ID
	}
	ours := r.spec(0, 0).tags()
	free, _ := made(ours, false)
	grown, _ := made(ours, false)
	doomed, _ := made(ours, false)
	other, attachment := made(ours, true)
	untagged, _ := made(nil, false)
	if _, err := r.sim.AssignPrivateIPAddresses(ec2sim.AssignPrivateIPAddressesInput{ID: grown, PrefixCount: 1}); err != nil {
		panic(err)
	}
	var secondary []netip.Addr
	var prefix []netip.Prefix
	for _, e := range r.sim.Snapshot().Interfaces {
		if e.ID == grown {
			secondary, prefix = e.Secondary, e.Prefixes
		}
	}
	nothing := func(err error) (any, error) { return nil, err }
	return []method{
		{"DescribeNetworkInterfaces", func(c *Client, ctx context.Context) (any, error) { return c.ENIs(ctx, r.instance) }},
		{"DescribeNetworkInterfaces", func(c *Client, ctx context.Context) (any, error) { return c.Detached(ctx, r.instance) }},
		{"DescribeNetworkInterfaces", func(c *Client, ctx context.Context) (any, error) { return c.Leaked(ctx, r.vpc, "") }},
		{"DescribeSubnets", func(c *Client, ctx context.Context) (any, error) { return c.Subnets(ctx, r.vpc, "eu-west-1a") }},
		{"DescribeInstanceTypes", func(c *Client, ctx context.Context) (any, error) { return c.Limits(ctx, "m5.large") }},
		{"CreateNetworkInterface", func(c *Client, ctx context.Context) (any, error) { return c.CreateENI(ctx, r.spec(1, 0)) }},
		{"AssignPrivateIpAddresses", func(c *Client, ctx context.Context) (any, error) { return c.AssignAddresses(ctx, grown, 1) }},
		{"AssignPrivateIpAddresses", func(c *Client, ctx context.Context) (any, error) { return c.AssignPrefixes(ctx, grown, 1) }},
		{"UnassignPrivateIpAddresses", func(c *Client, ctx context.Context) (any, error) {
			return nothing(c.UnassignAddresses(ctx, grown, secondary))
		}},
		{"UnassignPrivateIpAddresses", func(c *Client, ctx context.Context) (any, error) {
			return nothing(c.UnassignPrefixes(ctx, grown, prefix))
		}},
		{"AttachNetworkInterface", func(c *Client, ctx context.Context) (any, error) { return c.AttachENI(ctx, free, r.instance, 2, 0) }},
		{"ModifyNetworkInterfaceAttribute", func(c *Client, ctx context.Context) (any, error) {
			return nothing(c.MarkDeleteOnTermination(ctx, other, attachment))
		}},
		{"DetachNetworkInterface", func(c *Client, ctx context.Context) (any, error) { return nothing(c.DetachENI(ctx, attachment)) }},
		{"DeleteNetworkInterface", func(c *Client, ctx context.Context) (any, error) { return nothing(c.DeleteENI(ctx, doomed)) }},
		{"CreateTags", func(c *Client, ctx context.Context) (any, error) {
			return nothing(c.TagENI(ctx, untagged, map[string]string{TagInstance: r.instance, TagCluster: "blue"}))
		}},
	}
}
