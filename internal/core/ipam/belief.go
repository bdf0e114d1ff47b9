package ipam

import (
	"maps"
	"net/netip"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// DefaultSettle is how long a read may lag behind a write. EC2 names no bound
// ("Eventual consistency in the Amazon EC2 API": a few minutes at the worst, for
// which waiting is too long); some seconds are usual.
const DefaultSettle = 30 * time.Second

// Belief is what we take for the node's ENIs, from two sources that lag and err,
// EC2's API and the instance metadata service, and from what our own calls did.
//
//	SawEC2  ---> last listing --.       .--> View: attached, detached, disputed,
//	SawIMDS ---> last listing --+--> + -'          whether to ask EC2
//	Wrote   ---> facts ---------'
//
// A fact is newer than every read that began less than the settling time after
// it, for that ENI or address only: such a read is taken to say what the fact
// says. Beyond that the reads speak. What both have is held. What one of them
// lacks is disputed: it is kept, and given to no new pod. What both lack is gone.
// A source that has never spoken does not count.
//
// A Belief belongs to one goroutine. All times of one come from one clock.
type Belief struct {
	settle    time.Duration
	ec2, imds source
	known     map[string]vpc.ENI // EC2's last word on each ENI, or our own call's
	enis      map[string]eniFact
	units     map[string]map[netip.Prefix]unitFact // by ENI; a /32 is a single address
	marked    map[string]time.Time                 // when we set DeleteOnTermination
	tagged    map[string]tagFact
	doubts    []doubt
	reviews   map[subject]int // how often EC2 was asked about it in vain
}

// source is what one of the two said last.
type source struct {
	spoke bool
	asked time.Time
	enis  map[string]vpc.ENI
}

// place is where an ENI is.
type place int

const (
	nowhere place = iota
	detached
	attached
)

type eniFact struct {
	at    time.Time
	place place
}

type unitFact struct {
	at  time.Time
	has bool
}

type tagFact struct {
	at   time.Time
	tags map[string]string
}

// doubt is a call whose outcome is not known.
type doubt struct {
	change Change
	at     time.Time
}

// subject is what EC2 is asked about: a unit, or an ENI where the unit is zero.
type subject struct {
	eni  string
	unit netip.Prefix
}

// Result is what a call that succeeded answered.
type Result struct {
	ENI          vpc.ENI        // CreateENI: all of it
	AttachmentID string         // AttachENI
	Addrs        []netip.Addr   // AssignAddresses
	Prefixes     []netip.Prefix // AssignPrefixes
}

// NewBelief knows nothing. settle is how long a read may lag behind a write, in
// EC2's API and in the metadata service; zero means DefaultSettle.
func NewBelief(settle time.Duration) *Belief {
	if settle <= 0 {
		settle = DefaultSettle
	}
	return &Belief{
		settle: settle, known: map[string]vpc.ENI{}, enis: map[string]eniFact{}, units: map[string]map[netip.Prefix]unitFact{},
		marked: map[string]time.Time{}, tagged: map[string]tagFact{}, reviews: map[subject]int{},
	}
}

// SawEC2 takes a complete listing: what is attached to this instance, and what is
// not attached and has its tag. asked is when the request began. A listing older
// than the last one is ignored.
func (b *Belief) SawEC2(enis []vpc.ENI, asked, now time.Time) {
	if !b.ec2.take(enis, asked) {
		return
	}
	for _, e := range enis {
		b.learn(e)
	}
	var open []doubt
	for _, d := range b.doubts {
		if !b.trusts(asked, d.at) {
			open = append(open, d)
		}
	}
	b.doubts = open
	b.forget()

	reviews := map[subject]int{}
	for s := range b.resolve().open {
		reviews[s] = b.reviews[s] + 1
	}
	b.reviews = reviews
}

// learn takes EC2's word on what only it knows. Where it lags behind a call of
// ours, what the call changed stays.
func (b *Belief) learn(e vpc.ENI) {
	was, known := b.known[e.ID]
	f, ok := b.enis[e.ID]
	if known && ok && !b.trusts(b.ec2.asked, f.at) && b.placeOf(&b.ec2, e) != f.place && !leaving(e) {
		e.AttachmentID, e.Status, e.DeleteOnTermination = was.AttachmentID, was.Status, was.DeleteOnTermination
		e.DeviceIndex, e.CardIndex = was.DeviceIndex, was.CardIndex
	}
	b.known[e.ID] = e
}

// SawIMDS takes what the metadata service lists: the ENIs that are attached, with
// nothing of what only EC2 knows.
func (b *Belief) SawIMDS(enis []vpc.ENI, asked, now time.Time) {
	if b.imds.take(enis, asked) {
		b.forget()
	}
}

func (s *source) take(enis []vpc.ENI, asked time.Time) bool {
	if s.spoke && asked.Before(s.asked) {
		return false
	}
	s.spoke, s.asked, s.enis = true, asked, make(map[string]vpc.ENI, len(enis))
	for _, e := range enis {
		s.enis[e.ID] = e
	}
	return true
}

// Wrote takes a call that has succeeded, and what it answered.
func (b *Belief) Wrote(c Change, r Result, now time.Time) {
	switch c.Kind {
	case CreateENI:
		e := r.ENI
		e.AttachmentID, e.Status = "", ""
		b.known[e.ID] = e
		b.enis[e.ID] = eniFact{now, detached}
		b.assert(e.ID, unitsOf(e.Secondary, e.Prefixes), unitFact{now, true})
	case AttachENI:
		e := b.known[c.ENI]
		e.ID, e.AttachmentID, e.Status = c.ENI, r.AttachmentID, "attaching"
		e.DeviceIndex, e.CardIndex = c.DeviceIndex, c.CardIndex
		b.known[c.ENI] = e
		b.enis[c.ENI] = eniFact{now, attached}
	case DetachENI:
		b.unhook(c.ENI)
		b.enis[c.ENI] = eniFact{now, detached}
	case DeleteENI:
		b.enis[c.ENI] = eniFact{now, nowhere}
	case AssignAddresses, AssignPrefixes:
		b.assert(c.ENI, unitsOf(r.Addrs, r.Prefixes), unitFact{now, true})
	case UnassignAddresses, UnassignPrefixes:
		b.assert(c.ENI, unitsOf(c.Addrs, c.Prefixes), unitFact{now, false})
	case MarkENI:
		b.marked[c.ENI] = now
	case TagENI:
		b.tagged[c.ENI] = tagFact{now, maps.Clone(c.Tags)}
	}
}

// unhook removes what an ENI has only while it is attached.
func (b *Belief) unhook(id string) {
	if e, ok := b.known[id]; ok {
		e.AttachmentID, e.Status, e.DeleteOnTermination = "", "", false
		b.known[id] = e
	}
	delete(b.marked, id)
}

func (b *Belief) assert(eniID string, units []netip.Prefix, f unitFact) {
	if len(units) > 0 && b.units[eniID] == nil {
		b.units[eniID] = map[netip.Prefix]unitFact{}
	}
	for _, u := range units {
		b.units[eniID][u] = f
	}
}

// Unsure takes a call of which nobody knows whether it did anything: no answer
// came. What it may have taken away is disputed until a read is late enough to
// tell; what it may have added is found by a listing.
func (b *Belief) Unsure(c Change, now time.Time) {
	b.doubts = append(b.doubts, doubt{c, now})
}

// trusts reports whether a read that began at asked speaks of a write of that
// time, and cannot lag behind it.
func (b *Belief) trusts(asked, wrote time.Time) bool { return asked.Sub(wrote) >= b.settle }

// forget drops facts that no source needs any more.
func (b *Belief) forget() {
	if !b.ec2.spoke && !b.imds.spoke {
		return
	}
	old := func(at time.Time) bool {
		return (!b.ec2.spoke || b.trusts(b.ec2.asked, at)) && (!b.imds.spoke || b.trusts(b.imds.asked, at))
	}
	maps.DeleteFunc(b.enis, func(_ string, f eniFact) bool { return old(f.at) })
	gone := func(id string) bool {
		_, fact := b.enis[id]
		_, ec2 := b.ec2.enis[id]
		_, imds := b.imds.enis[id]
		return !fact && !ec2 && !imds
	}
	// EC2 has the last word on an ENI that it lists. Of one that it has dropped from
	// its listing, and the metadata service has not, or we have not, it is our call's.
	said := func(id string, at time.Time) bool {
		_, listed := b.ec2.enis[id]
		return gone(id) || listed && b.trusts(b.ec2.asked, at)
	}
	maps.DeleteFunc(b.units, func(id string, facts map[netip.Prefix]unitFact) bool {
		maps.DeleteFunc(facts, func(_ netip.Prefix, f unitFact) bool { return old(f.at) && (said(id, f.at) || !b.ec2.spoke) })
		return len(facts) == 0
	})
	maps.DeleteFunc(b.marked, said)
	maps.DeleteFunc(b.tagged, func(id string, f tagFact) bool { return said(id, f.at) })
	maps.DeleteFunc(b.known, func(id string, _ vpc.ENI) bool { return gone(id) })
}

// unitsOf writes single addresses as /32 prefixes.
func unitsOf(addrs []netip.Addr, prefixes []netip.Prefix) []netip.Prefix {
	var units []netip.Prefix
	for _, a := range addrs {
		units = append(units, netip.PrefixFrom(a, a.BitLen()))
	}
	for _, p := range prefixes {
		units = append(units, p.Masked())
	}
	return units
}
