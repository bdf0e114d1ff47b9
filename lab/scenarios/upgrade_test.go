package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/edge/store"
	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/lab/runtime"
)

// previous is the commit that stands for the release before this one: the last with
// the first version of address records and of the pool. It moves to a release's tag
// once there is one.
const previous = "29ce62a0c64f61577206ac419cca38677a98afa3"

// release is one build of agent and plugin.
type release struct {
	// dir has both, and the lab's own program, which calls the plugin that is beside
	// it.
	dir   string
	flags []string // of its agent, which keeps five addresses ready
}

func (r release) program(name string) string { return filepath.Join(r.dir, name) }

// thisRelease is what is tested.
func thisRelease() release {
	return release{programs, []string{"--warm-ip-target=5", "--cool-down=0s"}}
}

// previousRelease builds the commit from the clone's own history.
func previousRelease(t *testing.T) release {
	t.Helper()
	root := filepath.Join("..", "..")
	if out, err := exec.Command("git", "-C", root, "cat-file", "-e", previous+"^{commit}").CombinedOutput(); err != nil {
		t.Skipf("the release before this one, commit %.12s, is not in this clone (git fetch --unshallow gets it): %v: %s", previous, err, out)
	}
	source, into := t.TempDir(), t.TempDir()
	for _, c := range []*exec.Cmd{
		exec.Command("sh", "-c", `git -C "$1" archive "$2" | tar -x -C "$3"`, "sh", root, previous, source),
		exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", into+"/", "./cmd/fairway-agent", "./cmd/fairway-cni"),
	} {
		if c.Args[0] == "go" {
			c.Dir, c.Env = source, append(os.Environ(), "CGO_ENABLED=0")
		}
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c, err, out)
		}
	}
	if err := copyProgram(program("fairway-lab"), filepath.Join(into, "fairway-lab")); err != nil {
		t.Fatal(err)
	}
	return release{into, []string{"--warm-addresses=5", "--cool-down=0s"}}
}

func copyProgram(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}

