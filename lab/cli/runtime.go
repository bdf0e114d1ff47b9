package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/runtime"
)

// networkWait is how long a new pod waits for the node's network configuration
// to appear, as a kubelet waits for its node to become ready.
const networkWait = time.Minute

// reply is what the runtime command prints for the command that called it.
type reply struct {
	Pods  []runtime.Pod `json:"pods"`
	Error string        `json:"error,omitempty"`
}

// runtimeCommand is the half of `pod` that runs inside an instance.
func runtimeCommand(o *options) *cobra.Command {
	var parallel int
	var asked string // capabilities of new pods, JSON
	root := &cobra.Command{Use: "runtime", Hidden: true, Short: "Make pods here (for fairway-lab itself)"}
	verb := func(use string, f func(context.Context, *runtime.Runtime, []string) ([]runtime.Pod, error)) *cobra.Command {
		return &cobra.Command{Use: use, RunE: func(cmd *cobra.Command, args []string) error {
			var given map[string]any
			if asked != "" {
				if err := json.Unmarshal([]byte(asked), &given); err != nil {
					return fmt.Errorf("%w: capabilities: %w", ErrUsage, err)
				}
			}
			pods, err := f(cmd.Context(), o.runtime(given), args)
			r := reply{Pods: pods}
			if err != nil {
				r.Error = err.Error()
			}
			return json.NewEncoder(o.Stdout).Encode(r)
		}}
	}
	add := verb("add", func(ctx context.Context, r *runtime.Runtime, names []string) ([]runtime.Pod, error) {
		return o.addPods(ctx, r, names, parallel)
	})
	add.Flags().IntVar(&parallel, "parallel", 1, "")
	add.Flags().StringVar(&asked, "capabilities", "", "")
	root.AddCommand(add,
		verb("del", func(ctx context.Context, r *runtime.Runtime, names []string) ([]runtime.Pod, error) {
			var errs []error
			for _, n := range names {
				errs = append(errs, r.Del(ctx, n))
			}
			return nil, errors.Join(errs...)
		}),
		verb("list", func(_ context.Context, r *runtime.Runtime, _ []string) ([]runtime.Pod, error) { return r.List() }),
		verb("check", func(ctx context.Context, r *runtime.Runtime, names []string) ([]runtime.Pod, error) {
			return nil, r.Check(ctx, names[0])
		}),
		verb("gc", func(ctx context.Context, r *runtime.Runtime, _ []string) ([]runtime.Pod, error) {
			return nil, r.GC(ctx)
		}),
		&cobra.Command{Use: "exec", Args: cobra.MinimumNArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
			c := exec.CommandContext(cmd.Context(), args[1], args[2:]...)
			c.Stdin, c.Stdout, c.Stderr = o.Stdin, o.Stdout, o.Stderr
			err := o.runtime(nil).Exec(args[0], c)
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() >= 0 {
				return &ExitError{exit.ExitCode()}
			}
			return err
		}})
	return root
}

func (o *options) runtime(capabilities map[string]any) *runtime.Runtime {
	return runtime.New(runtime.Config{
		BinDirs:      append(append([]string(nil), o.BinDirs...), "/opt/cni/bin"),
		Capabilities: capabilities,
	})
}

// addPods waits for the network first, as long as a kubelet's node is not ready.
func (o *options) addPods(ctx context.Context, r *runtime.Runtime, names []string, parallel int) ([]runtime.Pod, error) {
	deadline := time.Now().Add(networkWait)
	var made []runtime.Pod
	for {
		pods, err := r.AddMany(ctx, names, parallel)
		made = append(made, pods...)
		if !errors.Is(err, runtime.ErrNoNetwork) || time.Now().After(deadline) {
			return made, err
		}
		have := make(map[string]bool)
		for _, p := range made {
			have[p.Name] = true
		}
		var rest []string
		for _, n := range names {
			if !have[n] {
				rest = append(rest, n)
			}
		}
		names = rest
		select {
		case <-ctx.Done():
			return made, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// podNames checks what becomes part of a path and of CNI_ARGS.
func podNames(names []string) error {
	for _, n := range names {
		if !runtime.ValidName(n) {
			return fmt.Errorf("%w: pod name %q: want a-z, 0-9 and \"-\", a letter or digit at both ends, at most 63", ErrUsage, n)
		}
	}
	return nil
}
