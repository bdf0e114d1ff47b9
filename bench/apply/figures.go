package apply

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/fairway-cni/fairway/bench/result"
)

// Figures is what a run has measured.
type Figures struct {
	Pods   int
	rounds []round
}

// The project's goals. A goal of 0 would be none, and half a write there is not.
const (
	overFloor = 2
	noWrites  = 0.5
)

// Report names the figures.
func (f Figures) Report() result.Report {
	goal := func(r result.Row, most float64) result.Row { r.AtMost = most; return r }
	ms := func(name string, of func(round) time.Duration) result.Row { return result.Over(name, 50, f.each(of)) }
	ours, floor := f.each(func(r round) time.Duration { return r.ours }), f.each(func(r round) time.Duration { return r.floor })
	writes := make([][]float64, len(f.rounds))
	for i, r := range f.rounds {
		writes[i] = []float64{float64(r.writes)}
	}
	return result.Report{Rows: []result.Row{
		goal(result.Ratio(fmt.Sprintf("apply_%d_over_floor", f.Pods), 50, ours, floor), overFloor),
		goal(result.Over("warm_restart_writes", 100, writes), noWrites),
		ms(fmt.Sprintf("compare_%d_ms", f.Pods), func(r round) time.Duration { return r.compare }),
		ms("one_change_ms", func(r round) time.Duration { return r.change }),
		ms("one_pod_ms", func(r round) time.Duration { return r.pod }),
		ms("warm_restart_ms", func(r round) time.Duration { return r.restart }),
		// What the ratio is made of: it tells a slow machine from slow code.
		result.Over(fmt.Sprintf("apply_%d_ms", f.Pods), 50, ours),
		result.Over(fmt.Sprintf("floor_%d_ms", f.Pods), 50, floor),
	}}
}

// each is one figure of every round, in milliseconds.
func (f Figures) each(of func(round) time.Duration) [][]float64 {
	var all [][]float64
	for _, r := range f.rounds {
		all = append(all, []float64{float64(of(r)) / float64(time.Millisecond)})
	}
	return all
}

// WriteTable prints what a full comparison is made of.
func (f Figures) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "full comparison, %d pods, ms\tp50\tp10\tp90\t\n", f.Pods)
	for _, part := range []struct {
		name string
		of   func(round) time.Duration
	}{
		{"intent", func(r round) time.Duration { return r.intent }},
		{"read the kernel", func(r round) time.Duration { return r.read }},
		{"difference", func(r round) time.Duration { return r.diff }},
	} {
		r := result.Over("", 50, f.each(part.of))
		fmt.Fprintf(t, "%s\t%.2f\t%.2f\t%.2f\t\n", part.name, r.Value, r.P10, r.P90)
	}
	return t.Flush()
}
