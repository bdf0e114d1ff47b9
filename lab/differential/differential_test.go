package differential

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/edge/tracepoint"
	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/lab/pathworld"
	"github.com/fairway-cni/fairway/test/upstream"
)

var (
	packets   = flag.Int("probes", 100, "how many packets to send")
	firstSeed = flag.Uint64("seed", 1, "seed of the first world; the others have the next ones")
	abreast   = flag.Int("abreast", 4, "worlds at a time")
)

// perWorld is how many packets a world is good for: making it takes longer than
// sending them.
const perWorld = 50

func TestMain(m *testing.M) {
	guest.MaybeInit()
	flag.Parse()
	os.Exit(runTests(m))
}

// runTests has nft, or the worlds have no nftables rules.
func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fairway-differential-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = errors.Join(upstream.Netfilter(dir, "nft"), os.Setenv("PATH", dir+":"+os.Getenv("PATH")))
	}
	if err != nil && !errors.Is(err, upstream.ErrNone) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// tally is what came of all packets.
type tally struct {
	mu            sync.Mutex
	sent          int
	disagreements int
	cannotTell    map[string]int
	verdicts      map[string]int
}

// TestDifferential sends random packets through random worlds, and compares.
func TestDifferential(t *testing.T) {
	if err := errors.Join(guest.Check(), fabric.Probe()); errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	if !haveNft() {
		t.Log("the program nft does not run: the worlds have no nftables rules")
	}
	watch, err := tracepoint.WatchDrops()
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	all := &tally{cannotTell: map[string]int{}, verdicts: map[string]int{}}
	slots := make(chan struct{}, *abreast)
	var wg sync.WaitGroup
	for left, seed := *packets, *firstSeed; left > 0; left, seed = left-perWorld, seed+1 {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			runWorld(t, watch, seed, min(left, perWorld), all)
		})
	}
	wg.Wait()
	if lost, err := watch.Lost(); lost > 0 || err != nil {
		t.Errorf("%d drops were not heard: %v", lost, err)
	}
	blind := 0
	for _, text := range slices.Sorted(maps.Keys(all.cannotTell)) {
		blind += all.cannotTell[text]
		t.Logf("cannot tell %d: %s", all.cannotTell[text], text)
	}
	for _, v := range slices.Sorted(maps.Keys(all.verdicts)) {
		t.Logf("%5d %s", all.verdicts[v], v)
	}
	fmt.Printf("differential: probes=%d disagreements=%d cannot_tell=%.1f%%\n", all.sent, all.disagreements, 100*float64(blind)/float64(max(all.sent, 1)))
}

// runWorld sends n packets through the world of a seed.
func runWorld(t *testing.T, watch *tracepoint.Watch, seed uint64, n int, all *tally) {
	ctx, cancel := context.WithTimeout(t.Context(), buildTime)
	defer cancel()
	s, err := build(ctx, seed)
	if err != nil {
		t.Errorf("seed %d: %v", seed, errors.Join(err, s.close()))
		return
	}
	g, err := open(s, watch)
	defer func() {
		if err := g.close(); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}()
	if err != nil {
		t.Errorf("seed %d: %v", seed, err)
		return
	}
	g.snap = s.lab.Cloud().Snapshot()
	var hosts []pathworld.Host
	for _, h := range s.hosts {
		hosts = append(hosts, h.Host)
	}
	w, err := pathworld.Read(fmt.Sprintf("seed-%d", seed), g.snap, hosts)
	if err != nil {
		t.Errorf("seed %d: %v\n%s", seed, err, s.story())
		return
	}
	told := false
	tracer := path.NewTracer(w)
	for i := range n {
		shot := g.aim()
		a, err := tracer.Trace(path.Probe{From: shot.from.from, To: shot.to.String(), Proto: shot.proto, Port: shot.port, Size: shot.size})
		if err != nil {
			t.Errorf("seed %d: %s: %v", seed, shot, err)
			return
		}
		o, err := g.send(shot)
		if err != nil {
			t.Errorf("seed %d packet %d: %v", seed, i, err)
			return
		}
		why := g.judge(a, o)
		if all.add(a, o, why) {
			text := ""
			if !told {
				text, told = s.story(), true
			}
			t.Errorf("seed %d packet %d: %s\n  %s\n%s%s", seed, i, shot, why, hops(a), text)
		}
	}
}

