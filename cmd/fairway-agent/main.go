// Command fairway-agent is the node daemon of Fairway: it keeps VPC addresses
// warm, serves the CNI plugin and owns the node's pod datapath.
//
// It needs CAP_NET_ADMIN and no other capability. Exit status: 0 after SIGINT
// or SIGTERM, 1 if it cannot start or go on, 2 if it is called wrongly or lacks
// the capability.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/fairway-cni/fairway/internal/agent"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/imds"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
)

// errUsage marks what is the caller's to mend before the agent is started.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	switch err := command().ExecuteContext(ctx); {
	case err == nil:
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "fairway-agent:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "fairway-agent:", err)
		os.Exit(1)
	}
}

// checkCommand says whether the datapath can run on this kernel.
func checkCommand() *cobra.Command {
	var list bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say whether this kernel has what the datapath needs",
		Long: `Try the kernel features that the datapath needs, without leaving a trace. Exit
status 2 and one line where one is missing.`,
		Example: `  fairway-agent check --list`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if list {
				t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "FEATURE\tSINCE\tFOR")
				for _, f := range kernel.Features() {
					fmt.Fprintf(t, "%s\t%s\t%s\n", f.Name, f.Since, f.Why)
				}
				if err := t.Flush(); err != nil {
					return err
				}
			}
			if err := privileged(); err != nil {
				return err
			}
			k, err := kernel.Open()
			if err != nil {
				return err
			}
			if err := errors.Join(k.Probe(), k.Close()); err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&list, "list", false, "print every feature, with the kernel it came with")
	return cmd
}

// privileged says in one line what is missing, before anything fails halfway.
func privileged() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return fmt.Errorf("%w: CAP_NET_ADMIN is missing: run as root or with that capability", errUsage)
	}
	return nil
}

func run(ctx context.Context, cfg agent.Config, options func(map[string]string) (agent.Config, error), log *slog.Logger) error {
	// What client-go says beside its errors is for those who look for a fault in it.
	klog.SetSlogLogger(slog.New(quieter{log.Handler()}))
	sdk, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return fmt.Errorf("load aws configuration: %w", err)
	}
	return agent.Run(ctx, cfg, agent.Outside{
		IMDS: imds.New(sdk),
		EC2: func(region string) (*ec2.Client, error) {
			regional := sdk.Copy()
			if regional.Region == "" {
				regional.Region = region
			}
			return ec2.New(regional), nil
		},
		Options: options,
	}, log)
}

// quieter takes every line for one of debugging.
type quieter struct{ slog.Handler }

func (q quieter) Enabled(ctx context.Context, _ slog.Level) bool {
	return q.Handler.Enabled(ctx, slog.LevelDebug)
}

func (q quieter) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return q.Handler.Handle(ctx, r)
}

func (q quieter) WithAttrs(list []slog.Attr) slog.Handler { return quieter{q.Handler.WithAttrs(list)} }
func (q quieter) WithGroup(name string) slog.Handler      { return quieter{q.Handler.WithGroup(name)} }
