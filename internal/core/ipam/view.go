package ipam

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// longestReview bounds the wait between two listings that are asked for because
// the sources disagree; it doubles from a quarter of the settling time.
const longestReview = 10 * time.Minute

// View is what is believed at a time. All of it is the caller's own.
type View struct {
	Attached []vpc.ENI // by device; those that EC2 is detaching too, with that Status
	Detached []vpc.ENI // of this node by their tag; by ID

	// Disputed are addresses that Attached lists and of which it is not certain
	// that the ENI has them.
	Disputed map[netip.Addr]bool

	Ask   bool      // EC2 should be asked: sources disagree, or an outcome is not known
	AskAt time.Time // when that makes sense, now or in the future; zero: never
}

// View says what is believed now.
func (b *Belief) View(now time.Time) View {
	r := b.resolve()
	v := View{Attached: r.attached, Detached: r.detached, Disputed: r.disputed}
	ask := func(at time.Time) {
		if at.Before(now) {
			at = now
		}
		if !v.Ask || at.Before(v.AskAt) {
			v.Ask, v.AskAt = true, at
		}
	}
	for _, d := range b.doubts {
		if b.ec2.spoke && !b.ec2.asked.Before(d.at) {
			ask(d.at.Add(b.settle)) // asked before that, it may have told of the time before
		} else {
			ask(d.at)
		}
	}
	for s := range r.open {
		if n := b.reviews[s]; n > 0 {
			ask(b.ec2.asked.Add(min(b.settle/4<<min(n-1, 16), longestReview)))
		} else {
			ask(now)
		}
	}
	return v
}

// resolved is what the sources and facts come to.
type resolved struct {
	attached, detached []vpc.ENI
	disputed           map[netip.Addr]bool
	open               map[subject]bool // what EC2 could clear up
}

func (b *Belief) resolve() resolved {
	r := resolved{disputed: map[netip.Addr]bool{}, open: map[subject]bool{}}
	for _, id := range b.ids() {
		b.resolveENI(&r, id)
	}
	for _, d := range b.doubts {
		switch d.change.Kind {
		case UnassignAddresses, UnassignPrefixes:
			r.dispute(unitsOf(d.change.Addrs, d.change.Prefixes))
		case DetachENI:
			for _, e := range r.attached {
				if e.ID == d.change.ENI {
					r.dispute(unitsOf(e.Secondary, e.Prefixes))
				}
			}
		}
	}
	slices.SortFunc(r.attached, compareENI)
	return r
}

func (r *resolved) dispute(units []netip.Prefix) {
	for _, u := range units {
		for _, a := range addressesOf(u) {
			r.disputed[a] = true
		}
	}
}

