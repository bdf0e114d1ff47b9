package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// shown is one option of the command config, as -o json has it.
type shown struct {
	Option   string `json:"option"`
	Variable string `json:"variable,omitempty"`
	Value    string `json:"value"`
	Default  string `json:"default"`
	From     string `json:"from"`
}

// configCommand says what the agent would run with.
func configCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the configuration in force, and where each value is from",
		Long: `Read flags, environment and settings file as the agent does, and print every
option with its value and what said it: flag, environment, a line of the file,
the default, or another option that implies it. Nothing is started.

Exit status 2 and one line where the agent would not start.`,
		Example: `  WARM_IP_TARGET=5 fairway-agent config --config /etc/fairway/agent.yaml
  fairway-agent config -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("--output", output, "text", "json"); err != nil {
				return err
			}
			r, err := resolve(cmd.Flags(), os.LookupEnv)
			if err != nil {
				return err
			}
			for _, err := range r.skipped {
				fmt.Fprintln(cmd.ErrOrStderr(), "fairway-agent: skipped:", err)
			}
			return show(cmd.OutOrStdout(), r, output)
		},
	}
	register(cmd.Flags())
	outputFlag(cmd, &output)
	return cmd
}

func show(w io.Writer, r *resolution, output string) error {
	d := defaults()
	var list []shown
	for _, o := range options() {
		list = append(list, shown{o.name, o.variable, o.parser.text(r.settings), o.parser.text(d), r.from(o)})
	}
	if output == "json" {
		return writeJSON(w, list)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "OPTION\tVALUE\tFROM")
	for _, s := range list {
		value := s.Value
		if value == "" {
			value = `""`
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.Option, value, s.From)
	}
	return t.Flush()
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
