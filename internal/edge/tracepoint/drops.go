package tracepoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Drop is one packet that ended. A packet whose last use is over is none: that is
// the tracepoint consume_skb.
type Drop struct {
	NetNS  uint32 // inode of the network namespace
	Device int    // index there; 0: the packet had none yet
	Reason string // "NETFILTER_DROP", "IP_RPFILTER"
	Packet
}

// Packet is what tells a packet from others.
type Packet struct {
	Proto    uint8 // IP's number
	Src, Dst netip.AddrPort
	ID       uint16 // of ICMP: the identifier, and the ports are 0
	Type     uint8  // of ICMP
	Flags    uint8  // of TCP
}

// Flags of TCP (RFC 9293 3.1).
const (
	FIN, SYN, RST, ACK = 1, 2, 4, 16
)

// Watch hears of drops: [dropped] --ring--> Watch --by namespace--> channels. One
// serves the whole machine. It has one goroutine, which ends with Close; all
// methods are safe for concurrent use.
type Watch struct {
	objs    dropsObjects
	link    link.Link
	ring    *ringbuf.Reader
	reasons reasons
	done    chan struct{}
	overrun atomic.Uint64 // drops that found their channel full

	mu   sync.Mutex
	sent map[uint32]chan<- Drop
}

// WatchDrops begins to watch, at first no namespace.
func WatchDrops() (*Watch, error) {
	reasons, err := readReasons()
	if err != nil {
		return nil, err
	}
	w := &Watch{reasons: reasons, done: make(chan struct{}), sent: map[uint32]chan<- Drop{}}
	if err := loadDropsObjects(&w.objs, nil); err != nil {
		return nil, unavailable("load the program that watches drops", err)
	}
	if w.link, err = link.AttachTracing(link.TracingOptions{Program: w.objs.Dropped}); err != nil {
		return nil, errors.Join(unavailable("attach to kfree_skb", err), w.objs.Close())
	}
	if w.ring, err = ringbuf.NewReader(w.objs.Events); err != nil {
		return nil, errors.Join(fmt.Errorf("read ring of drops: %w", err), w.link.Close(), w.objs.Close())
	}
	go w.read()
	return w, nil
}

// Add sends the drops of a namespace to a channel. What finds it full is lost,
// and counted by Lost.
func (w *Watch) Add(ns *os.File, to chan<- Drop) error {
	inum, err := inode(ns)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.sent[inum] = to
	w.mu.Unlock()
	if err := w.objs.Watched.Put(inum, uint32(1)); err != nil {
		return fmt.Errorf("watch namespace %d: %w", inum, err)
	}
	return nil
}

// Remove ends that.
func (w *Watch) Remove(ns *os.File) error {
	inum, err := inode(ns)
	if err != nil {
		return err
	}
	w.mu.Lock()
	delete(w.sent, inum)
	w.mu.Unlock()
	if err := w.objs.Watched.Delete(inum); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("stop watching namespace %d: %w", inum, err)
	}
	return nil
}

func (w *Watch) read() {
	defer close(w.done)
	for {
		record, err := w.ring.Read()
		if err != nil {
			return // closed
		}
		var d dropsDrop
		if err := binary.Read(bytes.NewReader(record.RawSample), binary.NativeEndian, &d); err != nil {
			continue // shorter than the program writes it
		}
		w.mu.Lock()
		to := w.sent[d.Netns]
		w.mu.Unlock()
		if to == nil {
			continue
		}
		select {
		case to <- w.drop(&d):
		default:
			w.overrun.Add(1)
		}
	}
}

func (w *Watch) drop(d *dropsDrop) Drop {
	out := Drop{NetNS: d.Netns, Device: int(d.Ifindex), Reason: w.reasons.word(d.Reason)}
	out.Packet = Packet{Proto: d.Proto, Flags: d.Flags}
	if d.Proto == unix.IPPROTO_ICMP {
		out.ID, out.Type = d.Sport, uint8(d.Dport>>8)
		d.Sport, d.Dport = 0, 0
	}
	out.Src, out.Dst = netip.AddrPortFrom(addr(d.Saddr), d.Sport), netip.AddrPortFrom(addr(d.Daddr), d.Dport)
	return out
}

// Lost is how many drops found the ring or their channel full and were not told.
func (w *Watch) Lost() (uint64, error) {
	var n uint64
	if err := w.objs.Lost.Lookup(uint32(0), &n); err != nil {
		return 0, fmt.Errorf("read lost drops: %w", err)
	}
	return n + w.overrun.Load(), nil
}

// Close ends the watch. Channels are the caller's to close.
func (w *Watch) Close() error {
	err := errors.Join(w.ring.Close(), w.link.Close())
	<-w.done
	return errors.Join(err, w.objs.Close())
}
