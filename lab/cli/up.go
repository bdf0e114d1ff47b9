package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/world"
)

// startTimeout bounds the start of a lab, downTimeout its end.
const (
	startTimeout = 2 * time.Minute
	downTimeout  = time.Minute
)

// logName is the log of a detached lab, in the lab's directory.
const logName = "lab.log"

// readyFD is where a detached lab finds the pipe on which it says that it is
// ready, or why it is not.
const (
	readyFD      = 3
	readyLine    = "ready\n"
	maxComplaint = 64 << 10 // bytes
)

func upCommand(o *options) *cobra.Command {
	var file string
	var detach, child bool
	var cluster clusterFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a lab",
		Long: `Start a lab from a world file, and keep it until Ctrl-C or fairway-lab down.
Without a file it is one VPC with two subnets in two zones and two m5.large.

With --kubernetes every instance but those of --outside becomes a node of a
Kubernetes cluster, whose control plane is the instance control-plane; the world
gets one where it has none. up is done when the nodes are there, and ready where
they have a network plugin: the default world's agents bring it.`,
		Example: `  fairway-lab up -f world.yaml --detach
  fairway-lab up --kubernetes --detach`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := o.load(file)
			if err != nil {
				return err
			}
			if w, err = cluster.prepare(cmd, w); err != nil {
				return err
			}
			switch {
			case child:
				return o.runChild(cmd.Context(), w, cluster)
			case detach:
				args := cluster.arguments()
				if file != "" {
					args = append(args, "-f", file)
				}
				return o.startDetached(cmd.Context(), w, args...)
			}
			return o.hold(cmd.Context(), w, cluster, func() { fmt.Fprintf(o.Stdout, "lab %s is up; Ctrl-C ends it\n", w.Name) })
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "world file (default: a built-in world)")
	cmd.Flags().BoolVar(&detach, "detach", false, "return when the lab is up, and leave it running")
	cmd.Flags().BoolVar(&child, "detached-child", false, "")
	cluster.register(o, cmd)
	if err := cmd.Flags().MarkHidden("detached-child"); err != nil {
		panic(err)
	}
	return cmd
}

// load reads the world file; the name on the command line counts more than the
// one in the file.
func (o *options) load(file string) (*world.World, error) {
	w := world.Default()
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read world file: %w", err)
		}
		if w, err = world.Parse(file, data); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUsage, err)
		}
		if err := w.ReadPolicies(os.ReadFile); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUsage, err)
		}
	}
	if o.name != "" {
		w.Name = o.name
	}
	return w, nil
}

// hold runs a lab in this process until ctx ends or somebody says down.
func (o *options) hold(ctx context.Context, w *world.World, cluster clusterFlags, ready func()) (err error) {
	log := slog.New(slog.NewTextHandler(o.Stderr, nil))
	start, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	l, err := world.Start(start, cluster.configure(o, world.Config{World: w, Dir: world.Dir(w.Name), Path: o.BinDirs, Log: log}))
	if err != nil {
		return errors.Join(err, world.Sweep(w.Name))
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	select {
	case <-l.Ready():
	case <-start.Done():
		if ctx.Err() != nil {
			return nil // Ctrl-C: not a failure
		}
		return fmt.Errorf("start lab %s: not ready after %s: %w", w.Name, startTimeout, l.Failure())
	}
	end, err := cluster.start(start, o, l, w.Name)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer end()
	return l.Serve(ctx, ready)
}

// runChild is the process of a detached lab.
func (o *options) runChild(ctx context.Context, w *world.World, cluster clusterFlags) error {
	pipe := o.Inherited(readyFD)
	if pipe == nil {
		return fmt.Errorf("%w: --detached-child is for fairway-lab itself", ErrUsage)
	}
	err := o.hold(ctx, w, cluster, func() {
		fmt.Fprint(pipe, readyLine)
		pipe.Close()
	})
	if err != nil {
		fmt.Fprintln(pipe, err) // the parent prints it; after "ready" nobody reads any more
	}
	return err
}

// startDetached starts this program again, in a session of its own, and waits
// until the lab in it is up. args are further ones of `up`.
func (o *options) startDetached(ctx context.Context, w *world.World, args ...string) error {
	log, err := world.OpenIn(world.Dir(w.Name), logName, os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return err
	}
	defer log.Close()
	r, pipe, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	child := exec.Command(o.Program, append([]string{"up", "--detached-child", "--lab", w.Name}, args...)...)
	child.Stdout, child.Stderr = log, log
	child.ExtraFiles = []*os.File{pipe}
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = child.Start()
	pipe.Close()
	if err != nil {
		return errors.Join(fmt.Errorf("start lab: %w", err), world.Sweep(w.Name))
	}
	done := progress(o.Stderr, "starting lab "+w.Name)
	defer done()
	// Ctrl-C here ends the child too: it would be a lab that nobody knows of.
	stop := context.AfterFunc(ctx, func() { child.Process.Signal(syscall.SIGTERM) })
	defer stop()
	said := bufio.NewReader(io.LimitReader(r, maxComplaint))
	if line, err := said.ReadString('\n'); err == nil && line == readyLine {
		return child.Process.Release()
	} else if err == nil || line != "" {
		rest, _ := io.ReadAll(said) // the child has ended: what came is what there is
		complaint := strings.TrimSpace(line + string(rest))
		return errors.Join(errors.New(complaint), ctx.Err(), waited(child), world.Sweep(w.Name))
	}
	err = child.Wait()
	lastWords, readErr := os.ReadFile(log.Name())
	if errors.Is(readErr, fs.ErrNotExist) {
		readErr = nil // a lab that ends in order takes its log along
	}
	sweep := errors.Join(readErr, world.Sweep(w.Name))
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), sweep)
	}
	return errors.Join(fmt.Errorf("the lab ended before it was up (%w); its log:\n%s", err, lastWords), sweep)
}

// waited reaps a child that has said why it failed: its status adds nothing.
func waited(child *exec.Cmd) error {
	var exit *exec.ExitError
	if err := child.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

func downCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End a lab and remove all of it, also after it was killed",
		Example: `  fairway-lab down
  fairway-lab down --lab demo`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.down(cmd.Context()) },
	}
}

func (o *options) down(ctx context.Context) error {
	r, name, err := o.remote()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	done := progress(o.Stderr, "ending lab "+name)
	defer done()
	return r.Down(ctx, name)
}

func statusCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show instances, ENIs, addresses and what the fabric dropped",
		Example: `  fairway-lab status -o json`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, _, err := o.remote()
			if err != nil {
				return err
			}
			s, err := r.Status(cmd.Context())
			if err != nil {
				return err
			}
			if o.output == "json" {
				return o.json(s)
			}
			return s.WriteTables(o.Stdout)
		},
	}
	o.outputFlag(cmd)
	return cmd
}

// outputFlag adds -o to a command that reads.
func (o *options) outputFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.output, "output", "o", "table", "table or json")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if o.output != "table" && o.output != "json" {
			return fmt.Errorf("%w: --output %q: must be table or json", ErrUsage, o.output)
		}
		return nil
	}
}

func (o *options) json(v any) error {
	e := json.NewEncoder(o.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
