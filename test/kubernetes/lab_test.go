package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/lab/runtime"
	"github.com/fairway-cni/fairway/lab/world"
)

// clusterWorld has two nodes, whose ENIs hold three pods each, and an instance
// that is no node.
const clusterWorld = `
vpcs:
  - name: main
    cidr: 10.0.0.0/16
    subnets: [{name: a, cidr: 10.0.1.0/24, zone: a}, {name: b, cidr: 10.0.2.0/24, zone: b}, {name: c, cidr: 10.0.3.0/24, zone: b}]
instances:
  - {name: node-a, type: t3.small, subnet: a}
  - {name: node-b, type: t3.small, subnet: b}
  - {name: outside, type: t3.nano, subnet: c}
`

// patience is how long a condition may take on a machine that is very busy.
const patience = 2 * time.Minute

// eventually polls until ok; what it last said is the failure's reason.
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
		<-time.After(10 * time.Millisecond)
	}
}

// lab is a lab that runs in this process.
type lab struct {
	*world.Lab
	t     *testing.T
	nodes map[string]*instance
}

// instance is one instance of a lab, a node of the cluster or not.
type instance struct {
	*guest.Client
	t      *testing.T
	lab    *lab
	name   string
	id     string
	pid    int // of its init, on the host
	addr   netip.Addr
	dir    string // of the lab on the host
	region string
}

