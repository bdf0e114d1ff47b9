package ec2sim

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A read meets a state of at most Lag ago, and some do not meet the state of
// now; after Lag all do.
func TestReadsLag(t *testing.T) {
	k := newClock()
	c := New(Config{Now: k.Now, Lag: 2 * time.Second, Chance: 7})
	_, n := place(t, c)
	k.advance(time.Minute)
	e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID}))(t)
	byID := query("DescribeNetworkInterfaces", "NetworkInterfaceId.1="+e.ID)
	k.advance(time.Second)
	seen, missed, shown := 0, 0, 0
	for range 200 {
		switch a := post(t, c, byID); a.code {
		case "":
			seen++
		case "InvalidNetworkInterfaceID.NotFound":
			missed++
		default:
			t.Fatalf("%+v", a)
		}
		if strings.Contains(post(t, c, query("DescribeNetworkInterfaces")).body, e.ID) {
			shown++
		}
	}
	// Half of all requests meet the state of now, half of the others one of
	// the last second.
	if missed < 25 || missed > 75 || shown < 125 || shown > 175 {
		t.Errorf("after a second %d of 200 miss the ENI, %d lists show it; want about 50 and 150", missed, shown)
	}
	k.advance(time.Second)
	for range 200 {
		if a := post(t, c, byID); a.code != "" {
			t.Fatalf("after two seconds: %+v", a)
		}
	}
	if _, err := c.DescribeNetworkInterfaces(Query{IDs: []string{e.ID}}); err != nil {
		t.Errorf("in-process: %v", err)
	}
}

// What is deleted stays to be seen for a while; what has changed, too.
func TestReadsLagBehindChanges(t *testing.T) {
	k := newClock()
	c := New(Config{Now: k.Now, Lag: 2 * time.Second})
	_, n := place(t, c)
	e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Description: "before"}))(t)
	k.advance(time.Minute)
	count := func(want string) int {
		found := 0
		for range 100 {
			if strings.Contains(post(t, c, query("DescribeNetworkInterfaces")).body, want) {
				found++
			}
		}
		return found
	}
	if err := c.ModifyNetworkInterfaceAttribute(ModifyNetworkInterfaceInput{ID: e.ID, Description: Some("after")}); err != nil {
		t.Fatal(err)
	}
	k.advance(time.Second)
	if before, after := count("before"), count("after"); before == 0 || after == 0 {
		t.Errorf("a change: %d see the old, %d the new", before, after)
	}
	k.advance(time.Second)
	if before := count("before"); before > 0 {
		t.Errorf("%d see the old after two seconds", before)
	}
	if err := c.DeleteNetworkInterface(DeleteNetworkInterfaceInput{ID: e.ID}); err != nil {
		t.Fatal(err)
	}
	k.advance(time.Second)
	if there := count(e.ID); there == 0 || there == 100 {
		t.Errorf("a deletion: %d of 100 see the ENI", there)
	}
}

// A write may not know what is new, and works on the state of now otherwise.
func TestWritesLag(t *testing.T) {
	k := newClock()
	c := New(Config{Now: k.Now, Lag: 2 * time.Second})
	_, n := place(t, c)
	k.advance(time.Minute)
	codes := map[string]int{}
	for range 100 {
		e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID}))(t)
		codes[post(t, c, query("AssignPrivateIpAddresses", "NetworkInterfaceId="+e.ID, "SecondaryPrivateIpAddressCount=1")).code]++
	}
	if ok, missed := codes[""], codes["InvalidNetworkInterfaceID.NotFound"]; ok < 30 || missed < 30 || ok+missed != 100 {
		t.Errorf("outcomes %v, want about 50 and 50", codes)
	}
	k.advance(2 * time.Second)
	for e := range c.state.enis.all() {
		if a := post(t, c, query("DeleteNetworkInterface", "NetworkInterfaceId="+e.ID)); a.code != "" {
			t.Fatalf("an old ENI: %+v", a)
		}
		if a := post(t, c, query("DeleteNetworkInterface", "NetworkInterfaceId="+e.ID)); a.code != "InvalidNetworkInterfaceID.NotFound" {
			t.Fatalf("one that is deleted: %+v", a)
		}
		break
	}
}

// Propagate ends all lag at once: of what was done before.
func TestPropagate(t *testing.T) {
	k := newClock()
	c := New(Config{Now: k.Now, Lag: time.Hour})
	_, n := place(t, c)
	c.Propagate()
	k.advance(time.Second)
	for range 50 {
		if a := post(t, c, query("DescribeSubnets", "SubnetId.1="+n.ID)); a.code != "" {
			t.Fatalf("%+v", a)
		}
	}
}

