package pods

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/fairway-cni/fairway/lab/kubernetes"
	"github.com/fairway-cni/fairway/lab/world"
)

const (
	labName = "bench-pods"
	// startTime bounds the start of a cluster, on a machine that is very busy.
	startTime = 3 * time.Minute
)

// describe is a world of three nodes, with Fairway's agent or without one. The agent
// has a kubeconfig in the file conf, and waits for it.
func describe(n Network, round int, conf string) *world.World {
	w := &world.World{
		Name: labName, Region: "eu-west-1",
		EC2: world.EC2{Delay: callDelay, Attach: attachTime, Seed: round + 1},
		VPCs: []world.VPC{{Name: "main", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
			Subnets: []world.Subnet{{Name: "a", CIDR: netip.MustParsePrefix("10.0.0.0/17"), Zone: "eu-west-1a"}}}},
	}
	for i := range nodes {
		in := world.Instance{Name: "node-" + strconv.Itoa(i), Type: nodeType, VPC: "main", Subnet: "a", HopLimit: 2}
		if n == Fairway {
			agent := kubernetes.WhenThere(conf, "fairway-agent", "--node-name="+in.Name, "--kubeconfig="+conf)
			in.Daemons = []world.Daemon{{Name: "agent", Command: agent, Capabilities: []string{"NET_ADMIN"}}}
		}
		w.Instances = append(w.Instances, in)
	}
	return w
}

// site is a cluster that runs.
type site struct {
	dir     string
	lab     *world.Lab
	cluster *kubernetes.Cluster
	nodes   []world.InstanceStatus
	control int    // PID of a process of the control plane
	shared  string // directory that the nodes see, too
	conf    string // the agents' kubeconfig, there
}

func open(ctx context.Context, env Env, n Network, round int) (_ *site, err error) {
	s := &site{dir: world.Dir(labName)}
	if err := clearLeftover(ctx, s.dir); err != nil {
		return nil, err
	}
	programs := kubernetes.Programs(env.Programs)
	if err := programs.Check(); err != nil {
		return nil, fmt.Errorf("%w; make kubernetes builds them", err)
	}
	if s.shared, err = os.MkdirTemp("", labName+"-"); err != nil {
		return nil, fmt.Errorf("make directory for the agents: %w", err)
	}
	defer func() {
		if err != nil {
			s.close(&err)
		}
	}()
	s.conf = filepath.Join(s.shared, "agent.conf")
	w, err := kubernetes.WithControlPlane(describe(n, round, s.conf))
	if err != nil {
		return nil, err
	}
	setup := []string{filepath.Join(env.BinDir, "fairway-lab"), "kubernetes-setup"}
	log := slog.New(slog.NewTextHandler(env.Progress, &slog.HandlerOptions{Level: slog.LevelError}))
	s.lab, err = world.Start(ctx, world.Config{World: w, Dir: s.dir, Path: []string{env.BinDir}, Log: log, Image: programs.Image(setup)})
	if err != nil {
		return nil, err
	}
	start, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	select {
	case <-s.lab.Ready():
	case <-start.Done():
		return nil, errors.Join(fmt.Errorf("start lab: %w", start.Err()), s.lab.Failure())
	}
	s.cluster, err = kubernetes.Start(start, kubernetes.Config{Lab: s.lab, Name: labName, Programs: programs, Setup: setup, Log: log})
	if err != nil {
		return nil, err
	}
	status, err := s.lab.Status(ctx, os.Getpid())
	if err != nil {
		return nil, err
	}
	for _, in := range status.Instances {
		if in.Name == kubernetes.ControlPlane {
			s.control = in.PID
		} else {
			s.nodes = append(s.nodes, in)
		}
	}
	if n == PTP {
		return s, s.installPTP()
	}
	return s, s.admit(ctx, env.Deploy)
}

// clearLeftover removes what a bench that was killed has left. One that runs
// keeps its lock, and is left alone.
func clearLeftover(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := world.Connect(dir).Down(ctx, labName); err != nil {
		return fmt.Errorf("lab %s is there already, of a bench that runs: %w", labName, err)
	}
	return nil
}

// installPTP gives each node a network of the two plugins alone, and a range that
// is no other's.
func (s *site) installPTP() error {
	for i, n := range s.nodes {
		const list = `{"cniVersion": "1.0.0", "name": "ptp", "plugins": [{"type": "ptp",
 "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.200.%d.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}`
		dir := filepath.Join("/proc", strconv.Itoa(n.PID), "root/etc/cni/net.d")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("install network: %w", err)
		}
		tmp := filepath.Join(dir, ".ptp")
		if err := os.WriteFile(tmp, fmt.Appendf(nil, list, i), 0o644); err != nil {
			return fmt.Errorf("install network: %w", err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, "10-ptp.conflist")); err != nil {
			return fmt.Errorf("install network: %w", err)
		}
	}
	return nil
}

// close ends the cluster and its lab. It is for defer.
func (s *site) close(err *error) {
	if s.cluster != nil {
		s.cluster.Close()
	}
	if s.lab != nil {
		*err = errors.Join(*err, s.lab.Close())
	}
	*err = errors.Join(*err, os.RemoveAll(s.shared))
}
