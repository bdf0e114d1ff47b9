package site

import (
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/node"
)

func TestSnapshot(t *testing.T) {
	for _, tt := range []struct {
		pods, enis int
		onLast     int // pods that are on the last ENI
	}{
		{1, 2, 1}, {30, 2, 30}, {110, 3, 50}, {250, 5, 50}, {737, 15, 50},
	} {
		for side := range 2 {
			s := Snapshot(side, tt.pods, intent.Default())
			if len(s.ENIs) != tt.enis || len(s.ENIs) > MaxENIs || len(s.Pods) != tt.pods {
				t.Errorf("%d pods: %d ENIs and %d pods, want %d ENIs", tt.pods, len(s.ENIs), len(s.Pods), tt.enis)
			}
			onLast, seen := 0, map[netip.Addr]bool{}
			for _, p := range s.Pods {
				if seen[p.Addr] || !s.ENIs[p.Slot-1].Owns(p.Addr) || !s.ENIs[0].Subnet.Contains(p.Addr) {
					t.Fatalf("%d pods: address %s of slot %d is taken or not of its ENI", tt.pods, p.Addr, p.Slot)
				}
				seen[p.Addr] = true
				if int(p.Slot) == tt.enis {
					onLast++
				}
			}
			if last := s.Pods[tt.pods-1]; int(last.Slot) != tt.enis || onLast != tt.onLast {
				t.Errorf("%d pods: the last is on slot %d with %d pods, want slot %d with %d", tt.pods, last.Slot, onLast, tt.enis, tt.onLast)
			}
		}
	}
}

// TestLayouts builds one small site of each kind and looks at what is on a node.
func TestLayouts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces (CAP_SYS_ADMIN)")
	}
	const pods = 60
	type counts struct{ Rules, ToPod, FromPod, PodRoutes, Links int }
	for _, tt := range []struct {
		name   string
		layout Layout
		want   counts
	}{
		// Three rules are the kernel's own. Two ENIs have 2 rules each for flows
		// and one for its address, beside the pods' one. Links: lo, ENIs, pods.
		{"bare", Bare, counts{Rules: 3, Links: 2}},
		{"ours", Ours, counts{Rules: 3 + 1 + 2*2 + 1, PodRoutes: pods, Links: 1 + 2 + pods}},
		{"rules", Rules, counts{Rules: 3 + pods + PodsPerENI, ToPod: pods, FromPod: PodsPerENI, Links: 1 + 2 + pods}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := New(tt.layout, pods, intent.Default())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			h, err := handle(s.Nodes[1].NS)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			rules, err := h.RuleList(netlink.FAMILY_V4)
			if err != nil {
				t.Fatal(err)
			}
			routes, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: node.PodTable}, netlink.RT_FILTER_TABLE)
			if err != nil {
				t.Fatal(err)
			}
			links, err := h.LinkList()
			if err != nil {
				t.Fatal(err)
			}
			got := counts{Rules: len(rules), Links: len(links)}
			for _, r := range rules {
				switch r.Priority {
				case toPodPriority:
					got.ToPod++
				case fromPodPriority:
					got.FromPod++
				}
			}
			for _, r := range routes {
				if r.LinkIndex != 0 && r.Priority == 0 {
					got.PodRoutes++
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("on node 1 (-want +got):\n%s", d)
			}
		})
	}
}
