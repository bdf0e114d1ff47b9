package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/world"
)

// ControlPlane is the instance that is the control plane.
const ControlPlane = "control-plane"

// ProxyModes are kube-proxy's; the default is that of Amazon EKS.
var ProxyModes = []string{DefaultProxyMode, "nftables"}

// DefaultProxyMode is the one where none is asked for.
const DefaultProxyMode = "iptables"

// Names in a cluster's directory on the host.
const (
	dirName      = "kubernetes"
	adminName    = "admin.conf"
	programsName = "programs"
)

// Dir is where the cluster of a lab keeps its state on the host.
func Dir(lab string) string { return filepath.Join(world.Dir(lab), dirName) }

// lookInterval is how often the lab is looked at, and what failed is tried again.
const lookInterval = time.Second

// Config says how to run a cluster.
type Config struct {
	Lab       *world.Lab // that runs, with the instances of [WithControlPlane]
	Name      string     // of the lab
	Programs  Programs
	Setup     []string // command that runs [Apply] on its standard input, in an instance
	ProxyMode string   // one of ProxyModes; empty: the default
	Outside   []string // instances, by name or ID, that are no nodes
	Log       *slog.Logger
}

// Cluster is a cluster that runs in a lab.
type Cluster struct {
	cfg      Config
	dir      string
	ca       *authority
	accounts pair // signs the tokens of service accounts
	server   netip.AddrPort
	services netip.Prefix
	stop     context.CancelFunc
	done     chan struct{}
	served   chan struct{} // closed when the API server has answered once
	client   *client

	mu       sync.Mutex
	machines map[string]*machine // by instance
}

// machine is an instance that is being made a part of the cluster, or is one.
type machine struct {
	pid     int // of the instance's init: another one is another boot
	control int // the same of the control plane that it knows
	cancel  context.CancelFunc
	made    bool
	err     error // of the last try
	daemons map[string]daemon
}

// WithControlPlane gives the world an instance [ControlPlane] in the subnet of its
// first instance, if it has none.
func WithControlPlane(w *world.World) (*world.World, error) {
	for _, in := range w.Instances {
		if in.Name == ControlPlane {
			return w, nil
		}
	}
	if len(w.Instances) == 0 {
		return nil, errors.New("the world has no instance that could be a node")
	}
	changed := *w
	first := w.Instances[0]
	changed.Instances = append(slices.Clone(w.Instances), world.Instance{
		Pos: w.Pos, Name: ControlPlane, Type: "m5.large", VPC: first.VPC, Subnet: first.Subnet, HopLimit: 2,
	})
	return &changed, nil
}

// Start begins a cluster. It returns when the API server answers and all nodes are
// there: ready, or in want of nothing but a network configuration, which may come
// by the cluster itself. ctx bounds the start only.
func Start(ctx context.Context, cfg Config) (_ *Cluster, err error) {
	if err := cfg.Programs.Check(); err != nil {
		return nil, err
	}
	s, err := cfg.Lab.Status(ctx, os.Getpid())
	if err != nil {
		return nil, err
	}
	control, err := s.Find(ControlPlane)
	if err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, dir: Dir(cfg.Name), server: netip.AddrPortFrom(control.Address, apiPort),
		done: make(chan struct{}), served: make(chan struct{}), machines: map[string]*machine{}}
	var ranges []netip.Prefix
	for _, v := range cfg.Lab.Cloud().Snapshot().VPCs {
		ranges = append(ranges, v.CIDRs...)
	}
	if c.services, err = serviceRange(ranges); err != nil {
		return nil, err
	}
	if err := c.makeIdentities(); err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	go c.run(run)
	if err := c.await(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// makeIdentities makes what everybody is known by, and leaves on the host what the
// administrator needs.
func (c *Cluster) makeIdentities() (err error) {
	if c.ca, err = newAuthority(time.Now()); err != nil {
		return err
	}
	if c.accounts, err = c.ca.issue(identity{user: "service-accounts"}); err != nil {
		return err
	}
	who := identity{user: "admin", groups: []string{"system:masters"}}
	admin, err := c.ca.issue(who)
	if err != nil {
		return err
	}
	if c.client, err = newClient(c.server, c.ca.pair.cert, admin); err != nil {
		return err
	}
	conf, err := c.ca.kubeconfig(c.server, who)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.dir, adminName), conf, 0o600); err != nil {
		return err
	}
	return os.Symlink(string(c.cfg.Programs), filepath.Join(c.dir, programsName))
}

