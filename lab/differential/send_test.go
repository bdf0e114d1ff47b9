package differential

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/edge/tracepoint"
	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/probe"
)

// shot is one packet to send.
type shot struct {
	from  place
	to    netip.Addr
	proto path.Proto
	port  uint16
	size  int // bytes, the IP header included
}

func (s shot) String() string {
	return fmt.Sprintf("%s to %s %s %d, %d bytes", s.from.name, s.to, s.proto, s.port, s.size)
}

// state is what became of a packet on one of its ways.
type state string

const (
	unknown   state = "nobody knows" // not delivered, and nobody says who dropped it
	delivered state = "delivered"
	refused   state = "refused" // delivered, and nobody listens
	dropped   state = "dropped"
	notSent   state = "not sent"
)

// fate is that, with who says so.
type fate struct {
	state   state
	at      string   // name of the namespace; of the fabric's empty
	reason  string   // the kernel's, or "errno" and a number's name
	counted []string // the fabric's counters that grew, as "ID REASON"
}

func (f fate) String() string {
	out := string(f.state)
	if f.at != "" {
		out += " at " + f.at
	}
	if f.reason != "" {
		out += " " + f.reason
	}
	if len(f.counted) > 0 {
		out += fmt.Sprint(" ", f.counted)
	}
	return out
}

// outcome is what became of the packet and of what came back.
type outcome struct{ forward, reply fate }

func (o outcome) settled() bool {
	return o.forward.state == dropped || o.reply.state != notSent && o.reply.state != unknown
}

// flight is one packet on its way.
type flight struct {
	g        *stage
	s        shot
	nonce    string
	fd       int
	port     uint16 // of the socket, or an echo's identifier; 0: it has none
	o        outcome
	counters map[string]uint64
	errno    error
	reset    *fate // of a reset that was dropped before its SYN was heard to be refused
}

// How many looks nobody may know anything of a packet before the counters of the
// kernels are asked: routing an answer can fail without a word. They are 0.4 s at least,
// and more on a machine that is busy, which needs more.
const (
	silence = 200
	poll    = 2 * time.Millisecond // between two looks
)

// send sends one packet and says what became of it.
func (g *stage) send(s shot) (outcome, error) {
	o, err := g.try(s, silence)
	if err != nil || o.settled() {
		return o, err
	}
	// Once more, between two readings of the kernels' counters.
	before, err := g.kernels()
	if err != nil {
		return o, err
	}
	o, err = g.try(s, 2*silence)
	if err != nil || o.settled() {
		return o, err
	}
	after, err := g.kernels()
	if err != nil {
		return o, err
	}
	for _, p := range g.places {
		lost := func(counter string) bool { return after[p.name][counter] > before[p.name][counter] }
		switch {
		case s.proto == path.TCP && lost("Ip.OutNoRoutes") && lost("TcpExt.ListenDrops"),
			s.proto == path.ICMP && lost("Icmp.InEchos") && !lost("Icmp.OutEchoReps"):
			return outcome{fate{state: delivered, at: p.name}, fate{state: dropped, at: p.name, reason: "no route"}}, nil
		}
	}
	if o.forward.state == unknown && o.forward.reason != "" {
		o.forward.state, o.forward.at = dropped, s.from.name
	}
	return o, nil
}

func (g *stage) kernels() (map[string]probe.Kernel, error) {
	all := map[string]probe.Kernel{}
	for _, p := range g.places {
		k, err := probe.ReadKernel(p.ns)
		if err != nil {
			return nil, err
		}
		all[p.name] = k
	}
	return all, nil
}

func (g *stage) try(s shot, looks int) (outcome, error) {
	f := &flight{g: g, s: s, nonce: fmt.Sprintf("%016x", g.d.Uint64()), fd: -1, o: outcome{fate{state: unknown}, fate{state: notSent}}}
	g.forget()
	var err error
	if f.counters, err = g.count(); err != nil {
		return f.o, err
	}
	err = netns.Do(s.from.ns, f.begin)
	if f.fd >= 0 {
		defer unix.Close(f.fd)
	}
	if err != nil {
		return f.o, fmt.Errorf("send %s: %w", s, err)
	}
	for left := looks; !f.o.settled(); left-- {
		if err := f.look(); err != nil {
			return f.o, err
		}
		if f.o.settled() {
			break
		}
		if left <= 0 {
			if f.errno != nil && f.o.forward.state == unknown {
				f.o.forward.reason = errnoWord(f.errno) // an ICMP error; a drop may be told yet
			}
			break
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(f.fd), Events: unix.POLLIN | unix.POLLOUT}}, 0)
		time.Sleep(poll)
	}
	return f.o, nil
}

