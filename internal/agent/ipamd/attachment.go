package ipamd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

// Hold gives the attachment of r an address and records it before it returns.
// Address and ENI of r are set here; an attachment that holds one keeps it, with
// the record that it has. It fails with an [ipam.ExhaustedError] where none is
// free, or where those that are free belong to who came earlier.
//
// An address that the records say is somebody else's is kept from everybody, and
// the next one is taken.
func (b *Book) Hold(r store.Record) (store.Record, error) {
	owner := ownerOf(r)
	if held, ok := b.records[owner]; ok {
		return held, nil
	}
	for {
		if _, had := b.pool.Lookup(owner); !had {
			if st := b.pool.Stats(b.now()); st.Free <= b.queue.place(owner) {
				return store.Record{}, &ipam.ExhaustedError{Stats: st, Now: b.now()}
			}
		}
		a, err := b.pool.Assign(owner, b.now())
		if err != nil {
			return store.Record{}, err
		}
		// An ENI that was detached and is back has its addresses still; the next agent
		// must not take this one for lost.
		if err := b.strike([]netip.Addr{a.Addr}); err != nil {
			b.pool.Cancel(owner)
			return store.Record{}, err
		}
		r.Addr, r.ENI, r.CreatedAt, r.ReleasedAt = a.Addr, a.ENI, b.now(), time.Time{}
		err = b.store.Put(r)
		if errors.Is(err, store.ErrHeld) {
			b.log.Error("the records say that somebody else holds a free address; it stays out of use", "addr", a.Addr, "error", err)
			b.pool.Reserve(a.Addr)
			continue
		}
		if err != nil {
			b.pool.Cancel(owner)
			return store.Record{}, err
		}
		delete(b.cooling, a.Addr)
		b.records[owner] = r
		b.wake()
		return r, nil
	}
}

// Cancel undoes a Hold whose address never reached the network, so that an ADD
// that fails and is tried again does not use up the pool.
func (b *Book) Cancel(owner ipam.Owner) {
	a, ok := b.pool.Lookup(owner)
	if !ok {
		return
	}
	if err := b.store.Delete(a.Addr); err != nil {
		// The record says held: the address must stay held.
		b.log.Error("remove address record; the address stays out of use until the container is deleted", "addr", a.Addr, "error", err)
		return
	}
	delete(b.records, owner)
	b.pool.Cancel(owner)
	b.tell()
}

// Release takes the address from owner and lets it rest; the record says so when
// it returns. That owner holds nothing is no error.
func (b *Book) Release(owner ipam.Owner) error {
	a, ok := b.pool.Lookup(owner)
	if !ok {
		return nil
	}
	now := b.now()
	r := b.records[owner]
	r.Addr, r.ENI, r.ContainerID, r.IfName = a.Addr, a.ENI, owner.ContainerID, owner.IfName
	r.ReleasedAt = now
	if err := b.store.Put(r); err != nil {
		return err
	}
	delete(b.records, owner)
	delete(b.lost, owner)
	b.pool.Release(owner, now)
	b.cooling[a.Addr] = now.Add(b.cfg.CoolDown)
	b.tell()
	b.wake()
	return nil
}

// Tick does what time asks for: records of addresses that have cooled down go,
// and journal entries that nobody needs any more.
func (b *Book) Tick() {
	now := b.now()
	for addr, until := range b.cooling {
		if now.Before(until) {
			continue
		}
		if err := b.store.Delete(addr); err != nil {
			b.log.Error("remove record of a cooled down address", "addr", addr, "error", err)
			continue
		}
		delete(b.cooling, addr)
	}
	b.forgetLeft(now)
}

// Outlook is what an ADD that found no address has to expect.
func (b *Book) Outlook(wait time.Duration) ipam.Outlook {
	now := b.now()
	o := ipam.Refusal(b.State(), b.cfg.Targets, now)
	if !o.Free.IsZero() && o.Free.Sub(now) < wait {
		o.Hope = true
	} else {
		o.Free = time.Time{}
	}
	for i, id := range b.arriving {
		o.Hope = true
		if !b.missing(id) {
			o.Text = fmt.Sprintf("no free address yet: the device of %s has not appeared", id)
			break
		}
		if i == 0 {
			o.Text = fmt.Sprintf("no free address yet: the device of %s is gone, and it is not certain yet that the ENI is", id)
		}
	}
	return o
}

// Await runs try until it does not fail for want of an address, in owner's turn. Do
// runs a function in the goroutine that owns the book; try is run there, and calls
// [Book.Hold]. It gives up when ctx ends, or with an [*EmptyError] where nothing can
// be hoped for within wait. It may be called from any goroutine.
func (b *Book) Await(ctx context.Context, owner ipam.Owner, wait time.Duration, do Do, try func(*Book) error) error {
	// In a burst the owner is busy with those who came before, and EC2 is asked
	// meanwhile: for this one too, though it has not had its turn.
	b.coming.Add(1)
	turn := sync.OnceFunc(func() {
		b.coming.Add(-1)
		b.wake() // it may have kept something from being given back, and got nothing
	})
	defer turn()
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	var place *Waiter
	defer func() {
		if place != nil { // also where ctx has ended, but not where nobody is left to listen
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = do(ctx, func(b *Book) { b.Leave(place) })
		}
	}()
	late := false
	for {
		var o ipam.Outlook
		var rest time.Duration // until the next address has rested; by the book's clock
		var first bool         // of those who wait: it minds that
		var err error
		lost := do(ctx, func(b *Book) {
			turn()
			err = try(b)
			exhausted := errors.Is(err, ipam.ErrExhausted)
			switch {
			case !exhausted && place != nil:
				// Here and not when the call ends: a plan that is made in
				// between would ask EC2 for a pod that is served.
				b.Leave(place)
				place = nil
			case exhausted:
				// From the same state that had no address: a moment later
				// there may be one, and nothing left to plan.
				if place == nil {
					place = b.Wait(owner, wait)
				}
				o = b.Outlook(wait)
				rest, first = o.Free.Sub(b.now()), b.queue.place(owner) == 0
			}
		})
		if lost != nil {
			return lost
		}
		if !errors.Is(err, ipam.ErrExhausted) {
			return err
		}
		if late {
			return &EmptyError{Outlook: o, Waited: wait}
		}
		if !o.Hope {
			return &EmptyError{Outlook: o}
		}
		var cooled <-chan time.Time
		if first && !o.Free.IsZero() {
			cooled = time.After(rest)
		}
		select {
		case <-place.C:
		case <-cooled:
		case <-deadline.C: // one last look, also for what to say
			late = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Do runs a function in the goroutine that owns the book, and returns when it
// has. It fails, without having run it, when ctx ends.
type Do func(context.Context, func(*Book)) error

// EmptyError says why an ADD got no address. It is an [ipam.ErrExhausted].
type EmptyError struct {
	Outlook ipam.Outlook
	Waited  time.Duration // 0: there was nothing to wait for
}

func (e *EmptyError) Error() string { return e.Outlook.Text }
func (e *EmptyError) Unwrap() error { return ipam.ErrExhausted }
