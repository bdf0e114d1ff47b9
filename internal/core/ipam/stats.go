package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Entry describes one address, for people and for the planner.
type Entry struct {
	Addr   netip.Addr
	ENI    string
	Prefix netip.Prefix // the /28 it belongs to; zero for a single address
	State  AddrState
	Owner  Owner     // of an assigned address
	Until  time.Time // of a cooling one: when the cool-down ends
	Since  time.Time // of a free one: since when, or when it was first seen
	Orphan bool      // no ENI has the address any more

	// Disputed: whether the ENI has it is not certain, so that no new pod gets it.
	Disputed      bool
	DisputedSince time.Time
}

// Stats counts the addresses that ENIs have, by state; the six states add up to
// Total. Orphaned ones, which no ENI has, are counted apart, and what is free on
// an excluded ENI not at all.
type Stats struct {
	Total, Free, Assigned, Cooling, Reserved int
	Leaving                                  int
	Disputed                                 int // that would be free
	Orphaned                                 int
	NextFree                                 time.Time // when the next cool-down ends; zero if none
}

// ExhaustedError says why nothing could be assigned. It is an [ErrExhausted].
type ExhaustedError struct {
	Stats Stats
	Now   time.Time
}

func (e *ExhaustedError) Error() string {
	s := e.Stats
	if s.Total == 0 {
		return ErrExhausted.Error() + ": no ENI of the node has a pod address yet"
	}
	text := fmt.Sprintf("%s: %d in all, %d assigned, %d cooling down", ErrExhausted, s.Total, s.Assigned, s.Cooling)
	if s.Reserved > 0 {
		text += fmt.Sprintf(", %d reserved because their records cannot be trusted", s.Reserved)
	}
	if s.Leaving > 0 {
		text += fmt.Sprintf(", %d being given back", s.Leaving)
	}
	if s.Disputed > 0 {
		text += fmt.Sprintf(", %d not certain to be the node's", s.Disputed)
	}
	if !s.NextFree.IsZero() {
		text += fmt.Sprintf("; the next is free in %s", seconds(s.NextFree.Sub(e.Now)))
	}
	return text
}

func (e *ExhaustedError) Unwrap() error { return ErrExhausted }

// seconds rounds up, so that waiting as long as we say is always enough.
func seconds(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}

// Stats counts.
func (p *Pool) Stats(now time.Time) Stats {
	p.settle(now)
	var st Stats
	for _, s := range p.slots {
		if s.gone {
			if s.state == Assigned {
				st.Orphaned++
			}
			continue
		}
		if s.state == Free && p.excluded[s.eni] {
			continue
		}
		st.Total++
		switch s.state {
		case Free:
			if s.disputed() {
				st.Disputed++
			} else {
				st.Free++
			}
		case Assigned:
			st.Assigned++
		case Reserved:
			st.Reserved++
		case Leaving:
			st.Leaving++
		case CoolingDown:
			st.Cooling++
			if st.NextFree.IsZero() || s.until.Before(st.NextFree) {
				st.NextFree = s.until
			}
		}
	}
	return st
}

// Entries lists every address the pool remembers, in address order.
func (p *Pool) Entries(now time.Time) []Entry {
	p.settle(now)
	entries := make([]Entry, 0, len(p.slots))
	for _, s := range p.slots {
		e := Entry{Addr: s.addr, ENI: s.eni, State: s.state, Owner: s.owner, Orphan: s.gone,
			Disputed: s.disputed(), DisputedSince: s.disputedSince}
		if s.group != nil {
			e.Prefix = s.group.prefix
		}
		switch s.state {
		case CoolingDown:
			e.Until = s.until
		case Free:
			e.Since = s.since
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return a.Addr.Compare(b.Addr) })
	return entries
}
