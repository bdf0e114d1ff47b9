package relay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// maxFrame is the longest frame that a tap gives, in bytes: the virtio-net
// header, Ethernet with a VLAN tag, and an IPv4 packet of 65535.
const maxFrame = 12 + 18 + 65535

// device is what frames are read from and written to: a tap, or in a test a
// socket. A read past its deadline gives os.ErrDeadlineExceeded.
type device interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
}

// Relay is a running loop. It owns its device.
type Relay struct {
	dev      device
	stopping atomic.Bool
	done     chan struct{}

	mu    sync.Mutex // guards what the loop writes
	stats Stats
	err   error
}

// Start runs a relay until Stop.
func Start(dev *os.File, s *Schedule) *Relay { return start(dev, s) }

func start(dev device, s *Schedule) *Relay {
	r := &Relay{dev: dev, done: make(chan struct{})}
	go r.run(s)
	return r
}

// Stats gives what came of the frames so far.
func (r *Relay) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Stop lets all that waits go on at once, in order, and closes the device. The
// error is what ended the loop before its time, if anything did.
func (r *Relay) Stop() error {
	r.stopping.Store(true)
	// After the flag: whichever deadline the loop sets, it looks at the flag
	// before it reads. It fails only when the loop has closed the device.
	_ = r.dev.SetReadDeadline(time.Unix(1, 0))
	<-r.done
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *Relay) run(s *Schedule) {
	defer close(r.done)
	err := r.loop(s)
	for _, f := range s.Flush() {
		_, _ = r.dev.Write(f) // the last chance of a frame is no promise
	}
	err = errors.Join(err, r.dev.Close())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *Relay) loop(s *Schedule) error {
	buf := make([]byte, maxFrame)
	for {
		next, _ := s.Next() // the zero time is no deadline
		if err := r.dev.SetReadDeadline(next); err != nil {
			return fmt.Errorf("set deadline of relay: %w", err)
		}
		if r.stopping.Load() {
			return nil
		}
		n, err := r.dev.Read(buf)
		now := time.Now()
		switch {
		case err == nil:
			s.Add(now, append([]byte(nil), buf[:n]...))
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("read frame of relay: %w", err)
		}
		for _, f := range s.Due(now) {
			// A frame that the kernel does not take is lost, as on any wire:
			// the device behind the tap may be gone by now.
			_, _ = r.dev.Write(f)
		}
		r.mu.Lock()
		r.stats = s.Stats()
		r.mu.Unlock()
	}
}
