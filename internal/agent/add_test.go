package agent

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/cniapi/cniserver"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

// emptyHandlers answer for a t3.nano (two ENIs of two addresses) with nothing to
// give: its addresses are those of the primary ENI. Its node loop runs in the
// test's bubble; it never comes to the kernel, and nobody calls EC2.
func emptyHandlers(t *testing.T, ours int, secondary ...netip.Addr) *handlers {
	t.Helper()
	limits, ok := vpc.LimitsOf("t3.nano")
	if !ok {
		t.Fatal("t3.nano is not known")
	}
	records, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { records.Close() })
	cfg := Default()
	cfg.Targets.MaxENIs = ours
	self := ipamd.Identity{InstanceID: "i-1", InstanceType: "t3.nano", Limits: limits}
	state := &nodeState{cfg: cfg, log: quiet(t), book: ipamd.NewBook(poolConfig(cfg), self, records, quiet(t), time.Now),
		devices: map[vpc.MAC]string{}, pods: map[ipam.Owner]node.Attachment{}}
	enis := []vpc.ENI{{ID: "eni-0", SubnetID: "subnet-1", Primary: netip.MustParseAddr("10.0.1.4"), Secondary: secondary}}
	state.book.SawMetadata(enis, time.Now())
	for i := range secondary {
		if _, err := state.book.Hold(store.Record{ContainerID: strings.Repeat("x", i+1), IfName: "eth0"}); err != nil {
			t.Fatal(err)
		}
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
	return &handlers{cfg: cfg, log: state.log, loop: loop}
}

func add(t *testing.T, h *handlers, ctx context.Context) *cniapi.Error {
	t.Helper()
	r := h.handle(ctx, &cniserver.Call{Command: cniapi.CommandAdd, ContainerID: "c", IfName: "eth0"})
	if r.Err == nil {
		t.Fatalf("ADD: %+v, want an error", r.Result)
	}
	if err := h.loop.doBook(t.Context(), func(b *ipamd.Book) {
		if n := b.Waiting(); n != 0 {
			t.Errorf("%d ADDs wait after the only one has ended", n)
		}
	}); err != nil {
		t.Error(err)
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

// TestAddWaits: an ADD waits for an address that may come, as long as it is
// configured to, and then the runtime is to try again.
func TestAddWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := emptyHandlers(t, 0)
		start := time.Now()
		says(t, add(t, h, t.Context()), cniapi.CodeTryAgainLater, "no free address", "waited 45s")
		if waited := time.Since(start); waited != 45*time.Second {
			t.Errorf("waited %v, want 45 s", waited)
		}
	})
}

// TestAddHasNoHope: what cannot change within the wait is told at once.
func TestAddHasNoHope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := emptyHandlers(t, 1, netip.MustParseAddr("10.0.1.5")) // one ENI of two addresses, full
		start := time.Now()
		says(t, add(t, h, t.Context()), cniapi.CodeNoAddress, "node is full", "configured maximum of 1 ENI")
		if waited := time.Since(start); waited != 0 {
			t.Errorf("waited %v, want not at all", waited)
		}
	})
}

// TestAddEndsWithTheAgent: who waits when the agent ends is told to come again.
func TestAddEndsWithTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := emptyHandlers(t, 0)
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