// ids lists every ENI of which anything is known, in order.
func (b *Belief) ids() []string {
	all := map[string]bool{}
	for id := range b.ec2.enis {
		all[id] = true
	}
	for id := range b.imds.enis {
		all[id] = true
	}
	for id := range b.enis {
		all[id] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// resolveENI decides where one ENI is and what it has.
func (b *Belief) resolveENI(r *resolved, id string) {
	var says []place
	for _, s := range []*source{&b.ec2, &b.imds} {
		if p, ok := b.placeBy(s, id); ok {
			says = append(says, p)
		}
	}
	if len(says) == 0 { // nothing but our own calls
		says = append(says, b.enis[id].place)
	}
	switch {
	case slices.Contains(says, attached):
		r.attached = append(r.attached, b.resolveAttached(r, id, slices.ContainsFunc(says, func(p place) bool { return p != attached })))
	case says[0] == detached:
		e := b.merge(id)
		units, _ := b.unitsBy(&b.ec2, id)
		give(&e, units)
		r.detached = append(r.detached, e)
	}
}

// resolveAttached is an ENI that at least one source says is attached.
func (b *Belief) resolveAttached(r *resolved, id string, doubted bool) vpc.ENI {
	e := b.merge(id)
	byEC2, ec2Speaks := b.unitsBy(&b.ec2, id)
	byIMDS, imdsSpeaks := b.unitsBy(&b.imds, id)
	units := slices.Clone(byEC2)
	for _, u := range byIMDS {
		if !slices.Contains(byEC2, u) {
			units = append(units, u)
		}
	}
	give(&e, units)
	if ec2Speaks && imdsSpeaks {
		inIMDS := map[netip.Prefix]bool{}
		for _, u := range byIMDS {
			inIMDS[u] = true
		}
		for i, u := range units {
			if i >= len(byEC2) || !inIMDS[u] {
				r.open[subject{id, u}] = true
				r.dispute([]netip.Prefix{u})
			}
		}
	}
	// After our own attach the metadata service says when it is done.
	_, ours := b.enis[id]
	if doubted || leaving(e) || e.Status == "attaching" && !(ours && b.imds.spoke) {
		r.open[subject{eni: id}] = true
	}
	if doubted || leaving(e) {
		r.dispute(units)
	}
	return e
}

// placeBy is where a source says that an ENI is, with our own calls taken into
// account; false if the source has not spoken.
func (b *Belief) placeBy(s *source, id string) (place, bool) {
	if !s.spoke {
		return nowhere, false
	}
	e, listed := s.enis[id]
	says := nowhere
	if listed {
		says = b.placeOf(s, e)
	}
	f, ok := b.enis[id]
	switch {
	case !ok, b.trusts(s.asked, f.at):
		return says, true
	case says == attached && f.place == detached && leaving(e) && s == &b.ec2:
		return attached, true // it is coming off: no contradiction, and news
	}
	return f.place, true
}

// placeOf reads a listing: the metadata service lists what is attached only.
func (b *Belief) placeOf(s *source, e vpc.ENI) place {
	if s == &b.ec2 && (e.Status == "" && e.AttachmentID == "" || e.Status == "detached") {
		return detached
	}
	return attached
}

// unitsBy lists the units that a source says an ENI has, with our own calls taken
// into account, in its order; false if it says nothing of this ENI.
func (b *Belief) unitsBy(s *source, id string) ([]netip.Prefix, bool) {
	e, listed := s.enis[id]
	f, ok := b.enis[id]
	fresh := ok && (!s.spoke || !b.trusts(s.asked, f.at))
	// Of an ENI that we have just made or moved EC2 would say what we know, if it
	// were asked; a listing at such a time may have it nowhere. Of one that we have just attached the metadata service lists the addresses
	// later than the ENI.
	if !listed && (s == &b.imds || !fresh) || s == &b.imds && fresh && f.place == attached {
		return nil, false
	}
	if !listed {
		e = b.known[id]
	}
	facts := b.units[id]
	var units []netip.Prefix
	seen := make(map[netip.Prefix]bool, e.Slots())
	for _, u := range unitsOf(e.Secondary, e.Prefixes) {
		seen[u] = true
		if f, ok := facts[u]; ok && !b.trusts(s.asked, f.at) && !f.has {
			continue
		}
		units = append(units, u)
	}
	var more []netip.Prefix
	for u, f := range facts {
		if f.has && !seen[u] && (!s.spoke || !b.trusts(s.asked, f.at)) {
			more = append(more, u)
		}
	}
	slices.SortFunc(more, comparePrefix)
	return append(units, more...), true
}

// give sets what the ENI has. Its own address is never a pod's, whatever a source
// says of it.
func give(e *vpc.ENI, units []netip.Prefix) {
	e.Secondary, e.Prefixes = nil, nil
	for _, u := range units {
		switch {
		case u.Bits() < u.Addr().BitLen():
			e.Prefixes = append(e.Prefixes, u)
		case u.Addr() != e.Primary:
			e.Secondary = append(e.Secondary, u.Addr())
		}
	}
}

// merge is all that is known of one ENI but its addresses: EC2's last word, with
// what our own calls changed since, and the metadata service's where it knows
// better or EC2 has not spoken.
func (b *Belief) merge(id string) vpc.ENI {
	e, known := b.known[id]
	i, listed := b.imds.enis[id]
	switch {
	case !known:
		e = i
		e.Tags = nil
	case listed:
		if !e.Primary.IsValid() {
			e.Primary = i.Primary
		}
		if e.Status == "" || e.Status == "detached" { // EC2 knows of no place
			e.DeviceIndex, e.CardIndex = i.DeviceIndex, i.CardIndex
		}
		if b.imds.asked.After(b.ec2.asked) && len(i.Groups) > 0 {
			e.Groups = i.Groups
		}
	}
	if p, ok := b.placeBy(&b.imds, id); ok && listed && p == attached && !leaving(e) {
		e.Status = "attached" // it lists no other
	}
	if _, ok := b.marked[id]; ok {
		e.DeleteOnTermination = true
	}
	e.Tags = maps.Clone(e.Tags)
	if f, ok := b.tagged[id]; ok {
		if e.Tags == nil {
			e.Tags = map[string]string{}
		}
		maps.Copy(e.Tags, f.tags)
	}
	e.Groups = slices.Clone(e.Groups)
	return e
}
