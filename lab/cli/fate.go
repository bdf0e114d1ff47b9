package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/packet"
	"github.com/fairway-cni/fairway/lab/probe"
)

// lookTime is between two looks at the counters, at least. All that a sender waits for it
// counts in looks: on a machine that is busy they are further apart, and so is what it
// waits for.
const lookTime = 5 * time.Millisecond

// How many looks a sender listens on once it is known what became of its frames.
const (
	answerLooks = 50 // where an answer is likely
	settleLooks = 10 // for what comes after an arrival: a kernel's refusal
)

// watcher looks for crafted frames, at all places at once.
type watcher struct {
	ground *ground
	from   spot
	taps   map[string]*probe.Tap // by place
	device net.Interface         // that frames leave by
}

// sighting is a frame that came in somewhere.
type sighting struct {
	place, device string
	packet        packet.Packet
	of            int // index of the frame whose mark it has, -1: none
}

// watch opens packet sockets in all places that may matter.
func (g *ground) watch(from spot) (*watcher, error) {
	w := &watcher{ground: g, from: from, taps: map[string]*probe.Tap{}}
	for place, ns := range g.open {
		tap, err := probe.OpenTap(ns)
		if err != nil {
			w.close()
			return nil, fmt.Errorf("%s: %w", place, err)
		}
		w.taps[place] = tap
	}
	var ok bool
	if w.device, ok = w.sender().Device(w.deviceName()); !ok {
		w.close()
		return nil, fmt.Errorf("%s has no device to send by; see fairway-lab status", from.name)
	}
	return w, nil
}

func (w *watcher) sender() *probe.Tap { return w.taps[w.from.place] }

func (w *watcher) close() {
	for _, t := range w.taps {
		t.Close()
	}
}

// deviceName is the ENI's device, or the one by which a pod's packets leave.
func (w *watcher) deviceName() string {
	for _, e := range w.ground.status.ENIs {
		if e.ID == w.from.eni {
			return e.Device
		}
	}
	name := ""
	_ = netns.Do(w.from.ns, func() error { // without an answer there is no device
		links, err := netlink.LinkList()
		for _, l := range links {
			if l.Attrs().Flags&net.FlagLoopback == 0 && l.Attrs().Flags&net.FlagUp != 0 && name == "" {
				name = l.Attrs().Name
			}
		}
		return err
	})
	return name
}

// outlet is what frames have by default. dst is where they go, if that is known.
func (w *watcher) outlet(dst netip.Addr) (outlet, error) {
	out := outlet{next: packet.MAC(fabric.RouterMAC), address: w.from.addr}
	if len(w.device.HardwareAddr) == len(out.mac) {
		out.mac = packet.MAC(w.device.HardwareAddr)
	}
	if !w.from.pod || !dst.Is4() {
		return out, nil
	}
	var hop netip.Addr
	var known net.HardwareAddr
	err := netns.Do(w.from.ns, func() error {
		routes, err := netlink.RouteGet(dst.AsSlice())
		if err != nil {
			return fmt.Errorf("find a route to %s in %s: %w", dst, w.from.name, err)
		}
		hop = dst
		if len(routes) > 0 && routes[0].Gw != nil {
			hop, _ = netip.AddrFromSlice(routes[0].Gw)
			hop = hop.Unmap()
		}
		neighbours, err := netlink.NeighList(w.device.Index, netlink.FAMILY_V4)
		for _, n := range neighbours {
			if n.IP.Equal(hop.AsSlice()) {
				known = n.HardwareAddr
			}
		}
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil // one that the list lacks is asked for below
		}
		return err
	})
	if err != nil {
		return out, err
	}
	if len(known) == len(out.next) {
		out.next = packet.MAC(known)
		return out, nil
	}
	out.next, err = w.resolve(out.mac, hop)
	return out, err
}

