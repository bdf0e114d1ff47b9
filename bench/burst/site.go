package burst

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

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/lab/world"
)

const (
	labName      = "bench-burst"
	daemon       = "agent"
	startTimeout = time.Minute
)

// describe is a world of nodes without an agent.
func describe(nodes int, instanceType string, seed int) *world.World {
	w := &world.World{
		Name: labName, Region: "eu-west-1",
		EC2: world.EC2{Delay: callDelay, Attach: attachTime, Seed: seed + 1},
		VPCs: []world.VPC{{Name: "main", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
			Subnets: []world.Subnet{{Name: "a", CIDR: netip.MustParsePrefix("10.0.0.0/17"), Zone: "eu-west-1a"}}}},
	}
	for i := range nodes {
		w.Instances = append(w.Instances, world.Instance{Name: "node-" + strconv.Itoa(i), Type: instanceType, VPC: "main", Subnet: "a", HopLimit: 2})
	}
	return w
}

// site is a lab that runs.
type site struct {
	env   Env
	dir   string
	lab   *world.Lab
	nodes []world.InstanceStatus
	path  []string
}

func open(ctx context.Context, env Env, w *world.World) (_ *site, err error) {
	dir := world.Dir(w.Name)
	if err := clearLeftover(ctx, dir, w.Name); err != nil {
		return nil, err
	}
	l, err := world.Start(ctx, world.Config{World: w, Dir: dir, Path: []string{env.BinDir},
		Log: slog.New(slog.NewTextHandler(env.Progress, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		return nil, err
	}
	s := &site{env: env, dir: dir, lab: l}
	start, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case <-l.Ready():
	case <-start.Done():
		return nil, errors.Join(fmt.Errorf("start lab: %w", start.Err()), l.Failure(), l.Close())
	}
	status, err := l.Status(ctx, os.Getpid())
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s.nodes, s.path = status.Instances, world.Env(status.Region, status.Path)
	return s, nil
}

// clearLeftover removes what a bench that was killed has left. One that runs
// keeps its lock, and is left alone.
func clearLeftover(ctx context.Context, dir, name string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := world.Connect(dir).Down(ctx, name); err != nil {
		return fmt.Errorf("lab %s is there already, of a bench that runs: %w", name, err)
	}
	return nil
}

// close ends the lab. It is for defer: an error gets the ends of the agents' logs,
// which go with the lab.
func (s *site) close(err *error) {
	if *err != nil {
		for _, n := range s.nodes {
			const most = 2000 // bytes
			if log, unread := os.ReadFile(s.log(n)); unread == nil {
				*err = fmt.Errorf("%w; the log of the agent of %s ends:\n%s", *err, n.Name, bytes.TrimSpace(log[max(0, len(log)-most):]))
			}
		}
	}
	*err = errors.Join(*err, s.lab.Close())
}

func (s *site) log(n world.InstanceStatus) string {
	return filepath.Join(s.dir, world.LogName(n.ID, daemon))
}

// startAgent starts the agent of a node with its default targets.
func (s *site) startAgent(ctx context.Context, node int, env []string) error {
	n := s.nodes[node]
	c, err := guest.Dial(n.Socket)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.log(n), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	pid, err := c.StartDaemon(ctx, guest.Daemon{Name: daemon, Argv: []string{"fairway-agent", "--cool-down=0s"},
		Env: append(env, s.path...), Log: log, Caps: []uintptr{unix.CAP_NET_ADMIN}})
	s.nodes[node].Daemons = []guest.DaemonStatus{{Name: daemon, PID: pid}}
	return err
}

// half is [Inside] while it runs.
type half struct {
	said   *json.Decoder
	pipe   *os.File
	result chan error
}

// inside runs Inside in the first instance, or in the one that the task names.
func (s *site) inside(ctx context.Context, t task) (*half, error) {
	c, err := guest.Dial(s.nodes[t.Node].Socket)
	if err != nil {
		return nil, err
	}
	t.Plugin = filepath.Join(s.env.BinDir, "fairway-cni")
	arg, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	h := &half{said: json.NewDecoder(r), pipe: r, result: make(chan error, 1)}
	progress, _ := s.env.Progress.(*os.File)
	go func() {
		status, err := c.Exec(ctx, guest.Cmd{
			Argv: append(append([]string{s.env.Program}, s.env.Argv...), string(arg)), Env: s.path, Stdout: w, Stderr: progress,
		})
		w.Close()
		if err == nil && status.Shell() != 0 {
			err = fmt.Errorf("measure in the instance: %s", status)
		}
		h.result <- err
	}()
	return h, nil
}

// prepared waits until Inside is ready for a burst.
func (h *half) prepared() error {
	var ready bool
	if err := h.hear(&ready); err != nil {
		return err
	}
	if !ready {
		return errors.New("the other half of the bench is not ready")
	}
	return nil
}

// burst waits for the outcome of one.
func (h *half) burst() (c crowd, err error) {
	err = h.hear(&c)
	return c, err
}

func (h *half) hear(v any) error {
	err := h.said.Decode(v)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the other half of the bench has ended early")
	}
	return err
}

// ended waits until Inside has done all that it was told.
func (h *half) ended() error {
	var more json.RawMessage
	if err := h.said.Decode(&more); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the other half of the bench goes on: %s, %v", more, err)
	}
	return nil
}

// end waits until Inside has ended. It is for defer; the error of Inside itself is
// the better one.
func (h *half) end(err *error) {
	if *err != nil {
		h.pipe.Close() // it ends with its next word
	}
	*err = errors.Join(*err, <-h.result)
	h.pipe.Close()
}
