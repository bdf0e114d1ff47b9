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
	// Leaving addresses are being given back to EC2, and so never assigned.
	Leaving
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
	case Leaving:
		return "leaving"
	}
	return fmt.Sprintf("AddrState(%d)", int(s))
}

// Config of a [Pool].
type Config struct {
	CoolDown time.Duration // zero means DefaultCoolDown, a negative one means none
}

// Pool is the node's addresses; see the package comment.
type Pool struct {
	coolDown time.Duration
	prefixes bool // prefixes are taken before single addresses
	slots    map[netip.Addr]*slot
	owners   map[Owner]*slot
	excluded map[string]bool // by ENI
	cooling  queue
	enis     []*eniIndex // in device order: the primary is the first
}

type slot struct {
	addr  netip.Addr
	eni   string
	gone  bool // no ENI has it
	state AddrState
	owner Owner
	until time.Time // of a cooling one
	since time.Time // of a free one: since when; else since when it last was
	used  bool      // some pod had it

	disputedSince time.Time // zero: not disputed

	group *group // where an ENI has it
	queue *queue // the one it is in: its group's free ones, or those that cool
	pos   int    // in it
}

func (s *slot) disputed() bool { return !s.disputedSince.IsZero() }

// NewPool makes an empty pool.
func NewPool(c Config) *Pool {
	if c.CoolDown == 0 {
		c.CoolDown = DefaultCoolDown
	}
	return &Pool{
		coolDown: max(c.CoolDown, 0),
		slots:    map[netip.Addr]*slot{},
		owners:   map[Owner]*slot{},
		cooling:  queue{less: func(a, b *slot) bool { return a.until.Before(b.until) }},
	}
}

// SetENIs replaces what the pool knows of the node's ENIs, and returns the
// assignments whose address no ENI has, in address order. Those pods have lost
// their network behind our back; their addresses stay theirs until released.
//
// A disputed address stays what it is, and is given to nobody new.
func (p *Pool) SetENIs(enis []vpc.ENI, disputed map[netip.Addr]bool, now time.Time) (lost []Assignment) {
	p.settle(now)
	for _, s := range p.slots {
		s.gone, s.group = true, nil
		p.unqueue(s)
	}
	p.enis = nil
	for _, e := range byDevice(enis) {
		index := &eniIndex{id: e.ID}
		p.enis = append(p.enis, index)
		p.add(index, e.Secondary, netip.Prefix{}, now)
		for _, prefix := range e.Prefixes {
			p.add(index, addressesOf(prefix), prefix, now)
		}
	}
	for a, s := range p.slots {
		switch {
		case !disputed[a]:
			s.disputedSince = time.Time{}
		case !s.disputed():
			s.disputedSince = now
		}
		if s.gone && s.state == Assigned {
			lost = append(lost, s.assignment())
		}
		p.move(s, s.state) // into its queue, or out of the pool
	}
	slices.SortFunc(lost, func(a, b Assignment) int { return a.Addr.Compare(b.Addr) })
	return lost
}

// add gives the ENI's index one group: its single addresses, or a prefix.
func (p *Pool) add(index *eniIndex, addrs []netip.Addr, prefix netip.Prefix, now time.Time) {
	if len(addrs) == 0 {
		return
	}
	g := newGroup(index, prefix)
	for _, a := range addrs {
		s, known := p.slots[a]
		if !known {
			s = p.slot(a, index.id)
			s.since = now
		}
		if s.gone { // else an ENI before this one has it: EC2 is moving it
			s.gone, s.eni, s.group = false, index.id, g
			g.count(s.state, 1)
		}
	}
	index.groups = append(index.groups, g)
}

// Prefer says whether pods get addresses of prefixes first, or single ones.
func (p *Pool) Prefer(prefixes bool) { p.prefixes = prefixes }

// Exclude names the ENIs that give new pods nothing, in place of those that were
// named before. What pods have there stays theirs; what is free there counts
// nowhere in [Stats].
func (p *Pool) Exclude(eniIDs ...string) {
	p.excluded = make(map[string]bool, len(eniIDs))
	for _, id := range eniIDs {
		p.excluded[id] = true
	}
}

// Assign gives owner an address, always the same until Release. It fails with
// an [*ExhaustedError] if none is free. Which one: see pick.
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
		p.move(s, Free)
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
func (p *Pool) Reserve(addr netip.Addr) { p.move(p.slot(addr, ""), Reserved) }

// Unreserve ends a reservation: the address cools down, then is free.
func (p *Pool) Unreserve(addr netip.Addr, now time.Time) {
	if s, ok := p.slots[addr]; ok && s.state == Reserved {
		p.cool(s, now.Add(p.coolDown))
		p.settle(now)
	}
}

// Withdraw takes free addresses out of use before EC2 is asked to take them
// away. It takes all or none, and fails if one is not free.
func (p *Pool) Withdraw(addrs []netip.Addr) error {
	for _, a := range addrs {
		s, ok := p.slots[a]
		if !ok {
			return fmt.Errorf("withdraw %s: the pool does not have it", a)
		}
		if s.state != Free {
			return fmt.Errorf("withdraw %s: it is %s, not free", a, s.state)
		}
	}
	for _, a := range addrs {
		p.move(p.slots[a], Leaving)
	}
	return nil
}

// Readmit makes withdrawn addresses free again, from now on, as EC2 has refused
// to take them. Those that are not leaving stay as they are.
func (p *Pool) Readmit(addrs []netip.Addr, now time.Time) {
	for _, a := range addrs {
		if s, ok := p.slots[a]; ok && s.state == Leaving {
			s.since = now
			p.move(s, Free)
		}
	}
}

// settle frees what has cooled down.
func (p *Pool) settle(now time.Time) {
	for s := p.cooling.first(); s != nil && !now.Before(s.until); s = p.cooling.first() {
		s.since = s.until
		p.move(s, Free)
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
	p.move(s, Assigned)
	s.owner = owner
	p.owners[owner] = s
}

func (p *Pool) cool(s *slot, until time.Time) {
	p.unqueue(s) // its place there is by the time that changes
	s.until, s.used = until, true
	p.move(s, CoolingDown)
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