// resolve asks the wire for the MAC of the next hop.
func (w *watcher) resolve(mac packet.MAC, hop netip.Addr) (packet.MAC, error) {
	tap := w.sender()
	if err := tap.Send(w.device, packet.ARPRequest(mac, w.from.addr, hop)); err != nil {
		return packet.MAC{}, err
	}
	if err := tap.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return packet.MAC{}, err
	}
	for {
		_, frame, err := tap.Next()
		if err != nil {
			return packet.MAC{}, fmt.Errorf("nobody in the pod's network answers ARP for its next hop %s: give --mac-dst: %w", hop, err)
		}
		p, err := packet.Parse(frame)
		if err == nil && p.ARP != nil && !p.ARP.Request && p.ARP.Sender == hop {
			return p.ARP.SenderMAC, tap.SetDeadline(time.Time{})
		}
	}
}

// send sends the frames and gathers what became of them.
func (w *watcher) send(ctx context.Context, f *sendFlags) (sent, error) {
	dst, _ := netip.ParseAddr(f.dst) // what is wrong with it, craft says
	if f.macDst != "" {
		dst = netip.Addr{}
	}
	from, err := w.outlet(dst)
	if err != nil {
		return sent{}, err
	}
	frames, err := f.craft(from, func(b []byte) { rand.Read(b) })
	if err != nil {
		return sent{}, err
	}
	before, err := w.ground.tally(ctx)
	if err != nil {
		return sent{}, err
	}
	seen := w.look(frames)
	for _, c := range frames {
		if err := w.sender().Send(w.device, c.bytes); err != nil {
			return sent{}, err
		}
	}
	found := &findings{watcher: w, frames: frames, before: before, wait: f.wait}
	if err := found.gather(ctx, seen); err != nil {
		return sent{}, err
	}
	return found.sent(f, w.from.name), nil
}

// sent is the result.
func (f *findings) sent(flags *sendFlags, from string) sent {
	s := sent{From: from, Packet: flags.describe(f.frames[0]), Count: len(f.frames)}
	for _, x := range f.fates() {
		s.Fates = append(s.Fates, x)
		if text := x.text(flags.given["ttl"], f.frames[0].said.String()); text != "" {
			s.Shown = append(s.Shown, shown{text, x.Frames})
		}
	}
	return s
}

// look reads all sockets, each in a goroutine that ends with its socket.
func (w *watcher) look(frames []crafted) <-chan sighting {
	seen := make(chan sighting, 4*len(frames)+64)
	marks := map[string]int{}
	for i, c := range frames {
		marks[string(c.mark)] = i
	}
	for place, tap := range w.taps {
		go func() {
			for {
				device, frame, err := tap.Next()
				if err != nil {
					return
				}
				// Copied: it is looked at later. What is broken has its mark all the same.
				frame = bytes.Clone(frame)
				p, _ := packet.Parse(frame)
				s := sighting{place: place, device: device, packet: p, of: markOf(frame, p, frames, marks)}
				if s.of < 0 && place != w.from.place {
					continue
				}
				select {
				case seen <- s:
				default: // nobody reads any more, or far more came than was sent
				}
			}
		}()
	}
	return seen
}

// markOf finds the frame that this one was.
func markOf(frame []byte, p packet.Packet, frames []crafted, marks map[string]int) int {
	if len(p.Payload) >= nonceSize {
		if i, ok := marks[string(p.Payload[:nonceSize])]; ok {
			return i
		}
	}
	for i, c := range frames[:min(len(frames), 16)] { // cut off, or given as hex
		if p.Quoted == nil && len(c.mark) > 0 && bytes.Contains(frame, c.mark) {
			return i
		}
	}
	return -1
}

// findings are what is known so far.
type findings struct {
	watcher *watcher
	frames  []crafted
	before  tally
	wait    time.Duration

	arrived  []arrival
	answers  []packet.Packet
	losses   []loss
	answered bool // by more than a closed port's complaint
}

type arrival struct {
	at, instance string
	eni          string
	of           int
	packet       packet.Packet
}

