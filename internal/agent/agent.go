package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
	"github.com/fairway-cni/fairway/internal/core/eniconfig"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/bootclock"
	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/cniapi/cniserver"
	"github.com/fairway-cni/fairway/internal/edge/cri"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/imds"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
	"github.com/fairway-cni/fairway/internal/edge/metrics"
	"github.com/fairway-cni/fairway/internal/edge/nodefile"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

// Outside is the two worlds that the agent cannot open by itself: its
// configuration comes from the process's environment, which only cmd/ reads.
type Outside struct {
	IMDS *imds.Client
	// EC2 makes a client for the region that IMDS names.
	EC2 func(region string) (*ec2.Client, error)
	// Options is the configuration with the options of a NodeConfig over all others.
	// Its error names the option that is wrong. Nil: no NodeConfig is looked at.
	Options func(map[string]string) (Config, error)
	// API reaches the API server; nil: the network does.
	API http.RoundTripper
}

// Run is the agent, until ctx ends. It returns an error if it cannot start or
// cannot go on; what fails and may mend itself is logged and tried again.
func Run(ctx context.Context, cfg Config, out Outside, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if cfg.Cluster.NodeName == "" {
		return run(ctx, &assembly{cfg: cfg, out: out, log: log, metrics: metrics.New()})
	}
	return runInCluster(ctx, cfg, out, log)
}

// run is the agent with one configuration.
func run(ctx context.Context, a *assembly) (err error) {
	cfg, log := a.cfg, a.log
	plugins, absent, err := chain(cfg)
	if err != nil {
		return err
	}
	if absent != "" {
		log.Info("pods have no host ports: the plugin is not installed", "path", absent)
	}
	k, err := kernel.OpenAt(cfg.SysctlDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	if err := k.Probe(); err != nil {
		return err
	}
	if !served(cfg) {
		if err := removeNetConf(cfg); err != nil {
			return err
		}
	}
	records, err := store.Open(cfg.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	a.openClock()

	a.plugins = plugins
	if err := a.learn(ctx); err != nil {
		log.Info("ended before it knew where it is", "error", err)
		return nil // it would have gone on trying
	}
	n := &nodeState{
		cfg: cfg, log: log, clock: a.clock, kernel: k, routing: a.vpcs.known, metrics: a.metrics,
		book:    ipamd.NewBook(a.pool, a.self, records, log, a.clock.Now),
		devices: make(map[vpc.MAC]string),
		pods:    make(map[ipam.Owner]node.Attachment),
		gone:    make(map[ipam.Owner]time.Time), unproven: make(chan struct{}, 1),
	}
	n.book.Drives(n.drive)
	if err := n.restore(); err != nil {
		return err
	}
	n.book.SawMetadata(a.enis, a.asked)
	if err := n.replay(); err != nil {
		return err
	}
	return a.serve(ctx, n)
}

// assembly is what a start gathers.
type assembly struct {
	cfg     Config
	out     Outside
	log     *slog.Logger
	cluster *surroundings // nil: the node is of none

	plugins []map[string]any // of the network configuration list
	self    ipamd.Identity
	pool    ipamd.Config
	cloud   *ec2.Client // nil: EC2 is not to be called
	metrics *metrics.Metrics
	enis    []vpc.ENI // as IMDS says
	asked   time.Time // when it was asked
	clock   bootclock.Clock
	vpcs    *routes

	tellBroken func(ways []string) // each change of which ways of pods are broken; nil tells nobody
}

// clockFile lies beside the records, whose times it is about.
const clockFile = "clock"

// openClock opens the clock by which the records are written and read.
func (a *assembly) openClock() {
	var err error
	a.clock, err = bootclock.Open(filepath.Join(filepath.Dir(a.cfg.StateDir), clockFile), bootclock.Machine)
	if err != nil {
		a.log.Warn("the machine's clock is used: while it is set, addresses may cool down for too long or too short a time", "error", err)
	}
	if offset := a.clock.Offset(); offset.Abs() > time.Second {
		a.log.Info("the machine's clock was set since this boot's first agent; times of addresses are by the clock as it was", "ahead", offset)
	}
}

// learn asks IMDS who and where we are, until it knows: it may be late when a node
// boots. EC2 is asked for the VPC's routes, and not waited for: a node that has
// addresses works without it. What else EC2 knows the executor learns.
func (a *assembly) learn(ctx context.Context) error {
	if err := a.persist(ctx, "read instance metadata", a.identify); err != nil {
		return err
	}
	a.pool.Custom = a.customNetwork()
	a.vpcs.first(ctx)
	return ctx.Err()
}

func (a *assembly) identify(ctx context.Context) error {
	id, err := a.out.IMDS.Identity(ctx)
	if err != nil {
		return err
	}
	a.asked = a.clock.Now()
	if a.enis, err = a.out.IMDS.ENIs(ctx); err != nil {
		return err
	}
	cidrs, err := a.out.IMDS.VPCPrefixes(ctx, id.MAC)
	if err != nil {
		return err
	}
	if !a.cfg.IMDSOnly {
		if a.cloud, err = a.out.EC2(id.Region); err != nil {
			return err
		}
		a.cloud.Know(a.enis)
		a.cloud.Observe = observeEC2(a.metrics)
	}
	a.self = ipamd.Identity{InstanceID: id.InstanceID, InstanceType: id.InstanceType, Limits: a.limits(ctx, id.InstanceType),
		VPCID: id.VPCID, Zone: id.AZ, Groups: id.Groups}
	a.pool = poolConfig(a.cfg)
	a.vpcs = &routes{log: a.log, cloud: a.cloud, imds: a.out.IMDS, vpcID: id.VPCID, mac: id.MAC,
		known: vpc.Routing{CIDRs: cidrs}, cache: filepath.Join(filepath.Dir(a.cfg.StateDir), routesCache)}
	return nil
}

// limits of the instance type are compiled in; EC2 is asked about a newer one.
func (a *assembly) limits(ctx context.Context, instanceType string) vpc.Limits {
	limits, ok := vpc.LimitsOf(instanceType)
	if ok {
		return limits
	}
	err := errors.New("ec2 is not to be called")
	if a.cloud != nil {
		ctx, cancel := context.WithTimeout(ctx, firstAnswer)
		defer cancel()
		if limits, err = a.cloud.Limits(ctx, instanceType); err == nil {
			return limits
		}
	}
	// The pool works with what there is; it just cannot grow.
	a.log.Error("limits of this instance type are not known; the node keeps the ENIs and addresses it has", "type", instanceType, "error", err)
	return vpc.Limits{}
}

// poolConfig is the pool's part of the configuration. Nodes that start together do
// not return what they have too much of together.
func poolConfig(c Config) ipamd.Config {
	p := ipamd.Config{
		Targets: c.Targets, CoolDown: c.CoolDown, MaxPods: c.MaxPods, ManageUntagged: c.ManageUntagged, IMDSOnly: c.IMDSOnly,
		SubnetDiscovery: c.SubnetDiscovery, LeakedCleanup: c.LeakedCleanup, Cluster: c.ClusterName, Tags: c.ENITags,
	}
	if after := p.Targets.ReturnAfter; after > 0 {
		p.Targets.ReturnAfter = after + rand.N(after)
	}
	return p
}

// customNetwork reads the ENIConfigs and finds the one that this node selects. What
// is wrong there is a reason to make no ENI, and no reason not to start.
func (a *assembly) customNetwork() ipamd.Custom {
	if !a.cfg.CustomNetwork.Enabled {
		return ipamd.Custom{}
	}
	if a.cfg.CustomNetwork.File == "" { // it is the cluster's, which may be away
		return a.cluster.lastCustom(a.cfg.Cluster.NodeName)
	}
	c, err := selectENIConfig(a.cfg.CustomNetwork, a.self.Zone)
	custom := ipamd.Custom{Enabled: true, Name: c.Name, Subnet: c.SubnetID, Groups: c.Groups}
	if err != nil {
		custom.Problem = err.Error()
		a.log.Error("custom networking: no eni will be made", "error", err)
	}
	return custom
}

func selectENIConfig(n CustomNetwork, zone string) (eniconfig.Config, error) {
	set, err := nodefile.ReadENIConfigs(n.File)
	if err != nil {
		return eniconfig.Config{}, err
	}
	c, _, err := set.Select(set.Node.InZone(zone), eniconfig.Keys{Annotation: n.AnnotationKey, Label: n.LabelKey})
	return c, err
}

// firstPause and longestPause bound the wait between two attempts of a start; it
// doubles. firstAnswer is how long a start waits for what it can do without.
const (
	firstPause   = time.Second
	longestPause = time.Minute
	firstAnswer  = 5 * time.Second
)

// persist repeats f until it succeeds or ctx ends, at growing intervals.
func (a *assembly) persist(ctx context.Context, what string, f func(context.Context) error) error {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		a.log.Error("start", "step", what, "error", err, "advice", ec2.Advice(err), "retry", pause)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		case <-time.After(pause):
		}
	}
}

