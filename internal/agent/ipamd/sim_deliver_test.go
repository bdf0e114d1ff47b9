package ipamd

import (
	"testing/synctest"
	"time"
)

// latency is how long something is under way that has just stopped.
func (s *sim) latency(it *item) time.Duration {
	switch it.place {
	case handOver:
		if !s.calm && s.chance(60) { // the owner is busy
			return s.upTo(30 * time.Millisecond)
		}
	case request:
		return time.Millisecond + s.upTo(20*time.Millisecond)
	case answer:
		if !s.calm && s.chance(50) {
			return s.upTo(3 * time.Second)
		}
		return s.world.delay/2 + s.upTo(s.world.delay)
	case metadata:
		return time.Millisecond + s.upTo(5*time.Millisecond)
	}
	return 0
}

// perform runs an item of no consequence.
func (s *sim) perform(it *item) {
	it.life.work <- func(*Book) { it.run() }
	<-it.life.done
	s.let(it, goOn)
}

// deliver lets an item go on, or the agent die instead.
func (s *sim) deliver(it *item) {
	switch it.place {
	case handOver:
		s.handOver(it)
	case request:
		s.request(it)
	case answer:
		s.answer(it)
	case metadata:
		if s.dies(atWire) {
			s.crash("at a reading")
			return
		}
		s.event("metadata read", "")
		s.let(it, goOn)
	case result:
		s.let(it, goOn)
		it.run()
	}
}

func (s *sim) handOver(it *item) {
	if s.dies(atHandOver) {
		s.crash("before a hand-over")
		return
	}
	l := it.life
	op := operation{kind: "the executor's"}
	if c := it.call; c != nil {
		op = operation{kind: "hold", owner: c.pod.id}
		if c.del {
			op.kind = "release"
		}
		s.note("hand-over", it.key) // counted below, where it came to anything
	} else {
		s.note("executor", "") // what it brings has been counted as an answer
	}
	if !s.op(l, op, func(*Book) { it.run() }) {
		return
	}
	s.checkFlight(l)
	if c := it.call; c != nil && (!c.met || c.served) {
		c.met, c.served = true, false
		s.event("hand-over", it.key)
	}
	if s.dies(atHandOver) {
		s.crash("after a hand-over")
		return
	}
	s.let(it, goOn)
}

// request brings a request to EC2, or not.
func (s *sim) request(it *item) {
	if s.dies(atWire) {
		s.crash("before a request")
		return
	}
	if s.lost() {
		s.event("request lost", it.wire.text)
		v := refused
		if s.chance(2) {
			v = broken
		}
		s.let(it, v)
		return
	}
	s.checkRequest(it.wire)
	s.event("request", it.wire.text)
	s.let(it, goOn)
	synctest.Wait()
	s.look()
}

// answer brings EC2's answer to the agent, or not.
func (s *sim) answer(it *item) {
	if s.dies(atWire) {
		s.crash("before the answer of EC2")
		return
	}
	if s.lost() {
		s.event("answer lost", it.wire.text)
		s.truth.disturbed = time.Now()
		s.let(it, broken)
		return
	}
	s.event("answer", it.wire.action+" "+it.wire.code())
	s.let(it, goOn)
}

func (s *sim) lost() bool {
	if s.calm {
		return false
	}
	return s.world.losing && s.chance(4) || s.chance(s.world.loss)
}
