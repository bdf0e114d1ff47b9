package scenarios

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
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/edge/store"
	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/lab/runtime"
	"github.com/fairway-cni/fairway/lab/world"
)

// patience is how long a condition may take on a machine that is slow and very busy.
// Nothing waits for all of it where all is well.
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
		<-time.After(5 * time.Millisecond)
	}
}

// lab is a lab that runs in this process.
type lab struct {
	*world.Lab
	t     *testing.T
	name  string
	nodes map[string]*node

	refuses bool // EC2 says on purpose that the agents lack a right
}

// node is one instance of a lab.
type node struct {
	*guest.Client
	t    *testing.T
	name string
	pid  int // of its init, on the host
	addr netip.Addr
	log  string // of its agent

	region string
	vars   []string // of its agent's environment
}

var labs atomic.Int32 // for names

// twoNodes is a world of two m5.large in two zones. The tests start the agents.
const twoNodes = `
vpcs:
  - name: main
    cidr: 10.0.0.0/16
    subnets: [{name: a, cidr: 10.0.1.0/24, zone: a}, {name: b, cidr: 10.0.2.0/24, zone: b}]
instances:
  - {name: node-a, type: m5.large, subnet: a}
  - {name: node-b, type: m5.large, subnet: b}
`

// oneNode is a world of one instance of a type, without an agent.
func oneNode(instanceType string) string {
	return `
vpcs:
  - {name: main, cidr: 10.0.0.0/16, subnets: [{name: a, cidr: 10.0.1.0/24}]}
instances:
  - {name: node-a, type: ` + instanceType + `, subnet: a}
`
}