// Close stops looking after the cluster. Its programs end with their instances.
func (c *Cluster) Close() {
	c.stop()
	<-c.done
}

// Kubeconfig is the administrator's, whose API server is reached in the network
// namespace of the control plane, and from the lab's other instances.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, adminName) }

// run is the loop.
func (c *Cluster) run(ctx context.Context) {
	defer close(c.done)
	var making sync.WaitGroup
	defer making.Wait()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		s, err := c.cfg.Lab.Status(ctx, os.Getpid())
		if err == nil {
			c.look(ctx, s, &making)
		} else if ctx.Err() == nil {
			c.cfg.Log.Error("cannot look at the lab", "error", err, "retry", lookInterval)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look compares what runs with what should.
func (c *Cluster) look(ctx context.Context, s world.Status, making *sync.WaitGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	alive, control := map[string]bool{}, controlPID(s)
	for _, in := range s.Instances {
		if in.State != ec2sim.StateRunning || in.Socket == "" || c.outside(in) {
			continue
		}
		alive[in.ID] = true
		m := c.machines[in.ID]
		switch {
		case m == nil || m.pid != in.PID:
			if m != nil {
				m.cancel()
			}
			own, cancel := context.WithCancel(ctx)
			m = &machine{pid: in.PID, control: control, cancel: cancel, daemons: map[string]daemon{}}
			c.machines[in.ID] = m
			making.Go(func() { c.keepMaking(own, m, in, s.Path) })
		case m.made:
			if m.err = c.keep(ctx, m, in, s); m.err != nil && ctx.Err() == nil {
				c.cfg.Log.Error("cannot keep an instance as the cluster needs it", "instance", in.ID, "error", m.err, "retry", lookInterval)
			}
		}
	}
	for id, m := range c.machines {
		if !alive[id] {
			m.cancel()
			delete(c.machines, id)
		}
	}
}

func (c *Cluster) outside(in world.InstanceStatus) bool {
	return slices.Contains(c.cfg.Outside, in.Name) || slices.Contains(c.cfg.Outside, in.ID)
}

// keepMaking makes an instance a part of the cluster, and tries again what failed.
func (c *Cluster) keepMaking(ctx context.Context, m *machine, in world.InstanceStatus, path []string) {
	for ctx.Err() == nil {
		err := c.bring(ctx, m, in, path)
		if ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		m.err, m.made = err, err == nil
		c.mu.Unlock()
		if err == nil {
			return
		}
		c.cfg.Log.Error("an instance is not as the cluster needs it", "instance", in.ID, "error", err, "retry", lookInterval)
		select {
		case <-ctx.Done():
		case <-time.After(lookInterval):
		}
	}
}

// await waits for what Start promises.
func (c *Cluster) await(ctx context.Context) error {
	for {
		err := c.whole(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the cluster is not up: %w", err), c.failures())
		case <-time.After(lookInterval / 5):
		}
	}
}

// failures is what the loop could not do so far.
func (c *Cluster) failures() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for id, m := range c.machines {
		if m.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", id, m.err))
		}
	}
	return errors.Join(errs...)
}

// whole says what is missing of a cluster that can be used.
func (c *Cluster) whole(ctx context.Context) error {
	select {
	case <-c.served:
	default:
		return errors.New("the API server does not answer")
	}
	s, err := c.cfg.Lab.Status(ctx, os.Getpid())
	if err != nil {
		return err
	}
	for _, in := range s.Instances {
		if in.State != ec2sim.StateRunning || in.Name == ControlPlane || c.outside(in) {
			continue
		}
		if err := c.client.nodeJoined(ctx, nodeOf(in).name); err != nil {
			return err
		}
	}
	// Without it no pod can be made.
	return c.client.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil)
}
