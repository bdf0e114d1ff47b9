package scenarios

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	layout "github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// twoRegions is the world of seed 003: two VPCs in two regions, peered. The one
// has an internet gateway.
const twoRegions = `
vpcs:
  - name: ireland
    cidr: 10.0.0.0/16
    internetGateway: true
    subnets: [{name: a, cidr: 10.0.1.0/24}]
    securityGroups: [{name: default, ingress: [{from: 0.0.0.0/0}]}]
  - name: virginia
    region: us-east-1
    cidr: 10.1.0.0/16
    subnets: [{name: b, cidr: 10.1.1.0/24}]
    securityGroups: [{name: default, ingress: [{from: 0.0.0.0/0}]}]
peerings:
  - {vpcs: [ireland, virginia]}
instances:
  - {name: left, type: m5.large, subnet: a, elasticAddress: true}
  - {name: right, type: m5.large, subnet: b}
internet: {hosts: [203.0.113.10]}
`

// fastPoll makes the agent notice within a second what EC2 says of routes.
const fastPoll = "--vpc-poll=1s"

var virginia = netip.MustParsePrefix("10.1.0.0/16")

// denied is what EC2 answers who has not the right.
var denied = &ec2sim.Error{Code: "UnauthorizedOperation", Message: "You are not authorized to perform this operation."}

// native waits until the node's kernel leads a prefix by the ENIs, or does not.
func (n *node) native(t *testing.T, p netip.Prefix, want bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s on %s is native: %t", p, n.name, want), func() error {
		plan, err := n.plan(t.Context())
		if err != nil {
			return err
		}
		enis, routes := 0, 0
		for line := range strings.Lines(plan.Actual) {
			if strings.HasPrefix(line, fmt.Sprintf("rule %d: ", layout.NewRulePriority)) {
				enis++
			}
			if strings.HasPrefix(line, p.String()+" via ") {
				routes++
			}
		}
		if want && routes != enis || !want && routes > 0 || enis == 0 {
			return fmt.Errorf("%d routes, %d ENIs", routes, enis)
		}
		return nil
	})
}

// saidOften counts the lines of the agent's log that say something.
func (n *node) saidOften(words ...string) int {
	n.t.Helper()
	text, err := os.ReadFile(n.log)
	if err != nil {
		n.t.Fatal(err)
	}
	count := 0
	for line := range strings.Lines(string(text)) {
		if missingWord(line, words) == "" {
			count++
		}
	}
	return count
}

