package ec2sim

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// sameSnapshot compares snapshots to the last field.
func sameSnapshot(before, after Snapshot) string {
	return cmp.Diff(before, after, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}))
}

// place is a VPC with a /24 subnet, made in-process.
func place(t testing.TB, c *Cloud) (VPC, Subnet) {
	t.Helper()
	v := must(c.CreateVPC(CreateVPCInput{CIDR: prefix("10.0.0.0/16")}))(t)
	return v, must(c.CreateSubnet(CreateSubnetInput{VPCID: v.ID, CIDR: prefix("10.0.1.0/24")}))(t)
}

func TestPool(t *testing.T) {
	p := newPool(&journal{}, prefix("10.0.0.0/27"))
	if p.free != 27 {
		t.Errorf("%d of 32 free, want 27", p.free)
	}
	if _, err := p.takeBlock(); err == nil || err.(*Error).Code != "InsufficientCidrBlocks" {
		t.Errorf("a block although both hold reserved addresses: %v", err)
	}
	var got []netip.Addr
	for {
		a, err := p.takeLowest()
		if err != nil {
			if err.(*Error).Code != "InsufficientFreeAddressesInSubnet" {
				t.Error(err)
			}
			break
		}
		got = append(got, a)
	}
	if len(got) != 27 || got[0] != addr("10.0.0.4") || got[26] != addr("10.0.0.30") || p.free != 0 {
		t.Errorf("%d addresses from %v to %v, %d left", len(got), got[0], got[len(got)-1], p.free)
	}
	p.release(got[3], 1)
	if a, err := p.takeLowest(); a != got[3] || err != nil {
		t.Errorf("after a release: %v %v, want %v", a, err, got[3])
	}
}

// A subnet with one address taken in each block has hundreds of addresses free
// and no block.
func TestFragmentation(t *testing.T) {
	c := New(Config{})
	v := must(c.CreateVPC(CreateVPCInput{CIDR: prefix("10.0.0.0/16")}))(t)
	n := must(c.CreateSubnet(CreateSubnetInput{VPCID: v.ID, CIDR: prefix("10.0.4.0/22")}))(t)
	for i := 1; i < 63; i++ {
		a := netip.AddrFrom4([4]byte{10, 0, byte(4 + i/16), byte(i%16*16 + 7)})
		must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Addresses: Addressing{Primary: a}}))(t)
	}
	_, err := c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Addresses: Addressing{PrefixCount: 1}})
	if got := errCode(err); got != "InsufficientCidrBlocks" {
		t.Errorf("prefix: %v", err)
	}
	if e, err := c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Addresses: Addressing{Count: 400}}); err != nil || len(e.Secondary) != 400 {
		t.Errorf("addresses: %v", err)
	}
}

func errCode(err error) string {
	var refused *Error
	if errors.As(err, &refused) {
		return refused.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestSameSeedSameCloud(t *testing.T) {
	build := func(seed uint64) Snapshot {
		c := New(Config{Seed: seed, Now: newClock().Now})
		_, n := place(t, c)
		must(c.RunInstances(RunInstancesInput{Type: "m5.large", Min: 3, Max: 3, SubnetID: n.ID}))(t)
		return c.Snapshot()
	}
	one, same, other := build(7), build(7), build(8)
	if diff := sameSnapshot(one, same); diff != "" {
		t.Errorf("two clouds of one seed differ:\n%s", diff)
	}
	if one.VPCs[0].ID == other.VPCs[0].ID || one.Interfaces[0].MAC.String() == other.Interfaces[0].MAC.String() {
		t.Error("two seeds give the same identifiers")
	}
	macs := map[string]bool{}
	for _, e := range one.Interfaces {
		macs[e.MAC.String()] = true
		if e.MAC[0] != 0x0a {
			t.Errorf("MAC %s", e.MAC)
		}
		if err := kindENI.check(e.ID); err != nil || len(e.ID) != len("eni-")+17 {
			t.Errorf("identifier %s: %v", e.ID, err)
		}
	}
	if len(macs) != 3 {
		t.Errorf("MACs: %v", macs)
	}
}

func TestSnapshotIsACopy(t *testing.T) {
	c := New(Config{})
	v, n := place(t, c)
	tags := map[string]string{"a": "1"}
	e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Addresses: Addressing{Count: 2}, Tags: tags}))(t)
	must(c.RunInstances(RunInstancesInput{SubnetID: n.ID, Type: "t3.small"}))(t)
	before := c.Snapshot()
	spoilt := c.Snapshot()
	spoilt.VPCs[0].CIDRs[0] = prefix("1.0.0.0/8")
	spoilt.Interfaces[0].Secondary[0] = addr("1.1.1.1")
	spoilt.Interfaces[0].MAC[0] = 0xff
	spoilt.Interfaces[0].Tags["a"] = "2"
	spoilt.Interfaces[0].Groups[0] = "sg-0"
	spoilt.Interfaces[1].Attachment.Status = "spoilt"
	spoilt.Instances[0].Interfaces[0] = "eni-0"
	e.Secondary[1], v.CIDRs[0], tags["a"] = addr("1.1.1.1"), prefix("1.0.0.0/8"), "3"
	if diff := sameSnapshot(before, c.Snapshot()); diff != "" {
		t.Errorf("writing to what was returned reached the cloud:\n%s", diff)
	}
}

