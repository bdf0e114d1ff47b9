package ec2sim

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFaultIsChecked(t *testing.T) {
	c := New(Config{})
	for _, f := range []Fault{
		{Code: "X"}, {Action: "Describe"}, {Action: "DescribeVpcs"}, {Action: "DescribeVpcs", Message: "m", Delay: 1}, {Action: "DescribeVpcs", Delay: -1},
		{Action: "DescribeVpcs", Code: "X", Times: -1}, {Action: "DescribeVpcs", Code: "X", Probability: 1.1}, {Action: "DescribeVpcs", Code: "X", Probability: -0.1}, {Action: "DescribeVpcs", Code: "X", Status: 200},
	} {
		if err := c.SetFault(f); !errors.Is(err, ErrFault) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if err := c.SetOutage("flood", 0); !errors.Is(err, ErrFault) {
		t.Errorf("an outage of no kind: %v", err)
	}
	if err := c.SetOutage(OutageHang, -1); !errors.Is(err, ErrFault) {
		t.Errorf("an outage that ended before: %v", err)
	}
	if n := len(c.Faults()); n != 0 || c.Outage() != (Outage{}) {
		t.Errorf("%d faults and the outage %v, none was good", n, c.Outage())
	}
}

// codes gives what n requests get.
func codes(t *testing.T, c *Cloud, n int) string {
	t.Helper()
	var got []string
	for range n {
		got = append(got, post(t, c, query("DescribeVpcs")).code)
	}
	return strings.Join(got, ",")
}

func TestFaultTimes(t *testing.T) {
	c := New(Config{})
	if err := c.SetFault(Fault{Action: "Describe*", Code: "Unavailable", Times: 2}); err != nil {
		t.Fatal(err)
	}
	if got := codes(t, c, 4); got != "Unavailable,Unavailable,," {
		t.Errorf("got %s", got)
	}
	if a := post(t, c, query("CreateVpc", "CidrBlock=10.0.0.0/16")); a.code != "" {
		t.Errorf("another action: %s", a.code)
	}
	if f := c.Faults(); len(f) != 1 || f[0].Met != 2 {
		t.Errorf("faults %+v", f)
	}
	if !c.ClearFault("Describe*") || c.ClearFault("Describe*") {
		t.Error("it was there once")
	}
}

// One seed meets the same of the same requests, another one others, and the
// share is what was asked for.
func TestFaultProbability(t *testing.T) {
	run := func(seed uint64) string {
		c := New(Config{})
		if err := c.SetFault(Fault{Action: "DescribeVpcs", Code: "X", Probability: 0.3, Seed: seed}); err != nil {
			t.Fatal(err)
		}
		return codes(t, c, 1000)
	}
	first := run(7)
	if first != run(7) {
		t.Error("the same seed met others")
	}
	if first == run(8) {
		t.Error("another seed met the same")
	}
	if n := strings.Count(first, "X"); n < 250 || n > 350 {
		t.Errorf("met %d of 1000, want about 300", n)
	}
}

func TestFaultDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{})
		for _, f := range []Fault{{Action: "DescribeVpcs", Delay: 3 * time.Second}, {Action: "Describe*", Delay: 4 * time.Second, Code: "InternalError", Times: 1}} {
			if err := c.SetFault(f); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		if got := codes(t, c, 1); got != "InternalError" || time.Since(start) != 7*time.Second {
			t.Errorf("got %s after %s", got, time.Since(start))
		}
		start = time.Now()
		if got := codes(t, c, 1); got != "" || time.Since(start) != 3*time.Second {
			t.Errorf("got %s after %s", got, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(query("CreateVpc", "CidrBlock=10.0.0.0/16")))
		if err := c.SetFault(Fault{Action: "CreateVpc", Delay: time.Hour}); err != nil {
			t.Fatal(err)
		}
		c.ServeHTTP(httptest.NewRecorder(), r)
		if time.Since(start) != time.Second || len(c.Snapshot().VPCs) != 0 {
			t.Errorf("a client that left was served after %s, and has %d VPCs", time.Since(start), len(c.Snapshot().VPCs))
		}
	})
}

// outcome is what a request gets in an outage: a code, or that it was broken off.
func outcome(c *Cloud, r *http.Request) (code string) {
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			code = "broken off"
		} else if p != nil {
			panic(p)
		}
	}()
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	_, code, _ = strings.Cut(w.Body.String(), "<Code>")
	code, _, _ = strings.Cut(code, "<")
	return code
}

func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{})
		ask := func(ctx context.Context) string {
			return outcome(c, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(query("DescribeVpcs"))))
		}
		begin := func(kind string, last time.Duration) {
			t.Helper()
			if err := c.SetOutage(kind, last); err != nil {
				t.Fatal(err)
			}
		}
		changed := c.Changed()
		begin(OutageError, time.Minute)
		select {
		case <-changed:
		default:
			t.Error("nobody is told of the outage")
		}
		if got := ask(t.Context()); got != "Unavailable" {
			t.Errorf("503: %s", got)
		}
		time.Sleep(time.Minute)
		if got := ask(t.Context()); got != "" {
			t.Errorf("after its time: %s", got)
		}
		begin(OutageRefuse, 0)
		if got := ask(t.Context()); got != "broken off" {
			t.Errorf("refuse: %s", got)
		}
		c.ClearOutage()
		if got := ask(t.Context()); got != "" {
			t.Errorf("after it: %s", got)
		}
		begin(OutageHang, time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if got := ask(ctx); got != "broken off" || time.Since(start) != time.Second {
			t.Errorf("hang until the client leaves: %s after %s", got, time.Since(start))
		}
		start = time.Now()
		if got := ask(t.Context()); got != "broken off" || time.Since(start) != time.Hour-time.Second {
			t.Errorf("hang until it ends by itself: %s after %s", got, time.Since(start))
		}
		begin(OutageHang, 0)
		done := make(chan string)
		go func() { done <- ask(context.Background()) }()
		synctest.Wait()
		c.ClearFaults()
		if got := <-done; got != "broken off" {
			t.Errorf("hang until it is cleared: %s", got)
		}
	})
}

