package ipam

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// What the documents of the AWS VPC CNI promise: so many pods come to a new node,
// and this is what the node then has.
var promises = []struct {
	name         string
	instanceType string
	targets      Targets
	maxPods      int
	pods         int
	enis         int
	addresses    int
	prefixes     int
}{
	{"WARM_ENI_TARGET 1: no pod, one more ENI", "m4.4xlarge", warmENIs(1), 0, 0, 2, 58, 0},
	{"5 pods, one more ENI", "m4.4xlarge", warmENIs(1), 0, 5, 2, 58, 0},
	{"0 to 29 pods, two ENIs", "m4.4xlarge", warmENIs(1), 0, 29, 2, 58, 0},
	{"30 to 58 pods, three ENIs", "m4.4xlarge", warmENIs(1), 0, 30, 3, 87, 0},
	{"30 to 58 pods, three ENIs", "m4.4xlarge", warmENIs(1), 0, 58, 3, 87, 0},
	{"59 pods, four", "m4.4xlarge", warmENIs(1), 0, 59, 4, 116, 0},
	{"the limit of the type", "m4.4xlarge", warmENIs(1), 0, 8 * 29, 8, 232, 0},
	{"no warm ENI: what the pods need", "m4.4xlarge", warmENIs(0), 0, 30, 2, 58, 0},
	{"WARM_IP_TARGET 30 for 30 pods: 60", "m4.4xlarge", ips(30, 0), 0, 30, 3, 60, 0},
	{"MINIMUM_IP_TARGET 30, WARM_IP_TARGET 2, no pod: 30", "m4.4xlarge", ips(2, 30), 0, 0, 2, 30, 0},
	{"MINIMUM_IP_TARGET 30, WARM_IP_TARGET 2, 30 pods: 32", "m4.4xlarge", ips(2, 30), 0, 30, 2, 32, 0},
	{"WARM_IP_TARGET 5: 5 free at all times", "m4.4xlarge", ips(5, 0), 0, 0, 1, 5, 0},
	{"WARM_IP_TARGET 5: more ENIs until 5 are free", "m4.4xlarge", ips(5, 0), 0, 27, 2, 32, 0},
	{"WARM_IP_TARGET beats WARM_ENI_TARGET", "m4.4xlarge", Targets{WarmENIs: 3, WarmIPs: 2, ReturnAfter: time.Minute}, 0, 1, 1, 3, 0},
	{"MINIMUM_IP_TARGET alone does not wedge", "m4.4xlarge", ips(0, 10), 0, 14, 1, 14, 0},
	{"prefixes, WARM_IP_TARGET 16, no pod: one", "m5.large", Targets{Prefixes: true, WarmIPs: 16}, 0, 0, 1, 16, 1},
	{"prefixes, WARM_IP_TARGET 16, one pod: two", "m5.large", Targets{Prefixes: true, WarmIPs: 16}, 0, 1, 1, 32, 2},
	{"prefixes, WARM_PREFIX_TARGET 1", "m5.large", prefixes(1), 0, 0, 1, 16, 1},
	{"prefixes, WARM_PREFIX_TARGET 1, 17 pods", "m5.large", prefixes(1), 0, 17, 1, 48, 3},
	{"prefixes, nothing set: one warm", "m5.large", prefixes(0), 0, 16, 1, 32, 2},
	{"prefixes, WARM_PREFIX_TARGET 3, 100 pods", "m5.large", prefixes(3), 0, 100, 2, 160, 10},
	{"prefixes, WARM_IP_TARGET beats WARM_PREFIX_TARGET", "m5.large", Targets{Prefixes: true, WarmIPs: 1, WarmPrefixes: 5}, 0, 0, 1, 16, 1},
	{"prefixes, MINIMUM_IP_TARGET 33", "m5.large", Targets{Prefixes: true, MinimumIPs: 33}, 0, 0, 1, 48, 3},
	{"prefixes on a type that has none: ENIs", "m4.4xlarge", prefixes(1), 0, 0, 2, 58, 0},
	{"MAX_ENI", "m4.4xlarge", Targets{WarmENIs: 1, MaxENIs: 2}, 0, 50, 2, 58, 0},
	{"MAX_ENI below 1 is not used", "m4.4xlarge", Targets{WarmENIs: 1, MaxENIs: -1}, 0, 5, 2, 58, 0},
	{"MAX_ENI above the type's is not used", "m5.large", Targets{WarmENIs: 3, MaxENIs: 20}, 0, 0, 3, 27, 0},
	{"kubelet runs 10 pods at most", "m5.large", warmENIs(1), 10, 0, 2, 10, 0},
	{"kubelet runs 20 pods at most, by prefixes: two", "m5.large", prefixes(5), 20, 0, 1, 32, 2},
}

