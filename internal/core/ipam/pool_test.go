package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var (
	t0        = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cmpAddr   = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})
	coolDown  = 30 * time.Second
	afterCool = t0.Add(coolDown)
)

// eni makes the ENI of a device index with n pod addresses: 10.0.<device>.10,
// .11 and so on.
func eni(device, n int) vpc.ENI {
	e := vpc.ENI{
		ID: fmt.Sprintf("eni-%d", device), DeviceIndex: device, SubnetID: "subnet-a", Groups: []string{"sg-a"},
		Subnet: netip.MustParsePrefix("10.0.0.0/16"), Primary: addr(device, 4),
	}
	for i := range n {
		e.Secondary = append(e.Secondary, addr(device, 10+i))
	}
	return e
}

func addr(device, host int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, byte(device), byte(host)})
}

func pod(n int) Owner { return Owner{ContainerID: fmt.Sprintf("pod%d", n), IfName: "eth0"} }

func newPool(enis ...vpc.ENI) *Pool {
	p := NewPool(Config{})
	p.SetENIs(enis, nil, t0)
	return p
}

func mustAssign(t *testing.T, p *Pool, o Owner, now time.Time) netip.Addr {
	t.Helper()
	a, err := p.Assign(o, now)
	if err != nil {
		t.Fatalf("Assign(%s): %v", o, err)
	}
	if a.Owner != o {
		t.Fatalf("Assign(%s) gave an assignment of %s", o, a.Owner)
	}
	return a.Addr
}

func TestAssignIsIdempotent(t *testing.T) {
	p := newPool(eni(0, 2))
	first := mustAssign(t, p, pod(1), t0)
	second := mustAssign(t, p, pod(2), t0)
	if first == second {
		t.Fatalf("both pods got %s", first)
	}
	if again := mustAssign(t, p, pod(1), t0.Add(time.Hour)); again != first {
		t.Errorf("again = %s, want %s", again, first)
	}
	if _, err := p.Assign(Owner{ContainerID: "pod1", IfName: "eth1"}, t0); !errors.Is(err, ErrExhausted) {
		t.Errorf("a second interface got an address of a full pool: %v", err)
	}
	if _, err := p.Assign(Owner{IfName: "eth0"}, t0); err == nil || errors.Is(err, ErrExhausted) {
		t.Errorf("Assign without container id: %v, want an error about it", err)
	}
}

func TestAssignOrder(t *testing.T) {
	t.Run("primary ENI first, then the fullest, then device order", func(t *testing.T) {
		p := newPool(eni(2, 3), eni(1, 3), eni(0, 1))
		// Two pods on device 2 make it fuller than device 1.
		if err := p.Restore(Restored{Held: []Assignment{
			{Owner: pod(91), Addr: addr(2, 10)}, {Owner: pod(92), Addr: addr(2, 11)},
			{Owner: pod(93), Addr: addr(1, 10)},
		}}, t0); err != nil {
			t.Fatal(err)
		}
		var got []netip.Addr
		for i := range 4 {
			got = append(got, mustAssign(t, p, pod(i), t0))
		}
		want := []netip.Addr{addr(0, 10), addr(2, 12), addr(1, 11), addr(1, 12)}
		if d := cmp.Diff(want, got, cmpAddr); d != "" {
			t.Errorf("order (-want +got):\n%s", d)
		}
	})
	t.Run("the address that is free the longest", func(t *testing.T) {
		p := newPool(eni(0, 3))
		for i := range 2 {
			mustAssign(t, p, pod(i), t0)
		}
		p.Release(pod(1), t0)                  // .11 free from t0+30s
		p.Release(pod(0), t0.Add(time.Second)) // .10 free from t0+31s
		later := t0.Add(time.Hour)
		var got []netip.Addr
		for i := range 3 {
			got = append(got, mustAssign(t, p, pod(10+i), later))
		}
		want := []netip.Addr{addr(0, 12), addr(0, 11), addr(0, 10)} // never used, then by age
		if d := cmp.Diff(want, got, cmpAddr); d != "" {
			t.Errorf("order (-want +got):\n%s", d)
		}
	})
	t.Run("a prefix gives all sixteen", func(t *testing.T) {
		e := eni(0, 0)
		e.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.0.9.16/28")}
		p := newPool(e)
		for i := range 16 {
			want := netip.AddrFrom4([4]byte{10, 0, 9, byte(16 + i)})
			if got := mustAssign(t, p, pod(i), t0); got != want {
				t.Errorf("address %d = %s, want %s", i, got, want)
			}
		}
	})
}

