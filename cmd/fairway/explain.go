package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/internal/core/path"
)

func explainCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "explain [CODE]",
		Short: "Say what a reason code of path means, how it looks elsewhere and how to mend it",
		Long: `Without a code, list all of them.

Exit status: 0, or 3 for a code that does not exist or wrong usage.`,
		Example: `  fairway explain RPFILTER_STRICT
  fairway explain`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 || output != "text" && output != "json" {
				return pathUsageError(fmt.Errorf("want one code, and --output text or json; see fairway explain --help"))
			}
			reasons := path.Reasons()
			if len(args) == 1 {
				r, known := path.Explain(path.Code(strings.ToUpper(args[0])))
				if !known {
					return pathUsageError(fmt.Errorf("no code %q: fairway explain lists them", args[0]))
				}
				reasons = []path.Reason{r}
			}
			return writeReasons(cmd.OutOrStdout(), reasons, output, len(args) == 1)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return pathUsageError(err) })
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func writeReasons(out io.Writer, reasons []path.Reason, output string, whole bool) error {
	if output == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(reasons)
	}
	if !whole {
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, r := range reasons {
			first, _, _ := strings.Cut(r.Means, ". ")
			fmt.Fprintf(t, "%s\t%s\n", r.Code, strings.TrimSuffix(first, "."))
		}
		return t.Flush()
	}
	r := reasons[0]
	fmt.Fprintln(out, r.Code)
	for _, l := range [][2]string{{"MEANS", r.Means}, {"LOOKS", r.Elsewhere}, {"MEND", r.Mend}, {"COUNTS", r.Counter}, {"SOURCE", r.Source}} {
		if l[1] != "" && l[1] != "-" {
			fmt.Fprintf(out, "%-7s%s\n", l[0], l[1])
		}
	}
	return nil
}