// needLab skips a test where no lab can run.
func needLab(t *testing.T) {
	t.Helper()
	err := guest.Check()
	if err == nil {
		err = fabric.Probe()
	}
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// startLab runs a world until the test ends.
func startLab(t *testing.T, name, yaml string) *lab {
	t.Helper()
	needLab(t)
	name = fmt.Sprintf("k%d-%s", os.Getpid(), name)
	w, err := world.Parse("world.yaml", []byte("name: "+name+yaml))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer // of the lab's one loop; read when that has ended
	running, err := world.Start(t.Context(), world.Config{
		World: w, Dir: world.Dir(name), Path: []string{programs}, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{Lab: running, t: t, nodes: map[string]*instance{}}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range l.nodes {
				n.showLogs()
			}
		}
		if err := l.Close(); err != nil {
			t.Errorf("close lab: %v", err)
		}
		if t.Failed() {
			t.Logf("the lab's log:\n%s", &log)
		}
	})
	select {
	case <-l.Ready():
	case <-time.After(patience):
		t.Fatalf("lab is not ready: %v", l.Failure())
	}
	s, err := l.Status(t.Context(), os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range s.Instances {
		c, err := guest.Dial(in.Socket)
		if err != nil {
			t.Fatal(err)
		}
		l.nodes[in.Name] = &instance{Client: c, t: t, lab: l, name: in.Name, id: in.ID, pid: in.PID, addr: in.Address,
			dir: world.Dir(name), region: in.Region}
	}
	return l
}

// enis are a node's ENIs, the primary one first.
func (n *instance) enis() []ec2sim.NetworkInterface {
	n.t.Helper()
	var list []ec2sim.NetworkInterface
	for _, e := range n.lab.Cloud().Snapshot().Interfaces {
		if e.Attachment != nil && e.Attachment.InstanceID == n.id {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b ec2sim.NetworkInterface) int { return a.Attachment.DeviceIndex - b.Attachment.DeviceIndex })
	return list
}

// eniOf is the device index of the ENI that a pod's address is on.
func (n *instance) eniOf(addr netip.Addr) int {
	n.t.Helper()
	for _, e := range n.enis() {
		if slices.Contains(e.Secondary, addr) {
			return e.Attachment.DeviceIndex
		}
	}
	n.t.Fatalf("%s is on no ENI of %s", addr, n.name)
	return 0
}

func (n *instance) log(daemon string) string {
	return filepath.Join(n.dir, world.LogName(n.id, daemon))
}

func (n *instance) showLogs() {
	files, _ := filepath.Glob(n.log("*"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		n.t.Logf("%s of %s: %v\n%s", filepath.Base(f), n.name, err, text[max(0, len(text)-20000):])
	}
}

// daemon starts a program that runs until the instance ends.
func (n *instance) daemon(name string, caps []uintptr, argv ...string) {
	n.t.Helper()
	log, err := os.OpenFile(n.log(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	if _, err := n.StartDaemon(n.t.Context(), guest.Daemon{
		Name: name, Argv: argv, Env: n.env(), Dir: "/", Log: log, Caps: caps,
	}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *instance) env() []string { return world.Env(n.region, []string{programs}) }

func (n *instance) startAgent(flags ...string) {
	n.t.Helper()
	argv := append([]string{"fairway-agent", "--cni-bin-dir", programs, "--warm-ip-target=0", "--minimum-ip-target=1"}, flags...)
	n.daemon("agent", []uintptr{unix.CAP_NET_ADMIN}, argv...)
}

// killAgent is kill -9, and the wait for the end.
func (n *instance) killAgent() {
	n.t.Helper()
	if err := n.SignalDaemon(n.t.Context(), "agent", unix.SIGKILL); err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.WaitDaemon(n.t.Context(), "agent"); err != nil {
		n.t.Fatal(err)
	}
}

// repaired waits until the agent runs and has nothing to change.
func (n *instance) repaired(what string) {
	n.t.Helper()
	eventually(n.t, what+": the kernel of "+n.name+" is as it should be", func() error {
		p, err := agentapi.NewClient(n.file(agentapi.DefaultSocket)).Plan(n.t.Context())
		if err == nil && len(p.Changes) > 0 {
			err = fmt.Errorf("%d changes, the first: %s", len(p.Changes), p.Changes[0].Text)
		}
		return err
	})
}

// run runs a program in the instance, which must succeed, and gives what it
// prints on standard output.
func (n *instance) run(argv ...string) string {
	n.t.Helper()
	out, err := n.try(n.t.Context(), argv...)
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

func (n *instance) try(ctx context.Context, argv ...string) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	complaint, err := os.CreateTemp("", "fairway-stderr-")
	if err != nil {
		return "", errors.Join(err, r.Close(), w.Close())
	}
	defer os.Remove(complaint.Name())
	defer complaint.Close()
	out := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(r)
		r.Close()
		out <- string(b)
	}()
	status, err := n.Exec(ctx, guest.Cmd{Argv: argv, Env: n.env(), Stdout: w, Stderr: complaint})
	w.Close()
	text := <-out
	if err == nil && status.Shell() != 0 {
		said, _ := os.ReadFile(complaint.Name())
		err = fmt.Errorf("%q on %s: %s\n%s%s", argv, n.name, status, text, said)
	}
	return text, err
}

// runtime runs the half of `fairway-lab pod` that works in an instance.
func (n *instance) runtime(args ...string) ([]runtime.Pod, error) {
	n.t.Helper()
	out, err := n.try(n.t.Context(), append([]string{"fairway-lab", "runtime"}, args...)...)
	if err != nil {
		return nil, err
	}
	var r struct {
		Pods  []runtime.Pod `json:"pods"`
		Error string        `json:"error"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return nil, fmt.Errorf("%q: %w: %s", args, err, out)
	}
	if r.Error != "" {
		return r.Pods, errors.New(r.Error)
	}
	return r.Pods, nil
}

// addPod makes one pod with the capabilities, JSON.
func (n *instance) addPod(name, capabilities string) place {
	n.t.Helper()
	pods, err := n.runtime("add", "--capabilities="+capabilities, "--", name)
	if err != nil {
		n.t.Fatalf("add pod %s on %s: %v", name, n.name, err)
	}
	return place{name, n.open(n.file(pods[0].NetNS)), pods[0].Addresses[0].Addr()}
}

func (n *instance) delPods(names ...string) {
	n.t.Helper()
	if _, err := n.runtime(append([]string{"del", "--"}, names...)...); err != nil {
		n.t.Fatalf("delete pods on %s: %v", n.name, err)
	}
}

func (n *instance) checkPod(name string) {
	n.t.Helper()
	if _, err := n.runtime("check", "--", name); err != nil {
		n.t.Errorf("CHECK: %v", err)
	}
}

// twoPods makes pods until there is one on the first and one on the second ENI.
func (n *instance) twoPods(capabilities string) (first, second place) {
	n.t.Helper()
	name := strings.TrimPrefix(n.name, "node-")
	first = n.addPod(name+"-first", capabilities)
	n.addPod(name+"-filler-1", "")
	n.addPod(name+"-filler-2", "")
	second = n.addPod(name+"-second", "")
	if a, b := n.eniOf(first.addr), n.eniOf(second.addr); a != 0 || b != 1 {
		n.t.Fatalf("pods are on ENIs %d and %d, want 0 and 1", a, b)
	}
	return first, second
}

// host is the instance itself.
func (n *instance) host() place {
	return place{n.name, n.open(filepath.Join("/proc", strconv.Itoa(n.pid), "ns/net")), n.addr}
}

// file is a path in the instance as the host sees it.
func (n *instance) file(path string) string {
	return filepath.Join("/proc", strconv.Itoa(n.pid), "root", path)
}

func (n *instance) open(path string) *os.File {
	n.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { f.Close() })
	return f
}
