package ipam

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// TestCancelNeedsNoCoolDown: an ADD that fails over and over must not use up the
// pool, while a release still rests.
func TestCancelNeedsNoCoolDown(t *testing.T) {
	now := time.Unix(1000, 0)
	p := NewPool(Config{})
	p.SetENIs([]vpc.ENI{{ID: "eni-1", Secondary: []netip.Addr{netip.MustParseAddr("10.0.1.5")}}}, nil, now)
	one, two := Owner{"one", "eth0"}, Owner{"two", "eth0"}
	for range 3 {
		if _, err := p.Assign(one, now); err != nil {
			t.Fatal(err)
		}
		p.Cancel(one)
		p.Cancel(one) // it holds nothing any more
	}
	if _, err := p.Assign(two, now); err != nil {
		t.Fatalf("after a cancelled assignment: %v", err)
	}
	p.Cancel(one) // nor may it take what is another's
	if _, ok := p.Lookup(two); !ok {
		t.Error("cancelling one owner took the address of another")
	}
	p.Release(two, now)
	if a, err := p.Assign(one, now); err == nil {
		t.Errorf("a released address was given at once: %v", a)
	}
}
