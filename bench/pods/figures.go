package pods

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/fairway-cni/fairway/bench/result"
)

// Figures are what was measured, by round.
type Figures struct {
	fairway, ptp []Crowd
}

func (f *Figures) add(n Network, c Crowd) {
	if n == Fairway {
		f.fairway = append(f.fairway, c)
	} else {
		f.ptp = append(f.ptp, c)
	}
}

// none is the goal of what must not be at all: a Row's zero is no goal.
const none = 0.001

// Report names the figures, with the project's goals.
func (f Figures) Report() result.Report {
	goal := func(r result.Row, most float64) result.Row { r.AtMost = most; return r }
	ours, theirs := seconds(f.fairway), seconds(f.ptp)
	// Of second sandboxes the worst round counts.
	return result.Report{Rows: []result.Row{
		goal(result.Over("pods300_second_sandboxes", 100, each(f.fairway, func(c Crowd) int { return c.SecondSandboxes })), none),
		goal(result.Ratio("pod_start_p50_over_ptp", 50, ours, theirs), 1.05),
		result.Ratio("pod_start_p99_over_ptp", 99, ours, theirs),
		result.Ratio("pods300_cpu_over_ptp", 50, work(f.fairway), work(f.ptp)),
		result.Over("pods300_cpu_s", 50, work(f.fairway)),
		result.Over("pod_start_p50_s", 50, ours),
		result.Over("pod_start_p99_s", 99, ours),
		result.Over("ptp_pod_start_p50_s", 50, theirs),
		result.Over("ptp_pod_start_p99_s", 99, theirs),
		result.Over("ptp_second_sandboxes", 100, each(f.ptp, func(c Crowd) int { return c.SecondSandboxes })),
	}}
}

func seconds(crowds []Crowd) (rounds [][]float64) {
	for _, c := range crowds {
		var s []float64
		for _, d := range c.Starts {
			s = append(s, d.Seconds())
		}
		rounds = append(rounds, s)
	}
	return rounds
}

func work(crowds []Crowd) (rounds [][]float64) {
	for _, c := range crowds {
		rounds = append(rounds, []float64{c.Work.Seconds()})
	}
	return rounds
}

func each(crowds []Crowd, figure func(Crowd) int) (rounds [][]float64) {
	for _, c := range crowds {
		rounds = append(rounds, []float64{float64(figure(c))})
	}
	return rounds
}

// WriteTable prints the rounds side by side.
func (f Figures) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "pod start, s\tp50\tp90\tp99\tlast\tprocessors' work\tsecond sandboxes\t")
	for _, row := range []struct {
		network Network
		crowds  []Crowd
	}{{Fairway, f.fairway}, {PTP, f.ptp}} {
		for i, s := range seconds(row.crowds) {
			c := row.crowds[i]
			fmt.Fprintf(t, "%s, round %d\t%.1f\t%.1f\t%.1f\t%.1f\t%.0f\t%d\t\n", row.network, i+1, result.Percentile(s, 50),
				result.Percentile(s, 90), result.Percentile(s, 99), c.Last().Seconds(), c.Work.Seconds(), c.SecondSandboxes)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `
%d pods at once over %d %s, each EC2 call %s, an attachment up to %s. A start is
from the request that makes the pod until a watch shows it ready; the kubelets, the
runtime and the control plane share this machine's processors, and that is most of it.
`, Count, nodes, nodeType, callDelay, attachTime)
	return err
}