// startLab runs a world, whose name it adds, until the test ends.
func startLab(t *testing.T, yaml string) *lab {
	t.Helper()
	needLab(t)
	name := scratchLab(strconv.Itoa(int(labs.Add(1))))
	w, err := world.Parse("world.yaml", []byte("name: "+name+yaml))
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
	made := &lab{Lab: l, t: t, name: name, nodes: map[string]*node{}}
	t.Cleanup(func() {
		if !made.refuses {
			rightsSuffice(t.Errorf, l.Cloud().Calls(time.Time{}))
		}
		if t.Failed() {
			made.logs()
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
	for _, in := range made.status().Instances {
		made.add(in)
	}
	return made
}

// rightsSuffice complains of each call that the agent made without having the
// right. Its role has exactly the policies of docs/iam.md, and it also goes on
// without some of their rights.
func rightsSuffice(complain func(format string, args ...any), calls []ec2sim.Call) {
	for _, c := range calls {
		if strings.HasPrefix(c.Caller, world.AgentRole+"/") && c.Code == "UnauthorizedOperation" {
			complain("%s called %s, which the policies of docs/iam.md do not allow", c.Caller, c.Action)
		}
	}
}

func (l *lab) add(in world.InstanceStatus) *node {
	l.t.Helper()
	c, err := guest.Dial(in.Socket)
	if err != nil {
		l.t.Fatal(err)
	}
	n := &node{Client: c, t: l.t, name: in.Name, pid: in.PID, addr: in.Address, region: in.Region,
		log: filepath.Join(world.Dir(l.name), world.LogName(in.ID, "agent"))}
	l.nodes[in.Name] = n
	return n
}

func (l *lab) status() world.Status {
	l.t.Helper()
	s, err := l.Status(l.t.Context(), os.Getpid())
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

// logs shows what the agents said, for a test that failed.
func (l *lab) logs() {
	for name, n := range l.nodes {
		text, err := os.ReadFile(n.log)
		l.t.Logf("agent of %s: %v\n%s", name, err, text)
	}
}

// startAgent starts the node's agent as a world file would.
func (n *node) startAgent(flags ...string) {
	n.t.Helper()
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	_, err = n.StartDaemon(n.t.Context(), guest.Daemon{
		Name: "agent", Argv: append([]string{"fairway-agent", "--warm-ip-target=5"}, flags...), Env: n.env(n.vars...), Dir: "/",
		Log: log, Caps: []uintptr{unix.CAP_NET_ADMIN},
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) env(more ...string) []string {
	return append(world.Env(n.region, []string{programs}), more...)
}

// killAgent is kill -9, and the wait for the end.
func (n *node) killAgent() {
	n.t.Helper()
	if err := n.SignalDaemon(n.t.Context(), "agent", unix.SIGKILL); err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.WaitDaemon(n.t.Context(), "agent"); err != nil {
		n.t.Fatal(err)
	}
}

// readyAgent waits until the agent answers. CNI's STATUS would not do: of a node that
// was ready once it says so without asking. An agent of another release answers that it
// does not know the question.
func (n *node) readyAgent() {
	n.t.Helper()
	eventually(n.t, "agent of "+n.name+" answers", func() error {
		a := n.run(guest.Cmd{Argv: []string{program("fairway"), "status", "-o", "json"}, Env: n.env()})
		if a.status == 1 && !strings.Contains(a.stderr, "of another release") { // 2: something is wrong
			return errors.New(a.stderr)
		}
		return nil
	})
}

// logged waits for words in the agent's log.
func (n *node) logged(words ...string) {
	n.t.Helper()
	eventually(n.t, "log of the agent of "+n.name, func() error {
		text, err := os.ReadFile(n.log)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if missingWord(line, words) == "" {
				return nil
			}
		}
		return fmt.Errorf("no line has all of %q", words)
	})
}

func missingWord(text string, words []string) string {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return w
		}
	}
	return ""
}

// answer is what a program in an instance printed, and how it ended.
type answer struct {
	stdout, stderr string
	status         int
}

// run runs a program in the instance.
func (n *node) run(c guest.Cmd) answer {
	n.t.Helper()
	a, err := n.try(n.t.Context(), c)
	if err != nil {
		n.t.Fatalf("run %q on %s: %v", c.Argv, n.name, err)
	}
	return a
}

// try is run for goroutines that are not the test's own.
func (n *node) try(ctx context.Context, c guest.Cmd) (answer, error) {
	var out [2]chan string
	for i, file := range []**os.File{&c.Stdout, &c.Stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			return answer{}, err
		}
		defer w.Close()
		out[i] = make(chan string, 1)
		go func() {
			b, _ := io.ReadAll(r)
			r.Close()
			out[i] <- string(b)
		}()
		*file = w
	}
	if c.Env == nil {
		c.Env = n.env()
	}
	status, err := n.Exec(ctx, c)
	c.Stdout.Close()
	c.Stderr.Close()
	return answer{<-out[0], <-out[1], status.Shell()}, err
}

// runtimeReply is what the half of `pod` that runs in an instance prints.
type runtimeReply struct {
	Pods  []runtime.Pod `json:"pods"`
	Error string        `json:"error"`
}

// runtime runs that half: add, del, list, check, gc.
func (n *node) runtime(ctx context.Context, args ...string) ([]runtime.Pod, error) {
	argv := append([]string{program("fairway-lab"), "runtime"}, args...)
	a, err := n.try(ctx, guest.Cmd{Argv: argv})
	if err != nil {
		return nil, err
	}
	var r runtimeReply
	if err := json.Unmarshal([]byte(a.stdout), &r); err != nil {
		return nil, fmt.Errorf("%q: status %d: %w\n%s%s", args, a.status, err, a.stdout, a.stderr)
	}
	if r.Error != "" {
		return r.Pods, errors.New(r.Error)
	}
	return r.Pods, nil
}

// addPods makes pods, all of which must come to be.
func (n *node) addPods(names ...string) []runtime.Pod {
	n.t.Helper()
	pods, err := n.runtime(n.t.Context(), append([]string{"add", "--parallel=4", "--"}, names...)...)
	if err != nil {
		n.t.Fatalf("add pods on %s: %v", n.name, err)
	}
	return pods
}

func (n *node) delPods(names ...string) {
	n.t.Helper()
	if _, err := n.runtime(n.t.Context(), append([]string{"del", "--"}, names...)...); err != nil {
		n.t.Fatalf("delete pods on %s: %v", n.name, err)
	}
}

func (n *node) listPods() []runtime.Pod {
	n.t.Helper()
	pods, err := n.runtime(n.t.Context(), "list")
	if err != nil {
		n.t.Fatal(err)
	}
	return pods
}

// call is one call of the plugin, as a runtime that is not ours makes it.
type call struct {
	command, container, ifName, netns string
	without                           string // a variable that is left out
	stdin                             string // default: a sound configuration
}

const (
	conf10 = `{"cniVersion":"1.0.0","name":"fairway","type":"fairway-cni"}`
	conf11 = `{"cniVersion":"1.1.0","name":"fairway","type":"fairway-cni"}`
)

// plugin runs fairway-cni.
func (n *node) plugin(c call) answer {
	n.t.Helper()
	stdin := c.stdin
	if stdin == "" {
		stdin = conf11
	}
	path := filepath.Join(n.t.TempDir(), "stdin")
	if err := os.WriteFile(path, []byte(stdin), 0o600); err != nil {
		n.t.Fatal(err)
	}
	in, err := os.Open(path)
	if err != nil {
		n.t.Fatal(err)
	}
	defer in.Close()
	var env []string
	for name, value := range map[string]string{"CNI_COMMAND": c.command, "CNI_CONTAINERID": c.container,
		"CNI_IFNAME": c.ifName, "CNI_NETNS": c.netns, "CNI_PATH": programs} {
		if value != "" && name != c.without {
			env = append(env, name+"="+value)
		}
	}
	return n.run(guest.Cmd{Argv: []string{program("fairway-cni")}, Env: n.env(env...), Stdin: in})
}

// cniError is the CNI error that a call ended with.
type cniError struct {
	Code    uint   `json:"code"`
	Msg     string `json:"msg"`
	Details string `json:"details"`
}

// failed gives the error of a call that must have failed.
func (n *node) failed(c call) cniError {
	n.t.Helper()
	return parseError(n.t, n.plugin(c))
}

func parseError(t *testing.T, a answer) cniError {
	t.Helper()
	var e cniError
	if err := json.Unmarshal([]byte(a.stdout), &e); err != nil || a.status == 0 {
		t.Fatalf("status %d, stdout %q, stderr %q: want a CNI error", a.status, a.stdout, a.stderr)
	}
	return e
}

// file is a path in the instance as the host sees it.
func (n *node) file(path string) string {
	return filepath.Join("/proc", strconv.Itoa(n.pid), "root", path)
}

// netns opens the node's network namespace until the test ends.
func (n *node) netns() *os.File { return n.open(filepath.Join("/proc", strconv.Itoa(n.pid), "ns/net")) }

// podNetns opens a pod's.
func (n *node) podNetns(p runtime.Pod) *os.File { return n.open(n.file(p.NetNS)) }

func (n *node) open(path string) *os.File {
	n.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { f.Close() })
	return f
}

// records reads what the agent has written about addresses, whether it runs or not.
func (n *node) records() []store.Record {
	n.t.Helper()
	files, err := filepath.Glob(n.file("run/fairway/addresses/*.*.*.*"))
	if err != nil {
		n.t.Fatal(err)
	}
	var records []store.Record
	for _, f := range files {
		text, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue // cooled down meanwhile
		}
		var r store.Record
		if err == nil {
			err = json.Unmarshal(text, &r)
		}
		if err != nil {
			n.t.Fatal(err)
		}
		records = append(records, r)
	}
	return records
}

func podAddr(p runtime.Pod) netip.Addr {
	if len(p.Addresses) == 0 {
		return netip.Addr{}
	}
	return p.Addresses[0].Addr()
}
