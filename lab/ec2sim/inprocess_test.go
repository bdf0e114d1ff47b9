package ec2sim

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The world builder's way: everything by methods.
func TestInProcess(t *testing.T) {
	k := newClock()
	c := New(Config{Now: k.Now, Region: "us-east-1"})
	v, n := place(t, c)
	g := must(c.CreateSecurityGroup(CreateSecurityGroupInput{VPCID: v.ID, Name: "web", Description: "d", Tags: map[string]string{"a": "b"}}))(t)
	i := must(c.RunInstances(RunInstancesInput{Type: "m5.large", SubnetID: n.ID, Groups: []string{g.ID}, Tags: map[string]string{"Name": "one"}}))(t).Instances[0]
	if i.Name != "one" || i.PrivateDNSName != "ip-10-0-1-4.ec2.internal" || i.Metadata != (Metadata{HopLimit: 2, Tokens: "required"}) {
		t.Errorf("instance %+v", i)
	}
	e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Addresses: Addressing{Secondary: []netip.Addr{addr("10.0.1.4").Next()}}}))(t)
	if e.Primary != addr("10.0.1.6") {
		t.Errorf("primary %v: what is named must be kept from the choice", e.Primary)
	}
	a := must(c.AttachNetworkInterface(AttachNetworkInterfaceInput{InterfaceID: e.ID, InstanceID: i.ID, DeviceIndex: 2}))(t)
	for what, err := range map[string]error{
		"modify":   c.ModifyNetworkInterfaceAttribute(ModifyNetworkInterfaceInput{ID: e.ID, Description: Some("d")}),
		"modify 2": c.ModifyNetworkInterfaceAttribute(ModifyNetworkInterfaceInput{ID: e.ID, Groups: []string{g.ID, g.ID}}),
		"modify 3": c.ModifyNetworkInterfaceAttribute(ModifyNetworkInterfaceInput{ID: e.ID, Attachment: AttachmentChange{ID: a.ID, DeleteOnTermination: Some(true)}}),
		"unassign": c.UnassignPrivateIPAddresses(UnassignPrivateIPAddressesInput{ID: e.ID, Addresses: e.Secondary}),
		"tag":      c.CreateTags(CreateTagsInput{IDs: []string{i.ID, e.ID}, Tags: map[string]string{"Name": "two"}}),
		"untag":    c.DeleteTags(DeleteTagsInput{IDs: []string{e.ID}}),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	enis := must(c.DescribeNetworkInterfaces(Query{IDs: []string{e.ID, e.ID}}))(t).Items
	if len(enis) != 1 {
		t.Fatalf("%d ENIs by one identifier given twice", len(enis))
	}
	if e = enis[0]; e.Description != "d" || len(e.Groups) != 1 || !e.Attachment.DeleteOnTermination || len(e.Secondary) > 0 || len(e.Tags) > 0 {
		t.Errorf("ENI %+v", e)
	}
	byGroup := must(c.DescribeNetworkInterfaces(Query{Filters: []Filter{{"group-id", []string{g.ID}}, {"owner-id", []string{"123456789012"}}}}))(t)
	groups := must(c.DescribeSecurityGroups(Query{Filters: []Filter{{"group-name", []string{"web"}}}}))(t)
	subnets := must(c.DescribeSubnets(Query{Filters: []Filter{{"availability-zone-id", []string{"use1-az1"}}}}))(t)
	instances := must(c.DescribeInstances(Query{Filters: []Filter{{"tag:Name", []string{"two"}}, {"network-interface.network-interface-id", []string{e.ID}}}}))(t)
	tags := must(c.DescribeTags(Query{}))(t)
	got := []int{len(byGroup.Items), len(groups.Items), len(subnets.Items), len(instances.Items), len(tags.Items)}
	if diff := cmp.Diff([]int{2, 1, 1, 1, 2}, got); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	if i = instances.Items[0]; i.Name != "two" || len(i.Interfaces) != 2 {
		t.Errorf("instance %+v", i)
	}
	must(c.TerminateInstances(TerminateInstancesInput{IDs: []string{i.ID}}))(t)
	k.advance(graveTime)
	must(c.RunInstances(RunInstancesInput{Type: "m5.large", SubnetID: n.ID}))(t)
	if snap := c.Snapshot(); len(snap.Instances) != 1 || len(snap.Interfaces) != 1 || c.state.instances.byID[i.ID] != nil {
		t.Errorf("%d instances and %d ENIs an hour after the end, want 1 and 1", len(snap.Instances), len(snap.Interfaces))
	}
	if _, err := c.CreateSecurityGroup(CreateSecurityGroupInput{VPCID: v.ID, Name: "sg-x", Description: "d"}); errCode(err) != "InvalidParameterValue" {
		t.Errorf("a group named like an identifier: %v", err)
	}
	if _, err := c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Description: strings.Repeat("d", 256)}); errCode(err) != "InvalidParameterValue" {
		t.Errorf("a long description: %v", err)
	}
	if _, err := c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, ClientToken: strings.Repeat("t", 65)}); errCode(err) != "InvalidParameterValue" {
		t.Errorf("a long token: %v", err)
	}
}

