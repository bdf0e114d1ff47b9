package path

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Probe is a question: who sends what to whom. From and To are a pod
// (default/sleep), a Service (svc/default/web, which only To can be), a node
// (node:node-a1), an ENI's ID, an address, or "internet"; each may begin with a
// cluster or VPC and a colon. A Service's port may be a name.
type Probe struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Proto Proto  `json:"proto"`
	Port  uint16 `json:"port,omitempty"` // of To; none of ICMP
	Size  int    `json:"size"`           // bytes, the IP header included
}

// SYN is the size of a SYN as Linux sends it: 20 bytes of IP, 40 of TCP.
const SYN = 60

// Tracer answers probes about one world, which must not change meanwhile.
type Tracer struct {
	w      *World
	refs   map[*Namespace]*nsRef
	enis   map[string]device // by ID: the device that an ENI is
	ghosts map[string]*nsRef // by ENI: kernels that are not in the world
	addrs  map[netip.Addr][]*nsRef
	names  map[string][]*nsRef // namespace/pod, pod, and node:NAME
}

type device struct {
	at   *nsRef
	name string
}

// nsRef is a namespace with its place and indexes.
type nsRef struct {
	node  *Node
	pod   *Pod
	ns    *Namespace
	where Where
	fib   *fib
	hooks map[string][]baseChain
	// ghost is the ENI of a kernel that is not in the world.
	ghost    *ENI
	ghostVPC *VPC
	// internet is somebody out there, with this address.
	internet bool
	public   netip.Addr
	hidden   *hiddenSide // of a private address: by where it comes in
}

func (r *nsRef) chains(hook string) []baseChain {
	c, ok := r.hooks[hook]
	if !ok {
		if r.hooks == nil {
			r.hooks = map[string][]baseChain{}
		}
		c = baseChains(r.ns, hook)
		r.hooks[hook] = c
	}
	return c
}

// NewTracer indexes a world.
func NewTracer(w *World) *Tracer {
	t := &Tracer{w: w, refs: map[*Namespace]*nsRef{}, enis: map[string]device{}, addrs: map[netip.Addr][]*nsRef{},
		names: map[string][]*nsRef{}}
	for i := range w.Nodes {
		n := &w.Nodes[i]
		site := n.Cluster
		for j := range n.Host.Devices.Value {
			if _, v := w.eni(n.Host.Devices.Value[j].ENI); v != nil && site == "" {
				site = v.Name
			}
		}
		host := t.add(&nsRef{node: n, ns: &n.Host, where: Where{site, KindNode, n.Name}})
		for j := range n.Host.Devices.Value {
			d := &n.Host.Devices.Value[j]
			if d.ENI != "" {
				t.enis[d.ENI] = device{host, d.Name}
			}
			for _, p := range d.Addresses {
				if !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
					t.addrs[p.Addr()] = append(t.addrs[p.Addr()], host)
				}
			}
		}
		for j := range n.Pods.Value {
			p := &n.Pods.Value[j]
			pod := t.add(&nsRef{node: n, pod: p, ns: &p.Net, where: Where{site, KindPod, p.Name}})
			t.addrs[p.Addr] = append(t.addrs[p.Addr], pod)
		}
	}
	return t
}

func (t *Tracer) add(r *nsRef) *nsRef {
	t.refs[r.ns] = r
	names := []string{"node:" + r.node.Name}
	if r.pod != nil {
		names = []string{r.pod.ID(), r.pod.Name}
	}
	for _, n := range names {
		t.names[n] = append(t.names[n], r)
	}
	return r
}

// ready makes a namespace's index when a packet first comes there.
func (r *nsRef) ready() *nsRef {
	if r.fib == nil && r.ns != nil {
		r.fib = newFIB(r.ns)
	}
	return r
}

const (
	maxSteps    = 256 // places on one way; a packet that circles is found before
	maxOutcomes = 64  // ways that random choices lead to
	noMTU       = 1 << 16
)

