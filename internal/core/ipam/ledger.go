package ipam

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// disputePatience is how long an address of which it is not certain that the
// ENI has it counts as one that is about to be usable. Usually it is: the ENI has
// just been attached, and instance metadata or the kernel is late. The longest
// that others saw a device take is some minutes; until then a pod would wait for
// it, though EC2 could give another address in a second.
const disputePatience = time.Minute

// unit is what EC2 gives and takes as a whole: one address, or a prefix.
type unit struct {
	addr   netip.Addr   // of a single address
	prefix netip.Prefix // of a prefix

	held    int       // assigned, reserved, cooling
	cooling int       // of these, cooling
	free    int       // may be given to a pod now
	coming  int       // disputed for a short time
	stale   int       // disputed for long
	leaving int       // being given back
	since   time.Time // when the last of its free addresses became free
	wanted  bool      // pods without address will be on it: see [ledger.enlist]
}

func (u unit) isPrefix() bool { return u.prefix.IsValid() }

// account is what the planner knows of one ENI.
type account struct {
	vpc.ENI
	serves bool // pods get addresses from it
	going  bool // it is being detached
	busy   bool // some change of it is under way
	room   int  // slots that are free even if all under way succeeds
	units  []unit
}

// ledger is the sum of a State: what there is, by kind, and what is under way.
//
// Own units are of the kind that is asked for: single addresses, or prefixes. In
// the mode of single addresses a prefix that pods are on, or must be put on, is as
// good as its addresses; one that is wholly free is to be given back, and counts for
// nothing.
type ledger struct {
	prefixes bool // what is asked for is prefixes
	accounts []account

	usedOwn   int // held addresses of own units
	usedOther int // of others
	cooling   int
	demand    int // pods that have no address
	freeNow   int // addresses that a pod gets at once, of any kind
	comingNow int // addresses of any kind that are on the way
	own       int // own units that are sure
	ownComing int // own units that are on the way: disputed ones, calls under way

	roomComing int // slots that are free on ENIs that are being created or attached

	places     int             // ENIs that may still be attached
	devices    map[int]bool    // device indices that are taken on the default card
	attaching  map[string]bool // detached ENIs that are being attached
	touched    map[string]bool // ENIs with a change under way
	nextChange time.Time       // the first time at which an answer given here changes
	subnetFree map[string]int  // free addresses less those that are asked for
	spent      map[string]bool // subnets of which that is less than EC2 said
	returning  map[netip.Addr]bool
	missed     map[string]bool    // ENIs that a pod's address was of and should be
	state      map[netip.Addr]int // index of the address in State.Entries
}

// newLedger does the sums.
func newLedger(s State, t Targets, now time.Time) *ledger {
	l := &ledger{
		prefixes: s.prefixMode(t), places: s.maxENIs(t) - s.onCard(),
		devices: map[int]bool{0: true}, attaching: map[string]bool{}, touched: map[string]bool{},
		subnetFree: map[string]int{}, spent: map[string]bool{}, returning: map[netip.Addr]bool{}, missed: map[string]bool{},
		state: make(map[netip.Addr]int, len(s.Entries)),
	}
	for _, n := range s.Subnets {
		l.subnetFree[n.ID] = n.Free
	}
	for _, c := range s.InFlight {
		for _, a := range c.Addrs {
			l.returning[a] = true
		}
		for _, prefix := range c.Prefixes {
			for _, a := range addressesOf(prefix) {
				l.returning[a] = true
			}
		}
	}
	for i, e := range s.Entries {
		if e.Orphan && e.State == Assigned {
			l.missed[e.ENI] = true
		}
		if !e.Orphan {
			l.state[e.Addr] = i
		}
		if e.State == CoolingDown && e.Until.After(now) {
			l.at(e.Until)
		}
	}
	for _, all := range [][]vpc.ENI{s.ENIs, s.Others} {
		for _, e := range all {
			if e.CardIndex == s.Limits.DefaultCard {
				l.devices[e.DeviceIndex] = true
			}
		}
	}
	for _, e := range byDevice(s.ENIs) {
		l.accounts = append(l.accounts, l.open(s, e, now))
	}
	l.takeInFlight(s)
	l.demand = max(s.Waiting, 0) + scheduled(s)
	if !l.prefixes {
		l.enlist()
	}
	for i := range l.accounts {
		l.sum(&l.accounts[i])
	}
	return l
}

