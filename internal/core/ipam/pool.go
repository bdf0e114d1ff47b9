package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// DefaultCoolDown is how long a released address rests. Others go on sending to
// it for a while: service endpoints, DNS answers and connections outlive a pod.
// Thirty seconds is the default that users of the AWS VPC CNI know (its
// IP_COOLDOWN_PERIOD).
const DefaultCoolDown = 30 * time.Second

var (
	// ErrExhausted says that no address is free. The error is an
	// [*ExhaustedError], which has the numbers.
	ErrExhausted = errors.New("no free address")
	// ErrConflict says that what was restored contradicts itself.
	ErrConflict = errors.New("conflicting record")
)

// Owner is who holds an address: one interface of one container, the pair that
// CNI promises to be unique on a node.
type Owner struct {
	ContainerID string
	IfName      string
}

func (o Owner) String() string { return o.ContainerID + "/" + o.IfName }

// Assignment is an address and the ENI that the VPC delivers it to.
type Assignment struct {
	Owner Owner
	Addr  netip.Addr
	ENI   string // the last ENI known to have it
}

// Cooling is an address that was released and may still be resting.
type Cooling struct {
	Addr       netip.Addr
	ENI        string
	ReleasedAt time.Time
}

// AddrState is what the pool thinks of one address.
type AddrState int

const (
	Free AddrState = iota
	Assigned
	CoolingDown // resting after a release
	// Reserved addresses are held by someone whom we cannot name: the record
	// is unreadable, or contradicts another. They are not given out until a
	// person or a clean-up has settled the question.
	Reserved
)

func (s AddrState) String() string {
	switch s {
	case Free:
		return "free"
	case Assigned:
		return "assigned"
	case CoolingDown:
		return "cooling"
	case Reserved:
		return "reserved"
	}
	return fmt.Sprintf("AddrState(%d)", int(s))
}

// Entry describes one address, for people and for the snapshot.
type Entry struct {
	Addr   netip.Addr
	ENI    string
	State  AddrState
	Owner  Owner     // of an assigned address
	Until  time.Time // when the cool-down ends
	Orphan bool      // no ENI has the address any more
}