func TestPromises(t *testing.T) {
	for _, tc := range promises {
		t.Run(tc.name, func(t *testing.T) {
			s := State{InstanceID: "i-1", MaxPods: tc.maxPods}.of(t, tc.instanceType)
			if tc.targets.ReturnAfter == 0 {
				tc.targets.ReturnAfter = DefaultReturnAfter
			}
			c := newCloud(t, rand.New(rand.NewPCG(1, 1)), s, tc.targets)
			c.pods(tc.pods)
			c.rest()
			var addresses, prefixes int
			for _, e := range c.attached {
				addresses += len(e.PodAddresses())
				prefixes += len(e.Prefixes)
			}
			if len(c.attached) != tc.enis || addresses != tc.addresses || prefixes != tc.prefixes || len(c.waiting) > 0 {
				t.Errorf("%d ENIs, %d addresses, %d prefixes, %d pods wait; want %d, %d, %d, none\n%s", len(c.attached), addresses, prefixes,
					len(c.waiting), tc.enis, tc.addresses, tc.prefixes, strings.Join(c.log, "\n"))
			}
			if w := Wanted(c.State(), tc.targets); w.Prefixes != tc.prefixes || w.Why == "" {
				t.Errorf("wanted %+v", w)
			}
		})
	}
}

// TestComesToRest: whatever happened, the limits hold, nobody loses anything, and
// once pods and failures end, few rounds lead to a node of which nothing more is
// wanted, where everybody has an address whom the limits allow one. What the
// cloud checks is in sim_test.go.
func TestComesToRest(t *testing.T) {
	ended := map[string]int{}
	kinds := map[Kind]int{}
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 3))
		c := randomCloud(t, r)
		for range 60 {
			c.step()
		}
		c.rest()
		c.pods(-c.r.IntN(len(c.running) + 1))
		c.rest()
		s := c.State()
		w := Wanted(s, c.targets)
		l := newLedger(s, c.targets, c.now)
		p := &planner{s: s, t: c.targets, l: l, wish: w}
		switch {
		case len(c.waiting) == 0 && l.own >= p.wanted():
			ended["warm"]++
		case Capacity(s, c.targets) <= l.own*unitSize(l)+l.usedOther || len(c.attached)+len(c.others) >= c.most:
			ended["full"]++
			if o := Refusal(s, c.targets, c.now); len(c.waiting) > 0 && (o.Hope || o.Text == "") {
				t.Errorf("seed %d: full, but the outlook is %+v", seed, o)
			}
		case s.MaxPods > 0 && len(c.running) >= s.MaxPods:
			ended["max pods"]++
		default:
			t.Errorf("seed %d: stopped at %d of %+v, %d wait, capacity %d, %+v", seed, l.own, w, len(c.waiting), Capacity(s, c.targets), c.targets)
		}
		for k, n := range c.done {
			kinds[k] += n
		}
		if t.Failed() {
			t.Fatalf("seed %d: %+v %+v\n%s", seed, c.targets, c.state, strings.Join(c.log[max(0, len(c.log)-40):], "\n"))
		}
	}
	for _, k := range []string{"warm", "full"} {
		if ended[k] < 50 {
			t.Errorf("one-sided: %v", ended)
		}
	}
	for _, k := range []Kind{CreateENI, AttachENI, AssignAddresses, AssignPrefixes, UnassignAddresses, UnassignPrefixes, DetachENI, DeleteENI, MarkENI} {
		if kinds[k] < 50 {
			t.Errorf("%q happened %d times only", k, kinds[k])
		}
	}
}

