package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A namespace's kernel, in the order of its own functions:
//
//	from a device:   prerouting -> routing -> rp_filter -> input -> socket
//	                                             |
//	                                             +-> forward -> postrouting -> device
//	from a socket:   routing -> output -> (routing again) -> postrouting -> device

const maxForwards = 62 // kernels that decrement a TTL of 64

// track finds the packet's connection, or begins one.
func (w *walk) track(v *visit) {
	t := v.p.tuple()
	for _, c := range w.conns {
		if c.at != v.at {
			continue
		}
		switch t {
		case c.orig:
			v.ct = c
			return
		case c.reply:
			v.ct, v.reply = c, true
			return
		}
	}
	if v.p.Reply && v.p.Proto != UDP {
		return // a SYN-ACK or an echo reply begins no connection
	}
	v.ct = &conn{at: v.at, orig: t, reply: t.inverse()}
	v.fresh = true
	w.conns = append(w.conns, v.ct)
}

// fromLocal is a packet of the namespace's own.
func (w *walk) fromLocal(at *nsRef, p *Packet) step {
	v := &visit{w: w, at: at, p: p}
	f := at.fib.lookup(flow{src: p.Src, dst: p.Dst, iif: "lo"})
	if !w.leads(v, f) {
		return nil
	}
	if !p.Src.IsValid() {
		if p.Src = at.fib.source(f.route, p.Dst); !p.Src.IsValid() {
			w.blind(v, "not known: an address of "+f.route.Dev+" to send from")
			return nil
		}
		// connect(2) asks twice: for an address, and then for its way (ip_route_connect).
		if f = at.fib.lookup(flow{src: p.Src, dst: p.Dst, iif: "lo"}); !w.leads(v, f) {
			return nil
		}
	}
	w.track(v)
	v.oif = f.route.Dev
	if f.route.Kind == "local" {
		v.oif = "lo"
	}
	w.segment(v, f)
	w.fits(v, f)
	if v.run("output") {
		if f = at.fib.lookup(flow{src: p.Src, dst: p.Dst, iif: "lo", mark: p.Mark}); !w.leads(v, f) {
			return nil
		}
	}
	if f.route.Kind == "local" {
		// What is for itself leaves by the loopback device and comes in by it.
		v.run("postrouting")
		v.iif, v.oif = "lo", ""
		v.run("prerouting")
		return w.deliver(v)
	}
	return w.send(v, f)
}

// leads says whether a routing decision leads anywhere, and says why not.
func (w *walk) leads(v *visit, f found) bool {
	switch {
	case f.blind != "":
		w.blind(v, f.blind)
		return false
	case f.route != nil && (f.route.Kind == "unicast" || f.route.Kind == "local"):
		return true
	}
	code := CodeHostRefuses
	if f.kind() == "none" {
		code = CodeNoHostRoute
	}
	w.hop(v, Hop{Matched: f.decided(v.p.Dst), Verdict: Drop, Code: code, near: f.near})
	return false
}

// arrive is a packet that comes by a device.
func (w *walk) arrive(at *nsRef, iif string, p *Packet) step {
	p.Mark = 0 // a mark is the namespace's own
	v := &visit{w: w, at: at.ready(), p: p, iif: iif}
	key := visited{at, iif, p.tuple(), p.Mark}
	if w.seen[key] || p.hops > maxForwards {
		w.hop(v, Hop{Matched: "the packet is here again: it circles until its TTL ends", Verdict: Drop, Code: CodeLoop})
		return nil
	}
	w.seen[key] = true
	w.programs(v, iif, "ingress")
	w.track(v)
	v.run("prerouting")
	if p.Src.IsLoopback() || p.Src.IsMulticast() || p.Src.IsUnspecified() {
		w.hop(v, Hop{Matched: "source " + p.Src.String() + " can come by no device", Verdict: Drop, Code: CodeMartian})
	}
	f := at.fib.lookup(flow{src: p.Src, dst: p.Dst, iif: iif, mark: p.Mark})
	if !w.leads(v, f) {
		return nil
	}
	if f.route.Kind == "local" {
		w.reversePath(v, "")
		return w.deliver(v)
	}
	w.forwards(v) // ip_route_input_slow asks this first
	w.reversePath(v, f.route.Dev)
	p.hops++
	v.oif = f.route.Dev
	w.fits(v, f)
	v.run("forward")
	return w.send(v, f)
}

