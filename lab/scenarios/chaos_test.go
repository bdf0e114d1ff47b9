package scenarios

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	layout "github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

var (
	chaosTime = flag.Duration("chaos", time.Minute, "how long TestChaos breaks things")
	chaosSeed = flag.Uint64("chaos-seed", 0, "what TestChaos breaks, and when; 0: as the clock says")
	chaosOnly = flag.String("chaos-only", "", "a regular expression: which damages TestChaos does, to find the one that matters")
)

// chaosWorld has an internet behind the primary address of node-a.
const chaosWorld = `
vpcs:
  - name: main
    cidr: 10.0.0.0/16
    internetGateway: true
    subnets: [{name: a, cidr: 10.0.1.0/24, zone: a}, {name: b, cidr: 10.0.2.0/24, zone: b}]
    securityGroups: [{name: default, ingress: [{from: 0.0.0.0/0}]}]
instances:
  - {name: node-a, type: m5.large, subnet: a, elasticAddress: true}
  - {name: node-b, type: m5.large, subnet: b}
internet: {hosts: [203.0.113.10]}
`

// elevenPods are more than the primary ENI of an m5.large has addresses for: the
// last two are on the second ENI.
var elevenPods = []string{"a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "a10", "a11"}

// traffic is what runs between two nodes and the internet: flows of pods of the
// primary and of the second ENI, to and from each other's kind.
func (l *lab) traffic() ([]*stream, []*pulse) {
	l.t.Helper()
	a, b := l.nodes["node-a"], l.nodes["node-b"]
	pa, pb := a.addPods(elevenPods...), b.addPods("b1", "b2")
	first, second := a.podEnd(pa[0]), a.podEnd(l.onSecondENI(pa))
	far, far2, internet := b.podEnd(pb[0]), b.podEnd(pb[1]), l.internet()
	streams := []*stream{
		streamTo(l.t, first, far).seenAs(l.t, first.addr),
		streamTo(l.t, far, second).seenAs(l.t, far.addr),
		streamTo(l.t, second, far2).seenAs(l.t, second.addr),
		streamTo(l.t, second, first).seenAs(l.t, second.addr),
		streamTo(l.t, first, internet),
		streamTo(l.t, second, internet),
		streamTo(l.t, b.hostEnd(), second),
		streamTo(l.t, a.hostEnd(), first),
		streamTo(l.t, far, a.hostEnd()),
	}
	for _, s := range streams[4:6] {
		if !s.translated() {
			l.t.Errorf("%s is not translated: it comes from %s", s.what, s.seen)
		}
	}
	const interval = 10 * time.Millisecond
	return streams, []*pulse{
		startPulse(l.t, first, far2, interval),
		startPulse(l.t, far2, second, interval),
		startPulse(l.t, second, internet, interval),
	}
}

// damage breaks something of ours in the namespace it is called in.
type damage struct {
	name string
	do   func(*chaos) error
}

// The damages after which the kernel translates nothing, not even for flows that
// it has translated so far. An answer of the internet that comes just then is
// for nobody, and the node's own TCP resets the connection: nobody can mend that
// afterwards. All other connections survive this too.
const (
	rulesetFlushed = "nft ruleset flushed"
	tableDeleted   = "nft table deleted"
)

// chaos is one node that is broken.
type chaos struct {
	node *node
	*rand.Rand
	damages []damage // that it does
}

var damages = []damage{
	{"rules deleted", (*chaos).rulesDeleted},
	{"a rule that looks like ours", (*chaos).strayRule},
	{"routes deleted", (*chaos).routesDeleted},
	{"a route changed", (*chaos).routeChanged},
	{"a route that looks like ours", (*chaos).strayRoute},
	{"neighbours deleted", (*chaos).neighborsDeleted},
	{"a neighbour changed", (*chaos).neighborChanged},
	{"sysctls written", (*chaos).sysctlsWritten},
	{rulesetFlushed, (*chaos).rulesetFlushed},
	{tableDeleted, func(*chaos) error { return gone(deleteFilter(layout.TableName)) }},
	{"nft chain emptied", (*chaos).chainEmptied},
	{"nft chain added", (*chaos).chainAdded},
	{"nft elements deleted", (*chaos).elementsDeleted},
	{"pods' devices down", (*chaos).podsDown},
	{"a pod's device in another group", (*chaos).podRegrouped},
	{"second ENI down", (*chaos).eniDown},
	{"mtu of an ENI changed", (*chaos).eniMTU},
	{"address of the second ENI deleted", (*chaos).eniAddress},
}

// some keeps each item with a chance of one half, and one at least.
func some[T any](c *chaos, items []T) []T {
	if len(items) == 0 {
		return nil
	}
	kept := slices.DeleteFunc(slices.Clone(items), func(T) bool { return c.IntN(2) == 0 })
	if len(kept) == 0 {
		kept = []T{items[c.IntN(len(items))]}
	}
	return kept
}

func (c *chaos) rules() ([]netlink.Rule, error) {
	all, err := netlink.RuleList(netlink.FAMILY_V4)
	return slices.DeleteFunc(all, func(r netlink.Rule) bool { return r.Protocol != layout.Protocol }), err
}

func (c *chaos) rulesDeleted() error {
	rules, err := c.rules()
	for _, r := range some(c, rules) {
		err = errors.Join(err, gone(netlink.RuleDel(&r)))
	}
	return err
}

func (c *chaos) strayRule() error {
	r := netlink.NewRule()
	r.Priority, r.Table, r.Protocol, r.Src = 15+c.IntN(100), 254, layout.Protocol, ipNet("192.0.2.0/24")
	return there(netlink.RuleAdd(r))
}

func (c *chaos) routes() ([]netlink.Route, error) {
	return netlink.RouteListFiltered(netlink.FAMILY_V4,
		&netlink.Route{Table: unix.RT_TABLE_UNSPEC, Protocol: layout.Protocol}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
}

func (c *chaos) routesDeleted() error {
	routes, err := c.routes()
	for _, r := range some(c, routes) {
		err = errors.Join(err, gone(netlink.RouteDel(&r)))
	}
	return err
}

// routeChanged puts another route in the place of one, ours by its protocol or not.
func (c *chaos) routeChanged() error {
	routes, err := c.routes()
	if err != nil || len(routes) == 0 {
		return err
	}
	old := routes[c.IntN(len(routes))]
	return netlink.RouteReplace(&netlink.Route{Table: old.Table, Dst: old.Dst, Priority: old.Priority, Type: unix.RTN_PROHIBIT,
		Protocol: []netlink.RouteProtocol{layout.Protocol, unix.RTPROT_STATIC}[c.IntN(2)]})
}

func (c *chaos) strayRoute() error {
	tables := []int{layout.PodTable, layout.ENITableBase + 1, layout.ENITableBase + 2, layout.BoundTableBase + 1, layout.BoundTableBase + 2, 77}
	return there(netlink.RouteAdd(&netlink.Route{Table: tables[c.IntN(len(tables))], Dst: ipNet("192.0.2.0/24"),
		Type: unix.RTN_UNREACHABLE, Protocol: layout.Protocol}))
}

func (c *chaos) neighbors() ([]netlink.Neigh, error) {
	pods, err := c.podLinks()
	var found []netlink.Neigh
	for _, p := range pods {
		list, fault := netlink.NeighList(p.Attrs().Index, unix.AF_INET)
		err = errors.Join(err, fault)
		found = append(found, slices.DeleteFunc(list, func(n netlink.Neigh) bool { return n.State&unix.NUD_PERMANENT == 0 })...)
	}
	return found, err
}

func (c *chaos) neighborsDeleted() error {
	list, err := c.neighbors()
	for _, n := range some(c, list) {
		err = errors.Join(err, gone(netlink.NeighDel(&n)))
	}
	return err
}

func (c *chaos) neighborChanged() error {
	list, err := c.neighbors()
	if err != nil || len(list) == 0 {
		return err
	}
	n := list[c.IntN(len(list))]
	n.HardwareAddr = []byte{2, 0xbb, 0, 0, 0, byte(c.IntN(256))}
	return netlink.NeighSet(&n)
}

func (c *chaos) sysctlsWritten() error {
	var err error
	for _, s := range some(c, [][2]string{{"ip_forward", "0"}, {"tcp_early_demux", "0"},
		{"conf/ens5/accept_local", "0"}, {"conf/ens6/accept_local", "0"}, {"conf/ens5/rp_filter", "1"}, {"conf/ens6/rp_filter", "1"}}) {
		fault := os.WriteFile("/proc/sys/net/ipv4/"+s[0], []byte(s[1]), 0)
		if !errors.Is(fault, os.ErrNotExist) { // not every node has a second ENI
			err = errors.Join(err, fault)
		}
	}
	return err
}

func (c *chaos) rulesetFlushed() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.FlushRuleset()
	return conn.Flush()
}

// inTable does something to our table, if it is there.
func inTable(do func(*nftables.Conn, *nftables.Table) error) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table, err := conn.ListTableOfFamily(layout.TableName, nftables.TableFamilyINet)
	if err != nil || table == nil {
		return nil // something else has been before us
	}
	if err := do(conn, table); err != nil {
		return gone(err)
	}
	return gone(conn.Flush())
}

