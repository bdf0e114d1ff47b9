package ec2sim

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// EC2 is eventually consistent: what a call has changed is not always what the
// next one sees ("Ensuring consistency in Amazon EC2 API requests", Amazon EC2
// Developer Guide). Here a request with bad luck meets an old state:
//
//	calls     create     assign              describe
//	time   -----|----------|--------------------|---->
//	state       A          B      |<--- old ----|       the answer is B, A, or
//	                                                    what was before A
//
// How old follows from Config.Chance and the number of the request, never more
// than Config.Lag; one request in two meets the state of now. A read sees all of
// the old state. A write works on the state of now, but what it names must have
// existed in the old one. Two requests of one caller need not see time go
// forward.

// commit is what one call has written.
type commit struct {
	at     time.Time
	writes []write
}

// remember keeps what a call wrote, for as long as somebody may look back.
func (s *state) remember(at time.Time, writes []write) {
	if s.cfg.Memory <= 0 {
		return
	}
	s.past = append(s.past, commit{at, slices.Clone(writes)})
	s.past = forget(s.past, func(c commit) time.Time { return c.at }, s.now.Add(-s.cfg.Memory))
}

// forget drops the elements at the front that are no younger than a time.
func forget[T any](list []T, at func(T) time.Time, t time.Time) []T {
	n := 0
	for n < len(list) && !at(list[n]).After(t) {
		n++
	}
	clear(list[:n])
	return list[n:]
}

// asOf lets look see the state as it was at t, as far back as is remembered. It
// cannot change anything.
func (s *state) asOf(t time.Time, look func()) {
	n := len(s.past)
	for n > 0 && s.past[n-1].at.After(t) {
		n--
		for _, w := range slices.Backward(s.past[n].writes) {
			w.undo()
		}
	}
	now, start := s.now, s.save()
	s.now = t
	defer func() {
		s.rollback(start)
		s.now = now
		for _, c := range s.past[n:] {
			for _, w := range c.writes {
				w.redo()
			}
		}
	}()
	look()
}

// birth is when an identifier was given.
type birth struct {
	id string
	at time.Time
}

func (s *state) bear(id string) {
	if s.cfg.Lag <= 0 {
		return
	}
	s.births = forget(s.births, func(b birth) time.Time { return b.at }, s.now.Add(-s.cfg.Lag))
	s.births = append(s.births, birth{id, s.now})
}

// Propagate makes all that has been done so far visible to every request, as
// time does.
func (c *Cloud) Propagate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.past, c.state.births = nil, nil
}

// staleness draws how old the state is that a request meets.
func (c *Cloud) staleness(request uint64) time.Duration {
	cfg := c.state.cfg
	drawn := mix(request + mix(cfg.Chance)*seedStep)
	if cfg.Lag <= 0 || drawn&1 == 0 {
		return 0
	}
	return time.Duration(fraction(drawn) * float64(cfg.Lag))
}

// fraction makes a number from 0 to 1 of a drawn one.
func fraction(drawn uint64) float64 { return float64(drawn>>11) / (1 << 53) }

// reads tells the actions that change nothing.
func reads(action string) bool {
	for _, verb := range []string{"Describe", "Get", "List", "Search"} {
		if strings.HasPrefix(action, verb) {
			return true
		}
	}
	return false
}

// later gives the view that a request is carried out in, once its delay is over.
func (c *Cloud) later(r *http.Request, req *request, root *node) (*Cloud, error) {
	cfg := c.state.cfg
	d, ok := cfg.Delays[req.Action]
	if !ok {
		d = cfg.Delay
	}
	if !c.wait(r, d) {
		return nil, r.Context().Err() // nobody is there to read it
	}
	stale := c.staleness(req.number)
	if reads(req.Action) {
		view := *c
		view.stale = stale
		return &view, nil
	}
	return c, c.propagated(root, stale)
}

// propagated refuses a write that names what did not exist yet when the state
// was as it meets it.
func (c *Cloud) propagated(root *node, stale time.Duration) error {
	if stale <= 0 {
		return nil
	}
	named := map[string]bool{}
	root.walk(func(value string) { named[value] = true })
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.state.cfg.Now().Add(-stale)
	for _, b := range c.state.births {
		if named[b.id] && b.at.After(t) {
			return kindOf(b.id).missing(b.id)
		}
	}
	return nil
}

// walk visits the values of a tree, in the order of their names.
func (n *node) walk(visit func(value string)) {
	if n.given {
		visit(n.value)
	}
	for _, name := range slices.Sorted(maps.Keys(n.kids)) {
		n.kids[name].walk(visit)
	}
}
