package ipamd

import (
	"cmp"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// sim is one run of the simulation: a region, a node, the runtime that asks its
// agent for addresses, and all that can go wrong, in one bubble of virtual time.
//
//	runtime --ADD, DEL--> [hand-over] --> Book <-- [hand-over] <-- Executor
//	   ^                                                              |
//	   '---- [answer] ----'            EC2 <-- [request] [answer] ----'-- [imds]
//
// Whoever comes to one of the places in brackets stops there. The loop waits until
// everything has stopped, checks, draws what goes on next, and lets that one go:
// so at any time one thing happens, and a seed gives the same run again. Each
// such step that carries something is a delivered event. The agent can die at each
// of them: before, in the middle of (at every durable step of the store), and after.
type sim struct {
	t      *testing.T
	seed   uint64
	draw   *rand.Rand
	r      *region
	world  world
	began  time.Time
	budget int // events until the faults end
	events int
	calm   bool // the faults have ended
	tally  *tally
	trace  uint64 // of all events, to compare two runs
	log    []note // the last ones

	mu      sync.Mutex
	parked  []*item
	arrived chan struct{} // something has stopped

	agenda   agenda
	agendaNo int

	life  *simLife // nil: the agent is down
	lives int
	truth truth
	pods  runtime
	model ledger
	imds  http.Handler
	said  metadataSaid

	interrupted operation // what the last death interrupted
	diedAt      time.Time
	skew        time.Duration // of the node's clock
	bad         string        // the first thing that was wrong
	last        string        // everybody's view at the end
	spoil       spoil         // what a test makes wrong on purpose
}

// spoil is what a test makes wrong in the agent, to see that it is found.
type spoil struct {
	config  func(*Config)    // of each life
	records func(dir string) // between two lives
	devices func(ready map[string]bool, eni string)
}

// note is one line of the table of events.
type note struct {
	at       time.Duration
	life     int
	what, of string
}

// The kinds of places where things stop.
type place int

const (
	handOver place = iota // to the owner of the book
	reading               // the same, for what changes nothing
	request               // to EC2
	answer                // of EC2
	metadata              // to IMDS
	result                // to the runtime
)

// item is somebody who has stopped.
type item struct {
	place   place
	key     string   // who: the order of the items must not depend on who came first
	life    *simLife // nil: the runtime
	due     time.Time
	run     func() // for hand-overs: in the owner's goroutine; for results: in the loop
	wire    *exchange
	call    *call
	release chan verdict
}

type verdict int

const (
	goOn    verdict = iota
	dead            // the life has ended
	gaveUp          // the caller has
	refused         // there was no connection
	broken          // there was one
)

// park stops here until the loop lets go.
func (s *sim) park(it *item) verdict {
	it.release = make(chan verdict)
	s.mu.Lock()
	if it.life != nil && it.life.over {
		s.mu.Unlock()
		return dead
	}
	s.parked = append(s.parked, it)
	s.mu.Unlock()
	select {
	case s.arrived <- struct{}{}:
	default:
	}
	return <-it.release
}

// let releases an item.
func (s *sim) let(it *item, v verdict) {
	s.mu.Lock()
	s.parked = slices.DeleteFunc(s.parked, func(o *item) bool { return o == it })
	s.mu.Unlock()
	it.release <- v
}

// find lists the items that f holds for, in the order of their keys.
func (s *sim) find(f func(*item) bool) []*item {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*item
	for _, it := range s.parked {
		if f(it) {
			found = append(found, it)
		}
	}
	slices.SortStableFunc(found, func(a, b *item) int { return cmp.Or(cmp.Compare(a.place, b.place), strings.Compare(a.key, b.key)) })
	return found
}

// planned is something that happens at a time.
type planned struct {
	at time.Time
	no int
	do func()
}

type agenda []planned

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at.Before(a[j].at) || a[i].at.Equal(a[j].at) && a[i].no < a[j].no
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(planned)) }
func (a *agenda) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// in has do happen after a while.
func (s *sim) in(d time.Duration, do func()) {
	s.agendaNo++
	heap.Push(&s.agenda, planned{time.Now().Add(d), s.agendaNo, do})
}

// event counts something that was delivered.
func (s *sim) event(what, of string) {
	s.events++
	s.tally.event(what)
	s.note(what, of)
}

func (s *sim) note(what, of string) {
	n := note{at: time.Since(s.began), what: what, of: of}
	if s.life != nil {
		n.life = s.life.no
	}
	for _, b := range []byte(what + of) {
		s.trace = (s.trace ^ uint64(b)) * 1099511628211
	}
	s.trace = (s.trace ^ uint64(n.at)) * 1099511628211
	if len(s.log) == 2*logged {
		s.log = s.log[:copy(s.log, s.log[logged:])]
	}
	s.log = append(s.log, n)
}

// logged is how many events a failure shows.
const logged = 50

// wrong says that an invariant does not hold; the run ends.
func (s *sim) wrong(format string, args ...any) {
	if s.bad == "" {
		s.bad = fmt.Sprintf(format, args...)
		s.note("WRONG", s.bad)
	}
}

// chance holds in one of n cases.
func (s *sim) chance(n int) bool { return s.draw.IntN(n) == 0 }

// upTo draws a time.
func (s *sim) upTo(d time.Duration) time.Duration { return time.Duration(s.draw.Int64N(int64(d))) }

// step lets one thing happen; it waits for one until the time. False: there was
// none.
func (s *sim) step(until time.Time) bool {
	synctest.Wait()
	for _, it := range s.find(func(it *item) bool { return it.place == reading }) {
		s.perform(it) // of no consequence, and so no event
	}
	synctest.Wait()
	now := time.Now()
	busy := false // the executor is not waiting for anything yet
	all := s.find(func(it *item) bool {
		busy = busy || it.place == handOver && it.key == executorKey
		return true
	})
	next := until
	var ready []*item
	for _, it := range all {
		if it.due.IsZero() {
			it.due = now.Add(s.latency(it))
		}
		switch {
		case it.due.After(now):
			if it.due.Before(next) {
				next = it.due
			}
		case busy && (it.place == answer || it.place == metadata):
			// Its outcome would meet an executor that has more than one thing
			// to look at, and choose as it likes.
		default:
			ready = append(ready, it)
		}
	}
	n := len(ready)
	if len(s.agenda) > 0 && !s.agenda[0].at.After(now) {
		n++
	}
	if n > 0 {
		if i := s.draw.IntN(n); i < len(ready) {
			s.deliver(ready[i])
		} else {
			heap.Pop(&s.agenda).(planned).do()
		}
		s.verify()
		return true
	}
	if len(s.agenda) > 0 && s.agenda[0].at.Before(next) {
		next = s.agenda[0].at
	}
	if !next.After(now) {
		return false
	}
	timer := time.NewTimer(next.Sub(now))
	defer timer.Stop()
	select {
	case <-s.arrived:
	case <-timer.C:
	}
	return time.Now().Before(until)
}
