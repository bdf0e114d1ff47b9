package ec2sim

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"net"
	"slices"
	"time"
)

// state is all that the cloud knows. Its rows are values that are replaced and
// never written in place (a slice or map of a row is copied before it is
// changed), so that undoing a call is putting the old rows back.
type state struct {
	cfg     Config
	now     time.Time // of the call being done
	journal *journal
	past    []commit // oldest first, as far back as cfg.Memory
	births  []birth  // oldest first, as far back as cfg.Lag
	due     []due    // what happens by itself, soonest first
	counters

	*regional                      // where the call is done
	regions   map[string]*regional // by name
	peerings  table[VPCPeering]    // of all regions: each may belong to two
	public    table[struct{}]      // public addresses that are in use, in any region
}

// regional is what one region holds: what is in another one cannot be named in
// a call.
type regional struct {
	region      string
	vpcs        table[VPC]
	subnets     table[Subnet]
	groups      table[SecurityGroup]
	enis        table[NetworkInterface]
	instances   table[Instance]
	attachments table[string] // attachment identifier -> ENI identifier
	lists       table[PrefixList]
	acls        table[NetworkACL]
	routeTables table[RouteTable]
	gateways    table[InternetGateway]
	nats        table[NATGateway]
	addresses   table[Address]
	hubs        table[TransitGateway]
	spokes      table[TransitAttachment]
	hubTables   table[TransitRouteTable]
	flowLogs    table[FlowLog]
	trunks      table[TrunkAssociation]
	pools       map[string]*pool

	reservations table[CIDRReservation]

	tokens map[string]tokenUse // action and client token
}

// counters number what is made; they are restored when a call is undone.
type counters struct{ rows, ids, macs, draws uint64 } // they serve all regions

func newState(cfg Config) *state {
	j := &journal{}
	s := &state{
		cfg: cfg, journal: j, regions: map[string]*regional{},
		peerings: newTable[VPCPeering](j), public: newTable[struct{}](j),
	}
	for _, name := range cfg.Regions {
		s.regions[name] = &regional{
			region: name,
			vpcs:   newTable[VPC](j), subnets: newTable[Subnet](j), groups: newTable[SecurityGroup](j),
			enis: newTable[NetworkInterface](j), instances: newTable[Instance](j), attachments: newTable[string](j),
			lists: newTable[PrefixList](j), acls: newTable[NetworkACL](j), routeTables: newTable[RouteTable](j),
			gateways: newTable[InternetGateway](j), nats: newTable[NATGateway](j), addresses: newTable[Address](j),
			hubs: newTable[TransitGateway](j), spokes: newTable[TransitAttachment](j), hubTables: newTable[TransitRouteTable](j),
			flowLogs: newTable[FlowLog](j), trunks: newTable[TrunkAssociation](j), reservations: newTable[CIDRReservation](j),
			pools: map[string]*pool{}, tokens: map[string]tokenUse{},
		}
	}
	s.regional = s.regions[cfg.Region]
	return s
}

// journal holds, newest last, how to undo each write of the call being done,
// and how to do it again: so a read can see what was before.
type journal struct{ writes []write }

type write struct{ undo, redo func() }

func (j *journal) add(undo, redo func()) { j.writes = append(j.writes, write{undo, redo}) }

// savepoint is a moment that rollback returns to.
type savepoint struct {
	writes int
	counters
}

func (s *state) save() savepoint { return savepoint{len(s.journal.writes), s.counters} }

func (s *state) rollback(to savepoint) {
	for _, w := range slices.Backward(s.journal.writes[to.writes:]) {
		w.undo()
	}
	clear(s.journal.writes[to.writes:])
	s.journal.writes = s.journal.writes[:to.writes]
	s.counters = to.counters
}

// commit ends the call being done, as of a time, and reports whether anything
// was written.
func (s *state) commit(at time.Time) bool {
	if len(s.journal.writes) == 0 {
		return false
	}
	s.remember(at, s.journal.writes)
	clear(s.journal.writes)
	s.journal.writes = s.journal.writes[:0]
	return true
}

// nextRow numbers rows in the order of creation.
func (s *state) nextRow() uint64 { s.rows++; return s.rows }

// newID gives an identifier as EC2 does: the prefix and 17 hexadecimal digits,
// the first of which is a zero. The mixing is a bijection, so no two calls give
// the same.
func (s *state) newID(prefix string) string {
	s.ids++
	id := fmt.Sprintf("%s0%016x", prefix, mix(s.ids+s.cfg.Seed*seedStep))
	s.bear(id)
	return id
}

