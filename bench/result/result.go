// Package result is the form of every bench's outcome: named figures with their
// spread, as a table for a person and as JSON for a program.
//
//	{"rows":[{"metric":"add_p50_ms","value":2.4,"p10":2.3,"p90":2.6}, ...]}
//
// A bench runs in rounds. A row's value is the figure over the whole run; p10
// and p90 are percentiles of the same figure taken for each round alone. So the
// spread says how far the figure can be trusted on a machine that does other
// things too, and not how much single samples differ.
//
// The package holds no state; only [Report.Write] touches the world.
package result

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"
)

// Row is one figure. A name ends in its unit (_ms) or says that it is a ratio
// (_over_).
type Row struct {
	Metric string  `json:"metric"`
	Value  float64 `json:"value"`
	P10    float64 `json:"p10"`
	P90    float64 `json:"p90"`
	// AtMost and AtLeast are the goal that the project has set itself; 0: none. It
	// is not in the JSON: a goal is an opinion about a figure and no part of it.
	AtMost  float64 `json:"-"`
	AtLeast float64 `json:"-"`
}

// Met reports whether the value is within the goal. A row without one is.
func (r Row) Met() bool {
	return (r.AtMost == 0 || r.Value <= r.AtMost) && r.Value >= r.AtLeast
}

// Report is the outcome of one bench.
type Report struct {
	Rows []Row `json:"rows"`
}

// MarshalJSON gives every figure three decimals, which is more than any bench
// repeats. A figure that is no number is an error, with its name.
func (r Row) MarshalJSON() ([]byte, error) {
	type plain Row // without this method
	for _, v := range []*float64{&r.Value, &r.P10, &r.P90} {
		if math.IsNaN(*v) || math.IsInf(*v, 0) {
			return nil, fmt.Errorf("metric %s: %v is not a number", r.Metric, *v)
		}
		*v = math.Round(*v*1000) / 1000
	}
	return json.Marshal(plain(r))
}

// WriteTable prints the rows for a person.
func (r Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "METRIC\tVALUE\tP10\tP90\tGOAL")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", row.Metric, figure(row.Value), figure(row.P10), figure(row.P90), row.verdict())
	}
	return t.Flush()
}

func (r Row) verdict() string {
	var goal string
	switch {
	case r.AtMost != 0:
		goal = "at most " + strconv.FormatFloat(r.AtMost, 'g', -1, 64)
	case r.AtLeast != 0:
		goal = "at least " + strconv.FormatFloat(r.AtLeast, 'g', -1, 64)
	default:
		return "-"
	}
	if r.Met() {
		return goal + ": met"
	}
	return goal + ": MISSED"
}

func figure(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }

// Write puts the rows into dir/name.json, by a rename, and gives the path.
func (r Report) Write(dir, name string) (string, error) {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write result of %s: %w", name, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("write result of %s: %w", name, err)
	}
	path := filepath.Join(dir, name+".json")
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, append(text, '\n'), 0o644); err != nil {
		return "", fmt.Errorf("write result of %s: %w", name, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return "", fmt.Errorf("write result of %s: %w", name, err)
	}
	return path, nil
}
