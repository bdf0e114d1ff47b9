package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/guest"
)

const smallWorld = `
vpcs:
  - {name: main, cidr: 10.0.0.0/16, subnets: [{name: a, cidr: 10.0.1.0/24}, {name: b, cidr: 10.0.2.0/24, zone: b}]}
instances:
  - name: one
    type: m5.large
    subnet: a
    secondaryAddresses: 2
    daemons:
      - {name: sleeper, command: [sleep, "1000"], capabilities: [NET_RAW]}
      - {name: talker, command: [sh, -c, "echo $WORD $AWS_REGION $AWS_ENDPOINT_URL_EC2; exit 3"], env: {WORD: hello}}
  - {name: two, type: m5.large, subnet: b}
`

var started atomic.Int32

// scratch is the configuration of a lab that nothing else on the machine has.
func scratch(t *testing.T, yaml string) Config {
	t.Helper()
	if err := errors.Join(guest.Check(), fabric.Probe()); errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	name := fmt.Sprintf("w%d-%d", os.Getpid(), started.Add(1))
	w, err := Parse("world.yaml", []byte("name: "+name+yaml))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { gone(t, name) })
	return Config{World: w, Dir: Dir(name), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// gone fails if anything of the lab is there.
func gone(t *testing.T, name string) {
	t.Helper()
	cgroup, err := Cgroup(name)
	if err != nil {
		t.Error(err)
	}
	for _, path := range []string{Dir(name), cgroup} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left behind (%v)", path, err)
		}
	}
}

