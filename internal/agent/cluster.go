package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
	"github.com/fairway-cni/fairway/internal/core/cluster"
	"github.com/fairway-cni/fairway/internal/core/eniconfig"
	"github.com/fairway-cni/fairway/internal/edge/kube"
)

// ClusterAccess is the Kubernetes cluster that the node is of. Without a NodeName
// there is none, and nobody is asked.
type ClusterAccess struct {
	NodeName       string // MY_NODE_NAME
	Kubeconfig     string // KUBECONFIG: file; empty: the pod's service account
	Service        string // host:port of the API server for pods
	Endpoint       string // CLUSTER_ENDPOINT: URL that is asked instead
	AnnotatePodIPs bool   // ANNOTATE_POD_IP
}

// member is the node as one of a cluster:
//
//	watches ----> signals ----> feed -------> node loop   pods to come, max-pods, ENIConfig
//	                      |---> taint -----> API server   the start-up taint, once ready
//	                      |---> annotate --> API server   pods' addresses, where wanted
//	node loop <-- status ------ publish ---> API server   ENINode, events
//
// Only feed is waited for by nobody and waits for the node loop alone. The others
// write, and what the API server does to them stays with them: while it is away
// nothing here changes what the node does.
type member struct {
	cfg     Config
	zone    string
	log     *slog.Logger
	api     *kube.Client
	loop    *nodeLoop
	cache   *clusterCache
	rollout *rollout // may be nil: no NodeConfig is looked at

	feeding, tainted, annotated chan struct{} // signals; one pending is enough
}

func newMember(a *assembly, loop *nodeLoop) *member {
	signal := func() chan struct{} { return make(chan struct{}, 1) }
	return &member{cfg: a.cfg, zone: a.self.Zone, log: a.log, api: a.cluster.api, loop: loop,
		cache: a.cluster.cache, rollout: a.cluster.rollout, feeding: signal(), tainted: signal(), annotated: signal()}
}

func ring(signal chan struct{}) {
	select {
	case signal <- struct{}{}:
	default:
	}
}

// hear takes what a watch has to say.
func (m *member) hear(k kube.Kind) {
	ring(m.feeding)
	switch k {
	case kube.Nodes:
		ring(m.tainted)
	case kube.Pods:
		ring(m.annotated)
	case kube.ENIConfigs, kube.NodeConfigs:
	}
}

// run is the four loops, until ctx ends. It is called when the agent serves.
func (m *member) run(ctx context.Context) {
	var loops sync.WaitGroup
	defer loops.Wait()
	for _, signal := range []chan struct{}{m.feeding, m.tainted, m.annotated} {
		ring(signal)
	}
	loops.Go(func() { m.feed(ctx) })
	loops.Go(func() { m.heal(ctx, m.tainted, m.removeTaint) })
	if m.cfg.Cluster.AnnotatePodIPs {
		loops.Go(func() { m.heal(ctx, m.annotated, m.annotate) })
	}
	loops.Go(func() { newPublisher(m).run(ctx) })
}

// feed brings to the node loop what the cluster knows of this node.
func (m *member) feed(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.feeding:
		}
		pods, seen := m.api.Pods()
		n, known := m.api.Node()
		custom, ok := m.custom(n, known)
		awaiting := cluster.Awaiting(pods, nil)
		err := m.loop.doBook(ctx, func(b *ipamd.Book) {
			if seen {
				b.Schedule(awaiting)
			}
			if known && n.MaxPods > 0 {
				b.SetMaxPods(n.MaxPods)
			}
			if ok {
				b.SetCustom(custom)
			}
		})
		if err != nil {
			return
		}
		if known {
			m.cache.keep(clusterFacts{Node: n, Custom: custom, CustomKnown: ok}, m.log)
		}
	}
}

// custom is the ENIConfig that the node selects, as far as the API server has said. In
// a cluster the objects are its; with a file of ENIConfigs they are the file's.
func (m *member) custom(n cluster.Node, known bool) (ipamd.Custom, bool) {
	network := m.cfg.CustomNetwork
	if !network.Enabled || network.File != "" {
		return ipamd.Custom{}, false
	}
	list, bad, seen := m.api.ENIConfigs()
	if !known || !seen {
		return ipamd.Custom{}, false
	}
	custom := ipamd.Custom{Enabled: true}
	set, err := eniconfig.NewSet(eniconfig.Node{}, list)
	if err == nil {
		of := eniconfig.Node{Name: n.Name, Labels: n.Labels, Annotations: n.Annotations}
		var c eniconfig.Config
		c, _, err = set.Select(of.InZone(m.zone), eniconfig.Keys{Annotation: network.AnnotationKey, Label: network.LabelKey})
		custom.Name, custom.Subnet, custom.Groups = c.Name, c.SubnetID, c.Groups
	}
	if errors.Is(err, eniconfig.ErrAbsent) && len(bad) > 0 { // most likely one of these
		err = errors.Join(append([]error{err}, bad...)...)
	}
	if err != nil {
		custom.Problem = err.Error()
	}
	return custom, true
}

// firstWrite and longestWrite bound the wait between two attempts at something that
// the API server does not take; it doubles.
const (
	firstWrite   = time.Second
	longestWrite = 5 * time.Minute
)

// heal does f after each signal, and again while it fails, less and less often.
func (m *member) heal(ctx context.Context, signal <-chan struct{}, f func(context.Context) error) {
	pause := firstWrite
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-signal:
		case <-again:
		}
		again = nil
		err := f(ctx)
		if err == nil || ctx.Err() != nil {
			pause = firstWrite
			continue
		}
		m.log.Warn("write to the api server", "error", err, "retry", pause)
		again = time.After(pause)
		pause = min(2*pause, longestWrite)
	}
}

// removeTaint takes the start-up taint off the Node: the agent serves.
func (m *member) removeTaint(ctx context.Context) error {
	n, known := m.api.Node()
	if _, tainted := n.Without(cluster.NotReadyTaint); !known || !tainted {
		return nil
	}
	err := m.api.RemoveTaint(ctx, n, cluster.NotReadyTaint)
	if err == nil {
		m.log.Info("start-up taint removed", "taint", cluster.NotReadyTaint)
		return nil
	}
	return fmt.Errorf("remove the start-up taint: %w", err)
}

// annotate makes the annotation of each pod say the address that it has, and of one
// without address nothing.
func (m *member) annotate(ctx context.Context) error {
	held := make(map[cluster.PodName]string)
	err := m.loop.doBook(ctx, func(b *ipamd.Book) {
		for _, r := range b.Held() {
			held[cluster.PodName{Namespace: r.PodNamespace, Name: r.PodName}] = r.Addr.String()
		}
	})
	if err != nil {
		return err
	}
	var errs []error
	pods, _ := m.api.Pods()
	for _, p := range pods {
		if p.HostNetwork || p.PodIPs == held[p.PodName] {
			continue
		}
		err := m.api.AnnotatePod(ctx, p, cluster.PodIPsAnnotation, held[p.PodName])
		if err != nil && !errors.Is(err, kube.ErrAbsent) && !errors.Is(err, kube.ErrConflict) { // it has gone, or another has come
			errs = append(errs, err)
		}
		if ctx.Err() != nil || len(errs) > 3 {
			break // the rest would fare no better
		}
	}
	return errors.Join(errs...)
}
