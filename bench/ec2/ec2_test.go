package ec2

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/bench/result"
)

// TestMeasure runs a little of everything.
func TestMeasure(t *testing.T) {
	f, err := measure(t.Context(), Env{Progress: io.Discard}, size{enis: 30, rounds: 2, byID: 40, walks: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range f.Report().Rows {
		if row.Value <= 0 {
			t.Errorf("%s is %v", row.Metric, row.Value)
		}
	}
}

func TestMeasureEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := measure(ctx, Env{Progress: io.Discard}, size{enis: 1, rounds: 1, byID: 4, walks: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// A walk that misses an interface is an error, and so is a call that fails.
func TestErrors(t *testing.T) {
	s, err := open(size{enis: 7})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.walk(t.Context(), 8); err == nil {
		t.Error("a walk of 7 found 8")
	}
	if _, err := rate(t.Context(), 9, func(ctx context.Context, _ int) error { return s.describe(ctx, "eni-00000000") }); err == nil || !strings.Contains(err.Error(), "NotFound") {
		t.Errorf("describe what is not there: %v", err)
	}
}

func TestReport(t *testing.T) {
	f := Figures{floor: [][]float64{{9000}}, byID: [][]float64{{1500}, {1500}}, walk: [][]float64{{0.5}, {0.5}}}
	want := []result.Row{
		{Metric: "describe_by_id_per_s", Value: 1500, P10: 1500, P90: 1500, AtLeast: 1000},
		{Metric: "walk_10000_s", Value: 0.5, P10: 0.5, P90: 0.5, AtMost: 3},
		{Metric: "ec2_empty_exchange_per_s", Value: 9000, P10: 9000, P90: 9000},
	}
	if diff := cmp.Diff(want, f.Report().Rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	f.byID, f.walk = [][]float64{{900}}, [][]float64{{3.1}}
	for _, row := range f.Report().Rows[:2] {
		if row.Met() {
			t.Errorf("%s is met by %v", row.Metric, row.Value)
		}
	}
}