// serve runs the loops. The network configuration appears only when the agent
// can serve, as it is what makes a node ready.
func (a *assembly) serve(ctx context.Context, n *nodeState) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	loop := newNodeLoop(n)
	x := &ipamd.Executor{Log: a.log, Now: a.clock.Now, Cloud: a.cloud, Meta: a.out.IMDS, Do: loop.doFirst, Observe: observer(a.metrics)}
	h := &handlers{cfg: a.cfg, log: a.log, loop: loop, metrics: a.metrics}

	ln, err := cniserver.Listen(a.cfg.Socket)
	if err != nil {
		return err
	}
	watcher, err := kernel.Watch(n.kernel)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	list, old := netConf(ctx, a.cfg, a.plugins)
	if old != "" {
		a.log.Info("runtimes are not told of CNI 1.1.0: a plugin of the list does not speak it", "plugin", old)
	}
	if err := errors.Join(writeNetConf(a.cfg, list), cniapi.MarkReady(a.cfg.Socket)); err != nil {
		watcher.Close()
		return errors.Join(err, ln.Close())
	}
	a.log.Info("ready", "instance", a.self.InstanceID, "type", a.self.InstanceType, "enis", len(a.enis), "native", n.nativeText())

	var loops sync.WaitGroup
	loops.Go(func() { loop.run(ctx) })
	loops.Go(func() { x.Run(ctx) })
	if a.cloud != nil {
		loops.Go(func() { a.vpcs.run(ctx, a.cfg.VPCPoll, loop) })
	}
	loops.Go(func() { watch(ctx, watcher, loop, a.log) })
	defer watcher.Close() // after it has ended
	loops.Go(func() { newProver(a.log, loop, a.self.VPCID, a.tellBroken).run(ctx) })
	loops.Go(func() { newSight(a.cfg, a.log, loop, a.metrics).serve(ctx) })
	if a.cfg.CRISocket != "" {
		boxes := &sandboxes{log: a.log, runtime: cri.Open(a.cfg.CRISocket), loop: loop}
		loops.Go(func() { boxes.run(ctx) })
	}
	if a.cluster != nil {
		m := newMember(a, loop)
		h.attached = func() { ring(m.annotated) }
		a.cluster.serving(m)
		defer a.cluster.serving(nil)
		loops.Go(func() { m.run(ctx) })
	}
	err = cniserver.Serve(ctx, ln, h.handle)
	stop()
	loops.Wait()
	if errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
