package ipamd

import (
	"context"
	"errors"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
)

const (
	// firstPause and longestPause bound the wait after a refusal; it doubles.
	firstPause   = time.Second
	longestPause = time.Minute
	// unreachablePause is the longest wait where EC2 does not answer at all.
	unreachablePause = 10 * time.Second
	// unknownPause is the first wait where EC2 does not know an ENI yet that it
	// has made.
	unknownPause = 250 * time.Millisecond
	// detachPause is how long an ENI takes to come off the instance, at least.
	detachPause = 2 * time.Second
)

// judge turns the outcome of a call into what the planner must know: leave the
// thing that was refused alone for a while, longer after each refusal.
func (b *Book) judge(c ipam.Change, err error, now time.Time) {
	action := actions[c.Kind]
	u := b.budgets[action]
	if u == nil {
		u = &budget{}
		b.budgets[action] = u
	}
	if err == nil {
		u.succeeded(now)
		b.offline = false
		for _, key := range keys(c, nil, b.subnetOf(c)) {
			delete(b.blocked, key)
			delete(b.failures, key)
		}
		if c.Kind == ipam.DetachENI { // it has to come off first
			for _, k := range []ipam.Kind{ipam.DeleteENI, ipam.AttachENI} {
				b.blocked[ipam.BlockKey{Kind: k, Target: c.ENI}] = ipam.Block{Until: now.Add(detachPause), Reason: c.ENI + " is being detached"}
			}
		}
		return
	}
	switch {
	case errors.Is(err, context.Canceled): // the agent ends
		return
	case errors.Is(err, ec2.ErrThrottled):
		u.throttled(now)
		u.why = err.Error() + "; " + ec2.Advice(err)
		b.log.Warn("ec2 throttles", "change", c.String(), "error", err, "advice", ec2.Advice(err), "pause", u.gap)
		return
	}
	b.offline = b.offline || errors.Is(err, ec2.ErrUnreachable)
	key := keys(c, err, b.subnetOf(c))[0]
	first := firstPause
	if errors.Is(err, ec2.ErrNotFound) {
		first = unknownPause
	}
	longest := longestPause
	if errors.Is(err, ec2.ErrUnreachable) {
		longest = unreachablePause // nobody is there to be spared
	}
	pause := min(first<<b.failures[key], longest)
	b.failures[key] = min(b.failures[key]+1, 10)
	reason := err.Error()
	if advice := ec2.Advice(err); advice != "" {
		reason += "; " + advice
	}
	cause := causeOf(err)
	fatal := cause == ipam.NoRights || cause == ipam.SubnetFull || cause == ipam.AtLimit
	b.blocked[key] = ipam.Block{Until: now.Add(pause), Reason: reason, Fatal: fatal, Cause: cause}
	b.log.Error("ec2 refused", "change", c.String(), "error", err, "advice", ec2.Advice(err), "retry", pause)
	if errors.Is(err, ec2.ErrSubnetFull) {
		b.subnetsAt = now // another may have room
	}
}

// causeOf is what a refusal is for; empty where it is none of those.
func causeOf(err error) ipam.Cause {
	for _, c := range []struct {
		err   error
		cause ipam.Cause
	}{
		{ec2.ErrUnauthorized, ipam.NoRights},
		{ec2.ErrSubnetFull, ipam.SubnetFull},
		{ec2.ErrLimit, ipam.AtLimit},
		{ec2.ErrUnreachable, ipam.NoAnswer},
	} {
		if errors.Is(err, c.err) {
			return c.cause
		}
	}
	return ""
}

// keys is what a refusal of c speaks of, first the one to block. With a nil
// error: all that a success disproves.
func keys(c ipam.Change, err error, subnet string) []ipam.BlockKey {
	kind := c.Kind
	if c.PrefixCount > 0 && kind == ipam.CreateENI && (errors.Is(err, ec2.ErrSubnetFull) || err == nil) {
		kind = ipam.AssignPrefixes // the subnet has no /28 left, whatever asks for one
	}
	all, ofSubnet, ofENI := ipam.BlockKey{Kind: c.Kind}, ipam.BlockKey{Kind: kind, Target: subnet}, ipam.BlockKey{Kind: c.Kind, Target: c.ENI}
	switch {
	case err == nil:
		return []ipam.BlockKey{all, ofSubnet, ofENI}
	case errors.Is(err, ec2.ErrSubnetFull) && subnet != "":
		return []ipam.BlockKey{ofSubnet}
	case errors.Is(err, ec2.ErrUnauthorized), errors.Is(err, ec2.ErrUnreachable), c.ENI == "":
		return []ipam.BlockKey{all}
	}
	return []ipam.BlockKey{ofENI}
}

// subnetOf is the subnet that a change takes addresses from.
func (b *Book) subnetOf(c ipam.Change) string {
	if c.SubnetID != "" {
		return c.SubnetID
	}
	for _, e := range b.managed {
		if e.ID == c.ENI {
			return e.SubnetID
		}
	}
	return ""
}

// undecided holds where EC2 may have done what it was asked for.
func undecided(err error) bool { return ec2.UnknownOutcome(err) }

// contradicts holds for refusals that show that our view of the node is wrong.
func contradicts(err error) bool {
	return errors.Is(err, ec2.ErrLimit) || errors.Is(err, ec2.ErrNotFound) || errors.Is(err, ec2.ErrState)
}
