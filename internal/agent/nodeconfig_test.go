package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairway-cni/fairway/internal/core/cluster"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/internal/edge/kube"
	"github.com/fairway-cni/fairway/internal/edge/kube/kubetest"
)

// fleet is some agents of a cluster, of which only the options run.
type fleet struct {
	t      *testing.T
	server *kubetest.Server
	agents map[string]*fakeAgent
}

type fakeAgent struct {
	node    string
	dir     string
	kill    func() // as a crash: nothing is put in order
	stop    func() // as a SIGTERM
	mu      sync.Mutex
	cfg     Config
	runs    int
	rollout *rollout
}

// running is what the agent runs with, and how often it has begun.
func (a *fakeAgent) running() (warm, runs int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg.Targets.WarmIPs, a.runs
}

// Options that fakes do something at.
const (
	fails = 66 // an agent does not start with it
	hangs = 77 // it never serves
	ill   = 88 // it serves, and is not in order
	dies  = 99 // the process ends
)

func newFleet(t *testing.T, nodes ...string) *fleet {
	f := &fleet{t: t, server: kubetest.New(), agents: make(map[string]*fakeAgent)}
	for _, name := range nodes {
		f.server.Put(nodesAt+name, object{"metadata": object{"labels": object{"pool": "blue"}}})
		f.agents[name] = &fakeAgent{node: name, dir: t.TempDir()}
		f.start(name)
	}
	t.Cleanup(func() {
		for _, a := range f.agents {
			a.stop()
		}
	})
	return f
}

// start starts a process on the node, with what the last one has left on disk.
func (f *fleet) start(name string) {
	f.t.Helper()
	a := f.agents[name]
	base := Default()
	base.StateDir = filepath.Join(a.dir, "addresses")
	base.Cluster.NodeName = name
	resolve := func(options map[string]string) (Config, error) {
		cfg := base
		if _, err := fmt.Sscan(options["warm-ip-target"], &cfg.Targets.WarmIPs); err != nil {
			return Config{}, errors.New("spec.options.warm-ip-target: must be a number")
		}
		return cfg, nil
	}
	var r *rollout
	api, err := kube.New(kube.Config{NodeName: name, Service: "10.0.0.1:443", Transport: f.server.Transport()})
	if err != nil {
		f.t.Fatal(err)
	}
	r = newRollout(base, api, resolve, quiet(f.t))
	a.rollout = r
	ctx, stop := context.WithCancel(f.t.Context())
	done := make(chan struct{})
	died := make(chan struct{})
	run := func(ctx context.Context, cfg Config) error {
		a.mu.Lock()
		a.cfg = cfg
		a.runs++
		a.mu.Unlock()
		switch cfg.Targets.WarmIPs {
		case fails:
			return errors.New("no such plugin")
		case dies:
			close(died)
			<-ctx.Done()
			return ctx.Err()
		case hangs:
		default:
			r.serving(func(context.Context) (agentapi.Status, error) {
				return agentapi.Status{Kernel: agentapi.Kernel{Behind: cfg.Targets.WarmIPs == ill}}, nil
			})
		}
		<-ctx.Done()
		return nil
	}
	watching, loop := make(chan struct{}), make(chan struct{})
	go func() { defer close(watching); api.Run(ctx, func(kube.Kind) { ring(r.news) }) }()
	go func() { defer close(loop); _ = r.keepRunning(ctx, run) }()
	go func() { <-watching; <-loop; close(done) }()
	a.stop = func() { stop(); <-done }
	a.kill = func() { // the file is as it was while the process lived
		text, err := os.ReadFile(r.path)
		a.stop()
		if err == nil {
			err = os.WriteFile(r.path, text, 0o600)
		}
		if err != nil {
			f.t.Error(err)
		}
	}
	go func() {
		select {
		case <-died:
			a.kill()
			f.start(name)
		case <-ctx.Done():
		}
	}()
}

// put writes the NodeConfig.
func (f *fleet) put(warm string) {
	o := object{"spec": object{"nodeSelector": object{"pool": "blue"}, "options": object{"warm-ip-target": warm}}}
	if old := f.server.Get(configAt); old != nil && old["status"] != nil {
		o["status"] = old["status"]
	}
	f.server.Put(configAt, o)
}

// want compares what all agents run with.
func (f *fleet) want(what string, warm int) {
	f.t.Helper()
	for name, a := range f.agents {
		if got, _ := a.running(); got != warm {
			f.t.Errorf("%s: %s runs with %d, want %d", what, name, got, warm)
		}
	}
}

func (f *fleet) status(of string) object { return part(part(f.server.Get(configAt)["status"])[of]) }

// done is more than a rollout takes where nobody is silent.
const rolledOut = 5 * time.Minute

func TestRollout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "node-a", "node-b", "node-c")
		time.Sleep(time.Minute)
		f.want("without", 0)
		f.put("3")
		time.Sleep(trialTime / 2)
		tried := 0
		for _, a := range f.agents {
			if warm, _ := a.running(); warm == 3 {
				tried++
			}
		}
		if tried != 1 {
			t.Errorf("%d nodes try at once, want one", tried)
		}
		time.Sleep(rolledOut)
		f.want("a good one", 3)
		if s := f.status("rollout")["state"]; s != "Accepted" || part(f.status("accepted")["options"])["warm-ip-target"] != "3" {
			t.Errorf("status %v", f.server.Get(configAt)["status"])
		}
		for name, a := range f.agents {
			if _, runs := a.running(); runs != 2 {
				t.Errorf("%s has begun %d times, want twice", name, runs)
			}
		}
		// A start without API server.
		f.server.Away(true)
		for name, a := range f.agents {
			a.stop()
			f.start(name)
		}
		time.Sleep(time.Hour)
		f.want("the API server is away", 3)
		f.server.Away(false)
		// A node that is new takes what was accepted.
		time.Sleep(rolledOut)
		f.server.Put(nodesAt+"node-d", object{"metadata": object{"labels": object{"pool": "blue"}}})
		f.agents["node-d"] = &fakeAgent{node: "node-d", dir: t.TempDir()}
		f.start("node-d")
		time.Sleep(rolledOut)
		f.want("a new node", 3)
		// One that is selected no more goes back.
		f.server.Put(nodesAt+"node-d", object{})
		time.Sleep(rolledOut)
		if warm, _ := f.agents["node-d"].running(); warm != 0 {
			t.Errorf("a node that is not selected any more runs with %d", warm)
		}
		f.server.Delete(configAt)
		time.Sleep(rolledOut)
		f.want("deleted", 0)
	})
}

