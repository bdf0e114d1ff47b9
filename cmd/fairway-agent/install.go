package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/internal/agent"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

// installCommand is what runs on a node before the agent: where the agent is a
// container, the plugin has to come out of its image.
func installCommand() *cobra.Command {
	var dir, plugin string
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Put the plugin where the container runtime looks for it",
		Long: `Put fairway-cni into the runtime's directory of plugins, by a rename, so that a
runtime that starts it meanwhile has the former one or the new one. A plugin that is
the same already is left alone. The agent itself tells the runtime to use it, when it
can serve.`,
		Example: `  fairway-agent install --bin-dir /host/opt/cni/bin`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if plugin == "" {
				self, err := os.Executable()
				if err != nil {
					return fmt.Errorf("find the plugin beside this program (or give --plugin): %w", err)
				}
				plugin = filepath.Join(filepath.Dir(self), agent.PluginName)
			}
			changed, err := agent.InstallPlugin(plugin, dir)
			if err != nil {
				return err
			}
			said := "was there already"
			if changed {
				said = "installed"
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), filepath.Join(dir, agent.PluginName), said)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "bin-dir", agent.Default().CNIBinDir, "the runtime's directory of plugins; it must exist")
	cmd.Flags().StringVar(&plugin, "plugin", "", "the plugin's program; empty: the one beside this program")
	return cmd
}

// uninstallCommand is the way back of all that install and the agent do.
func uninstallCommand() *cobra.Command {
	var stay bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove everything of Fairway's from this node, where no pod needs it",
		Long: `Remove from this node what the agent and the plugin have put there: the network
configuration list, the nftables table, rules, routes and addresses, the plugin, records
and sockets. It prints what it removes. Nothing is removed where the agent runs or a pod still has
its network from Fairway: drain the node first.

Options say where things are, as for the agent. ENIs stay with the instance, and go
with it. Switches below /proc/sys keep their values until the node boots.`,
		Example: `  fairway-agent uninstall`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := resolve(cmd.Flags(), os.LookupEnv)
			if err != nil {
				return err
			}
			if err := privileged(); err != nil {
				return err
			}
			if err := agent.Uninstall(r.cfg, cmd.OutOrStdout()); errors.Is(err, store.ErrLocked) {
				return fmt.Errorf("%w; stop fairway-agent first", err)
			} else if err != nil {
				return err
			}
			if stay {
				<-cmd.Context().Done() // a signal is how it is to end
			}
			return nil
		},
	}
	register(cmd.Flags())
	cmd.Flags().BoolVar(&stay, "stay", false, "wait for a signal at the end, as what runs in a DaemonSet has to")
	return cmd
}
