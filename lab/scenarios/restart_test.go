package scenarios

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/probe"
)

// talk is a TCP connection between two pods on which numbers go there and back
// for as long as it lives.
type talk struct {
	what   string
	rounds atomic.Int64 // answered so far
	end    func() error // ends it and says whether it broke before
}

// startTalk connects from one pod to another. Each number must come back as it
// was sent, so a byte that is lost, doubled or another's breaks the talk.
func startTalk(t *testing.T, from, to *os.File, addr netip.Addr, what string) *talk {
	t.Helper()
	var ln net.Listener
	err := netns.Do(to, func() (err error) {
		ln, err = net.Listen("tcp4", netip.AddrPortFrom(addr, 9000).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.Copy(conn, conn)
	}()
	var conn net.Conn
	err = netns.Do(from, func() (err error) {
		conn, err = net.DialTimeout("tcp4", ln.Addr().String(), patience)
		return err
	})
	if err != nil {
		ln.Close()
		t.Fatalf("%s: %v", what, err)
	}
	k := &talk{what: what}
	var stopped atomic.Bool
	result := make(chan error, 1)
	go func() { result <- k.run(conn, &stopped) }()
	k.end = sync.OnceValue(func() error {
		stopped.Store(true)
		err := <-result
		conn.Close()
		ln.Close()
		return err
	})
	t.Cleanup(func() { k.end() })
	return k
}

func (k *talk) run(conn net.Conn, stopped *atomic.Bool) error {
	for !stopped.Load() {
		if err := k.round(conn); err != nil {
			return err
		}
	}
	return nil
}

// round sends the next number and waits until it is back.
func (k *talk) round(conn net.Conn) error {
	var out, in [8]byte
	binary.BigEndian.PutUint64(out[:], uint64(k.rounds.Load()))
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(out[:]); err != nil {
		return fmt.Errorf("%s: after %d rounds: %w", k.what, k.rounds.Load(), err)
	}
	if _, err := io.ReadFull(conn, in[:]); err != nil {
		return fmt.Errorf("%s: after %d rounds: %w", k.what, k.rounds.Load(), err)
	}
	if in != out {
		return fmt.Errorf("%s: sent %x, got %x back", k.what, out, in)
	}
	k.rounds.Add(1)
	return nil
}

// goesOn waits until the talk has got further than it is now.
func (k *talk) goesOn(t *testing.T) {
	t.Helper()
	const rounds = 20
	from := k.rounds.Load()
	eventually(t, k.what+" goes on", func() error {
		if n := k.rounds.Load(); n < from+rounds {
			return fmt.Errorf("%d rounds, want %d", n, from+rounds)
		}
		return nil
	})
}

// TestAgentRestart kills the agent while connections are open: nobody notices,
// and the agent that follows finds nothing to change.
func TestAgentRestart(t *testing.T) {
	l := startLab(t, twoNodes)
	a, b := l.nodes["node-a"], l.nodes["node-b"]
	a.startAgent()
	b.startAgent()
	pa := a.addPods("a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "a10", "a11") // the last ones on the second ENI
	pb := b.addPods("b1")
	far, near, last := a.podNetns(pa[0]), a.podNetns(pa[1]), a.podNetns(pa[10])
	talks := []*talk{
		startTalk(t, far, b.podNetns(pb[0]), podAddr(pb[0]), "talk of pods on two nodes"),
		startTalk(t, b.podNetns(pb[0]), near, podAddr(pa[1]), "talk of pods on two nodes, from the other"),
		startTalk(t, last, far, podAddr(pa[0]), "talk of pods on one node and two ENIs"),
		startTalk(t, b.netns(), last, podAddr(pa[10]), "talk of a node and a pod"),
	}
	a.settled(t)
	ns := a.netns()
	before, err := kernelState(ns)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range talks {
		k.goesOn(t)
	}

	a.killAgent()
	for _, k := range talks {
		k.goesOn(t)
	}
	while, err := kernelState(ns)
	if err != nil {
		t.Fatal(err)
	}
	if d := difference(before, while); d != nil {
		t.Errorf("the end of the agent changed the kernel:\n%s", joined(d))
	}
	a.startAgent()
	a.readyAgent()
	for _, k := range talks {
		k.goesOn(t)
	}
	after, err := kernelState(ns)
	if err != nil {
		t.Fatal(err)
	}
	if d := difference(before, after); d != nil {
		t.Errorf("the start of the agent changed the kernel:\n%s", joined(d))
	}

	// Adding and deleting work again, for pods of the old agent too.
	a.addPods("after")
	a.delPods("a3")
	if _, err := a.runtime(t.Context(), "check", "--", "a2"); err != nil {
		t.Error(err)
	}
	for _, k := range talks {
		k.goesOn(t)
		if err := k.end(); err != nil {
			t.Error(err)
		}
	}
	l.allReach(t)
}

// settled waits until the agent has nothing on its way: the pool is warm and
// dead links are gone.
func (n *node) settled(t *testing.T) {
	t.Helper()
	ns := n.netns()
	last, since := []string(nil), time.Now()
	eventually(t, "kernel of "+n.name+" is at rest", func() error {
		if err := n.hasAll(t.Context()); err != nil {
			return err
		}
		now, err := kernelState(ns)
		if err != nil {
			return err
		}
		if d := difference(last, now); d != nil {
			last, since = now, time.Now()
		}
		// The agent's own timer is a second.
		if quiet := time.Since(since); quiet < 1200*time.Millisecond {
			return fmt.Errorf("changed %s ago", quiet)
		}
		return nil
	})
}

// hasAll says what the agent still wants, of EC2 and of the kernel.
func (n *node) hasAll(ctx context.Context) error {
	s, err := agentapi.NewClient(n.file(agentapi.DefaultSocket)).Status(ctx)
	if err != nil {
		return err
	}
	p := s.Pool
	if len(s.InFlight)+len(s.Waiting)+p.Leaving+p.Arriving+p.Disputed > 0 || p.Total < s.Wanted.Addresses {
		return fmt.Errorf("%d calls are under way, %d ADDs wait, pool %+v, wanted %+v", len(s.InFlight), len(s.Waiting), p, s.Wanted)
	}
	plan, err := n.plan(ctx)
	if err == nil && len(plan.Changes) > 0 {
		err = fmt.Errorf("the kernel lacks %s", plan.Changes[0].Text)
	}
	return err
}

func joined(lines []string) string {
	var all string
	for _, l := range lines {
		all += "\t" + l + "\n"
	}
	return all
}

// TestAgentKilledAtAnyMoment kills the agent over and over while pods come and
// go. Whatever of it succeeds must be true: no address twice, every pod works,
// nothing is held by who is not there.
func TestAgentKilledAtAnyMoment(t *testing.T) {
	l := startLab(t, twoNodes)
	a, b := l.nodes["node-a"], l.nodes["node-b"]
	flags := []string{"--cool-down=0s", "--add-wait=5s"}
	a.startAgent(flags...)
	b.startAgent()
	old := a.addPods("old1", "old2")
	far := b.addPods("far")
	k := startTalk(t, a.podNetns(old[0]), b.podNetns(far[0]), podAddr(far[0]), "talk while the agent is killed")

	const restarts = 10
	seed := [2]uint64{2, 20261121}
	random := rand.New(rand.NewPCG(seed[0], seed[1]))
	failed := 0
	for round := range restarts {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		names := make([]string, 4)
		for i := range names {
			names[i] = fmt.Sprintf("r%d-%d", round, i)
		}
		done := make(chan int, 2)
		go func() { // some of these fail, which is what the runtime undoes
			pods, _ := a.runtime(ctx, append([]string{"add", "--parallel=2", "--"}, names...)...)
			done <- len(names) - len(pods)
		}()
		var gone []string
		if round > 0 {
			gone = []string{fmt.Sprintf("r%d-%d", round-1, random.IntN(4)), fmt.Sprintf("r%d-%d", round-1, random.IntN(4))}
		}
		go func() {
			if len(gone) > 0 {
				if _, err := a.runtime(ctx, append([]string{"del", "--"}, gone...)...); err != nil {
					t.Errorf("round %d: delete %q: %v", round, gone, err)
				}
			}
			done <- 0
		}()
		<-time.After(time.Duration(random.IntN(60)) * time.Millisecond) // the random moment, no wait for anything
		a.killAgent()
		<-time.After(time.Duration(random.IntN(20)) * time.Millisecond)
		a.startAgent(flags...)
		failed += <-done + <-done
		cancel()
		a.readyAgent()
		a.spooled(t) // a DEL may have found nobody a moment before the agent listened
		a.consistent(t)
		if t.Failed() {
			t.Fatalf("in round %d of seed %v", round, seed)
		}
	}
	t.Logf("%d pods at the end, %d of %d ADDs failed", len(a.listPods()), failed, 4*restarts)
	k.goesOn(t)
	if err := k.end(); err != nil {
		t.Error(err)
	}
	l.allReach(t)

	// In the end all of it can be given back.
	var names []string
	for _, p := range a.listPods() {
		names = append(names, p.Name)
	}
	a.delPods(names...)
	eventually(t, "records are gone", func() error {
		if r := a.records(); len(r) > 0 {
			return fmt.Errorf("%d records, the first %+v", len(r), r[0])
		}
		return nil
	})
}

// consistent compares what the runtime believes with what the agent has
// recorded, both ways.
func (n *node) consistent(t *testing.T) {
	t.Helper()
	held := map[string]netip.Addr{}
	owners := map[netip.Addr]string{}
	for _, r := range n.records() {
		if r.Held() {
			held[r.ContainerID] = r.Addr
		}
	}
	for _, p := range n.listPods() {
		addr := podAddr(p)
		if other := owners[addr]; other != "" {
			t.Errorf("%s has address %s, and so has %s", p.Name, addr, other)
		}
		owners[addr] = p.Name
		if held[p.ID] != addr {
			t.Errorf("%s (ready: %t) has address %s, the agent's record says %s", p.Name, p.Ready, addr, held[p.ID])
		}
		delete(held, p.ID)
	}
	for id, addr := range held {
		t.Errorf("%s is held by container %.12s, which the runtime does not have", addr, id)
	}
}

// allReach opens TCP between all pods, and between nodes and pods.
func (l *lab) allReach(t *testing.T) {
	t.Helper()
	var ends []probe.Endpoint
	nodes := 0
	for _, n := range l.nodes {
		ends = append(ends, probe.Endpoint{Name: n.name, Addr: n.addr, NetNS: n.netns()})
		nodes++
	}
	for _, n := range l.nodes {
		for _, p := range n.listPods() {
			ends = append(ends, probe.Endpoint{Name: p.Name, Addr: podAddr(p), NetNS: n.podNetns(p)})
		}
	}
	pairs := slices.DeleteFunc(probe.AllPairs(len(ends)), func(p probe.Pair) bool { return p.From < nodes && p.To < nodes })
	r, err := probe.Run(t.Context(), ends, pairs, probe.Options{Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Failures()) > 0 {
		t.Errorf("not every flow works:\n%s", r)
	}
}