func TestChanged(t *testing.T) {
	c := New(Config{})
	closed := func(ch <-chan struct{}) bool {
		select {
		case <-ch:
			return true
		default:
			return false
		}
	}
	first := c.Changed()
	c.Snapshot()
	if _, err := c.DescribeVPCs(Query{}); err != nil || closed(first) {
		t.Errorf("reading is a change (%v)", err)
	}
	if _, err := c.CreateVPC(CreateVPCInput{CIDR: prefix("10.0.0.0/8")}); err == nil || closed(first) {
		t.Errorf("a refused call is a change (%v)", err)
	}
	must(c.CreateVPC(CreateVPCInput{CIDR: prefix("10.0.0.0/16")}))(t)
	if !closed(first) || closed(c.Changed()) {
		t.Error("a change was not told once")
	}
}

// A launch that cannot be whole leaves nothing behind, but Min is enough.
func TestLaunchAllOrNothing(t *testing.T) {
	c := New(Config{Now: newClock().Now})
	v := must(c.CreateVPC(CreateVPCInput{CIDR: prefix("10.0.0.0/16")}))(t)
	n := must(c.CreateSubnet(CreateSubnetInput{VPCID: v.ID, CIDR: prefix("10.0.0.0/28")}))(t)
	before := c.Snapshot()
	if _, err := c.RunInstances(RunInstancesInput{Type: "m5.large", Min: 12, Max: 12, SubnetID: n.ID}); errCode(err) != "InsufficientFreeAddressesInSubnet" {
		t.Errorf("12 in a subnet of 11: %v", err)
	}
	if diff := sameSnapshot(before, c.Snapshot()); diff != "" {
		t.Errorf("a refused launch left:\n%s", diff)
	}
	r := must(c.RunInstances(RunInstancesInput{Type: "m5.large", Min: 5, Max: 20, SubnetID: n.ID}))(t)
	if snap := c.Snapshot(); len(r.Instances) != 11 || len(snap.Instances) != 11 || len(snap.Interfaces) != 11 || snap.Subnets[0].Available != 0 {
		t.Errorf("%d of at most 20 run, %d ENIs, %d free", len(r.Instances), len(snap.Interfaces), snap.Subnets[0].Available)
	}
}

func TestReassign(t *testing.T) {
	c := New(Config{})
	_, n := place(t, c)
	from := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Addresses: Addressing{Count: 2}}))(t)
	to := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID}))(t)
	in := AssignPrivateIPAddressesInput{ID: to.ID, Addresses: from.Secondary[:1]}
	if _, err := c.AssignPrivateIPAddresses(in); errCode(err) != "InvalidParameterValue" {
		t.Errorf("an address in use: %v", err)
	}
	in.AllowReassignment = true
	for range 2 { // the second time it is there already
		if out := must(c.AssignPrivateIPAddresses(in))(t); len(out.Addresses) != 1 || out.Addresses[0] != from.Secondary[0] {
			t.Errorf("reassigned: %v", out.Addresses)
		}
	}
	snap := c.Snapshot()
	if got := fmt.Sprint(snap.Interfaces[0].Secondary, snap.Interfaces[1].Secondary); got != "[10.0.1.6] [10.0.1.5]" {
		t.Errorf("secondaries %s", got)
	}
	in.Addresses = []netip.Addr{from.Primary}
	if _, err := c.AssignPrivateIPAddresses(in); errCode(err) != "InvalidParameterValue" {
		t.Errorf("a primary address: %v", err)
	}
}

