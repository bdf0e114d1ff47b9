package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
	"github.com/fairway-cni/fairway/internal/edge/kube"
	"github.com/fairway-cni/fairway/internal/edge/metrics"
)

// surroundings is what the agent has of its cluster for as long as the process lives.
// The agent itself may begin again in between, with other options.
type surroundings struct {
	log     *slog.Logger
	metrics *metrics.Metrics
	api     *kube.Client
	cache   *clusterCache
	rollout *rollout // nil: no NodeConfig is looked at

	mu      sync.Mutex
	member  *member         // nil: the agent does not serve
	failing map[string]bool // what the API server was last asked for in vain
}

// runInCluster is the agent on a node of a cluster. It starts and serves whether or
// not the API server answers.
func runInCluster(ctx context.Context, cfg Config, out Outside, log *slog.Logger) error {
	s := &surroundings{log: log, metrics: metrics.New(), cache: newClusterCache(cfg), failing: make(map[string]bool)}
	c := cfg.Cluster
	var err error
	s.api, err = kube.New(kube.Config{NodeName: c.NodeName, Kubeconfig: c.Kubeconfig, Service: c.Service, Endpoint: c.Endpoint,
		UserAgent: "fairway-agent", Observe: s.observe, Transport: out.API})
	if err != nil {
		return err
	}
	agent := func(ctx context.Context, cfg Config) error {
		return run(ctx, &assembly{cfg: cfg, out: out, log: log, metrics: s.metrics, cluster: s})
	}
	if out.Options != nil {
		s.rollout = newRollout(cfg, s.api, out.Options, log)
	}
	ctx, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	watching.Go(func() { s.api.Run(ctx, s.hear) })
	if s.rollout != nil {
		return s.rollout.keepRunning(ctx, agent)
	}
	return agent(ctx, cfg)
}

// hear passes on what watches say.
func (s *surroundings) hear(k kube.Kind) {
	s.mu.Lock()
	m := s.member
	s.mu.Unlock()
	if m != nil {
		m.hear(k)
	}
	if s.rollout != nil && (k == kube.NodeConfigs || k == kube.Nodes) {
		ring(s.rollout.news)
	}
}

// serving says who hears the watches from now on; nil: nobody.
func (s *surroundings) serving(m *member) {
	s.mu.Lock()
	s.member = m
	s.mu.Unlock()
	if m != nil {
		s.rollout.serving(m.loop.status)
	}
}

// observe counts requests, and says once that they fail and once that they do again.
func (s *surroundings) observe(r kube.Request) {
	s.metrics.ClusterRequest(r.Verb, r.What, r.Err == nil)
	if r.Verb != "list" && r.Verb != "watch" {
		return // who writes says so
	}
	s.mu.Lock()
	was := s.failing[r.What]
	s.failing[r.What] = r.Err != nil
	s.mu.Unlock()
	switch {
	case r.Err != nil && !was:
		s.log.Warn("the api server does not say what there is; what it said last counts, and it is asked again", "kind", r.What, "error", r.Err)
	case r.Err == nil && was:
		s.log.Info("the api server answers again", "kind", r.What)
	}
}

// lastCustom is the ENIConfig that the node selected when the API server was heard
// last: until it is heard again, ENIs are made by that one.
func (s *surroundings) lastCustom(node string) ipamd.Custom {
	if f, ok := s.cache.last(node); ok && f.CustomKnown {
		f.Custom.Enabled = true
		return f.Custom
	}
	return ipamd.Custom{Enabled: true, Problem: fmt.Sprintf("the API server has not said yet which ENIConfig node %s selects", node)}
}