// gather collects until all is known, or for as long as it may take.
func (f *findings) gather(ctx context.Context, seen <-chan sighting) error {
	left, settled := int(f.wait/lookTime), false
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-seen:
			f.note(s)
			continue
		case <-tick.C:
		}
		if err := f.count(ctx); err != nil {
			return err
		}
		left--
		if !settled && f.unknown() <= 0 {
			settled, left = true, min(left, f.settle())
		}
		if (left <= 0 || f.answered && len(f.frames) == 1) && len(seen) == 0 {
			return nil
		}
	}
}

// count reads the counters.
func (f *findings) count(ctx context.Context) error {
	now, err := f.watcher.ground.tally(ctx)
	if err != nil {
		return err
	}
	f.losses = slices.DeleteFunc(now.since(f.before), func(l loss) bool {
		switch {
		case l.chatter():
			s := f.frames[0].said
			return l.eni != f.watcher.from.eni || s.ARP != nil || s.Src.Is4() && s.VLAN == 0
		case l.Kernel && l.Reason == probe.Discarded: // not to be told from others' packets, unless ours came there
			first := f.watcher.from.pod && l.At == instanceName(f.watcher.from.instance)
			return !first && !slices.ContainsFunc(f.arrived, func(a arrival) bool { return a.instance == l.At })
		}
		return false
	})
	return nil
}

// note sorts one sighting.
func (f *findings) note(s sighting) {
	said := f.frames[0].said
	p := s.packet
	if f.isAnswer(p) {
		if s.place == f.watcher.from.place {
			f.answers = append(f.answers, p)
			f.answered = f.answered || !isComplaint(p)
		}
		return
	}
	if s.of < 0 || p.Quoted != nil || isEcho(said) && p.ICMPType == 0 {
		return
	}
	a := arrival{at: internetName, instance: s.place, of: s.of, packet: p}
	if s.place != internetName {
		a.at = ""
		for _, e := range f.watcher.ground.status.ENIs {
			switch {
			case e.Instance == "" || f.watcher.ground.nameOf(e.Instance) != s.place:
			case e.Device == s.device:
				a.at, a.eni = s.place+"/"+s.device, e.ID
			case a.at == "" && owns(e, p.Dst) && f.watcher.from.pod && f.watcher.from.instance.ID == e.Instance:
				a.at, a.eni = s.place, e.ID // from one of its pods, and not to leave it
			}
		}
		if a.at == "" {
			return // a device inside of the instance
		}
	}
	f.arrived = append(f.arrived, a)
}

func isEcho(p packet.Packet) bool {
	return p.HasPorts && p.Protocol == packet.ICMP && p.ICMPType == 8
}

// isAnswer says whether a packet is there because of ours.
func (f *findings) isAnswer(p packet.Packet) bool {
	said := f.frames[0].said
	if said.ARP != nil {
		return p.ARP != nil && !p.ARP.Request && p.ARP.Sender == said.ARP.Asked
	}
	if q := p.Quoted; q != nil {
		return slices.ContainsFunc(f.frames, func(c crafted) bool { return c.said.ID == q.ID && c.said.Dst == q.Dst && c.said.Protocol == q.Protocol })
	}
	if !p.HasPorts || !said.HasPorts || p.Protocol != said.Protocol || p.Src != said.Dst || p.Dst != said.Src {
		return false
	}
	if isEcho(said) {
		return p.ICMPType == 0 && p.SrcPort == said.SrcPort
	}
	return p.Protocol != packet.ICMP && p.SrcPort == said.DstPort && p.DstPort == said.SrcPort
}

// isComplaint tells what a closed port or an unknown protocol answers. Kernels
// limit these (sysctl icmp_ratelimit), so nothing may depend on them.
func isComplaint(p packet.Packet) bool {
	return p.Protocol == packet.ICMP && p.ICMPType == 3 && (p.ICMPCode == 2 || p.ICMPCode == 3)
}