func TestDevices(t *testing.T) {
	c := New(Config{Devices: true, Now: newClock().Now})
	_, n := place(t, c)
	i := must(c.RunInstances(RunInstancesInput{Type: "m5.large", SubnetID: n.ID}))(t).Instances[0]
	e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID}))(t)
	attach := AttachNetworkInterfaceInput{InterfaceID: e.ID, InstanceID: i.ID, DeviceIndex: 1}
	status := func() string {
		snap := c.Snapshot()
		text := snap.Instances[0].State
		for _, e := range snap.Interfaces {
			text += " " + e.Status
			if e.Attachment != nil {
				text += "/" + e.Attachment.Status
			}
		}
		return text
	}
	step := func(what string, err error, want string) {
		t.Helper()
		if got := status(); err != nil || got != want {
			t.Fatalf("%s: %v, %q, want %q", what, err, got, want)
		}
	}
	refused := func(what string, err error, want string) {
		t.Helper()
		before := status()
		if errCode(err) != want || status() != before {
			t.Fatalf("%s: %v, want %s", what, err, want)
		}
	}

	step("launch", nil, "pending in-use/attaching available")
	_, err := c.AttachNetworkInterface(attach)
	refused("attach to a pending instance", err, "IncorrectState")
	primary := c.Snapshot().Interfaces[0].Attachment.ID
	step("primary", c.DeviceAttached(primary), "pending in-use/attached available")
	step("running", c.InstanceRunning(i.ID), "running in-use/attached available")
	step("running again", c.InstanceRunning(i.ID), "running in-use/attached available")
	refused("ended unasked", c.InstanceTerminated(i.ID), "IncorrectState")

	a := must(c.AttachNetworkInterface(attach))(t)
	step("attach", nil, "running in-use/attached in-use/attaching")
	refused("detach while attaching", c.DetachNetworkInterface(DetachNetworkInterfaceInput{AttachmentID: a.ID}), "IncorrectState")
	step("attached", c.DeviceAttached(a.ID), "running in-use/attached in-use/attached")
	refused("detached unasked", c.DeviceDetached(a.ID), "IncorrectState")
	step("detach", c.DetachNetworkInterface(DetachNetworkInterfaceInput{AttachmentID: a.ID}), "running in-use/attached in-use/detaching")
	refused("detach again", c.DetachNetworkInterface(DetachNetworkInterfaceInput{AttachmentID: a.ID}), "IncorrectState")
	step("late report", c.DeviceAttached(a.ID), "running in-use/attached in-use/detaching")
	step("forced", c.DetachNetworkInterface(DetachNetworkInterfaceInput{AttachmentID: a.ID, Force: true}), "running in-use/attached in-use/detaching")
	step("detached", c.DeviceDetached(a.ID), "running in-use/attached available")
	refused("detached twice", c.DeviceDetached(a.ID), "InvalidAttachmentID.NotFound")

	must(c.AttachNetworkInterface(attach))(t)
	must(c.TerminateInstances(TerminateInstancesInput{IDs: []string{i.ID}}))(t)
	step("terminate", nil, "shutting-down in-use/attached in-use/attaching")
	_, err = c.TerminateInstances(TerminateInstancesInput{IDs: []string{i.ID}})
	step("terminate again", err, "shutting-down in-use/attached in-use/attaching")
	step("gone", c.InstanceTerminated(i.ID), "terminated available")
	step("gone again", c.InstanceTerminated(i.ID), "terminated available")
}

func TestWildcard(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"a", "a", true}, {"a", "A", false},
		{"a*c", "abbbc", true}, {"a*c", "abbbcd", false}, {"*b*", "abc", true}, {"a?c", "abc", true}, {"a?", "a", false},
		{`a\*`, "a*", true}, {`a\*`, "ab", false}, {`\?`, "?", true}, {`\\`, `\`, true}, {"*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaa", false},
		{"**", "x", true}, {`x*\`, `xy\`, true},
	} {
		if got := wildcard(tt.pattern, tt.text); got != tt.want {
			t.Errorf("wildcard(%q, %q) = %v", tt.pattern, tt.text, got)
		}
	}
}

func TestZoneIDs(t *testing.T) {
	for region, want := range map[string]string{
		"eu-west-1": "euw1-az1", "us-east-1": "use1-az1", "ap-southeast-2": "apse2-az1", "ap-northeast-1": "apne1-az1", "us-gov-west-1": "usgw1-az1",
	} {
		s := &regional{region: region}
		if got := s.zoneID(s.zones()[0]); got != want {
			t.Errorf("%s: %s, want %s", region, got, want)
		}
	}
}
