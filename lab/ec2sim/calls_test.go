package ec2sim

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The log says of each request who made it, and what became of it.
func TestCalls(t *testing.T) {
	k := newClock()
	c := New(Config{Now: k.Now, Throttle: true, Regions: []string{"eu-west-1", "us-east-1"}})
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(query("DescribeVpcs")))
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKID/20260102/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0")
	send(t, c, r)
	k.advance(time.Minute)
	post(t, c, query("DeleteVpc", "VpcId=vpc-00000000"))
	post(t, c, query("NoSuchAction"))
	post(t, c, "Action=%zz")
	k.advance(time.Minute)
	for range 6 {
		post(t, c, query("RunInstances", "MaxCount=1"))
	}
	if _, err := c.DescribeVPCs(Query{}); err != nil { // no request
		t.Fatal(err)
	}
	var got []string
	for _, call := range c.Calls(time.Time{}) {
		got = append(got, fmt.Sprintf("%s %q %s %q %q %v", call.Start.Format(time.TimeOnly), call.Caller, call.Region, call.Action, call.Code, call.Throttled))
	}
	want := []string{
		`03:04:05 "AKID" us-east-1 "DescribeVpcs" "" false`,
		`03:05:05 "" eu-west-1 "DeleteVpc" "InvalidVpcID.NotFound" false`,
		`03:05:05 "" eu-west-1 "NoSuchAction" "InvalidAction" false`,
		`03:05:05 "" eu-west-1 "" "MalformedQueryString" false`,
	}
	for range 5 {
		want = append(want, `03:06:05 "" eu-west-1 "RunInstances" "MissingParameter" false`)
	}
	want = append(want, `03:06:05 "" eu-west-1 "RunInstances" "RequestLimitExceeded" true`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if late := c.Calls(k.Now().Add(-time.Second)); len(late) != 6 {
		t.Errorf("%d calls of the last second, want 6", len(late))
	}
}

// The log keeps the last ones, in their order.
func TestCallsAreBounded(t *testing.T) {
	k := newClock()
	var l callLog
	for i := range maxCalls + 10 {
		l.add(Call{Start: k.Now().Add(time.Duration(i))})
	}
	c := New(Config{})
	c.calls = l
	all := c.Calls(time.Time{})
	if len(all) != maxCalls || all[0].Start != k.Now().Add(10) || all[maxCalls-1].Start != k.Now().Add(maxCalls+9) {
		t.Errorf("%d calls from %s to %s", len(all), all[0].Start, all[len(all)-1].Start)
	}
}

// A call takes the time that it is told to, on the cloud's own timer. One whose
// client goes is not carried out.
func TestDelay(t *testing.T) {
	k := newClock()
	after := make(chan time.Duration, 10)
	c := New(Config{
		Now: k.Now, Delay: 50 * time.Millisecond, Delays: map[string]time.Duration{"CreateVpc": time.Second, "DescribeVpcs": 0},
		After: func(d time.Duration) <-chan time.Time {
			after <- d
			k.advance(d)
			done := make(chan time.Time, 1)
			done <- k.Now()
			return done
		},
	})
	for _, tt := range []struct {
		form string
		took time.Duration
	}{
		{query("CreateVpc", "CidrBlock=10.0.0.0/16"), time.Second}, {query("DescribeSubnets"), 50 * time.Millisecond}, {query("DescribeVpcs"), 0},
	} {
		if a := post(t, c, tt.form); a.status != http.StatusOK {
			t.Errorf("%s: %+v", tt.form, a)
		}
		calls := c.Calls(time.Time{})
		if got := calls[len(calls)-1].Took; got != tt.took {
			t.Errorf("%s took %s, want %s", tt.form, got, tt.took)
		}
	}
	if a, b := <-after, <-after; a != time.Second || b != 50*time.Millisecond || len(after) > 0 {
		t.Errorf("waited %s, %s and %d more", a, b, len(after))
	}

	never := New(Config{Delay: time.Hour, After: func(time.Duration) <-chan time.Time { return nil }})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://ec2/", strings.NewReader(query("CreateVpc", "CidrBlock=10.0.0.0/16")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := never.Transport().RoundTrip(r); err != context.Canceled {
		t.Errorf("a client that has gone: %v", err)
	}
	if calls := never.Calls(time.Time{}); len(calls) != 1 || calls[0].Code != NoAnswer || calls[0].Action != "CreateVpc" {
		t.Errorf("calls %+v", calls)
	}
	if len(never.Snapshot().VPCs) != 0 {
		t.Error("the call was carried out")
	}
}
