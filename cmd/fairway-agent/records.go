package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/internal/edge/store"
)

// recordsCommand is a person's way to the address records while no agent runs.
func recordsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "records",
		Short: "List, remove or downgrade the address records while no agent runs",
		Long: `The agent keeps a record of each address that a pod has, and of each that rests
after a pod. It repairs and removes them by itself. These commands are for what it
does not dare: a record that cannot be read, or that a newer release wrote.

They need the records for themselves, so the agent must not run.`,
		Example: `  fairway-agent records list
  fairway-agent records remove 10.0.1.5`,
		Args: subcommandOnly,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(recordsList(), recordsRemove(), recordsDowngrade())
	return cmd
}

// withDir adds the flags that say where the records are.
func withDir(cmd *cobra.Command, run func(cmd *cobra.Command, dir string, args []string) error) *cobra.Command {
	register(cmd.Flags(), "state-dir")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := resolve(cmd.Flags(), os.LookupEnv)
		if err != nil {
			return err
		}
		dir := r.cfg.StateDir
		// Open would make it, and a mistyped one would be an empty one.
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: --state-dir %q: is not there", errUsage, dir)
		}
		if err := run(cmd, dir, args); errors.Is(err, store.ErrLocked) {
			return fmt.Errorf("%w; stop fairway-agent first", err)
		} else if err != nil {
			return err
		}
		return nil
	}
	return cmd
}

// listed is a record as the command shows it.
type listed struct {
	store.Record
	Problem string `json:"problem,omitempty"` // why the file cannot be read
}

func recordsList() *cobra.Command {
	var output string
	cmd := withDir(&cobra.Command{
		Use:   "list",
		Short: "List the address records",
		Long: `List the address records, those that cannot be read with the reason. Exit status
1 if there is one of those.`,
		Example: `  fairway-agent records list -o json`,
		Args:    noArgs,
	}, func(cmd *cobra.Command, dir string, _ []string) error {
		if err := oneOf("--output", output, "text", "json"); err != nil {
			return err
		}
		s, err := store.Open(dir)
		if err != nil {
			return err
		}
		records, err := s.All()
		err = errors.Join(err, s.Close())
		var bad *store.BadRecordsError
		if err != nil && !errors.As(err, &bad) {
			return err
		}
		list := make([]listed, 0, len(records))
		for _, r := range records {
			list = append(list, listed{Record: r})
		}
		if bad != nil {
			for _, f := range bad.Files {
				list = append(list, listed{Record: store.Record{Addr: f.Addr}, Problem: f.Name + ": " + f.Err.Error()})
			}
		}
		return errors.Join(writeRecords(cmd.OutOrStdout(), list, output), err)
	})
	outputFlag(cmd, &output)
	return cmd
}

func writeRecords(w io.Writer, list []listed, output string) error {
	if output == "json" {
		return writeJSON(w, list)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ADDRESS\tSTATE\tSINCE\tENI\tPOD\tCONTAINER\tINTERFACE")
	for _, r := range list {
		state, since := "held", r.CreatedAt
		switch {
		case r.Problem != "":
			fmt.Fprintf(t, "%s\tunreadable: %s\n", named(r.Addr), r.Problem)
			continue
		case !r.Held():
			state, since = "released", r.ReleasedAt
		}
		pod := "-"
		if r.PodName != "" {
			pod = r.PodNamespace + "/" + r.PodName
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Addr, state, when(since), r.ENI, pod, r.ContainerID, r.IfName)
	}
	return t.Flush()
}

func named(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func recordsRemove() *cobra.Command {
	return withDir(&cobra.Command{
		Use:   "remove ADDRESS",
		Short: "Remove the record of an address, readable or not",
		Long: `Remove the record of an address, so that the agent may give it to another pod.
Two pods with one address are the result if a pod has it still: look first.`,
		Example: `  fairway-agent records remove 10.0.1.5`,
		Args:    oneArg,
	}, func(cmd *cobra.Command, dir string, args []string) error {
		addr, err := netip.ParseAddr(args[0])
		if err != nil {
			return fmt.Errorf("%w: address %q: must be as in 10.0.1.5", errUsage, args[0])
		}
		s, err := store.Open(dir)
		if err != nil {
			return err
		}
		return errors.Join(s.Delete(addr), s.Close())
	})
}

func recordsDowngrade() *cobra.Command {
	return withDir(&cobra.Command{
		Use:   "downgrade",
		Short: "Write the records such that the first release of the agent reads them",
		Long: `Write the records such that the first release of the agent reads them. What that
one cannot say is lost: the name of the network. Nothing is changed where not
everything can be.`,
		Example: `  fairway-agent records downgrade`,
		Args:    noArgs,
	}, func(cmd *cobra.Command, dir string, _ []string) error {
		n, err := store.Downgrade(dir)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "records rewritten: %d\n", n)
		return err
	})
}