// programs of BPF at a device could do anything.
func (w *walk) programs(v *visit, dev, way string) {
	d := v.at.ns.device(dev)
	if d == nil {
		return
	}
	for _, b := range d.BPF {
		if strings.HasPrefix(b, way) || way == "ingress" && strings.HasPrefix(b, "xdp") {
			w.blind(v, "not modelled: BPF at "+dev+" "+b)
		}
	}
}

func (w *walk) forwards(v *visit) {
	on, known := v.at.ns.conf(v.iif, "forwarding")
	name := "net.ipv4.conf." + v.iif + ".forwarding"
	if !known {
		on, known = v.at.ns.number("net/ipv4/ip_forward")
		name = "net.ipv4.ip_forward"
	}
	switch {
	case !known:
		w.blindAt(v, "not known: "+name, false)
	case on == 0:
		w.hop(v, Hop{Matched: name + " = 0", Verdict: Drop, Code: CodeForwarding})
	}
}

// reversePath is the kernel's fib_validate_source: is the way back to the source
// the way it came? Strict wants the same device, loose any. What counts is the
// greater of "all" and the device's (kernel documentation, ip-sysctl).
func (w *walk) reversePath(v *visit, oif string) {
	ns := v.at.ns
	all, knowAll := ns.conf("all", "rp_filter")
	dev, knowDev := ns.conf(v.iif, "rp_filter")
	lo, hi := max(all, dev), max(all, dev)
	if !knowAll || !knowDev {
		hi = 2
	}
	var first Hop
	blind := ""
	for r := lo; r <= hi; r++ {
		h, b := w.reversePathIf(v, oif, r)
		if r == lo {
			first, blind = h, b
		}
		if h.Code != first.Code || b != blind {
			blind = "not known: rp_filter of all and of " + v.iif
		}
	}
	switch {
	case blind != "":
		w.blindAt(v, blind, false)
	case first.Code != "":
		values := fmt.Sprintf("rp_filter max(all %d, %s %d) = %d; ", all, v.iif, dev, lo)
		if first.Code == CodeMartian {
			values = ""
		}
		first.Matched = values + first.Matched
		first.Verdict, first.Device = Drop, v.iif
		w.hop(v, first)
	}
}

// reversePathIf is the outcome for one value of rp_filter. The reverse lookup has
// no mark unless src_valid_mark says so, and comes from the device that the
// packet is going to leave by.
func (w *walk) reversePathIf(v *visit, oif string, filter int) (h Hop, blind string) {
	ns, fib, p := v.at.ns, v.at.fib, v.p
	acceptLocal, knowLocal := ns.either(v.iif, "accept_local")
	if filter == 0 && !fib.custom {
		if !fib.local(p.Src) || acceptLocal {
			return h, ""
		}
		if !knowLocal {
			return h, "not known: accept_local of " + v.iif
		}
		return Hop{Matched: "source " + p.Src.String() + " is the node's own", Code: CodeMartian}, ""
	}
	q := flow{src: p.Dst, dst: p.Src, iif: "lo"}
	if oif != "" {
		q.iif = oif
	}
	on, known := ns.either(v.iif, "src_valid_mark")
	if on {
		q.mark = p.Mark
	}
	f := fib.lookup(q)
	if !known && p.Mark != 0 {
		marked := q
		marked.mark = p.Mark
		if g := fib.lookup(marked); g.kind() != f.kind() || g.route != f.route {
			return h, "not known: src_valid_mark of " + v.iif
		}
	}
	return w.validate(v, f, q, filter)
}

func (w *walk) validate(v *visit, f found, q flow, filter int) (h Hop, blind string) {
	acceptLocal, knowLocal := v.at.ns.either(v.iif, "accept_local")
	if f.blind != "" {
		return h, f.blind
	}
	noWay := Hop{Matched: "no way back to " + q.dst.String(), Code: CodeLoose}
	if filter == 1 {
		noWay.Code = CodeStrict
	}
	if f.kind() != "unicast" && f.kind() != "local" {
		if filter == 0 {
			return h, ""
		}
		return noWay, ""
	}
	if f.kind() == "local" && !acceptLocal {
		if !knowLocal {
			return h, "not known: accept_local of " + v.iif
		}
		return Hop{Matched: "source " + q.dst.String() + " is the node's own", Code: CodeMartian}, ""
	}
	if f.route.Dev == v.iif || filter == 0 {
		return h, ""
	}
	d := v.at.ns.device(v.iif)
	if d != nil && len(d.Addresses) == 0 {
		// The kernel asks the second question only of a device with an address.
		noWay.Matched = "way back is " + f.route.Dev + ", and " + v.iif + " has no address"
		return noWay, ""
	}
	if filter == 1 {
		return Hop{Matched: "way back is " + f.route.Dev, Code: CodeStrict, near: f.near}, ""
	}
	return h, ""
}