// TestRolloutStops: options that are bad reach one node, which goes back.
func TestRolloutStops(t *testing.T) {
	for name, bad := range map[string]struct {
		warm, why string
		tries     bool // the node runs with it for a while
	}{
		"not an option's value": {"many", "spec.options.warm-ip-target: must be a number", false},
		"does not start":        {fmt.Sprint(fails), "no such plugin", true},
		"never serves":          {fmt.Sprint(hangs), "does not serve", true},
		"is not in order":       {fmt.Sprint(ill), "kernel", true},
		"crashes":               {fmt.Sprint(dies), "ended while it tried", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, "node-a", "node-b", "node-c")
				f.put("3")
				time.Sleep(rolledOut)
				f.want("a good one", 3)
				before := map[string]int{}
				for name, a := range f.agents {
					_, before[name] = a.running()
				}
				f.put(bad.warm)
				time.Sleep(rolledOut)
				f.want("a bad one", 3)
				r := f.status("rollout")
				if message := fmt.Sprint(r["message"]); r["state"] != "Failed" || !strings.Contains(message, bad.why) {
					t.Errorf("rollout %v, want %q", r, bad.why)
				}
				if part(f.status("accepted")["options"])["warm-ip-target"] != "3" {
					t.Errorf("accepted %v", f.status("accepted"))
				}
				tried := 0
				for name, a := range f.agents {
					if _, runs := a.running(); runs > before[name] {
						tried++
						if name != r["node"] {
							t.Errorf("%s has begun again, and %s has tried", name, r["node"])
						}
					}
					if _, problem := a.rollout.standing(); !strings.Contains(problem, bad.why) {
						t.Errorf("%s says %q, want %q", name, problem, bad.why)
					}
				}
				if want := map[bool]int{true: 1, false: 0}[bad.tries]; tried != want {
					t.Errorf("%d nodes have tried, want %d", tried, want)
				}
				f.put("5")
				time.Sleep(rolledOut)
				f.want("mended", 5)
				for name, a := range f.agents {
					if _, problem := a.rollout.standing(); problem != "" {
						t.Errorf("%s still says %q", name, problem)
					}
				}
			})
		})
	}
}

// TestRolloutOfTheSilent: a node that took a generation up and is gone fails it; one
// that was asked to end in between goes on.
func TestRolloutOfTheSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "node-a")
		f.put("3")
		time.Sleep(trialTime / 2)
		f.agents["node-a"].stop()
		f.start("node-a")
		time.Sleep(rolledOut)
		f.want("after a SIGTERM", 3)

		f.server.Put(configAt, object{"spec": object{"options": object{"warm-ip-target": "5"}}, "status": object{
			"accepted": f.status("accepted"),
			"rollout":  object{"generation": 2, "node": "node-z", "state": "Trying", "since": "2030-01-01T00:00:00Z"}}})
		time.Sleep(cluster.TryingPatience - time.Minute)
		if s := f.status("rollout")["state"]; s != "Trying" {
			t.Errorf("%v before its time is over", s)
		}
		time.Sleep(2 * time.Minute)
		if r := f.status("rollout"); r["state"] != "Failed" || r["node"] != "node-z" || !strings.Contains(fmt.Sprint(r["message"]), "node-z took") {
			t.Errorf("rollout %v", r)
		}
		f.want("by a node that is gone", 3)
	})
}

// TestRolloutFile: what is on disk is used, or said to be of no use.
func TestRolloutFile(t *testing.T) {
	base := Default()
	base.StateDir = filepath.Join(t.TempDir(), "addresses")
	resolve := func(o map[string]string) (Config, error) {
		if o["bad"] != "" {
			return Config{}, errors.New("spec.options.bad: unknown key")
		}
		cfg := base
		cfg.Targets.WarmIPs = 4
		return cfg, nil
	}
	write := func(text string) *rollout {
		t.Helper()
		if err := os.WriteFile(filepath.Join(filepath.Dir(base.StateDir), optionsFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return newRollout(base, nil, resolve, quiet(t))
	}
	if r := write(`{"inForce":{"name":"c","generation":2,"options":{"good":"1"}}}`); r.config.Targets.WarmIPs != 4 || r.problem != "" {
		t.Errorf("%+v", r.file)
	}
	for _, text := range []string{"", "{", `{"inForce":7}`} {
		if r := write(text); r.config.Targets.WarmIPs != 0 || r.file.InForce.Name != "" {
			t.Errorf("%q: %+v", text, r.file)
		}
	}
	if r := write(`{"inForce":{"name":"c","generation":2,"options":{"bad":"1"}}}`); r.config.Targets.WarmIPs != 0 || !strings.Contains(r.problem, "spec.options.bad") {
		t.Errorf("%+v, %q", r.file, r.problem)
	}
	if inForce, problem := (*rollout)(nil).standing(); inForce.Name != "" || problem != "" {
		t.Error("no rollout has something in force")
	}
}
