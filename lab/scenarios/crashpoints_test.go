package scenarios

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/store"
	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/guest"
)

// crashOp is something that a node's agent is killed in the middle of. Its ENIs
// hold three pods each, and it keeps two addresses at least.
type crashOp struct {
	name    string
	pods    int    // on the node before
	command string // ADD of one more, or DEL of the last
	calls   []string
	writes  int // durable system calls; the run without a crash counts them too
}

// A record is made by six: what is left of a temporary file is removed, which
// package os tries as a file and as a directory; its content synced; it is linked
// and its first name removed; the directory synced. One is replaced, or the journal
// written, by five; one is removed by two.
var crashOps = []crashOp{
	// Those that give back come first, as after a crash they wait until EC2's
	// reads can be trusted again.
	{"DEL that gives an address back", 3, "DEL", []string{"UnassignPrivateIpAddresses"}, 12},
	{"DEL that gives an ENI back", 4, "DEL", []string{"DetachNetworkInterface", "DeleteNetworkInterface"}, 12},
	{"ADD that needs an ENI", 3, "ADD", []string{"CreateNetworkInterface", "AttachNetworkInterface", "ModifyNetworkInterfaceAttribute"}, 6},
	{"ADD that needs an address", 2, "ADD", []string{"AssignPrivateIpAddresses"}, 6},
	{"DEL", 2, "DEL", nil, 7},
	{"ADD", 1, "ADD", nil, 6},
}

// after is how many pods there are in the end.
func (o crashOp) after() int {
	if o.command == "ADD" {
		return o.pods + 1
	}
	return o.pods - 1
}

// pod is the one that the call is about.
func (o crashOp) pod() int { return max(o.pods, o.after()) - 1 }

// crashPoint is a moment in an operation.
type crashPoint struct {
	crashOp
	write  int // the agent dies with its nth durable system call
	call   int // or around its nth change of EC2
	moment ec2Moment
}

func (p crashPoint) String() string {
	switch {
	case p.write > 0:
		return fmt.Sprintf("%s, killed at durable call %d", p.name, p.write)
	case p.call > 0:
		return fmt.Sprintf("%s, killed %s %s", p.name, p.moment, p.calls[p.call-1])
	}
	return p.name + ", not killed"
}

// points are all moments of an operation, those first that take longest to mend:
// what is written last is the journal of what is given back.
func (o crashOp) points() []crashPoint {
	points := []crashPoint{{crashOp: o}}
	for i := range o.calls {
		points = append(points, crashPoint{crashOp: o, call: i + 1, moment: beforeCall}, crashPoint{crashOp: o, call: i + 1, moment: afterCall})
	}
	for i := range o.writes {
		points = append(points, crashPoint{crashOp: o, write: o.writes - i})
	}
	return points
}

func (p crashPoint) kills() bool { return p.write+p.call > 0 }

// atRest is how long nothing may change before a node counts as settled. It is
// longer than the longest wait before the agents here give something back: twice
// their --return-after.
const atRest = 2500 * time.Millisecond

// crashPatience bounds the wait for a node to settle: an agent that finds its
// sources at odds waits for both to be read again, 30 s after a call that is in doubt.
const crashPatience = 5 * time.Minute

// TestCrashPoints kills the real agent process at each durable write and around each
// EC2 call of each operation, starts it again, has the runtime repeat a call that
// was not answered, and compares what there is in the end with what there is where
// nobody was killed. Each point has a node of its own.
func TestCrashPoints(t *testing.T) {
	t.Parallel()
	var yaml strings.Builder
	yaml.WriteString(`
ec2: {attach: 200ms, seed: 6}
vpcs:
  - {name: main, cidr: 10.0.0.0/16, subnets: [{name: a, cidr: 10.0.0.0/20}]}
instances:
`)
	var points []crashPoint
	for _, o := range crashOps {
		points = append(points, o.points()...)
	}
	for i := range points {
		fmt.Fprintf(&yaml, "  - {name: n%d, type: t3.small, subnet: a}\n", i)
	}
	l := startLab(t, yaml.String())
	c := &crashTest{lab: l, blade: newGuillotine(t), busy: make(chan struct{}, 4), wants: map[string]*wanted{}}
	for _, o := range crashOps {
		c.wants[o.name] = &wanted{known: make(chan struct{})}
	}
	var all sync.WaitGroup
	for i, p := range points {
		n := c.ready(t, l.nodes[fmt.Sprintf("n%d", i)])
		c.busy <- struct{}{} // in this order
		all.Go(func() { c.point(t, n, p) })
	}
	all.Wait()
	t.Logf("%d operations, killed at %d points", len(crashOps), len(points)-len(crashOps))
}

// crashTest is what the nodes of the test share.
type crashTest struct {
	lab   *lab
	blade *guillotine
	busy  chan struct{} // few nodes do anything at a time; the others wait to settle
	wants map[string]*wanted
}

