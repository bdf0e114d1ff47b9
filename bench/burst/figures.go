package burst

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/fairway-cni/fairway/bench/result"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// outcome is one cold burst, and what followed on the same node.
type outcome struct {
	pods, failed int
	calls        time.Duration // the bound of EC2's calls
	last         time.Duration // from the first exec to the last result
	lead         time.Duration // by which EC2 was asked before the first exec
	warm         []time.Duration
	warmCalls    int // of the pool during the warm bursts
	warmAdds     int
	newENIs      int // until the node was warm
	eniCalls     int // create, attach and modify for these, also those that failed
}

// countGrowth takes the calls of the node until it was warm.
func (o *outcome) countGrowth(calls []ec2sim.Call, warm time.Time, newENIs int) {
	o.newENIs = newENIs
	for _, c := range calls {
		if slices.Contains(growth[1:], c.Action) && c.Start.Before(warm) {
			o.eniCalls++
		}
	}
}

// took is from when there was anything to do until the last result.
func (o outcome) took() time.Duration { return o.lead + o.last }

// warmTook is the median of the warm bursts.
func (o outcome) warmTook() time.Duration {
	return time.Duration(result.Percentile(seconds(o.warm...), 50) * float64(time.Second))
}

// overCalls is the burst over the calls' bound alone, and overBoth over the sum of
// that and the same burst on a warm node.
func (o outcome) overCalls() float64 { return float64(o.took()) / float64(o.calls) }
func (o outcome) overBoth() float64  { return float64(o.took()) / float64(o.calls+o.warmTook()) }

// Figures are what was measured.
type Figures struct {
	addresses, prefixes []outcome // by round
	still               still
	idle                []float64 // calls of the pool in an hour, by node
}

func seconds(ds ...time.Duration) []float64 {
	var s []float64
	for _, d := range ds {
		s = append(s, d.Seconds())
	}
	return s
}

// sound are the rounds in which no ADD failed: what the others took says nothing.
func sound(all []outcome) []outcome {
	return slices.DeleteFunc(slices.Clone(all), func(o outcome) bool { return o.failed > 0 })
}

// each gives one figure of each round.
func each(rounds []outcome, figure func(outcome) float64) [][]float64 {
	var samples [][]float64
	for _, o := range rounds {
		samples = append(samples, []float64{figure(o)})
	}
	return samples
}

func one(samples []float64) [][]float64 {
	var rounds [][]float64
	for _, s := range samples {
		rounds = append(rounds, []float64{s})
	}
	return rounds
}

// none is the goal of what must not be at all: a Row's zero is no goal.
const none = 0.001

// Report names the figures, with the project's goals. Of a burst of which ADDs
// failed in every round there is no time, and no row.
func (f Figures) Report() result.Report {
	goal := func(r result.Row, most float64) result.Row { r.AtMost = most; return r }
	failed := func(o outcome) float64 { return float64(o.failed) }
	rows := []result.Row{goal(result.Over("burst27_failed_adds", 100, each(f.addresses, failed)), none)}
	if rounds := sound(f.addresses); len(rounds) > 0 {
		rows = append(rows,
			result.Over("burst27_last_s", 50, each(rounds, func(o outcome) float64 { return o.last.Seconds() })),
			goal(result.Over("burst27_last_over_bound", 50, each(rounds, outcome.overCalls)), 1.3),
			goal(result.Over("calls_per_eni", 50, each(rounds, outcome.callsPerENI)), 3),
			result.Over("burst27_calls_bound_s", 50, each(rounds, func(o outcome) float64 { return o.calls.Seconds() })))
	}
	rows = append(rows, goal(result.Over("burst60_prefix_failed_adds", 100, each(f.prefixes, failed)), none))
	if rounds := sound(f.prefixes); len(rounds) > 0 {
		rows = append(rows,
			goal(result.Over("burst60_prefix_last_over_bound", 50, each(rounds, outcome.overBoth)), 1.3),
			result.Over("burst60_prefix_last_s", 50, each(rounds, func(o outcome) float64 { return o.last.Seconds() })),
			// What the bound is made of: they tell a slow machine from a slow pool.
			result.Over("burst60_prefix_calls_bound_s", 50, each(rounds, func(o outcome) float64 { return o.calls.Seconds() })),
			result.Over("burst60_prefix_warm_s", 50, each(rounds, func(o outcome) float64 { return o.warmTook().Seconds() })))
	}
	return result.Report{Rows: append(rows,
		goal(result.Over("calls_per_warm_add", 100, each(slices.Concat(f.addresses, f.prefixes), outcome.callsPerWarmAdd)), none),
		goal(result.Over("idle_calls_per_hour", 50, one(f.idle)), 6),
		result.Over("route_reads_per_hour", 50, one(f.still.routesCalls)),
		goal(result.Over("agent_rss_mib_250", 50, one(f.still.rss)), 40),
		result.Over("agent_rss_anon_mib_250", 50, one(f.still.anon)),
		result.Over("agent_hwm_mib_250", 50, one(f.still.peak)),
	)}
}

func (o outcome) callsPerENI() float64     { return float64(o.eniCalls) / float64(o.newENIs) }
func (o outcome) callsPerWarmAdd() float64 { return float64(o.warmCalls) / float64(o.warmAdds) }

// WriteTable prints the parts of each burst side by side, and what was watched.
func (f Figures) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "medians, ms\tfailed ADDs\tEC2 calls at least\tasked before the first exec\tfirst exec to last result\tsame, warm\t/ calls\t/ (calls + warm)\t")
	for _, row := range []struct {
		plan
		rounds []outcome
	}{{addresses, f.addresses}, {prefixes, f.prefixes}} {
		rounds := sound(row.rounds)
		median := func(figure func(outcome) float64) float64 { return result.Over("", 50, each(rounds, figure)).Value }
		ms := func(d func(outcome) time.Duration) float64 {
			return median(func(o outcome) float64 { return d(o).Seconds() * 1000 })
		}
		failed := 0
		for _, o := range row.rounds {
			failed += o.failed
		}
		fmt.Fprintf(t, "%s\t%d of %d\t%.0f\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t\n", row.name, failed, row.pods*len(row.rounds),
			ms(func(o outcome) time.Duration { return o.calls }), ms(func(o outcome) time.Duration { return o.lead }),
			ms(func(o outcome) time.Duration { return o.last }), ms(outcome.warmTook),
			median(outcome.overCalls), median(outcome.overBoth))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `
The calls at least: one assign for the ENI that is there; create, attach and the
device for the slowest further one. The time counts from the first exec, or from
the agent's first call where that was before. The same, warm: the same pods on the
same node with all addresses there.

%d nodes with %d pods each, left alone for %s: the pools made %d EC2 calls, and the
loop that follows the VPC's routes %.0f an hour and node. idle_calls_per_hour is of
the pool's loop in virtual time, %d nodes for some hours each.
`, fullNodes, fullPods, f.still.watched.Round(time.Second), f.still.poolCalls,
		result.Percentile(f.still.routesCalls, 50), len(f.idle))
	return err
}
