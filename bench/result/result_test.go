package result

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestPercentile(t *testing.T) {
	for _, tt := range []struct {
		name    string
		samples []float64
		p       float64
		want    float64
	}{
		{"none", nil, 50, math.NaN()},
		{"one", []float64{7}, 99, 7},
		{"median of odd", []float64{9, 1, 5}, 50, 5},
		{"median of even", []float64{4, 1, 3, 2}, 50, 2.5},
		{"lowest", []float64{3, 1, 2}, 0, 1},
		{"highest", []float64{3, 1, 2}, 100, 3},
		{"between", []float64{0, 10}, 10, 1},
		{"p99 of few is near the worst", []float64{1, 1, 1, 1, 101}, 99, 97},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, Percentile(tt.samples, tt.p), cmpopts.EquateNaNs(), cmpopts.EquateApprox(0, 1e-9)); d != "" {
				t.Error(d)
			}
		})
	}
	samples := []float64{3, 1, 2}
	Percentile(samples, 50)
	if d := cmp.Diff([]float64{3, 1, 2}, samples); d != "" {
		t.Errorf("samples were sorted in place: %s", d)
	}
}

var near = cmpopts.EquateApprox(0, 1e-9)

func TestOver(t *testing.T) {
	got := Over("m", 50, [][]float64{{1, 1, 1}, {2, 2, 2}, {9, 9, 9, 9}})
	want := Row{Metric: "m", Value: 2, P10: 1.2, P90: 7.6}
	if d := cmp.Diff(want, got, near); d != "" {
		t.Error(d)
	}
}

// TestRatio: a machine that is twice as slow in one round changes the samples of
// both series and no ratio.
func TestRatio(t *testing.T) {
	a := [][]float64{{3, 3, 3}, {6, 6, 6}, {3, 3, 3}}
	b := [][]float64{{2, 2, 2}, {4, 4, 4}, {2, 2, 2}}
	want := Row{Metric: "m", Value: 1.5, P10: 1.5, P90: 1.5}
	if d := cmp.Diff(want, Ratio("m", 50, a, b), near); d != "" {
		t.Error(d)
	}
	if got := Ratio("m", 50, a[:1], b); got.P10 != 1.5 || got.Value != 1.5 {
		t.Errorf("series of different length: %+v", got)
	}
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	r := Report{Rows: []Row{
		{Metric: "add_p50_ms", Value: 2.40049, P10: 2.25, P90: 2.6, AtMost: 3},
		{Metric: "add_p50_over_floor", Value: 2, P10: 1, P90: 3},
	}}
	path, err := r.Write(dir, "add")
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "add.json"); path != want {
		t.Errorf("path %s, want %s", path, want)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
  "rows": [
    {
      "metric": "add_p50_ms",
      "value": 2.4,
      "p10": 2.25,
      "p90": 2.6
    },
    {
      "metric": "add_p50_over_floor",
      "value": 2,
      "p10": 1,
      "p90": 3
    }
  ]
}
`
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Error(d)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("%d files in %s, want the result alone", len(files), dir)
	}
}

func TestWriteRefuses(t *testing.T) {
	dir := t.TempDir()
	_, err := Report{Rows: []Row{{Metric: "add_p50_ms", Value: math.NaN()}}}.Write(dir, "add")
	if err == nil || !strings.Contains(err.Error(), "add_p50_ms") {
		t.Errorf("error %v, want one that names the metric", err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Error("a refused result left a file")
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Report{}).Write(file, "add"); err == nil {
		t.Error("wrote into a directory that is a file")
	}
}

func TestWriteTable(t *testing.T) {
	var b strings.Builder
	r := Report{Rows: []Row{
		{Metric: "add_p50_ms", Value: 2.401, P10: 2.25, P90: 2.6},
		{Metric: "add_p50_over_floor", Value: 1.4, P10: 1.2, P90: 1.7, AtMost: 1.5},
		{Metric: "add16_p99_over_floor", Value: 2.5, P10: 1, P90: 3, AtMost: 2},
	}}
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	const want = `METRIC                VALUE  P10   P90   GOAL
add_p50_ms            2.40   2.25  2.60  -
add_p50_over_floor    1.40   1.20  1.70  at most 1.5: met
add16_p99_over_floor  2.50   1.00  3.00  at most 2: MISSED
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}