// enlist makes own units of the prefixes that the pods without address will be on, in
// the mode of single addresses: there is nothing to ask EC2 for where these have room.
func (l *ledger) enlist() {
	lacking := l.demand
	for i := range l.accounts {
		for _, u := range l.accounts[i].units {
			if l.accounts[i].gives() && l.isOwn(u) {
				lacking -= u.free
			}
		}
	}
	for i := range l.accounts {
		a := &l.accounts[i]
		for j := range a.units {
			if u := &a.units[j]; lacking > 0 && a.gives() && !l.isOwn(*u) && u.free > 0 && u.leaving == 0 {
				u.wanted = true
				lacking -= u.free
			}
		}
	}
}

// gives reports whether pods get addresses from the ENI; what is being detached has no
// network any more.
func (a account) gives() bool { return a.serves && !a.going }

// scheduled is how many of the pods that are bound to the node can run there.
func scheduled(s State) int {
	n := max(s.Scheduled, 0)
	if s.MaxPods <= 0 {
		return n
	}
	room := s.MaxPods - max(s.Waiting, 0)
	for _, e := range s.Entries {
		if e.State == Assigned {
			room--
		}
	}
	return max(min(n, room), 0)
}

// open makes the account of one ENI, less what is under way.
func (l *ledger) open(s State, e vpc.ENI, now time.Time) account {
	a := account{ENI: e, serves: s.serves(e), going: leaving(e), room: max(s.Limits.IPv4PerENI-e.Slots(), 0)}
	for _, addr := range e.Secondary {
		u := unit{addr: addr}
		l.tally(&u, s, addr, now)
		a.units = append(a.units, u)
	}
	for _, p := range e.Prefixes {
		u := unit{prefix: p}
		for _, addr := range addressesOf(p) {
			l.tally(&u, s, addr, now)
		}
		a.units = append(a.units, u)
	}
	return a
}

// tally adds one address to its unit.
func (l *ledger) tally(u *unit, s State, addr netip.Addr, now time.Time) {
	i, ok := l.state[addr]
	if !ok { // the pool is about to hear of it
		u.coming++
		return
	}
	switch e := s.Entries[i]; {
	case e.State == Leaving, e.State == Free && l.returning[addr]:
		u.leaving++
	case e.State != Free:
		u.held++
		if e.State == CoolingDown {
			l.cooling++
			u.cooling++
		}
	case e.Disputed && now.Before(e.DisputedSince.Add(disputePatience)):
		l.at(e.DisputedSince.Add(disputePatience))
		u.coming++
	case e.Disputed:
		u.stale++
		u.since = latest(u.since, e.Since, e.DisputedSince)
	default:
		u.free++
		u.since = latest(u.since, e.Since)
	}
}

func latest(times ...time.Time) time.Time {
	return slices.MaxFunc(times, time.Time.Compare)
}

