package agent

import (
	"maps"
	"sync"

	"github.com/fairway-cni/fairway/internal/core/ipam"
)

// supply is what ADDs that wait and the refill loop tell each other: who waits,
// what is on its way, what was refused. It is the one piece of state that both
// sides touch, so it has the one lock.
type supply struct {
	kick chan struct{} // wakes the refill loop; one pending wake-up is enough

	mu      sync.Mutex
	waiting int
	flight  []ipam.Change
	blocked map[ipam.Kind]ipam.Block
	turn    chan struct{} // closed when addresses may have come, or never will
}

func newSupply() *supply {
	return &supply{
		kick:    make(chan struct{}, 1),
		blocked: make(map[ipam.Kind]ipam.Block),
		turn:    make(chan struct{}),
	}
}

// wake makes the refill loop plan again.
func (s *supply) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// wait says that one more ADD waits, until waitDone.
func (s *supply) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting++
	s.wake()
}

// news ends with what changes after this call; take it before looking, so that
// nothing is missed in between.
func (s *supply) news() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turn
}

func (s *supply) waitDone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
}

// changed lets every ADD that waits look again.
func (s *supply) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.turn)
	s.turn = make(chan struct{})
}

func (s *supply) begin(c ipam.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight = append(s.flight, c)
}

// end takes the change of the kind off the flight, with EC2's refusal if it was
// one.
func (s *supply) end(kind ipam.Kind, refused *ipam.Block) {
	s.mu.Lock()
	s.flight = nil // the refill loop has one at a time
	delete(s.blocked, kind)
	if refused != nil {
		s.blocked[kind] = *refused
	}
	s.mu.Unlock()
	s.changed()
}

func (s *supply) blocks() map[ipam.Kind]ipam.Block {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.blocked)
}

// state is the planner's view. It is called in the node loop.
func (s *supply) state(n *nodeState, self identity) ipam.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ipam.State{
		InstanceType: self.instanceType,
		Limits:       self.limits,
		ENIs:         n.enis,
		Others:       n.others,
		Pool:         n.pool.Stats(n.now()),
		Waiting:      s.waiting,
		InFlight:     append([]ipam.Change(nil), s.flight...),
		Blocked:      maps.Clone(s.blocked),
	}
}
