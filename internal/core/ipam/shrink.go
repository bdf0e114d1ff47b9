package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// shrink gives back what is not wanted: what nobody uses, what does not rest, and
// what has been free for ReturnAfter. Nothing is given back while somebody waits,
// as it could be what he gets, or takes the turn of the call that he needs; nor
// while EC2 does not answer, as then what seems to be free may be a lie.
//
// Whole ENIs come before addresses. What only time keeps from being given back is
// as good as gone: were addresses of the primary ENI given back in its stead, the
// other ENI would be needed for ever. The sums count only what is sure, so that
// what is left satisfies the next plan: it asks for nothing.
func (p *planner) shrink() {
	if p.s.Waiting > 0 || p.s.Offline {
		return
	}
	spare := p.l.own - p.wanted()
	accounts := byEmptiness(p.l.accounts)
	var staying, ripening []account
	for _, a := range accounts {
		switch own, fate := p.fate(a); {
		case fate == goes && (spare >= own || p.over()):
			spare -= own
			p.l.places++
			p.do(Change{Kind: DetachENI, ENI: a.ID, AttachmentID: a.AttachmentID, Why: p.whyDetach()})
		case fate == ripens:
			ripening = append(ripening, a)
		default:
			staying = append(staying, a)
		}
	}
	left := spare
	for _, a := range ripening {
		if own := p.own(a); own <= left {
			left -= own
		} else {
			staying = append(staying, a)
		}
	}
	if p.returnsUnits() {
		p.returnOwn(byEmptiness(staying), left)
	}
	p.returnOther(accounts, spare)
	p.remove()
}

// over reports whether the instance has more ENIs than it may: MAX_ENI was
// lowered.
func (p *planner) over() bool { return p.l.places < 0 }

// fate is what can become of an ENI.
type fate int

const (
	stays  fate = iota
	ripens      // it can be detached when some time has passed
	goes        // it can be detached now
)

// fate says whether an ENI can be detached, and how many own units it has.
func (p *planner) fate(a account) (own int, f fate) {
	switch {
	case isPrimary(a.ENI), !madeHere(a.ENI), a.going, a.AttachmentID == "", a.Status != "" && a.Status != "attached":
		return 0, stays
	case p.l.missed[a.ID]:
		// A pod's address is said to have gone from it. Should that be wrong, or
		// be mended, the pod has its network again; so it stays as long as the pod.
		return 0, stays
	}
	f = goes
	if a.busy || p.l.touched[a.ID] || p.young(a.CreatedAt) {
		f = ripens
	}
	for _, u := range a.units {
		switch {
		case u.held-u.cooling+u.coming > 0:
			return 0, stays
		case u.cooling+u.leaving > 0, !p.l.ripe(u.since, p.t, p.now):
			f = ripens
		}
	}
	switch wait, final := p.refused(DetachENI, a.ID); {
	case final: // what cannot be detached gives back what it can
		return 0, stays
	case wait:
		f = ripens
	}
	return p.own(a), f
}

// refused reports whether the kind is refused for the ENI, and whether waiting
// does not help.
func (p *planner) refused(k Kind, eniID string) (now, final bool) {
	b, ok := p.s.blocked(p.now, k, eniID, "")
	if ok {
		p.l.at(b.Until)
	}
	return ok, ok && b.Fatal
}

// own counts the own units of an ENI that are sure.
func (p *planner) own(a account) (n int) {
	for _, u := range a.units {
		if a.serves && p.l.isOwn(u) {
			n += p.l.sure(u)
		}
	}
	return n
}

func (p *planner) whyDetach() string {
	return fmt.Sprintf("no pod has been on it for %s; %s", p.t.ReturnAfter, p.why)
}

// returnsUnits reports whether own units are given back one by one. Where ENIs
// are counted they are not, but for more than MaxPods pods can use: an ENI comes
// with all its addresses.
func (p *planner) returnsUnits() bool {
	if p.t.byIP() || p.l.prefixes {
		return true
	}
	limit, ok := p.l.limit(p.s)
	return ok && p.wanted() == limit
}

