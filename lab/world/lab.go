package world

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/guest"
)

// The addresses that every instance finds in its VPC.
var (
	// MetadataAddr is where the instance metadata service is on EC2. Source:
	// "Use the Instance Metadata Service", Amazon EC2 User Guide.
	MetadataAddr = netip.MustParseAddrPort("169.254.169.254:80")
	// EC2Addr is the lab's EC2 endpoint, in place of a VPC endpoint: a
	// link-local address that AWS does not use, so that it hides nothing.
	EC2Addr = netip.MustParseAddrPort("169.254.100.1:80")
)

// ErrRunning says that a lab of this name runs already.
var ErrRunning = errors.New("a lab of this name is running")

// retryInterval is how soon the lab tries again what failed.
const retryInterval = time.Second

// Config says how to run a World.
type Config struct {
	World *World
	Dir   string   // state on the host, absolute; see [Dir]
	Path  []string // directories that come first in the PATH of what runs in instances
	Log   *slog.Logger

	// Image, if not nil, puts into an instance what its machine image brings,
	// at each boot, before the daemons start. It is called again after it failed.
	Image func(context.Context, *guest.Client) error
}

// Lab is a World that runs: the cloud holds what exists, and one loop makes the
// fabric and the guests follow.
//
//	EC2 API --> ec2sim.Cloud --Snapshot--> loop --> fabric.Sync, guest.Start, ...
//	                ^                        |
//	                +--- DeviceAttached, ... +
//
// The loop is level-triggered: it compares, it does not replay. What fails is
// tried again.
type Lab struct {
	cfg    Config
	cloud  *ec2sim.Cloud
	fabric *fabric.Fabric
	lock   *os.File
	cgroup string
	stop   context.CancelFunc
	done   chan struct{}
	ready  chan struct{} // closed when every instance of the World runs

	mu       sync.Mutex // guards what Status reads and the loop writes
	machines map[string]*machine
	failure  error                    // of the last pass
	off      map[string]bool          // instances that were killed
	ill      map[string]MetadataFault // by instance

	born     map[string]bool         // instances of the World; does not change
	services map[string]net.Listener // by VPC, or by ENI and attachment; the loop's own
	metadata map[string]http.Handler // by instance; the loop's own
	reboots  map[string]int          // those done that EC2's API asked for, by instance; the loop's own
	orders   chan order              // for the loop, from Kill, Reboot and metadata faults
	settling chan chan struct{}      // for the loop, from Settle; it closes what it gets
}

// machine is an instance that has been booted.
type machine struct {
	*guest.Guest
	daemons []Daemon    // not started yet
	booted  bool        // configured, and all daemons started
	ending  atomic.Bool // its power is being cut, by us
}

// end stops the guest. From now on that it does not answer is no error.
func (m *machine) end() error {
	m.ending.Store(true)
	return m.Stop()
}

// root is where all labs keep their state; it goes with the last of them.
const root = "/run/fairway-lab"

// Dir is where a lab of this name keeps its state on the host.
func Dir(name string) string { return filepath.Join(root, name) }

// Cgroup is the control group of all instances of a lab.
func Cgroup(name string) (string, error) {
	root, err := guest.CgroupRoot()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "fairway-lab."+name), nil
}

// Start brings the World to life and returns when it is built; [Lab.Ready] says
// when it runs. ctx bounds the start only.
func Start(ctx context.Context, cfg Config) (_ *Lab, err error) {
	if err := cfg.World.Validate(); err != nil {
		return nil, err
	}
	if err := errors.Join(guest.Check(), fabric.Probe()); err != nil {
		return nil, fmt.Errorf("this machine cannot run a lab: %w", err)
	}
	cgroup, err := Cgroup(cfg.World.Name)
	if err != nil {
		return nil, err
	}
	lock, err := takeLock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if err := sweepOut(cfg.Dir, cgroup); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	f, err := fabric.New(fabric.Config{Services: []netip.Addr{MetadataAddr.Addr(), EC2Addr.Addr()}})
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	l := &Lab{
		cfg:      cfg,
		cloud:    ec2sim.New(cfg.World.cloud()),
		fabric:   f,
		lock:     lock,
		cgroup:   cgroup,
		done:     make(chan struct{}),
		ready:    make(chan struct{}),
		machines: make(map[string]*machine),
		off:      make(map[string]bool),
		ill:      make(map[string]MetadataFault),
		reboots:  make(map[string]int),
		born:     make(map[string]bool),
		orders:   make(chan order),
		settling: make(chan chan struct{}),
		services: make(map[string]net.Listener),
		metadata: make(map[string]http.Handler),
	}
	if err := build(l.cloud, cfg.World); err != nil {
		return nil, errors.Join(err, l.tearDown())
	}
	for _, i := range l.cloud.Snapshot().Instances {
		l.born[i.ID] = true
	}
	l.cloud.Propagate() // the world as it is described is nobody's news
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	go l.run(run)
	return l, nil
}

