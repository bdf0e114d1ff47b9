package intent

import (
	"flag"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

var update = flag.Bool("update", false, "rewrite the golden files; read what changed before committing it")

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// twoENIs is a node with secondary addresses on its primary ENI and a prefix on
// the second one.
func twoENIs() Snapshot {
	native := []vpc.Native{{Prefix: prefix("10.0.0.0/16"), Why: "CIDR of the VPC"}, {Prefix: prefix("10.12.0.0/16"), Why: "route to pcx-1 in rtb-1"}}
	return Snapshot{
		Config: Default(),
		ENIs: []ENI{
			{Slot: 1, Device: "ens5", Native: native, ENI: vpc.ENI{ID: "eni-1", Subnet: prefix("10.0.1.0/24"), Primary: addr("10.0.1.5"),
				Secondary: []netip.Addr{addr("10.0.1.6"), addr("10.0.1.7")}}},
			{Slot: 2, Device: "ens6", Native: native, ENI: vpc.ENI{ID: "eni-2", DeviceIndex: 1, Subnet: prefix("10.0.2.0/24"), Primary: addr("10.0.2.9"),
				Prefixes: []netip.Prefix{prefix("10.0.2.32/28")}}},
		},
		Pods: []node.Attachment{pod("a", "10.0.1.6", 1), pod("b", "10.0.2.33", 2)},
	}
}

func pod(id, a string, slot node.Slot) node.Attachment {
	return node.Attachment{ContainerID: id, IfName: "eth0", Addr: addr(a), Slot: slot, Veth: node.VethName(node.DefaultVethPrefix, id, "eth0"), Wired: true}
}

// with is [twoENIs], changed.
func with(change func(*Snapshot)) Snapshot {
	s := twoENIs()
	change(&s)
	return s
}

func TestDesired(t *testing.T) {
	bare := twoENIs()
	bare.Pods = nil
	attaching := twoENIs()
	attaching.ENIs[1].Device = ""
	attaching.Pods = attaching.Pods[:1]
	gone := twoENIs()
	gone.Pods[1].Wired = false // its namespace died before the runtime's DEL
	gone.Pods[0].Slot = 0      // its address was taken away behind our back
	overlapping := bare
	overlapping.ENIs = []ENI{bare.ENIs[0]}
	overlapping.ENIs[0].Native = []vpc.Native{{Prefix: prefix("10.0.1.0/24")}, {Prefix: prefix("10.0.0.0/16")}, {Prefix: prefix("10.1.0.0/16")}}
	for _, tt := range []struct {
		name string
		in   Snapshot
	}{
		{"two-enis-two-pods", twoENIs()},
		{"no-pods", bare},
		{"second-eni-without-device", attaching},
		{"pods-without-network", gone},
		{"native-prefixes-that-overlap", overlapping},
		{"nothing-known", Snapshot{Config: Default()}},
		{"external-snat", with(func(s *Snapshot) { s.Config.ExternalSNAT = true })},
		{"external-snat-without-node-port", with(func(s *Snapshot) { s.Config.ExternalSNAT, s.Config.NodePort = true, false })},
		{"without-node-port", with(func(s *Snapshot) { s.Config.NodePort = false })},
		{"external-services", with(func(s *Snapshot) {
			s.Config.ExternalServices = []netip.Prefix{prefix("10.0.7.0/24"), prefix("10.12.0.0/16")}
		})},
		{"other-numbers", with(func(s *Snapshot) {
			s.Config.BoundMark, s.Config.ENIMTU, s.Config.RandomizeSNAT = 0x100, 1500, HashRandom
		})},
		{"no-random-ports", with(func(s *Snapshot) { s.Config.RandomizeSNAT = NoRandom })},
		{"strict-host", with(func(s *Snapshot) { s.HostRPFilter, s.Config.NoEarlyDemux = 1, true })},
		{"rp-filter-left-alone", with(func(s *Snapshot) { s.HostRPFilter, s.Config.ConfigureRPFilter = 1, false })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			golden := "testdata/" + tt.name + ".golden"
			got := node.Render(Desired(tt.in))
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("desired state (-want +got):\n%s", d)
			}
		})
	}
}

