package tracepoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/sighting"
)

// Place is a namespace to watch.
type Place struct {
	NetNS   *os.File
	Where   path.Where
	Devices map[int]string // names by index
}

// Wanted is the packet to follow, as its sender makes it. A translation may change
// its addresses and ports: it is known by its first TCP sequence number, which is
// learned when it is met first, or by what is in it.
type Wanted struct {
	Proto path.Proto
	To    netip.AddrPort // of ICMP the port is 0
	Port  uint16         // of the sender's socket; of TCP
	// Nonce is the first 8 bytes of the data of a datagram or an echo, in the order
	// of this machine.
	Nonce uint64
}

// Follow hears of one packet. It has no goroutine, and is for one.
type Follow struct {
	objs    followObjects
	links   []link.Link
	ring    *ringbuf.Reader
	reasons reasons
	places  map[uint32]Place
	first   uint64 // time of the first event
}

// NewFollow begins to follow a packet that is yet to be sent.
func NewFollow(w Wanted, places []Place) (_ *Follow, err error) {
	f := &Follow{places: map[uint32]Place{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if f.reasons, err = readReasons(); err != nil {
		return nil, err
	}
	if err = loadFollowObjects(&f.objs, nil); err != nil {
		return nil, unavailable("load the programs that follow a packet", err)
	}
	for _, p := range places {
		inum, err := inode(p.NetNS)
		if err != nil {
			return nil, err
		}
		f.places[inum] = p
		if err := f.objs.Watched.Put(inum, uint32(1)); err != nil {
			return nil, fmt.Errorf("watch %s: %w", p.Where, err)
		}
	}
	to := w.To.Addr().As4()
	config := followWanted{Nonce: w.Nonce, Target: binary.NativeEndian.Uint32(to[:]), Sport: w.Port, Dport: w.To.Port()}
	config.Proto = map[path.Proto]uint8{path.TCP: unix.IPPROTO_TCP, path.UDP: unix.IPPROTO_UDP, path.ICMP: unix.IPPROTO_ICMP}[w.Proto]
	if err = f.objs.Config.Put(uint32(0), config); err != nil {
		return nil, fmt.Errorf("say which packet to follow: %w", err)
	}
	if f.ring, err = ringbuf.NewReader(f.objs.Events); err != nil {
		return nil, fmt.Errorf("read ring of events: %w", err)
	}
	programs := f.objs.followPrograms
	for _, p := range []*ebpf.Program{programs.Sent, programs.Received, programs.Dropped, programs.Routed} {
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			return nil, unavailable("attach "+p.String(), err)
		}
		f.links = append(f.links, l)
	}
	return f, nil
}

// Next waits for the next event until a time; ok is false if there is none.
func (f *Follow) Next(until time.Time) (s sighting.Sighting, ok bool, err error) {
	f.ring.SetDeadline(until)
	record, err := f.ring.Read()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return s, false, nil
	}
	if err != nil {
		return s, false, fmt.Errorf("read event: %w", err)
	}
	var e followEvent
	if err := binary.Read(bytes.NewReader(record.RawSample), binary.NativeEndian, &e); err != nil {
		return s, false, fmt.Errorf("read event: %w", err)
	}
	return f.sighting(&e), true, nil
}

// The numbers of follow.c.
var (
	events = map[uint8]sighting.Event{1: sighting.Sent, 2: sighting.Received, 3: sighting.Dropped, 4: sighting.Routed}
	ways   = map[uint8]sighting.Way{1: sighting.Packet, 2: sighting.Reply, 3: sighting.Error}
)

func (f *Follow) sighting(e *followEvent) sighting.Sighting {
	if f.first == 0 {
		f.first = e.Time
	}
	if e.Proto == unix.IPPROTO_ICMP {
		e.Sport, e.Dport = 0, 0
	}
	p := f.places[e.Netns]
	s := sighting.Sighting{
		After: time.Duration(e.Time - f.first), At: p.Where, Event: events[e.Kind], Way: ways[e.Way], Device: p.Devices[int(e.Ifindex)],
		Src: netip.AddrPortFrom(addr(e.Saddr), e.Sport), Dst: netip.AddrPortFrom(addr(e.Daddr), e.Dport),
	}
	switch s.Event {
	case sighting.Dropped:
		s.Reason = f.reasons.word(e.Detail)
	case sighting.Routed:
		s.Table = int(e.Detail)
	}
	return s
}

// Lost is how many events found the ring full and were not told.
func (f *Follow) Lost() (uint64, error) {
	var n uint64
	if err := f.objs.Lost.Lookup(uint32(0), &n); err != nil {
		return 0, fmt.Errorf("read lost events: %w", err)
	}
	return n, nil
}

// Close ends it.
func (f *Follow) Close() error {
	var errs []error
	for _, l := range f.links {
		errs = append(errs, l.Close())
	}
	if f.ring != nil {
		errs = append(errs, f.ring.Close())
	}
	return errors.Join(append(errs, f.objs.Close())...)
}
