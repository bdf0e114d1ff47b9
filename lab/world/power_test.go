package world

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/guest"
)

// podVariable makes this program what a node's daemons are to a host: it holds a
// network namespace, mounted under /run, until it is killed.
const podVariable = "FAIRWAY_TEST_POD"

func TestMain(m *testing.M) {
	guest.MaybeInit()
	if os.Getenv(podVariable) != "" {
		fmt.Fprintln(os.Stderr, pod())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func pod() error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	const path = "/run/netns/pod"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount namespace of pod: %w", err)
	}
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		return err
	}
	if err := os.WriteFile("/run/pod-is-up", nil, 0o644); err != nil {
		return err
	}
	return child.Wait()
}

const twoInstances = `
name: %s
vpcs:
  - name: main
    cidr: 10.0.0.0/16
    subnets:
      - {name: a, cidr: 10.0.1.0/24, zone: a}
      - {name: b, cidr: 10.0.2.0/24, zone: b}
instances:
  - name: node-a
    type: m5.large
    subnet: a
    daemons:
      - {name: pod, command: [%s], env: {%s: "1"}}
  - name: node-b
    type: m5.large
    subnet: b
`

// startLab starts a lab of two instances, the first with a pod. The caller
// closes it.
func startLab(ctx context.Context, name, dir string) (*Lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w, err := Parse("test.yaml", fmt.Appendf(nil, twoInstances, name, self, podVariable))
	if err != nil {
		return nil, err
	}
	l, err := Start(ctx, Config{World: w, Dir: filepath.Join(dir, "labs", name), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		return nil, err
	}
	select {
	case <-l.Ready():
		return l, nil
	case <-time.After(patience):
		return nil, errors.Join(fmt.Errorf("not ready within %s: %w", patience, l.Failure()), l.Close())
	}
}

func requireLab(t *testing.T) {
	t.Helper()
	if err := errors.Join(guest.Check(), fabric.Probe()); err != nil {
		t.Skip(err)
	}
}

// testLab is unique among the tests that run on a machine.
func testLab(t *testing.T) string {
	return strings.ToLower(fmt.Sprintf("%.8s-%d", strings.TrimPrefix(t.Name(), "Test"), os.Getpid()))
}

func mustStart(t *testing.T) *Lab {
	t.Helper()
	requireLab(t)
	l, err := startLab(t.Context(), testLab(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close lab: %v", err)
		}
	})
	return l
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); {
		if time.Now().After(end) {
			t.Fatalf("waited %s for: %s", patience, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func findInstance(t *testing.T, l *Lab, name string) ec2sim.Instance {
	t.Helper()
	all := l.Cloud().Snapshot().Instances
	k := slices.IndexFunc(all, func(i ec2sim.Instance) bool { return i.Name == name })
	if k < 0 {
		t.Fatalf("no instance %s", name)
	}
	return all[k]
}

// shell runs a command in an instance.
func shell(t *testing.T, l *Lab, instance, script string) guest.ExitStatus {
	t.Helper()
	m := l.machine(findInstance(t, l, instance).ID)
	if m == nil {
		t.Fatalf("%s has no machine", instance)
	}
	s, err := m.Exec(t.Context(), guest.Cmd{Argv: []string{"/bin/sh", "-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// reach opens TCP from one instance to the other and closes it.
func reaches(l *Lab, from, to ec2sim.Instance) error {
	var ln net.Listener
	address := net.JoinHostPort(to.PrivateIP.String(), "8080")
	if err := netns.Do(l.machine(to.ID).NetNS(), func() (err error) {
		ln, err = net.Listen("tcp4", address)
		return err
	}); err != nil {
		return err
	}
	defer ln.Close()
	return netns.Do(l.machine(from.ID).NetNS(), func() error {
		c, err := net.DialTimeout("tcp4", address, patience)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

func enis(t *testing.T, l *Lab) (described []string) {
	t.Helper()
	for _, e := range l.Cloud().Snapshot().Interfaces {
		described = append(described, fmt.Sprintf("%s %s %s %s", e.ID, e.Primary, e.Attachment.ID, e.Attachment.Status))
	}
	return described
}

func TestKillAndReboot(t *testing.T) {
	l := mustStart(t)
	a, b := findInstance(t, l, "node-a"), findInstance(t, l, "node-b")
	podIsUp := func() bool { return shell(t, l, "node-a", "test -e /run/pod-is-up").Code == 0 }
	waitFor(t, "the pod", podIsUp)
	if s := shell(t, l, "node-a", "touch /run/mark /etc/mark"); s.Code != 0 {
		t.Fatal(s)
	}
	if err := reaches(l, b, a); err != nil {
		t.Fatal(err)
	}
	before := enis(t, l)
	first := l.machine(a.ID)

	if err := l.Kill(t.Context(), "node-a"); err != nil {
		t.Fatal(err)
	}
	<-first.Done()
	if err := l.Kill(t.Context(), a.ID); err != nil {
		t.Errorf("kill again: %v", err)
	}
	if got := findInstance(t, l, "node-a").State; got != ec2sim.StateRunning {
		t.Errorf("EC2 says that the killed instance is %s", got)
	}
	if diff := cmp.Diff(before, enis(t, l)); diff != "" {
		t.Errorf("ENIs of the killed instance (-before +after):\n%s", diff)
	}
	s, err := l.Status(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if in, err := s.Find("node-a"); err != nil || !in.Killed || in.PID != 0 {
		t.Errorf("status of the killed instance: %+v, %v", in, err)
	}
	// Packets for it go nowhere, and are told from those for nobody.
	waitFor(t, "a drop as NOT_ATTACHED", func() bool {
		if err := netns.Do(l.machine(b.ID).NetNS(), func() error {
			c, err := net.Dial("udp4", net.JoinHostPort(a.PrivateIP.String(), "9"))
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("hello"))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		all, err := l.Fabric().Counters()
		if err != nil {
			t.Fatal(err)
		}
		for _, counts := range all {
			if counts[fabric.NotAttached].Packets > 0 {
				return true
			}
		}
		return false
	})

	if err := l.Reboot(t.Context(), "node-a"); err != nil {
		t.Fatal(err)
	}
	if s := shell(t, l, "node-a", "test -e /run/mark || test -e /etc/mark"); s.Code == 0 {
		t.Error("files of the time before are there after the reboot")
	}
	waitFor(t, "the pod after the reboot", podIsUp)
	if diff := cmp.Diff(before, enis(t, l)); diff != "" {
		t.Errorf("ENIs after the reboot (-before +after):\n%s", diff)
	}
	if err := reaches(l, b, a); err != nil {
		t.Errorf("after the reboot: %v", err)
	}
	// One that runs can be rebooted too.
	second := l.machine(a.ID)
	if err := l.Reboot(t.Context(), "node-a"); err != nil {
		t.Fatal(err)
	}
	<-second.Done()
	if err := reaches(l, a, b); err != nil {
		t.Errorf("after the second reboot: %v", err)
	}
	if err := l.Kill(t.Context(), "nobody"); !errors.Is(err, ErrNoInstance) {
		t.Errorf("kill of nobody: %v, want ErrNoInstance", err)
	}
	if err := l.Failure(); err != nil {
		t.Errorf("the lab is not as asked for: %v", err)
	}
}

// The control socket of a lab, as the command line uses it.
func TestRemoteFaults(t *testing.T) {
	l := mustStart(t)
	ctx, cancel := context.WithCancel(t.Context())
	listening, served := make(chan struct{}), make(chan error, 1)
	go func() { served <- l.Serve(ctx, func() { close(listening) }) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	<-listening
	r := Connect(l.cfg.Dir)
	eni := l.Cloud().Snapshot().Interfaces[0].ID
	want := fabric.Faults{
		ENIs:       map[string]fabric.ENIFault{eni: {LossPercent: 10, Delay: time.Millisecond, Seed: 1 << 63}},
		Partitions: []fabric.Partition{{A: "eu-west-1a", B: "eu-west-1b"}},
	}
	if err := r.SetFaults(ctx, want); err != nil {
		t.Fatal(err)
	}
	got, err := r.Faults(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Faults); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	if err := r.SetFaults(ctx, fabric.Faults{Partitions: []fabric.Partition{{}}}); err == nil || !strings.Contains(err.Error(), "partition") {
		t.Errorf("impossible fault: %v", err)
	}
	if err := r.SetFaults(ctx, fabric.Faults{}); err != nil {
		t.Fatal(err)
	}
	if err := r.Kill(ctx, "node-b"); err != nil {
		t.Error(err)
	}
	if err := r.Reboot(ctx, "node-b"); err != nil {
		t.Error(err)
	}
	if err := r.Reboot(ctx, "no/body"); err == nil || !strings.Contains(err.Error(), ErrNoInstance.Error()) {
		t.Errorf("reboot of nobody: %v", err)
	}
}
