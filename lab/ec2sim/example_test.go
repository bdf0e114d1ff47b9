package ec2sim_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// client is the AWS SDK, unmodified, on a cloud in memory. It tries ten times.
func client(c *ec2sim.Cloud) *ec2.Client {
	return ec2.New(ec2.Options{
		Region:     c.Region(),
		HTTPClient: &http.Client{Transport: c.Transport()},
		Retryer:    retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts = 10; o.RateLimiter = unlimited{} }),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}, nil
		}),
	})
}

// unlimited lets the SDK try again as often as it is told to: its own limit is
// that of one process, over all its life.
type unlimited struct{}

func (unlimited) GetToken(context.Context, uint) (func() error, error) {
	return func() error { return nil }, nil
}
func (unlimited) AddTokens(uint) error { return nil }

// A test without root, network or account: build a world by methods, and let
// the code under test reach it with the SDK.
func ExampleCloud_Transport() {
	cloud := ec2sim.New(ec2sim.Config{Throttle: true})
	vpc, err := cloud.CreateVPC(ec2sim.CreateVPCInput{CIDR: netip.MustParsePrefix("10.0.0.0/16")})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := cloud.CreateSubnet(ec2sim.CreateSubnetInput{VPCID: vpc.ID, CIDR: netip.MustParsePrefix("10.0.1.0/28")}); err != nil {
		fmt.Println(err)
		return
	}

	out, err := client(cloud).DescribeSubnets(context.Background(), &ec2.DescribeSubnetsInput{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(*out.Subnets[0].CidrBlock, *out.Subnets[0].AvailableIpAddressCount)
	for _, call := range cloud.Calls(time.Time{}) {
		fmt.Println(call.Caller, call.Action, call.Throttled)
	}
	// Output:
	// 10.0.1.0/28 11
	// AKIDEXAMPLE DescribeSubnets false
}

// Under testing/synctest the cloud's clock is the bubble's, and waiting costs
// nothing: half a year of a node that gets an ENI and loses it once a day, with
// throttling, lag, and attachments that take their time.
func TestHalfAYear(t *testing.T) {
	const hours = 24 * 182
	wall := time.Now()
	synctest.Test(t, func(t *testing.T) {
		cloud := ec2sim.New(ec2sim.Config{
			Throttle: true, Lag: 2 * time.Second, Attach: 5 * time.Second, Delay: 50 * time.Millisecond, Chance: 7,
		})
		n := newNode(t, cloud)
		start := time.Now()
		for range hours / 24 {
			n.comeAndGo()
			time.Sleep(24 * time.Hour)
		}
		if gone := time.Since(start); gone < hours*time.Hour {
			t.Errorf("only %s have passed", gone)
		}
		if len(cloud.Snapshot().Interfaces) != 1 {
			t.Errorf("%d ENIs are left, want the primary one", len(cloud.Snapshot().Interfaces))
		}
		if n.attached == 0 || n.slowest < 2500*time.Millisecond || n.slowest > 10*time.Second || n.unknown == 0 {
			t.Errorf("%d attachments, the slowest was seen after %s; %d times EC2 did not know an ENI yet", n.attached, n.slowest, n.unknown)
		}
		t.Logf("%d attachments, the slowest was seen after %s; %d times EC2 did not know an ENI yet", n.attached, n.slowest, n.unknown)
	})
	t.Logf("%d hours in %s", hours, time.Since(wall).Round(time.Millisecond))
}

// node is an instance whose network somebody manages.
type node struct {
	t        *testing.T
	api      *ec2.Client
	instance string
	subnet   string
	attached int
	unknown  int           // answers that an ENI does not exist, which does
	slowest  time.Duration // from the call until it was seen to be attached
}

func newNode(t *testing.T, cloud *ec2sim.Cloud) *node {
	t.Helper()
	vpc, err := cloud.CreateVPC(ec2sim.CreateVPCInput{CIDR: netip.MustParsePrefix("10.0.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	subnet, err := cloud.CreateSubnet(ec2sim.CreateSubnetInput{VPCID: vpc.ID, CIDR: netip.MustParsePrefix("10.0.1.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	r, err := cloud.RunInstances(ec2sim.RunInstancesInput{Type: "m5.large", SubnetID: subnet.ID})
	if err != nil {
		t.Fatal(err)
	}
	cloud.Propagate()
	return &node{t: t, api: client(cloud), instance: r.Instances[0].ID, subnet: subnet.ID}
}

// comeAndGo gives the node an ENI, and takes it away.
func (n *node) comeAndGo() {
	ctx := n.t.Context()
	made, err := n.api.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &n.subnet})
	if err != nil {
		n.t.Fatal(err)
	}
	id := made.NetworkInterface.NetworkInterfaceId
	asked := time.Now()
	var attachment *string
	n.patiently(func() error {
		out, err := n.api.AttachNetworkInterface(ctx, &ec2.AttachNetworkInterfaceInput{
			NetworkInterfaceId: id, InstanceId: &n.instance, DeviceIndex: aws.Int32(1),
		})
		if err == nil {
			attachment = out.AttachmentId
		}
		return err
	})
	n.until(*id, func(e types.NetworkInterface) bool {
		return e.Attachment != nil && e.Attachment.Status == types.AttachmentStatusAttached
	})
	n.attached++
	n.slowest = max(n.slowest, time.Since(asked))
	n.patiently(func() error {
		_, err := n.api.DetachNetworkInterface(ctx, &ec2.DetachNetworkInterfaceInput{AttachmentId: attachment})
		return err
	})
	n.until(*id, func(e types.NetworkInterface) bool { return e.Status == types.NetworkInterfaceStatusAvailable })
	n.patiently(func() error {
		_, err := n.api.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: id})
		var api smithy.APIError
		if errors.As(err, &api) && api.ErrorCode() == "InvalidParameterValue" { // in use: what was seen was old
			n.unknown++
			time.Sleep(time.Second)
			return errAgain
		}
		return err
	})
}

var errAgain = errors.New("try again")

// patiently makes a call until EC2 knows what it names.
func (n *node) patiently(call func() error) {
	for range 100 {
		err := call()
		var api smithy.APIError
		switch {
		case err == nil:
			return
		case errors.Is(err, errAgain):
		case errors.As(err, &api) && (api.ErrorCode() == "InvalidNetworkInterfaceID.NotFound" || api.ErrorCode() == "InvalidAttachmentID.NotFound"):
			n.unknown++
			time.Sleep(200 * time.Millisecond)
		default:
			n.t.Fatal(err)
		}
	}
	n.t.Fatal("no success in a hundred calls")
}

// until looks at an ENI until it is as it should be.
func (n *node) until(id string, good func(types.NetworkInterface) bool) {
	for range 100 {
		out, err := n.api.DescribeNetworkInterfaces(n.t.Context(), &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{id}})
		var api smithy.APIError
		switch {
		case err == nil && good(out.NetworkInterfaces[0]):
			return
		case err == nil:
		case errors.As(err, &api) && api.ErrorCode() == "InvalidNetworkInterfaceID.NotFound":
			n.unknown++
		default:
			n.t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
	}
	n.t.Fatalf("%s is not as it should be after 50 s", id)
}

// Fifty nodes that want an ENI in the same second share a bucket of 50 tokens and
// 5 more each second: the SDK tries again until all have one.
func TestThrottledAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := ec2sim.New(ec2sim.Config{Throttle: true})
		n := newNode(t, cloud)
		start := time.Now()
		done := make(chan error)
		const calls = 200
		for range calls {
			go func() {
				_, err := n.api.CreateNetworkInterface(t.Context(), &ec2.CreateNetworkInterfaceInput{SubnetId: &n.subnet})
				done <- err
			}()
		}
		for range calls {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		throttled := 0
		for _, call := range cloud.Calls(time.Time{}) {
			if call.Throttled {
				throttled++
			}
		}
		// 100 at once, 100 more at 5 each second: not in less than 20 s.
		if took := time.Since(start); took < 20*time.Second || throttled < calls/2 {
			t.Errorf("%d calls took %s, %d were throttled", calls, took, throttled)
		}
		if enis := len(cloud.Snapshot().Interfaces); enis != calls+1 {
			t.Errorf("%d ENIs", enis)
		}
	})
}
