package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

func callsCommand(o *options) *cobra.Command {
	var by string
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "calls",
		Short: "Show the calls of EC2's API, who made them and what became of them",
		Long: `Show the calls of the lab's EC2 API: all that it remembers, which are the last ten
thousand, or those of the last minutes. One call is one request: what a client
tries again after an error counts again.

With --by they are counted, by action or by caller. A caller is the role and the
ID of an instance; "administrator" for fairway-lab ec2; or else the access key
that the request was signed with. TOOK is the time until EC2 had the answer, with
the delays of the world file and of faults.

THROTTLED counts RequestLimitExceeded: the world file turns token buckets on by
ec2: {throttle: true}. REFUSED counts the other errors.`,
		Example: `  fairway-lab calls --by action
  fairway-lab calls --by caller --since 1m
  fairway-lab calls -o json`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"", "action", "caller"}, by) {
				return fmt.Errorf("%w: --by %q: must be action or caller", ErrUsage, by)
			}
			if since < 0 {
				return fmt.Errorf("%w: --since %s: must not be negative", ErrUsage, since)
			}
			return o.calls(cmd.Context(), by, since)
		},
	}
	cmd.Flags().StringVar(&by, "by", "", "count them by action or by caller")
	cmd.Flags().DurationVar(&since, "since", 0, "only those of so long ago or less, such as 1m (default: all)")
	o.outputFlag(cmd)
	return cmd
}

func (o *options) calls(ctx context.Context, by string, since time.Duration) error {
	r, _, err := o.remote()
	if err != nil {
		return err
	}
	calls, err := r.Calls(ctx, since)
	if err != nil {
		return err
	}
	if by != "" {
		return o.printCounts(by, countCalls(calls, by))
	}
	if o.output == "json" {
		return o.json(append([]ec2sim.Call{}, calls...))
	}
	t := tabwriter.NewWriter(o.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TIME\tCALLER\tREGION\tACTION\tTOOK\tOUTCOME")
	for _, c := range calls {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", c.Start.Format("15:04:05.000"), cmp.Or(c.Caller, "-"), c.Region,
			cmp.Or(c.Action, "-"), shortTime(c.Took), cmp.Or(c.Code, "ok"))
	}
	return t.Flush()
}

// callCount is what became of the calls of one action or caller.
type callCount struct {
	Name      string        `json:"name"`
	Calls     int           `json:"calls"`
	OK        int           `json:"ok"`
	Throttled int           `json:"throttled"`
	Refused   int           `json:"refused"`
	Median    time.Duration `json:"median"` // nanoseconds, of what they took
	Max       time.Duration `json:"max"`
}

// countCalls counts calls by action or caller, the name with the most first. It
// is pure.
func countCalls(calls []ec2sim.Call, by string) []callCount {
	took := map[string][]time.Duration{}
	counts := map[string]callCount{}
	for _, c := range calls {
		name := c.Action
		if by == "caller" {
			name = c.Caller
		}
		name = cmp.Or(name, "-")
		n := counts[name]
		n.Name = name
		n.Calls++
		switch {
		case c.Code == "":
			n.OK++
		case c.Throttled:
			n.Throttled++
		default:
			n.Refused++
		}
		counts[name] = n
		took[name] = append(took[name], c.Took)
	}
	out := make([]callCount, 0, len(counts))
	for name, n := range counts {
		slices.Sort(took[name])
		n.Median, n.Max = took[name][len(took[name])/2], took[name][len(took[name])-1]
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b callCount) int { return cmp.Or(b.Calls-a.Calls, cmp.Compare(a.Name, b.Name)) })
	return out
}

func (o *options) printCounts(by string, counts []callCount) error {
	if o.output == "json" {
		return o.json(counts)
	}
	t := tabwriter.NewWriter(o.Stdout, 0, 0, 2, ' ', 0)
	heads := map[string]string{"action": "ACTION", "caller": "CALLER"}
	fmt.Fprintf(t, "%s\tCALLS\tOK\tTHROTTLED\tREFUSED\tMEDIAN\tMAX\n", heads[by])
	for _, n := range counts {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%s\t%s\n", n.Name, n.Calls, n.OK, n.Throttled, n.Refused, shortTime(n.Median), shortTime(n.Max))
	}
	return t.Flush()
}

// shortTime keeps what matters of a time of a call.
func shortTime(d time.Duration) time.Duration {
	if d < time.Millisecond {
		return d.Round(time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
