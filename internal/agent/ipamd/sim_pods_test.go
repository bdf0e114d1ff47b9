package ipamd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

// runtime is the container runtime of the node: what it was answered is what is
// true of pods.
type runtime struct {
	pods map[string]*simPod
	next int
	load int // pods that there should be
}

// simPod is one container.
type simPod struct {
	id       string
	addr     netip.Addr // what the runtime was answered; zero: nothing yet
	tries    int
	ending   bool
	calls    []*call
	deleting bool // a DEL is under way
}

// call is one ADD or DEL.
type call struct {
	pod    *simPod
	del    bool
	ctx    context.Context
	end    context.CancelFunc
	ended  bool // given up by the runtime
	began  time.Time
	fails  bool // the pod's network cannot be made
	tried  bool // the last hand-over tried to get an address
	met    bool // it has reached the book
	served bool // the last hand-over got it something
	record store.Record
	err    error
}

// operation is what the owner of the book is doing.
type operation struct {
	kind  string
	owner string
}

// addWait is how long an ADD waits at most.
const addWait = 45 * time.Second

var errNoNetwork = errors.New("the pod's namespace has gone")

// arrive has pods come and go, so that there are about as many as the load says.
func (s *sim) arrive() {
	if s.calm || s.bad != "" {
		return
	}
	if s.chance(25) {
		s.pods.load = s.draw.IntN(s.world.most + 1)
	}
	n := 1
	if s.chance(25) {
		n = 1 + s.draw.IntN(max(s.pods.load, 1))
	}
	for ; n > 0 && len(s.pods.pods) < s.pods.load; n-- {
		s.come()
	}
	if len(s.pods.pods) > s.pods.load && s.chance(2) {
		s.go1()
	}
	s.in(time.Duration(s.draw.ExpFloat64()*float64(s.world.pace)), s.arrive)
}

func (s *sim) come() {
	s.pods.next++
	p := &simPod{id: fmt.Sprintf("pod%d", s.pods.next)}
	s.pods.pods[p.id] = p
	s.add(p)
}

// go1 ends a pod that runs.
func (s *sim) go1() {
	for _, id := range sortedKeys(s.pods.pods) {
		if p := s.pods.pods[id]; p.addr.IsValid() && !p.ending {
			s.remove(p)
			return
		}
	}
}

// add is one ADD.
func (s *sim) add(p *simPod) {
	if p.ending || s.pods.pods[p.id] != p {
		return
	}
	p.tries++
	l := s.life
	if l == nil {
		s.again(p)
		return
	}
	c := &call{pod: p, began: time.Now(), fails: !s.calm && s.chance(40)}
	c.ctx, c.end = context.WithCancel(l.ctx)
	p.calls = append(p.calls, c)
	if !s.calm && s.chance(30) {
		s.in(s.upTo(5*time.Second), func() { s.giveUp(c) })
	}
	key := fmt.Sprintf("add %s %d", p.id, p.tries)
	s.event("add", p.id)
	go func() {
		err := l.book.Await(c.ctx, pod(p.id), addWait, l.doPod(key, c), func(b *Book) error { return s.hold(l, c, b) })
		c.err = err
		s.park(&item{place: result, key: key, call: c, run: func() { s.added(l, c) }})
	}()
}

// giveUp is a runtime that waits for no answer any more.
func (s *sim) giveUp(c *call) {
	if !slices.Contains(c.pod.calls, c) || c.ended {
		return
	}
	s.event("give up", c.pod.id)
	c.ended = true
	for _, it := range s.find(func(it *item) bool { return it.call == c && it.place == handOver }) {
		s.let(it, gaveUp)
	}
	c.end()
}

// doPod is the hand-over of a call.
func (l *simLife) doPod(key string, c *call) Do {
	return func(ctx context.Context, f func(*Book)) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch l.s.park(&item{place: handOver, key: key, life: l, call: c, run: func() {
			c.tried = false
			f(l.book)
			if !c.tried && !c.del {
				l.leave(c)
			}
		}}) {
		case dead, gaveUp:
			return context.Canceled
		}
		return nil
	}
}

// leave takes a call out of the queue as we know it.
func (l *simLife) leave(c *call) {
	l.waiters = slices.DeleteFunc(l.waiters, func(o *call) bool { return o == c })
}

