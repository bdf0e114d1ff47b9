package relay

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Limits of a fault.
const (
	// MaxDelay bounds delay and jitter: beyond it a link is better set down.
	MaxDelay = time.Minute
	// maxQueued bounds the frames that wait, in bytes. What comes on top is lost.
	maxQueued = 64 << 20
	// hold is how long a frame that is to be overtaken waits for the one that
	// does it.
	hold = 50 * time.Millisecond
)

// Fault is what happens to the frames of one direction. The zero Fault is none.
type Fault struct {
	LossPercent    float64       // 0..100 of the frames are lost
	Delay          time.Duration // of every frame
	Jitter         time.Duration // each Delay is more or less by up to this; it does not change the order
	ReorderPercent float64       // 0..100 of the frames are overtaken by the next
	Seed           uint64        // the same seed decides the same for the same number of frames
}

// Active says whether the fault does anything.
func (f Fault) Active() bool {
	return f.LossPercent > 0 || f.Delay > 0 || f.Jitter > 0 || f.ReorderPercent > 0
}

// Check says what is wrong with the fault.
func (f Fault) Check() error {
	var errs []error
	percent := func(what string, p float64) {
		if !(p >= 0 && p <= 100) { // a NaN is neither
			errs = append(errs, fmt.Errorf("%s %g%%: must be within 0..100", what, p))
		}
	}
	percent("loss", f.LossPercent)
	percent("reorder", f.ReorderPercent)
	if f.Delay < 0 || f.Delay > MaxDelay {
		errs = append(errs, fmt.Errorf("delay %s: must be within 0..%s", f.Delay, MaxDelay))
	}
	if f.Jitter < 0 || f.Jitter > f.Delay {
		errs = append(errs, fmt.Errorf("jitter %s: must be within 0 and the delay, %s", f.Jitter, f.Delay))
	}
	return errors.Join(errs...)
}

// Stats is what came of the frames so far.
type Stats struct {
	Frames    uint64 `json:"frames"`
	Lost      uint64 `json:"lost"`
	LostBytes uint64 `json:"lostBytes"`
	Reordered uint64 `json:"reordered"` // chosen to be overtaken
}

// Schedule decides when each frame goes on. It is not safe for concurrent use.
//
//	Add --> lost
//	    --> queue, by due time, which is also their order ---> Due
//	    --> held, until the next frame is queued, then behind it
type Schedule struct {
	fault  Fault
	rand   *rand.Rand
	stats  Stats
	queue  []item
	held   []item
	last   time.Time // the latest due time in queue so far
	queued int       // bytes in queue and held
}

type item struct {
	due   time.Time
	frame []byte
}

// NewSchedule starts a schedule. Streams of one seed, such as the directions of
// one link, decide independently.
func NewSchedule(f Fault, stream uint64) *Schedule {
	return &Schedule{fault: f, rand: rand.New(rand.NewPCG(f.Seed, stream))}
}

// Stats gives what came of the frames so far.
func (s *Schedule) Stats() Stats { return s.stats }

// Add decides about a frame and keeps it, if it is not lost. Whether it is lost
// or overtaken depends on nothing but the seed and the frames before it.
func (s *Schedule) Add(now time.Time, frame []byte) {
	// All three draws for each frame: the fate of the next one must not depend
	// on this one's.
	lost := s.rand.Float64()*100 < s.fault.LossPercent
	jitter := time.Duration((2*s.rand.Float64() - 1) * float64(s.fault.Jitter))
	overtaken := s.rand.Float64()*100 < s.fault.ReorderPercent
	s.stats.Frames++
	if lost || s.queued+len(frame) > maxQueued {
		s.stats.Lost++
		s.stats.LostBytes += uint64(len(frame))
		return
	}
	s.queued += len(frame)
	due := now.Add(s.fault.Delay + jitter)
	if due.Before(s.last) {
		due = s.last
	}
	s.last = due
	if overtaken {
		s.stats.Reordered++
		s.held = append(s.held, item{due.Add(hold), frame})
		return
	}
	s.queue = append(s.queue, item{due, frame})
	for _, h := range s.held {
		s.queue = append(s.queue, item{due, h.frame})
	}
	s.held = s.held[:0]
}

// Next is when Due will have something, false if never.
func (s *Schedule) Next() (time.Time, bool) {
	switch {
	case len(s.queue) > 0:
		// What is held came later, and has hold on top of it.
		return s.queue[0].due, true
	case len(s.held) > 0:
		return s.held[0].due, true
	}
	return time.Time{}, false
}

// Due gives the frames that go on now, in their order.
func (s *Schedule) Due(now time.Time) [][]byte {
	due := take(&s.queue, now)
	if len(s.queue) == 0 { // nobody came to overtake them
		due = append(due, take(&s.held, now)...)
	}
	for _, f := range due {
		s.queued -= len(f)
	}
	return due
}

// Flush gives all that waits, in order.
func (s *Schedule) Flush() [][]byte {
	var all [][]byte
	for _, i := range append(s.queue, s.held...) {
		all = append(all, i.frame)
	}
	s.queue, s.held, s.queued = nil, nil, 0
	return all
}

func take(items *[]item, now time.Time) [][]byte {
	var due [][]byte
	n := 0
	for n < len(*items) && !(*items)[n].due.After(now) {
		due = append(due, (*items)[n].frame)
		(*items)[n].frame = nil // the array outlives it
		n++
	}
	*items = (*items)[n:]
	return due
}
