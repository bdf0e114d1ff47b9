package path

import (
	"context"
	"errors"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
)

func quiet(string, ...any) {}

// TestMeasure runs a little of everything.
func TestMeasure(t *testing.T) {
	f, err := measure(t.Context(), size{pods: 5, nodes: 2, rounds: 2, traces: 3}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if f.all != 2*29+1 || f.explored == 0 || f.delivered == 0 || f.delivered == f.explored {
		t.Errorf("%d pods, %d of %d pairs delivered", f.all, f.delivered, f.explored)
	}
	names := map[string]bool{}
	for _, row := range f.Report().Rows {
		names[row.Metric] = true
		if row.Value <= 0 {
			t.Errorf("%s is %v", row.Metric, row.Value)
		}
	}
	if !names["trace_ms_5"] || !names["all_1000_s"] {
		t.Errorf("rows %v", names)
	}
}

func TestMeasureEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := measure(ctx, size{pods: 2, nodes: 1, rounds: 1, traces: 1}, quiet); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// What is measured is the story that is known, or nothing.
func TestAnotherVerdict(t *testing.T) {
	w, err := example.Crowd("healthy", 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := traces(w, 1, path.Dropped); err == nil {
		t.Error("a delivered packet was taken for a dropped one")
	}
}

func TestGoals(t *testing.T) {
	f := Figures{pods: 737, trace: [][]float64{{1.2}}, matrix: [][]float64{{6}}, ours: [][]float64{{1}}, anew: [][]float64{{1}}}
	for _, row := range f.Report().Rows[:2] {
		if row.Met() {
			t.Errorf("%s is met by %v", row.Metric, row.Value)
		}
	}
}