// wanted is what there is in the end of an operation where nobody is killed.
type wanted struct {
	state string
	known chan struct{} // closed when it is
}

// point does the operation once.
func (c *crashTest) point(t *testing.T, n *crashNode, p crashPoint) {
	began, want := time.Now(), c.wants[p.name]
	if !p.kills() {
		defer close(want.known)
	}
	err := c.run(t.Context(), n, p)
	if err == nil && !p.kills() {
		// Not before all is done that the table says: what is given back is given back late.
		want.state, err = c.settle(t.Context(), n, atRest, func(string) bool { return len(n.wire.seen()) >= len(p.calls) })
	}
	if err == nil && !p.kills() {
		err = n.counted(c.blade, p)
	}
	if err != nil {
		t.Errorf("%s: %v", p, err)
		return
	}
	if !p.kills() {
		t.Logf("%s: in the end:\n%s", p, want.state)
		return
	}
	<-want.known
	end, err := c.settle(t.Context(), n, atRest, func(state string) bool { return state == want.state })
	if err != nil {
		t.Errorf("%s: %v; there is (-without the crash +with it):\n%s", p, err, cmp.Diff(strings.Split(want.state, "\n"), strings.Split(end, "\n")))
	}
	t.Logf("%s: %s", p, time.Since(began).Round(time.Millisecond))
}

// crashNode is a node and the means to kill its agent.
type crashNode struct {
	*node
	id     string
	cgroup uint64
	wire   *ec2Wire
	url    string // of EC2, for the agent
}

func (c *crashTest) ready(t *testing.T, n *node) *crashNode {
	t.Helper()
	in, err := c.lab.status().Find(n.name)
	if err != nil {
		t.Fatal(err)
	}
	cgroup, err := cgroupOf(c.lab.name, in.ID)
	if err != nil {
		t.Fatal(err)
	}
	w, url := newWire(t, n, c.lab.Cloud())
	return &crashNode{node: n, id: in.ID, cgroup: cgroup, wire: w, url: url}
}

// run brings a node into the state before the operation, begins it, waits for the
// agent to die where that is asked for, and starts it again. The caller has taken
// one of the busy places, which is given back.
func (c *crashTest) run(ctx context.Context, n *crashNode, p crashPoint) error {
	idle := sync.OnceFunc(func() { <-c.busy })
	defer idle()
	if err := c.begin(ctx, n, p.pods); err != nil {
		return fmt.Errorf("before it: %w", err)
	}
	n.wire.arm(p.call, p.moment)
	if err := c.blade.arm(n.cgroup, p.write); err != nil {
		return err
	}
	answered := make(chan error, 1)
	go func() { answered <- n.cni(ctx, p.command, p.pod()) }()
	if p.kills() {
		idle() // what is given back is not given back at once
		if err := n.dies(ctx); err != nil {
			return err
		}
		if err := errors.Join(n.ageJournal(), n.startOn(ctx)); err != nil {
			return err
		}
	}
	for err := <-answered; err != nil; err = n.cni(ctx, p.command, p.pod()) {
		if !errors.Is(err, errUnanswered) || !p.kills() {
			return err
		}
	}
	return nil
}

// counted compares what was seen of an operation with the table.
func (n *crashNode) counted(blade *guillotine, p crashPoint) error {
	writes, err := blade.seen(n.cgroup)
	if err != nil {
		return err
	}
	if calls := n.wire.seen(); !slices.Equal(calls, p.calls) || writes != p.writes {
		return fmt.Errorf("%d durable calls and EC2's %v, where the table says %d and %v: correct it", writes, calls, p.writes, p.calls)
	}
	return nil
}

// begin starts the agent and makes the first pods, one at a time and on an agent
// that has nothing on its way, so that what is where is the same on all nodes.
func (c *crashTest) begin(ctx context.Context, n *crashNode, pods int) error {
	script := `mkdir -p /run/netns
for i in 0 1 2 3; do touch /run/netns/p$i; unshare --net mount --bind /proc/self/ns/net /run/netns/p$i || exit 1; done`
	a, err := n.try(ctx, guest.Cmd{Argv: []string{"sh", "-c", script}})
	if err == nil && a.status != 0 {
		err = fmt.Errorf("make namespaces: %s", a.stderr)
	}
	if err != nil {
		return err
	}
	if err := n.startOn(ctx); err != nil {
		return err
	}
	for i := range pods {
		if _, err := c.settle(ctx, n, 0, complete(i)); err != nil {
			return err
		}
		if err := n.cni(ctx, "ADD", i); err != nil {
			return err
		}
	}
	if pods > 3 {
		// The next agent knows by EC2's word that the second ENI is attached, for
		// which this one would wait: only then it can be detached.
		if _, err := c.settle(ctx, n, 0, complete(pods)); err != nil {
			return err
		}
		if err := errors.Join(n.endAgent(ctx), n.startOn(ctx)); err != nil {
			return err
		}
	}
	_, err = c.settle(ctx, n, 0, complete(pods))
	return err
}

