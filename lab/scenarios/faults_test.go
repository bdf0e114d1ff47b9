package scenarios

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// TestEC2Refuses: a pod that gets no address because EC2 refuses is told what
// EC2 said and what to do about it; once EC2 does not refuse any more, pods get
// theirs, from the same agent.
func TestEC2Refuses(t *testing.T) {
	for _, tt := range []struct {
		name, action string
		pods         int // made before, so that the action is the one that is needed
		err          ec2sim.Error
		says         []string
	}{
		{"the role may not assign", "AssignPrivateIpAddresses", 1,
			ec2sim.Error{Code: "UnauthorizedOperation", Message: "You are not authorized to perform this operation."},
			[]string{"UnauthorizedOperation", "allow the IAM action ec2:AssignPrivateIpAddresses for the role of this node"}},
		{"the role may not create an ENI", "CreateNetworkInterface", 3,
			ec2sim.Error{Code: "UnauthorizedOperation", Message: "You are not authorized to perform this operation."},
			[]string{"UnauthorizedOperation", "allow the IAM action ec2:CreateNetworkInterface"}},
		{"the role may not attach an ENI", "AttachNetworkInterface", 3,
			ec2sim.Error{Code: "UnauthorizedOperation", Message: "You are not authorized to perform this operation."},
			[]string{"UnauthorizedOperation", "allow the IAM action ec2:AttachNetworkInterface"}},
		{"throttled", "AssignPrivateIpAddresses", 1,
			ec2sim.Error{Code: "RequestLimitExceeded", Message: "Request limit exceeded."},
			[]string{"RequestLimitExceeded", "tried again later by itself", "ec2:AssignPrivateIpAddresses"}},
		{"the subnet is full", "AssignPrivateIpAddresses", 1,
			ec2sim.Error{Code: "InsufficientFreeAddressesInSubnet", Message: "The specified subnet does not have enough free addresses to satisfy the request."},
			[]string{"InsufficientFreeAddressesInSubnet", "free addresses in the subnet, or use a larger or another subnet"}},
		{"the subnet has no room for an ENI", "CreateNetworkInterface", 3,
			ec2sim.Error{Code: "InsufficientFreeAddressesInSubnet", Message: "The specified subnet does not have enough free addresses to satisfy the request."},
			[]string{"InsufficientFreeAddressesInSubnet", "free addresses in the subnet"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := startLab(t, oneNode("t3.small"))
			n := l.nodes["node-a"]
			n.startAgent("--warm-ip-target=0", "--minimum-ip-target=1", "--add-wait=2s") // throttling is waited for
			n.readyAgent()
			if tt.pods > 0 {
				n.addPods([]string{"p1", "p2", "p3"}[:tt.pods]...)
			}
			// With no warm addresses wanted, these pods are no reason for more.
			enis := len(l.Cloud().Snapshot().Interfaces)
			if enis != 1 {
				t.Errorf("%d ENIs for %d pods, want 1", enis, tt.pods)
			}
			l.refuses = true
			l.Cloud().InjectError(tt.action, &tt.err, -1)

			// Whoever has waited while EC2 was being asked is told of that; the next one
			// is told what EC2 said.
			eventually(t, "a pod is refused, with the reason", func() error {
				_, err := n.runtime(t.Context(), "add", "--", "refused")
				if err == nil {
					t.Fatal("the pod was made, and no address can have been there")
				}
				if word := missingWord(err.Error(), slices.Concat(tt.says, []string{"no free address", "next try in"})); word != "" {
					return fmt.Errorf("the refusal does not say %q: %w", word, err)
				}
				return nil
			})
			n.logged(tt.says...)
			if tt.action == "AttachNetworkInterface" {
				enis++ // it is kept, and attached once that may be
			}
			if now := len(l.Cloud().Snapshot().Interfaces); now != enis {
				t.Errorf("%d ENIs, want %d", now, enis)
			}

			l.Cloud().InjectError(tt.action, nil, 0)
			eventually(t, "a pod is made when EC2 does not refuse any more", func() error {
				_, err := n.runtime(t.Context(), "add", "--", "granted")
				return err
			})
			l.allReach(t)
			n.consistent(t)
		})
	}
}

// TestSubnetIsFull is the same without a fault: the subnet has no more.
func TestSubnetIsFull(t *testing.T) {
	l := startLab(t, `
vpcs:
  - {name: main, cidr: 10.0.0.0/16, subnets: [{name: a, cidr: 10.0.1.0/28}]} # 11 addresses, one for the node
instances:
  - {name: node-a, type: m5.4xlarge, subnet: a}
`)
	n := l.nodes["node-a"]
	n.startAgent("--warm-ip-target=0", "--minimum-ip-target=1", "--cool-down=0s")
	n.readyAgent()
	n.addPods("p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "p10")
	_, err := n.runtime(t.Context(), "add", "--", "p11")
	if err == nil {
		t.Fatal("an eleventh pod was made")
	}
	if word := missingWord(err.Error(), []string{"InsufficientFreeAddressesInSubnet", "larger or another subnet"}); word != "" {
		t.Errorf("the refusal does not say %q: %v", word, err)
	}
	n.delPods("p3")
	n.addPods("p11")
	l.allReach(t)
}

// TestNoMetadata: without the metadata service an agent goes on asking, says
// what to check, and is not ready.
func TestNoMetadata(t *testing.T) {
	l := startLab(t, oneNode("m5.large"))
	snap := l.Cloud().Snapshot()
	_, err := l.Cloud().RunInstances(ec2sim.RunInstancesInput{
		Type:       "m5.large",
		Interfaces: []ec2sim.LaunchInterface{{SubnetID: snap.Subnets[0].ID}},
		Tags:       map[string]string{"Name": "mute"},
		Metadata:   ec2sim.Metadata{Disabled: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	var n *node
	eventually(t, "the instance without metadata runs", func() error {
		in, err := l.status().Find("mute")
		if err != nil {
			return err
		}
		if in.State != ec2sim.StateRunning {
			return errors.New("it is " + in.State)
		}
		n = l.add(in)
		return nil
	})
	n.startAgent()
	n.logged("level=ERROR", "read instance metadata", "instance metadata service (IMDS) is unavailable", "check that", "metadata enabled", "hop limit")
	if e := n.failed(call{command: "STATUS"}); e.Code != cniapi.CodeUnavailable {
		t.Errorf("STATUS: %+v, want code %d", e, cniapi.CodeUnavailable)
	}

	// An instance whose network is cut later finds the agent patient: it comes
	// up once the service answers.
	cut := l.nodes["node-a"]
	ns := cut.netns()
	set := func(change func(netlink.Link) error) {
		t.Helper()
		err := netns.Do(ns, func() error {
			ens5, err := netlink.LinkByName("ens5")
			if err != nil {
				return err
			}
			return change(ens5)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	set(netlink.LinkSetDown)
	cut.startAgent()
	cut.logged("level=ERROR", "read instance metadata", "IMDS")
	set(netlink.LinkSetUp)
	err = netns.Do(ns, func() error { // the kernel took the route away with the link
		return netlink.RouteAdd(&netlink.Route{Gw: snap.Subnets[0].CIDR.Addr().Next().AsSlice()})
	})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		t.Fatal(err)
	}
	cut.readyAgent()
	cut.addPods("web")
}
