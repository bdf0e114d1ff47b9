package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/kubernetes"
	"github.com/fairway-cni/fairway/lab/world"
)

// clusterFlags are what `up` is told about a cluster.
type clusterFlags struct {
	wanted    bool
	programs  string
	proxyMode string
	outside   []string
}

func (c *clusterFlags) register(o *options, cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&c.wanted, "kubernetes", false, "make the instances nodes of a Kubernetes cluster, with one more that is its control plane")
	f.StringVar(&c.programs, "kubernetes-programs", filepath.Join(filepath.Dir(o.Program), "kubernetes"), "directory of the programs of Kubernetes")
	f.StringVar(&c.proxyMode, "proxy-mode", kubernetes.DefaultProxyMode, "of kube-proxy: "+strings.Join(kubernetes.ProxyModes, " or "))
	f.StringSliceVar(&c.outside, "outside", nil, "instances that are no nodes of the cluster")
}

// prepare checks the flags and gives the world that the cluster needs.
func (c *clusterFlags) prepare(cmd *cobra.Command, w *world.World) (*world.World, error) {
	if !c.wanted {
		for _, name := range []string{"kubernetes-programs", "proxy-mode", "outside"} {
			if cmd.Flags().Changed(name) {
				return nil, fmt.Errorf("%w: --%s is for --kubernetes", ErrUsage, name)
			}
		}
		return w, nil
	}
	if !slices.Contains(kubernetes.ProxyModes, c.proxyMode) {
		return nil, fmt.Errorf("%w: --proxy-mode %q: must be one of %s", ErrUsage, c.proxyMode, strings.Join(kubernetes.ProxyModes, ", "))
	}
	for _, name := range c.outside {
		if !slices.ContainsFunc(w.Instances, func(in world.Instance) bool { return in.Name == name }) {
			return nil, fmt.Errorf("%w: --outside %q: the world has no such instance", ErrUsage, name)
		}
		if name == kubernetes.ControlPlane {
			return nil, fmt.Errorf("%w: --outside %q: it is the control plane", ErrUsage, name)
		}
	}
	programs, err := filepath.Abs(c.programs)
	if err != nil {
		return nil, err
	}
	c.programs = programs
	if err := kubernetes.Programs(programs).Check(); err != nil {
		return nil, fmt.Errorf("%w: %w; make kubernetes builds them", ErrUsage, err)
	}
	w, err = kubernetes.WithControlPlane(w)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	return w, nil
}

// arguments gives the flags to a detached lab.
func (c *clusterFlags) arguments() []string {
	if !c.wanted {
		return nil
	}
	args := []string{"--kubernetes", "--kubernetes-programs=" + c.programs, "--proxy-mode=" + c.proxyMode}
	if len(c.outside) > 0 {
		args = append(args, "--outside="+strings.Join(c.outside, ","))
	}
	return args
}

// setup is the command of [setupCommand] in an instance.
func (o *options) setup() []string { return []string{o.Program, "kubernetes-setup"} }

// configure gives a lab what its instances need before they start.
func (c *clusterFlags) configure(o *options, cfg world.Config) world.Config {
	if c.wanted {
		cfg.Image = kubernetes.Programs(c.programs).Image(o.setup())
	}
	return cfg
}

// start makes a lab that runs a cluster. The returned function ends what is not
// the lab's.
func (c *clusterFlags) start(ctx context.Context, o *options, l *world.Lab, name string) (func(), error) {
	if !c.wanted {
		return func() {}, nil
	}
	cluster, err := kubernetes.Start(ctx, kubernetes.Config{
		Lab: l, Name: name, Programs: kubernetes.Programs(c.programs), Setup: o.setup(),
		ProxyMode: c.proxyMode, Outside: c.outside, Log: slog.New(slog.NewTextHandler(o.Stderr, nil)),
	})
	if err != nil {
		return nil, fmt.Errorf("start the cluster of lab %s: %w", name, err)
	}
	return cluster.Close, nil
}

// setupCommand is the part of a cluster's start that runs inside an instance.
func setupCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "kubernetes-setup", Hidden: true, Args: cobra.NoArgs,
		Short: "Make this instance ready to be a part of a cluster (for fairway-lab itself)",
		RunE:  func(*cobra.Command, []string) error { return kubernetes.Apply(o.Stdin) },
	}
}

func kubectlCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kubectl ARG...",
		Short: "Run kubectl, as the administrator of the lab's cluster",
		Long: `Run kubectl on this machine, with its files and its terminal, in the network of the
control plane. What comes after the first word is kubectl's; where that is a flag,
write -- before it. The exit status is kubectl's.`,
		Example: `  fairway-lab kubectl get nodes -o wide
  fairway-lab kubectl -- -n kube-system get pods`,
		Args: arguments(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.kubectl(cmd.Context(), args) },
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (o *options) kubectl(ctx context.Context, args []string) error {
	r, name, err := o.remote()
	if err != nil {
		return err
	}
	s, err := r.Status(ctx)
	if err != nil {
		return err
	}
	if !kubernetes.Exists(name) {
		return fmt.Errorf("lab %s has no cluster; start one with `fairway-lab up --kubernetes`", name)
	}
	in, err := s.Find(kubernetes.ControlPlane)
	if err != nil {
		return err
	}
	c := kubernetes.Kubectl(ctx, name, args...)
	c.Stdin, c.Stdout, c.Stderr = o.Stdin, o.Stdout, o.Stderr
	if err := kubernetes.StartIn(in.PID, c); err != nil {
		return fmt.Errorf("start kubectl: %w", err)
	}
	err = c.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return &ExitError{exit.ExitCode()}
	}
	return err
}
