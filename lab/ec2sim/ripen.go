package ec2sim

import (
	"cmp"
	"slices"
	"time"
)

// Some things become true by themselves when their time comes. There is no
// timer: each call first catches up with what is due, so nobody can tell the
// difference but those who wait, who ask [Cloud.Next] for how long.

// due is a moment at which something of an attachment is to happen.
type due struct {
	at                      time.Time
	region, eni, attachment string
}

// late gives an attachment that is being made, or ended, the moments of its
// progress. Source of the order of size: Config.Attach is the caller's; that the
// device follows the API is seen (cilium/cilium, pull request 47570).
func (s *state) late(a Attachment) Attachment {
	if s.cfg.Attach <= 0 {
		return a
	}
	half := s.cfg.Attach / 2
	a.Until = s.now.Add(half + s.draw(half))
	a.DeviceAt = a.Until.Add(s.draw(half))
	return a
}

// draw gives a part of d that is left to chance.
func (s *state) draw(d time.Duration) time.Duration {
	s.draws++
	return time.Duration(fraction(mix(s.draws+mix(s.cfg.Chance+1)*seedStep)) * float64(d))
}

// expect notes the moments of an attachment. A call that is undone leaves its
// notes: they find nothing to do.
func (s *state) expect(eni string, a Attachment) {
	for _, at := range []time.Time{a.Until, a.DeviceAt} {
		if !at.After(s.now) {
			continue
		}
		d := due{at, s.region, eni, a.ID}
		i, _ := slices.BinarySearchFunc(s.due, d, func(x, y due) int { return cmp.Or(x.at.Compare(y.at), -1) })
		s.due = slices.Insert(s.due, i, d)
	}
}

// ripen does all that is due, each as of its own time, and reports whether
// there was anything.
func (s *state) ripen() bool {
	n := 0
	for ; n < len(s.due) && !s.due[n].at.After(s.now); n++ {
		d := s.due[n]
		s.regional = s.regions[d.region]
		s.progress(d)
		s.commit(d.at)
	}
	s.due = slices.Delete(s.due, 0, n)
	return n > 0
}

// progress takes one attachment a step further, if it is time.
func (s *state) progress(d due) {
	e, ok := s.enis.get(d.eni)
	if !ok || e.Attachment == nil || e.Attachment.ID != d.attachment || e.Attachment.Until.After(d.at) {
		return
	}
	switch a := *e.Attachment; {
	case a.Status == StatusAttaching:
		a.Status = StatusAttached
		e.Attachment = &a
		s.enis.put(e.ID, e)
	case a.Status == StatusDetaching && !s.cfg.Devices: // else who has the device says when
		s.detach(e)
	}
}

// Next is when something will become true by itself, at the soonest; zero if
// nothing will. Whoever makes real devices looks again then.
func (c *Cloud) Next() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.outageNow().Until // zero: there is none, or one without end
	if len(c.state.due) > 0 && (next.IsZero() || c.state.due[0].at.Before(next)) {
		next = c.state.due[0].at
	}
	return next
}
