package vpccni

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/aws/amazon-vpc-cni-k8s/rpc"
	"github.com/vishvananda/netlink"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// pod is an address that the daemon gave.
type pod struct {
	addr   netip.Addr
	device int // index of its ENI
}

var errNoAddress = errors.New("the daemon has no address")

// add asks for a pod's address as the plugin does.
func (n *node) add(name string) (pod, error) {
	n.t.Helper()
	r, err := n.AddNetwork(n.t.Context(), &rpc.AddNetworkRequest{
		K8S_POD_NAME: name, K8S_POD_NAMESPACE: "default", K8S_POD_INFRA_CONTAINER_ID: name, ContainerID: name,
		IfName: "eth0", NetworkName: "aws-cni", Netns: "/run/netns/" + name,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	if !r.Success {
		return pod{}, errNoAddress
	}
	if !slices.Equal(r.VPCv4CIDRs, []string{"10.0.0.0/16"}) || len(r.IPAllocationMetadata) != 1 {
		n.t.Fatalf("add %s: %v", name, r)
	}
	got := r.IPAllocationMetadata[0]
	addr, err := netip.ParseAddr(got.IPv4Addr)
	if err != nil {
		n.t.Fatal(err)
	}
	return pod{addr, int(got.DeviceNumber)}, nil
}

// mustAdd waits where the pool has to grow first.
func (n *node) mustAdd(name string) (p pod) {
	n.t.Helper()
	eventually(n.t, "an address for "+name, func() (err error) {
		p, err = n.add(name)
		return err
	})
	return p
}

func (n *node) del(name string, want pod) {
	n.t.Helper()
	r, err := n.DelNetwork(n.t.Context(), &rpc.DelNetworkRequest{
		K8S_POD_NAME: name, K8S_POD_NAMESPACE: "default", K8S_POD_INFRA_CONTAINER_ID: name, ContainerID: name,
		IfName: "eth0", NetworkName: "aws-cni", Reason: "PodDeleted",
	})
	if err != nil || !r.Success || len(r.IPAllocationMetadata) != 1 || r.IPAllocationMetadata[0].IPv4Addr != want.addr.String() {
		n.t.Errorf("delete %s, which has %s: %v, %v", name, want.addr, r, err)
	}
}

// has tells whether a pod's address is one that EC2 gave the node.
func (n *node) has(p pod) bool {
	return slices.ContainsFunc(n.enis(), func(e ec2sim.NetworkInterface) bool {
		return e.Attachment.DeviceIndex == p.device && (slices.Contains(e.Secondary, p.addr) ||
			slices.ContainsFunc(e.Prefixes, func(b netip.Prefix) bool { return b.Contains(p.addr) }))
	})
}

// TestWarmPool: the daemon fills its first ENI, gives pods the addresses, attaches
// a second ENI when those run low, and takes addresses back. EC2 is slow and
// throttled meanwhile, and the metadata is late.
func TestWarmPool(t *testing.T) {
	n := startNode(t, "t3.small", "{throttle: true, delay: 30ms, attach: 1s, imdsLag: 500ms, seed: 5}", "IP_COOLDOWN_PERIOD=0")
	if first := n.enis()[0]; len(first.Secondary) != 3 || first.Tags["node.k8s.amazonaws.com/instance_id"] != n.id {
		t.Errorf("the primary ENI of a t3.small when the daemon serves: %+v; want three addresses and its tag", first)
	}
	pods := map[string]pod{}
	for i := range 5 { // the fifth is on the second ENI, and each has an address of its own
		name := fmt.Sprint("p", i)
		p := n.mustAdd(name)
		for other, q := range pods {
			if p.addr == q.addr {
				t.Errorf("%s and %s both have %s", name, other, p.addr)
			}
		}
		if pods[name] = p; !n.has(p) {
			t.Errorf("%s has %+v, and EC2 has given %+v", name, p, n.enis())
		}
	}
	if pods["p0"].device != 0 || pods["p4"].device != 1 {
		t.Errorf("pods %+v: want the fourth and fifth on the second ENI", pods)
	}
	second := n.enis()[1]
	if !second.Attachment.DeleteOnTermination || second.Description != "aws-K8S-"+n.id || len(second.Secondary) != 3 {
		t.Errorf("the second ENI: %+v", second)
	}
	n.routed(second)
	if again := n.mustAdd("p4"); again != pods["p4"] {
		t.Errorf("a repeated ADD gives %+v, the first gave %+v", again, pods["p4"])
	}
	for name, p := range pods {
		n.del(name, p)
	}
	if p := n.mustAdd("later"); !n.has(p) {
		t.Errorf("after all were deleted a pod has %+v", p)
	}

	// Nothing that the daemon asked for was refused for want of a right, of a
	// parameter that the lab does not know, or of an action.
	callers, actions := n.calls("caller"), n.calls("action")
	if want := regexp.MustCompile(`(?m)^vpc-cni/` + n.id + ` +([0-9]+) +([0-9]+) +0 +0 `); !want.MatchString(callers) {
		t.Errorf("want all calls of vpc-cni/%s to succeed:\n%s\n%s", n.id, callers, actions)
	}
	for _, action := range []string{"DescribeNetworkInterfaces", "CreateTags", "DescribeSubnets", "ModifyNetworkInterfaceAttribute",
		"AssignPrivateIpAddresses", "CreateNetworkInterface", "DescribeInstances", "AttachNetworkInterface"} {
		if !regexp.MustCompile(`(?m)^` + action + ` +[1-9]`).MatchString(actions) {
			t.Errorf("no call of %s:\n%s", action, actions)
		}
	}
}

// routed looks for what the daemon makes of a second ENI: a table that leads by
// its device.
func (n *node) routed(e ec2sim.NetworkInterface) {
	n.t.Helper()
	ns, err := os.Open(filepath.Join("/proc", strconv.Itoa(n.pid), "ns/net"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer ns.Close()
	eventually(n.t, "the second ENI has a route table", func() error {
		return netns.Do(ns, func() error {
			routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: 2}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			for _, r := range routes {
				if r.Gw == nil {
					continue
				}
				if dev, err := netlink.LinkByIndex(r.LinkIndex); err == nil && dev.Attrs().HardwareAddr.String() == e.MAC.String() {
					return nil
				}
			}
			return fmt.Errorf("table 2 has %v", routes)
		})
	})
}

// TestPrefixes: with prefix delegation the pool is of /28 blocks.
func TestPrefixes(t *testing.T) {
	n := startNode(t, "m5.large", "{}", "ENABLE_PREFIX_DELEGATION=true", "WARM_PREFIX_TARGET=1")
	if first := n.enis()[0]; len(first.Prefixes) != 1 || len(first.Secondary) != 0 {
		t.Errorf("the primary ENI when the daemon serves: %+v, want one prefix", first)
	}
	for i := range 17 { // one more than the first prefix has
		if p := n.mustAdd(fmt.Sprint("p", i)); !n.has(p) {
			t.Errorf("p%d has %+v, and EC2 has given %+v", i, p, n.enis())
		}
	}
	if enis := n.enis(); len(enis) != 1 || len(enis[0].Prefixes) < 2 {
		t.Errorf("for 17 pods: %+v, want two prefixes or more on one ENI", enis)
	}
}