// returnOwn gives back up to spare own units, the emptiest ENI's first: those that
// are about to ripen there are waited for.
func (p *planner) returnOwn(accounts []account, spare int) {
	for _, a := range accounts {
		if spare <= 0 {
			return
		}
		if a.serves {
			given, soon := p.giveBack(a, spare, func(u unit) bool { return u.isPrefix() == p.l.prefixes }, "not wanted any more")
			spare -= given + soon
		}
	}
}

// returnOther gives back units of the kind that is not asked for, once there is
// enough of the other: all of them; as many as there must be room for where the
// limits leave none. In custom networking the primary ENI keeps none at all.
func (p *planner) returnOther(accounts []account, spare int) {
	room := p.short
	for _, a := range accounts {
		switch {
		case !a.serves:
			p.giveBack(a, len(a.units), func(unit) bool { return true }, "pods get no addresses of the primary ENI")
		case spare >= 0:
			p.giveBack(a, len(a.units), p.isOther, p.whyOther())
		case p.full && room > 0 && !p.blocked(p.kind(), a.ID, a.SubnetID, ""):
			given, _ := p.giveBack(a, room, p.isOther, p.whyOther())
			room -= given
		}
	}
}

func (p *planner) isOther(u unit) bool { return u.isPrefix() != p.l.prefixes }

func (p *planner) whyOther() string {
	if p.l.prefixes {
		return "prefixes take the place of single addresses"
	}
	return "single addresses take the place of prefixes"
}

// giveBack plans to return up to most units of an ENI, in one call, and returns
// how many, and how many more only time keeps from it. Those that would be given
// out last go first.
func (p *planner) giveBack(a account, most int, which func(unit) bool, why string) (given, soon int) {
	k := UnassignAddresses
	var addrs []netip.Addr
	var prefixes []netip.Prefix
	units := slices.DeleteFunc(slices.Clone(a.units), func(u unit) bool {
		return u.free == 0 || u.wanted || u.held+u.leaving+u.coming+u.stale > 0 || !which(u)
	})
	slices.SortFunc(units, func(a, b unit) int {
		return cmp.Or(b.since.Compare(a.since), b.addr.Compare(a.addr), comparePrefix(b.prefix, a.prefix))
	})
	for _, u := range units {
		switch {
		case !p.l.ripe(u.since, p.t, p.now):
			soon++
		case len(addrs)+len(prefixes) >= most:
		case u.isPrefix():
			prefixes = append(prefixes, u.prefix)
		default:
			addrs = append(addrs, u.addr)
		}
	}
	if len(addrs) == 0 {
		k = UnassignPrefixes
	} else {
		prefixes = nil
	}
	n := len(addrs) + len(prefixes)
	if n == 0 {
		return 0, soon
	}
	if now := p.account(a.ID); now.going || now.busy || p.l.touched[a.ID] {
		return 0, soon + n
	}
	switch wait, final := p.refused(k, a.ID); {
	case final:
		return 0, soon
	case wait:
		return 0, soon + n
	}
	p.do(Change{Kind: k, ENI: a.ID, Addrs: addrs, Prefixes: prefixes, Why: why})
	return n, soon
}

// young reports whether an ENI was made so short ago that it is left alone. One from
// the future was made before the clock was set back, and is not young until then.
func (p *planner) young(created time.Time) bool {
	const apart = time.Minute // that clocks are, or are set in small steps
	if created.IsZero() || created.After(p.now.Add(apart)) {
		return false
	}
	return !p.l.ripe(created, p.t, p.now)
}

// remove deletes ENIs of this node that are left over and not wanted. One that is
// new may be somebody else's who is about to attach it: an agent that is ending.
func (p *planner) remove() {
	for _, e := range p.s.Detached {
		if p.l.touched[e.ID] || p.l.attaching[e.ID] || !idle(e) {
			continue
		}
		if p.young(e.CreatedAt) || p.blocked(DeleteENI, e.ID, "") {
			continue
		}
		p.do(Change{Kind: DeleteENI, ENI: e.ID, Why: "it is attached to nothing, and not wanted"})
	}
}

// idle reports whether the ENI is attached to nothing, and not just coming off.
func idle(e vpc.ENI) bool { return e.Status == "" || e.Status == "available" }
