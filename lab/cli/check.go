package cli

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/guest"
)

func checkCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say whether this machine can run a lab, and what of the kernel that takes",
		Long: `Try every kernel feature that a lab needs, in throwaway namespaces. Prints
nothing where all are there; --list prints them all with the kernel they came
with. Exit status 2, and a line for each, where one is missing.`,
		Example: `  fairway-lab check --list`,
		Args:    arguments(cobra.NoArgs),
	}
	all := cmd.Flags().Bool("list", false, "print every feature, with the kernel it came with")
	cmd.RunE = func(*cobra.Command, []string) error {
		if *all {
			t := tabwriter.NewWriter(o.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "FEATURE\tSINCE\tFOR")
			for _, f := range fabric.Features() {
				fmt.Fprintf(t, "%s\t%s\t%s\n", f.Name, f.Since, f.Why)
			}
			if err := t.Flush(); err != nil {
				return err
			}
		}
		return errors.Join(guest.Check(), fabric.Probe())
	}
	return cmd
}
