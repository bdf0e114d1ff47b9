package ipamd

import (
	"fmt"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
)

// TestPauses: each refusal of the same thing doubles the pause, up to a bound; a
// success forgets them.
func TestPauses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		err   error
		kind  ipam.Kind
		key   ipam.BlockKey
		first time.Duration
		most  time.Duration
		fatal bool
	}{
		{"rights", ec2.ErrUnauthorized, ipam.AssignAddresses, ipam.BlockKey{Kind: ipam.AssignAddresses}, time.Second, longestPause, true},
		{"no answer", ec2.ErrUnreachable, ipam.AssignAddresses, ipam.BlockKey{Kind: ipam.AssignAddresses}, time.Second, unreachablePause, false},
		{"a full subnet", ec2.ErrSubnetFull, ipam.AssignAddresses, ipam.BlockKey{Kind: ipam.AssignAddresses, Target: "subnet-1"}, time.Second, longestPause, true},
		{"no /28", ec2.ErrSubnetFull, ipam.AssignPrefixes, ipam.BlockKey{Kind: ipam.AssignPrefixes, Target: "subnet-1"}, time.Second, longestPause, true},
		{"a limit", ec2.ErrLimit, ipam.AssignAddresses, ipam.BlockKey{Kind: ipam.AssignAddresses, Target: "eni-a"}, time.Second, longestPause, true},
		{"not known yet", ec2.ErrNotFound, ipam.AttachENI, ipam.BlockKey{Kind: ipam.AttachENI, Target: "eni-a"}, 250 * time.Millisecond, longestPause, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			c := ipam.Change{Kind: tt.kind, ENI: "eni-a", SubnetID: "subnet-1", Count: 1}
			want := tt.first
			for range 10 {
				d.judge(c, fmt.Errorf("try: %w", tt.err), d.now)
				b := d.State().Blocked[tt.key]
				if got := b.Until.Sub(d.now); got != want || b.Fatal != tt.fatal || b.Reason == "" {
					t.Fatalf("blocked %+v for %s, want %s", b, got, want)
				}
				if d.now = b.Until; len(d.State().Blocked) > 0 {
					t.Fatalf("still blocked at the end: %v", d.State().Blocked)
				}
				want = min(2*want, tt.most)
			}
			d.judge(c, nil, d.now)
			d.judge(c, tt.err, d.now)
			if got := d.State().Blocked[tt.key].Until.Sub(d.now); got != tt.first {
				t.Errorf("after a success the pause is %s, want %s", got, tt.first)
			}
		})
	}
}

// TestBudget: throttling slows an action down and no other; calls that were sent
// together count once, and successes bring the speed back.
func TestBudget(t *testing.T) {
	d := newDesk(t)
	c := ipam.Change{Kind: ipam.AssignAddresses, ENI: "eni-a", Count: 1}
	want := firstGap
	for range 12 {
		for range 3 {
			d.judge(c, ec2.ErrThrottled, d.now)
		}
		blocked := d.State().Blocked
		b := blocked[ipam.BlockKey{Kind: ipam.AssignAddresses}]
		if got := b.Until.Sub(d.now); got != want || b.Fatal {
			t.Fatalf("a pause of %s, want %s", got, want)
		}
		// The same EC2 action serves prefixes.
		if _, ok := blocked[ipam.BlockKey{Kind: ipam.AssignPrefixes}]; !ok || len(blocked) != 2 {
			t.Fatalf("blocked: %v", blocked)
		}
		d.now, want = b.Until, min(2*want, longestGap)
	}
	last := longestGap
	for n := 0; last > 0; n++ {
		d.judge(c, nil, d.now)
		gap := d.State().Blocked[ipam.BlockKey{Kind: ipam.AssignAddresses}].Until.Sub(d.now)
		if gap = max(gap, 0); gap >= last || n > 40 {
			t.Fatalf("after %d successes the pause is %s, before it was %s", n, gap, last)
		}
		last, d.now = gap, d.now.Add(gap)
	}
}
