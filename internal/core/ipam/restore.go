package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Restored is what the durable record says at start.
type Restored struct {
	Held       []Assignment
	Cooling    []Cooling
	Unreadable []netip.Addr // addresses whose record exists and cannot be read
}

// Restore takes over the record at start, before or after the first SetENIs.
//
// What contradicts itself (one address with two owners, one owner with two
// addresses) is reserved rather than guessed, and reported as one error that is
// an [ErrConflict] for each; all else is restored nevertheless.
//
// The record's times are wall-clock times of the past. One in the future means
// that the clock was set back meanwhile: the address then rests a full
// cool-down from now, no longer.
func (p *Pool) Restore(r Restored, now time.Time) error {
	var errs []error
	for _, a := range r.Unreadable {
		p.Reserve(a)
	}
	// In address order, so that which of two conflicting records wins does
	// not depend on the order of a directory.
	held := slices.SortedFunc(slices.Values(r.Held), func(a, b Assignment) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Owner.String(), b.Owner.String()))
	})
	for _, a := range held {
		if err := p.restoreHeld(a); err != nil {
			errs = append(errs, err)
		}
	}
	for _, c := range r.Cooling {
		s := p.slot(c.Addr, c.ENI)
		released := c.ReleasedAt
		if released.After(now) {
			released = now
		}
		until := released.Add(p.coolDown)
		switch s.state {
		case Assigned, Reserved: // held is the stronger claim
		case Free, Leaving:
			p.cool(s, until)
		case CoolingDown:
			if until.After(s.until) {
				p.cool(s, until)
			}
		}
	}
	p.settle(now)
	return errors.Join(errs...)
}

func (p *Pool) restoreHeld(a Assignment) error {
	s := p.slot(a.Addr, a.ENI)
	other := p.owners[a.Owner]
	switch {
	case other == s: // restored before
		return nil
	case s.state == Reserved:
		return fmt.Errorf("restore %s for %s: %w: the address is reserved", a.Addr, a.Owner, ErrConflict)
	case s.state == Assigned:
		was := s.owner
		p.Reserve(a.Addr)
		return fmt.Errorf("restore %s for %s: %w: %s holds it too; reserved", a.Addr, a.Owner, ErrConflict, was)
	case other != nil:
		p.Reserve(a.Addr)
		return fmt.Errorf("restore %s for %s: %w: it holds %s too; reserved", a.Addr, a.Owner, ErrConflict, other.addr)
	}
	p.hold(s, a.Owner)
	return nil
}