func TestCoolDown(t *testing.T) {
	p := newPool(eni(0, 1))
	a := mustAssign(t, p, pod(1), t0)
	released, ok := p.Release(pod(1), t0)
	if !ok || released.Addr != a || released.Owner != pod(1) || released.ENI != "eni-0" {
		t.Fatalf("Release = %+v, %v", released, ok)
	}
	if _, ok := p.Release(pod(1), t0); ok {
		t.Error("the second Release found something to release")
	}
	_, err := p.Assign(pod(2), afterCool.Add(-1))
	var full *ExhaustedError
	if !errors.As(err, &full) || !errors.Is(err, ErrExhausted) {
		t.Fatalf("Assign while cooling: %v, want an ExhaustedError", err)
	}
	want := Stats{Total: 1, Cooling: 1, NextFree: afterCool}
	if d := cmp.Diff(want, full.Stats); d != "" {
		t.Errorf("stats (-want +got):\n%s", d)
	}
	const text = "no free address: 1 in all, 0 assigned, 1 cooling down; the next is free in 1s"
	if err.Error() != text {
		t.Errorf("error %q\n want %q", err, text)
	}
	if got := mustAssign(t, p, pod(2), afterCool); got != a {
		t.Errorf("after the cool-down: %s, want %s", got, a)
	}

	t.Run("none", func(t *testing.T) {
		p := NewPool(Config{CoolDown: -1})
		p.SetENIs([]vpc.ENI{eni(0, 1)}, nil, t0)
		mustAssign(t, p, pod(1), t0)
		p.Release(pod(1), t0)
		mustAssign(t, p, pod(2), t0)
	})
	t.Run("empty pool", func(t *testing.T) {
		_, err := newPool().Assign(pod(1), t0)
		if !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "no ENI of the node has a pod address") {
			t.Errorf("error %v", err)
		}
	})
}

func TestSetENIs(t *testing.T) {
	p := newPool(eni(0, 2), eni(1, 2))
	for i := range 4 {
		mustAssign(t, p, pod(i), t0)
	}
	p.Release(pod(3), t0) // 10.0.1.11 cools

	orphans := p.SetENIs([]vpc.ENI{eni(0, 1)}, nil, t0) // 10.0.0.11 and all of device 1 vanish
	want := []Assignment{
		{Owner: pod(1), Addr: addr(0, 11), ENI: "eni-0"},
		{Owner: pod(2), Addr: addr(1, 10), ENI: "eni-1"},
	}
	if d := cmp.Diff(want, orphans, cmpAddr); d != "" {
		t.Errorf("orphans (-want +got):\n%s", d)
	}
	if d := cmp.Diff(Stats{Total: 1, Assigned: 1, Orphaned: 2}, p.Stats(t0)); d != "" {
		t.Errorf("stats (-want +got):\n%s", d)
	}

	// All come back: the pods have their addresses still, the cooling one cools on.
	if orphans := p.SetENIs([]vpc.ENI{eni(0, 2), eni(1, 2)}, nil, t0.Add(time.Second)); orphans != nil {
		t.Errorf("orphans after the return: %v", orphans)
	}
	st := p.Stats(t0.Add(time.Second))
	if d := cmp.Diff(Stats{Total: 4, Assigned: 3, Cooling: 1, NextFree: afterCool}, st); d != "" {
		t.Errorf("stats (-want +got):\n%s", d)
	}

	// An orphan that is released and cooled down is forgotten.
	p.SetENIs([]vpc.ENI{eni(0, 1)}, nil, t0)
	p.Release(pod(1), t0)
	p.Release(pod(2), t0)
	entries := p.Entries(afterCool)
	if d := cmp.Diff([]Entry{{Addr: addr(0, 10), ENI: "eni-0", State: Assigned, Owner: pod(0)}}, entries, cmpAddr); d != "" {
		t.Errorf("entries (-want +got):\n%s", d)
	}

	t.Run("an address that moves to another ENI", func(t *testing.T) {
		from, to := eni(1, 1), eni(2, 0)
		p := newPool(from)
		mustAssign(t, p, pod(1), t0)
		to.Secondary, from.Secondary = from.Secondary, nil
		if orphans := p.SetENIs([]vpc.ENI{from, to}, nil, t0); orphans != nil {
			t.Errorf("orphans %v", orphans)
		}
		if a, ok := p.Lookup(pod(1)); !ok || a.ENI != "eni-2" {
			t.Errorf("Lookup = %+v, %v; want it on eni-2", a, ok)
		}
	})
}

