package agent

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/symmetry"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/hostnet"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
)

// twoWays is a node in a namespace of the test's thread: two ENIs, pods on both, and
// somebody behind a peering.
func twoWays(t testing.TB) *player {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	runtime.LockOSThread() // the thread ends with the test, and its namespace
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if err := boot(); err != nil {
		t.Fatal(err)
	}
	k, err := kernel.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	log := slog.New(slog.DiscardHandler)
	p := &player{netns: map[string][2]*os.File{}, nodeState: &nodeState{cfg: Default(), log: log, kernel: k,
		book:    ipamd.NewBook(ipamd.Config{}, ipamd.Identity{}, nil, log, time.Now),
		devices: map[vpc.MAC]string{}, pods: map[ipam.Owner]node.Attachment{}, gone: map[ipam.Owner]time.Time{}}}
	t.Cleanup(p.close)
	var enis []vpc.ENI
	for seed := uint64(1); len(enis) < 3; seed++ { // whole ones
		enis = someENIs(rand.New(rand.NewPCG(seed, 1)))
		if slices.ContainsFunc(enis, func(e vpc.ENI) bool { return len(e.Secondary) == 0 || e.ID == "eni-1" && len(e.Secondary) < 2 }) || len(enis) > 0 && len(enis[0].Secondary) < 3 {
			enis = nil
		}
	}
	routing := vpc.Routing{CIDRs: prefixes("10.0.0.0/16"), Peerings: map[string]bool{"pcx-1": true}, Tables: []vpc.RouteTable{{ID: "rtb-1", Main: true,
		Routes: []vpc.Route{{Dst: netip.MustParsePrefix("10.1.0.0/16"), Target: vpc.PeeringTarget, TargetID: "pcx-1"}}}}}
	for _, e := range []event{{"device 1", "ens6"}, {"enis", enis[:2]}, {"routing", routing}, {"pod a", true}, {"pod c", true}} {
		if err := p.happen(e); err != nil {
			t.Fatalf("%s: %v", e, err)
		}
	}
	return p
}

func proof(t testing.TB, n *nodeState) symmetry.Proof {
	t.Helper()
	site := symmetry.Site{VPC: "vpc-1", Want: n.oneOfEach(), Routing: n.routing}
	enis, named := devicesOf(site.Want)
	var err error
	if site.Host, err = hostnet.CollectWays(t.Context(), enis, named); err != nil {
		t.Fatal(err)
	}
	found, err := symmetry.Prove(site)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestProofOfKernel: what the agent writes is proven by what the kernel then holds,
// and what somebody else adds is found.
func TestProofOfKernel(t *testing.T) {
	p := twoWays(t)
	if got := proof(t, p.nodeState); got.Classes < 8 || len(got.Broken)+len(got.Unknown) > 0 {
		t.Errorf("%+v", got)
	}
	rule := netlink.NewRule()
	rule.Priority, rule.Src, rule.Table = 5, ipNetOf("10.0.2.0/24"), unix.RT_TABLE_MAIN
	if err := netlink.RuleAdd(rule); err != nil {
		t.Fatal(err)
	}
	if got := proof(t, p.nodeState); !slices.ContainsFunc(got.Broken, func(f symmetry.Finding) bool { return f.ENI == "eni-1" && f.In }) ||
		slices.ContainsFunc(got.Broken, func(f symmetry.Finding) bool { return f.ENI == "eni-0" && !strings.Contains(f.Class, "10.0.2.0/24") }) {
		t.Errorf("somebody's rule for the second subnet: %+v", got)
	}
}

func ipNetOf(s string) *net.IPNet {
	n, err := netlink.ParseIPNet(s)
	if err != nil {
		panic(err)
	}
	return n
}

// TestCheckExplains: a CHECK that finds a difference says which way is broken by it.
func TestCheckExplains(t *testing.T) {
	p := twoWays(t)
	owner := ipam.Owner{ContainerID: "c", IfName: "eth0"}
	r := request{owner: owner, netns: p.netns["c"][0], netlink: p.netns["c"][1], mtu: 9001}
	if err := p.check(r); err != nil {
		t.Fatalf("a pod that is well: %v", err)
	}
	routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: node.PodTable, Dst: ipNetOf("10.0.2.10/32")}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range routes {
		if route.Priority == 0 {
			if err := netlink.RouteDel(&route); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = p.check(r)
	for _, part := range []string{"the node's kernel differs: + 10.0.2.10/32", "so a way of the pod is broken: pods of eni-1, to the VPC (10.0.0.0/16): " + string(path.CodeHostRefuses)} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q in it", err, part)
		}
	}
}

// TestProver: what is broken twice is told once, and that it is whole again; what one
// look alone finds is not.
func TestProver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &nodeState{unproven: make(chan struct{}, 1)}
		loop := &nodeLoop{state: n, commands: make(chan func(*nodeState))}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() {
			for {
				select {
				case f := <-loop.commands:
					f(n)
				case <-ctx.Done():
					return
				}
			}
		}()
		began := time.Now()
		var told []string
		p := newProver(quiet(t), loop, "vpc-1", func(ways []string) {
			told = append(told, fmt.Sprintf("%s %d", time.Since(began), len(ways)))
		})
		looks, broken := 0, func(int) bool { return false }
		p.look = func(context.Context) (symmetry.Proof, error) {
			select {
			case <-n.unproven:
			default:
			}
			looks++
			proof := symmetry.Proof{Classes: 4}
			if broken(looks) {
				proof.Broken = []symmetry.Finding{{ENI: "eni-1", Class: "the VPC", Code: path.CodeStrict}}
			}
			return proof, nil
		}
		go p.run(ctx)
		after := func(d time.Duration, f func(int) bool) {
			time.Sleep(d)
			synctest.Wait()
			broken = f
			n.stale()
		}
		after(time.Second, func(int) bool { return true })                // found at 10 s, confirmed at 12 s
		after(20*time.Second, func(look int) bool { return look%2 == 0 }) // seen at 22 s, not at 24 s
		after(20*time.Second, func(look int) bool { return look == 6 })   // seen at 41 s, not at 43 s
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if d := cmp.Diff([]string{"12s 1", "24s 0"}, told); d != "" {
			t.Errorf("told (-want +got):\n%s", d)
		}
		if n.paths.Classes != 4 || len(n.paths.Broken) > 0 || looks < 10 || looks > 14 {
			t.Errorf("after %d looks the loop has %+v", looks, n.paths)
		}
	})
}

// BenchmarkProof is one proof of a node of two ENIs, as the prover computes it beside
// everything else: reading the kernel, and walking.
func BenchmarkProof(b *testing.B) {
	p := twoWays(b)
	for b.Loop() {
		proof(b, p.nodeState)
	}
}

// BenchmarkBrokenCheck is a CHECK that has something to explain, in the node loop.
func BenchmarkBrokenCheck(b *testing.B) {
	p := twoWays(b)
	r := request{owner: ipam.Owner{ContainerID: "c", IfName: "eth0"}, netns: p.netns["c"][0], netlink: p.netns["c"][1], mtu: 1400}
	for b.Loop() {
		if p.check(r) == nil {
			b.Fatal("a pod of another MTU passes")
		}
	}
}

// BenchmarkCheck is one that finds nothing.
func BenchmarkCheck(b *testing.B) {
	p := twoWays(b)
	r := request{owner: ipam.Owner{ContainerID: "c", IfName: "eth0"}, netns: p.netns["c"][0], netlink: p.netns["c"][1], mtu: 9001}
	for b.Loop() {
		if err := p.check(r); err != nil {
			b.Fatal(err)
		}
	}
}
