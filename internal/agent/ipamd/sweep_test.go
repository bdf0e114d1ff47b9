package ipamd

import (
	"log/slog"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// TestSweep: an ENI that another node of this cluster has left goes after two
// looks; nothing else does.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{}, "m5.large", "10.0.0.0/24")
		const other = "i-0aaaaaaaaaaaaaaaa"
		make1 := func(tags map[string]string) string {
			all := map[string]string{ec2.TagOwner: ec2.Owner, ec2.TagInstance: other, ec2.TagCluster: "blue", ec2.TagCreated: time.Now().UTC().Format(time.RFC3339)}
			maps.Copy(all, tags)
			maps.DeleteFunc(all, func(_, v string) bool { return v == "" })
			e, err := r.cloud.CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: r.subnet, Tags: all})
			if err != nil {
				t.Fatal(err)
			}
			return e.ID
		}
		enis := map[string]string{
			"leaked":                   make1(nil),
			"leaked, of an odd time":   make1(map[string]string{ec2.TagCreated: "yesterday"}),
			"about to be attached":     make1(nil),
			"of another cluster":       make1(map[string]string{ec2.TagCluster: "green"}),
			"of no cluster":            make1(map[string]string{ec2.TagCluster: ""}),
			"of the node itself":       make1(map[string]string{ec2.TagInstance: r.instance}),
			"of the Amazon VPC plugin": make1(map[string]string{ec2.TagOwner: ""}),
			"of nobody":                make1(map[string]string{ec2.TagOwner: "", ec2.TagInstance: "", ec2.TagCluster: ""}),
		}
		deleted := 0
		x := &Executor{Log: slog.New(slog.DiscardHandler), Now: time.Now, Cloud: r.client(), Observe: Observer{LeakedDeleted: func() { deleted++ }}}
		snap := r.cloud.Snapshot()
		s := &sweep{x: x, self: Identity{InstanceID: r.instance, VPCID: snap.VPCs[0].ID}, cluster: "blue", seen: make(map[string]time.Time)}
		// look says what is left after a look of the sweep.
		look := func() []string {
			t.Helper()
			if _, err := s.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			there := make(map[string]bool)
			for _, e := range r.cloud.Snapshot().Interfaces {
				there[e.ID] = true
			}
			var left []string
			for name, id := range enis {
				if there[id] {
					left = append(left, name)
				}
			}
			slices.Sort(left)
			return left
		}
		all := slices.Sorted(maps.Keys(enis))
		want := func(when string, names []string) {
			t.Helper()
			if got := look(); !slices.Equal(got, names) {
				t.Errorf("%s: %q is left, want %q", when, got, names)
			}
		}
		want("when all is new", all)
		time.Sleep(leakedFor - time.Minute)
		want("while all is young", all)
		time.Sleep(2 * time.Minute) // old enough now, and the odd one has been seen for long enough
		odd := func(n string) bool { return n == "leaked, of an odd time" }
		want("at the first look at old ones", slices.DeleteFunc(slices.Clone(all), odd))
		if at := s.wanted(nil); !at.Equal(time.Now().Add(leakedFor)) {
			t.Errorf("the second look is wanted at %s, in %s", at, time.Until(at))
		}
		node, err := r.cloud.RunInstances(ec2sim.RunInstancesInput{Type: "m5.large", SubnetID: r.subnet})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.cloud.AttachNetworkInterface(ec2sim.AttachNetworkInterfaceInput{InterfaceID: enis["about to be attached"], InstanceID: node.Instances[0].ID, DeviceIndex: 1}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(leakedFor)
		left := slices.DeleteFunc(slices.Clone(all), func(n string) bool { return odd(n) || n == "leaked" })
		want("at the second look", left)
		time.Sleep(24 * time.Hour)
		want("a day later", left)
		if deleted != 2 {
			t.Errorf("%d deletions were observed, want 2", deleted)
		}
	})
}

// TestSweepRefused: what EC2 refuses to delete is tried again later, and not at
// once.
func TestSweepRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{}, "m5.large", "10.0.0.0/24")
		e, err := r.cloud.CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: r.subnet, Tags: map[string]string{
			ec2.TagOwner: ec2.Owner, ec2.TagInstance: "i-0aaaaaaaaaaaaaaaa", ec2.TagCluster: "blue"}})
		if err != nil {
			t.Fatal(err)
		}
		r.cloud.InjectError("DeleteNetworkInterface", &ec2sim.Error{Code: "UnauthorizedOperation", Status: 403}, -1)
		r.cfg.LeakedCleanup, r.cfg.Cluster = true, "blue"
		a := r.start()
		defer a.stop()
		start := time.Now()
		time.Sleep(2 * time.Hour)
		tries := 0
		for _, c := range r.cloud.Calls(start) {
			if c.Action == "DeleteNetworkInterface" {
				tries++
			}
		}
		if tries < 3 || tries > 10 {
			t.Errorf("%d attempts in two hours, want one in a quarter of an hour", tries)
		}
		r.cloud.ClearFaults()
		time.Sleep(2 * leakedFor)
		if there := slices.ContainsFunc(r.cloud.Snapshot().Interfaces, func(o ec2sim.NetworkInterface) bool { return o.ID == e.ID }); there {
			t.Error("the ENI is still there")
		}
	})
}
