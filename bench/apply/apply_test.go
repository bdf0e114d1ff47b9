package apply

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/bench/packet/site"
	"github.com/fairway-cni/fairway/bench/result"
	"github.com/fairway-cni/fairway/internal/core/intent"
)

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces (CAP_SYS_ADMIN)")
	}
}

// TestMeasure runs the bench with few pods and rounds. What the floor and what
// our code leave in the kernel it compares itself.
func TestMeasure(t *testing.T) {
	requireRoot(t)
	f, err := measure(context.Background(), 60, 2, func(string, ...any) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WriteTable(io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, r := range f.Report().Rows {
		switch {
		case r.Metric == "warm_restart_writes":
			if r.Value != 0 {
				t.Errorf("a warm restart wrote %v times", r.Value)
			}
		case !(r.Value > 0 && r.P10 <= r.P90):
			t.Errorf("%s: %+v, want positive figures", r.Metric, r)
		}
	}
	if len(f.rounds) != 2 {
		t.Errorf("%d rounds, want 2", len(f.rounds))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := measure(ctx, 1, 1, func(string, ...any) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
}

// inside runs fn with a node of some pods whose state is in place.
func inside(t *testing.T, fn func(*bench) error) {
	t.Helper()
	requireRoot(t)
	n, err := site.NewNode(0, nil, site.Snapshot(0, 3, intent.Default()))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	err = n.Do(func() (err error) {
		b := bench{node: n}
		defer func() { err = errors.Join(err, b.close()) }()
		if err := b.open(); err != nil {
			return err
		}
		return fn(&b)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestWatcher: what is written is heard of, in routing and in nftables, and what
// is only read is not.
func TestWatcher(t *testing.T) {
	inside(t, func(b *bench) error {
		if n, err := b.watcher.count(); n == 0 || err != nil {
			t.Errorf("heard %d changes while the state was made, error %v", n, err)
		}
		// For a while after devices were made the kernel goes on about them by
		// itself. One comparison that nothing is heard of says enough.
		for heard, until := 1, time.Now().Add(time.Minute); heard != 0; {
			if _, err := b.node.Compare(); err != nil {
				return err
			}
			var err error
			if heard, err = b.watcher.count(); err != nil || heard != 0 && time.Now().After(until) {
				t.Fatalf("heard %d changes of a comparison, error %v", heard, err)
			}
		}
		for _, half := range []batches{{route: b.wipe.route}, {filter: b.wipe.filter}} {
			if half.route.bytes != nil {
				if err := b.route.send(half.route); err != nil {
					return err
				}
			} else if err := b.filter.send(half.filter); err != nil {
				return err
			}
			if n, err := b.watcher.count(); n == 0 || err != nil {
				t.Errorf("heard %d changes of a wiped kernel, error %v", n, err)
			}
		}
		return nil
	})
}

// TestRestartCounts: a restart that finds something to do has written.
func TestRestartCounts(t *testing.T) {
	inside(t, func(b *bench) error {
		var r round
		if err := b.restart(&r); err != nil {
			return err
		}
		if r.writes != 0 {
			t.Errorf("%d writes where all is well", r.writes)
		}
		b.node.Snapshot.Config.ENIMTU = 1500 // what the restarted agent is told
		want := len(b.node.Snapshot.ENIs)
		if err := b.restartOnly(&r); err != nil {
			return err
		}
		if r.writes < want {
			t.Errorf("%d writes for the MTU of %d devices", r.writes, want)
		}
		return nil
	})
}

// TestDifference: each kind of thing that is missing is seen.
func TestDifference(t *testing.T) {
	inside(t, func(b *bench) error {
		if d := b.good.difference(b.good); d != "" {
			t.Errorf("a state differs from itself: %s", d)
		}
		for name, remove := range map[string]func(*state){
			"routes":          func(s *state) { s.routes = s.routes[1:] },
			"neighbours":      func(s *state) { s.neighbors = s.neighbors[1:] },
			"rules":           func(s *state) { s.rules = s.rules[1:] },
			"counters":        func(s *state) { s.objects = s.objects[1:] },
			"sets":            func(s *state) { s.sets = s.sets[1:] },
			"chains":          func(s *state) { s.chains = s.chains[1:] },
			"elements":        func(s *state) { s.inSets = s.inSets[1:] },
			"rules of chains": func(s *state) { s.chainRules = s.chainRules[1:] },
		} {
			other := b.good
			remove(&other)
			if d := b.good.difference(other); !strings.Contains(d, " "+name+" ") {
				t.Errorf("without one of the %s: %q", name, d)
			}
		}
		if err := b.route.send(b.good.removalOf(b.node.Last().Addr)); err != nil {
			return err
		}
		now, err := record(b.route, b.filter, b.node.Snapshot)
		if err != nil {
			return err
		}
		if d := b.good.difference(now); !strings.Contains(d, "routes") {
			t.Errorf("without a pod's route: %q", d)
		}
		return nil
	})
}

// TestSendFails: the floor does not go on when the kernel refuses.
func TestSendFails(t *testing.T) {
	inside(t, func(b *bench) error {
		if err := b.floor.send(b.route, b.filter); !errors.Is(err, unix.EEXIST) {
			t.Errorf("rebuilt what is there: error %v, want EEXIST", err)
		}
		more := site.Snapshot(0, b.node.Pods()+1, intent.Default())
		if _, err := record(b.route, b.filter, more); !errors.Is(err, errIncomplete) {
			t.Errorf("recorded fewer pods than there are: error %v, want errIncomplete", err)
		}
		if err := b.wipe.send(b.route, b.filter); err != nil {
			return err
		}
		if err := b.wipe.send(b.route, b.filter); err == nil {
			t.Error("removed what is not there")
		}
		if _, err := record(b.route, b.filter, b.node.Snapshot); !errors.Is(err, unix.ENOENT) {
			t.Errorf("recorded a wiped kernel: error %v, want ENOENT", err)
		}
		return nil
	})
}

func TestReport(t *testing.T) {
	ms := time.Millisecond
	f := Figures{Pods: 9, rounds: []round{
		{floor: 10 * ms, ours: 15 * ms, compare: 4 * ms, change: 5 * ms, pod: ms, restart: 6 * ms},
		{floor: 20 * ms, ours: 30 * ms, compare: 4 * ms, change: 5 * ms, pod: ms, restart: 6 * ms, writes: 2},
		{floor: 20 * ms, ours: 30 * ms, compare: 4 * ms, change: 5 * ms, pod: ms, restart: 6 * ms},
	}}
	row := func(name string, v, goal float64) result.Row {
		return result.Row{Metric: name, Value: v, P10: v, P90: v, AtMost: goal}
	}
	want := []result.Row{
		row("apply_9_over_floor", 1.5, 2),
		{Metric: "warm_restart_writes", Value: 2, P10: 0, P90: 1.6, AtMost: 0.5}, // the worst counts
		row("compare_9_ms", 4, 0), row("one_change_ms", 5, 0), row("one_pod_ms", 1, 0), row("warm_restart_ms", 6, 0),
		{Metric: "apply_9_ms", Value: 30, P10: 18, P90: 30},
		{Metric: "floor_9_ms", Value: 20, P10: 12, P90: 20},
	}
	if d := cmp.Diff(want, f.Report().Rows, cmpopts.EquateApprox(0, 1e-9)); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
}
