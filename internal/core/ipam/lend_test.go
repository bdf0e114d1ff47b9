package ipam

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/google/go-cmp/cmp"
)

// What the pool does with prefixes, with addresses that leave and with those that
// are disputed.

func TestAssignPacksPrefixes(t *testing.T) {
	cases := []struct {
		name    string
		enis    []vpc.ENI
		prefer  bool
		exclude string
		held    []netip.Addr
		want    []netip.Addr
	}{
		{"the prefix with the most pods first", []vpc.ENI{with(eni(0, 0), 3)}, true, "",
			[]netip.Addr{at(0, 0, 0), at(0, 1, 0), at(0, 1, 1)}, []netip.Addr{at(0, 1, 2), at(0, 1, 3)}},
		{"prefixes before single addresses", []vpc.ENI{eni(0, 2), with(eni(1, 0), 1)}, true, "", nil, []netip.Addr{at(1, 0, 0)}},
		{"single addresses before prefixes", []vpc.ENI{with(eni(0, 0), 1), eni(1, 2)}, false, "", nil, []netip.Addr{addr(1, 10), addr(1, 11), at(0, 0, 0)}},
		{"of prefixes one that pods are on already", []vpc.ENI{with(eni(0, 0), 1), with(eni(1, 0), 1)}, false, "",
			[]netip.Addr{at(1, 0, 5)}, []netip.Addr{at(1, 0, 0)}},
		{"single addresses where no prefix is left", []vpc.ENI{eni(0, 1)}, true, "", nil, []netip.Addr{addr(0, 10)}},
		{"the primary ENI first, with prefixes too", []vpc.ENI{with(eni(0, 0), 1), with(eni(1, 0), 1)}, true, "",
			[]netip.Addr{at(1, 0, 5)}, []netip.Addr{at(0, 0, 0)}},
		{"not from an excluded ENI", []vpc.ENI{eni(0, 2), eni(1, 1)}, false, "eni-0", nil, []netip.Addr{addr(1, 10)}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			p := newPool(tc.enis...)
			p.Prefer(tc.prefer)
			p.Exclude(tc.exclude)
			var r Restored
			for i, a := range tc.held {
				r.Held = append(r.Held, Assignment{Owner: pod(900 + i), Addr: a})
			}
			if err := p.Restore(r, t0); err != nil {
				t.Fatal(err)
			}
			var got []netip.Addr
			for i := range tc.want {
				got = append(got, mustAssign(t, p, pod(i), t0))
			}
			if d := cmp.Diff(tc.want, got, cmpAddr); d != "" {
				t.Errorf("order (-want +got):\n%s", d)
			}
		})
	}
}

// at is address n of a device's i-th prefix.
func at(device, i, n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 1, byte(device), byte(16*i + n)})
}

func TestWithdraw(t *testing.T) {
	p := newPool(eni(0, 3))
	mustAssign(t, p, pod(1), t0) // .10
	if err := p.Withdraw([]netip.Addr{addr(0, 11), addr(0, 10)}); err == nil || err.Error() != "withdraw 10.0.0.10: it is assigned, not free" {
		t.Errorf("withdraw of an assigned one: %v", err)
	}
	if err := p.Withdraw([]netip.Addr{addr(0, 11), addr(7, 7)}); err == nil {
		t.Error("withdraw of an unknown one: no error")
	}
	if st := p.Stats(t0); st.Leaving != 0 || st.Free != 2 {
		t.Errorf("a refused withdraw took some: %+v", st)
	}
	if err := p.Withdraw([]netip.Addr{addr(0, 11)}); err != nil {
		t.Fatal(err)
	}
	if got := mustAssign(t, p, pod(2), t0); got != addr(0, 12) {
		t.Errorf("got %s, which leaves", got)
	}
	if _, err := p.Assign(pod(3), t0); err == nil || err.Error() != "no free address: 3 in all, 2 assigned, 0 cooling down, 1 being given back" {
		t.Errorf("assign: %v", err)
	}
	// EC2 refuses: it is free again, from now on.
	later := t0.Add(time.Hour)
	p.Readmit([]netip.Addr{addr(0, 11), addr(0, 10), addr(9, 9)}, later)
	for _, e := range p.Entries(later) {
		if e.Addr == addr(0, 11) && (e.State != Free || !e.Since.Equal(later)) {
			t.Errorf("readmitted: %+v", e)
		}
	}
	if got := mustAssign(t, p, pod(3), later); got != addr(0, 11) {
		t.Errorf("got %s", got)
	}

	// Once the ENI has it no more it is forgotten; if it comes back it is new.
	p.Cancel(pod(3))
	if err := p.Withdraw([]netip.Addr{addr(0, 11)}); err != nil {
		t.Fatal(err)
	}
	p.SetENIs([]vpc.ENI{eni(0, 1)}, nil, later)
	p.SetENIs([]vpc.ENI{eni(0, 3)}, nil, later)
	if st := p.Stats(later); st.Leaving != 0 || st.Free != 1 {
		t.Errorf("after the return: %+v", st)
	}
}