// takeInFlight counts what is under way: against the limits as if it succeeded,
// and as supply that comes.
func (l *ledger) takeInFlight(s State) {
	attached := map[string]*account{}
	for i := range l.accounts {
		attached[l.accounts[i].ID] = &l.accounts[i]
	}
	for _, c := range s.InFlight {
		l.touched[c.ENI] = true
		a := attached[c.ENI]
		if a != nil && c.Kind != TagENI && c.Kind != MarkENI { // those two can go on beside any other
			a.busy = true
		}
		switch c.Kind {
		case CreateENI:
			l.places--
			l.coming(c.Count, c.PrefixCount)
			l.roomComing += max(s.perENI()-c.Count-c.PrefixCount, 0)
			l.spend(c)
		case AttachENI:
			if a != nil { // it is listed by now
				continue
			}
			l.places--
			l.devices[c.DeviceIndex] = true
			l.attaching[c.ENI] = true
			for _, e := range s.Detached {
				if e.ID == c.ENI {
					l.coming(len(e.Secondary), len(e.Prefixes))
					l.roomComing += max(s.Limits.IPv4PerENI-e.Slots(), 0)
				}
			}
		case AssignAddresses, AssignPrefixes:
			if a == nil {
				continue
			}
			a.room = max(a.room-c.Count-c.PrefixCount, 0)
			if a.serves {
				l.coming(c.Count, c.PrefixCount)
			}
			l.spend(c)
		case DetachENI:
			if a != nil {
				a.going = true
			}
		}
	}
}

// coming counts units that are on their way.
func (l *ledger) coming(addrs, prefixes int) {
	l.comingNow += addrs + PrefixSize*prefixes
	if l.prefixes {
		l.ownComing += prefixes
	} else {
		l.ownComing += addrs
	}
}

// spend takes what a change asks for off its subnet's free addresses.
func (l *ledger) spend(c Change) {
	n, ok := l.subnetFree[c.SubnetID]
	if !ok || n < 0 {
		return
	}
	n -= c.Count + PrefixSize*c.PrefixCount
	l.subnetFree[c.SubnetID], l.spent[c.SubnetID] = max(n, 0), true
}

// sum adds an account to the totals.
func (l *ledger) sum(a *account) {
	if !a.gives() {
		return
	}
	for _, u := range a.units {
		own := l.isOwn(u)
		if own {
			l.usedOwn += u.held
		} else {
			l.usedOther += u.held
		}
		l.freeNow += u.free
		l.comingNow += u.coming
		if own {
			l.own += l.sure(u)
			l.ownComing += l.worth(u) - l.sure(u)
		}
	}
}

// isOwn reports whether the unit counts as what is asked for.
func (l *ledger) isOwn(u unit) bool {
	if l.prefixes {
		return u.isPrefix() && u.leaving == 0 && u.stale == 0
	}
	return !u.isPrefix() || u.held > 0 || u.wanted
}

// worth is what an own unit counts: addresses, or one prefix.
func (l *ledger) worth(u unit) int {
	if l.prefixes {
		return 1
	}
	return u.held + u.free + u.coming
}

// sure is worth without what may yet turn out to be missing.
func (l *ledger) sure(u unit) int {
	if l.prefixes {
		if u.coming > 0 {
			return 0
		}
		return 1
	}
	return u.held + u.free
}

// at notes a time at which the plan may differ.
func (l *ledger) at(when time.Time) {
	if l.nextChange.IsZero() || when.Before(l.nextChange) {
		l.nextChange = when
	}
}

// ripe reports whether something that is free since then may be given back, and
// notes when it will be.
func (l *ledger) ripe(since time.Time, t Targets, now time.Time) bool {
	end := since.Add(t.ReturnAfter)
	if now.Before(end) {
		l.at(end)
		return false
	}
	return true
}

// held counts the addresses of an ENI that are in use or rest.
func (a account) held() int {
	n := 0
	for _, u := range a.units {
		n += u.held
	}
	return n
}

// byEmptiness is the order in which ENIs give back: those with the fewest pods
// first, of these the last device; the primary ENI, which stays, comes last.
func byEmptiness(accounts []account) []account {
	return slices.SortedStableFunc(slices.Values(accounts), func(a, b account) int {
		return cmp.Or(
			compareBool(isPrimary(a.ENI), isPrimary(b.ENI)),
			cmp.Compare(a.held(), b.held()),
			-compareENI(a.ENI, b.ENI),
		)
	})
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
