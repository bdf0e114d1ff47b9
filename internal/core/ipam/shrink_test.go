package ipam

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// TestEmptyENIIsWaitedFor: the primary ENI's addresses have been free for long and
// the other's not yet. Were the primary's given back now, the other would hold the
// warm ones from then on.
func TestEmptyENIIsWaitedFor(t *testing.T) {
	for _, tc := range []struct {
		name  string
		other has
		block *Block
		want  string
	}{
		{"it is ripe", has{}, nil, "detach eni-1: no pod has been on it for 1m0s; want 5 addresses (0 used, at least 5), have 8"},
		{"it ripens", has{young: 1}, nil, ""},
		{"its addresses cool", has{cooling: 3}, nil, ""},
		{"EC2 is to be left alone for a while", has{}, &Block{}, ""},
		{"the right is missing", has{}, &Block{Fatal: true}, "unassign 10.0.1.12, 10.0.1.11, 10.0.1.10 from eni-1: not wanted any more"},
		{"a pod is on it", has{held: 1, young: 1}, nil,
			"unassign 10.0.1.11 from eni-1: not wanted any more; unassign 10.0.0.14 from eni-0: not wanted any more"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.other.eni = made(eni(1, 3))
			s := node(has{eni: made(eni(0, 5))}, tc.other)
			if tc.block != nil {
				tc.block.Until = t0.Add(time.Second)
				s.Blocked = map[BlockKey]Block{{DetachENI, "eni-1"}: *tc.block}
			}
			var got []string
			for _, c := range Plan(s, ips(2, 5), t0) {
				got = append(got, c.String())
			}
			if text := strings.Join(got, "; "); text != tc.want {
				t.Errorf("plan %q, want %q", text, tc.want)
			}
		})
	}
}

// TestPrimaryGivesBackLast: however pods leave, the primary ENI, which cannot go,
// gives nothing back for which another could have gone.
func TestPrimaryGivesBackLast(t *testing.T) {
	detached := 0
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 7))
		targets := Targets{WarmIPs: 1 + r.IntN(9), MarkAndTag: true, ReturnAfter: time.Duration(1+r.IntN(90)) * time.Second}
		if r.IntN(3) == 0 {
			targets.WarmIPs, targets.Prefixes, targets.WarmPrefixes = 0, true, 1+r.IntN(3)
		}
		s := State{InstanceType: "any", InstanceID: "i-1", Limits: vpc.Limits{ENIs: 2 + r.IntN(4), IPv4PerENI: 2 + r.IntN(10), Hypervisor: "nitro"}}
		c := newCloud(t, r, s, targets)
		c.pods(r.IntN(60))
		c.rest()
		before := c.find("eni-0").Slots()
		for len(c.running) > 0 {
			c.pods(-1 - r.IntN(4))
			for range r.IntN(4) {
				c.now = c.now.Add(time.Duration(r.IntN(40)) * time.Second)
				c.look()
				c.begin()
				for range r.IntN(len(c.inFlight) + 1) {
					c.finish(false)
				}
			}
		}
		c.rest()
		detached += c.done[DetachENI]
		if after := c.find("eni-0").Slots(); after < before && len(c.attached) > 1 {
			t.Fatalf("seed %d: the primary ENI went from %d to %d slots, and %d ENIs are left; %+v\n%s", seed, before, after, len(c.attached), targets,
				strings.Join(c.log[max(0, len(c.log)-30):], "\n"))
		}
	}
	if detached < 500 {
		t.Errorf("%d ENIs were detached only", detached)
	}
}
