package ipamd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/edge/store"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// TestBurst: pods that come all at once to a cold node get their addresses as soon
// as EC2's own calls allow, and none fails.
func TestBurst(t *testing.T) {
	for _, tt := range []struct {
		name     string
		pods     int
		prefixes bool
		// bound is what the calls themselves take, one after the other; zero: until
		// the device of the last ENI is there.
		bound time.Duration
		calls map[string]int // at most
	}{
		{name: "addresses", pods: 27,
			calls: map[string]int{"CreateNetworkInterface": 2, "AttachNetworkInterface": 2, "ModifyNetworkInterfaceAttribute": 2, "AssignPrivateIpAddresses": 1}},
		{name: "prefixes", pods: 60, prefixes: true, bound: 100 * time.Millisecond,
			calls: map[string]int{"CreateNetworkInterface": 1, "AssignPrivateIpAddresses": 5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRegion(t, ec2sim.Config{Delay: 50 * time.Millisecond, Attach: time.Second, Chance: 3}, "m5.large", "10.0.0.0/20")
				r.cfg.Targets.Prefixes = tt.prefixes
				a := r.start()
				start := time.Now()
				var wg sync.WaitGroup
				var mu sync.Mutex
				seen := make(map[netip.Addr]bool)
				var last time.Duration
				for i := range tt.pods {
					wg.Go(func() {
						addr, err := a.add(fmt.Sprint("pod", i))
						mu.Lock()
						defer mu.Unlock()
						if err != nil || seen[addr] {
							t.Errorf("pod %d: %v, %v", i, addr, err)
						}
						seen[addr] = true
						last = max(last, time.Since(start))
					})
				}
				wg.Wait()
				bound := tt.bound
				if bound == 0 {
					attached, _ := r.enis()
					for _, e := range attached {
						bound = max(bound, e.Attachment.DeviceAt.Sub(start))
					}
				}
				if last > bound*13/10 {
					t.Errorf("the last pod had its address after %s, want %s and a little", last, bound)
				}
				time.Sleep(time.Minute)
				got := make(map[string]int)
				for _, c := range r.cloud.Calls(start) {
					got[c.Action]++
				}
				for action, most := range tt.calls {
					if got[action] > most {
						t.Errorf("%d calls of %s, want at most %d", got[action], action, most)
					}
				}
				t.Logf("last pod after %s, the calls take %s: %v", last, bound, got)
				a.stop()
			})
		})
	}
}

// TestComing: EC2 is asked for ADDs that have not had their turn yet, and no longer
// than they are there.
func TestComing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{Delay: 50 * time.Millisecond}, "m5.large", "10.0.0.0/20")
		r.cfg.Targets.Prefixes = true
		a := r.start()
		time.Sleep(time.Minute)
		turn := make(chan struct{})
		inTurn := func(ctx context.Context, f func(*Book)) error {
			select {
			case <-turn:
				return a.do(ctx, f)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		ctx, hangUp := context.WithCancel(t.Context())
		var served sync.WaitGroup
		for i := range 40 {
			ctx := ctx
			if i < 30 { // these stay on the line
				ctx = t.Context()
			}
			served.Go(func() {
				err := a.book.Await(ctx, pod(fmt.Sprint(i)), time.Minute, inTurn, func(b *Book) error {
					_, err := b.Hold(store.Record{ContainerID: fmt.Sprint(i), IfName: "eth0"})
					return err
				})
				if (err != nil) != (i >= 30) {
					t.Errorf("pod %d: %v", i, err)
				}
			})
		}
		synctest.Wait()
		expect := func(pods, free int) {
			t.Helper()
			a.must(func(b *Book) {
				if got := b.State().Scheduled; got != pods {
					t.Errorf("%d pods are expected, want %d", got, pods)
				}
				if got := b.pool.Stats(b.now()).Free; got < free {
					t.Errorf("%d free addresses, want at least %d", got, free)
				}
				b.wake()
			})
		}
		expect(40, 0)
		time.Sleep(time.Second)
		expect(40, 40)
		hangUp()
		synctest.Wait()
		expect(30, 40)
		close(turn)
		served.Wait()
		expect(0, 10)
		a.stop()
	})
}

// TestIdle: a node that nothing happens on asks EC2 hardly ever.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{Delay: 50 * time.Millisecond}, "m5.large", "10.0.0.0/20")
		r.cfg.SubnetDiscovery, r.cfg.LeakedCleanup = true, true
		a := r.start()
		time.Sleep(30 * time.Minute)
		start := time.Now()
		time.Sleep(24 * time.Hour)
		calls := r.cloud.Calls(start)
		if perHour := float64(len(calls)) / 24; perHour > 6 || perHour < 1 {
			t.Errorf("%.1f calls an hour, want 1 to 6", perHour)
		}
		a.stop()
	})
}

// TestOrder: who waits is served in the order they came, and who comes later does
// not overtake them.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{}, "t3.nano", "10.0.1.0/24") // two ENIs of two addresses
		r.cfg.CoolDown = 0
		a := r.start()
		for _, name := range []string{"a", "b"} {
			if _, err := a.add(name); err != nil {
				t.Fatal(err)
			}
		}
		// No more can be had: they wait for a pod to end. The node is full, so an
		// ADD has no hope; the places are taken by hand.
		var places []*Waiter
		a.must(func(b *Book) {
			for _, name := range []string{"c", "d", "e"} {
				places = append(places, b.Wait(pod(name), time.Minute))
			}
		})
		if err := a.del("a"); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"z", "e", "d"} {
			if addr, err := a.add(name); err == nil {
				t.Errorf("%s overtook: %s", name, addr)
			}
		}
		a.must(func(b *Book) { b.Leave(places[2]); b.Leave(places[1]) })
		addr, err := a.add("c")
		if err != nil || !addr.IsValid() {
			t.Errorf("the first in the queue: %v", err)
		}
		a.must(func(b *Book) { b.Leave(places[0]) })
		a.stop()
	})
}

// TestRefusals: what no waiting changes is said at once, and says what would.
func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{}, "t3.nano", "10.0.1.0/24")
		a := r.start()
		for _, name := range []string{"a", "b"} {
			if _, err := a.add(name); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		_, err := a.add("c")
		var empty *EmptyError
		if !errors.As(err, &empty) || !errors.Is(err, ipam.ErrExhausted) || empty.Waited != 0 || time.Since(start) != 0 {
			t.Errorf("after %s: %v, want a refusal at once", time.Since(start), err)
		}
		if err != nil && !strings.Contains(err.Error(), "node is full") {
			t.Errorf("error %q", err)
		}
		a.stop()
	})
}
