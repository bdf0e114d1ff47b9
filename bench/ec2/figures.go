package ec2

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/fairway-cni/fairway/bench/result"
)

// Figures are by round.
type Figures struct {
	floor [][]float64 // empty exchanges in a second
	byID  [][]float64 // calls in a second
	walk  [][]float64 // seconds for all interfaces
}

// What the project has set itself.
const (
	leastByID = 1000
	mostWalk  = 3
)

// Report names the figures.
func (f Figures) Report() result.Report {
	byID, walk := result.Over("describe_by_id_per_s", 50, f.byID), result.Over("walk_10000_s", 50, f.walk)
	byID.AtLeast, walk.AtMost = leastByID, mostWalk
	return result.Report{Rows: []result.Row{
		byID, walk,
		// What the first is made of: it tells a slow machine from a slow API.
		result.Over("ec2_empty_exchange_per_s", 50, f.floor),
	}}
}

// WriteTable prints the figures beside what they could be.
func (f Figures) WriteTable(w io.Writer) error {
	rows := f.Report().Rows
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "OF 10,000 INTERFACES\tMEDIAN\tFLOOR")
	fmt.Fprintf(t, "one by its identifier\t%.0f/s\tan empty exchange: %.0f/s\n", rows[0].Value, rows[2].Value)
	fmt.Fprintf(t, "all, in pages of 1,000\t%.2f s\t\n", rows[1].Value)
	return t.Flush()
}
