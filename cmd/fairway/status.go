package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/internal/edge/agentapi"
)

// patience is how long the agent may take. Its loop takes milliseconds for most
// things, and a second or two for the worst.
const patience = 10 * time.Second

func statusCommand() *cobra.Command {
	var socket, output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the node's addresses and ENIs, who holds what, and what is wrong",
		Long: `Show how the addresses of this node stand: the first line sums up, then comes what
is wrong and what to do, the ENIs, the pods with their addresses, what EC2 is being
asked for and for how long, what it refuses, and what the planner wants and why.

Exit status 0 if nothing is wrong, warnings or not; 1 if the agent cannot be asked;
3 if something is wrong: a pod has lost its address, EC2 refuses something or does
not answer, pods have waited for long, the kernel cannot be written.`,
		Example: `  fairway status
  fairway status -o json | jq -r '.pods[] | select(.lost) | .namespace + "/" + .name'
  fairway status >/dev/null || echo "look at this node"`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: status takes no arguments; see fairway status --help", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("%w: --output %q: must be text or json", errUsage, output)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), patience)
			defer cancel()
			s, err := agentapi.NewClient(socket).Status(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("the agent has not answered within %s: it is busy or stuck; its log says what it does", patience)
			}
			if err != nil {
				return err
			}
			if output == "json" {
				err = writeJSON(cmd.OutOrStdout(), s)
			} else {
				err = writeStatus(cmd.OutOrStdout(), s)
			}
			if err != nil {
				return err
			}
			for _, p := range s.Problems {
				if p.Severity == agentapi.Wrong {
					return errWrong
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&socket, "socket", agentapi.DefaultSocket, "the agent's socket")
	f.StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
