package ipam

import (
	"fmt"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Plan lists what to ask of EC2 now; all of it may run in parallel. The caller
// puts what it begins into InFlight, and may then plan again at any moment:
// what is under way counts as done, and the limits of the instance type hold even
// if all of it succeeds. An ENI never has two changes at a time.
//
// What EC2 answers need not be remembered: the state that follows from it gives
// the rest of the plan. Where nothing else happens a few rounds lead to a node
// of which nothing is wanted.
func Plan(s State, t Targets, now time.Time) []Change {
	changes, _ := plan(s, t, now)
	return changes
}

// NextPlan is the first time after now at which Plan may say something else
// although nothing has happened: a block or a cool-down ends, or something has
// been free for long enough. It is zero if there is none.
func NextPlan(s State, t Targets, now time.Time) time.Time {
	_, next := plan(s, t, now)
	return next
}

// planner is one run of Plan.
type planner struct {
	s   State
	t   Targets
	now time.Time
	l   *ledger

	wish    Wish
	short   int    // own units that are still to be asked for
	later   int    // own units that ENIs have room for and that can only be asked for later
	urgent  int    // pods that will find nothing, even with all that is under way
	full    bool   // units were left over that the limits of the type have no place for
	why     string // how it comes that more is needed
	changes []Change
}

func plan(s State, t Targets, now time.Time) ([]Change, time.Time) {
	if t.NoProvisioning {
		return nil, time.Time{}
	}
	p := &planner{s: s, t: t, now: now, l: newLedger(s, t, now)}
	p.wish = p.l.wish(s, t)
	if s.Limits.ENIs > 0 {
		p.grow()
		p.shrink()
	}
	if t.MarkAndTag {
		p.mark()
	}
	return p.changes, p.l.nextChange
}

// wanted is the number of own units that the node should have.
func (p *planner) wanted() int {
	if p.l.prefixes {
		return p.wish.Prefixes
	}
	return p.wish.Addresses
}

// do plans a change.
func (p *planner) do(c Change) {
	p.changes = append(p.changes, c)
	if c.ENI != "" {
		p.l.touched[c.ENI] = true
	}
	if a := p.account(c.ENI); a != nil {
		a.busy = true
		if c.Kind == AssignAddresses || c.Kind == AssignPrefixes {
			a.room -= c.Count + c.PrefixCount
		}
	}
	p.l.spend(c)
}

func (p *planner) account(eniID string) *account {
	for i := range p.l.accounts {
		if p.l.accounts[i].ID == eniID {
			return &p.l.accounts[i]
		}
	}
	return nil
}

// blocked reports whether the kind is refused for one of the targets, and notes
// when that ends.
func (p *planner) blocked(k Kind, targets ...string) bool {
	b, ok := p.s.blocked(p.now, k, targets...)
	if ok {
		p.l.at(b.Until)
	}
	return ok
}

// mark brings ENIs of ours into the form that those have which we create: they
// end with their instance, and bear its tag.
func (p *planner) mark() {
	for _, e := range byDevice(p.s.ENIs) {
		if e.Tags == nil || leaving(e) || p.l.touched[e.ID] {
			continue
		}
		ours := e.Tags[InstanceTag] == p.s.InstanceID
		switch {
		case !ours && !p.blocked(TagENI, e.ID, ""):
			p.do(Change{Kind: TagENI, ENI: e.ID, Tags: map[string]string{InstanceTag: p.s.InstanceID},
				Why: fmt.Sprintf("it lacks the tag %s=%s", InstanceTag, p.s.InstanceID)})
		case ours && !e.DeleteOnTermination && p.markable(e) && !p.blocked(MarkENI, e.ID, ""):
			p.do(Change{Kind: MarkENI, ENI: e.ID, AttachmentID: e.AttachmentID, Why: "EC2 would leave it behind when the instance ends"})
		}
	}
}

func (p *planner) markable(e vpc.ENI) bool {
	return !isPrimary(e) && madeHere(e) && e.AttachmentID != ""
}
