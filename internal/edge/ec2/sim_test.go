package ec2

import (
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// region is a simulated EC2 with one m5.large in a subnet.
type region struct {
	sim      *ec2sim.Cloud
	c        *Client
	instance string
}

func newRegion(t *testing.T, subnetCIDR string) region {
	t.Helper()
	sim := ec2sim.New(ec2sim.Config{})
	srv := httptest.NewServer(sim)
	t.Cleanup(srv.Close)
	c := clientAt(srv.URL)
	v, err := c.api.CreateVpc(t.Context(), &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	subnet, err := c.api.CreateSubnet(t.Context(), &ec2.CreateSubnetInput{VpcId: v.Vpc.VpcId, CidrBlock: aws.String(subnetCIDR)})
	if err != nil {
		t.Fatal(err)
	}
	run, err := c.api.RunInstances(t.Context(), &ec2.RunInstancesInput{
		ImageId: aws.String("ami-12345678"), InstanceType: types.InstanceTypeM5Large, SubnetId: subnet.Subnet.SubnetId,
		MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
	})
	if err != nil {
		t.Fatal(err)
	}
	return region{sim, c, aws.ToString(run.Instances[0].InstanceId)}
}

func (r region) enis(t *testing.T) []vpc.ENI {
	t.Helper()
	enis, err := r.c.ENIs(t.Context(), r.instance)
	if err != nil {
		t.Fatal(err)
	}
	return enis
}

// spec is a second ENI like the primary.
func (r region) spec(t *testing.T, addresses int) Spec {
	primary := r.enis(t)[0]
	return Spec{InstanceID: r.instance, SubnetID: primary.SubnetID, Groups: primary.Groups, DeviceIndex: 1, Addresses: addresses}
}

// TestSimulatedGrowth plans and grows a node until it is full, as an agent does.
func TestSimulatedGrowth(t *testing.T) {
	r := newRegion(t, "10.0.1.0/24")
	limits, ok := vpc.LimitsOf("m5.large")
	if !ok {
		t.Fatal("no limits for m5.large")
	}
	pool := ipam.NewPool(ipam.Config{})
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var s ipam.State
	targets := ipam.Targets{WarmAddresses: 5}
	calls := 0
	for pods := 0; ; {
		pool.SetENIs(r.enis(t), now)
		s = ipam.State{InstanceType: "m5.large", Limits: limits, ENIs: r.enis(t), Pool: pool.Stats(now)}
		changes := ipam.Plan(s, targets, now)
		for _, ch := range changes {
			calls++
			r.apply(t, ch)
		}
		if len(changes) > 0 {
			continue
		}
		pods++
		if _, err := pool.Assign(ipam.Owner{ContainerID: strings.Repeat("p", pods), IfName: "eth0"}, now); errors.Is(err, ipam.ErrExhausted) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if s.Pool.Assigned != 27 || len(s.ENIs) != 3 {
		t.Errorf("full with %+v on %d ENIs, want 27 on 3", s.Pool, len(s.ENIs))
	}
	const want = "node is full: 27 of 27 addresses of m5.large in use; use a larger instance type"
	if got := ipam.Refusal(s, targets, now); got != want {
		t.Errorf("refusal %q", got)
	}
	if calls > 27 {
		t.Errorf("%d changes for 27 addresses", calls)
	}
	for i, e := range s.ENIs {
		if e.DeviceIndex != i || e.AttachmentID == "" || !e.Subnet.IsValid() || !e.Subnet.Contains(e.Primary) || len(e.Groups) == 0 {
			t.Errorf("ENI %d: %+v", i, e)
		}
	}

	_, err := r.c.AssignAddresses(t.Context(), s.ENIs[0].ID, 1)
	if !errors.Is(err, ErrLimit) {
		t.Errorf("one address too many: %v, want ErrLimit", err)
	}
	full := r.spec(t, 1)
	full.DeviceIndex = 3
	if _, err := r.c.CreateAndAttachENI(t.Context(), full); !errors.Is(err, ErrLimit) {
		t.Errorf("one ENI too many: %v, want ErrLimit", err)
	}
	r.noStrayENI(t)
	r.terminate(t)
}

func (r region) apply(t *testing.T, ch ipam.Change) {
	t.Helper()
	switch ch.Kind {
	case ipam.AssignAddresses:
		before := r.enis(t)
		addrs, err := r.c.AssignAddresses(t.Context(), ch.ENI, ch.Count)
		if err != nil || len(addrs) != ch.Count {
			t.Fatalf("%s: %v, %v", ch, addrs, err)
		}
		after := r.enis(t)
		i := slices.IndexFunc(after, func(e vpc.ENI) bool { return e.ID == ch.ENI })
		for _, a := range addrs {
			if !after[i].Owns(a) || before[i].Owns(a) {
				t.Fatalf("%s: %s is not new on %+v", ch, a, after[i])
			}
		}
	case ipam.CreateENI:
		e, err := r.c.CreateAndAttachENI(t.Context(), Spec{
			InstanceID: r.instance, SubnetID: ch.SubnetID, Groups: ch.Groups,
			DeviceIndex: ch.DeviceIndex, CardIndex: ch.CardIndex, Addresses: ch.Count,
		})
		if err != nil || len(e.Secondary) != ch.Count {
			t.Fatalf("%s: %+v, %v", ch, e, err)
		}
		// What creating answers is what describing says.
		all := r.enis(t)
		if i := slices.IndexFunc(all, func(o vpc.ENI) bool { return o.ID == e.ID }); i < 0 || all[i].MAC != e.MAC ||
			all[i].AttachmentID != e.AttachmentID || all[i].DeviceIndex != ch.DeviceIndex || !slices.Equal(all[i].Secondary, e.Secondary) {
			t.Fatalf("%s: %+v, described as %+v", ch, e, all)
		}
	}
}

// noStrayENI fails if an ENI exists that is not attached.
func (r region) noStrayENI(t *testing.T) {
	t.Helper()
	out, err := r.c.api.DescribeNetworkInterfaces(t.Context(), &ec2.DescribeNetworkInterfacesInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range out.NetworkInterfaces {
		if n.Attachment == nil {
			t.Errorf("left behind: %s %q", aws.ToString(n.NetworkInterfaceId), aws.ToString(n.Description))
		}
	}
}

// terminate ends the instance; nothing may outlive it.
func (r region) terminate(t *testing.T) {
	t.Helper()
	if _, err := r.c.api.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{r.instance}}); err != nil {
		t.Fatal(err)
	}
	out, err := r.c.api.DescribeNetworkInterfaces(t.Context(), &ec2.DescribeNetworkInterfacesInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range out.NetworkInterfaces {
		t.Errorf("outlives its instance: %s %q", aws.ToString(n.NetworkInterfaceId), aws.ToString(n.Description))
	}
}

func TestSimulatedSubnetFull(t *testing.T) {
	r := newRegion(t, "10.0.1.0/28") // 11 addresses, one of them the node's
	if _, err := r.c.AssignAddresses(t.Context(), r.enis(t)[0].ID, 9); err != nil {
		t.Fatal(err)
	}
	if _, err := r.c.CreateAndAttachENI(t.Context(), r.spec(t, 1)); !errors.Is(err, ErrSubnetFull) || !strings.Contains(Advice(err), "subnet") {
		t.Errorf("CreateAndAttachENI: %v, want ErrSubnetFull", err)
	}
	r.noStrayENI(t)
}

// TestSimulatedRefusals has EC2 refuse each step of growing, as it does.
func TestSimulatedRefusals(t *testing.T) {
	r := newRegion(t, "10.0.1.0/24")
	unauthorized := &ec2sim.Error{Code: "UnauthorizedOperation", Message: "You are not authorized to perform this operation."}
	throttled := &ec2sim.Error{Code: "RequestLimitExceeded", Message: "Request limit exceeded."}
	for _, action := range []string{"CreateNetworkInterface", "AttachNetworkInterface", "ModifyNetworkInterfaceAttribute"} {
		for class, refusal := range map[error]*ec2sim.Error{ErrUnauthorized: unauthorized, ErrThrottled: throttled} {
			t.Run(action+" "+refusal.Code, func(t *testing.T) {
				spec := r.spec(t, 2)
				r.sim.InjectError(action, refusal, -1)
				e, err := r.c.CreateAndAttachENI(t.Context(), spec)
				r.sim.InjectError(action, nil, 0)
				if !errors.Is(err, class) || !strings.Contains(Advice(err), "ec2:"+action) {
					t.Errorf("error %v, advice %q", err, Advice(err))
				}
				r.noStrayENI(t)
				if action != "ModifyNetworkInterfaceAttribute" {
					return
				}
				if !errors.Is(err, ErrNotMarked) {
					t.Errorf("error %v, want ErrNotMarked", err)
				}
				if err := r.c.MarkDeleteOnTermination(t.Context(), e.ID, e.AttachmentID); err != nil {
					t.Error(err)
				}
				// Away with it, for the next case.
				if _, err := r.c.api.DetachNetworkInterface(t.Context(), &ec2.DetachNetworkInterfaceInput{AttachmentId: &e.AttachmentID}); err != nil {
					t.Fatal(err)
				}
				if err := r.c.delete(t.Context(), e.ID); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
	t.Run("throttled for a moment", func(t *testing.T) {
		r.sim.InjectError("AssignPrivateIpAddresses", throttled, 2) // the SDK tries three times
		if _, err := r.c.AssignAddresses(t.Context(), r.enis(t)[0].ID, 1); err != nil {
			t.Error(err)
		}
	})
	t.Run("no such ENI", func(t *testing.T) {
		if _, err := r.c.AssignAddresses(t.Context(), "eni-0123456789abcdef0", 1); !errors.Is(err, ErrNotFound) {
			t.Errorf("error %v, want ErrNotFound", err)
		}
	})
	t.Run("no such instance", func(t *testing.T) {
		if enis, err := r.c.ENIs(t.Context(), "i-0123456789abcdef0"); err != nil || len(enis) != 0 {
			t.Errorf("ENIs = %v, %v; want none", enis, err)
		}
		spec := r.spec(t, 1)
		spec.InstanceID = "i-0123456789abcdef0"
		if _, err := r.c.CreateAndAttachENI(t.Context(), spec); !errors.Is(err, ErrNotFound) {
			t.Errorf("error %v, want ErrNotFound", err)
		}
		r.noStrayENI(t)
	})
	r.terminate(t)
}
