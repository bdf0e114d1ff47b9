package ipamd

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairway-cni/fairway/internal/core/cluster"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/edge/imds"
	labimds "github.com/fairway-cni/fairway/lab/imds"
)

var (
	simEvents = flag.Int("ipamd.events", 1_000_000, "events that the simulation delivers, in all its runs")
	simSeed   = flag.Uint64("ipamd.seed", 0, "the one seed to run; 0: from 1 on, as many as it takes")
)

// runEvents is how many events a run has before its faults end.
const runEvents = 2500

// TestSimulation runs random worlds until enough events were delivered, and fails
// where an invariant does not hold, with the seed that shows it again.
func TestSimulation(t *testing.T) {
	events := *simEvents
	if testing.Short() {
		events /= 10
	}
	all := newTally()
	if *simSeed != 0 {
		simulate(t, *simSeed, runEvents, all, spoil{}).report(t)
		t.Log(all)
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // most of what it makes is garbage at once
	var next atomic.Uint64
	t.Run("seeds", func(t *testing.T) {
		for range goruntime.GOMAXPROCS(0) {
			t.Run("worker", func(t *testing.T) {
				t.Parallel()
				for all.events() < events && !t.Failed() {
					simulate(t, next.Add(1), runEvents, all, spoil{}).report(t)
				}
			})
		}
	})
	fmt.Println(all)
	if t.Failed() {
		return
	}
	if want := events / 100; all.crashes() < want {
		t.Errorf("%d crashes, want at least %d", all.crashes(), want)
	}
	for kind := range actions {
		if all.changes[kind] == 0 {
			t.Errorf("no change of kind %q was reached", kind)
		}
	}
	for _, f := range faults {
		if all.faults[f.name] == 0 {
			t.Errorf("no fault %q was reached", f.name)
		}
	}
}

// TestReplay: a seed gives the same run again.
func TestReplay(t *testing.T) {
	for seed := uint64(1); seed <= 6; seed++ {
		one := simulate(t, seed, 1500, newTally(), spoil{})
		two := simulate(t, seed, 1500, newTally(), spoil{})
		if one.trace != two.trace {
			t.Errorf("seed %d: two runs differ, after %d and %d events", seed, one.events, two.events)
			for i := range min(len(one.log), len(two.log)) {
				if one.log[i] != two.log[i] {
					t.Logf("%v\n%v", one.log[i], two.log[i])
					break
				}
			}
		}
	}
}

// TestBites: an agent that does wrong is found out.
func TestBites(t *testing.T) {
	for _, tt := range []struct {
		name  string
		wrong spoil
		says  string
	}{
		{"it lets no address rest", spoil{config: func(c *Config) { c.CoolDown = 0 }}, " released it"},
		{"a record gets lost", spoil{records: func(dir string) {
			if names := recordsIn(t, dir); len(names) > 0 {
				if err := os.Remove(filepath.Join(dir, names[0])); err != nil {
					t.Error(err)
				}
			}
		}}, "no record of "},
		{"it does not wait for devices", spoil{devices: func(ready map[string]bool, eni string) { ready[eni] = true }}, "the device of "},
		{"it uses ENIs that are not for pods", spoil{config: func(c *Config) { c.Custom.Enabled = false }}, "custom networking"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for seed := uint64(1); seed <= 60; seed++ {
				if s := simulate(t, seed, runEvents, newTally(), tt.wrong); s.bad != "" {
					if !strings.Contains(s.bad, tt.says) {
						t.Errorf("seed %d: %s; want %q", seed, s.bad, tt.says)
					}
					return
				}
			}
			t.Error("60 runs have not found it")
		})
	}
}

func recordsIn(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		if _, err := netip.ParseAddr(e.Name()); err == nil {
			names = append(names, e.Name())
		}
	}
	return names
}

// report fails the test where the run was wrong.
func (s *sim) report(t *testing.T) {
	t.Helper()
	if s.bad != "" {
		t.Errorf("seed %d, after %d events: %s\n\n%s\n%s\nreplay: go test ./internal/agent/ipamd -run '^TestSimulation$' -ipamd.seed %d",
			s.seed, s.events, s.bad, s.table(), s.last, s.seed)
	}
}

// simulate is one run.
func simulate(t *testing.T, seed uint64, events int, all *tally, wrong spoil) *sim {
	t.Helper()
	dir := recordsDir(t)
	defer os.RemoveAll(dir)
	var s *sim
	synctest.Test(t, func(t *testing.T) {
		s = &sim{t: t, seed: seed, draw: rand.New(rand.NewPCG(seed, 1)), began: time.Now(), budget: events, tally: newTally(), spoil: wrong,
			arrived: make(chan struct{}, 1), pods: runtime{pods: make(map[string]*simPod)},
			model: ledger{addrs: make(map[netip.Addr]*tenure), byOwner: make(map[string]*tenure)}}
		s.truth.taken = make(map[netip.Addr]time.Time)
		w, cloud := newWorld(s)
		s.world = w
		s.r = newRegion(t, cloud, w.kind, []string{"10.0.0.0/20", "10.0.1.0/24", "10.0.1.0/26"}[s.draw.IntN(3)])
		s.r.dir = filepath.Join(dir, "addresses")
		if *simSeed != 0 && testing.Verbose() {
			s.r.log = slog.New(slog.NewTextHandler(io.Writer(os.Stderr), nil))
		}
		s.furnish()
		s.run()
	})
	all.add(s.tally)
	return s
}

