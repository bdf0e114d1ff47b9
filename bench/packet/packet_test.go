package packet

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fairway-cni/fairway/bench/packet/site"
	"github.com/fairway-cni/fairway/bench/result"
)

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces (CAP_SYS_ADMIN)")
	}
}

// TestMeasure runs the bench with few pods and few rounds: every kind carries
// packets both ways, and every figure is there. What the figures are is not
// for a test to say.
func TestMeasure(t *testing.T) {
	requireRoot(t)
	designs := []Design{{Seed, 1}, {Seed, 3}, {Lean, 1}, {Lean, 3}, {Rules, 1}, {Rules, 3}}
	f, err := measure(context.Background(), designs, 2, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WriteTable(io.Discard); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range f.Report().Rows {
		names = append(names, r.Metric)
		if !(r.Value > 0 && r.P10 > 0 && r.P10 <= r.P90) {
			t.Errorf("%s: %+v, want positive figures", r.Metric, r)
		}
	}
	want := []string{
		"rtt_over_host_1", "rtt_over_host_3", "rtt_lean_over_host_1", "rtt_lean_over_host_3", "rules_rtt_over_host_1", "rules_rtt_over_host_3",
		"pps_over_host_1", "pps_over_host_3", "pps_lean_over_host_1", "pps_lean_over_host_3", "rules_pps_over_host_1", "rules_pps_over_host_3",
		"bulk_over_host_1", "bulk_over_host_3", "bulk_lean_over_host_1", "bulk_lean_over_host_3", "rules_bulk_over_host_1", "rules_bulk_over_host_3",
		"rtt_3_over_1", "rtt_lean_3_over_1", "host_rtt_us", "host_kpps", "host_bulk_gbit",
	}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
}

func TestMeasureStopsWithContext(t *testing.T) {
	requireRoot(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := measure(ctx, []Design{{Seed, 1}}, 1, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
}

// TestCheckRefuses: packets that do not leave by the pod's own ENI are not what
// is to be measured.
func TestCheckRefuses(t *testing.T) {
	requireRoot(t)
	b := bench{say: func(string, ...any) {}}
	defer b.close()
	d := Design{Kind: Rules, Pods: 1}
	if err := b.build(d); err != nil {
		t.Fatal(err)
	}
	s := b.sites[0]
	if err := b.open(d, s); err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Nodes {
		// It is told that the primary ENI is the pod's, and nothing goes by that.
		n.Snapshot.ENIs = n.Snapshot.ENIs[:1]
	}
	if err := b.lanes[0].check(s); err == nil || !strings.Contains(err.Error(), "own ENI") {
		t.Errorf("error %v, want one that names the pod's own ENI", err)
	}
	if _, err := newLane(d, &site.Site{Nodes: s.Nodes}); err == nil {
		t.Error("opened sockets whose address is in use")
	}
}

func TestReport(t *testing.T) {
	seed1, seed9 := Design{Seed, 1}, Design{Seed, 9}
	f := Figures{Designs: []Design{seed1, seed9}, samples: map[key][]pair{
		// The second round's machine is twice as slow.
		{seed1, rtt}:  {{2, 4}, {4, 8}},
		{seed9, rtt}:  {{2, 5}, {4, 10}},
		{seed1, pps}:  {{1, 2}, {2, 4}},
		{seed9, pps}:  {{1, 4}, {2, 8}},
		{seed1, bulk}: {{8, 10}, {8, 10}},
		{seed9, bulk}: {{8, 10}, {8, 10}},
	}}
	row := func(name string, v, goal float64) result.Row {
		return result.Row{Metric: name, Value: v, P10: v, P90: v, AtMost: goal}
	}
	want := []result.Row{
		row("rtt_over_host_1", 2, 2.1), row("rtt_over_host_9", 2.5, 2.1),
		row("pps_over_host_1", 0.5, 0), row("pps_over_host_9", 0.25, 0),
		row("bulk_over_host_1", 0.8, 0), row("bulk_over_host_9", 0.8, 0),
		row("rtt_9_over_1", 1.25, 1.05),
		{Metric: "host_rtt_us", Value: 3, P10: 2, P90: 4},
		{Metric: "host_kpps", Value: 750, P10: 500, P90: 1000},
		row("host_bulk_gbit", 65.536, 0),
	}
	if d := cmp.Diff(want, f.Report().Rows, cmpopts.EquateApprox(0, 1e-9)); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
	var b strings.Builder
	if err := f.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if d := cmp.Diff([]string{"seed", "9", "7.50", "2.50", "2.50-2.50", "167", "0.25", "0.25-0.25", "52.4", "0.80", "0.80-0.80"},
		strings.Fields(lines[len(lines)-1])); d != "" || len(lines) != 4 {
		t.Errorf("table of %d lines, the last one (-want +got):\n%s", len(lines), d)
	}
}
