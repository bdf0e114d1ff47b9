package ec2sim

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// refusedAfter makes a call until it is throttled, and gives how often it was not.
func refusedAfter(t *testing.T, c *Cloud, form string) int {
	t.Helper()
	for n := range 2000 {
		switch a := post(t, c, form); {
		case a.code != "RequestLimitExceeded":
		case a.status != http.StatusServiceUnavailable || a.message != "Request limit exceeded.":
			t.Errorf("throttled by %+v", a)
			return n
		default:
			return n
		}
	}
	return -1
}

// Each action has its own bucket of its own size, and fills at its own rate.
func TestThrottleSizes(t *testing.T) {
	for _, tt := range []struct {
		form    string
		most    int
		seconds int // until ten more tokens are there
	}{
		{query("DescribeSubnets"), 100, 0},
		{query("DescribeNetworkInterfaces", "MaxResults=5"), 100, 0},
		{query("DescribeNetworkInterfaces"), 50, 1},
		{query("DescribeNetworkInterfaces", "DryRun=true"), 50, 1},
		{query("DescribeInstances", "Filter.1.Name=vpc-id", "Filter.1.Value.1=x"), 100, 0},
		{query("GetManagedPrefixListEntries"), 100, 0},
		{query("AttachNetworkInterface"), 50, 2},
		{query("CreateRoute"), 50, 2},
		{query("AuthorizeSecurityGroupIngress"), 50, 2},
		{query("CreateNetworkInterface"), 100, 2},
		{query("AssignPrivateIpAddresses"), 100, 2},
		{query("CreateTags"), 100, 1},
		{query("CreateNatGateway"), 10, 10},
		{query("RunInstances", "MaxCount=1"), 5, 0}, // 2 a second, no more than 5
		{query("TerminateInstances"), 100, 2},
	} {
		k := newClock()
		c := New(Config{Now: k.Now, Throttle: true})
		if n := refusedAfter(t, c, tt.form); n != tt.most {
			t.Errorf("%s: throttled after %d calls, want %d", tt.form, n, tt.most)
		}
		if tt.seconds == 0 {
			continue
		}
		k.advance(time.Duration(tt.seconds) * time.Second)
		if n := refusedAfter(t, c, tt.form); n != 10 {
			t.Errorf("%s: %d calls after %d s, want 10", tt.form, n, tt.seconds)
		}
		k.advance(time.Hour)
		if n := refusedAfter(t, c, tt.form); n != tt.most {
			t.Errorf("%s: %d calls after an hour, want %d", tt.form, n, tt.most)
		}
	}
}

// Every action has a bucket that EC2 publishes, and none that does not exist.
func TestThrottleCoversActions(t *testing.T) {
	for action := range actions {
		_, size := rateOf(action, &node{kids: map[string]*node{"Filter": nil}})
		if size.most < 1 || size.perSecond <= 0 {
			t.Errorf("%s: %+v", action, size)
		}
		if reads(action) != (size == reading || action == "DescribeSecurityGroupReferences") {
			t.Errorf("%s: category %+v", action, size)
		}
	}
}

// What one action or region uses up, another has.
func TestThrottleIsApart(t *testing.T) {
	c := New(Config{Now: newClock().Now, Throttle: true, Regions: []string{"eu-west-1", "us-east-1"}})
	if n := refusedAfter(t, c, query("DescribeVpcs")); n != 100 {
		t.Fatalf("throttled after %d", n)
	}
	if a := post(t, c, query("DescribeSubnets")); a.status != http.StatusOK {
		t.Errorf("another action: %+v", a)
	}
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(query("DescribeVpcs")))
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKID/20260102/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0")
	if a := send(t, c, r); a.status != http.StatusOK {
		t.Errorf("another region: %+v", a)
	}
	for range 200 {
		if _, err := c.DescribeVPCs(Query{}); err != nil {
			t.Fatalf("in-process: %v", err)
		}
	}
	if c := New(Config{}); refusedAfter(t, c, query("DescribeVpcs")) >= 0 {
		t.Error("throttled although nobody asked for it")
	}
}

// Launches use up a second bucket, by instance: all that a request needs, or
// it takes nothing.
func TestThrottleResources(t *testing.T) {
	k := newClock()
	c := New(Config{Now: k.Now, Throttle: true})
	launch := func(n int) string {
		return post(t, c, query("RunInstances", "MinCount=1", fmt.Sprintf("MaxCount=%d", n))).code
	}
	for i, tt := range []struct {
		wait      time.Duration
		n         int
		throttled bool
	}{
		{0, 600, false}, {0, 401, true}, {0, 400, false}, {0, 1, true},
		{time.Second, 3, true}, {0, 2, false}, {0, 1, true},
	} {
		k.advance(tt.wait)
		if got := launch(tt.n); (got == "RequestLimitExceeded") != tt.throttled {
			t.Errorf("step %d: launch of %d: %s", i, tt.n, got)
		}
	}
	many := []string{}
	for i := range 900 {
		many = append(many, fmt.Sprintf("InstanceId.%d=i-00000000", i+1))
	}
	form := query("TerminateInstances", many...)
	if one, two := post(t, c, form).code, post(t, c, form).code; one != "InvalidInstanceID.NotFound" || two != "RequestLimitExceeded" {
		t.Errorf("terminating 900, twice: %s, %s", one, two)
	}
}