func TestDisputed(t *testing.T) {
	p := newPool(eni(0, 3))
	mustAssign(t, p, pod(1), t0)
	doubt := map[netip.Addr]bool{addr(0, 10): true, addr(0, 11): true}
	p.SetENIs([]vpc.ENI{eni(0, 3)}, doubt, t0)
	p.SetENIs([]vpc.ENI{eni(0, 3)}, doubt, t0.Add(time.Second))
	if a, ok := p.Lookup(pod(1)); !ok || a.Addr != addr(0, 10) {
		t.Errorf("the pod has lost its disputed address: %+v", a)
	}
	if got := mustAssign(t, p, pod(2), t0); got != addr(0, 12) {
		t.Errorf("got the disputed %s", got)
	}
	if d := cmp.Diff(Stats{Total: 3, Assigned: 2, Disputed: 1}, p.Stats(t0)); d != "" {
		t.Errorf("stats (-want +got):\n%s", d)
	}
	for _, e := range p.Entries(t0) {
		if e.Disputed != doubt[e.Addr] || e.Disputed && !e.DisputedSince.Equal(t0) {
			t.Errorf("entry %+v", e)
		}
	}
	p.SetENIs([]vpc.ENI{eni(0, 3)}, nil, t0)
	if got := mustAssign(t, p, pod(3), t0); got != addr(0, 11) {
		t.Errorf("got %s after the dispute", got)
	}
}

// TestExcluded: what is free on an excluded ENI counts nowhere; what pods have
// there is theirs.
func TestExcluded(t *testing.T) {
	p := newPool(eni(0, 3), eni(1, 1))
	mustAssign(t, p, pod(1), t0)
	p.Exclude("eni-0")
	if d := cmp.Diff(Stats{Total: 2, Free: 1, Assigned: 1}, p.Stats(t0)); d != "" {
		t.Errorf("stats (-want +got):\n%s", d)
	}
	p.Exclude()
	if st := p.Stats(t0); st.Free != 3 {
		t.Errorf("included again: %+v", st)
	}
}

func TestSince(t *testing.T) {
	p := newPool(eni(0, 2))
	mustAssign(t, p, pod(1), t0)
	p.Release(pod(1), t0.Add(time.Minute))
	p.SetENIs([]vpc.ENI{eni(0, 3)}, nil, t0.Add(2*time.Minute))
	got := map[string]time.Duration{}
	for _, e := range p.Entries(t0.Add(time.Hour)) {
		got[e.Addr.String()] = e.Since.Sub(t0)
	}
	want := map[string]time.Duration{"10.0.0.10": time.Minute + coolDown, "10.0.0.11": 0, "10.0.0.12": 2 * time.Minute}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("free since (-want +got):\n%s", d)
	}
}

// large is a node with 4,000 addresses: 250 prefixes on 5 ENIs, or single ones.
func large(prefixes bool) []vpc.ENI {
	var enis []vpc.ENI
	for d := range 5 {
		e := vpc.ENI{ID: fmt.Sprintf("eni-%d", d), DeviceIndex: d}
		for i := range 50 {
			if prefixes {
				e.Prefixes = append(e.Prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(d), byte(i), 16}), 28))
				continue
			}
			for n := range 16 {
				e.Secondary = append(e.Secondary, netip.AddrFrom4([4]byte{10, byte(d), byte(i), byte(n)}))
			}
		}
		enis = append(enis, e)
	}
	return enis
}

// BenchmarkAssign is one pod that comes and one that goes, at 4,000 addresses of
// which half are held and some hundred cool.
func BenchmarkAssign(b *testing.B) {
	for name, prefixes := range map[string]bool{"addresses": false, "prefixes": true} {
		b.Run(name, func(b *testing.B) {
			p := NewPool(Config{})
			p.Prefer(prefixes)
			p.SetENIs(large(prefixes), nil, t0)
			now := t0
			for i := range 2000 {
				if _, err := p.Assign(pod(i), now); err != nil {
					b.Fatal(err)
				}
			}
			n := 0
			for b.Loop() {
				now = now.Add(100 * time.Millisecond) // ten pods a second: 300 cool
				p.Release(pod(n), now)
				if _, err := p.Assign(pod(n+2000), now); err != nil {
					b.Fatal(err)
				}
				n++
			}
		})
	}
}

// BenchmarkPlan is one decision at 4,000 addresses.
func BenchmarkPlan(b *testing.B) {
	p := NewPool(Config{})
	p.SetENIs(large(true), nil, t0)
	s := State{Limits: vpc.Limits{ENIs: 15, IPv4PerENI: 51, Hypervisor: "nitro"}, ENIs: large(true), Entries: p.Entries(t0)}
	for b.Loop() {
		Plan(s, prefixes(1), t0)
	}
}
