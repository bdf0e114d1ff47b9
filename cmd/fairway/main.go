// Command fairway is the person's tool: it shows what Fairway does on a node,
// and why, and explains a packet's way. It changes nothing.
//
// Exit status: 0; 1 for a failure, and for `plan` if there is something to
// change; 2 for wrong usage; 3 for `status` if something is wrong. `check`, `path` and
// `explain` have their own; of `check`: 0 nothing failed, 1 something did, 2 cannot
// tell or wrong usage; of the others: 0 delivered, 1 not, 2 cannot tell, 3 wrong usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/internal/edge/agentapi"
)

var (
	errUsage = errors.New("usage")
	// errChanges says that the kernel differs from the plan; the plan has been printed.
	errChanges = errors.New("the kernel differs")
	// errWrong says that something is wrong on the node; the status has been printed.
	errWrong = errors.New("something is wrong")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := end(os.Stderr, command().ExecuteContext(ctx))
	stop()
	os.Exit(code)
}

// end says what failed, and is the exit status.
func end(stderr io.Writer, err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errChanges): // the plan has said it
		return 1
	case errors.Is(err, errWrong): // the status has
		return 3
	}
	var own exitStatus
	if errors.As(err, &own) {
		if own.err != nil {
			fmt.Fprintln(stderr, "fairway:", own.err)
		}
		return own.status
	}
	fmt.Fprintln(stderr, "fairway:", err)
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "fairway",
		Short: "Show what Fairway does on a node, and why, and explain a packet's way",
		Long: `check, plan and status are about the node they run on. path and bundle need no agent,
and explain packets of clusters that run another CNI too. Nothing is changed.

Exit status: 0; 1 for a failure, and for plan if there is something to change;
2 for wrong usage; 3 for status if something is wrong. check, path and explain have
statuses of their own.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return fmt.Errorf("%w: no command %q; see fairway --help", errUsage, args[0])
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.AddCommand(checkCommand(), planCommand(), statusCommand(), pathCommand(), bundleCommand(), explainCommand())
	return root
}

func planCommand() *cobra.Command {
	var socket, output string
	var desired, actual bool
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what the agent would change in this node's kernel now, and why",
		Long: `Compare what this node's kernel holds of Fairway's with what it should hold, and
show the changes that the agent would make, in its order. Nothing is changed:
drift is repaired by the agent itself, within a second, so an empty plan is the
usual one.

Each change has its reason. Exit status 1 if there are changes.`,
		Example: `  fairway plan
  fairway plan --desired | grep 'table 1002'
  diff <(fairway plan --desired) <(fairway plan --actual)`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: plan takes no arguments; see fairway plan --help", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case desired && actual:
				return fmt.Errorf("%w: --desired and --actual: choose one", errUsage)
			case output != "text" && output != "json":
				return fmt.Errorf("%w: --output %q: must be text or json", errUsage, output)
			}
			p, err := agentapi.NewClient(socket).Plan(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				if err := writeJSON(cmd.OutOrStdout(), p); err != nil {
					return err
				}
			} else {
				write(cmd.OutOrStdout(), p, desired, actual)
			}
			if len(p.Changes) > 0 && !desired && !actual {
				return errChanges
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&socket, "socket", agentapi.DefaultSocket, "the agent's socket")
	f.StringVarP(&output, "output", "o", "text", "text or json")
	f.BoolVar(&desired, "desired", false, "show what the kernel should hold instead")
	f.BoolVar(&actual, "actual", false, "show what the kernel holds instead")
	return cmd
}

func write(w io.Writer, p agentapi.Plan, desired, actual bool) {
	switch {
	case desired:
		fmt.Fprint(w, p.Desired)
	case actual:
		fmt.Fprint(w, p.Actual)
	case len(p.Changes) == 0:
		fmt.Fprintln(w, "nothing to change: the kernel holds what it should")
	default:
		for _, c := range p.Changes {
			fmt.Fprintln(w, c.Text)
		}
	}
}
