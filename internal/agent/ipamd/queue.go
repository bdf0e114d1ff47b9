package ipamd

import (
	"slices"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
)

// Waiter is the place of an ADD that found no address.
type Waiter struct {
	// C says that something has changed: look again. One pending message is
	// enough.
	C     chan struct{}
	owner ipam.Owner
	since time.Time
	wait  time.Duration // for which it would wait at most
	calls int           // a runtime may ask again while its first call still waits
}

// look lets it look again.
func (w *Waiter) look() {
	select {
	case w.C <- struct{}{}:
	default:
	}
}

// queue is who waits, in the order they came.
type queue []*Waiter

// place is how many are before owner: all of them where it does not wait.
func (q queue) place(owner ipam.Owner) int {
	if i := slices.IndexFunc(q, func(w *Waiter) bool { return w.owner == owner }); i >= 0 {
		return i
	}
	return len(q)
}

// Wait gives owner a place at the end, or the one that it has. It waits for so long at
// most. Every Wait needs a [Book.Leave].
func (b *Book) Wait(owner ipam.Owner, wait time.Duration) *Waiter {
	if i := b.queue.place(owner); i < len(b.queue) {
		b.queue[i].calls++
		return b.queue[i]
	}
	w := &Waiter{C: make(chan struct{}, 1), owner: owner, since: b.now(), wait: wait, calls: 1}
	b.queue = append(b.queue, w)
	b.wake()
	return w
}

// Leave ends a wait, whatever came of it.
func (b *Book) Leave(w *Waiter) {
	if w.calls--; w.calls > 0 {
		w.look() // the other call: this one may have been told, and may have been served
		return
	}
	b.queue = slices.DeleteFunc(b.queue, func(o *Waiter) bool { return o == w })
	b.tell() // who comes after is one further on
}

// Waiting is how many ADDs wait.
func (b *Book) Waiting() int { return len(b.queue) }

// tell lets those look again who may fare otherwise than when they looked last: as many
// as there are free addresses, the first in any case, who minds when the next one has
// rested, and all for whom there is no hope any more. Each look is a plan, so that to let
// everybody look at everything would take as many as the square of who waits.
func (b *Book) tell() {
	if len(b.queue) == 0 {
		return
	}
	able := max(b.pool.Stats(b.now()).Free, 1)
	asked, hope := time.Duration(-1), true
	for i, w := range b.queue {
		if i >= able {
			if asked != w.wait { // usually they are all the same
				asked, hope = w.wait, b.Outlook(w.wait).Hope
			}
			if hope {
				continue
			}
		}
		w.look()
	}
}
