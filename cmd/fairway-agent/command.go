package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/internal/agent"
)

func command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fairway-agent",
		Short: "Keep VPC addresses warm, serve the CNI plugin, own the node's pod datapath",
		Long: `fairway-agent runs on every node. It learns who it is from the instance metadata
service, keeps addresses of the VPC ready, gives them to pods that fairway-cni
brings, and makes the node's kernel hold what those pods need.

An option can be given by its flag, by the environment variable that the VPC CNI
has for it, or by a key of the file that --config names; in this order the first
counts. fairway-agent config prints what results.

EC2 is reached as by any AWS program: AWS_ENDPOINT_URL_EC2, AWS_REGION, the
instance's role. It needs CAP_NET_ADMIN and no other capability. With --log-file a
SIGHUP opens the file again.

Exit status: 0 after SIGINT or SIGTERM, 1 on failure, 2 on wrong usage.`,
		Example: `  # keep ten addresses ready, and let pods reach an on-premises network with their own address
  fairway-agent --warm-ip-target 10 --native-cidrs 192.168.0.0/16`,
		Args:          subcommandOnly,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := resolve(cmd.Flags(), os.LookupEnv)
			if err != nil {
				return err
			}
			if err := privileged(); err != nil {
				return err
			}
			log, done, err := newLog(r.settings)
			if err != nil {
				return err
			}
			for _, err := range r.skipped {
				log.Warn("skip an invalid item", "error", err)
			}
			over := func(o map[string]string) (agent.Config, error) { return overridden(cmd.Flags(), os.LookupEnv, o) }
			return errors.Join(run(cmd.Context(), r.cfg, over, log), done())
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	register(cmd.Flags())
	cmd.AddCommand(configCommand(), checkCommand(), maxPodsCommand(), recordsCommand(), installCommand(), uninstallCommand())
	cmd.CompletionOptions.DisableDefaultCmd = true
	return cmd
}

// The numbers of arguments that commands take, and errors of usage for others.

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: %s takes no arguments; see %s --help", errUsage, cmd.CommandPath(), cmd.CommandPath())
	}
	return nil
}

func oneArg(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%w: %s takes one argument; see %s --help", errUsage, cmd.CommandPath(), cmd.CommandPath())
	}
	return nil
}

func subcommandOnly(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: no command %q; see %s --help", errUsage, args[0], cmd.CommandPath())
	}
	return nil
}

func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "text", "text or json")
}

func oneOf(name, value string, words ...string) error {
	if !slices.Contains(words, value) {
		return fmt.Errorf("%w: %s %q: must be %s", errUsage, name, value, strings.Join(words, " or "))
	}
	return nil
}