// sweepOut removes what a lab of the same name left when it was killed: the lock
// is ours, so it does not run.
func sweepOut(dir, cgroup string) error {
	if err := guest.Reap("", cgroup); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read lab directory: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove what a killed lab left: %w", err)
		}
	}
	return nil
}

// Cloud is the lab's EC2, to be called in-process.
func (l *Lab) Cloud() *ec2sim.Cloud { return l.cloud }

// Fabric is the lab's network.
func (l *Lab) Fabric() *fabric.Fabric { return l.fabric }

// Ready is closed once every instance of the World runs with its daemons
// started.
func (l *Lab) Ready() <-chan struct{} { return l.ready }

// Failure is what the last pass of the loop could not do, or nil.
func (l *Lab) Failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// Close ends the lab: every process, namespace, device, cgroup and file of it.
func (l *Lab) Close() error {
	l.stop()
	<-l.done
	return l.tearDown()
}

// run is the loop.
func (l *Lab) run(ctx context.Context) {
	defer close(l.done)
	ready := false
	var ordered order
	var waiting []chan struct{}
	for {
		changed := l.cloud.Changed()
		err := l.reconcile(ctx)
		if ordered.done != nil {
			ordered.done <- err
			ordered = order{}
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil && !closed(changed) {
			for _, w := range waiting {
				close(w)
			}
			waiting = nil
		}
		l.mu.Lock()
		l.failure = err
		l.mu.Unlock()
		if !ready && err == nil && l.allRunning() {
			ready = true
			close(l.ready)
		}
		retry, wake := make(<-chan time.Time), l.wake()
		if err != nil {
			l.cfg.Log.Error("the lab is not as asked for", "error", err, "retry", retryInterval)
			retry = time.After(retryInterval)
		}
	idle:
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			case <-retry:
			case <-wake:
			case w := <-l.settling:
				if err == nil && !closed(changed) {
					close(w)
					continue idle
				}
				waiting = append(waiting, w)
			case o := <-l.orders:
				if err := o.do(); err != nil {
					o.done <- err
				} else {
					ordered = o
				}
			}
			break
		}
	}
}

func (l *Lab) allRunning() bool {
	for _, i := range l.cloud.Snapshot().Instances {
		if i.State != ec2sim.StateRunning {
			return false
		}
	}
	return true
}

// tearDown removes all that Start and the loop made.
func (l *Lab) tearDown() error {
	var errs []error
	for id, ln := range l.services {
		errs = append(errs, ignoreClosed(ln.Close()))
		delete(l.services, id)
	}
	l.mu.Lock()
	machines := l.machines
	l.machines = map[string]*machine{}
	l.mu.Unlock()
	stopped := make(chan error)
	for _, m := range machines {
		go func() { stopped <- m.end() }()
	}
	for range machines {
		errs = append(errs, <-stopped)
	}
	errs = append(errs, l.fabric.Close())
	errs = append(errs, reap(l.cfg.Dir, l.cgroup), l.lock.Close())
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// serve answers HTTP on ln until ln is closed.
func (l *Lab) serve(ln net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(l.cfg.Log.Handler(), slog.LevelDebug)}
	if err := s.Serve(ln); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
		l.cfg.Log.Error("serve", "address", ln.Addr(), "error", err)
	}
}
