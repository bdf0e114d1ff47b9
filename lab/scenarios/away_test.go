package scenarios

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/guest"
)

// spool lists the plugin's spool on the node.
func (n *node) spool() []string {
	n.t.Helper()
	files, err := filepath.Glob(n.file("run/fairway/spool/*.json"))
	if err != nil {
		n.t.Fatal(err)
	}
	return files
}

// spooled waits until the agent has carried out what the plugin left for it.
func (n *node) spooled(t *testing.T) {
	t.Helper()
	eventually(t, "the spool is empty", func() error {
		if files := n.spool(); len(files) != 0 {
			return fmt.Errorf("it has %q", files)
		}
		return nil
	})
}

// TestAgentAway: without an agent a DEL succeeds and is not forgotten, and an
// ADD is told to come again. The node has two addresses and both are held, so
// the first ADD afterwards can succeed only if the release came before it.
func TestAgentAway(t *testing.T) {
	l := startLab(t, oneNode("t3.nano"))
	n := l.nodes["node-a"]
	flags := []string{"--cool-down=0s"}
	n.startAgent(flags...)
	n.readyAgent()
	pods := n.addPods("one", "two")
	n.killAgent()

	start := time.Now()
	n.delPods("one")
	t.Logf("DEL without an agent took %v", time.Since(start))
	files := n.spool()
	if len(files) != 1 {
		t.Fatalf("spool has %q, want one entry", files)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var entry struct {
		ContainerID, IfName string
	}
	if err := json.Unmarshal(text, &entry); err != nil || entry.ContainerID != pods[0].ID || entry.IfName != "eth0" {
		t.Errorf("spool entry %s: %v: want container %s", text, err, pods[0].ID)
	}
	for _, r := range n.records() {
		if !r.Held() {
			t.Errorf("%s is released, and nobody can have done it", r.Addr)
		}
	}

	e := n.failed(call{command: "ADD", container: "other", ifName: "eth0", netns: n.emptyNetns("other"), stdin: conf10})
	if e.Code != cniapi.CodeTryAgainLater {
		t.Errorf("ADD without an agent: %+v, want code %d", e, cniapi.CodeTryAgainLater)
	}
	if a := n.plugin(call{command: "STATUS"}); a.status != 0 {
		t.Errorf("STATUS of a node that was ready fails without an agent, and its pods are sent elsewhere: %+v", a)
	}

	n.startAgent(flags...)
	next := n.addPods("next") // the plugin waits for the agent
	if podAddr(next[0]) != podAddr(pods[0]) {
		t.Errorf("next has %s, want the address of the deleted pod, %s", podAddr(next[0]), podAddr(pods[0]))
	}
	n.spooled(t)
	n.consistent(t)
	l.allReach(t)
}

// emptyNetns mounts a new network namespace in the instance, as a runtime does,
// and gives its path there.
func (n *node) emptyNetns(name string) string {
	n.t.Helper()
	path := "/run/netns/" + name
	script := `mkdir -p /run/netns && touch "$1" && unshare --net sh -c 'mount --bind /proc/self/ns/net "$1"' sh "$1"`
	if a := n.run(guest.Cmd{Argv: []string{"sh", "-c", script, "sh", path}}); a.status != 0 {
		n.t.Fatalf("make %s: status %d: %s", path, a.status, a.stderr)
	}
	return path
}

// TestCoolDown: an address rests for the whole cool-down, also when the agent is
// killed in between. The node has two addresses, so the next pod has to wait.
func TestCoolDown(t *testing.T) {
	l := startLab(t, oneNode("t3.nano"))
	n := l.nodes["node-a"]
	const long = "--cool-down=1h" // longer than it takes to ask for the address again
	n.startAgent(long)
	n.readyAgent()
	pods := n.addPods("one", "two")
	n.killAgent()
	n.startAgent(long, "--add-wait=0s")
	n.readyAgent()

	n.delPods("one")
	_, err := n.runtime(t.Context(), "add", "--", "early")
	if err == nil {
		t.Fatal("an address that has just been released was given again")
	}
	if word := missingWord(err.Error(), []string{"no free address", "1 cooling down", "the next is free in"}); word != "" {
		t.Errorf("the refusal does not say %q: %v", word, err)
	}

	var released time.Time
	for _, r := range n.records() {
		if r.Addr == podAddr(pods[0]) {
			released = r.ReleasedAt
		}
	}
	if released.IsZero() {
		t.Fatalf("no record of the release of %s", podAddr(pods[0]))
	}
	n.killAgent()
	coolDown := time.Since(released).Truncate(time.Second) + 4*time.Second // most of which is still to come
	n.startAgent("--cool-down="+coolDown.String(), "--add-wait="+patience.String())
	next := n.addPods("next") // waits for the address
	if rested := time.Since(released); rested < coolDown {
		t.Errorf("%s was given again after %v, want at least %v", podAddr(next[0]), rested, coolDown)
	}
	if podAddr(next[0]) != podAddr(pods[0]) {
		t.Errorf("next has %s, want %s", podAddr(next[0]), podAddr(pods[0]))
	}
}

// TestDriftAtRestart takes away what the agent wrote; the next agent writes it
// again, and what others wrote is left alone.
func TestDriftAtRestart(t *testing.T) {
	l := startLab(t, twoNodes)
	n, far := l.nodes["node-a"], l.nodes["node-b"]
	n.startAgent()
	far.startAgent()
	n.addPods("a1", "a2")
	far.addPods("b1")
	n.settled(t)
	ns := n.netns()
	foreign := &netlink.Route{Dst: ipNet("192.0.2.0/24"), Table: 77, Protocol: 99, Type: 7} // unreachable
	if err := netns.Do(ns, func() error { return netlink.RouteAdd(foreign) }); err != nil {
		t.Fatal(err)
	}
	before, err := kernelState(ns)
	if err != nil {
		t.Fatal(err)
	}
	n.killAgent()
	if err := netns.Do(ns, vandalize); err != nil {
		t.Fatal(err)
	}
	broken, err := kernelState(ns)
	if err != nil {
		t.Fatal(err)
	}
	if len(difference(before, broken)) < 5 {
		t.Fatalf("too little is broken for a test:\n%s", joined(difference(before, broken)))
	}
	n.startAgent()
	n.readyAgent()
	n.repaired("the start")
	after, err := kernelState(ns)
	if err != nil {
		t.Fatal(err)
	}
	if d := difference(before, after); d != nil {
		t.Errorf("the agent did not restore the kernel:\n%s", joined(d))
	}
	l.allReach(t)
}

// vandalize removes the rules, the routes of pods and the nftables table of
// ours, and adds a route that only looks like ours.
func vandalize() error {
	rules, err := netlink.RuleList(netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range rules {
		if r.Priority == 20 || r.Priority == 110 {
			errs = append(errs, netlink.RuleDel(&r))
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: 100}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return err
	}
	for _, r := range routes {
		errs = append(errs, netlink.RouteDel(&r))
	}
	stale := &netlink.Route{Dst: ipNet("10.0.1.200/32"), Table: 100, Protocol: 87, Type: 7, Priority: 4096}
	errs = append(errs, netlink.RouteAdd(stale), deleteFilter("fairway"))
	return errors.Join(errs...)
}
