package world

import (
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
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// TestPowerByEC2: an instance is stopped, started and rebooted by EC2's API, with
// its ENIs and addresses, and a fresh guest each time.
func TestPowerByEC2(t *testing.T) {
	l, remote := served(t, loggedWorld)
	one := findInstance(t, l, "one")
	id := url.Values{"InstanceId.1": {one.ID}}
	do := func(action string) {
		t.Helper()
		if _, err := remote.EC2(t.Context(), action, "", id); err != nil {
			t.Fatal(err)
		}
		if err := remote.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	is := func(want string) {
		t.Helper()
		if got := findInstance(t, l, "one").State; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	leave := func() {
		if s := shell(t, l, "one", "touch /run/left-over"); s.Code != 0 {
			t.Errorf("leave a file: %v", s)
		}
	}
	fresh := func() {
		t.Helper()
		if s := shell(t, l, "one", "! test -e /run/left-over"); s.Code != 0 {
			t.Error("the guest is the one from before")
		}
		if err := connectTo(t, l, "one", EC2Addr); err != nil {
			t.Errorf("its network: %v", err)
		}
	}
	leave()
	do("StopInstances")
	is(ec2sim.StateStopped)
	if l.machine(one.ID) != nil {
		t.Error("a stopped instance has a guest")
	}
	// An ENI can be put on it meanwhile; it is there at the start.
	made, err := l.Cloud().CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: one.SubnetID})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Cloud().AttachNetworkInterface(ec2sim.AttachNetworkInterfaceInput{InterfaceID: made.ID, InstanceID: one.ID, DeviceIndex: 1}); err != nil {
		t.Fatal(err)
	}
	do("StartInstances")
	is(ec2sim.StateRunning)
	if s := shell(t, l, "one", "test -e /sys/class/net/ens6"); s.Code != 0 {
		t.Error("no ens6 after the start")
	}
	fresh()
	leave()
	do("RebootInstances")
	is(ec2sim.StateRunning)
	fresh()
	if err := l.Kill(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	do("RebootInstances") // ends that, too
	fresh()
	do("StopInstances")
	do("TerminateInstances")
	is(ec2sim.StateTerminated)
}

// ask makes an HTTP request of the metadata service of an instance, in-process.
func ask(h http.Handler, method, path string, header ...string) (body string, brokenOff bool) {
	defer func() { brokenOff = recover() == http.ErrAbortHandler }()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Body.String(), false
}

func TestMetadataFaults(t *testing.T) {
	l, remote := served(t, loggedWorld)
	one := findInstance(t, l, "one")
	h := l.metadata[one.ID]
	token, _ := ask(h, http.MethodPut, "/latest/api/token", "X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
	addresses := func() string {
		t.Helper()
		var e ec2sim.NetworkInterface
		for _, e = range l.Cloud().Snapshot().Interfaces {
			if e.ID == one.Interfaces[0] {
				break
			}
		}
		body, gone := ask(h, http.MethodGet, "/latest/meta-data/network/interfaces/macs/"+e.MAC.String()+"/local-ipv4s", "X-Aws-Ec2-Metadata-Token", token)
		if gone {
			return "gone"
		}
		return body
	}
	before := addresses()
	if err := remote.SetMetadataFault(t.Context(), "one", MetadataFault{Mode: MetadataStale, Delay: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	got, err := l.Cloud().AssignPrivateIPAddresses(ec2sim.AssignPrivateIPAddressesInput{ID: one.Interfaces[0], Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	if now := addresses(); now != before {
		t.Errorf("stale, but %q where it was %q", now, before)
	}
	if err := remote.ClearMetadataFault(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if now := addresses(); !strings.Contains(now, got.Addresses[0].String()) {
		t.Errorf("not stale any more, but %q", now)
	}
	if err := remote.SetMetadataFault(t.Context(), one.ID, MetadataFault{Mode: MetadataGone}); err != nil {
		t.Fatal(err)
	}
	if now := addresses(); now != "gone" {
		t.Errorf("gone, but %q", now)
	}
	if f, err := remote.Faults(t.Context()); err != nil || f.Metadata[one.ID].Mode != MetadataGone {
		t.Errorf("listed: %+v, %v", f, err)
	}
	if err := remote.ClearFaults(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := addresses(); now == "gone" {
		t.Error("still gone")
	}
	for _, f := range []MetadataFault{{}, {Mode: "drunk"}, {Delay: -1}} {
		if err := remote.SetMetadataFault(t.Context(), "one", f); err == nil || !strings.Contains(err.Error(), "400") {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if err := remote.SetMetadataFault(t.Context(), "three", MetadataFault{Mode: MetadataGone}); err == nil || !strings.Contains(err.Error(), ErrNoInstance.Error()) {
		t.Errorf("no such instance: %v", err)
	}
}

// TestOutageOfTheLab: refused means that nobody listens, and it ends by itself.
func TestOutageOfTheLab(t *testing.T) {
	l, remote := served(t, loggedWorld)
	call := func() error {
		_, err := remote.EC2(t.Context(), "DescribeVpcs", "", nil)
		return err
	}
	if err := connectTo(t, l, "one", EC2Addr); err != nil {
		t.Fatal(err)
	}
	if err := remote.SetOutage(t.Context(), ec2sim.OutageRefuse, 0); err != nil {
		t.Fatal(err)
	}
	if err := remote.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := connectTo(t, l, "one", EC2Addr); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("in an outage: %v", err)
	}
	if err := call(); err == nil {
		t.Error("a call in an outage")
	}
	if err := remote.SetOutage(t.Context(), ec2sim.OutageRefuse, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the outage ends by itself", func() error { return errors.Join(call(), connectTo(t, l, "one", EC2Addr)) })
	if err := remote.SetEC2Fault(t.Context(), ec2sim.Fault{Action: "DescribeVpcs", Code: "InternalError"}); err != nil {
		t.Fatal(err)
	}
	var refused *ec2sim.Error
	if err := call(); !errors.As(err, &refused) || refused.Code != "InternalError" {
		t.Errorf("with a fault: %v", err)
	}
	if err := remote.ClearEC2Fault(t.Context(), "DescribeSubnets"); err == nil {
		t.Error("a fault that nobody set was cleared")
	}
	if err := errors.Join(remote.ClearEC2Fault(t.Context(), ""), remote.ClearOutage(t.Context()), call()); err != nil {
		t.Error(err)
	}
	if err := remote.TakeAddress(t.Context(), netip.MustParseAddr("10.0.1.250"), ""); err == nil {
		t.Error("an address of nobody was taken")
	}
}

// connectTo opens TCP from an instance to a service of its VPC.
func connectTo(t *testing.T, l *Lab, from string, to netip.AddrPort) error {
	t.Helper()
	in, err := status(t, l).Find(from)
	if err != nil {
		t.Fatal(err)
	}
	return dialFrom(in.PID, to)
}

func dialFrom(pid int, to netip.AddrPort) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	return netns.Do(ns, func() error {
		c, err := net.DialTimeout("tcp4", to.String(), patience)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// TestFaultsOverHTTP: each request of the table in docs/design/ec2sim.md, as a
// client in any language would write it.
func TestFaultsOverHTTP(t *testing.T) {
	l, remote := served(t, loggedWorld)
	one := findInstance(t, l, "one")
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(remote.dir, controlSocket))
	}}}
	defer client.CloseIdleConnections()
	ask := func(line, body string, want int) string {
		t.Helper()
		method, path, _ := strings.Cut(line, " ")
		r, err := http.NewRequestWithContext(t.Context(), method, "http://lab"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		a, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		text, err := io.ReadAll(a.Body)
		if err != nil || a.StatusCode != want {
			t.Fatalf("%s %s: %s: %s, %v", line, body, a.Status, text, err)
		}
		return string(text)
	}
	// outcome is the code of a call's error; empty for none.
	outcome := func() string {
		t.Helper()
		_, err := remote.EC2(t.Context(), "DescribeVpcs", "", nil)
		var refused *ec2sim.Error
		if err != nil && !errors.As(err, &refused) {
			t.Fatal(err)
		}
		if refused == nil {
			return ""
		}
		return refused.Code
	}
	run := func(n int) (codes []string) {
		t.Helper()
		for range n {
			codes = append(codes, outcome())
		}
		return codes
	}

	ask("PUT /faults/ec2", `{"action": "Describe*", "code": "InternalError", "message": "m", "status": 500, "delay": 1000000, "times": 2}`, 200)
	if got := run(3); !slices.Equal(got, []string{"InternalError", "InternalError", ""}) {
		t.Errorf("an error twice: %q", got)
	}
	if text := ask("GET /faults", "", 200); !strings.Contains(text, `"met":2`) {
		t.Errorf("the list: %s", text)
	}
	ask("DELETE /faults/ec2?action=Describe*", "", 200)

	const some = `{"action": "DescribeVpcs", "code": "Unavailable", "probability": 0.5, "seed": %d}`
	var runs [][]string
	for _, seed := range []int{7, 7, 8} {
		ask("PUT /faults/ec2", fmt.Sprintf(some, seed), 200)
		runs = append(runs, run(30))
	}
	if !slices.Equal(runs[0], runs[1]) || slices.Equal(runs[0], runs[2]) || !slices.Contains(runs[0], "") || !slices.Contains(runs[0], "Unavailable") {
		t.Errorf("by chance, with seeds 7, 7 and 8: %q", runs)
	}
	ask("DELETE /faults/ec2", "", 200)

	ask("PUT /faults/outage", `{"kind": "503", "for": 60000000000}`, 200)
	if got := outcome(); got != "Unavailable" {
		t.Errorf("in an outage: %q", got)
	}
	ask("DELETE /faults/outage", "", 200)
	ask("PUT /faults/imds/one", `{"mode": "stale", "delay": 0}`, 200)
	if l.illness(one.ID).Mode != MetadataStale {
		t.Error("the metadata is not stale")
	}
	ask("DELETE /faults/imds/one", "", 200)
	ask("PUT /faults/imds/one", `{"mode": "gone"}`, 200)
	ask("PUT /faults/outage", `{"kind": "refuse"}`, 200)
	ask("DELETE /faults", "", 200)
	if got := outcome(); got != "" || l.illness(one.ID).Mode != "" {
		t.Errorf("after all was ended: %q, metadata %q", got, l.illness(one.ID).Mode)
	}

	given, err := l.Cloud().AssignPrivateIPAddresses(ec2sim.AssignPrivateIPAddressesInput{ID: one.Interfaces[0], Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	ask("POST /take/address/"+given.Addresses[0].String()+"?eni="+one.Interfaces[0], "", 200)
	for _, e := range l.Cloud().Snapshot().Interfaces {
		if slices.Contains(e.Secondary, given.Addresses[0]) {
			t.Errorf("%s still has %s", e.ID, given.Addresses[0])
		}
	}
	made, err := l.Cloud().CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: one.SubnetID})
	if err != nil {
		t.Fatal(err)
	}
	ask("POST /take/eni/"+made.ID, "", 200)
	for _, e := range l.Cloud().Snapshot().Interfaces {
		if e.ID == made.ID {
			t.Errorf("%s is still there", e.ID)
		}
	}

	for line, body := range map[string]string{
		"PUT /faults/ec2": `{"action": "DescribeVpcs"}`, "PUT /faults/outage": `{"kind": "flood"}`, "PUT /faults/imds/one": `{"mood": "gone"}`,
		"POST /take/address/nowhere": "", "DELETE /faults/ec2?action=DescribeSubnets": "",
	} {
		ask(line, body, 400)
	}
}