// complete says of a state that a node with so many pods has all that it wants: two
// addresses at least, and ENIs that are as they should be. An agent that has nothing on
// its way may be about to ask for it.
func complete(pods int) func(state string) bool {
	pool := fmt.Sprintf("pool: %d free, %d assigned,", max(2-pods, 0), pods)
	return func(state string) bool {
		return strings.Contains(state, pool) && !strings.Contains(state, "ends with its instance: false") && !strings.Contains(state, "the kernel lacks")
	}
}

// startOn starts the agent and waits until it listens; EC2 is behind the wire.
func (n *crashNode) startOn(ctx context.Context) error {
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	env := slices.DeleteFunc(n.env(), func(v string) bool { return strings.HasPrefix(v, "AWS_ENDPOINT_URL_EC2=") })
	_, err = n.StartDaemon(ctx, guest.Daemon{Name: "agent", Dir: "/", Log: log, Caps: []uintptr{unix.CAP_NET_ADMIN},
		Env: append(env, "AWS_ENDPOINT_URL_EC2="+n.url), Argv: []string{"fairway-agent", "--warm-ip-target=0", "--minimum-ip-target=2",
			"--cool-down=0s", "--return-after=1s", "--vpc-poll=1h", "--metrics-address=", "--introspection-address="}})
	return err
}

// dies waits for the agent to be killed.
func (n *crashNode) dies(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := n.WaitDaemon(ctx, "agent")
	if err != nil {
		return fmt.Errorf("the agent was not killed: the point was not reached: %w", err)
	}
	if s.Signal != unix.SIGKILL {
		return fmt.Errorf("the agent ended by itself: %s", s)
	}
	return nil
}

// away is how long an agent was dead as far as its journal can tell. What was being
// given back is left alone for 30 s: most of them are over when the next one starts.
const away = 25 * time.Second

