// Package cli is the command line of the lab: `fairway-lab` is its main
// function and nothing more. It is a package so that scripts and tests run the
// same commands in their own process.
//
// A lab runs in a process of its own, which holds everything that the lab is;
// all other commands reach it by the control sockets in its directory. Commands
// that are nouns change nothing; commands that are verbs do.
//
// Exit status: 0; 1 for a failure; 2 for wrong usage, missing rights or a
// missing kernel feature; `exec` and `pod exec` give their command's own.
//
// Nothing here is concurrent but what a command says of itself.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/lab/world"
)

// Env is the outside of a command.
type Env struct {
	Stdin          *os.File
	Stdout, Stderr *os.File
	Columns        int                // of the terminal; 0: lines are not folded
	Program        string             // path of fairway-lab, to run inside instances
	BinDirs        []string           // where instances find programs and CNI plugins first
	Term           string             // kind of terminal
	Signals        <-chan os.Signal   // handed to what `exec` runs; may be nil
	Inherited      func(int) *os.File // a file that the parent process left at this descriptor
}

// ErrUsage marks what the caller has to mend before anything is done.
var ErrUsage = errors.New("usage")

// errInterrupted is the outcome of a command that was told to end.
var errInterrupted = errors.New("interrupted")

// ExitError is the exit status of a command that ran inside an instance.
type ExitError struct{ Status int }

func (e *ExitError) Error() string { return fmt.Sprintf("exit status %d", e.Status) }

// Main runs one command line and gives its exit status. An error is printed as
// one paragraph, without usage text in front of it.
func Main(ctx context.Context, env Env, args []string) int {
	err := Run(ctx, env, args)
	var exit *ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Status
	}
	fmt.Fprintf(env.Stderr, "fairway-lab: %v\n", err)
	if errors.Is(err, ErrUsage) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission) {
		return 2
	}
	return 1
}

// Run runs one command line.
func Run(ctx context.Context, env Env, args []string) error {
	root := command(&env)
	root.SetArgs(args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil {
		return errInterrupted // what broke off where is nobody's concern
	}
	return err
}

// options are the flags of every command.
type options struct {
	*Env
	name   string
	output string
}

func command(env *Env) *cobra.Command {
	o := &options{Env: env}
	root := &cobra.Command{
		Use:   "fairway-lab",
		Short: "A VPC on one machine: EC2 API, instance metadata and a fabric of real packets",
		Long: `fairway-lab runs a VPC on one Linux machine, without an AWS account: instances are
sets of namespaces, ENIs are veth pairs, and a fabric in the kernel delivers
packets as a VPC does. EC2's API and the instance metadata service answer as on
AWS, so unmodified programs run in it.

It needs root. Nothing outside the lab's own namespaces is changed, and nothing
is left behind.

Exit status: 0; 1 for a failure; 2 for wrong usage, missing rights or a missing
kernel feature; exec and pod exec give their command's own.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 && cmd.Name() != "help" && !cmd.HasSubCommands() {
				return fmt.Errorf("%w: root is missing: the lab makes namespaces and devices; run it with sudo", ErrUsage)
			}
			if o.name != "" {
				if err := world.CheckName(o.name); err != nil {
					return fmt.Errorf("%w: --lab: %w", ErrUsage, err)
				}
			}
			return nil
		},
	}
	group(root)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", ErrUsage, err) })
	root.PersistentFlags().StringVar(&o.name, "lab", "", "name of the lab (default: the one that runs)")
	root.AddCommand(
		upCommand(o), downCommand(o), statusCommand(o), execCommand(o), ipCommand(o), podCommand(o),
		flowsCommand(o), probeCommand(o), pathCommand(o), sendCommand(o), ec2Command(o), callsCommand(o), flowLogCommand(o), captureCommand(o), faultCommand(o), instanceCommand(o), demoCommand(o), checkCommand(o), runCommand(o), kubectlCommand(o), runtimeCommand(o), setupCommand(o),
	)
	return root
}

// group makes a command of commands: alone it prints its help, and a name that
// is none of them is wrong usage.
func group(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return fmt.Errorf("%w: no command %q; see %s --help", ErrUsage, args[0], cmd.CommandPath())
	}
}

// arguments is cobra's argument check with our exit status.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return fmt.Errorf("%w: %s: %w; see fairway-lab %s --help", ErrUsage, cmd.Name(), err, cmd.Name())
		}
		return nil
	}
}

// remote finds the lab that the flags mean: by name, or the only one there is.
func (o *options) remote() (*world.Remote, string, error) {
	if o.name != "" {
		return world.Connect(world.Dir(o.name)), o.name, nil
	}
	dirs, err := filepath.Glob(filepath.Join(world.Dir("*"), "lock"))
	if err != nil {
		return nil, "", err
	}
	switch len(dirs) {
	case 0:
		return nil, "", fmt.Errorf("%w; start one with `fairway-lab up`", world.ErrNotRunning)
	case 1:
		name := filepath.Base(filepath.Dir(dirs[0]))
		return world.Connect(world.Dir(name)), name, nil
	}
	var names []string
	for _, d := range dirs {
		names = append(names, filepath.Base(filepath.Dir(d)))
	}
	return nil, "", fmt.Errorf("%w: several labs are there: choose one with --lab: %s", ErrUsage, strings.Join(names, ", "))
}

// instance finds an instance of the lab and a way into it.
func (o *options) instance(ctx context.Context, name string) (*guest.Client, world.InstanceStatus, world.Status, error) {
	r, _, err := o.remote()
	if err != nil {
		return nil, world.InstanceStatus{}, world.Status{}, err
	}
	s, err := r.Status(ctx)
	if err != nil {
		return nil, world.InstanceStatus{}, world.Status{}, err
	}
	in, err := s.Find(name)
	if err != nil {
		return nil, in, s, err
	}
	if in.Socket == "" {
		return nil, in, s, fmt.Errorf("instance %s of lab %s does not run (%s)", name, s.Name, stateOf(in))
	}
	c, err := guest.Dial(in.Socket)
	return c, in, s, err
}

// patience is how long something may take before a person is told about it.
const patience = 2 * time.Second

// progress says on w that something is still going on, every few seconds,
// until the returned function is called.
func progress(w io.Writer, what string) (done func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		start := time.Now()
		for {
			select {
			case <-stop:
				return
			case <-time.After(patience):
				fmt.Fprintf(w, "%s ... %d s\n", what, int(time.Since(start).Seconds()))
			}
		}
	}()
	return func() { close(stop); <-stopped }
}