// unknown is how many frames have left no trace so far.
func (f *findings) unknown() int {
	if f.frames[0].said.ARP != nil && len(f.losses) == 0 {
		return len(f.frames) - len(f.answers)
	}
	there := map[int]bool{}
	for _, a := range f.arrived {
		there[a.of] = true
	}
	n := len(f.frames) - len(there)
	for _, l := range f.losses {
		if !f.isOfAnswer(l) && !slices.ContainsFunc(f.arrived, func(a arrival) bool { return l.Kernel && a.instance == l.At }) {
			n -= int(min(l.Packets, uint64(len(f.frames))))
		}
	}
	return n
}

// isOfAnswer says whether what was lost is an answer: it came from the ENI that
// our frame was for, and reached.
func (f *findings) isOfAnswer(l loss) bool {
	return !l.Kernel && slices.ContainsFunc(f.arrived, func(a arrival) bool { return l.eni != "" && f.isEnd(a) && f.sameInstance(a, l) })
}

func (f *findings) sameInstance(a arrival, l loss) bool {
	return f.watcher.ground.nameOf(l.instance) == a.instance
}

// isEnd says whether the frame is where it was for, and not just forwarded.
func (f *findings) isEnd(a arrival) bool {
	if a.at == internetName {
		return true
	}
	for _, e := range f.watcher.ground.status.ENIs {
		if e.ID == a.eni {
			return owns(e, a.packet.Dst)
		}
	}
	return false
}

// settle is for how many looks more can come after what is known.
func (f *findings) settle() int {
	said := f.frames[0].said
	if said.ARP != nil {
		return 0
	}
	for _, l := range f.losses {
		if l.Reason == fabric.TooBig.String() || l.Kernel {
			return answerLooks
		}
	}
	if len(f.arrived) == 0 {
		return 0
	}
	for _, a := range f.arrived {
		if !f.isEnd(a) || said.Protocol == packet.TCP || isEcho(said) {
			return answerLooks
		}
	}
	return settleLooks
}

// fates lists what happened, in the order of a packet's life.
func (f *findings) fates() []fate {
	var out []fate
	add := func(x fate) {
		for i := range out {
			if same := out[i]; same.What == x.What && same.At == x.At && same.Reason == x.Reason && same.Packet == x.Packet && same.TTL == x.TTL {
				out[i].Frames += x.Frames
				return
			}
		}
		out = append(out, x)
	}
	// Each socket has its own reader, so the order of sightings says nothing. Each
	// hop takes of the TTL.
	slices.SortStableFunc(f.arrived, func(a, b arrival) int { return int(b.packet.TTL) - int(a.packet.TTL) })
	for _, a := range f.arrived {
		add(fate{What: "arrived", At: a.at, Packet: a.packet.String(), TTL: a.packet.TTL, Frames: 1})
	}
	minor := f.frames[0].said.Protocol != packet.TCP && !isEcho(f.frames[0].said)
	for _, l := range f.losses {
		x := fate{What: "dropped", At: l.At, Reason: l.Reason, Frames: l.Packets}
		switch {
		case l.Kernel:
			x.What = "lost"
		case f.isOfAnswer(l):
			x.What, x.minor = "answer dropped", minor
		}
		add(x)
	}
	for _, p := range f.answers {
		add(fate{What: "answered", Packet: answerText(p), TTL: p.TTL, Frames: 1, minor: isComplaint(p) && len(f.arrived) > 0})
	}
	if n := f.unknown(); n > 0 && len(f.answers) == 0 {
		what := "no trace"
		if f.frames[0].said.ARP != nil {
			what = "no answer"
		}
		out = append(out, fate{What: what, Frames: uint64(n)})
	}
	return out
}

// answerText is what came back, and from whom.
func answerText(p packet.Packet) string {
	switch {
	case p.ARP != nil:
		return p.String()
	case p.Protocol == packet.ICMP:
		return fmt.Sprintf("icmp %s from %s", p.ICMPName(), p.Src)
	}
	return fmt.Sprintf("%s from %s", p.Summary(), netip.AddrPortFrom(p.Src, p.SrcPort))
}
