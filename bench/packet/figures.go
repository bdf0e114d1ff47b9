package packet

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/fairway-cni/fairway/bench/result"
)

// key is what a series of samples is of.
type key struct {
	Design
	work work
}

// pair is two samples, one right after the other: microseconds per operation.
type pair struct{ host, own float64 }

// Figures is what a run has measured.
type Figures struct {
	Designs []Design
	samples map[key][]pair
}

// goals of the project, as ratios to the host's round trip.
var goals = map[Kind]float64{Seed: 2.1, Lean: 1.65}

// flat is the goal for the most pods beside one.
const flat = 1.05

// names of the rows: what stands before and after the name of the work.
var prefixes = map[Kind][2]string{Seed: {"", ""}, Lean: {"", "_lean"}, Rules: {"rules_", ""}}

// Report names the figures. A ratio is of what its name says: of times for rtt,
// so that more is worse, and of rates for pps and bulk, so that more is better.
func (f Figures) Report() result.Report {
	var rows []result.Row
	for _, w := range works {
		for _, d := range f.Designs {
			name := fmt.Sprintf("%s%s%s_over_host_%d", prefixes[d.Kind][0], w, prefixes[d.Kind][1], d.Pods)
			row := f.overHost(name, key{d, w})
			if w == rtt {
				row.AtMost = goals[d.Kind]
			}
			rows = append(rows, row)
		}
	}
	for _, k := range []Kind{Seed, Lean} {
		least, most := f.ends(k)
		if least == most {
			continue
		}
		name := fmt.Sprintf("rtt%s_%d_over_%d", prefixes[k][1], most, least)
		row := over(name, f.ratios(key{Design{k, most}, rtt}), f.ratios(key{Design{k, least}, rtt}))
		row.AtMost = flat
		rows = append(rows, row)
	}
	return result.Report{Rows: append(rows,
		// What the ratios are to: it tells a slow machine from a slow path.
		f.host("host_rtt_us", rtt, func(us float64) float64 { return us }),
		f.host("host_kpps", pps, kpps),
		f.host("host_bulk_gbit", bulk, gbit),
	)}
}

// ends are the least and the most pods of a kind.
func (f Figures) ends(k Kind) (least, most int) {
	for _, d := range f.Designs {
		if d.Kind == k {
			if least == 0 {
				least = d.Pods
			}
			least, most = min(least, d.Pods), max(most, d.Pods)
		}
	}
	return least, most
}

// overHost is a row of the ratios of pairs.
func (f Figures) overHost(name string, k key) result.Row { return series(name, f.ratios(k)) }

func (f Figures) ratios(k key) []float64 {
	var ratios []float64
	for _, p := range f.samples[k] {
		if k.work == rtt {
			ratios = append(ratios, p.own/p.host)
		} else {
			ratios = append(ratios, p.host/p.own)
		}
	}
	return ratios
}

func over(name string, a, b []float64) result.Row {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		ratios = append(ratios, a[i]/b[i])
	}
	return series(name, ratios)
}

func (f Figures) host(name string, w work, unit func(us float64) float64) result.Row {
	var all []float64
	for _, d := range f.Designs {
		for _, p := range f.samples[key{d, w}] {
			all = append(all, unit(p.host))
		}
	}
	return series(name, all)
}

// series is a row of samples each of which is a round of its own.
func series(name string, samples []float64) result.Row {
	var each [][]float64
	for s := range slices.Values(samples) {
		each = append(each, []float64{s})
	}
	return result.Over(name, 50, each)
}

func kpps(us float64) float64 { return 1e3 / us }
func gbit(us float64) float64 { return writeSize * 8 / us / 1e3 }

// WriteTable prints every design with its own figures and its ratios.
func (f Figures) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "nodes\tpods\tRTT us\tx host\tp10-p90\tkpps\tx host\tp10-p90\tGbit/s\tx host\tp10-p90\t")
	fmt.Fprintf(t, "%s\t-\t%.2f\t1\t\t%.0f\t1\t\t%.1f\t1\t\t\n", Host, f.host("", rtt, func(us float64) float64 { return us }).Value,
		f.host("", pps, kpps).Value, f.host("", bulk, gbit).Value)
	for _, d := range f.Designs {
		fmt.Fprintf(t, "%s\t%d\t", d.Kind, d.Pods)
		for _, w := range works {
			var own []float64
			for _, p := range f.samples[key{d, w}] {
				own = append(own, p.own)
			}
			v, format := result.Percentile(own, 50), "%.2f\t"
			switch w {
			case pps:
				v, format = kpps(v), "%.0f\t"
			case bulk:
				v, format = gbit(v), "%.1f\t"
			}
			r := f.overHost("", key{d, w})
			fmt.Fprintf(t, format+"%.2f\t%.2f-%.2f\t", v, r.Value, r.P10, r.P90)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}
