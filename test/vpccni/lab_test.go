package vpccni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/amazon-vpc-cni-k8s/rpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/fairway-cni/fairway/lab/cli"
	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/lab/world"
)

// patience is how long a condition may take on a machine that is very busy. The
// daemon looks at its pool every five seconds.
const patience = time.Minute

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
		<-time.After(20 * time.Millisecond)
	}
}

// node is the one instance of a lab, on which the daemon runs.
type node struct {
	rpc.CNIBackendClient
	t   *testing.T
	lab *world.Lab
	dir string // of the lab
	id  string
	pid int    // of its init, on the host
	log string // of the daemon
}

// startNode runs a lab of one instance with the daemon until the test ends. ec2 is
// the value of the world's key.
func startNode(t *testing.T, instanceType, ec2 string, env ...string) *node {
	t.Helper()
	needLab(t)
	name := fmt.Sprintf("v%d-%s", os.Getpid(), strings.ToLower(t.Name()[len("Test"):]))
	name = name[:min(len(name), 20)]
	w, err := world.Parse("world.yaml", []byte("name: "+name+`
ec2: `+ec2+`
vpcs:
  - {name: main, cidr: 10.0.0.0/16, subnets: [{name: a, cidr: 10.0.1.0/24}]}
roles:
  - {name: vpc-cni, policy: `+ownPolicy(t)+`}
instances:
  - {name: node, type: `+instanceType+`, subnet: a, role: vpc-cni}
`))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer // of the lab's one loop; read when that has ended
	l, err := world.Start(t.Context(), world.Config{
		World: w, Dir: world.Dir(name), Path: []string{programs}, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, lab: l, dir: world.Dir(name)}
	t.Cleanup(func() {
		if text, err := os.ReadFile(n.log); t.Failed() {
			t.Logf("the daemon's log: %v\n%s", err, text[max(0, len(text)-20000):])
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
	n.serve()
	s, err := l.Status(t.Context(), os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	in := s.Instances[0]
	n.id, n.pid, n.log = in.ID, in.PID, filepath.Join(n.dir, world.LogName(in.ID, daemon))
	n.start(in, env)
	n.dial()
	return n
}

// serve answers fairway-lab until the test ends.
func (n *node) serve() {
	listening, ended := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(n.t.Context()))
	go func() { ended <- n.lab.Serve(ctx, func() { close(listening) }) }()
	n.t.Cleanup(func() {
		if n.t.Failed() {
			n.t.Logf("calls:\n%s", n.calls("action"))
		}
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			n.t.Errorf("serve fairway-lab: %v", err)
		}
	})
	select {
	case <-listening:
	case <-time.After(patience):
		n.t.Fatal("the lab does not listen to fairway-lab")
	}
}

// start runs the daemon as its DaemonSet does, as far as that sets what has no
// default in it.
func (n *node) start(in world.InstanceStatus, env []string) {
	n.t.Helper()
	c, err := guest.Dial(in.Socket)
	if err != nil {
		n.t.Fatal(err)
	}
	ns, err := os.Open(filepath.Join("/proc", strconv.Itoa(n.pid), "ns/net"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer ns.Close()
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	env = slices.Concat(world.Env(in.Region, []string{programs}), []string{
		"KUBECONFIG=" + serveAPI(n.t, ns, in.Name), "MY_NODE_NAME=" + in.Name,
		"ENABLE_IPv4=true", "AWS_VPC_K8S_CNI_LOG_FILE=stdout",
	}, env)
	if _, err := c.StartDaemon(n.t.Context(), guest.Daemon{Name: daemon, Argv: []string{daemon}, Env: env, Dir: "/", Log: log}); err != nil {
		n.t.Fatal(err)
	}
}

// dial waits for the daemon's socket. It is served when the node is set up, with
// its first warm addresses.
func (n *node) dial() {
	n.t.Helper()
	// /var/run is a link in the instance, which would lead out of it here.
	socket := filepath.Join("/proc", strconv.Itoa(n.pid), "root/run/aws-node/ipamd.sock")
	eventually(n.t, "the daemon serves its plugin", func() error {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err
	})
	conn, err := grpc.NewClient("passthrough:///ipamd", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	n.CNIBackendClient = rpc.NewCNIBackendClient(conn)
}

// ownPolicy is the policy for IPv4 in the documents of the daemon's own project.
func ownPolicy(t *testing.T) string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", project).Output()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "docs/iam-policy.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```\n")
	text, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/iam-policy.md has no policy")
	}
	return strings.Join(strings.Fields(text), " ")
}

// enis are the node's ENIs that EC2 calls attached, the primary one first.
func (n *node) enis() []ec2sim.NetworkInterface {
	var list []ec2sim.NetworkInterface
	for _, e := range n.lab.Cloud().Snapshot().Interfaces {
		if a := e.Attachment; a != nil && a.InstanceID == n.id && a.Status == "attached" {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b ec2sim.NetworkInterface) int { return a.Attachment.DeviceIndex - b.Attachment.DeviceIndex })
	return list
}

// calls is what `fairway-lab calls` prints.
func (n *node) calls(by string) string {
	n.t.Helper()
	out, err := os.CreateTemp("", "fairway-calls-")
	if err != nil {
		n.t.Fatal(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	env := cli.Env{Stdout: out, Stderr: os.Stderr}
	if err := cli.Run(context.WithoutCancel(n.t.Context()), env, []string{"--lab", filepath.Base(n.dir), "calls", "--by", by}); err != nil {
		n.t.Error(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}