func unitSize(l *ledger) int {
	if l.prefixes {
		return PrefixSize
	}
	return 1
}

// randomCloud is a node of any type with any targets.
func randomCloud(t *testing.T, r *rand.Rand) *cloud {
	s := State{InstanceType: "any", InstanceID: "i-1", Limits: vpc.Limits{ENIs: 1 + r.IntN(5), IPv4PerENI: 2 + r.IntN(10), Hypervisor: "nitro"}}
	if r.IntN(3) == 0 {
		s.MaxPods = 1 + r.IntN(60)
	}
	if r.IntN(2) == 0 {
		s.Subnets = []Subnet{{ID: "subnet-a", Free: -1}, {ID: "subnet-b", Free: -1}}
	}
	if r.IntN(4) == 0 {
		s = s.custom("subnet-pods")
	}
	c := newCloud(t, r, s, randomTargets(r))
	c.room["subnet-pods"] = 1000
	if s.Limits.ENIs > 1 && r.IntN(4) == 0 {
		c.others = []vpc.ENI{{ID: "eni-other", DeviceIndex: 1 + r.IntN(3)}}
		c.setTargets(c.targets)
	}
	return c
}

func randomTargets(r *rand.Rand) Targets {
	t := Targets{WarmENIs: r.IntN(3), MaxENIs: r.IntN(6), Prefixes: r.IntN(2) == 0, MarkAndTag: true, ReturnAfter: time.Duration(r.IntN(90)) * time.Second}
	switch r.IntN(4) {
	case 0:
		t.WarmIPs = r.IntN(20)
	case 1:
		t.WarmIPs, t.MinimumIPs = r.IntN(5), r.IntN(40)
	case 2:
		t.WarmPrefixes = r.IntN(4)
	}
	return t
}

// step is one thing that happens.
func (c *cloud) step() {
	switch c.r.IntN(12) {
	case 0, 1, 2:
		c.pods(c.r.IntN(12) - 5)
	case 3, 4, 5:
		c.begin()
	case 6, 7, 8:
		if len(c.inFlight) > 0 {
			c.finish(c.r.IntN(4) == 0)
		}
	case 9, 10:
		c.now = c.now.Add(time.Duration(c.r.IntN(60)) * time.Second)
		c.look()
	case 11:
		switch c.r.IntN(4) {
		case 0:
			c.noPrefix[[]string{"subnet-a", "subnet-b", "subnet-pods"}[c.r.IntN(3)]] = true
		case 1:
			c.setTargets(randomTargets(c.r))
			c.done["switch"]++
		}
	}
}

// TestFullSubnet: where one subnet is full, ENIs come from another, and a node
// that gets nothing at all says why.
func TestFullSubnet(t *testing.T) {
	s := node()
	s.Subnets = []Subnet{{ID: "subnet-a", Free: 3}, {ID: "subnet-b", Free: 40}}
	c := newCloud(t, rand.New(rand.NewPCG(1, 1)), s, ips(1, 0))
	c.room["subnet-a"], c.room["subnet-b"] = 0, 40
	c.pods(12)
	for range 10 {
		c.begin()
		for len(c.inFlight) > 0 {
			c.finish(false)
		}
	}
	if len(c.waiting) > 0 || !slices.ContainsFunc(c.attached, func(e vpc.ENI) bool { return e.SubnetID == "subnet-b" }) {
		t.Errorf("%d pods wait; ENIs %+v\n%s", len(c.waiting), c.attached, strings.Join(c.log, "\n"))
	}
}