// Stats counts the addresses that ENIs have, by state; the four states add up
// to Total. Orphaned ones, which no ENI has, are counted apart.
type Stats struct {
	Total, Free, Assigned, Cooling, Reserved int
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

// Config of a [Pool].
type Config struct {
	CoolDown time.Duration // zero means DefaultCoolDown, a negative one means none
}

// Pool is the node's addresses; see the package comment.
type Pool struct {
	coolDown time.Duration
	slots    map[netip.Addr]*slot
	owners   map[Owner]*slot
	order    []string // the ENIs in device order: the primary is the first
}

type slot struct {
	addr  netip.Addr
	eni   string
	gone  bool // no ENI has it
	state AddrState
	owner Owner
	until time.Time // cooling: its end; free: since when, zero if never used
}

// NewPool makes an empty pool.
func NewPool(c Config) *Pool {
	if c.CoolDown == 0 {
		c.CoolDown = DefaultCoolDown
	}
	return &Pool{
		coolDown: max(c.CoolDown, 0),
		slots:    map[netip.Addr]*slot{},
		owners:   map[Owner]*slot{},
	}
}

// SetENIs replaces what the pool knows of the node's ENIs, and returns the
// assignments whose address no ENI has, in address order. Those pods have lost
// their network behind our back; their addresses stay theirs until released.
func (p *Pool) SetENIs(enis []vpc.ENI, now time.Time) []Assignment {
	p.settle(now)
	for _, s := range p.slots {
		s.gone = true
	}
	p.order = nil
	for _, e := range byDevice(enis) {
		p.order = append(p.order, e.ID)
		for _, a := range e.PodAddresses() {
			s := p.slot(a, e.ID)
			if s.gone { // else an ENI before this one has it: EC2 is moving it
				s.gone, s.eni = false, e.ID
			}
		}
	}
	var orphaned []Assignment
	for a, s := range p.slots {
		switch {
		case !s.gone:
		case s.state == Free:
			delete(p.slots, a)
		case s.state == Assigned:
			orphaned = append(orphaned, s.assignment())
		}
	}
	slices.SortFunc(orphaned, func(a, b Assignment) int { return a.Addr.Compare(b.Addr) })
	return orphaned
}

// Assign gives owner an address, always the same until Release. It fails with
// an [*ExhaustedError] if none is free.
//
// The primary ENI is filled first, as it can never be given back, then the one
// with the most pods, so that the others run empty. Within an ENI the address
// that has been free the longest is taken, a never used one before all.
func (p *Pool) Assign(owner Owner, now time.Time) (Assignment, error) {
	if owner.ContainerID == "" || owner.IfName == "" {
		return Assignment{}, fmt.Errorf("assign to %q: container id and interface name must not be empty", owner)
	}
	p.settle(now)
	if s, ok := p.owners[owner]; ok {
		return s.assignment(), nil
	}
	s := p.pick()
	if s == nil {
		return Assignment{}, &ExhaustedError{Stats: p.Stats(now), Now: now}
	}
	p.hold(s, owner)
	return s.assignment(), nil
}

// pick is the best free slot, or nil: first the ENI, then the address.
func (p *Pool) pick() *slot {
	pods, free := map[string]int{}, map[string][]*slot{}
	for _, s := range p.slots {
		switch {
		case s.gone:
		case s.state == Free:
			free[s.eni] = append(free[s.eni], s)
		case s.state == Assigned || s.state == Reserved:
			pods[s.eni]++
		}
	}
	best := ""
	for _, id := range p.order {
		if len(free[id]) == 0 {
			continue
		}
		if best == "" || best != p.order[0] && pods[id] > pods[best] {
			best = id
		}
	}
	if best == "" {
		return nil
	}
	return slices.MinFunc(free[best], func(a, b *slot) int {
		return cmp.Or(a.until.Compare(b.until), a.addr.Compare(b.addr))
	})
}

// Release takes the address from owner and lets it cool down. It reports false
// if owner holds none, which is no error: a release may come twice.
func (p *Pool) Release(owner Owner, now time.Time) (Assignment, bool) {
	s, ok := p.owners[owner]
	if !ok {
		return Assignment{}, false
	}
	a := s.assignment()
	p.cool(s, now.Add(p.coolDown))
	p.settle(now)
	return a, true
}

// Cancel takes back an assignment whose address never reached the network: it
// needs no cool-down, so that an ADD that fails over and over does not use up
// the pool. It does nothing if owner holds none.
func (p *Pool) Cancel(owner Owner) {
	if s, ok := p.owners[owner]; ok {
		delete(p.owners, owner)
		s.state, s.owner, s.until = Free, Owner{}, time.Time{}
	}
}

// Lookup finds what owner holds.
func (p *Pool) Lookup(owner Owner) (Assignment, bool) {
	s, ok := p.owners[owner]
	if !ok {
		return Assignment{}, false
	}
	return s.assignment(), true
}

// Reserve keeps addr from everybody, whoever held it: somebody has it, and we
// cannot say who. An address that no ENI has may be reserved as well.
func (p *Pool) Reserve(addr netip.Addr) {
	s := p.slot(addr, "")
	delete(p.owners, s.owner)
	s.state, s.owner, s.until = Reserved, Owner{}, time.Time{}
}

// Unreserve ends a reservation: the address cools down, then is free.
func (p *Pool) Unreserve(addr netip.Addr, now time.Time) {
	if s, ok := p.slots[addr]; ok && s.state == Reserved {
		p.cool(s, now.Add(p.coolDown))
		p.settle(now)
	}
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
		st.Total++
		switch s.state {
		case Free:
			st.Free++
		case Assigned:
			st.Assigned++
		case Reserved:
			st.Reserved++
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
		e := Entry{Addr: s.addr, ENI: s.eni, State: s.state, Owner: s.owner, Orphan: s.gone}
		if s.state == CoolingDown {
			e.Until = s.until
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return a.Addr.Compare(b.Addr) })
	return entries
}

// settle frees what has cooled down, and forgets it where no ENI has it.
func (p *Pool) settle(now time.Time) {
	for a, s := range p.slots {
		if s.state == CoolingDown && !now.Before(s.until) {
			s.state = Free // until stays: the time since when it is free
		}
		if s.state == Free && s.gone {
			delete(p.slots, a)
		}
	}
}

// slot finds or makes the slot of addr. A new one is gone until an ENI has it.
func (p *Pool) slot(addr netip.Addr, eni string) *slot {
	s, ok := p.slots[addr]
	if !ok {
		s = &slot{addr: addr, eni: eni, gone: true}
		p.slots[addr] = s
	}
	return s
}

func (p *Pool) hold(s *slot, owner Owner) {
	s.state, s.owner, s.until = Assigned, owner, time.Time{}
	p.owners[owner] = s
}

func (p *Pool) cool(s *slot, until time.Time) {
	delete(p.owners, s.owner)
	s.state, s.owner, s.until = CoolingDown, Owner{}, until
}

func (s *slot) assignment() Assignment { return Assignment{Owner: s.owner, Addr: s.addr, ENI: s.eni} }

// byDevice sorts a copy: the primary ENI first, then as they were attached.
func byDevice(enis []vpc.ENI) []vpc.ENI {
	return slices.SortedFunc(slices.Values(enis), compareENI)
}

func compareENI(a, b vpc.ENI) int {
	return cmp.Or(
		cmp.Compare(a.CardIndex, b.CardIndex),
		cmp.Compare(a.DeviceIndex, b.DeviceIndex),
		cmp.Compare(a.ID, b.ID),
	)
}
