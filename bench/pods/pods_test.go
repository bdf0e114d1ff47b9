package pods

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestCountSandboxes: requests count, and neither answers nor other namespaces. The
// lines are containerd's.
func TestCountSandboxes(t *testing.T) {
	const log = `time="2026-11-21T12:20:57.232545110Z" level=info msg="RunPodSandbox for name:\"coredns-68c5\" uid:\"ec03\" namespace:\"kube-system\""
time="2026-11-21T12:20:57.300000000Z" level=info msg="RunPodSandbox for name:\"pod-001\" uid:\"aa01\" namespace:\"default\""
time="2026-11-21T12:20:57.409538275Z" level=info msg="RunPodSandbox for name:\"pod-001\" uid:\"aa01\" namespace:\"default\" returns sandbox id \"913c\""
time="2026-11-21T12:20:58.000000000Z" level=error msg="RunPodSandbox for name:\"pod-002\" uid:\"aa02\" namespace:\"default\" failed, error" error="rpc error: code = Unknown desc = failed to setup network"
time="2026-11-21T12:20:57.500000000Z" level=info msg="RunPodSandbox for name:\"pod-002\" uid:\"aa02\" namespace:\"default\""
time="2026-11-21T12:21:09.500000000Z" level=info msg="RunPodSandbox for name:\"pod-002\" uid:\"aa02\" namespace:\"default\" attempt:1"
time="2026-11-21T12:21:09.600000000Z" level=info msg="RunPodSandbox for name:\"pod-002\" uid:\"aa02\" namespace:\"default\" attempt:1 returns sandbox id \"913d\""
`
	got := map[string]int{}
	if err := countSandboxes(strings.NewReader(log), got); err != nil {
		t.Fatal(err)
	}
	if want := map[string]int{"aa01": 1, "aa02": 2}; !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// TestMeasure: a pod that was never ready is an error and no figure.
func TestMeasure(t *testing.T) {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	made := []time.Time{noon, noon.Add(time.Second), noon}
	ready := map[string]time.Time{podName(0): noon.Add(9 * time.Second), podName(1): noon.Add(3 * time.Second)}
	if _, err := measure(made, ready); err == nil || !strings.Contains(err.Error(), podName(2)) {
		t.Errorf("error %v, want one that names %s", err, podName(2))
	}
	ready[podName(2)] = noon.Add(4 * time.Second)
	c, err := measure(made, ready)
	if want := []time.Duration{2 * time.Second, 4 * time.Second, 9 * time.Second}; err != nil || !slices.Equal(c.Starts, want) {
		t.Errorf("starts %v, %v; want %v", c.Starts, err, want)
	}
}

// TestReport: one pod that needed a second sandbox in one round misses the goal.
func TestReport(t *testing.T) {
	var f Figures
	s := func(list ...time.Duration) Crowd { return Crowd{Starts: list, Work: 100 * time.Second} }
	f.add(Fairway, s(10*time.Second, 20*time.Second, 30*time.Second))
	f.add(PTP, s(20*time.Second, 20*time.Second, 20*time.Second))
	again := s(10*time.Second, 20*time.Second, 30*time.Second)
	again.SecondSandboxes = 1
	f.add(Fairway, again)
	f.add(PTP, s(20*time.Second, 20*time.Second, 20*time.Second))
	got := map[string]float64{}
	for _, r := range f.Report().Rows {
		got[r.Metric] = r.Value
		if wrong := r.Metric == "pods300_second_sandboxes" && r.Met() || r.Metric == "pod_start_p50_over_ptp" && !r.Met(); wrong {
			t.Errorf("%+v: met is %v", r, r.Met())
		}
	}
	want := map[string]float64{"pods300_second_sandboxes": 1, "pod_start_p50_over_ptp": 1, "pod_start_p99_over_ptp": 1.5,
		"pods300_cpu_over_ptp": 1, "pods300_cpu_s": 100, "pod_start_p50_s": 20, "pod_start_p99_s": 30, "ptp_pod_start_p50_s": 20, "ptp_pod_start_p99_s": 20, "ptp_second_sandboxes": 0}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	var out strings.Builder
	if err := f.WriteTable(&out); err != nil || !strings.Contains(out.String(), string(Fairway)+", round 2") {
		t.Errorf("%v:\n%s", err, &out)
	}
}

// TestParseBusy: niced work, idling and waiting for disks are left out.
func TestParseBusy(t *testing.T) {
	got, err := parseBusy([]byte("cpu  100 5000 30 9000 700 0 20 4 0 0\ncpu0 1 2 3\n"))
	if want := 1500 * time.Millisecond; err != nil || got != want {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for _, text := range []string{"", "cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8\n", "cpu  100 5000 x 9000 700 0 20 4 0 0\n"} {
		if d, err := parseBusy([]byte(text)); err == nil {
			t.Errorf("%q is %v, want an error", text, d)
		}
	}
}
