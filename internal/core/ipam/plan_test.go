package ipam

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/google/go-cmp/cmp"
)

// m5large has 3 ENIs of 10 addresses: 27 for pods.
var m5large = vpc.Limits{ENIs: 3, IPv4PerENI: 10, Cards: []int{3}, Hypervisor: "nitro"}

var planCases = []struct {
	name    string
	state   State // type and limits are filled in where empty
	targets Targets
	want    []string
}{
	{
		name: "a new node", targets: Targets{WarmAddresses: 5},
		state: State{ENIs: []vpc.ENI{eni(0, 0)}},
		want:  []string{"assign 5 addresses to eni-0: 0 free, want 5; eni-0 (device 0) has room for 9"},
	},
	{
		name: "enough", targets: Targets{WarmAddresses: 5},
		state: State{ENIs: []vpc.ENI{eni(0, 9)}, Pool: Stats{Total: 9, Free: 5, Assigned: 4}},
	},
	{
		name: "cooling is not free", targets: Targets{WarmAddresses: 5},
		state: State{ENIs: []vpc.ENI{eni(0, 8)}, Pool: Stats{Total: 8, Free: 4, Assigned: 3, Cooling: 1}},
		want:  []string{"assign 1 address to eni-0: 4 free, want 5; eni-0 (device 0) has room for 1"},
	},
	{
		name: "on the way counts", targets: Targets{WarmAddresses: 5},
		state: State{ENIs: []vpc.ENI{eni(0, 4)}, Pool: Stats{Total: 4, Assigned: 4},
			InFlight: []Change{{Kind: AssignAddresses, ENI: "eni-0", Count: 3}}},
		want: []string{"assign 2 addresses to eni-0: 0 free, want 5, 3 on the way; eni-0 (device 0) has room for 2"},
	},
	{
		name: "those who wait get theirs beside the warm ones", targets: Targets{WarmAddresses: 2},
		state: State{ENIs: []vpc.ENI{eni(0, 4)}, Pool: Stats{Total: 4, Assigned: 4}, Waiting: 2},
		want:  []string{"assign 4 addresses to eni-0: 0 free, want 4 of which 2 for pods that wait; eni-0 (device 0) has room for 5"},
	},
	{
		name: "fill in device order, then one more", targets: Targets{WarmAddresses: 5},
		state: State{ENIs: []vpc.ENI{eni(1, 9), eni(0, 7)}, Pool: Stats{Total: 16, Assigned: 16}},
		want: []string{
			"assign 2 addresses to eni-0: 0 free, want 5; eni-0 (device 0) has room for 2",
			"create an ENI as device 2 in subnet-a with 3 addresses: 0 free, want 5; no more fit on the ENIs there are (2 of 3 for m5.large)",
		},
	},
	{
		name: "the lowest device that is free", targets: Targets{WarmAddresses: 1},
		state: State{ENIs: []vpc.ENI{eni(0, 9), eni(2, 9)}, Pool: Stats{Total: 18, Assigned: 18}},
		want:  []string{"create an ENI as device 1 in subnet-a with 1 address: 0 free, want 1; no more fit on the ENIs there are (2 of 3 for m5.large)"},
	},
	{
		name: "an ENI on the way takes its place and its device", targets: Targets{WarmAddresses: 12},
		state: State{ENIs: []vpc.ENI{eni(0, 9)}, Pool: Stats{Total: 9, Assigned: 9},
			InFlight: []Change{{Kind: CreateENI, DeviceIndex: 1, Count: 9}}},
		want: []string{"create an ENI as device 2 in subnet-a with 3 addresses: 0 free, want 12, 9 on the way; no more fit on the ENIs there are (2 of 3 for m5.large)"},
	},
	{
		name: "an ENI of others takes its place and its device", targets: Targets{WarmAddresses: 1},
		state: State{ENIs: []vpc.ENI{eni(0, 9)}, Others: []vpc.ENI{eni(1, 0)}, Pool: Stats{Total: 9, Assigned: 9}},
		want:  []string{"create an ENI as device 2 in subnet-a with 1 address: 0 free, want 1; no more fit on the ENIs there are (2 of 3 for m5.large)"},
	},
	{
		name: "no more than an ENI holds", targets: Targets{WarmAddresses: 20},
		state: State{ENIs: []vpc.ENI{eni(0, 9)}, Pool: Stats{Total: 9, Assigned: 9}},
		want:  []string{"create an ENI as device 1 in subnet-a with 9 addresses: 0 free, want 20; no more fit on the ENIs there are (1 of 3 for m5.large)"},
	},
	{
		name: "the configured maximum", targets: Targets{WarmAddresses: 5, MaxENIs: 1},
		state: State{ENIs: []vpc.ENI{eni(0, 9)}, Pool: Stats{Total: 9, Assigned: 9}},
	},
	{
		name: "the maximum of the type", targets: Targets{WarmAddresses: 5, MaxENIs: 15},
		state: State{ENIs: []vpc.ENI{eni(0, 9), eni(1, 9), eni(2, 9)}, Pool: Stats{Total: 27, Assigned: 27}},
	},
	{
		name: "a refused assign is left alone, and is no reason for an ENI", targets: Targets{WarmAddresses: 5},
		state: State{ENIs: []vpc.ENI{eni(0, 0)}, Blocked: map[Kind]Block{AssignAddresses: {Until: t0.Add(time.Minute)}}},
	},
	{
		name: "a refusal that is over", targets: Targets{WarmAddresses: 1},
		state: State{ENIs: []vpc.ENI{eni(0, 0)}, Blocked: map[Kind]Block{AssignAddresses: {Until: t0}}},
		want:  []string{"assign 1 address to eni-0: 0 free, want 1; eni-0 (device 0) has room for 9"},
	},
	{
		name: "a refused create", targets: Targets{WarmAddresses: 5},
		state: State{ENIs: []vpc.ENI{eni(0, 8)}, Pool: Stats{Total: 8, Assigned: 8}, Blocked: map[Kind]Block{CreateENI: {Until: t0.Add(1)}}},
		want:  []string{"assign 1 address to eni-0: 0 free, want 5; eni-0 (device 0) has room for 1"},
	},
	{
		name: "an ENI of another card is filled and takes no place on ours", targets: Targets{WarmAddresses: 5},
		state: State{
			InstanceType: "two-cards", Limits: vpc.Limits{ENIs: 2, IPv4PerENI: 3, Cards: []int{2, 2}},
			ENIs: []vpc.ENI{eni(0, 2), {ID: "eni-x", CardIndex: 1, DeviceIndex: 1}}, Pool: Stats{Total: 2, Assigned: 2},
		},
		want: []string{
			"assign 2 addresses to eni-x: 0 free, want 5; eni-x (device 1) has room for 2",
			"create an ENI as device 1 in subnet-a with 2 addresses: 0 free, want 5; no more fit on the ENIs there are (1 of 2 for two-cards)",
		},
	},
	{name: "no ENI known yet", targets: Targets{WarmAddresses: 5}},
	{
		name: "a prefix takes one place", targets: Targets{WarmAddresses: 20},
		state: State{
			ENIs: []vpc.ENI{{ID: "eni-0", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.9.0/28")}}},
			Pool: Stats{Total: 16, Free: 16},
		},
		want: []string{"assign 4 addresses to eni-0: 16 free, want 20; eni-0 (device 0) has room for 8"},
	},
}

func TestPlan(t *testing.T) {
	for _, tc := range planCases {
		t.Run(tc.name, func(t *testing.T) {
			s := tc.state
			if s.InstanceType == "" {
				s.InstanceType, s.Limits = "m5.large", m5large
			}
			var got []string
			for _, c := range Plan(s, tc.targets, t0) {
				got = append(got, c.String())
				if c.Kind == CreateENI && !slices.Equal(c.Groups, []string{"sg-a"}) {
					t.Errorf("groups %v, want those of the primary ENI", c.Groups)
				}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
		})
	}
}

func TestRefusal(t *testing.T) {
	full := []vpc.ENI{eni(0, 9), eni(1, 9), eni(2, 9)}
	cases := []struct {
		name     string
		state    State
		targets  Targets
		capacity int
		want     string
	}{
		{"full", State{ENIs: full, Pool: Stats{Total: 27, Assigned: 27}}, Targets{}, 27,
			"node is full: 27 of 27 addresses of m5.large in use; use a larger instance type"},
		{"full, some cooling", State{ENIs: full, Pool: Stats{Total: 27, Assigned: 25, Cooling: 2, NextFree: t0.Add(11500 * time.Millisecond)}}, Targets{}, 27,
			"node is full: 25 of 27 addresses of m5.large in use, 2 cooling down (the next is free in 12s); use a larger instance type"},
		{"the configured maximum", State{ENIs: full[:1], Pool: Stats{Total: 9, Assigned: 9}}, Targets{MaxENIs: 1}, 9,
			"node is full: 9 of 9 addresses of m5.large in use; the configured maximum of 1 ENI holds it below the 3 of the type: raise it, or use a larger instance type"},
		{"others take places", State{ENIs: full[:2], Others: full[2:], Pool: Stats{Total: 18, Assigned: 18}}, Targets{}, 18,
			"node is full: 18 of 18 addresses of m5.large in use; 1 ENI of the instance not managed here; use a larger instance type"},
		{"growing", State{ENIs: full[:1], Pool: Stats{Total: 9, Assigned: 9}, InFlight: []Change{{Kind: AssignAddresses, ENI: "eni-0", Count: 1, Why: "0 free, want 1"}}}, Targets{}, 27,
			"no free address yet: 1 change under way, the first to assign 1 address to eni-0: 0 free, want 1"},
		{"refused", State{ENIs: full[:1], Pool: Stats{Total: 9, Assigned: 9}, Blocked: map[Kind]Block{CreateENI: {Until: t0.Add(30 * time.Second), Reason: "subnet-a has no free address"}}}, Targets{}, 27,
			"no free address, and the node cannot get more now: subnet-a has no free address; next try in 30s"},
		{"about to grow", State{ENIs: full[:1], Pool: Stats{Total: 9, Assigned: 9}}, Targets{}, 27,
			"no free address yet: the node has 9 of the 27 it can have, and is about to ask EC2 for more"},
		{"prefixes", State{ENIs: []vpc.ENI{{ID: "eni-0", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.9.0/28")}}}, Pool: Stats{Total: 16, Assigned: 16}}, Targets{}, 16 + 8 + 18,
			"no free address yet: the node has 16 of the 42 it can have, and is about to ask EC2 for more"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			tc.state.InstanceType, tc.state.Limits = "m5.large", m5large
			if got := Capacity(tc.state, tc.targets); got != tc.capacity {
				t.Errorf("capacity %d, want %d", got, tc.capacity)
			}
			if got := Refusal(tc.state, tc.targets, t0); got != tc.want {
				t.Errorf("refusal\n got %s\nwant %s", got, tc.want)
			}
		})
	}
	t.Run("unknown limits", func(t *testing.T) {
		s := State{InstanceType: "z9.huge", ENIs: full[:1], Pool: Stats{Total: 9, Assigned: 9}}
		if got := Refusal(s, Targets{}, t0); !strings.Contains(got, "limits of this instance type are not known") {
			t.Errorf("refusal %q", got)
		}
	})
}

// cloud is EC2 as far as the planner can tell: changes end late, in any order,
// and fail at times. It refuses, and fails the test, where a limit is broken.
type cloud struct {
	t        *testing.T
	r        *rand.Rand
	limits   vpc.Limits
	targets  Targets
	others   []vpc.ENI
	enis     []vpc.ENI
	inFlight []Change
	next     int
	pods     int
}

func (c *cloud) state() State {
	total := 0
	for _, e := range c.enis {
		total += len(e.PodAddresses())
	}
	used := min(c.pods, total)
	return State{
		InstanceType: "any", Limits: c.limits, ENIs: slices.Clone(c.enis), Others: c.others,
		Pool:     Stats{Total: total, Assigned: used, Free: total - used},
		Waiting:  c.pods - used,
		InFlight: slices.Clone(c.inFlight),
	}
}

func (c *cloud) start(now time.Time) int {
	changes := Plan(c.state(), c.targets, now)
	for _, ch := range changes {
		if ch.Count < 1 || ch.Why == "" {
			c.t.Errorf("bad change %+v", ch)
		}
	}
	c.inFlight = append(c.inFlight, changes...)
	return len(changes)
}

// finish ends one change under way.
func (c *cloud) finish(fails bool) {
	i := c.r.IntN(len(c.inFlight))
	ch := c.inFlight[i]
	c.inFlight = slices.Delete(c.inFlight, i, i+1)
	if fails {
		return
	}
	fresh := func() netip.Addr {
		c.next++
		return netip.AddrFrom4([4]byte{10, 1, byte(c.next >> 8), byte(c.next)})
	}
	var e *vpc.ENI
	switch ch.Kind {
	case CreateENI:
		for _, have := range append(slices.Clone(c.enis), c.others...) {
			if have.DeviceIndex == ch.DeviceIndex && have.CardIndex == ch.CardIndex {
				c.t.Errorf("device %d is taken: %s", ch.DeviceIndex, ch)
			}
		}
		c.enis = append(c.enis, vpc.ENI{ID: fmt.Sprintf("eni-%d", ch.DeviceIndex), DeviceIndex: ch.DeviceIndex, SubnetID: ch.SubnetID})
		e = &c.enis[len(c.enis)-1]
	case AssignAddresses:
		e = &c.enis[slices.IndexFunc(c.enis, func(e vpc.ENI) bool { return e.ID == ch.ENI })]
	}
	for range ch.Count {
		e.Secondary = append(e.Secondary, fresh())
	}
	most := c.limits.ENIs
	if c.targets.MaxENIs > 0 {
		most = min(most, max(c.targets.MaxENIs, 1+len(c.others)))
	}
	if e.Slots() > c.limits.IPv4PerENI || len(c.enis)+len(c.others) > most {
		c.t.Errorf("over the limits %+v %+v by %s: %d ENIs, %d others", c.limits, c.targets, ch, len(c.enis), len(c.others))
	}
}

// TestPlanConverges: whatever happens, the limits hold; and once pods and
// failures end, few steps lead to a node that wants no more.
func TestPlanConverges(t *testing.T) {
	full, warm := 0, 0
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 3))
		c := &cloud{t: t, r: r,
			limits:  vpc.Limits{ENIs: 1 + r.IntN(5), IPv4PerENI: 1 + r.IntN(12)},
			targets: Targets{WarmAddresses: r.IntN(15), MaxENIs: r.IntN(6)},
			enis:    []vpc.ENI{eni(0, 0)},
		}
		if c.limits.ENIs > 1 && r.IntN(3) == 0 {
			c.others = []vpc.ENI{{ID: "eni-other", DeviceIndex: 1 + r.IntN(3)}}
		}
		for range 40 {
			switch r.IntN(4) {
			case 0:
				c.pods = max(0, c.pods+r.IntN(9)-3)
			case 1, 2:
				c.start(t0)
			default:
				if len(c.inFlight) > 0 {
					c.finish(r.IntN(3) == 0)
				}
			}
		}
		// Each round ends all that is under way, and then needs at most one
		// more ENI than before.
		rounds := 0
		for c.start(t0) > 0 || len(c.inFlight) > 0 {
			for len(c.inFlight) > 0 {
				c.finish(false)
			}
			if rounds++; rounds > c.limits.ENIs+1 {
				t.Fatalf("seed %d: no end after %d rounds: %+v", seed, rounds, c.state())
			}
		}
		s := c.state()
		switch {
		case s.Pool.Free >= c.targets.WarmAddresses && s.Waiting == 0:
			warm++
		case s.Pool.Total == Capacity(s, c.targets):
			full++
			if got := Refusal(s, c.targets, t0); !strings.HasPrefix(got, "node is full") {
				t.Errorf("seed %d: full, but the refusal says %q", seed, got)
			}
		default:
			t.Errorf("seed %d: stopped at %d of %d addresses, %d free, %d wait, want %+v",
				seed, s.Pool.Total, Capacity(s, c.targets), s.Pool.Free, s.Waiting, c.targets)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if full < 100 || warm < 100 {
		t.Errorf("one-sided: %d ended full, %d warm", full, warm)
	}
}