// startRelease starts the agent of a release.
func (n *node) startRelease(r release) {
	n.t.Helper()
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	_, err = n.StartDaemon(n.t.Context(), guest.Daemon{
		Name: "agent", Argv: append([]string{r.program("fairway-agent")}, r.flags...), Env: n.env(), Dir: "/", Log: log,
		Caps: []uintptr{unix.CAP_NET_ADMIN},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.readyAgent()
}

// retireAgent is what a service manager does when it stops one.
func (n *node) retireAgent() {
	n.t.Helper()
	if err := n.SignalDaemon(n.t.Context(), "agent", unix.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.WaitDaemon(n.t.Context(), "agent"); err != nil {
		n.t.Fatal(err)
	}
}

// calls has the plugin of a release called for pods: add, check or del.
func (n *node) calls(r release, verb string, names ...string) []runtime.Pod {
	n.t.Helper()
	a, err := n.try(n.t.Context(), guest.Cmd{Argv: append([]string{r.program("fairway-lab"), "runtime", verb, "--"}, names...)})
	var reply runtimeReply
	if err == nil {
		err = json.Unmarshal([]byte(a.stdout), &reply)
	}
	if err == nil && reply.Error != "" {
		err = fmt.Errorf("%s", reply.Error)
	}
	if err != nil {
		n.t.Fatalf("%s %q on %s: %v\n%s", verb, names, n.name, err, a.stderr)
	}
	return reply.Pods
}

// upgradeWorld is twoNodes where the first node may do what either release wants of EC2:
// the one before made ENIs without the tags that the policies of this one ask for.
const upgradeWorld = `
vpcs:
  - name: main
    cidr: 10.0.0.0/16
    subnets: [{name: a, cidr: 10.0.1.0/24, zone: a}, {name: b, cidr: 10.0.2.0/24, zone: b}]
roles:
  - {name: either, policy: {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}}}
instances:
  - {name: node-a, type: m5.large, subnet: a, role: either}
  - {name: node-b, type: m5.large, subnet: b}
`

// TestUpgradeAndBack: a node's plugin and agent are replaced by those of the next
// release, one after the other, and then by the old ones again, and once more, while
// its pods talk. The other node has the new release all the time. No packet is lost,
// each release takes the other's pods for its own, and none is given an address that
// another has.
func TestUpgradeAndBack(t *testing.T) {
	t.Parallel()
	l := startLab(t, upgradeWorld)
	before, after := previousRelease(t), thisRelease()
	a, b := l.nodes["node-a"], l.nodes["node-b"]
	a.startRelease(before)
	b.startRelease(after)
	pods := a.calls(before, "add", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "a10", "a11") // the last ones on the second ENI
	u := &upgrade{t: t, node: a, peer: b.podEnd(b.calls(after, "add", "b1")[0])}
	u.talk(pods[0], pods[1], pods[10])

	// The new plugin, and the agent that has been there.
	a.calls(after, "add", "n1")
	u.works("a new plugin with an old agent", after, "a1", "n1")
	a.calls(after, "del", "a3")
	u.goOn("a new plugin with an old agent")

	a.retireAgent()
	u.goOn("no agent")
	a.startRelease(after)
	a.repaired("the new agent on the old one's node")
	u.works("a new agent with pods of the old one", after, "a1", "a11", "n1")

	// The old plugin, for which somebody has yet to come.
	a.calls(before, "add", "o1")
	u.works("an old plugin with a new agent", before, "a1", "o1")
	a.calls(before, "del", "a4")
	a.calls(after, "add", "n2")
	u.goOn("an old plugin with a new agent")

	u.back(before, after)
	u.works("the old agent again, with pods of the new one", before, "a1", "n1", "n2", "o1")
	a.calls(before, "del", "n2")
	a.calls(before, "add", "o2")
	u.goOn("the old agent again")

	a.retireAgent()
	a.startRelease(after)
	a.repaired("the new agent again")
	u.works("the new agent again", after, "a1", "o1", "o2")
	u.end()
	a.consistent(t)
	l.allReach(t)
}

// upgrade is the talk of a node's pods while its programs change.
type upgrade struct {
	t       *testing.T
	node    *node
	peer    end // a pod on the other node
	pulses  []*pulse
	streams []*stream
}

func (u *upgrade) talk(first, second, last runtime.Pod) {
	n := u.node
	for _, pair := range [][2]end{
		{n.podEnd(first), u.peer}, {u.peer, n.podEnd(last)}, {n.podEnd(last), n.podEnd(second)}, {n.hostEnd(), n.podEnd(last)},
	} {
		u.pulses = append(u.pulses, startSteadyPulse(u.t, pair[0], pair[1], 10*time.Millisecond))
		u.streams = append(u.streams, streamTo(u.t, pair[0], pair[1]))
	}
	u.goOn("the old release")
}

func (u *upgrade) goOn(when string) {
	u.t.Helper()
	u.t.Log(when)
	allGoOn(u.t, u.streams)
	for _, p := range u.pulses {
		p.goesOn(u.t)
	}
}

// works asks the plugin of a release whether pods are as they were made, and that no
// address is held twice.
func (u *upgrade) works(when string, r release, names ...string) {
	u.t.Helper()
	u.goOn(when)
	u.node.calls(r, "check", names...)
	held := map[string]string{}
	for _, p := range u.node.listPods() {
		addr := podAddr(p).String()
		if other, ok := held[addr]; ok {
			u.t.Errorf("%s: %s and %s both have %s", when, p.Name, other, addr)
		}
		held[addr] = p.Name
	}
}

// back stops the new agent, has it write records that the old one reads, and starts
// the old one. What is deleted meanwhile is left in the spool by the new plugin.
func (u *upgrade) back(before, after release) {
	u.t.Helper()
	n := u.node
	n.retireAgent()
	n.calls(after, "del", "a5")
	if files := n.spool(); len(files) != 1 {
		u.t.Errorf("the spool has %q, want one entry", files)
	}
	u.writeNewest("n1")
	ctx, cancel := context.WithTimeout(u.t.Context(), patience)
	defer cancel()
	out, err := n.try(ctx, guest.Cmd{Argv: []string{after.program("fairway-agent"), "records", "downgrade"}})
	if err != nil || out.status != 0 {
		u.t.Fatalf("downgrade: %v, status %d: %s%s", err, out.status, out.stdout, out.stderr)
	}
	if want := "records rewritten: 1\n"; out.stdout != want {
		u.t.Errorf("downgrade says %q, want %q", out.stdout, want)
	}
	u.goOn("no agent, records of the old release")
	n.startRelease(before)
	n.spooled(u.t)
	for _, r := range n.records() {
		if r.Held() && slices.Contains([]string{"a3", "a4", "a5"}, r.PodName) {
			u.t.Errorf("%s is held by %s, which is gone", r.Addr, r.PodName)
		}
	}
}

// writeNewest gives a pod's record what only the newest version can say. An agent
// writes the lowest version that does, and has had no cause for the newest here.
func (u *upgrade) writeNewest(pod string) {
	u.t.Helper()
	s, err := store.Open(u.node.file("run/fairway/addresses"))
	if err != nil {
		u.t.Fatal(err)
	}
	defer s.Close()
	records, err := s.All()
	if err != nil {
		u.t.Fatal(err)
	}
	i := slices.IndexFunc(records, func(r store.Record) bool { return r.PodName == pod && r.Held() })
	if i < 0 {
		u.t.Fatalf("no record of %s", pod)
	}
	r := records[i]
	r.Network = "fairway"
	if err := s.Put(r); err != nil {
		u.t.Fatal(err)
	}
	if again, err := s.All(); err != nil || !slices.ContainsFunc(again, func(r store.Record) bool { return r.Version == store.Version }) {
		u.t.Fatalf("no record of version %d was written: %v", store.Version, err)
	}
}

// end asserts that nothing was lost.
func (u *upgrade) end() {
	u.t.Helper()
	for _, p := range u.pulses {
		p.lostNone(u.t)
		u.t.Logf("%s: %d packets, none lost", p.what, p.sent.Load())
	}
	allEnd(u.t, u.streams)
}
