package world

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

const loggedWorld = `
vpcs:
  - name: main
    cidr: 10.0.0.0/16
    internetGateway: true
    flowLogs: true
    subnets: [{name: a, cidr: 10.0.1.0/24}]
    securityGroups: [{name: web, ingress: [{protocol: tcp, ports: "9", from: 10.0.0.0/8}]}]
instances:
  - {name: one, type: m5.large, subnet: a}
  - {name: two, type: m5.large, subnet: a, securityGroups: [web]}
`

// served starts a lab that can be asked from outside.
func served(t *testing.T, yaml string) (*Lab, *Remote) {
	t.Helper()
	l := ready(t, yaml)
	listening, ended := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- l.Serve(ctx, func() { close(listening) }) }()
	<-listening
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l, Connect(l.cfg.Dir)
}

// connect tries TCP from an instance. Where nothing is to come back, that is known after
// a moment; a refusal has all the time that it needs.
func connect(t *testing.T, l *Lab, from string, to netip.Addr, silent bool) error {
	t.Helper()
	wait := patience
	if silent {
		wait = 200 * time.Millisecond
	}
	in, err := status(t, l).Find(from)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", in.PID))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	return netns.Do(ns, func() error {
		_, err := net.DialTimeout("tcp4", netip.AddrPortFrom(to, 9).String(), wait)
		if slow, ok := errors.AsType[net.Error](err); ok && slow.Timeout() {
			return os.ErrDeadlineExceeded
		}
		return err
	})
}

// TestSettle: what a call has changed is in the fabric when Settle returns, every
// time.
func TestSettle(t *testing.T) {
	l, remote := served(t, loggedWorld)
	group := idOf(t, remote, KindGroup, "web")
	rule := url.Values{"GroupId": {group}, "IpProtocol": {"tcp"}, "FromPort": {"9"}, "ToPort": {"9"}, "CidrIp": {"10.0.0.0/8"}}
	to := status(t, l).Instances[1].Address
	for i := range 3 {
		for _, step := range []struct {
			action string
			want   error
		}{{"RevokeSecurityGroupIngress", os.ErrDeadlineExceeded}, {"AuthorizeSecurityGroupIngress", unix.ECONNREFUSED}} {
			if _, err := remote.EC2(t.Context(), step.action, "", rule); err != nil {
				t.Fatal(err)
			}
			if err := remote.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := connect(t, l, "one", to, step.want == os.ErrDeadlineExceeded); !errors.Is(err, step.want) {
				t.Errorf("%d: after %s: %v, want %v", i, step.action, err, step.want)
			}
		}
	}
	// Where nothing has changed nothing is waited for, and one who waits can go.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Settle(gone); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("one who does not wait: %v", err)
	}
	if err := l.Settle(t.Context()); err != nil {
		t.Errorf("a quiet lab: %v", err)
	}
	// What cannot be done is not settled, and says why.
	l.fabric.RemoveGuest(status(t, l).Instances[0].ID)
	create := url.Values{"SubnetId": {idOf(t, remote, KindSubnet, "a")}}
	if _, err := remote.EC2(t.Context(), "CreateNetworkInterface", "", create); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lab fails", func() error {
		if err := l.Failure(); err == nil || !strings.Contains(err.Error(), "no such guest") {
			return fmt.Errorf("failure is %v", err)
		}
		return nil
	})
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := l.Settle(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no such guest") {
		t.Errorf("a lab that fails: %v", err)
	}
}

func idOf(t *testing.T, r *Remote, kind, name string) string {
	t.Helper()
	all, err := r.Objects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k := slices.IndexFunc(all.Objects, func(o Object) bool { return o.Kind == kind && o.Name == name })
	if k < 0 {
		t.Fatalf("no %s %q in %+v", kind, name, all)
	}
	return all.Objects[k].ID
}

