package ec2

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// lossy loses requests, or their answers, on the way to EC2.
type lossy struct {
	http.RoundTripper
	requests, answers int // how many of each are lost
}

func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	lost := &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	if l.requests > 0 {
		l.requests--
		return nil, lost
	}
	resp, err := l.RoundTripper.RoundTrip(r)
	if l.answers > 0 {
		l.answers--
		return nil, lost
	}
	return resp, err
}

// TestBrokenConnection loses an answer once. What can be said twice is, and has
// been done once; what cannot is not said again, and has an unknown outcome.
func TestBrokenConnection(t *testing.T) {
	r := newRegion(t, ec2sim.Config{}, "10.0.1.0/24")
	r.enis(t)
	way := &lossy{RoundTripper: r.sim.Transport()}
	c := New(aws.Config{Region: "eu-west-1", BaseEndpoint: aws.String("http://ec2"), HTTPClient: &http.Client{Transport: way},
		Credentials: aws.CredentialsProviderFunc(credentials)})
	c.Observe = r.calls.add
	c.subnets = r.c.subnets
	for _, call := range r.methods() {
		r.calls.take()
		enis := len(r.sim.Snapshot().Interfaces)
		*way = lossy{RoundTripper: way.RoundTripper, answers: 1}
		_, err := call.do(c, t.Context())
		seen := r.calls.take()
		if repeatable(call.action) {
			if err != nil || len(seen) != 2 || seen[0].Err != ErrUnreachable {
				t.Errorf("%s: %v after %+v", call.action, err, seen)
			}
		} else if !errors.Is(err, ErrUnreachable) || !UnknownOutcome(err) || len(seen) != 1 {
			t.Errorf("%s: %v, outcome unknown %v, after %+v", call.action, err, UnknownOutcome(err), seen)
		}
		if now := len(r.sim.Snapshot().Interfaces); call.action == "CreateNetworkInterface" && now != enis+1 {
			t.Errorf("%d new ENIs for one call", now-enis)
		}
	}
	// Lost, and then refused: the first may have been carried out all the same.
	*way = lossy{RoundTripper: way.RoundTripper, answers: 1}
	r.sim.InjectError("CreateNetworkInterface", &ec2sim.Error{Code: "RequestLimitExceeded", Message: "slow down"}, -1)
	if _, err := c.CreateENI(t.Context(), r.spec(1, 0)); !errors.Is(err, ErrThrottled) || !UnknownOutcome(err) {
		t.Errorf("lost, then throttled: %v, outcome unknown %v", err, UnknownOutcome(err))
	}
	// Lost twice: it ends.
	*way = lossy{RoundTripper: way.RoundTripper, requests: 99}
	r.calls.take()
	if _, err := c.CreateENI(t.Context(), r.spec(1, 0)); !errors.Is(err, ErrUnreachable) || !UnknownOutcome(err) || len(r.calls.take()) != 2 {
		t.Errorf("lost twice: %v", err)
	}
}

// TestNoAnswer: EC2 takes the request and says nothing until the caller's time is
// over, or is not there at all.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{}, "10.0.1.0/24")
		r.enis(t)
		for _, call := range r.methods() {
			if err := r.sim.SetOutage(ec2sim.OutageHang, 0); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			r.calls.take()
			_, err := call.do(r.c, ctx)
			cancel()
			r.sim.ClearOutage()
			if !errors.Is(err, ErrUnreachable) || UnknownOutcome(err) != changes(call.action) {
				t.Errorf("%s: %v, outcome unknown %v", call.action, err, UnknownOutcome(err))
			}
			if seen := r.calls.take(); len(seen) != 1 || seen[0].Latency != 5*time.Second || seen[0].Err != ErrUnreachable || seen[0].Code != "" {
				t.Errorf("%s: observed %+v", call.action, seen)
			}
			// The context has ended before anything was sent.
			if _, err := call.do(r.c, ctx); err == nil || UnknownOutcome(err) || len(r.calls.take()) != 0 {
				t.Errorf("%s with an ended context: %v, outcome unknown %v", call.action, err, UnknownOutcome(err))
			}
		}
	})
	if _, err := clientAt("http://"+closedPort(t)).AssignAddresses(t.Context(), "eni-1", 1); err == nil || UnknownOutcome(err) {
		t.Errorf("closed port: %v, outcome unknown %v", err, UnknownOutcome(err))
	}
}

// TestSenselessAnswers: EC2 has done what was asked, and answers what cannot be.
func TestSenselessAnswers(t *testing.T) {
	w := &wire{answers: map[string][]reply{
		"DescribeSubnets": {{body: subnetsXML}},
		"CreateNetworkInterface": {{}, {body: "<networkInterface>" +
			strings.Replace(eniXML("eni-1", "subnet-a", "", ""), "02:00", "zz", 1) + "</networkInterface>"}},
		"AttachNetworkInterface": {{}},
		"AssignPrivateIpAddresses": {
			{body: "<assignedPrivateIpAddressesSet><item><privateIpAddress>x</privateIpAddress></item></assignedPrivateIpAddressesSet>"},
			{body: "<assignedIpv4PrefixSet><item><ipv4Prefix>10.0.0.0/8</ipv4Prefix></item></assignedIpv4PrefixSet>"},
			{body: "<", status: 200},
		},
	}}
	c := w.client(t)
	spec := Spec{InstanceID: "i-1", SubnetID: "subnet-a"}
	check := func(what string, err error, text string) {
		t.Helper()
		if err == nil || !UnknownOutcome(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, outcome unknown %v, want %q", what, err, UnknownOutcome(err), text)
		}
	}
	e, err := c.CreateENI(t.Context(), spec)
	check("created nothing", err, "without the ENI")
	if e.ID != "" {
		t.Errorf("ENI %+v", e)
	}
	e, err = c.CreateENI(t.Context(), spec)
	check("created with a bad MAC", err, "EC2 answered: parse mac")
	if e.ID != "eni-1" {
		t.Errorf("ENI %+v, want its ID", e)
	}
	_, err = c.AttachENI(t.Context(), "eni-1", "i-1", 1, 0)
	check("attached as nothing", err, "without the attachment")
	_, err = c.AssignAddresses(t.Context(), "eni-1", 1)
	check("no address", err, "EC2 answered: ParseAddr")
	_, err = c.AssignPrefixes(t.Context(), "eni-1", 1)
	check("a large prefix", err, "10.0.0.0/8 is no IPv4 /28")
	_, err = c.AssignAddresses(t.Context(), "eni-1", 1)
	check("no XML", err, "assign 1 addresses to eni-1")
	if UnknownOutcome(errors.New("other")) || UnknownOutcome(nil) {
		t.Error("an error that is not ours has an unknown outcome")
	}
}