// deliver gives the packet to the namespace's sockets.
func (w *walk) deliver(v *visit) step {
	v.run("input")
	w.end = v.at
	h := Hop{Result: v.p.kind(), Verdict: Pass}
	switch ns := v.at.ns; {
	case w.reply:
		h.Matched = "expected"
	case v.p.Proto == ICMP:
		h.Matched = "the kernel answers"
	case !ns.Sockets.Known:
		h.Matched = "has " + v.p.Dst.String() + "; what listens is not known"
	case listens(ns, v.p):
		h.Matched = "listening :" + v.p.DstPort.String()
	default:
		h.Matched = fmt.Sprintf("nothing listens on %s %s", v.p.Proto, v.p.DstPort)
		h.Verdict, h.Code = Drop, CodeNotListening
	}
	if v.at.pod == nil && v.iif != "lo" {
		h.Device = v.iif
	}
	w.hop(v, h)
	return nil
}

func listens(ns *Namespace, p *Packet) bool {
	for _, s := range ns.Sockets.Value {
		if s.Proto == p.Proto && (s.Addr == p.Dst || s.Addr.IsUnspecified()) && OnePort(s.Port) == p.DstPort {
			return true
		}
	}
	return false
}

// send takes the packet out of the namespace by the route that was found.
func (w *walk) send(v *visit, f found) step {
	r, ns := f.route, v.at.ns
	v.oif, v.hop = r.Dev, v.p.Dst
	if r.Via.IsValid() {
		v.hop = r.Via
	}
	d := ns.device(r.Dev)
	result := "out " + r.Dev
	if d != nil && d.Kind == "veth" && d.Peer != "" && !strings.HasPrefix(d.Peer, "host ") {
		result = "pod"
	}
	matched := f.decided(v.p.Dst)
	if v.at.pod != nil && r.Via.IsValid() && f.near == nil {
		matched = dstString(r.Dst) + " via " + r.Via.String() // a pod has one way, as a rule
	}
	w.hop(v, Hop{Matched: matched, Result: result, Verdict: Pass, Device: r.Dev, near: f.near, rule: f.rule})
	v.run("postrouting")
	if d == nil {
		w.blind(v, "not known: device "+r.Dev)
		return nil
	}
	if d.Down {
		w.hop(v, Hop{Matched: d.Name + " is down", Verdict: Drop, Code: CodeDown})
	} else if peer, dev, _ := w.peer(v.at, d); peer != nil {
		if o := peer.ns.device(dev); o != nil && o.Down { // no carrier
			w.hop(v, Hop{Matched: d.Name + "'s other end, " + dev + ", is down", Verdict: Drop, Code: CodeDown})
		}
	}
	w.programs(v, d.Name, "egress")
	switch {
	case d.Kind == "eni":
		return w.leaveByENI(v, d)
	case d.Kind == "veth":
		return w.cross(v, d)
	}
	w.blind(v, "not modelled: device "+d.Name+" of kind "+d.Kind)
	return nil
}

func (w *walk) leaveByENI(v *visit, d *Device) step {
	e, vpc := w.t.w.eni(d.ENI)
	if e == nil {
		w.blind(v, "not known: the ENI of "+d.Name+" ("+d.ENI+")")
		return nil
	}
	p, name := v.p, d.Name
	w.outENI = append(w.outENI, e.ID)
	return func() step { return w.eniOut(e, vpc, name, p) }
}

// fits: does the packet fit the way on? A kernel asks when it has found the way,
// before the hooks forward and output (ip_forward, ip_setup_cork).
func (w *walk) fits(v *visit, f found) {
	d := v.at.ns.device(f.route.Dev)
	if d == nil || f.route.Kind == "local" {
		return
	}
	mtu := d.mtuOf(f.route)
	w.narrow(mtu)
	if v.p.Size > mtu && mtu > 0 {
		w.hop(v, Hop{Matched: fmt.Sprintf("%d bytes, and %s takes %d", v.p.Size, d.Name, mtu), Verdict: Drop, Code: CodeMTU, mtu: mtu})
	}
}

