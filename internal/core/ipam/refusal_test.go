package ipam

import (
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

func TestRefusal(t *testing.T) {
	full := func(n int) State {
		var all []has
		for i := range n {
			all = append(all, has{eni: eni(i, 9), held: 9})
		}
		return node(all...)
	}
	one := ips(1, 0)
	half := func(b Block) func(*State) {
		return func(s *State) { s.Blocked = map[BlockKey]Block{{CreateENI, ""}: b} }
	}
	cases := []struct {
		name     string
		state    State
		targets  Targets
		capacity int
		hope     bool
		want     string
	}{
		{"full", full(3), one, 27, false,
			"node is full: 27 of 27 addresses of m5.large in use; use prefixes (ENABLE_PREFIX_DELEGATION), or a larger instance type"},
		{"full, of a type without prefixes", full(3).but(func(s *State) { s.Limits.Hypervisor = "xen" }), one, 27, false,
			"node is full: 27 of 27 addresses of m5.large in use; use a larger instance type"},
		{"full, some cooling", node(has{eni: eni(0, 9), held: 9}, has{eni: eni(1, 9), held: 9}, has{eni: eni(2, 9), held: 7, cooling: 2}), one, 27, true,
			"node is full: 25 of 27 addresses of m5.large in use, 2 cooling down (the next is free in 30s); use prefixes (ENABLE_PREFIX_DELEGATION), or a larger instance type"},
		{"the configured maximum", full(1), Targets{WarmIPs: 1, MaxENIs: 1}, 9, false,
			"node is full: 9 of 9 addresses of m5.large in use; the configured maximum of 1 ENI holds it below the 3 of the type: raise it, or use a larger instance type"},
		{"others take places", full(2).but(func(s *State) { s.Others = []vpc.ENI{eni(2, 0)}; s.Limits.Hypervisor = "xen" }), one, 18, false,
			"node is full: 18 of 18 addresses of m5.large in use; 1 ENI of the instance not managed here; use a larger instance type"},
		{"others that may be ours", full(2).but(func(s *State) { s.Others = []vpc.ENI{eni(2, 0)}; s.Unsorted = true }), one, 18, true,
			"no free address yet: EC2 has not said whose the further ENIs of the instance are"},
		{"kubelet's limit", full(1).maxPods(9), one, 27, false,
			"node is full: 9 of 9 addresses of m5.large in use, which is what the 9 pods of kubelet's --max-pods can use; raise it, or look for addresses that no pod has"},
		{"growing", node(has{eni: eni(0, 8), held: 8}).under(Change{Kind: AssignAddresses, ENI: "eni-0", Count: 1, Why: "want 1 address"}), one, 27, true,
			"no free address yet: 1 change under way, one to assign 1 address to eni-0: want 1 address"},
		{"an ENI without device yet", node(has{eni: eni(0, 9), held: 9}, has{eni: eni(1, 2), disputed: 2}), one, 27, true,
			"no free address yet: 2 addresses of ENIs that are just coming up, or of which EC2 and the node do not say the same"},
		{"about to grow", full(1), one, 27, true,
			"no free address yet: the node has 9 of the 27 it can have, and is about to ask EC2 for more"},
		{"refused for a while", full(1).but(half(Block{Until: t0.Add(30 * time.Second), Reason: "EC2 throttles"})), one, 27, true,
			"no free address, and the node cannot get more now: EC2 throttles; next try in 30s"},
		{"refused for good", full(1).but(half(Block{Until: t0.Add(time.Minute), Reason: "the role lacks ec2:CreateNetworkInterface", Fatal: true})), one, 27, false,
			"no free address, and the node cannot get more now: the role lacks ec2:CreateNetworkInterface; next try in 1m0s"},
		{"a block that is over is no reason", full(1).but(half(Block{Until: t0, Fatal: true})), one, 27, true,
			"no free address yet: the node has 9 of the 27 it can have, and is about to ask EC2 for more"},
		{"prefixes", node(has{eni: with(eni(0, 0), 1), held: 16}), prefixes(1), 27 * 16, true,
			"no free address yet: the node has 16 of the 432 it can have, and is about to ask EC2 for more"},
		{"no prefix left, but addresses", node(has{eni: with(eni(0, 0), 1), held: 16}).blocks(AssignPrefixes, "subnet-a"), prefixes(1), 27 * 16, true,
			"no free address yet: the node has 16 of the 432 it can have, and is about to ask EC2 for more"},
		{"no ENIConfig", node(has{eni: eni(0, 0)}).custom("").but(func(s *State) { s.Network.Problem = "the node selects no ENIConfig" }), one, 18, false,
			"no free address, and no ENI can be made for custom networking: the node selects no ENIConfig"},
		{"may not ask", full(1), Targets{NoProvisioning: true}, 27, false,
			"no free address: 9 of 9 addresses of m5.large in use, and the node is not to ask EC2 for more (DISABLE_NETWORK_RESOURCE_PROVISIONING or ENABLE_IMDS_ONLY_MODE)"},
		{"limits not known", full(1).but(func(s *State) { s.Limits = vpc.Limits{} }), one, 9, false,
			"node is full: 9 of 9 addresses of m5.large in use; the limits of the instance type m5.large are not known"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if got := Capacity(tc.state, tc.targets); got != tc.capacity {
				t.Errorf("capacity %d, want %d", got, tc.capacity)
			}
			got := Refusal(tc.state, tc.targets, t0)
			if got.Text != tc.want || got.Hope != tc.hope {
				t.Errorf("outlook, hope %v, want %v\n got %s\nwant %s", got.Hope, tc.hope, got.Text, tc.want)
			}
		})
	}
}

