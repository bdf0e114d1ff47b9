package agent

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/cniapi/cniserver"
)

// emptyHandlers answer for a node whose pool has nothing to give. Its node loop
// runs in the test's bubble; it never comes to the kernel or the store.
func emptyHandlers(t *testing.T, state *nodeState, self identity) *handlers {
	t.Helper()
	cfg := Default()
	cfg.AddWait = 20 * time.Second
	state.cfg, state.log, state.now = cfg, quiet(t), time.Now
	state.devices, state.pods = map[vpc.MAC]string{}, map[ipam.Owner]node.Attachment{}
	if state.pool == nil {
		state.pool = ipam.NewPool(ipam.Config{CoolDown: cfg.CoolDown})
	}
	loop := &nodeLoop{state: state, commands: make(chan func(*nodeState))}
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	go func() {
		for {
			select {
			case f := <-loop.commands:
				f(state)
			case <-end:
				return
			}
		}
	}()
	return &handlers{cfg: cfg, log: state.log, self: self, loop: loop, supply: newSupply()}
}

func add(t *testing.T, h *handlers, ctx context.Context) *cniapi.Error {
	t.Helper()
	r := h.handle(ctx, &cniserver.Call{Command: cniapi.CommandAdd, ContainerID: "c", IfName: "eth0"})
	if r.Err == nil {
		t.Fatalf("ADD: %+v, want an error", r.Result)
	}
	if h.supply.waiting != 0 {
		t.Errorf("%d ADDs wait after the only one has ended", h.supply.waiting)
	}
	return r.Err
}

func says(t *testing.T, e *cniapi.Error, code uint, words ...string) {
	t.Helper()
	for _, w := range words {
		if e.Code != code || !strings.Contains(e.Msg+" "+e.Details, w) {
			t.Errorf("got %v, want code %d and %q", e, code, w)
		}
	}
}

func small(t *testing.T) identity {
	t.Helper()
	limits, ok := vpc.LimitsOf("t3.nano") // two ENIs of two addresses: room for two pods
	if !ok {
		t.Fatal("t3.nano is not known")
	}
	return identity{instanceID: "i-1", instanceType: "t3.nano", limits: limits}
}

func primary(secondary ...netip.Addr) []vpc.ENI {
	return []vpc.ENI{{ID: "eni-0", SubnetID: "subnet-1", Primary: netip.MustParseAddr("10.0.1.4"), Secondary: secondary}}
}

// TestAddWaits: an ADD waits for an address that may come, as long as it is
// configured to, and its wait is what the planner counts.
func TestAddWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := emptyHandlers(t, &nodeState{enis: primary()}, small(t))
		start := time.Now()
		done := make(chan *cniapi.Error)
		go func() { done <- add(t, h, t.Context()) }()
		synctest.Wait()
		if h.supply.waiting != 1 || len(h.supply.kick) != 1 {
			t.Errorf("%d ADDs wait, %d wake-ups; want one of each", h.supply.waiting, len(h.supply.kick))
		}
		says(t, <-done, cniapi.CodeNoAddress, "no free address yet: the node has 0 of the 2 it can have", "waited 20s")
		if waited := time.Since(start); waited != 20*time.Second {
			t.Errorf("waited %v, want 20 s", waited)
		}
	})
}

// TestAddIsTold: a refusal that comes while an ADD waits ends the wait.
func TestAddIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := emptyHandlers(t, &nodeState{enis: primary()}, small(t))
		h.cfg.MaxENIs = 1 // or a second ENI would be a hope
		h.supply.begin(ipam.Change{Kind: ipam.AssignAddresses, ENI: "eni-0", Count: 1})
		start := time.Now()
		done := make(chan *cniapi.Error)
		go func() { done <- add(t, h, t.Context()) }()
		time.Sleep(3 * time.Second) // of the bubble's clock: EC2 takes its time
		h.supply.end(ipam.AssignAddresses, &ipam.Block{Until: time.Now().Add(time.Second), Reason: "EC2 said no; do this"})
		says(t, <-done, cniapi.CodeNoAddress, "EC2 said no; do this", "next try in 1s")
		if waited := time.Since(start); waited != 3*time.Second {
			t.Errorf("waited %v, want 3 s", waited)
		}
	})
}

// TestAddHasNoHope: what cannot change within the wait is told at once.
func TestAddHasNoHope(t *testing.T) {
	one, two := netip.MustParseAddr("10.0.1.5"), netip.MustParseAddr("10.0.1.6")
	full := append(primary(one), vpc.ENI{ID: "eni-1", DeviceIndex: 1, Primary: netip.MustParseAddr("10.0.1.7"), Secondary: []netip.Addr{two}})
	for _, tt := range []struct {
		name  string
		self  func(*testing.T) identity
		pool  func(p *ipam.Pool, now time.Time)
		block bool
		says  []string
	}{
		{name: "node is full", self: small, says: []string{"node is full: 2 of 2 addresses of t3.nano in use", "larger instance type"}},
		{name: "node is full, one rests longer than an ADD waits", self: small,
			pool: func(p *ipam.Pool, now time.Time) { p.Release(ipam.Owner{ContainerID: "1", IfName: "eth0"}, now) },
			says: []string{"1 cooling down", "the next is free in 30s"}},
		{name: "instance type is not known", says: []string{"no free address"},
			self: func(*testing.T) identity { return identity{instanceID: "i-1", instanceType: "x9.new"} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				now := time.Now()
				pool := ipam.NewPool(ipam.Config{CoolDown: 30 * time.Second})
				pool.SetENIs(full, now)
				for _, c := range []string{"1", "2"} {
					if _, err := pool.Assign(ipam.Owner{ContainerID: c, IfName: "eth0"}, now); err != nil {
						t.Fatal(err)
					}
				}
				if tt.pool != nil {
					tt.pool(pool, now)
				}
				h := emptyHandlers(t, &nodeState{enis: full, pool: pool}, tt.self(t))
				says(t, add(t, h, t.Context()), cniapi.CodeNoAddress, tt.says...)
				if waited := time.Since(now); waited != 0 {
					t.Errorf("waited %v, want not at all", waited)
				}
			})
		})
	}
}

// TestAddEndsWithTheAgent: who waits when the agent ends is told to come again.
func TestAddEndsWithTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := emptyHandlers(t, &nodeState{enis: primary()}, small(t))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan *cniapi.Error)
		go func() { done <- add(t, h, ctx) }()
		synctest.Wait()
		cancel()
		says(t, <-done, cniapi.CodeTryAgainLater, "the agent is ending")
		// The same if it had not got so far as to wait.
		says(t, add(t, h, ctx), cniapi.CodeTryAgainLater, "canceled")
	})
}

func TestUnknownCommand(t *testing.T) {
	h := &handlers{log: quiet(t)}
	r := h.handle(t.Context(), &cniserver.Call{Command: "UPDATE"})
	if r.Err == nil || !strings.Contains(r.Err.Msg, "UPDATE") {
		t.Errorf("got %+v, want an error that names it", r)
	}
}