// run is the whole of it: trouble, then peace.
func (s *sim) run() {
	s.imds = labimds.New(s.labMetadata, time.Now)
	id, err := imds.New(s.imdsConfig(nil)).Identity(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	s.world.self = id
	s.pods.load = s.world.most / 2
	s.start()
	s.arrive()
	s.in(time.Second, s.strike)
	s.in(time.Minute, s.turn)
	s.in(time.Second, s.schedule)
	for s.events < s.budget && s.bad == "" {
		s.step(time.Now().Add(time.Minute))
	}
	s.finish()
	s.last = s.state()
	s.calm = true
	if s.life != nil {
		s.bury(s.life)
	}
	s.r.cloud.ClearFaults()
	for { // let everybody go home
		synctest.Wait()
		all := s.find(func(*item) bool { return true })
		if len(all) == 0 {
			break
		}
		for _, it := range all {
			s.let(it, dead)
		}
	}
}

// turn restarts the agent in order now and then.
func (s *sim) turn() {
	if !s.calm {
		s.restart()
		s.in(time.Minute+s.upTo(5*time.Minute), s.turn)
	}
}

// bound are pods that never ask.
func bound(n int) map[cluster.PodName]bool {
	pods := make(map[cluster.PodName]bool, n)
	for i := range n {
		pods[cluster.PodName{Namespace: "default", Name: fmt.Sprint("bound-", i)}] = true
	}
	return pods
}

// schedule tells the agent what the cluster has bound to the node.
func (s *sim) schedule() {
	if l := s.life; l != nil && !s.calm {
		n := 0
		if s.chance(2) {
			n = s.draw.IntN(6)
		}
		s.event("scheduled", fmt.Sprint(n))
		s.op(l, operation{kind: "schedule"}, func(b *Book) { b.Schedule(bound(n)) })
	} else if l != nil {
		s.op(l, operation{kind: "schedule"}, func(b *Book) { b.Schedule(nil) })
	}
	s.in(5*time.Second+s.upTo(20*time.Second), s.schedule)
}

// finish is the peace after it: everything must come to rest, and stay there. In
// one of some runs for so long that leaked ENIs must have gone, and without a
// restart.
func (s *sim) finish() {
	if s.bad != "" {
		return
	}
	s.peace()
	long := s.seed%10 == 0 && !s.world.cfg.IMDSOnly
	within := 8 * time.Minute
	if long {
		within = 3 * time.Hour
	} else {
		// What dead agents have sent arrives until then; the next regular listing
		// may be an hour off.
		s.during(10 * time.Second)
		s.restart()
	}
	settled := time.Time{}
	for end := time.Now().Add(within); s.bad == ""; {
		why := s.unsettled(long && s.world.cfg.LeakedCleanup)
		switch now := time.Now(); {
		case why != "" && now.After(end):
			s.wrong("not at rest %s after the last fault: %s", within, why)
		case why != "":
			settled = time.Time{}
		case settled.IsZero():
			settled = now
		case now.Sub(settled) > 3*time.Minute:
			s.tally.count("runs", 1)
			return
		}
		s.during(20 * time.Second)
	}
}

// during lets a time pass.
func (s *sim) during(d time.Duration) {
	for end := time.Now().Add(d); s.bad == "" && s.step(end); {
	}
}

// recordsDir is a directory for records, in memory where there is such.
func recordsDir(t testing.TB) string {
	t.Helper()
	const memory, tmpfs = "/dev/shm", 0x01021994
	parent := ""
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memory, &fs); err == nil && int64(fs.Type) == tmpfs {
		parent = memory
	}
	dir, err := os.MkdirTemp(parent, "ipamd-")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// tally counts what was reached.
type tally struct {
	mu      sync.Mutex
	n       map[string]int
	what    map[string]int
	died    map[string]int
	changes map[ipam.Kind]int
	faults  map[string]int
}

func newTally() *tally {
	return &tally{n: make(map[string]int), what: make(map[string]int), died: make(map[string]int), changes: make(map[ipam.Kind]int), faults: make(map[string]int)}
}

func (a *tally) event(what string)         { a.what[what]++ }
func (a *tally) crash(where string)        { a.died[where]++ }
func (a *tally) change(k ipam.Kind)        { a.changes[k]++ }
func (a *tally) fault(name string)         { a.faults[name]++ }
func (a *tally) count(name string, by int) { a.n[name] += by }
func (a *tally) events() int               { return a.sum(func() int { return sum(a.what) }) }
func (a *tally) crashes() int              { return a.sum(func() int { return sum(a.died) }) }
func (a *tally) sum(f func() int) int      { a.mu.Lock(); defer a.mu.Unlock(); return f() }

func sum[K comparable](m map[K]int) int {
	n := 0
	for _, v := range m {
		n += v
	}
	return n
}

// add takes a run's over.
func (a *tally) add(b *tally) {
	a.mu.Lock()
	defer a.mu.Unlock()
	merge(a.n, b.n)
	merge(a.what, b.what)
	merge(a.died, b.died)
	merge(a.changes, b.changes)
	merge(a.faults, b.faults)
}

func merge[K comparable](a, b map[K]int) {
	for k, v := range b {
		a[k] += v
	}
}

func (a *tally) String() string {
	return fmt.Sprintf("simulation: %d events (%s); %d crashes (%s); changes: %s; faults: %s; %s", a.events(), list(a.what), a.crashes(), list(a.died),
		list(a.changes), list(a.faults), list(a.n))
}

func list[K ~string](m map[K]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", string(k), m[k]))
	}
	return strings.Join(parts, ", ")
}