// add counts a packet, and says whether there is a disagreement.
func (a *tally) add(told *path.Answer, o outcome, why string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent++
	if told.Verdict == path.Unsure {
		for i := range told.Hops {
			if h := &told.Hops[i]; h.Verdict == path.Blind {
				words, _, _ := strings.Cut(h.Matched, " (")
				a.cannotTell[string(h.Code)+" "+words]++
				break
			}
		}
		return false
	}
	a.verdicts[verdictOf(told)]++
	if told.Failing > 0 && told.Failing < told.Outcomes {
		return false // chance decides, and either may be
	}
	if why != "" {
		a.disagreements++
		return true
	}
	return false
}

func verdictOf(a *path.Answer) string {
	if h := firstDrop(a, false); h != nil {
		return "packet " + string(h.Code)
	}
	if h := firstDrop(a, true); h != nil {
		return "reply " + string(h.Code)
	}
	return "delivered"
}

func hops(a *path.Answer) string {
	var b strings.Builder
	for i := range a.Hops {
		h := &a.Hops[i]
		way := ">"
		if h.Reply {
			way = "<"
		}
		fmt.Fprintf(&b, "  %s %-22s %-8s %-18s %s: %s\n", way, h.Where, h.Verdict, h.Code, h.Matched, h.Result)
	}
	return b.String()
}

// aim chooses a packet.
func (g *stage) aim() shot {
	d := g.d
	s := shot{from: one(d, g.places...), proto: one(d, path.TCP, path.TCP, path.UDP, path.ICMP), size: path.SYN}
	s.to = one(d, g.addresses()...)
	switch s.proto {
	case path.TCP:
		s.port = one(d, 80, 80, 80, 8080, deafTCP)
	case path.UDP:
		s.port = one(d, 53, 53, 53, deafUDP)
		s.size = one(d, 60, 60, 60, 1400, 1450, 1600, 8400, 8600, 9001)
	}
	if s.from.name == "internet" && s.to.IsPrivate() && (!d.in(4) || g.hasPublic(s.to)) {
		// A private address means its public one to the explainer.
		s.to = one(d, g.public()...)
	}
	if !s.to.IsPrivate() && s.proto == path.TCP && s.port == deafTCP {
		s.port = 80 // on the internet all listen, one supposes
	}
	if !s.to.IsPrivate() && s.proto == path.UDP {
		s.port = 53
	}
	return s
}

func (g *stage) hasPublic(a netip.Addr) bool {
	for _, e := range g.snap.Interfaces {
		if e.Primary == a && e.AutoPublic.IsValid() {
			return true
		}
	}
	return slices.ContainsFunc(g.snap.Addresses, func(e ec2sim.Address) bool { return e.PrivateIP == a })
}

// addresses are those that packets are sent to: of pods twice, of all ENIs,
// public ones, and some that nobody has.
func (g *stage) addresses() []netip.Addr {
	var out []netip.Addr
	for _, h := range g.hosts {
		for _, p := range h.Pods {
			out = append(out, p.Addr, p.Addr, p.Addr)
		}
		out = append(out, h.in.PrivateIP, h.in.PrivateIP)
	}
	for _, e := range g.snap.Interfaces {
		out = append(out, e.Primary)
		out = append(out, e.Secondary[:min(1, len(e.Secondary))]...)
	}
	for _, n := range g.snap.NATGateways {
		if n.PrivateIP.IsValid() {
			out = append(out, n.PrivateIP)
		}
	}
	for _, a := range []string{knownHost, knownHost, knownHost, otherHost, "10.0.1.250", "10.1.9.9", "192.168.3.4", "192.168.7.7", "10.200.0.1"} {
		out = append(out, netip.MustParseAddr(a))
	}
	return append(out, g.public()...)
}

// public are the public addresses of instances and NAT gateways, and one of a host
// out there.
func (g *stage) public() []netip.Addr {
	out := []netip.Addr{netip.MustParseAddr(otherHost)}
	for _, e := range g.snap.Interfaces {
		if e.AutoPublic.IsValid() {
			out = append(out, e.AutoPublic)
		}
	}
	for _, a := range g.snap.Addresses {
		if a.AssociationID != "" { // one that nobody has may be anybody's, to the explainer
			out = append(out, a.PublicIP)
		}
	}
	return out
}
