package fabric

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/fairway-cni/fairway/bench/result"
)

// Figures are rates by kind of VPC and round, and how long each start took.
type Figures struct {
	packets [len(kinds)][][]float64 // in a second
	bulk    [len(kinds)][][]float64 // bytes in a second
	starts  [][]float64             // seconds
}

// What the project has set itself.
const (
	leastBulk    = 0.85
	leastPackets = 0.75
	mostSeconds  = 20
)

// Report names the figures.
func (f Figures) Report() result.Report {
	up := result.Over("instances_50_s", 50, f.starts)
	up.AtMost = mostSeconds
	return result.Report{Rows: []result.Row{
		result.Ratio("fabric_bulk_ratio", 50, f.bulk[groups], f.bulk[plain]),
		result.Ratio("fabric_pps_ratio", 50, f.packets[groups], f.packets[plain]),
		up,
		result.Ratio("fabric_acl_bulk_ratio", 50, f.bulk[acls], f.bulk[plain]),
		result.Ratio("fabric_acl_pps_ratio", 50, f.packets[acls], f.packets[plain]),
		// What the ratios are made of: they tell a slow machine from a slow path.
		scaled(result.Over("fabric_plain_bulk_gbit", 50, f.bulk[plain]), 8e-9),
		scaled(result.Over("fabric_plain_kpps", 50, f.packets[plain]), 1e-3),
	}}
}

func scaled(r result.Row, by float64) result.Row {
	r.Value, r.P10, r.P90 = r.Value*by, r.P10*by, r.P90*by
	return r
}

// WriteTable prints the rates side by side, and whether the goals that are at
// least something are met.
func (f Figures) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "median\t")
	for _, k := range kinds {
		fmt.Fprintf(t, "%s\t", k.name)
	}
	fmt.Fprintln(t, "groups / plain\tgoal\t")
	for _, row := range []struct {
		name  string
		rates [len(kinds)][][]float64
		by    float64
		least float64
	}{
		{"64-byte packets, thousands a second", f.packets, 1e-3, leastPackets},
		{"TCP bulk, Gbit/s", f.bulk, 8e-9, leastBulk},
	} {
		fmt.Fprintf(t, "%s\t", row.name)
		for _, rates := range row.rates {
			fmt.Fprintf(t, "%.1f\t", result.Over("", 50, rates).Value*row.by)
		}
		ratio, verdict := result.Ratio("", 50, row.rates[groups], row.rates[plain]), "met"
		if ratio.Value < row.least {
			verdict = "MISSED"
		}
		fmt.Fprintf(t, "%.3f (%.3f to %.3f)\tat least %.2f: %s\t\n", ratio.Value, ratio.P10, ratio.P90, row.least, verdict)
	}
	return t.Flush()
}