// newMAC gives a locally administered unicast address, as AWS does. The odd
// factor makes it a bijection of the counter modulo 2^40.
func (s *state) newMAC() net.HardwareAddr {
	s.macs++
	n := mix(s.cfg.Seed) + s.macs*0x9e3779b97f
	return net.HardwareAddr{0x0a, byte(n >> 32), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

const seedStep = 0x9e3779b97f4a7c15 // golden ratio times 2^64: spreads neighbouring seeds

// mix is the finalizer of splitmix64 (Steele, Lea, Flood: "Fast Splittable
// Pseudorandom Number Generators", 2014), a bijection of 64 bits.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// table holds rows by identifier and in the order of creation.
type table[T any] struct {
	journal *journal
	byID    map[string]*row[T]
	order   []*row[T] // by seq, ascending
}

type row[T any] struct {
	seq uint64
	id  string
	val T
}

func newTable[T any](j *journal) table[T] {
	return table[T]{journal: j, byID: map[string]*row[T]{}}
}

func (t *table[T]) get(id string) (T, bool) {
	if r, ok := t.byID[id]; ok {
		return r.val, true
	}
	var none T
	return none, false
}

// insert adds a row; seq must be greater than that of every row there is.
func (t *table[T]) insert(seq uint64, id string, val T) {
	r := &row[T]{seq, id, val}
	t.place(r)
	t.journal.add(func() { t.displace(id) }, func() { t.place(r) })
}

// put replaces the value of a row that is there.
func (t *table[T]) put(id string, val T) {
	r := t.byID[id]
	old := r.val
	r.val = val
	t.journal.add(func() { r.val = old }, func() { r.val = val })
}

// remove takes a row away that is there.
func (t *table[T]) remove(id string) {
	r := t.displace(id)
	t.journal.add(func() { t.place(r) }, func() { t.displace(id) })
}

func (t *table[T]) place(r *row[T]) {
	t.byID[r.id] = r
	t.order = slices.Insert(t.order, t.after(r.seq), r)
}

func (t *table[T]) displace(id string) *row[T] {
	r := t.byID[id]
	delete(t.byID, id)
	i := t.after(r.seq) - 1
	t.order = slices.Delete(t.order, i, i+1)
	return r
}

// after is the place in the order of the first row younger than seq.
func (t *table[T]) after(seq uint64) int {
	i, found := slices.BinarySearchFunc(t.order, seq, func(r *row[T], seq uint64) int { return cmp.Compare(r.seq, seq) })
	if found {
		i++
	}
	return i
}

// all yields the values in the order of creation.
func (t *table[T]) all() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, r := range t.order {
			if !yield(r.val) {
				return
			}
		}
	}
}

// find looks up a row by an identifier from outside.
func find[T any](t *table[T], k kind, id string) (T, error) {
	var none T
	if err := k.check(id); err != nil {
		return none, err
	}
	v, ok := t.get(id)
	if !ok {
		return none, k.missing(id)
	}
	return v, nil
}

// tokenUse remembers the call that a client token was used for.
type tokenUse struct {
	request string // the input, as canonical text
	result  any
	at      time.Time
}

// tokenLife is how long a client token is remembered. EC2 gives at least 24
// hours ("Ensuring idempotency in Amazon EC2 API requests", Amazon EC2
// Developer Guide).
const tokenLife = 24 * time.Hour

// once does a call that carries a client token at most once: a repeat with the
// same input gets the first result, one with another input is refused.
func once[In, Out any](s *state, action, token string, in In, do func(*state, In) (Out, error)) (Out, error) {
	var none Out
	if token == "" {
		return do(s, in)
	}
	if len(token) > 64 {
		return none, invalidValue("Value (%s) for parameter clientToken is invalid. It must be at most 64 characters long.", token)
	}
	key, request := action+" "+token, fmt.Sprintf("%+v", in)
	if used, ok := s.tokens[key]; ok && s.now.Sub(used.at) < tokenLife {
		if used.request != request {
			return none, fail("IdempotentParameterMismatch",
				"The client token '%s' was used before with other parameters.", token)
		}
		return used.result.(Out), nil
	}
	out, err := do(s, in)
	if err != nil {
		return none, err
	}
	if len(s.tokens)%1024 == 1023 { // now and then, so that a long life does not fill memory
		maps.DeleteFunc(s.tokens, func(_ string, used tokenUse) bool { return s.now.Sub(used.at) >= tokenLife })
	}
	tokens := s.tokens
	old, had := tokens[key]
	use := tokenUse{request, out, s.now}
	tokens[key] = use
	s.journal.add(func() {
		if delete(tokens, key); had {
			tokens[key] = old
		}
	}, func() { tokens[key] = use })
	return out, nil
}
