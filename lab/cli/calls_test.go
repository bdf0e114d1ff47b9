package cli

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

func TestCountCalls(t *testing.T) {
	calls := []ec2sim.Call{
		{Action: "A", Caller: "x", Took: 3},
		{Action: "A", Caller: "y", Took: 1, Code: "RequestLimitExceeded", Throttled: true},
		{Action: "A", Caller: "y", Took: 2, Code: "InvalidVpcID.NotFound"},
		{Action: "B", Caller: "y", Took: 9},
		{Code: "MalformedQueryString"},
	}
	want := []callCount{
		{Name: "A", Calls: 3, OK: 1, Throttled: 1, Refused: 1, Median: 2, Max: 3},
		{Name: "-", Calls: 1, Refused: 1},
		{Name: "B", Calls: 1, OK: 1, Median: 9, Max: 9},
	}
	if diff := cmp.Diff(want, countCalls(calls, "action")); diff != "" {
		t.Errorf("by action (-want +got):\n%s", diff)
	}
	want = []callCount{
		{Name: "y", Calls: 3, OK: 1, Throttled: 1, Refused: 1, Median: 2, Max: 9},
		{Name: "-", Calls: 1, Refused: 1},
		{Name: "x", Calls: 1, OK: 1, Median: 3, Max: 3},
	}
	if diff := cmp.Diff(want, countCalls(calls, "caller")); diff != "" {
		t.Errorf("by caller (-want +got):\n%s", diff)
	}
	if got := countCalls(nil, "action"); len(got) != 0 {
		t.Errorf("of none: %+v", got)
	}
	for d, want := range map[time.Duration]string{12345: "12µs", 1234567: "1ms", 51 * time.Millisecond: "51ms"} {
		if got := shortTime(d).String(); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}

func TestCallsUsage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root is missing")
	}
	for _, args := range [][]string{{"calls", "--by", "day"}, {"calls", "--since", "-1m"}, {"calls", "x"}, {"calls", "--since", "soon"}} {
		if err := Run(t.Context(), Env{Stdout: os.Stdout, Stderr: os.Stderr}, args); !errors.Is(err, ErrUsage) {
			t.Errorf("%v: %v", args, err)
		}
	}
}
