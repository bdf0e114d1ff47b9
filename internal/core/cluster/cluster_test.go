package cluster

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAwaiting(t *testing.T) {
	pod := func(name string, change func(*Pod)) Pod {
		p := Pod{PodName: PodName{"default", name}}
		change(&p)
		return p
	}
	pods := []Pod{
		pod("waits", func(*Pod) {}), pod("has", func(*Pod) {}),
		pod("host", func(p *Pod) { p.HostNetwork = true }),
		pod("done", func(p *Pod) { p.Finished = true }),
		pod("going", func(p *Pod) { p.Leaving = true }),
	}
	held := map[PodName]bool{{"default", "has"}: true, {"other", "waits"}: true}
	if d := cmp.Diff(map[PodName]bool{{"default", "waits"}: true}, Awaiting(pods, held)); d != "" {
		t.Error(d)
	}
}

func TestWithout(t *testing.T) {
	n := Node{Taints: []Taint{{Key: "a"}, {Key: NotReadyTaint, Effect: "NoSchedule"}, {Key: NotReadyTaint, Effect: "NoExecute"}}}
	rest, had := n.Without(NotReadyTaint)
	if d := cmp.Diff([]Taint{{Key: "a"}}, rest); !had || d != "" {
		t.Error(had, d)
	}
	if _, had := n.Without("b"); had || len(n.Taints) != 3 {
		t.Error("b was there, or the node has changed")
	}
}

func TestChoose(t *testing.T) {
	n := Node{Labels: map[string]string{"zone": "a", "gpu": ""}}
	for _, tt := range []struct {
		name string
		all  []NodeConfig
		want string
	}{
		{"none", nil, ""},
		{"none selects", []NodeConfig{{Name: "x", Selector: map[string]string{"zone": "b"}}, {Name: "y", Selector: map[string]string{"no": ""}}}, ""},
		{"all nodes", []NodeConfig{{Name: "x"}}, "x"},
		{"priority", []NodeConfig{{Name: "a"}, {Name: "b", Priority: 2, Selector: map[string]string{"gpu": ""}}, {Name: "c", Priority: 9, Selector: map[string]string{"zone": "b"}}}, "b"},
		{"below zero", []NodeConfig{{Name: "a", Priority: -1}, {Name: "b"}}, "b"},
		{"name", []NodeConfig{{Name: "b"}, {Name: "a"}}, "a"},
	} {
		got, ok := Choose(n, tt.all)
		if got.Name != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: %q, want %q", tt.name, got.Name, tt.want)
		}
	}
}

func TestNext(t *testing.T) {
	options := func(generation int64) Options {
		return Options{Name: "c", Generation: generation, Options: map[string]string{"g": string(rune('0' + generation))}}
	}
	config := func(accepted int64, r Rollout) NodeConfig {
		c := NodeConfig{Name: "c", Generation: 2, Options: options(2).Options, Rollout: r}
		if accepted > 0 {
			c.Accepted = options(accepted)
		}
		return c
	}
	trying := Rollout{Generation: 2, Node: "node-a", State: Trying}
	failed := Rollout{Generation: 2, Node: "node-a", State: Failed}
	for _, tt := range []struct {
		name    string
		c       NodeConfig
		node    string
		inForce Options
		watched time.Duration
		act     Act
		with    Options
	}{
		{"new", config(0, Rollout{}), "node-a", Options{}, 0, Claim, options(2)},
		{"a newer one", config(1, Rollout{Generation: 1, State: Accepted}), "node-b", options(1), 0, Claim, options(2)},
		{"a newer one while the former is tried", config(0, Rollout{Generation: 1, State: Trying, Node: "node-b"}), "node-a", Options{}, 0, Claim, options(2)},
		{"tried here", config(1, trying), "node-a", options(1), time.Hour, Try, options(2)},
		{"tried elsewhere", config(1, trying), "node-b", options(1), time.Minute, Stay, options(1)},
		{"tried elsewhere, a node that is new", config(1, trying), "node-b", Options{}, 0, Follow, options(1)},
		{"tried elsewhere for ever", config(1, trying), "node-b", options(1), TryingPatience, GiveUp, Options{}},
		{"failed", config(1, failed), "node-b", options(1), 0, Stay, options(1)},
		{"failed here", config(1, failed), "node-a", options(2), 0, Follow, options(1)},
		{"failed, and none before", config(0, failed), "node-b", Options{}, 0, Stay, Options{}},
		{"failed here, and none before", config(0, failed), "node-a", options(2), 0, Follow, Options{}},
		{"accepted", config(2, Rollout{Generation: 2, State: Accepted}), "node-b", options(1), 0, Follow, options(2)},
		{"accepted, and in force", config(2, Rollout{Generation: 2, State: Accepted}), "node-a", options(2), 0, Stay, options(2)},
		{"of another object before", config(0, failed), "node-b", Options{Name: "d", Generation: 4}, 0, Follow, Options{}},
	} {
		act, with := Next(tt.c, tt.node, tt.inForce, tt.watched)
		if d := cmp.Diff(tt.with, with); act != tt.act || d != "" {
			t.Errorf("%s: %s, want %s (-want +got):\n%s", tt.name, act, tt.act, d)
		}
	}
}