// forget empties what earlier packets left.
func (g *stage) forget() {
	for {
		select {
		case <-g.drops:
		case <-g.arrivals:
		default:
			return
		}
	}
}

// count reads the fabric's counters, as "ID REASON".
func (g *stage) count() (map[string]uint64, error) {
	out := map[string]uint64{}
	add := func(all map[string]map[fabric.Reason]fabric.Count) {
		for id, reasons := range all {
			for r, c := range reasons {
				if r == fabric.NotIPv4 {
					continue // hosts ask for IPv6 routers by themselves
				}
				out[id+" "+r.String()] += c.Packets
			}
		}
	}
	enis, err := g.lab.Fabric().Counters()
	if err != nil {
		return nil, err
	}
	links, err := g.lab.Fabric().LinkCounters()
	add(enis)
	add(links)
	return out, err
}

func errnoWord(err error) string {
	var no unix.Errno
	if errors.As(err, &no) {
		return "errno " + unix.ErrnoName(no)
	}
	return "error " + err.Error()
}

// begin makes the socket and sends, in the namespace of who sends.
func (f *flight) begin() (err error) {
	kind, proto := unix.SOCK_STREAM, unix.IPPROTO_TCP
	switch f.s.proto {
	case path.UDP:
		kind, proto = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case path.ICMP:
		kind, proto = unix.SOCK_DGRAM, unix.IPPROTO_ICMP
	}
	if f.fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto); err != nil {
		return err
	}
	if f.s.from.name == "internet" { // the loopback device has all of them
		if err := unix.Bind(f.fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(knownHost).As4()}); err != nil {
			return err
		}
	}
	if f.s.proto == path.TCP { // close by a reset
		err = unix.SetsockoptLinger(f.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	} else {
		// PROBE: what the kernel remembers of the path does not count.
		err = unix.SetsockoptInt(f.fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	}
	if err != nil {
		return err
	}
	err = unix.Connect(f.fd, &unix.SockaddrInet4{Addr: f.s.to.As4(), Port: int(f.s.port)})
	if at, nameErr := unix.Getsockname(f.fd); nameErr == nil {
		if in, ok := at.(*unix.SockaddrInet4); ok {
			f.port = uint16(in.Port)
		}
	}
	if errors.Is(err, unix.EINPROGRESS) {
		return nil
	}
	if err == nil && f.s.proto != path.TCP {
		payload := append([]byte(f.nonce), make([]byte, max(0, f.s.size-headers-nonceSize))...)
		if f.s.proto == path.ICMP {
			payload = append([]byte{8, 0, 0, 0, 0, 0, 0, 1}, payload...)
		}
		_, err = unix.Write(f.fd, payload)
	}
	if err != nil {
		f.errno = err
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ECONNREFUSED) { // of those the kernel's drops tell more
			f.o.forward = fate{state: dropped, at: f.s.from.name, reason: errnoWord(err)}
		}
	}
	return nil
}

// headers of IPv4 and of UDP or an ICMP echo, in bytes.
const headers = 28

// look asks all who may know something.
func (f *flight) look() error {
	for {
		select {
		case d := <-f.g.drops:
			if err := f.hear(d); err != nil {
				return err
			}
			continue
		case a := <-f.g.arrivals:
			if a.nonce == f.nonce {
				f.arrived(a)
			}
			continue
		default:
		}
		break
	}
	if !f.o.settled() {
		f.ask()
	}
	return nil
}

func (f *flight) arrived(a arrival) {
	f.o.forward = fate{state: delivered, at: a.at}
	if f.o.reply.state == notSent {
		f.o.reply.state = unknown
	}
	if a.err != nil && !errors.Is(a.err, unix.EPERM) {
		f.o.reply = fate{state: dropped, at: a.at, reason: errnoWord(a.err)}
	}
}

// hear takes a drop, if it is of this packet.
func (f *flight) hear(d tracepoint.Drop) error {
	reply, mine := f.mine(d)
	if !mine {
		return nil
	}
	said := fate{state: dropped, at: f.g.names[d.NetNS], reason: d.Reason}
	if f.g.fabric[d.NetNS] || said.at == "internet" && d.Reason != "NO_SOCKET" {
		var err error
		if said.counted, err = f.grown(); err != nil {
			return err
		}
		said.at = ""
	}
	switch {
	case reply && f.o.forward.state == unknown && d.Flags&tracepoint.RST != 0:
		// The kernel answers before it frees what it answers to.
		f.reset = &said
	case reply && f.o.reply.state != dropped:
		if f.o.forward.state == unknown {
			f.o.forward = fate{state: delivered}
		}
		f.o.reply = said
	case !reply && f.o.forward.state != dropped && f.o.forward.state != delivered:
		f.o.forward = said
		if d.Reason == "NO_SOCKET" {
			f.o.forward.state = refused
			f.o.reply.state = unknown
			switch {
			case errors.Is(f.errno, unix.ECONNREFUSED): // the socket heard first
				f.o.reply = fate{state: delivered, at: f.s.from.name}
			case f.reset != nil:
				f.o.reply = *f.reset
			}
		}
	}
	return nil
}