// TestPodIsTheDifference holds the small delta of an ADD to the full pass: a
// pod adds exactly what Pod says, and never a rule.
func TestPodIsTheDifference(t *testing.T) {
	without := twoENIs()
	p := without.Pods[1]
	without.Pods = without.Pods[:1]
	full := without
	full.Pods = append(slices.Clone(without.Pods), p)

	added := diff.Compare(Desired(without), Desired(full))
	if d := cmp.Diff(diff.Compare(nil, Pod(full, p)), added, cmp.Comparer(func(a, b diff.Change) bool { return a == b })); d != "" {
		t.Errorf("delta of one pod (-Pod +full):\n%s", d)
	}
	for _, c := range added {
		if r := c.New.Rank(); r == node.RankRule || r == node.RankSet || r == node.RankChain {
			t.Errorf("a pod adds %s: rules and chains must not grow with pods", c.New)
		}
	}
}

// TestOrderOfTheSnapshotDoesNotMatter: the same facts in another order are the
// same state.
func TestOrderOfTheSnapshotDoesNotMatter(t *testing.T) {
	s := twoENIs()
	r := twoENIs()
	slices.Reverse(r.ENIs)
	slices.Reverse(r.ENIs[0].Native)
	slices.Reverse(r.Pods)
	if d := cmp.Diff(node.Render(Desired(s)), node.Render(Desired(r))); d != "" {
		t.Errorf("reversed snapshot (-want +got):\n%s", d)
	}
}

// TestReasons: the reasons are of objects that are there.
func TestReasons(t *testing.T) {
	s := twoENIs()
	keys := map[string]bool{}
	for _, o := range Desired(s) {
		keys[o.Key()] = true
	}
	for key, why := range Reasons(s) {
		if !keys[key] || why == "" {
			t.Errorf("reason %q is of %q, which is not there", why, key)
		}
	}
	if got := Reasons(s)["route table 1002 10.12.0.0/16 metric 0"]; got != "route to pcx-1 in rtb-1" {
		t.Errorf("reason of a native route: %q", got)
	}
}

func TestLayout(t *testing.T) {
	seen := map[uint32]bool{}
	for slot := node.Slot(1); slot <= 64; slot++ {
		m := slot.Mark()
		if m == 0 || m&^node.SlotMask != 0 || seen[m] {
			t.Errorf("mark of slot %d: got %#x, want a new value within %#x", slot, m, node.SlotMask)
		}
		seen[m] = true
	}
	name := node.VethName("vpce", strings.Repeat("f", 64), "eth0")
	if len(name) > 15 || !strings.HasPrefix(name, "vpce") {
		t.Errorf("veth name: got %q, want at most 15 characters starting with %q", name, "vpce")
	}
	if name == node.VethName("vpce", strings.Repeat("f", 64), "net1") {
		t.Error("two interfaces of one container have the same veth name")
	}
	if node.DefaultBoundMark&node.SlotMask != 0 {
		t.Error("the bound bit is one of the slot's")
	}
}

// TestNoRulePerPod: chains, sets and rules are the same for one pod
// as for many.
func TestNoRulePerPod(t *testing.T) {
	count := func(pods int) map[node.Rank]int {
		s := twoENIs()
		s.Pods = nil
		for i := range pods {
			s.Pods = append(s.Pods, pod(strconv.Itoa(i), netip.AddrFrom4([4]byte{10, 0, 2, byte(i)}).String(), 2))
		}
		n := map[node.Rank]int{}
		for _, o := range Desired(s) {
			n[o.Rank()]++
		}
		return n
	}
	few, many := count(1), count(200)
	for _, r := range []node.Rank{node.RankSysctl, node.RankRule, node.RankSet, node.RankChain} {
		if few[r] != many[r] {
			t.Errorf("rank %d: %d objects with one pod, %d with 200", r, few[r], many[r])
		}
	}
}

func TestConfigValidate(t *testing.T) {
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(*Config) {}, ""},
		{func(c *Config) { c.ENIMTU = 575 }, "eni mtu 575"},
		{func(c *Config) { c.ENIMTU = 9002 }, "eni mtu 9002"},
		{func(c *Config) { c.BoundMark = 0 }, "connection mark 0x0"},
		{func(c *Config) { c.BoundMark = 0xc0 }, "connection mark 0xc0"},
		{func(c *Config) { c.BoundMark = 0x1000000 }, "connection mark 0x1000000"},
		{func(c *Config) { c.RandomizeSNAT = "dice" }, `"dice": must be hashrandom, prng or none`},
	} {
		c := Default()
		tt.change(&c)
		err := c.Validate()
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("default: %v", err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("error %v, want one with %q", err, tt.want)
		}
	}
}