func TestNextPlan(t *testing.T) {
	minute := t0.Add(time.Minute)
	cases := []struct {
		name    string
		state   State
		targets Targets
		want    time.Time
	}{
		{"nothing to come", node(has{eni: eni(0, 9), held: 4}), ips(5, 0), time.Time{}},
		{"a block ends", node(has{eni: eni(0, 0)}).blocks(AssignAddresses, ""), ips(5, 0), t0.Add(30 * time.Second)},
		{"a block that matters to nothing", node(has{eni: eni(0, 5)}).blocks(AssignAddresses, ""), ips(5, 0), time.Time{}},
		{"something is young", node(has{eni: eni(0, 9), held: 2, young: 7}), ips(5, 0), minute},
		{"something is young, and wanted", node(has{eni: eni(0, 7), held: 2, young: 5}), ips(5, 0), time.Time{}},
		{"something cools", node(has{eni: eni(0, 9), held: 3, cooling: 1}), ips(5, 0), afterCool},
		{"a dispute lasts too long", node(has{eni: eni(0, 9), held: 4, disputed: 5}), ips(5, 0), minute.Add(-time.Second)},
		{"an ENI is left over", node(has{eni: eni(0, 9), held: 4}).but(left(eni(5, 1))).but(func(s *State) { s.Detached[0].CreatedAt = t0 }), ips(5, 0), minute},
		{"no provisioning", node(has{eni: eni(0, 0)}).blocks(AssignAddresses, ""), Targets{WarmIPs: 5, NoProvisioning: true}, time.Time{}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if got := NextPlan(tc.state, tc.targets, t0); !got.Equal(tc.want) {
				t.Errorf("next plan after %s, want %s (plan now %v)", got.Sub(t0), tc.want.Sub(t0), Plan(tc.state, tc.targets, t0))
			}
		})
	}
}

func TestMaxPodsOf(t *testing.T) {
	for _, tc := range []struct {
		instanceType string
		reserved     int
		prefixes     bool
		want         int
	}{
		{"m5.large", 0, false, 29},
		{"m5.large", 1, false, 20},  // one ENI is no_manage
		{"m5.large", 99, false, 2},  // all of them
		{"m5.large", -5, false, 29}, // no more than there are
		{"m4.4xlarge", 0, false, 234},
		{"t3.small", 0, false, 11},
		{"m5.large", 0, true, 110},
		{"t3.nano", 0, true, 34},
		{"m5.24xlarge", 0, true, 250},
		{"m5.4xlarge", 0, true, 110},
		{"m5.8xlarge", 0, true, 250}, // 32 vCPUs, 30 addresses per ENI
		{"c5.metal", 0, true, 250},
		{"c7i.metal-24xl", 0, true, 250},
		{"a1.metal", 0, true, 110},
		{"u-6tb1.metal", 0, true, 250},
		{"m4.4xlarge", 0, true, 234}, // has no prefixes
	} {
		l, ok := vpc.LimitsOf(tc.instanceType)
		if !ok {
			t.Fatalf("no %s", tc.instanceType)
		}
		if got := MaxPodsOf(tc.instanceType, l, l.ENIs-tc.reserved, tc.prefixes); got != tc.want {
			t.Errorf("%s, %d ENIs reserved, prefixes %v: %d, want %d", tc.instanceType, tc.reserved, tc.prefixes, got, tc.want)
		}
	}
}
