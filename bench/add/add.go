// Package add measures what a pod's network costs: an ADD and a DEL from the
// start of the plugin to its end, beside the floor, in an instance of a lab.
//
//	bench process                      instance (its namespaces)
//	+----------------+   where, JSON   +-----------------------------------+
//	| lab: EC2, IMDS |---------------->| Inside                            |
//	| Run            |<----------------|  |- floor        exec, netlink    |
//	+----------------+   rounds, JSON  |  |- fairway-cni  exec, ask, print |
//	                                   |  fairway-agent, pool warm         |
//	                                   +-----------------------------------+
//
// The floor (program floor) is a Go program that is started and does the same
// kernel writes by itself. It runs in the same network namespace, into the same
// tables, in turn with the plugin; a difference between the two is what agent,
// protocol and records cost. Before it measures, the bench compares what both
// leave in the kernel, and fails if that is not the same.
//
// The agent has 343 addresses and no cool-down, so that no ADD waits for EC2.
// The making of namespaces and their removal are the runtime's and are not
// measured; the removal is waited for.
//
// [Run] runs the lab in its own goroutines and waits for [Inside], which runs
// one program at a time, or 16.
package add

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/lab/world"
)

// Env is the outside of the bench.
type Env struct {
	Program  string // path of this program, which calls Inside when it is run so
	Argv     []string
	BinDir   string // has fairway-agent, fairway-cni and floor
	Progress io.Writer
}

// Packages are the programs that the bench runs, all built alike.
var Packages = []string{
	"github.com/fairway-cni/fairway/cmd/fairway-agent",
	"github.com/fairway-cni/fairway/cmd/fairway-cni",
	"github.com/fairway-cni/fairway/bench/floor",
}

const (
	labName      = "bench-add"
	instanceType = "m5.24xlarge" // 15 ENIs of 50 addresses
	enis         = 7             // as many as 250 pods, a burst and some slack need
	daemon       = "agent"
	startTimeout = time.Minute
)

// Run runs the lab and in it the bench, prints the distributions to out, and
// gives the figures. When ctx ends it removes all that it made, too.
func Run(ctx context.Context, env Env, out io.Writer) (_ Figures, err error) {
	limits, ok := vpc.LimitsOf(instanceType)
	if !ok || limits.ENIs < enis {
		return Figures{}, fmt.Errorf("instance type %s has %d ENIs, want %d", instanceType, limits.ENIs, enis)
	}
	warm := enis * (limits.IPv4PerENI - 1)
	dir := world.Dir(labName)
	if err := clearLeftover(ctx, dir); err != nil {
		return Figures{}, err
	}
	fmt.Fprintln(env.Progress, "add: starting a lab of one", instanceType)
	l, err := world.Start(ctx, world.Config{World: describe(warm), Dir: dir, Path: []string{env.BinDir},
		Log: slog.New(slog.NewTextHandler(env.Progress, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		return Figures{}, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	start, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case <-l.Ready():
	case <-start.Done():
		return Figures{}, errors.Join(fmt.Errorf("start lab: %w", start.Err()), l.Failure())
	}
	s, err := l.Status(ctx, os.Getpid())
	if err != nil {
		return Figures{}, err
	}
	node := s.Instances[0]
	text, err := inside(ctx, env, s, where{
		Plugin: filepath.Join(env.BinDir, "fairway-cni"), Floor: filepath.Join(env.BinDir, "floor"), Addresses: warm, ENIs: enis,
	})
	if err != nil {
		return Figures{}, withLog(err, filepath.Join(dir, world.LogName(node.ID, daemon)))
	}
	var rounds []round
	if err := json.Unmarshal(text, &rounds); err != nil {
		return Figures{}, fmt.Errorf("read what was measured: %w", err)
	}
	f := figures(rounds)
	return f, f.WriteTable(out)
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

// describe is a world of one instance, whose agent has all addresses that it
// may have before the first ADD.
func describe(warm int) *world.World {
	return &world.World{
		Name: labName, Region: "eu-west-1",
		VPCs: []world.VPC{{Name: "main", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
			Subnets: []world.Subnet{{Name: "a", CIDR: netip.MustParsePrefix("10.0.0.0/20"), Zone: "eu-west-1a"}}}},
		Instances: []world.Instance{{
			Name: "node", Type: instanceType, VPC: "main", Subnet: "a", HopLimit: 2,
			Daemons: []world.Daemon{{
				Name: daemon, Capabilities: []string{"NET_ADMIN"},
				Command: []string{"fairway-agent", "--cool-down=0s",
					"--max-enis=" + strconv.Itoa(enis), "--warm-ip-target=" + strconv.Itoa(warm)},
			}},
		}},
	}
}

// inside runs [Inside] in the instance and gives what it prints.
func inside(ctx context.Context, env Env, s world.Status, w where) ([]byte, error) {
	c, err := guest.Dial(s.Instances[0].Socket)
	if err != nil {
		return nil, err
	}
	arg, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	r, pipe, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(r) // what is cut short is no JSON
		text <- b
	}()
	progress, _ := env.Progress.(*os.File)
	status, err := c.Exec(ctx, guest.Cmd{
		Argv: append(append([]string{env.Program}, env.Argv...), string(arg)), Env: world.Env(s.Region, s.Path), Stdout: pipe, Stderr: progress,
	})
	pipe.Close()
	b := <-text
	if err == nil && status.Shell() != 0 {
		err = fmt.Errorf("measure in the instance: %s", status)
	}
	return b, err
}

// withLog adds the end of the agent's log, which goes with the lab.
func withLog(err error, path string) error {
	const most = 2000 // bytes
	log, readErr := os.ReadFile(path)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	return fmt.Errorf("%w; the agent's log ends:\n%s", err, bytes.TrimSpace(log[max(0, len(log)-most):]))
}