func TestRemoteEC2(t *testing.T) {
	_, remote := served(t, loggedWorld)
	var refused *ec2sim.Error
	if _, err := remote.EC2(t.Context(), "DeleteVpc", "", url.Values{"VpcId": {"vpc-00000000"}}); !errors.As(err, &refused) || refused.Code != "InvalidVpcID.NotFound" {
		t.Errorf("delete no vpc: %v", err)
	}
	if _, err := remote.EC2(t.Context(), "DescribeVpcs", "mars-1", nil); !errors.As(err, &refused) || refused.Code != "AuthFailure" {
		t.Errorf("in no region: %v", err)
	}
	b, err := remote.EC2(t.Context(), "DescribeVpcs", "eu-west-1", nil)
	if err != nil || !strings.Contains(string(b), "<vpcId>"+idOf(t, remote, KindVPC, "main")) {
		t.Errorf("describe: %s, %v", b, err)
	}
	if _, err := Connect(t.TempDir()).EC2(t.Context(), "DescribeVpcs", "", nil); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no lab: %v", err)
	}
}

func TestFlowLogAndCapture(t *testing.T) {
	l, remote := served(t, loggedWorld)
	s := status(t, l)
	one, two := s.ENIs[0], s.ENIs[1]
	if _, err := remote.FlowLog(t.Context(), ""); err != nil { // what is from before
		t.Fatal(err)
	}
	pcap, err := remote.Capture(t.Context(), CaptureRequest{ENI: two.ID, Side: fabric.FabricEnd, Packets: 2, For: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer pcap.Close()
	if _, err := io.ReadFull(pcap, make([]byte, 24)); err != nil {
		t.Fatal(err)
	}
	reach(t, l, "one", two.Primary)
	if err := connect(t, l, "two", one.Primary, true); !errors.Is(err, os.ErrDeadlineExceeded) { // one is in the default group, two is not
		t.Errorf("two reaches one: %v", err)
	}
	if b, err := io.ReadAll(pcap); err != nil || len(b) < 2*(16+54) {
		t.Errorf("captured %d bytes: %v", len(b), err)
	}
	records, err := remote.FlowLog(t.Context(), one.ID)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range records {
		if r.Protocol == fabric.TCP {
			got = append(got, fmt.Sprintf("%s > %s egress=%t rejected=%t", r.Src, r.Dst, r.Egress, r.Rejected))
		}
	}
	slices.Sort(got)
	want := []string{
		"10.0.1.4 > 10.0.1.5 egress=true rejected=false",
		"10.0.1.5 > 10.0.1.4 egress=false rejected=false",
		"10.0.1.5 > 10.0.1.4 egress=false rejected=true",
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if records, err := remote.FlowLog(t.Context(), one.ID); err != nil || len(records) != 0 {
		t.Errorf("the second time: %v, %v", records, err)
	}

	// Without a flow log there is none to read; one of REJECT has no accepted flows.
	if _, err := remote.EC2(t.Context(), "DeleteFlowLogs", "", url.Values{"FlowLogId.1": {idOf(t, remote, KindFlowLog, "main")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.FlowLog(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "there is no flow log") {
		t.Errorf("without a flow log: %v", err)
	}
	if _, err := l.Cloud().CreateFlowLogs(ec2sim.CreateFlowLogsInput{
		Type: ec2sim.FlowLogNetworkInterface, Resources: []string{one.ID}, Traffic: ec2sim.TrafficReject, LogGroup: "l", RoleARN: "r",
	}); err != nil {
		t.Fatal(err)
	}
	if err := remote.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	reach(t, l, "one", two.Primary)
	if records, err := remote.FlowLog(t.Context(), one.ID); err != nil || len(records) != 0 {
		t.Errorf("accepted ones in a log of REJECT: %v, %v", records, err)
	}
	if _, err := remote.FlowLog(t.Context(), two.ID); err == nil || !strings.Contains(err.Error(), two.ID+" has no flow log") {
		t.Errorf("of an eni without: %v", err)
	}

	// A capture ends when the one who asked goes, or not at all where none can be.
	ctx, cancel := context.WithCancel(t.Context())
	endless, err := remote.Capture(ctx, CaptureRequest{ENI: one.ID, Side: fabric.GuestEnd})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(endless); err == nil {
		t.Error("the capture ended by itself")
	}
	endless.Close()
	if _, err := remote.Capture(t.Context(), CaptureRequest{ENI: "eni-0"}); err == nil || !strings.Contains(err.Error(), "no such eni") {
		t.Errorf("of no eni: %v", err)
	}
	if err := l.Kill(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Capture(t.Context(), CaptureRequest{ENI: two.ID}); err == nil || !strings.Contains(err.Error(), "not plugged") {
		t.Errorf("of an eni that is in no instance: %v", err)
	}
}

func TestCaptureRequests(t *testing.T) {
	for _, query := range []string{"", "side=2&packets=0&for=0s", "side=0&packets=-1&for=0s", "side=0&packets=x&for=0s", "side=0&packets=0&for=25h", "side=0&packets=0&for=-1s"} {
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := parseCapture(v); err == nil {
			t.Errorf("%q is taken as %+v", query, c)
		}
	}
	want := CaptureRequest{ENI: "eni-1", Side: fabric.FabricEnd, Packets: 3, For: time.Second}
	if got, err := parseCapture(want.values()); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}

// What is written is sent at once, packet by packet.
func TestFlushed(t *testing.T) {
	w := httptest.NewRecorder()
	out := &flushed{w: w, flush: http.NewResponseController(w).Flush}
	if _, err := out.Write([]byte("x")); err != nil || !w.Flushed || !out.begun {
		t.Errorf("flushed %t, begun %t, %v", w.Flushed, out.begun, err)
	}
}

func TestStatusOfLinks(t *testing.T) {
	l, _ := served(t, loggedWorld)
	s := status(t, l)
	if ns, err := os.Open(s.Internet); err != nil {
		t.Errorf("the internet: %v", err)
	} else {
		ns.Close()
	}
	if len(s.Links) != 1 || s.Links[0].Kind != KindInternetGateway || s.Links[0].Joins != "main, internet" {
		t.Errorf("links %+v", s.Links)
	}
	if e := s.ENIs[1]; e.VPC == "" || e.Region != "eu-west-1" || e.Subnet == "" || len(e.Groups) != 1 {
		t.Errorf("eni %+v", e)
	}
	s.Links[0].Drops = map[string]uint64{"NO_OWNER": 2}
	var b strings.Builder
	if err := s.WriteTables(&b); err != nil || !strings.Contains(b.String(), "main  internet gateway  main, internet  NO_OWNER 2\n") {
		t.Errorf("%v\n%s", err, b.String())
	}
	s.Links, b = nil, strings.Builder{}
	if err := s.WriteTables(&b); err != nil || strings.Contains(b.String(), "LINK") {
		t.Errorf("without links: %v\n%s", err, b.String())
	}
}

// All that a world file has a name for can be found, and what it is named after.
func TestNamesGolden(t *testing.T) {
	c, _ := built(t, "network.yaml")
	snap := c.Snapshot()
	short := readable(snap)
	var lines []string
	for _, o := range allNames(snap) {
		id := short.Replace(o.ID)
		if id == o.ID {
			id = "-"
		}
		lines = append(lines, fmt.Sprintf("%-30s %-30s %-12s %-20s %s\n", strings.TrimPrefix(o.Scope+"/"+o.Name, "/"), o.Kind, cmp.Or(o.Region, "-"), cmp.Or(o.After, "-"), id))
	}
	slices.Sort(lines)
	got, file := strings.Join(lines, ""), "testdata/network.names"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(golden), got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// An instance is told its public addresses.
func TestMetadataHasPublicAddresses(t *testing.T) {
	c, _ := built(t, "network.yaml")
	snap := c.Snapshot()
	for _, i := range snap.Instances {
		m, ok := metadata(snap, i.ID)
		if !ok {
			t.Fatalf("no metadata of %s", i.Name)
		}
		if public := i.Name == "front"; m.PublicIPv4.IsValid() != public || (len(m.Interfaces[0].Public) == 1) != public {
			t.Errorf("%s: %s, %v", i.Name, m.PublicIPv4, m.Interfaces[0].Public)
		}
	}
}
