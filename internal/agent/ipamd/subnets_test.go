package ipamd

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// TestCandidates: which subnets a further ENI may be in, by their tags.
func TestCandidates(t *testing.T) {
	mine, theirs := tagCluster+"blue", tagCluster+"green"
	subnets := []vpc.Subnet{
		{ID: "subnet-1"}, // the primary ENI's
		{ID: "untagged"},
		{ID: "in", Tags: map[string]string{tagRole: "1"}},
		{ID: "in, with no value", Tags: map[string]string{tagRole: ""}},
		{ID: "out", Tags: map[string]string{tagRole: "0"}},
		{ID: "mine", Tags: map[string]string{tagRole: "1", mine: "shared"}},
		{ID: "theirs", Tags: map[string]string{tagRole: "1", theirs: "shared"}},
		{ID: "of both", Tags: map[string]string{tagRole: "1", mine: "shared", theirs: "shared"}},
		{ID: "mine, and out", Tags: map[string]string{tagRole: "0", mine: "shared"}},
	}
	primary := func(tags map[string]string) []vpc.Subnet {
		return append([]vpc.Subnet{{ID: "subnet-1", Tags: tags}}, subnets[1:]...)
	}
	further := []string{"in", "in, with no value", "mine", "of both"}
	for _, tt := range []struct {
		name    string
		off     bool
		subnets []vpc.Subnet
		want    []string
	}{
		{"by their tags", false, subnets, append([]string{"subnet-1"}, further...)},
		{"the node's own is set aside", false, primary(map[string]string{tagRole: "0"}), further},
		{"the node's own is another cluster's", false, primary(map[string]string{theirs: "owned"}), further},
		{"without discovery", true, subnets, nil},
		{"before they were read", false, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			d.cfg.SubnetDiscovery, d.cfg.Cluster = !tt.off, "blue"
			d.SawMetadata([]vpc.ENI{device(0)}, d.now)
			d.SawSubnets(tt.subnets)
			var got []string
			for _, s := range d.State().Subnets {
				got = append(got, s.ID)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("candidates %q, want %q", got, tt.want)
			}
		})
	}
}

// TestDiscovery: an ENI is made in the subnet with the most room, and pods get its
// addresses.
func TestDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{}, "m5.large", "10.0.0.0/28")
		larger := r.addSubnet("10.0.16.0/20", "", map[string]string{tagRole: "1"})
		r.addSubnet("10.0.32.0/19", "", nil)
		r.cfg.SubnetDiscovery = true
		a := r.start()
		defer a.stop()
		time.Sleep(5 * time.Minute)
		for i := range 18 {
			if _, err := a.add(string(rune('a' + i))); err != nil {
				t.Fatal(err)
			}
		}
		attached, _ := r.enis()
		for _, e := range attached[1:] {
			if e.SubnetID != larger {
				t.Errorf("%s is in %s, want %s", e.ID, e.SubnetID, larger)
			}
		}
		if len(attached) < 2 {
			t.Errorf("%d ENIs", len(attached))
		}
	})
}

// TestCustomNetwork: pods are in the subnet of the ENIConfig; one that cannot be
// used is told to the pod that gets no address, with what to do.
func TestCustomNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{}, "m5.large", "10.0.0.0/24")
		near := r.addSubnet("10.0.16.0/20", "eu-west-1a", nil)
		far := r.addSubnet("10.0.32.0/20", "eu-west-1b", nil)
		r.cfg.Custom = Custom{Enabled: true, Name: "wrong", Subnet: far}
		a := r.start()
		time.Sleep(time.Minute)
		start := time.Now()
		_, err := a.add("pod")
		var empty *EmptyError
		if !errors.As(err, &empty) || time.Since(start) > 0 {
			t.Fatalf("after %s: %v, want a refusal at once", time.Since(start), err)
		}
		for _, words := range []string{far, "ENIConfig wrong", "eu-west-1a", "name a subnet of that zone"} {
			if !strings.Contains(err.Error(), words) {
				t.Errorf("%q does not say %q", err, words)
			}
		}
		if attached, detached := r.enis(); len(attached) != 1 || len(detached) > 0 {
			t.Errorf("%d attached and %d detached ENIs, want the primary one", len(attached), len(detached))
		}
		a.stop()

		r.cfg.Custom = Custom{Enabled: true, Name: "right", Subnet: near}
		a = r.start()
		defer a.stop()
		addr, err := a.add("pod")
		if err != nil || !netip.MustParsePrefix("10.0.16.0/20").Contains(addr) {
			t.Errorf("%s, %v: want an address of the ENIConfig's subnet", addr, err)
		}
	})
}

func (r *region) addSubnet(cidr, zone string, tags map[string]string) string {
	r.t.Helper()
	own := r.cloud.Snapshot().Subnets[0]
	if zone == "" {
		zone = own.Zone
	}
	s, err := r.cloud.CreateSubnet(ec2sim.CreateSubnetInput{VPCID: own.VPCID, CIDR: netip.MustParsePrefix(cidr), Zone: zone, Tags: tags})
	if err != nil {
		r.t.Fatal(err)
	}
	r.cloud.Propagate()
	return s.ID
}