func (d *Device) mtuOf(r *IPRoute) int {
	if r.MTU > 0 {
		return min(d.MTU, r.MTU)
	}
	return d.MTU
}

// segment: TCP makes no segment that is longer than its own way's MTU (RFC 9293
// 3.7.1). What the other side announces as its own is left out.
func (w *walk) segment(v *visit, f found) {
	d := v.at.ns.device(f.route.Dev)
	if v.p.Proto != TCP || d == nil || f.route.Kind == "local" {
		return
	}
	if mtu := d.mtuOf(f.route); mtu > 0 {
		v.p.Size = min(v.p.Size, mtu)
	}
}

// vlanTag is what the end of a veth pair takes beyond its MTU, in bytes
// (__is_skb_forwardable).
const vlanTag = 4

// cross takes the packet to the other end of a veth pair.
func (w *walk) cross(v *visit, d *Device) step {
	peer, dev, err := w.peer(v.at, d)
	if err != "" {
		w.blind(v, err)
		return nil
	}
	w.neighbour(v, d, peer, v.hop)
	if o := peer.ns.device(dev); o != nil && o.MTU > 0 && v.p.Size > o.MTU+vlanTag {
		w.hop(v, Hop{Matched: fmt.Sprintf("%d bytes, and %s's other end, %s, takes %d; nobody is told", v.p.Size, d.Name, dev, o.MTU), Verdict: Drop, Code: CodeMTU, mtu: o.MTU})
	}
	p := v.p
	return func() step { return w.arrive(peer, dev, p) }
}

func (w *walk) peer(at *nsRef, d *Device) (peer *nsRef, dev, why string) {
	who, dev, ok := strings.Cut(d.Peer, " ")
	if !ok {
		return nil, "", "not known: the other end of " + d.Name
	}
	if who == "host" {
		peer = w.t.refs[&at.node.Host]
	} else {
		for _, r := range w.t.names[who] {
			if r.pod != nil && r.node == at.node {
				peer = r
			}
		}
	}
	if peer == nil {
		return nil, "", "not known: " + who + ", at the other end of " + d.Name
	}
	return peer.ready(), dev, ""
}

// knows reports a permanent entry of the neighbour table.
func (n *Namespace) knows(dev string, a netip.Addr) bool {
	return slices.Contains(n.Neighbours.Value, Neighbour{a, dev})
}

// answers: a kernel answers ARP for an address of its own only where a packet of
// the asker's would pass its reverse path (arp_process asks ip_route_input). The
// asker's address is that of the packet, if it is the asker's (arp_announce 0).
func (w *walk) answers(v *visit, d *Device, peer *nsRef, target netip.Addr) {
	asker := v.p.Src
	if !v.at.fib.local(asker) {
		asker = v.at.ns.selectAddr(d.Name, target)
	}
	_, dev, _ := w.peer(v.at, d)
	all, known := peer.ns.conf("all", "rp_filter")
	own, known2 := peer.ns.conf(dev, "rp_filter")
	if !known || !known2 || !asker.IsValid() {
		return // the packet itself meets the same, and says so
	}
	there := &visit{w: w, at: peer, p: &Packet{Proto: v.p.Proto, Src: asker, Dst: target}, iif: dev}
	if h, _ := w.reversePathIf(there, "", max(all, own)); h.Code != "" {
		w.hop(v, Hop{Matched: peer.where.Name + " does not answer ARP to " + asker.String() + ": " + h.Matched, Verdict: Drop, Code: CodeNeighbour})
	}
}

// neighbour: does somebody at the other end answer for the address?
func (w *walk) neighbour(v *visit, d *Device, peer *nsRef, target netip.Addr) {
	if v.at.ns.knows(d.Name, target) {
		return
	}
	if peer.fib.local(target) {
		w.answers(v, d, peer, target)
		return
	}
	proxy := false
	for _, o := range peer.ns.Devices.Value {
		if on, _ := peer.ns.conf(o.Name, "proxy_arp"); on != 0 {
			proxy = true
		}
	}
	switch {
	case proxy:
	case !v.at.ns.Neighbours.Known:
		w.blindAt(v, v.at.ns.Neighbours.unknown("neighbours of "+d.Name), false)
	case !peer.ns.Routes.Known:
		w.blindAt(v, peer.ns.Routes.unknown("the addresses of "+peer.where.String()), false)
	default:
		w.hop(v, Hop{Matched: "nobody answers ARP for " + target.String() + " at " + d.Name, Verdict: Drop, Code: CodeNeighbour})
	}
}