// TestNativeFollowsTheVPC is the night of seed 003, with an agent that is told
// nothing: what is native follows the VPC, and no flow that is there breaks.
func TestNativeFollowsTheVPC(t *testing.T) {
	t.Parallel()
	l := startLab(t, twoRegions)
	left, right := l.nodes["left"], l.nodes["right"]
	ec2 := l.Cloud()
	left.startAgent(fastPoll)
	right.startAgent(fastPoll)
	pods := left.addPods(elevenPods...)
	far := right.podEnd(right.addPods("far")[0])
	first, second := left.podEnd(pods[0]), left.podEnd(l.onSecondENI(pods))
	left.native(t, virginia, true)

	streams := []*stream{
		streamTo(t, first, far).seenAs(t, first.addr),
		streamTo(t, second, far).seenAs(t, second.addr),
		streamTo(t, far, first).seenAs(t, far.addr),
		streamTo(t, far, second).seenAs(t, far.addr),
		streamTo(t, first, l.internet()),
		streamTo(t, second, l.internet()),
	}
	public := l.elastic(t, second.addr)
	inbound := func() *stream {
		t.Helper()
		return streamVia(t, l.internet(), second, public).seenAs(t, internetHost)
	}
	streams = append(streams, inbound())

	t.Log("the right to read routes is taken away")
	l.refuses = true
	ec2.InjectError("DescribeRouteTables", denied, -1)
	left.native(t, virginia, false)
	right.native(t, netip.MustParsePrefix("10.0.0.0/16"), false)
	allGoOn(t, streams)
	node := left.addr
	// Pods that begin now do so with the node's address; those that are begun
	// from outside answer as they were asked.
	late := []*stream{
		streamTo(t, first, far).seenAs(t, node),
		streamTo(t, second, far).seenAs(t, node),
		streamTo(t, right.hostEnd(), second).seenAs(t, right.addr),
		inbound(),
	}
	block := netip.MustParsePrefix("10.9.0.0/16")
	vpcID := l.vpcID(t, "ireland")
	if _, err := ec2.AssociateVPCCIDRBlock(ec2sim.AssociateVPCCIDRBlockInput{VPCID: vpcID, CIDR: block}); err != nil {
		t.Fatal(err)
	}
	left.native(t, block, true) // without the right, too
	if n := left.saidOften("level=WARN", "the vpc's routes may not be read"); n != 1 {
		t.Errorf("the agent says %d times that it may not read routes, want once", n)
	}
	allGoOn(t, append(late, streams...))

	t.Log("the right is given back")
	ec2.InjectError("DescribeRouteTables", nil, 0)
	left.native(t, virginia, true)
	allGoOn(t, append(late, streams...)) // the ones that are translated stay so
	late = append(late, streamTo(t, second, far).seenAs(t, second.addr), streamTo(t, far, second))

	t.Log("the second CIDR goes, the peering's routes go and come back")
	if err := ec2.DisassociateVPCCIDRBlock(ec2sim.DisassociateVPCCIDRBlockInput{
		AssociationID: ec2sim.BlockAssociationID(vpcID, block)}); err != nil {
		t.Fatal(err)
	}
	left.native(t, block, false)
	table := l.mainTable(t, vpcID)
	peering := l.peering(t)
	if err := ec2.DeleteRoute(ec2sim.RouteInput{TableID: table, Dst: virginia}); err != nil {
		t.Fatal(err)
	}
	left.native(t, virginia, false)
	allGoOn(t, streams[4:]) // the internet's; the VPC leads to the peering no more
	if err := ec2.CreateRoute(ec2sim.RouteInput{TableID: table, Dst: virginia, Peering: peering}); err != nil {
		t.Fatal(err)
	}
	left.native(t, virginia, true)
	allGoOn(t, append(late, streams...))

	t.Log("a route by a prefix list comes, changes and goes")
	one, two := netip.MustParsePrefix("172.16.0.0/24"), netip.MustParsePrefix("172.16.1.0/24")
	list, err := ec2.CreateManagedPrefixList(ec2sim.CreateManagedPrefixListInput{Name: "offices", MaxEntries: 5,
		Entries: []ec2sim.PrefixListEntry{{CIDR: one}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := ec2.CreateRoute(ec2sim.RouteInput{TableID: table, List: list.ID, Peering: peering}); err != nil {
		t.Fatal(err)
	}
	left.native(t, one, true)
	if _, err := ec2.ModifyManagedPrefixList(ec2sim.ModifyManagedPrefixListInput{ID: list.ID, CurrentVersion: 1,
		Add: []ec2sim.PrefixListEntry{{CIDR: two}}, Remove: []netip.Prefix{one}}); err != nil {
		t.Fatal(err)
	}
	left.native(t, two, true)
	left.native(t, one, false)
	if err := ec2.DeleteRoute(ec2sim.RouteInput{TableID: table, List: list.ID}); err != nil {
		t.Fatal(err)
	}
	left.native(t, two, false)
	allEnd(t, append(late, streams...))
	left.repaired("the end")
}

// elastic maps a public address to a pod's.
func (l *lab) elastic(t *testing.T, addr netip.Addr) netip.Addr {
	t.Helper()
	a, err := l.Cloud().AllocateAddress(ec2sim.AllocateAddressInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range l.Cloud().Snapshot().Interfaces {
		if !slices.Contains(e.Secondary, addr) {
			continue
		}
		if _, err := l.Cloud().AssociateAddress(ec2sim.AssociateAddressInput{AllocationID: a.ID, InterfaceID: e.ID, PrivateIP: addr}); err != nil {
			t.Fatal(err)
		}
		return a.PublicIP
	}
	t.Fatalf("no ENI has %s", addr)
	return netip.Addr{}
}

func (l *lab) vpcID(t *testing.T, name string) string {
	t.Helper()
	for _, v := range l.Cloud().Snapshot().VPCs {
		if v.Tags["Name"] == name {
			return v.ID
		}
	}
	t.Fatalf("no VPC is called %s", name)
	return ""
}

func (l *lab) mainTable(t *testing.T, vpcID string) string {
	t.Helper()
	for _, v := range l.Cloud().Snapshot().VPCs {
		if v.ID == vpcID {
			return v.MainRouteTable
		}
	}
	t.Fatalf("no VPC %s", vpcID)
	return ""
}

func (l *lab) peering(t *testing.T) string {
	t.Helper()
	for _, p := range l.Cloud().Snapshot().Peerings {
		return p.ID
	}
	t.Fatal("there is no peering")
	return ""
}