// ageJournal makes the journal of what is being given back older, if there is one.
func (n *crashNode) ageJournal() error {
	file := n.file("run/fairway/addresses/leaving")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var journal struct {
		Version int             `json:"version"`
		Leaving []store.Leaving `json:"leaving"`
	}
	if err == nil {
		err = json.Unmarshal(text, &journal)
	}
	if err != nil {
		return err
	}
	for i := range journal.Leaving {
		journal.Leaving[i].Since = journal.Leaving[i].Since.Add(-away)
	}
	if text, err = json.Marshal(journal); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// errUnanswered says that a runtime would repeat its call.
var errUnanswered = errors.New("try again later")

// cni runs the plugin as a runtime does, whose pods have a namespace each.
func (n *crashNode) cni(ctx context.Context, command string, pod int) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = w.WriteString(conf10) // less than a pipe holds
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	id := fmt.Sprintf("p%d", pod)
	a, err := n.try(ctx, guest.Cmd{Argv: []string{program("fairway-cni")}, Stdin: r, Env: n.env("CNI_COMMAND="+command,
		"CNI_CONTAINERID="+id, "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/"+id, "CNI_PATH="+programs,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME="+id)})
	if err != nil || a.status == 0 {
		return err
	}
	var e cniError
	if err := json.Unmarshal([]byte(a.stdout), &e); err != nil {
		return fmt.Errorf("%s of %s: status %d, %q", command, id, a.status, a.stdout)
	}
	err = fmt.Errorf("%s of %s: %+v", command, id, e)
	const tryAgain = 11 // CNI specification, section 5, "Error"
	if e.Code == tryAgain {
		err = fmt.Errorf("%w: %w", errUnanswered, err)
	}
	return err
}

// settle waits until a node has been at rest for a while in a state that is right,
// and gives it.
func (c *crashTest) settle(ctx context.Context, n *crashNode, rest time.Duration, right func(string) bool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, crashPatience)
	defer cancel()
	// A look costs the agent a comparison with its kernel, so that there are few
	// once there is nothing more to wait for than time.
	const often, seldom = 20 * time.Millisecond, 500 * time.Millisecond
	last, since, pause := "", time.Now(), often
	for {
		state, err := c.look(ctx, n)
		if err != nil || state != last {
			last, since = state, time.Now()
		}
		if err == nil && time.Since(since) >= rest && right(state) {
			return state, nil
		}
		pause = min(pause*3/2, seldom)
		select {
		case <-ctx.Done():
			return last, errors.Join(fmt.Errorf("not settled within %s", crashPatience), err)
		case <-time.After(pause):
		}
	}
}

// look is what there is of a node, in EC2, in the records, in the kernel and in the
// pods, without the names of addresses and ENIs. It is an error while something is
// on its way, or contradicts something else.
func (c *crashTest) look(ctx context.Context, n *crashNode) (string, error) {
	agent := agentapi.NewClient(n.file("run/fairway/agent.sock"))
	status, err := agent.Status(ctx)
	if err != nil {
		return "", err
	}
	pool := status.Pool
	if status.EC2.ListedAt.IsZero() || len(status.InFlight)+len(status.Waiting)+pool.Leaving+pool.Disputed > 0 {
		return "", fmt.Errorf("under way: %d calls, %d ADDs, %d addresses; listed at %s", len(status.InFlight), len(status.Waiting),
			pool.Leaving+pool.Disputed, status.EC2.ListedAt)
	}
	plan, err := agent.Plan(ctx)
	if err != nil {
		return "", err
	}
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, change := range plan.Changes {
		say("the kernel lacks: %s", change.Text)
	}
	say("pool: %d free, %d assigned, %d cooling, %d reserved, %d orphaned", pool.Free, pool.Assigned, pool.Cooling, pool.Reserved, pool.Orphaned)
	for _, p := range status.Problems {
		say("problem: %v", p)
	}
	owns := c.owned(n, say)
	if slices.ContainsFunc(lines, func(l string) bool { return strings.HasSuffix(l, "tagged: false") }) {
		return "", fmt.Errorf("an ENI has no tag yet: %q", lines)
	}
	if err := n.held(owns, say); err != nil {
		return "", err
	}
	files, err := filepath.Glob(n.file("run/fairway/spool/*"))
	if err != nil {
		return "", err
	}
	say("spool: %d files", len(files))
	return strings.Join(lines, "\n"), nil
}

// owned says what ENIs EC2 has for a node, attached and left over, and gives their
// addresses for pods.
func (c *crashTest) owned(n *crashNode, say func(string, ...any)) map[netip.Addr]bool {
	owns := map[netip.Addr]bool{}
	var attached []ec2sim.NetworkInterface
	for _, e := range c.lab.Cloud().Snapshot().Interfaces {
		switch {
		case e.Attachment != nil && e.Attachment.InstanceID == n.id:
			attached = append(attached, e)
		case e.Attachment == nil && e.Tags[ec2.TagInstance] == n.id:
			say("left over: an ENI with %d addresses", len(e.Secondary))
		}
	}
	slices.SortFunc(attached, func(a, b ec2sim.NetworkInterface) int { return a.Attachment.DeviceIndex - b.Attachment.DeviceIndex })
	for _, e := range attached {
		tagged := e.Tags[ec2.TagInstance] == n.id
		say("ENI %d: %d addresses, %s, ends with its instance: %t, tagged: %t", e.Attachment.DeviceIndex, len(e.Secondary),
			e.Attachment.Status, e.Attachment.DeleteOnTermination, tagged)
		for _, a := range e.Secondary {
			owns[a] = true
		}
	}
	return owns
}

// held says who has an address by the records, and compares: the pod has it too,
// and the node's ENIs do, and nobody else.
func (n *crashNode) held(owns map[netip.Addr]bool, say func(string, ...any)) error {
	files, err := filepath.Glob(n.file("run/fairway/addresses/*.*.*.*"))
	if err != nil {
		return err
	}
	has := map[string]netip.Addr{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err // gone meanwhile
		}
		var r store.Record
		if err := json.Unmarshal(text, &r); err != nil {
			return err
		}
		switch {
		case !r.Held():
			say("a record of a release")
		case has[r.ContainerID].IsValid():
			say("%s holds two addresses", r.ContainerID)
		case !owns[r.Addr]:
			say("%s holds an address of no ENI", r.ContainerID)
		}
		if r.Held() {
			has[r.ContainerID] = r.Addr
		}
	}
	for i := range 4 {
		id := fmt.Sprintf("p%d", i)
		addrs, err := n.addressesOf(id)
		if err != nil {
			return err
		}
		switch record, held := has[id]; {
		case len(addrs) == 0 && !held:
		case len(addrs) == 1 && held && addrs[0] == record:
			say("%s has the address of its record", id)
		default:
			say("%s has %v, and its record says %v", id, addrs, record)
		}
	}
	return nil
}

// addressesOf are those of the pod's interface.
func (n *crashNode) addressesOf(pod string) (addrs []netip.Addr, err error) {
	ns, err := os.Open(n.file("run/netns/" + pod))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = netns.Do(ns, func() error {
		eth0, err := netlink.LinkByName("eth0")
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			return nil
		}
		if err != nil {
			return err
		}
		list, err := netlink.AddrList(eth0, netlink.FAMILY_V4)
		for _, a := range list {
			addr, _ := netip.AddrFromSlice(a.IP.To4())
			addrs = append(addrs, addr)
		}
		return err
	})
	return addrs, err
}
