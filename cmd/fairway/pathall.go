package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/render"
)

// runAll prints the pairs of classes that are not delivered, and a count.
func runAll(out io.Writer, w *path.World, o pathOptions) error {
	pairs, err := path.NewTracer(w).All(path.Proto(o.proto))
	if err != nil {
		return pathUsageError(err)
	}
	worst := path.Arrived
	counts := map[path.Verdict]int{}
	for _, p := range pairs {
		counts[p.Verdict]++
		if p.Verdict == path.Dropped || worst == path.Arrived {
			worst = p.Verdict
		}
	}
	if o.output == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		if err := e.Encode(pairs); err != nil {
			return err
		}
		return statusOf(worst)
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FROM\tTO\tFLOWS\tVERDICT\tCODE")
	for _, p := range pairs {
		if p.Verdict != path.Arrived {
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\n", p.From, p.To, p.Flows, p.Verdict, p.Code)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d pairs of classes: %d delivered, %d dropped, %d cannot tell\n", len(pairs),
		counts[path.Arrived], counts[path.Dropped], counts[path.Unsure])
	return statusOf(worst)
}

func pathDiffCommand() *cobra.Command {
	var proto string
	cmd := &cobra.Command{
		Use:   "diff A B FROM TO",
		Short: "Show how the way of a packet differs between two worlds",
		Long: `Follow one packet in two worlds, each one file, and show the hops that only one of
them has: what changed between yesterday's bundle and today's. fairway bundle -b
makes one file of several.

Exit status: 0 the same way and verdict, 1 another, 3 wrong usage.`,
		Example: `  fairway path diff before.tgz after.tgz b:default/sleep a:default/httpbin:80`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 4 {
				return pathUsageError(errors.New("want two worlds, FROM and TO; see fairway path diff --help"))
			}
			var reports [2]render.Report
			for i := range reports {
				s, err := readWorld(args[i])
				if err == nil {
					reports[i], err = explain(s.World, path.Probe{From: args[2], To: args[3], Proto: path.Proto(proto)}, 0)
				}
				if err != nil {
					return pathUsageError(err)
				}
			}
			text, same := render.Diff(reports[0].Answer, reports[1].Answer)
			fmt.Fprint(cmd.OutOrStdout(), text)
			if !same {
				return exitStatus{status: pathNotDelivered}
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return pathUsageError(err) })
	cmd.Flags().StringVar(&proto, "proto", "tcp", "tcp, udp or icmp")
	return cmd
}
