package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/internal/core/preflight"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
)

// checkTime bounds the whole of a check: of what has not answered by then nothing
// is known.
const checkTime = time.Minute

func checkCommand() *cobra.Command {
	var places places
	var output string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look whether Fairway can run on this node, and whether all is well where it does",
		Long: `Look at all that Fairway needs of this node and of its account: the kernel's
features, other CNIs and what they have left, switches, network managers, kube-proxy,
instance metadata, kubelet's --max-pods, the clock, each right that docs/iam.md grants
(by dry runs, which change nothing), subnets, security groups; and, where Fairway is
installed, the agent, its configuration for the runtime, the plugin, the records and
whether the kernel holds what it should. It can be asked before Fairway is installed
and after.

Each line says what was seen: ok, warn (it works, and somebody should look), FAIL
(pods have no network, or will have none) or skipped, with the reason. What to do
is below it. Nothing is changed.

Exit status: 0 nothing failed, warnings or not; 1 something failed; 2 nothing failed
and something that matters could not be looked at, or wrong usage. It needs root.`,
		Example: `  fairway check
  fairway check -o json | jq -r '.lines[] | select(.result == "FAIL") | .check + ": " + .do'
  fairway check >/dev/null || echo "look at this node"`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: check takes no arguments; see fairway check --help", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("%w: --output %q: must be text or json", errUsage, output)
			}
			r := preflight.Judge(look(cmd.Context(), places))
			var err error
			if output == "json" {
				err = writeJSON(cmd.OutOrStdout(), r)
			} else {
				err = r.Text(cmd.OutOrStdout())
			}
			if err != nil || r.Status() == 0 {
				return err
			}
			return exitStatus{status: r.Status()}
		},
	}
	f := cmd.Flags()
	f.StringVar(&places.socket, "socket", agentapi.DefaultSocket, "the agent's socket")
	f.StringVar(&places.confDir, "cni-conf-dir", "/etc/cni/net.d", "where the container runtime reads network configurations")
	f.StringVar(&places.binDir, "cni-bin-dir", "/opt/cni/bin", "where it has the plugins")
	f.StringVar(&places.stateDir, "state-dir", "/run/fairway/addresses", "the agent's address records")
	f.StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}