func start(t *testing.T, cfg Config) *Lab {
	t.Helper()
	l, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// ready starts a lab and waits for its instances.
func ready(t *testing.T, yaml string) *Lab {
	t.Helper()
	l := start(t, scratch(t, yaml))
	select {
	case <-l.Ready():
	case <-time.After(patience):
		t.Fatalf("lab is not ready: %v", l.Failure())
	}
	return l
}

// patience bounds every wait for something that must happen, on a slow and busy machine.
const patience = 2 * time.Minute

func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func status(t *testing.T, l *Lab) Status {
	t.Helper()
	s, err := l.Status(t.Context(), os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLabFromWorld(t *testing.T) {
	l := ready(t, smallWorld)
	eventually(t, "the second daemon has ended", func() error {
		if d := status(t, l).Instances[0].Daemons; len(d) != 2 || d[1].Running {
			return fmt.Errorf("daemons are %+v", d)
		}
		return nil
	})
	s := status(t, l)
	var b strings.Builder
	if err := s.WriteTables(&b); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(b.String()) {
		// The last column counts what the kernel happens to send by itself.
		line, _, _ = strings.Cut(line, "  NOT_IPV4")
		lines = append(lines, strings.TrimRight(line, " -\n"))
	}
	want := []string{
		"INSTANCE  ID                   TYPE      ZONE        STATE    ADDRESS   DAEMONS",
		"one       i-0c4ca37b7f8ad8aff  m5.large  eu-west-1a  running  10.0.1.4  sleeper running, talker ended: exit status 3",
		"two       i-0808475f02ee37363  m5.large  eu-west-1b  running  10.0.2.4",
		"",
		"ENI                    INSTANCE  DEVICE  STATUS    PRIMARY   SECONDARY   PREFIXES  DROPPED",
		"eni-06aa9d61435dbe63e  one       ens5    attached  10.0.1.4  10.0.1.5-6",
		"eni-01120b3d00955f032  two       ens5    attached  10.0.2.4",
	}
	if d := cmp.Diff(want, lines); d != "" {
		t.Errorf("status (-want +got):\n%s", d)
	}

	one, err := s.Find("one")
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(s.Dir, LogName(one.ID, "talker")))
	if err != nil || string(log) != "hello eu-west-1 http://169.254.100.1:80\n" {
		t.Errorf("log of the daemon: %q, %v", log, err)
	}
	proc := fmt.Sprintf("/proc/%d/root/proc/%d/status", one.PID, one.Daemons[0].PID)
	text, err := os.ReadFile(proc)
	if err != nil || !strings.Contains(string(text), "CapBnd:\t0000000000002000\n") {
		t.Errorf("capabilities of the daemon: %v\n%s", err, text)
	}
	if byID, err := s.Find(one.ID); err != nil || byID.Name != "one" {
		t.Errorf("find by id: %+v, %v", byID, err)
	}
	if _, err := s.Find("three"); err == nil || !strings.Contains(err.Error(), "one, two") {
		t.Errorf("find of what is not there: %v, want the names that are", err)
	}
}

// devices lists an instance's devices by name, with their MACs.
func devices(t *testing.T, in InstanceStatus) map[string]string {
	t.Helper()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", in.PID))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	found := map[string]string{}
	err = netns.Do(ns, func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if l.Type() == "veth" {
				found[l.Attrs().Name] = l.Attrs().HardwareAddr.String()
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestLabFollowsTheCloud: what anyone asks of EC2 while a lab runs comes true.
func TestLabFollowsTheCloud(t *testing.T) {
	l := ready(t, smallWorld)
	one, err := status(t, l).Find("one")
	if err != nil {
		t.Fatal(err)
	}
	subnets := l.Cloud().Snapshot().Subnets

	e, err := l.Cloud().CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: subnets[0].ID})
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Cloud().AttachNetworkInterface(ec2sim.AttachNetworkInterfaceInput{InterfaceID: e.ID, InstanceID: one.ID, DeviceIndex: 2})
	if err != nil {
		t.Fatal(err)
	}
	attachment := func(want string) error {
		for _, i := range l.Cloud().Snapshot().Interfaces {
			if i.ID != e.ID {
				continue
			}
			got := "none"
			if i.Attachment != nil {
				got = i.Attachment.Status
			}
			if got != want {
				return fmt.Errorf("attachment is %s, want %s", got, want)
			}
		}
		return nil
	}
	eventually(t, "eni is attached", func() error { return attachment("attached") })
	if d := devices(t, one); d["ens7"] != e.MAC.String() {
		t.Errorf("devices %v, want ens7 with %s", d, e.MAC)
	}
	if err := l.Cloud().DetachNetworkInterface(ec2sim.DetachNetworkInterfaceInput{AttachmentID: a.ID}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "eni is detached", func() error { return attachment("none") })
	if d := devices(t, one); len(d) != 1 {
		t.Errorf("devices %v, want ens5 only", d)
	}

	r, err := l.Cloud().RunInstances(ec2sim.RunInstancesInput{Type: "t3.nano", SubnetID: subnets[1].ID, Tags: map[string]string{"Name": "late"}})
	if err != nil {
		t.Fatal(err)
	}
	late := r.Instances[0]
	eventually(t, "late instance runs", func() error {
		in, err := status(t, l).Find("late")
		if err == nil && in.State != ec2sim.StateRunning {
			err = errors.New(in.State)
		}
		return err
	})
	reach(t, l, "one", late.PrivateIP)
	if _, err := l.Cloud().TerminateInstances(ec2sim.TerminateInstancesInput{IDs: []string{late.ID}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "late instance is gone", func() error {
		for _, i := range l.Cloud().Snapshot().Instances {
			if i.ID == late.ID && i.State != ec2sim.StateTerminated {
				return errors.New(i.State)
			}
		}
		_, err := os.Stat(filepath.Join(l.cfg.Dir, late.ID))
		if err == nil {
			return errors.New("its directory is there")
		}
		return nil
	})
}

// reach opens TCP from an instance to another's address, where nobody listens:
// a refusal has come all the way back.
func reach(t *testing.T, l *Lab, from string, to netip.Addr) {
	t.Helper()
	in, err := status(t, l).Find(from)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", in.PID))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = netns.Do(ns, func() error {
		_, err := net.DialTimeout("tcp4", netip.AddrPortFrom(to, 9).String(), patience)
		return err
	})
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("connect to %s: %v, want a refusal", to, err)
	}
}

// TestMetadataByInstance: each instance is told about itself.
func TestMetadataByInstance(t *testing.T) {
	l := ready(t, smallWorld)
	for _, in := range status(t, l).Instances {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", in.PID))
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		client := &http.Client{Timeout: patience, Transport: &http.Transport{
			DialContext: func(_ context.Context, network, addr string) (c net.Conn, err error) {
				err = netns.Do(ns, func() (err error) { c, err = net.DialTimeout(network, addr, patience); return err })
				return c, err
			},
		}}
		defer client.CloseIdleConnections()
		ask := func(method, path string, header ...string) string {
			t.Helper()
			req, err := http.NewRequest(method, "http://169.254.169.254/latest/"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set(header[0], header[1])
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("%s: %s %v: %s", path, resp.Status, err, b)
			}
			return string(b)
		}
		token := ask(http.MethodPut, "api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
		if got := ask(http.MethodGet, "meta-data/instance-id", "X-aws-ec2-metadata-token", token); got != in.ID {
			t.Errorf("%s is told that it is %s, want %s", in.Name, got, in.ID)
		}
		if got := ask(http.MethodGet, "meta-data/local-ipv4", "X-aws-ec2-metadata-token", token); got != in.Address.String() {
			t.Errorf("%s is told that its address is %s, want %s", in.Name, got, in.Address)
		}
	}
}

func TestControl(t *testing.T) {
	cfg := scratch(t, smallWorld)
	remote := Connect(cfg.Dir)
	if _, err := remote.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("status of no lab: %v, want %v", err, ErrNotRunning)
	}
	if err := remote.Down(t.Context(), cfg.World.Name); !errors.Is(err, ErrNotRunning) {
		t.Errorf("down of no lab: %v, want %v", err, ErrNotRunning)
	}
	l, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	<-l.Ready()
	listening, served := make(chan struct{}), make(chan error, 1)
	go func() {
		err := l.Serve(context.Background(), func() { close(listening) })
		served <- errors.Join(err, l.Close())
	}()
	<-listening

	eventually(t, "the second daemon has ended", func() error {
		if d := status(t, l).Instances[0].Daemons; len(d) != 2 || d[1].Running {
			return fmt.Errorf("daemons are %+v", d)
		}
		return nil
	})
	got, err := remote.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want, wantJSON := status(t, l), ""
	for _, s := range []*Status{&got, &want} {
		for i := range s.ENIs {
			s.ENIs[i].Drops = nil
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if s == &got {
			wantJSON = string(b)
		} else if d := cmp.Diff(string(b), wantJSON); d != "" {
			t.Errorf("status from outside (-inside +outside):\n%s", d)
		}
	}
	if info, err := os.Stat(filepath.Join(cfg.Dir, controlSocket)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("control socket: %v, %v: want mode 0600", info.Mode(), err)
	}
	if _, err := Start(t.Context(), cfg); !errors.Is(err, ErrRunning) {
		t.Errorf("second start: %v, want %v", err, ErrRunning)
	}
	if err := Sweep(cfg.World.Name); err != nil {
		t.Errorf("sweep of a lab that runs: %v", err)
	}
	if s := status(t, l); !slices.ContainsFunc(s.Instances, func(i InstanceStatus) bool { return i.State == ec2sim.StateRunning }) {
		t.Errorf("after a sweep no instance runs: %+v", s.Instances)
	}
	if err := remote.Down(t.Context(), cfg.World.Name); err != nil {
		t.Errorf("down: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	gone(t, cfg.World.Name)
}

// TestStartRefuses: a world that is wrong is refused before anything is made.
func TestStartRefuses(t *testing.T) {
	cfg := scratch(t, smallWorld)
	cfg.World.Instances[1].Type = "m5.huge"
	if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), `world.yaml`) || !strings.Contains(err.Error(), "m5.huge") {
		t.Errorf("start with an unknown type: %v", err)
	}
	gone(t, cfg.World.Name)
}

// TestFailureIsTold: a lab that cannot be as asked says so, goes on trying, and
// ends when it is told to.
func TestFailureIsTold(t *testing.T) {
	l := start(t, scratch(t, strings.Replace(smallWorld, "[sleep, \"1000\"]", "[no-such-program]", 1)))
	eventually(t, "the failure is told", func() error {
		err := l.Failure()
		if err == nil || !strings.Contains(err.Error(), "start daemon sleeper") || !strings.Contains(err.Error(), "no-such-program") {
			return fmt.Errorf("failure is %v", err)
		}
		return nil
	})
	var b strings.Builder
	if err := status(t, l).WriteTables(&b); err != nil || !strings.Contains(b.String(), "not as asked for: start i-") {
		t.Errorf("status: %v\n%s", err, &b)
	}
	select {
	case <-l.Ready():
		t.Error("the lab says that it is ready")
	default:
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"demo": true, "a": true, "0-a": true, strings.Repeat("a", 20): true,
		"": false, ".": false, "..": false, "a/b": false, "../x": false, "-a": false, "A": false, "a b": false, "a\n": false,
		strings.Repeat("a", 21): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("name %q: %v, want accepted: %t", name, err, ok)
		}
	}
}

func TestAddressRuns(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "-",
		"10.0.1.9":                       "10.0.1.9",
		"10.0.1.7 10.0.1.5 10.0.1.6":     "10.0.1.5-7",
		"10.0.1.5 10.0.1.7 10.0.1.8":     "10.0.1.5,10.0.1.7-8",
		"10.0.1.254 10.0.1.255 10.0.2.0": "10.0.1.254-10.0.2.0",
		"10.0.1.9 10.0.1.10 10.0.1.12":   "10.0.1.9-10,10.0.1.12",
	} {
		var addrs []netip.Addr
		for f := range strings.FieldsSeq(in) {
			addrs = append(addrs, netip.MustParseAddr(f))
		}
		if got := addresses(addrs); got != want {
			t.Errorf("addresses %q: got %s, want %s", in, got, want)
		}
	}
}