// In an outage a client on a socket is told by the socket.
func TestOutageOnTheWire(t *testing.T) {
	c := New(Config{})
	server := httptest.NewServer(c)
	defer server.Close()
	if err := c.SetOutage(OutageRefuse, 0); err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Post(server.URL, "application/x-www-form-urlencoded", strings.NewReader(query("DescribeVpcs")))
	if err == nil {
		resp.Body.Close()
		t.Errorf("status %s in an outage", resp.Status)
	}
}

func TestTakeENI(t *testing.T) {
	c := New(Config{Devices: true})
	_, n := place(t, c)
	i := must(c.RunInstances(RunInstancesInput{Type: "m5.large", Interfaces: []LaunchInterface{{SubnetID: n.ID}, {DeviceIndex: 1, SubnetID: n.ID}}}))(t).Instances[0]
	if err := c.TakeENI(i.Interfaces[0]); errCode(err) != "OperationNotPermitted" {
		t.Errorf("the primary ENI: %v", err)
	}
	if err := c.In("eu-west-1").TakeENI(i.Interfaces[1]); err != nil {
		t.Fatal(err)
	}
	if err := c.TakeENI(i.Interfaces[1]); errCode(err) != "InvalidNetworkInterfaceID.NotFound" {
		t.Errorf("twice: %v", err)
	}
	snap := c.Snapshot()
	if len(snap.Interfaces) != 1 || len(snap.Instances[0].Interfaces) != 1 {
		t.Errorf("%d ENIs are left, %d of them of the instance", len(snap.Interfaces), len(snap.Instances[0].Interfaces))
	}
	checkInvariants(t, c)
}

func TestTakeAddress(t *testing.T) {
	c := New(Config{})
	_, n := place(t, c)
	_, twin := place(t, c) // its VPC has the same addresses
	e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Addresses: Addressing{Secondary: []netip.Addr{addr("10.0.1.77")}}}))(t)
	must(c.AssignPrivateIPAddresses(AssignPrivateIPAddressesInput{ID: e.ID, Prefixes: []netip.Prefix{prefix("10.0.1.96/28")}}))(t)
	other := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: twin.ID, Addresses: Addressing{Secondary: []netip.Addr{addr("10.0.1.77")}}}))(t)
	for _, tt := range []struct {
		addr, eni, says string
	}{
		{"10.0.1.78", "", "no ENI has"}, {e.Primary.String(), "", "no ENI has"}, {"10.0.1.77", "", "name one"}, {"10.0.1.77", other.ID, ""}, {"10.0.1.77", "", ""}, {"10.0.1.100", "", ""},
	} {
		err := c.TakeAddress(addr(tt.addr), tt.eni)
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s %s: %v, want %q", tt.addr, tt.eni, err, tt.says)
		}
	}
	for _, e := range c.Snapshot().Interfaces {
		if len(e.Secondary)+len(e.Prefixes) != 0 {
			t.Errorf("%s still has %v %v", e.ID, e.Secondary, e.Prefixes)
		}
	}
	checkInvariants(t, c)
}

// The same for a client that makes an ENI and one that assigns an address.
func TestTwoRaceForTheLastAddress(t *testing.T) {
	c := New(Config{})
	v, _ := place(t, c)
	n := must(c.CreateSubnet(CreateSubnetInput{VPCID: v.ID, CIDR: prefix("10.0.2.0/28")}))(t)
	e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Addresses: Addressing{Count: 9}}))(t)
	server := httptest.NewServer(c)
	defer server.Close()
	ask := func(form string) string {
		resp, err := server.Client().Post(server.URL, "application/x-www-form-urlencoded", strings.NewReader(form))
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		var b [4096]byte
		k, _ := resp.Body.Read(b[:])
		_, code, _ := strings.Cut(string(b[:k]), "<Code>")
		code, _, _ = strings.Cut(code, "<")
		return code
	}
	forms := []string{
		query("AssignPrivateIpAddresses", "NetworkInterfaceId="+e.ID, "SecondaryPrivateIpAddressCount=1"),
		query("CreateNetworkInterface", "SubnetId="+n.ID),
	}
	for round := range 300 {
		got := make(chan string)
		for _, form := range []string{forms[round%2], forms[round/2%2]} {
			go func() { got <- ask(form) }()
		}
		outcomes := []string{<-got, <-got}
		slices.Sort(outcomes)
		if fmt.Sprint(outcomes) != "[ InsufficientFreeAddressesInSubnet]" {
			t.Fatalf("round %d: %q", round, outcomes)
		}
		checkInvariants(t, c)
		for _, x := range c.Snapshot().Interfaces { // give the address back
			if x.ID == e.ID && len(x.Secondary) > 9 {
				if err := c.UnassignPrivateIPAddresses(UnassignPrivateIPAddressesInput{ID: e.ID, Addresses: x.Secondary[9:]}); err != nil {
					t.Fatal(err)
				}
			} else if x.ID != e.ID && x.SubnetID == n.ID {
				if err := c.DeleteNetworkInterface(DeleteNetworkInterfaceInput{x.ID}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