func (c *chaos) chainEmptied() error {
	return inTable(func(conn *nftables.Conn, table *nftables.Table) error {
		chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
		chains = slices.DeleteFunc(chains, func(ch *nftables.Chain) bool { return ch.Table.Name != table.Name })
		for _, ch := range some(c, chains) {
			conn.FlushChain(ch)
		}
		return err
	})
}

func (c *chaos) chainAdded() error {
	return inTable(func(conn *nftables.Conn, table *nftables.Table) error {
		drop := nftables.ChainPolicyDrop
		conn.AddChain(&nftables.Chain{Table: table, Name: fmt.Sprintf("stray-%d", c.IntN(100)), Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
		return nil
	})
}

func (c *chaos) elementsDeleted() error {
	return inTable(func(conn *nftables.Conn, table *nftables.Table) error {
		sets, err := conn.GetSets(table)
		for _, s := range some(c, sets) {
			conn.FlushSet(s)
		}
		return err
	})
}

func (c *chaos) podLinks() ([]netlink.Link, error) {
	all, err := netlink.LinkList()
	return slices.DeleteFunc(all, func(l netlink.Link) bool { return l.Attrs().Group != layout.LinkGroup }), err
}

func (c *chaos) podsDown() error {
	pods, err := c.podLinks()
	for _, l := range some(c, pods) {
		err = errors.Join(err, netlink.LinkSetDown(l))
	}
	return err
}

func (c *chaos) podRegrouped() error {
	pods, err := c.podLinks()
	if err != nil || len(pods) == 0 {
		return err
	}
	return netlink.LinkSetGroup(pods[c.IntN(len(pods))], 0)
}

// secondENI is its device, if the node has one.
func secondENI(do func(netlink.Link) error) error {
	l, err := netlink.LinkByName("ens6")
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil
	}
	if err != nil {
		return err
	}
	return do(l)
}

func (c *chaos) eniDown() error { return secondENI(netlink.LinkSetDown) }

func (c *chaos) eniMTU() error {
	return secondENI(func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1400+c.IntN(100)) })
}