// Trace answers one probe. An error says that the probe names nothing of this
// world; it wraps [ErrProbe].
//
// Where something on the way chooses at random, every choice is walked, and the
// answer is that of the worst, with the number of them in Outcomes.
func (t *Tracer) Trace(p Probe) (*Answer, error) {
	if p.Proto == "" {
		p.Proto = TCP
	}
	if p.Size == 0 {
		p.Size = SYN
	}
	from, to, err := t.resolve(&p)
	if err != nil {
		return nil, err
	}
	var worst *Answer
	var script []int
	outcomes, failing := 0, 0
	var all []*Answer
	for outcomes < maxOutcomes {
		outcomes++
		w := &walk{t: t, script: script, tracked: map[eniFlow]bool{}, seen: map[visited]bool{}, said: map[string]bool{}}
		w.ans = &Answer{Probe: p, MTU: noMTU}
		one := to[0]
		if len(to) > 1 {
			one = to[w.choose(len(to))]
		}
		w.ans.Probe.Port = one.port
		w.both(from, one)
		w.ans.Verdict = w.ans.verdict()
		if w.ans.Verdict != Arrived {
			failing++
		}
		all = append(all, w.ans)
		if worst == nil || rank(w.ans.Verdict) > rank(worst.Verdict) {
			worst = w.ans
		}
		if script = w.following(); script == nil {
			break
		}
	}
	worst.Outcomes, worst.Failing, worst.More = outcomes, failing, script != nil
	if service := to[0].service; outcomes > 1 || service != nil {
		ways := t.waysOf(all)
		worst.Ways = ways.list()
		if service != nil {
			worst.Service = ways.service(to[0], worst)
		}
	}
	if worst.MTU == noMTU {
		worst.MTU = 0 // the packet crossed nothing
	}
	return worst, nil
}

func rank(v Verdict) int {
	switch v {
	case Dropped:
		return 2
	case Unsure:
		return 1
	}
	return 0
}

// walk is one packet's way and its reply's.
type walk struct {
	t       *Tracer
	ans     *Answer
	conns   []*conn
	tracked map[eniFlow]bool // what security groups remember
	nats    []natFlow        // what NAT gateways do
	reply   bool
	from    *nsRef // where it began
	end     *nsRef // where the packet was delivered
	p       *Packet

	script, limits, taken []int // random choices: to make, their number, made
	seen                  map[visited]bool
	said                  map[string]bool
	outENI, inENI         []string // by which ENIs nodes were left and entered, packet then reply
}

type visited struct {
	at   *nsRef
	iif  string
	t    tuple
	mark uint32
}

// choose makes one of n choices.
func (w *walk) choose(n int) int {
	v := 0
	if len(w.taken) < len(w.script) {
		v = min(w.script[len(w.taken)], n-1)
	}
	w.taken, w.limits = append(w.taken, v), append(w.limits, n)
	return v
}

// following is the next row of choices, or nil behind the last.
func (w *walk) following() []int {
	for i := len(w.taken) - 1; i >= 0; i-- {
		if w.taken[i]+1 < w.limits[i] {
			next := append([]int(nil), w.taken[:i]...)
			return append(next, w.taken[i]+1)
		}
	}
	return nil
}

// step is the next thing that happens to the packet; nil: nothing.
type step func() step

func (w *walk) follow(s step) {
	for n := 0; s != nil; n++ {
		if n == maxSteps {
			w.add(Hop{Where: w.ans.Hops[len(w.ans.Hops)-1].Where, Matched: "the packet does not come to an end", Verdict: Drop, Code: CodeLoop})
			return
		}
		s = s()
	}
}