func TestRestore(t *testing.T) {
	held := func(n int, a netip.Addr) Assignment { return Assignment{Owner: pod(n), Addr: a, ENI: "eni-0"} }
	cases := []struct {
		name  string
		in    Restored
		want  Stats // of an ENI with .10, .11, .12
		fails bool
	}{
		{"nothing", Restored{}, Stats{Total: 3, Free: 3}, false},
		{"held", Restored{Held: []Assignment{held(1, addr(0, 11))}}, Stats{Total: 3, Free: 2, Assigned: 1}, false},
		{"held twice the same", Restored{Held: []Assignment{held(1, addr(0, 11)), held(1, addr(0, 11))}},
			Stats{Total: 3, Free: 2, Assigned: 1}, false},
		{"held by two", Restored{Held: []Assignment{held(1, addr(0, 11)), held(2, addr(0, 11))}},
			Stats{Total: 3, Free: 2, Reserved: 1}, true},
		{"one owner holds two", Restored{Held: []Assignment{held(1, addr(0, 12)), held(1, addr(0, 11))}},
			Stats{Total: 3, Free: 1, Assigned: 1, Reserved: 1}, true},
		{"held and unreadable", Restored{Held: []Assignment{held(1, addr(0, 11))}, Unreadable: []netip.Addr{addr(0, 11)}},
			Stats{Total: 3, Free: 2, Reserved: 1}, true},
		{"held and cooling", Restored{Held: []Assignment{held(1, addr(0, 11))}, Cooling: []Cooling{{Addr: addr(0, 11), ReleasedAt: t0}}},
			Stats{Total: 3, Free: 2, Assigned: 1}, false},
		{"cooling", Restored{Cooling: []Cooling{{Addr: addr(0, 11), ReleasedAt: t0.Add(-10 * time.Second)}}},
			Stats{Total: 3, Free: 2, Cooling: 1, NextFree: t0.Add(20 * time.Second)}, false},
		{"cooled down meanwhile", Restored{Cooling: []Cooling{{Addr: addr(0, 11), ReleasedAt: t0.Add(-coolDown)}}},
			Stats{Total: 3, Free: 3}, false},
		{"released in the future", Restored{Cooling: []Cooling{{Addr: addr(0, 11), ReleasedAt: t0.Add(time.Hour)}}},
			Stats{Total: 3, Free: 2, Cooling: 1, NextFree: afterCool}, false},
		{"held on no ENI", Restored{Held: []Assignment{held(1, addr(7, 11))}}, Stats{Total: 3, Free: 3, Orphaned: 1}, false},
	}
	for _, tc := range cases {
		for _, enisFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/enisFirst=%v", tc.name, enisFirst), func(t *testing.T) {
				p := NewPool(Config{})
				if enisFirst {
					p.SetENIs([]vpc.ENI{eni(0, 3)}, nil, t0)
				}
				err := p.Restore(tc.in, t0)
				if errors.Is(err, ErrConflict) != tc.fails || (err != nil) != tc.fails {
					t.Errorf("Restore: %v, want a conflict: %v", err, tc.fails)
				}
				if !enisFirst {
					p.SetENIs([]vpc.ENI{eni(0, 3)}, nil, t0)
				}
				if d := cmp.Diff(tc.want, p.Stats(t0)); d != "" {
					t.Errorf("stats (-want +got):\n%s", d)
				}
			})
		}
	}
}

func TestReserve(t *testing.T) {
	p := newPool(eni(0, 1))
	mustAssign(t, p, pod(1), t0)
	p.Reserve(addr(0, 10))
	if _, ok := p.Lookup(pod(1)); ok {
		t.Error("the owner holds the reserved address still")
	}
	if _, err := p.Assign(pod(1), t0.Add(time.Hour)); !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "1 reserved") {
		t.Errorf("Assign of a reserved address: %v", err)
	}
	later := t0.Add(time.Hour)
	p.Unreserve(addr(0, 10), later)
	p.Unreserve(addr(0, 99), later) // unknown: nothing
	if st := p.Stats(later); st.Cooling != 1 {
		t.Errorf("after Unreserve: %+v, want it to cool down", st)
	}
	mustAssign(t, p, pod(1), later.Add(coolDown))
}