func (c *chaos) eniAddress() error {
	return secondENI(func(l netlink.Link) error {
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		for _, a := range addrs {
			err = errors.Join(err, gone(netlink.AddrDel(l, &a)))
		}
		return err
	})
}

// gone and there are for what the agent was quicker to mend, or what is broken already.
func gone(err error) error {
	for _, e := range []error{unix.ENOENT, unix.ESRCH, unix.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

func there(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// strike does one to three damages at once; the agent may die with them.
func (c *chaos) strike(t *testing.T) (what string) {
	t.Helper()
	restart := c.IntN(6) == 0
	if restart {
		what = "agent killed, "
		if c.IntN(2) == 0 {
			if err := c.node.SignalDaemon(t.Context(), "agent", unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			what = "agent ended, "
		} else {
			c.node.killAgent()
		}
	}
	count := 1 + c.IntN(6)/4*(1+c.IntN(2)) // mostly one
	ns := c.node.netns()
	for range count {
		d := c.damages[c.IntN(len(c.damages))]
		what += d.name + ", "
		if err := netns.Do(ns, func() error { return d.do(c) }); err != nil {
			t.Errorf("%s: %v", d.name, err)
		}
	}
	if restart {
		if _, err := c.node.WaitDaemon(t.Context(), "agent"); err != nil {
			t.Fatal(err)
		}
		c.node.startAgent()
	}
	return what[:len(what)-2]
}

// TestChaos breaks whatever is ours, under traffic, at random, for a minute. All
// of it is repaired, and no connection breaks.
func TestChaos(t *testing.T) {
	t.Parallel()
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-chaos-seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 4))
	l := startLab(t, chaosWorld)
	a, b := l.nodes["node-a"], l.nodes["node-b"]
	a.startAgent()
	b.startAgent()
	streams, pulses := l.traffic()
	only, err := regexp.Compile(*chaosOnly)
	if err != nil {
		t.Fatal(err)
	}
	chosen := slices.DeleteFunc(slices.Clone(damages), func(d damage) bool { return !only.MatchString(d.name) })
	nodes := []*chaos{{node: a, Rand: random, damages: chosen}, {node: b, Rand: random, damages: chosen}}
	for _, c := range nodes {
		c.node.settled(t)
	}

	times := map[string][]time.Duration{}
	var history []string
	resets := 0
	untranslated := map[*stream]int64{} // how far each was when nothing was translated
	// attend opens anew those that may have been reset.
	attend := func(lately []string) {
		for i, s := range streams {
			err := s.broken()
			if err == nil {
				continue
			}
			// Whoever is reset hears of it when it sends again, which may be later. One more
			// round may be counted until then: its answer had come, and was not read yet.
			if !s.translated() || !errors.Is(err, unix.ECONNRESET) || s.rounds.Load() > untranslated[s]+1 {
				t.Errorf("after %q: %v; it had come %d rounds far when nothing was translated", lately, err, untranslated[s])
				continue
			}
			resets++
			streams[i] = streamTo(t, s.from, s.to)
		}
	}
	for until := time.Now().Add(*chaosTime); time.Now().Before(until) && !t.Failed(); {
		c := nodes[random.IntN(3)/2] // node-a has more to break
		what := c.strike(t)
		history = append(history, c.node.name+": "+what)
		if strings.Contains(what, rulesetFlushed) || strings.Contains(what, tableDeleted) {
			for _, s := range streams {
				untranslated[s] = s.rounds.Load()
			}
		}
		start := time.Now()
		c.node.repaired(what)
		times[what] = append(times[what], time.Since(start))
		attend(history[max(0, len(history)-3):])
		<-time.After(time.Duration(random.IntN(100)) * time.Millisecond) // a random moment, no wait for anything
	}
	begun := map[*stream]int64{}
	eventually(t, "all streams go on", func() error {
		if t.Failed() {
			return nil
		}
		attend([]string{"the end"})
		for _, s := range streams {
			if _, ok := begun[s]; !ok {
				begun[s] = s.rounds.Load()
			}
			if n := s.rounds.Load() - begun[s]; n < 20 {
				return fmt.Errorf("%s: %d rounds since the end", s.what, n)
			}
		}
		return nil
	})
	t.Logf("%d translated connections were reset as the nftables table was gone", resets)
	report(t, times)
	allEnd(t, streams)
	for _, p := range pulses {
		p.goesOn(t)
		p.stop()
		t.Logf("%s: %d of %d answered", p.what, p.answered.Load(), p.sent.Load())
	}
	l.allReach(t)
	a.repaired("the end")
	b.repaired("the end")
}

// report shows how long repairs took.
func report(t *testing.T, times map[string][]time.Duration) {
	t.Helper()
	all := slices.Concat(slices.Collect(maps.Values(times))...)
	if len(all) == 0 {
		t.Fatal("nothing was broken")
	}
	slices.Sort(all)
	at := func(percent int) time.Duration { return all[(len(all)-1)*percent/100].Round(time.Millisecond) }
	t.Logf("%d repairs, each from the damage to an empty plan: median %s, 90%% %s, 99%% %s, longest %s",
		len(all), at(50), at(90), at(99), at(100))
	for _, what := range slices.Sorted(maps.Keys(times)) {
		if longest := slices.Max(times[what]); longest >= at(90) {
			t.Logf("%8s  %s", longest.Round(time.Millisecond), what)
		}
	}
}
