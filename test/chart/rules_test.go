package chart

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"
)

// TestRulesOverTime: what a rule makes of an hour that no test waits for: looks that lack
// something, crowds of failures that pass, requests that fail beside others that do not.
func TestRulesOverTime(t *testing.T) {
	requests := func(what, result string, n int) string {
		return fmt.Sprintf("fairway_cluster_requests_total{verb=\"list\",what=%q,result=%q} %d\n", what, result, n)
	}
	const noAddress = "fairway_cni_duration_seconds_count{command=\"ADD\",result=\"no_address\"} %d\n"
	for name, tt := range map[string]struct {
		look func(i int) string // what a look finds, two a minute; empty: there is no target
		want []string
	}{
		"nothing is looked at": {func(int) string { return "" }, []string{"FairwayUnwatched"}},
		"each fourth look finds the loop busy": {func(i int) string {
			if i%4 == 3 {
				return "fairway_node_loop_up 0\n"
			}
			return "fairway_node_loop_up 1\nfairway_kernel_behind 1\nfairway_path_asymmetric 2\n"
		}, []string{"FairwayKernelBehind", "FairwayPathAsymmetric"}},
		"a gauge is as it should be again":  {func(i int) string { return fmt.Sprintf("fairway_kernel_behind %d\n", min(1, i/8%2)) }, nil},
		"pods wait for an ENI for a minute": {func(i int) string { return fmt.Sprintf(noAddress, 10*max(0, min(i-60, 2))) }, nil},
		"a pod never gets an address":       {func(i int) string { return fmt.Sprintf(noAddress, i) }, []string{"FairwayPodsWithoutAddress"}},
		"the API server answers each second request": {func(i int) string {
			return requests("pods", "failed", i) + requests("pods", "ok", i)
		}, nil},
		"it refuses one kind": {func(i int) string {
			return requests("nodes", "failed", i) + requests("pods", "ok", i)
		}, []string{"FairwayAPIServerFails"}},
		"a definition is missing that need not be there": {func(i int) string { return requests("nodeconfigs", "failed", i) }, nil},
		"three new starts of a rollout":                  {func(i int) string { return fmt.Sprintf("process_start_time_seconds %d\n", min(i/10, 3)) }, nil},
		"a start each five minutes":                      {func(i int) string { return fmt.Sprintf("process_start_time_seconds %d\n", i/10) }, []string{"FairwayAgentRestarts"}},
	} {
		t.Run(name, func(t *testing.T) {
			h, first := history{}, time.Unix(1_700_000_000, 0)
			at := first
			for i := range int(time.Hour / interval) {
				if text := tt.look(i); text != "" {
					h.store(t, scrape("# of a test\n"+text), at)
				}
				at = at.Add(interval)
			}
			for _, r := range rules(t) {
				if fires, should := h.fires(t, r, first, at), slices.Contains(tt.want, r.Alert); fires != should {
					t.Errorf("%s fires: %v, want %v", r.Alert, fires, should)
				}
			}
		})
	}
}

// TestSummaries: each names the node, where Prometheus knows its name, else its address.
func TestSummaries(t *testing.T) {
	for _, r := range rules(t) {
		// As Prometheus has them: rules/alerting.go.
		summary, err := template.New(r.Alert).Parse("{{$labels := .Labels}}{{$value := .Value}}" + r.Annotations["summary"])
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			labels map[string]string
			want   string
		}{
			{map[string]string{"instance": "10.0.1.4:61678", "node": "node-a", "subnet": "subnet-1"}, "node-a"},
			{map[string]string{"instance": "10.0.1.4:61678", "subnet": "subnet-1"}, "10.0.1.4:61678"},
		} {
			switch r.Alert {
			case "FairwaySubnetFills":
				tt.want = "subnet-1"
			case "FairwayUnwatched":
				tt.want = "no agent"
			}
			var text strings.Builder
			if err := summary.Execute(&text, map[string]any{"Labels": tt.labels, "Value": 3.0}); err != nil || !strings.Contains(text.String(), tt.want) {
				t.Errorf("%s: %q (%v), want one with %s", r.Alert, text.String(), err, tt.want)
			}
		}
	}
}
