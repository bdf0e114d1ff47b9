package intent

import (
	"flag"
	"net/netip"
	"os"
	"slices"
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
	return Snapshot{
		MTU:    9001,
		Native: []netip.Prefix{prefix("10.0.0.0/16"), prefix("10.12.0.0/16")},
		ENIs: []ENI{
			{Slot: 1, Device: "ens5", ENI: vpc.ENI{ID: "eni-1", Subnet: prefix("10.0.1.0/24"), Primary: addr("10.0.1.5"),
				Secondary: []netip.Addr{addr("10.0.1.6"), addr("10.0.1.7")}}},
			{Slot: 2, Device: "ens6", ENI: vpc.ENI{ID: "eni-2", DeviceIndex: 1, Subnet: prefix("10.0.2.0/24"), Primary: addr("10.0.2.9"),
				Prefixes: []netip.Prefix{prefix("10.0.2.32/28")}}},
		},
		Pods: []node.Attachment{pod("a", "10.0.1.6", 1), pod("b", "10.0.2.33", 2)},
	}
}

func pod(id, a string, slot node.Slot) node.Attachment {
	return node.Attachment{ContainerID: id, IfName: "eth0", Addr: addr(a), Slot: slot, Veth: node.VethName(id, "eth0"), Wired: true}
}

// render lists objects in the order they are written.
func render(objects []node.Object) string {
	var b strings.Builder
	for _, c := range diff.Compare(nil, objects) {
		b.WriteString(c.New.String() + "\n")
	}
	return b.String()
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
	for _, tt := range []struct {
		name string
		in   Snapshot
	}{
		{"two-enis-two-pods", twoENIs()},
		{"no-pods", bare},
		{"second-eni-without-device", attaching},
		{"pods-without-network", gone},
		{"native-prefixes-that-overlap", Snapshot{MTU: 9001, ENIs: bare.ENIs[:1],
			Native: []netip.Prefix{prefix("10.0.1.0/24"), prefix("10.0.0.0/16"), prefix("10.1.0.0/16")}}},
		{"nothing-known", Snapshot{MTU: 9001}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			golden := "testdata/" + tt.name + ".golden"
			got := render(Desired(tt.in))
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
	with := without
	with.Pods = append(slices.Clone(without.Pods), p)

	added := diff.Compare(Desired(without), Desired(with))
	if d := cmp.Diff(diff.Compare(nil, Pod(with, p)), added, cmp.Comparer(func(a, b diff.Change) bool { return a == b })); d != "" {
		t.Errorf("delta of one pod (-Pod +full):\n%s", d)
	}
	for _, c := range added {
		if c.New.Rank() == node.RankRule || c.New.Rank() == node.RankChain {
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
	slices.Reverse(r.Native)
	slices.Reverse(r.Pods)
	if d := cmp.Diff(render(Desired(s)), render(Desired(r))); d != "" {
		t.Errorf("reversed snapshot (-want +got):\n%s", d)
	}
}

func TestLayout(t *testing.T) {
	seen := map[uint32]bool{}
	for slot := node.Slot(1); slot <= 64; slot++ {
		m := slot.Mark()
		if m == 0 || m&^node.MarkMask != 0 || seen[m] {
			t.Errorf("mark of slot %d: got %#x, want a new value within %#x", slot, m, node.MarkMask)
		}
		seen[m] = true
	}
	name := node.VethName(strings.Repeat("f", 64), "eth0")
	if len(name) > 15 || !strings.HasPrefix(name, node.VethPrefix) {
		t.Errorf("veth name: got %q, want at most 15 characters starting with %q", name, node.VethPrefix)
	}
	if name == node.VethName(strings.Repeat("f", 64), "net1") {
		t.Error("two interfaces of one container have the same veth name")
	}
}