// Device indexes count per card, and each card has its own limit.
func TestCards(t *testing.T) {
	c := New(Config{})
	_, n := place(t, c)
	i := must(c.RunInstances(RunInstancesInput{Type: "p5.48xlarge", SubnetID: n.ID}))(t).Instances[0]
	attach := func(device, card int) error {
		e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID}))(t)
		_, err := c.AttachNetworkInterface(AttachNetworkInterfaceInput{InterfaceID: e.ID, InstanceID: i.ID, DeviceIndex: device, CardIndex: card})
		return err
	}
	for _, tt := range []struct {
		device, card int
		code         string
	}{
		{1, 31, ""}, {1, 1, ""}, {1, 0, ""}, {1, 1, "InvalidParameterValue"}, {2, 1, ""}, {3, 1, "AttachmentLimitExceeded"}, {1, 32, "InvalidParameterValue"},
	} {
		if err := attach(tt.device, tt.card); errCode(err) != tt.code {
			t.Errorf("device %d on card %d: %v, want %q", tt.device, tt.card, err, tt.code)
		}
	}
	snap := c.Snapshot()
	var order []int
	for _, id := range snap.Instances[0].Interfaces {
		for _, e := range snap.Interfaces {
			if e.ID == id {
				order = append(order, 100*e.Attachment.CardIndex+e.Attachment.DeviceIndex)
			}
		}
	}
	if diff := cmp.Diff([]int{0, 1, 101, 102, 3101}, order); diff != "" {
		t.Errorf("order of the interfaces (-want +got):\n%s", diff)
	}
}

// A token lives a day, and what is forgotten does not fill memory.
func TestTokensAreForgotten(t *testing.T) {
	k := newClock()
	c := New(Config{Now: k.Now})
	v := must(c.CreateVPC(CreateVPCInput{CIDR: prefix("10.0.0.0/16")}))(t)
	n := must(c.CreateSubnet(CreateSubnetInput{VPCID: v.ID, CIDR: prefix("10.0.0.0/16")}))(t)
	for range 5000 {
		k.advance(time.Hour)
		must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, ClientToken: k.Now().String()}))(t)
	}
	if got := len(c.state.tokens); got > 1024 {
		t.Errorf("%d tokens remembered", got)
	}
}

func BenchmarkDescribeByID(b *testing.B) {
	c := New(Config{})
	v := must(c.CreateVPC(CreateVPCInput{CIDR: prefix("10.0.0.0/16")}))(b)
	n := must(c.CreateSubnet(CreateSubnetInput{VPCID: v.ID, CIDR: prefix("10.0.0.0/16")}))(b)
	var last NetworkInterface
	for range 10000 {
		last = must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID}))(b)
	}
	form := query("DescribeNetworkInterfaces", "NetworkInterfaceId.1="+last.ID)
	for b.Loop() {
		if a := post(b, c, form); a.status != 200 {
			b.Fatal(a)
		}
	}
}