// Looking back gives exactly what was, and changes nothing: every kind of thing,
// made, changed and deleted.
func TestSnapshotAt(t *testing.T) {
	k := newClock()
	c := New(Config{Now: k.Now, Memory: time.Hour, Attach: 10 * time.Second, Regions: []string{"eu-west-1", "us-east-1"}})
	type moment struct {
		at   time.Time
		snap string
	}
	var moments []moment
	text := func(s Snapshot) string { return string(must(json.Marshal(s))(t)) }
	look := func() { moments = append(moments, moment{k.Now(), text(c.Snapshot())}) }
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		look()
		k.advance(time.Second)
	}
	k.advance(time.Second)
	v, n := place(t, c)
	step(nil)
	i := must(c.RunInstances(RunInstancesInput{Type: "m5.large", SubnetID: n.ID}))(t).Instances[0]
	step(nil)
	e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Addresses: Addressing{PrefixCount: 2}, ClientToken: "t"}))(t)
	step(nil)
	a := must(c.AttachNetworkInterface(AttachNetworkInterfaceInput{InterfaceID: e.ID, InstanceID: i.ID, DeviceIndex: 1}))(t)
	step(nil)
	for range 15 {
		step(nil)
	}
	step(c.UnassignPrivateIPAddresses(UnassignPrivateIPAddressesInput{ID: e.ID, Prefixes: e.Prefixes[:1]}))
	step(c.CreateTags(CreateTagsInput{IDs: []string{e.ID}, Tags: map[string]string{"a": "b"}}))
	n2 := must(c.CreateSubnet(CreateSubnetInput{VPCID: v.ID, CIDR: prefix("10.0.2.0/24")}))(t)
	step(nil)
	step(c.DeleteSubnet(DeleteSubnetInput{ID: n2.ID}))
	step(c.DetachNetworkInterface(DetachNetworkInterfaceInput{AttachmentID: a.ID}))
	for range 15 {
		step(nil)
	}
	step(c.DeleteNetworkInterface(DeleteNetworkInterfaceInput{ID: e.ID}))
	must(c.TerminateInstances(TerminateInstancesInput{IDs: []string{i.ID}}))(t)
	step(nil)
	must(c.In("us-east-1").CreateVPC(CreateVPCInput{CIDR: prefix("10.0.0.0/16")}))(t)
	step(nil)
	now := text(c.Snapshot())
	for _, m := range moments {
		if diff := cmp.Diff(m.snap, text(c.SnapshotAt(m.at))); diff != "" {
			t.Errorf("looking back at %s (-was +seen):\n%s", m.at.Format(time.TimeOnly), diff)
		}
		if got := text(c.Snapshot()); got != now {
			t.Fatalf("looking back at %s has changed what is", m.at.Format(time.TimeOnly))
		}
	}
	if len(moments) < 30 || moments[0].snap == now {
		t.Error("nothing was looked at")
	}
}

// What is remembered is bounded by time.
func TestMemoryIsBounded(t *testing.T) {
	k := newClock()
	c := New(Config{Now: k.Now, Lag: time.Second})
	_, n := place(t, c)
	for i := range 5000 {
		k.advance(100 * time.Millisecond)
		must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Description: fmt.Sprint(i)}))(t)
		if e := c.state.enis.order[0]; len(c.state.enis.order) > 100 {
			if err := c.DeleteNetworkInterface(DeleteNetworkInterfaceInput{ID: e.id}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if past, births := len(c.state.past), len(c.state.births); past > 30 || births > 30 {
		t.Errorf("%d commits and %d births remembered, of a second with ten of each", past, births)
	}
	none := New(Config{Now: k.Now})
	place(t, none)
	if len(none.state.past)+len(none.state.births) > 0 {
		t.Error("a cloud without lag remembers")
	}
}

// The same seed and the same requests give the same run, another seed another.
func TestChanceIsSeeded(t *testing.T) {
	run := func(seed uint64) string {
		k := newClock()
		c := New(Config{Now: k.Now, Lag: 2 * time.Second, Attach: 3 * time.Second, Chance: seed})
		_, n := place(t, c)
		i := must(c.RunInstances(RunInstancesInput{Type: "m5.large", SubnetID: n.ID}))(t).Instances[0]
		k.advance(time.Minute)
		e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID}))(t)
		a := must(c.AttachNetworkInterface(AttachNetworkInterfaceInput{InterfaceID: e.ID, InstanceID: i.ID, DeviceIndex: 1}))(t)
		out := fmt.Sprintln(a.Until, a.DeviceAt)
		for range 40 {
			k.advance(50 * time.Millisecond)
			out += post(t, c, query("DescribeNetworkInterfaces", "NetworkInterfaceId.1="+e.ID)).code + "\n"
		}
		return out
	}
	if one, same := run(7), run(7); one != same {
		t.Errorf("two runs of one seed differ:\n%s", cmp.Diff(one, same))
	}
	if run(7) == run(8) {
		t.Error("two seeds give the same run")
	}
}