// both walks the packet, and the reply from where it was delivered.
func (w *walk) both(from *nsRef, to target) {
	p := &Packet{Proto: w.ans.Probe.Proto, Dst: to.addr, Size: w.ans.Probe.Size}
	if p.Proto != ICMP {
		p.SrcPort, p.DstPort = ephemeralPorts, OnePort(w.ans.Probe.Port)
	}
	if from.pod != nil {
		p.Src = from.pod.Addr
	}
	if from.ghost != nil {
		p.Src = from.ghost.Addresses[0]
	}
	if from.internet {
		p.Src = from.public
	}
	w.p, w.from = p, from
	w.follow(func() step { return w.begin(from, p) })
	if w.end == nil {
		return
	}
	w.meant(to)
	asked := p.tuple()
	for _, h := range w.ans.Hops {
		if h.Before.Src.IsValid() {
			asked = h.Before.tuple() // as the sender knows it
			break
		}
	}
	back := w.end
	w.ans.destination = back
	w.end, w.reply = nil, true
	w.seen = map[visited]bool{}
	r := &Packet{Proto: p.Proto, Src: p.Dst, Dst: p.Src, SrcPort: p.DstPort, DstPort: p.SrcPort, Size: SYN, Reply: true}
	if p.Proto == ICMP {
		r.Size = p.Size // an echo reply is as long as what it answers
	}
	w.p = r
	w.follow(func() step { return w.begin(back, r) })
	if w.end == nil {
		return
	}
	last := &w.ans.Hops[len(w.ans.Hops)-1]
	switch {
	case w.end != from:
		last.Verdict, last.Code = Drop, CodeStranger
		last.Matched = "the reply is for " + r.Dst.String() + ", which is here, and not where the question came from"
	case r.tuple() != asked.inverse():
		last.Verdict, last.Code = Drop, CodeStranger
		last.Matched = fmt.Sprintf("the reply is from %s%s, the question went to %s%s", r.Src, portOf(r.SrcPort), asked.dst, portOf(asked.dp))
	}
	w.ans.SameENIs = w.mirrored()
}

// meant: two of a world may have one address, and the packet got to the other.
func (w *walk) meant(to target) {
	if to.who == nil || to.who.internet || to.who == w.end || w.end.ghost != nil || w.p.Dst != to.addr {
		return // nobody in particular, a kernel that is not known, or an address that was translated
	}
	last := &w.ans.Hops[len(w.ans.Hops)-1]
	last.Verdict, last.Code = Drop, CodeReceiver
	last.Matched = fmt.Sprintf("%s is that of %s here; asked for is %s", to.addr, w.end.where, to.who.where)
}

func portOf(p Ports) string {
	if p == (Ports{}) {
		return ""
	}
	return ":" + p.String()
}

// mirrored: the reply went in by each ENI that the packet left by, and the other
// way round.
func (w *walk) mirrored() bool {
	set := map[string]bool{}
	for _, e := range w.outENI {
		set[e] = true
	}
	for _, e := range w.inENI {
		if !set[e] {
			return false
		}
		delete(set, e)
	}
	return len(set) == 0
}

func (w *walk) begin(from *nsRef, p *Packet) step {
	switch {
	case from.hidden != nil:
		// What happened to it before is not known; here it is followed as if nothing had.
		w.blindHop(from.hidden.by, "not known: the side of "+p.Src.String()+", at the other end", true)
		return func() step { return w.local(from.hidden.into, "", p) }
	case from.internet:
		return w.fromInternet(p)
	case from.ghost != nil:
		return w.eniOut(from.ghost, from.ghostVPC, "", p)
	}
	return w.fromLocal(from.ready(), p)
}

// add puts a hop on the way.
func (w *walk) add(h Hop) {
	h.Reply = w.reply
	h.After = *w.p
	if h.Before == (Packet{}) {
		h.Before = *w.p
	}
	w.ans.Hops = append(w.ans.Hops, h)
}

func (w *walk) hop(v *visit, h Hop) {
	h.Where, h.ns = v.at.where, v.at.ns
	w.add(h)
}

func (w *walk) hopFrom(v *visit, before Packet, h Hop) {
	h.Before = before
	w.hop(v, h)
}

func (w *walk) blind(v *visit, text string) { w.blindAt(v, text, true) }

func (w *walk) blindAt(v *visit, text string, diverts bool) {
	w.blindHop(v.at.where, text, diverts)
}

// blindOnce is for a part that every hook would name.
func (w *walk) blindOnce(v *visit, text string) {
	key := v.at.where.String() + text
	if !w.said[key] {
		w.said[key] = true
		w.blindAt(v, text, true)
	}
}

func (w *walk) blindHop(where Where, text string, diverts bool) {
	code := CodeNotKnown
	if strings.HasPrefix(text, "not modelled") {
		code = CodeNotModelled
	}
	w.add(Hop{Where: where, Matched: text, Verdict: Blind, Code: code, Diverts: diverts})
}

func (w *walk) narrow(mtu int) {
	if mtu > 0 {
		w.ans.MTU = min(w.ans.MTU, mtu)
	}
}

// ErrProbe is returned for a probe that names nothing, or more than one thing.
var ErrProbe = errors.New("no such end")
