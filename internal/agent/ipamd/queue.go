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
	calls int // a runtime may ask again while its first call still waits
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

// Wait gives owner a place at the end, or the one that it has. Every Wait needs
// a [Book.Leave].
func (b *Book) Wait(owner ipam.Owner) *Waiter {
	if i := b.queue.place(owner); i < len(b.queue) {
		b.queue[i].calls++
		return b.queue[i]
	}
	w := &Waiter{C: make(chan struct{}, 1), owner: owner, since: b.now(), calls: 1}
	b.queue = append(b.queue, w)
	b.wake()
	return w
}

// Leave ends a wait, whatever came of it.
func (b *Book) Leave(w *Waiter) {
	if w.calls--; w.calls > 0 {
		return
	}
	b.queue = slices.DeleteFunc(b.queue, func(o *Waiter) bool { return o == w })
	b.tell() // who comes after is one further on
}

// Waiting is how many ADDs wait.
func (b *Book) Waiting() int { return len(b.queue) }

// tell lets everybody who waits look again.
func (b *Book) tell() {
	for _, w := range b.queue {
		select {
		case w.C <- struct{}{}:
		default:
		}
	}
}