// mine knows the packet by protocol, port and destination, which only gateways to
// the internet change, and those only that of a public address of the world's; and
// where it begins by its own port: a drop of an earlier packet may be heard late. Of what comes back the source may be another's.
func (f *flight) mine(d tracepoint.Drop) (reply, mine bool) {
	reply, mine = f.like(d)
	switch {
	case !mine || reply:
	case d.Dst.Addr() != f.s.to && (f.s.to.IsPrivate() || slices.Contains([]string{knownHost, otherHost}, f.s.to.String())):
		mine = false
	case f.port != 0 && f.g.names[d.NetNS] == f.s.from.name:
		mine = d.Src.Port() == f.port || d.Proto == unix.IPPROTO_ICMP && d.ID == f.port
	}
	return reply, mine
}

func (f *flight) like(d tracepoint.Drop) (reply, mine bool) {
	switch f.s.proto {
	case path.ICMP:
		return d.Type == 0, d.Proto == unix.IPPROTO_ICMP && (d.Type == 8 || d.Type == 0)
	case path.UDP:
		reply = d.Src.Port() == f.s.port
		return reply, d.Proto == unix.IPPROTO_UDP && (reply || d.Dst.Port() == f.s.port)
	}
	if d.Proto != unix.IPPROTO_TCP {
		return false, false
	}
	switch flags := d.Flags & (tracepoint.SYN | tracepoint.ACK | tracepoint.RST | tracepoint.FIN); {
	case flags == tracepoint.SYN:
		return false, d.Dst.Port() == f.s.port
	case flags == tracepoint.SYN|tracepoint.ACK:
		return true, d.Src.Port() == f.s.port
	case flags&tracepoint.RST != 0:
		return true, d.Src.Port() == f.s.port && (f.o.forward.state == refused || d.Dst.Port() == f.port)
	}
	return false, false
}

// grown are the fabric's counters that grew since the packet was sent.
func (f *flight) grown() ([]string, error) {
	now, err := f.g.count()
	var out []string
	for key, n := range now {
		if n > f.counters[key] {
			out = append(out, key)
		}
	}
	return out, err
}

// ask asks the socket.
func (f *flight) ask() {
	if f.s.proto == path.TCP {
		f.askTCP()
		return
	}
	buf := make([]byte, 1<<16)
	n, err := unix.Read(f.fd, buf)
	switch {
	case err == nil && n >= nonceSize:
		if f.o.forward.state == unknown {
			f.o.forward.state = delivered
		}
		f.o.reply = fate{state: delivered, at: f.s.from.name}
	case errors.Is(err, unix.ECONNREFUSED):
		f.errno = err
		if f.o.forward.state == refused { // nothing more is asked of what an ICMP error meets
			f.o.reply = fate{state: delivered, at: f.s.from.name}
		}
	case err != nil && !errors.Is(err, unix.EAGAIN):
		f.errno = cmp.Or(f.errno, err)
	}
	if f.s.proto == path.UDP && f.o.forward.state == refused {
		f.o.reply = fate{state: delivered}
	}
}

func (f *flight) askTCP() {
	n, err := unix.GetsockoptInt(f.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && n != 0 {
		err = unix.Errno(n)
	}
	if err == nil {
		_, err = unix.Getpeername(f.fd)
	}
	switch {
	case errors.Is(err, unix.ENOTCONN):
	case errors.Is(err, unix.ECONNREFUSED):
		if f.o.forward.state == refused {
			f.o.reply = fate{state: delivered, at: f.s.from.name}
		}
		f.errno = err
	case err != nil:
		f.errno = cmp.Or(f.errno, err)
	default:
		f.o.forward.state = delivered
		f.o.reply = fate{state: delivered, at: f.s.from.name}
		f.o.forward.at = f.greeting()
	}
}

// greeting is who answers; empty where the connection is made and its data is lost.
func (f *flight) greeting() string {
	buf := make([]byte, 64)
	for range silence {
		if n, err := unix.Read(f.fd, buf); n > 0 {
			return string(buf[:n])
		} else if err != nil && !errors.Is(err, unix.EAGAIN) {
			return ""
		}
		time.Sleep(poll)
	}
	return ""
}
