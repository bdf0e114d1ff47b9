package add

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/fairway-cni/fairway/bench/result"
)

// Figures are the rounds in milliseconds, sorted by what was done in them.
type Figures struct {
	empty, full, burst series
}

// series is the same work in rounds, with what ran beside it.
type series struct {
	turn            []int // of the round
	floor, add, del [][]float64
}

// byTurn joins the rounds of a turn. Empty node and full node are not run side
// by side but turn by turn, so that is what their spread is about.
func (s series) byTurn(rounds [][]float64) [][]float64 {
	var turns [][]float64
	for i, r := range rounds {
		if i == 0 || s.turn[i] != s.turn[i-1] {
			turns = append(turns, nil)
		}
		turns[len(turns)-1] = append(turns[len(turns)-1], r...)
	}
	return turns
}

func figures(rounds []round) Figures {
	var f Figures
	for _, r := range rounds {
		s := &f.empty
		switch {
		case r.Parallel > 1:
			s = &f.burst
		case r.Pods > 0:
			s = &f.full
		}
		s.turn = append(s.turn, r.Turn)
		s.floor = append(s.floor, milliseconds(r.Floor))
		s.add = append(s.add, milliseconds(r.Add))
		s.del = append(s.del, milliseconds(r.Del))
	}
	return f
}

func milliseconds(ds []time.Duration) []float64 {
	var ms []float64
	for _, d := range ds {
		ms = append(ms, float64(d)/float64(time.Millisecond))
	}
	return ms
}

// Report names the figures, with the project's goals.
func (f Figures) Report() result.Report {
	goal := func(r result.Row, most float64) result.Row { r.AtMost = most; return r }
	return result.Report{Rows: []result.Row{
		result.Over("add_p50_ms", 50, f.empty.add),
		goal(result.Ratio("add_p50_over_floor", 50, f.empty.add, f.empty.floor), 1.5),
		goal(result.Ratio("add16_p99_over_floor", 99, f.burst.add, f.burst.floor), 2),
		// "Flat", with room for what a machine repeats of the same figure.
		goal(result.Ratio("add_p50_250_over_0", 50, f.full.byTurn(f.full.add), f.empty.byTurn(f.empty.add)), 1.1),
		result.Over("del_p50_ms", 50, f.empty.del),
		// What the ratios are made of: they tell a slow machine from a slow ADD.
		result.Over("floor_p50_ms", 50, f.empty.floor),
		result.Ratio("floor_p50_250_over_0", 50, f.full.byTurn(f.full.floor), f.empty.byTurn(f.empty.floor)),
		result.Over("add16_p99_ms", 99, f.burst.add),
		result.Over("floor16_p99_ms", 99, f.burst.floor),
	}}
}

// WriteTable prints the distributions side by side.
func (f Figures) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "from exec to exit, ms\t\tfloor\t\t\tADD\t\t\tADD / floor\t\tDEL\t")
	fmt.Fprintln(t, "pods on the node\tn\tp50\tp90\tp99\tp50\tp90\tp99\tp50\tp99\tp50\t")
	for _, row := range []struct {
		name string
		series
	}{
		{"0, one after the other", f.empty},
		{fmt.Sprintf("%d, one after the other", fullNode), f.full},
		{fmt.Sprintf("0, %d at a time", parallel), f.burst},
	} {
		n := 0
		for _, r := range row.add {
			n += len(r)
		}
		fmt.Fprintf(t, "%s\t%d\t", row.name, n)
		for _, s := range [][][]float64{row.floor, row.add} {
			for _, p := range []float64{50, 90, 99} {
				fmt.Fprintf(t, "%.2f\t", result.Over("", p, s).Value)
			}
		}
		fmt.Fprintf(t, "%.2f\t%.2f\t%.2f\t\n", result.Ratio("", 50, row.add, row.floor).Value,
			result.Ratio("", 99, row.add, row.floor).Value, result.Over("", 50, row.del).Value)
	}
	return t.Flush()
}