// hold is the part of an ADD that runs in the owner's goroutine.
func (s *sim) hold(l *simLife, c *call, b *Book) (err error) {
	c.tried = true
	owner := pod(c.pod.id)
	had, again := b.Held()[owner]
	var free int
	if len(l.waiters) > 0 {
		free = b.Stats().Free
	}
	c.record, err = b.Hold(store.Record{ContainerID: c.pod.id, IfName: "eth0", PodName: c.pod.id, PodNamespace: "default"})
	switch {
	case errors.Is(err, ipam.ErrExhausted):
		if !slices.Contains(l.waiters, c) {
			l.waiters = append(l.waiters, c)
		}
		return err
	case err != nil:
		s.wrong("hold for %s: %v", c.pod.id, err)
		return err
	case again:
		if had.Addr != c.record.Addr {
			s.wrong("%s asked again and got %s in place of %s", c.pod.id, c.record.Addr, had.Addr)
		}
		l.leave(c)
		return nil
	}
	first := slices.IndexFunc(l.waiters, func(o *call) bool { return o.pod == c.pod })
	if first < 0 {
		first = len(l.waiters)
	}
	if first > 0 && free <= first {
		s.wrong("%s got an address before %s and %d others who came earlier, with %d free", c.pod.id, l.waiters[0].pod.id, first-1, free)
	}
	l.leave(c)
	c.served = true
	s.model.grant(s, l, c.record)
	if c.fails {
		l.op.kind = "cancel"
		b.Cancel(owner)
		s.model.cancel(owner.ContainerID)
		return errNoNetwork
	}
	return nil
}

// added is the answer to an ADD at the runtime.
func (s *sim) added(l *simLife, c *call) {
	p := c.pod
	c.end()
	l.leave(c)
	p.calls = slices.DeleteFunc(p.calls, func(o *call) bool { return o == c })
	lost := l.over || c.ended || !s.calm && s.chance(50)
	if took := time.Since(c.began); took > addWait+time.Second {
		s.wrong("the ADD of %s took %s", p.id, took)
	}
	var empty *EmptyError
	switch {
	case lost:
		s.event("add unanswered", p.id)
	case c.err == nil:
		s.event("added", p.id+" "+c.record.Addr.String())
		if p.addr.IsValid() && p.addr != c.record.Addr {
			s.wrong("%s was answered %s, and now %s", p.id, p.addr, c.record.Addr)
		}
		s.model.answered(s, p.id, c.record.Addr)
		if !p.addr.IsValid() {
			p.addr = c.record.Addr
			if !s.calm && s.chance(20) { // a runtime that asks twice
				s.add(p)
			}
			s.in(time.Duration(s.draw.ExpFloat64()*float64(s.world.lifetime)), func() {
				if !s.calm {
					s.remove(p)
				}
			})
		}
		return
	case errors.As(c.err, &empty):
		s.event("add refused", p.id)
		if empty.Error() == "" {
			s.wrong("%s was refused without a reason", p.id)
		}
	case errors.Is(c.err, errNoNetwork):
		s.event("add failed", p.id)
	default:
		s.wrong("the ADD of %s: %v", p.id, c.err)
	}
	if !p.addr.IsValid() {
		s.again(p)
	}
}

// again asks once more for the same container, or ends it.
func (s *sim) again(p *simPod) {
	if len(p.calls) > 0 || p.ending {
		return
	}
	if p.tries > 4 || s.chance(3) {
		s.remove(p)
		return
	}
	s.in(100*time.Millisecond+s.upTo(4*time.Second), func() { s.add(p) })
}

// remove is a DEL, which is asked for until it is answered.
func (s *sim) remove(p *simPod) {
	if s.pods.pods[p.id] != p || p.deleting {
		return
	}
	p.ending = true
	for _, c := range slices.Clone(p.calls) {
		s.giveUp(c)
	}
	l := s.life
	if l == nil || len(p.calls) > 0 {
		s.in(100*time.Millisecond+s.upTo(2*time.Second), func() { s.remove(p) })
		return
	}
	p.tries++
	p.deleting = true
	c := &call{pod: p, del: true, began: time.Now(), ctx: l.ctx}
	key := fmt.Sprintf("del %s %d", p.id, p.tries)
	s.event("del", p.id)
	go func() {
		var err error
		if lost := l.doPod(key, c)(l.ctx, func(b *Book) {
			if err = b.Release(pod(p.id)); err == nil {
				s.model.release(p.id)
			}
		}); lost != nil {
			err = lost
		}
		c.err = err
		s.park(&item{place: result, key: key, run: func() { s.removed(l, c) }})
	}()
}

// removed is the answer to a DEL at the runtime.
func (s *sim) removed(l *simLife, c *call) {
	p := c.pod
	p.deleting = false
	if l.over || !s.calm && s.chance(50) {
		s.event("del unanswered", p.id)
		s.in(100*time.Millisecond+s.upTo(2*time.Second), func() { s.remove(p) })
		return
	}
	if c.err != nil {
		s.wrong("the DEL of %s: %v", p.id, c.err)
	}
	s.event("deleted", p.id)
	if took := time.Since(c.began); took > time.Second {
		s.wrong("the DEL of %s took %s", p.id, took)
	}
	s.model.deleted(s, p.id)
	delete(s.pods.pods, p.id)
}
