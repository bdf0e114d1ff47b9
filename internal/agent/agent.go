package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/internal/edge/cniapi/cniserver"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/imds"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

// Outside is the two worlds that the agent cannot open by itself: its
// configuration comes from the process's environment, which only cmd/ reads.
type Outside struct {
	IMDS *imds.Client
	// EC2 makes a client for the region that IMDS names.
	EC2 func(region string) (*ec2.Client, error)
}

// Run is the agent, until ctx ends. It returns an error if it cannot start or
// cannot go on; what fails and may mend itself is logged and tried again.
func Run(ctx context.Context, cfg Config, out Outside, log *slog.Logger) (err error) {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	plugins, absent, err := chain(cfg)
	if err != nil {
		return err
	}
	if absent != "" {
		log.Info("pods have no host ports: the plugin is not installed", "path", absent)
	}
	k, err := kernel.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	if err := k.Probe(); err != nil {
		return err
	}
	records, err := store.Open(cfg.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, records.Close()) }()

	a := &assembly{cfg: cfg, out: out, log: log, plugins: plugins}
	if err := a.learn(ctx); err != nil {
		return err
	}
	n := &nodeState{
		cfg: cfg, log: log, now: time.Now, kernel: k, store: records,
		pool:    ipam.NewPool(ipam.Config{CoolDown: coolDown(cfg)}),
		routing: a.routing,
		devices: make(map[vpc.MAC]string),
		pods:    make(map[ipam.Owner]node.Attachment),
		records: make(map[ipam.Owner]store.Record),
		cooling: make(map[netip.Addr]time.Time),
	}
	if err := n.restore(); err != nil {
		return err
	}
	if err := n.setENIs(a.enis); err != nil {
		return err
	}
	if err := n.replay(); err != nil {
		return err
	}
	return a.serve(ctx, n)
}

// coolDown translates the user's zero, which means none, into the pool's.
func coolDown(c Config) time.Duration {
	if c.CoolDown == 0 {
		return -1
	}
	return c.CoolDown
}

// assembly is what a start gathers.
type assembly struct {
	cfg Config
	out Outside
	log *slog.Logger

	plugins []map[string]any // of the network configuration list
	self    identity
	cloud   *ec2.Client
	enis    []vpc.ENI
	routing vpc.Routing
	vpcs    *routes
}

// learn asks IMDS and EC2 who and where we are. Both may be late when a node
// boots, so it goes on asking, and says every time why it has to.
func (a *assembly) learn(ctx context.Context) error {
	if err := a.persist(ctx, "read instance metadata", a.identify); err != nil {
		return err
	}
	if err := a.persist(ctx, "read the vpc's routes from ec2", func(ctx context.Context) (err error) {
		a.routing, err = a.vpcs.learn(ctx)
		return err
	}); err != nil {
		return err
	}
	return a.persist(ctx, "read the node's enis from ec2", func(ctx context.Context) error {
		enis, err := a.cloud.ENIs(ctx, a.self.instanceID)
		if err != nil {
			return err
		}
		if len(enis) == 0 {
			return fmt.Errorf("instance %s has no eni", a.self.instanceID)
		}
		a.enis = enis
		return nil
	})
}

func (a *assembly) identify(ctx context.Context) error {
	id, err := a.out.IMDS.Identity(ctx)
	if err != nil {
		return err
	}
	limits, ok := vpc.LimitsOf(id.InstanceType)
	if !ok {
		// The pool works with what there is; it just cannot grow.
		a.log.Error("limits of this instance type are not known; the node keeps the ENIs and addresses it has", "type", id.InstanceType)
	}
	a.self = identity{instanceID: id.InstanceID, instanceType: id.InstanceType, limits: limits}
	if a.cloud, err = a.out.EC2(id.Region); err != nil {
		return err
	}
	a.vpcs = &routes{log: a.log, cloud: a.cloud, imds: a.out.IMDS, vpcID: id.VPCID, mac: id.MAC}
	return nil
}

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
	loop := &nodeLoop{state: n, commands: make(chan func(*nodeState)), drift: make(chan string)}
	s := newSupply()
	r := &refill{cfg: a.cfg, log: a.log, now: time.Now, cloud: a.cloud, self: a.self, loop: loop, supply: s,
		failures: make(map[ipam.Kind]int)}
	h := &handlers{cfg: a.cfg, log: a.log, self: a.self, loop: loop, supply: s}

	ln, err := cniserver.Listen(a.cfg.Socket)
	if err != nil {
		return err
	}
	if err := writeNetConf(a.cfg, a.plugins); err != nil {
		return errors.Join(err, ln.Close())
	}
	watcher, err := kernel.Watch(n.kernel)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	a.log.Info("ready", "instance", a.self.instanceID, "type", a.self.instanceType, "enis", len(a.enis), "native", n.nativeText())

	var loops sync.WaitGroup
	loops.Go(func() { loop.run(ctx) })
	loops.Go(func() { r.run(ctx) })
	loops.Go(func() { a.vpcs.run(ctx, a.cfg.VPCPoll, loop) })
	loops.Go(func() { watch(ctx, watcher, loop, a.log) })
	defer watcher.Close() // after it has ended
	if a.cfg.Admin != "" {
		loops.Go(func() {
			if err := agentapi.Serve(ctx, a.cfg.Admin, loop.plan); err != nil {
				a.log.Error("serve the admin socket", "error", err)
			}
		})
	}
	err = cniserver.Serve(ctx, ln, h.handle)
	stop()
	loops.Wait()
	if errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
