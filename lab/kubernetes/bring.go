package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/lab/world"
)

// bring makes one instance what it is in the cluster. It may be repeated: what is
// there stays.
func (c *Cluster) bring(ctx context.Context, m *machine, in world.InstanceStatus, path []string) error {
	g, err := guest.Dial(in.Socket)
	if err != nil {
		return err
	}
	b := &boot{Cluster: c, Client: g, machine: m, instance: in, path: path}
	if in.Name == ControlPlane {
		return b.control(ctx)
	}
	return b.node(ctx)
}

// boot is one instance on its way into the cluster.
type boot struct {
	*Cluster
	*guest.Client
	machine  *machine
	instance world.InstanceStatus
	path     []string // where the lab's instances find programs first
}

func (b *boot) control(ctx context.Context) error {
	b.client.enter(b.instance.PID)
	setup, err := b.controlSetup()
	if err != nil {
		return err
	}
	if err := apply(ctx, b.Client, b.cfg.Setup, setup); err != nil {
		return err
	}
	first, second := controlDaemons(b.server.Addr(), b.services)
	if err := b.start(ctx, first); err != nil {
		return err
	}
	if err := b.until(ctx, "the API server is ready", func() error { return b.client.get(ctx, "/readyz", nil) }); err != nil {
		return err
	}
	b.mu.Lock()
	select {
	case <-b.served:
	default:
		close(b.served)
	}
	b.mu.Unlock()
	if err := b.start(ctx, second); err != nil {
		return err
	}
	return b.giveManifests(ctx)
}

// giveManifests applies what a new cluster is given.
func (b *boot) giveManifests(ctx context.Context) error {
	text, err := b.cfg.Programs.manifests(nth(b.services, 10))
	if err != nil || len(text) == 0 {
		return err
	}
	c := Kubectl(ctx, b.cfg.Name, "apply", "--server-side", "-f", "-")
	var said bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(text), &said, &said
	if err := StartIn(b.instance.PID, c); err != nil {
		return fmt.Errorf("start kubectl: %w", err)
	}
	if err := c.Wait(); err != nil {
		return fmt.Errorf("apply manifests: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

func (b *boot) node(ctx context.Context) error {
	n := nodeOf(b.instance)
	setup, err := b.nodeSetup(n, b.path)
	if err != nil {
		return err
	}
	if err := apply(ctx, b.Client, b.cfg.Setup, setup); err != nil {
		return err
	}
	if err := b.start(ctx, runtimeDaemons()); err != nil {
		return err
	}
	if err := b.importImages(ctx); err != nil {
		return err
	}
	select {
	case <-b.served: // its clients would wait for longer and longer
	case <-ctx.Done():
		return ctx.Err()
	}
	return b.start(ctx, n.daemons(b.cfg.ProxyMode))
}

// run runs a command in the instance to its end, with its output in a log.
func (b *boot) run(ctx context.Context, name string, cmd guest.Cmd) error {
	log, err := b.log(name)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Env, cmd.Stdout, cmd.Stderr = b.env(), log, log
	status, err := b.Exec(ctx, cmd)
	if err == nil && status.Shell() != 0 {
		err = fmt.Errorf("%s: %s; see %s", filepath.Base(cmd.Argv[0]), status, log.Name())
	}
	return err
}

// importImages hands containerd the images; those that it has stay.
func (b *boot) importImages(ctx context.Context) error {
	socket := filepath.Join("/proc", strconv.Itoa(b.instance.PID), "root", conSocket)
	err := b.until(ctx, "containerd answers", func() error {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		return err
	}
	images, err := b.cfg.Programs.images()
	if err != nil {
		return err
	}
	for _, file := range images {
		if err := b.run(ctx, "images", guest.Cmd{Argv: []string{"ctr", "--address=" + conSocket, "--namespace=k8s.io", "images", "import", file}}); err != nil {
			return err
		}
	}
	return nil
}

// patience bounds the start of one program, on a machine that is very busy.
const patience = 90 * time.Second

// until waits for a condition. What a daemon that ended has to say is said at once.
func (b *boot) until(ctx context.Context, what string, ok func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return nil
		}
		if ended := b.ended(ctx); ended != nil {
			return ended
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %s: %w", patience, what, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ended is the first of our daemons that has.
func (b *boot) ended(ctx context.Context) error {
	list, err := b.Daemons(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range list {
		if _, ours := b.machine.daemons[d.Name]; ours && !d.Running {
			return fmt.Errorf("%s ended: %s; see %s", d.Name, d.Exit, b.logPath(d.Name))
		}
	}
	return nil
}

// start starts daemons; those that run stay.
func (b *boot) start(ctx context.Context, list []daemon) error {
	for _, d := range list {
		if err := b.startOne(ctx, d); err != nil {
			return err
		}
		b.mu.Lock()
		b.machine.daemons[d.name] = d
		b.mu.Unlock()
	}
	return nil
}

func (b *boot) startOne(ctx context.Context, d daemon) error {
	log, err := b.log(d.name)
	if err != nil {
		return err
	}
	defer log.Close()
	_, err = b.StartDaemon(ctx, guest.Daemon{Name: d.name, Argv: d.argv, Env: b.env(), Dir: "/", Log: log})
	if errors.Is(err, guest.ErrDaemonRunning) {
		return nil
	}
	return err
}

func (b *boot) env() []string {
	return world.Env(b.instance.Region, append([]string{string(b.cfg.Programs)}, b.path...))
}

func (b *boot) logPath(name string) string {
	return filepath.Join(world.Dir(b.cfg.Name), world.LogName(b.instance.ID, name))
}

func (b *boot) log(name string) (*os.File, error) {
	f, err := os.OpenFile(b.logPath(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	return f, nil
}

// controlPID is of the control plane's init, 0 while that does not run.
func controlPID(s world.Status) int {
	in, err := s.Find(ControlPlane)
	if err != nil {
		return 0
	}
	return in.PID
}

// keep starts what has ended, as the service manager of a node does. A kubelet that
// knows another boot of the control plane ends first: the cluster is another one
// then, and a kubelet registers at its start only. c.mu is held.
func (c *Cluster) keep(ctx context.Context, m *machine, in world.InstanceStatus, s world.Status) error {
	g, err := guest.Dial(in.Socket)
	if err != nil {
		return err
	}
	if now := controlPID(s); now != 0 && now != m.control {
		if _, ok := m.daemons[kubelet]; ok {
			if err := g.SignalDaemon(ctx, kubelet, unix.SIGKILL); err != nil {
				return err
			}
		}
		m.control = now // it is started again when it has ended
	}
	b := &boot{Cluster: c, Client: g, machine: m, instance: in, path: s.Path}
	for _, d := range in.Daemons {
		ours, ok := m.daemons[d.Name]
		if !ok || d.Running {
			continue
		}
		c.cfg.Log.Warn("a program of the cluster ended, and is started again", "instance", in.ID, "program", d.Name, "exit", d.Exit.String())
		if err := b.startOne(ctx, ours); err != nil {
			return err
		}
	}
	return nil
}
