package ipamd

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

// flight is a change whose call is under way.
type flight struct {
	ID     int
	Change ipam.Change
	Since  time.Time
	addrs  []netip.Addr // withdrawn for it
}

// State is the planner's view.
func (b *Book) State() ipam.State {
	now := b.now()
	s := ipam.State{
		InstanceType: b.self.InstanceType,
		InstanceID:   b.self.InstanceID,
		Limits:       b.self.Limits,
		MaxPods:      b.cfg.MaxPods,
		ENIs:         b.managed,
		Others:       b.others,
		Detached:     b.detached,
		Entries:      b.pool.Entries(now),
		Waiting:      len(b.queue),
		Scheduled:    b.expected(),
		Blocked:      b.blocks(now),
		Subnets:      b.candidates(),
		Network:      b.network(),
		Offline:      b.offline,
		Unsorted:     b.strangers(),
	}
	for _, f := range b.flight {
		s.InFlight = append(s.InFlight, f.Change)
	}
	return s
}

// blocks is what was refused, and, as the planner's view of the budgets, the
// actions whose next call must wait.
func (b *Book) blocks(now time.Time) map[ipam.BlockKey]ipam.Block {
	blocked := make(map[ipam.BlockKey]ipam.Block)
	for k, v := range b.blocked {
		if now.Before(v.Until) {
			blocked[k] = v
		}
	}
	if until := b.started.Add(subnetPatience); b.choosesSubnet() && !b.subnetsTried && !b.cfg.IMDSOnly && now.Before(until) {
		blocked[ipam.BlockKey{Kind: ipam.CreateENI}] = ipam.Block{Until: until, Reason: "EC2 has not said yet which subnets an ENI may be in"}
	}
	if wait := b.started.Add(firstListing); b.strangers() && now.Before(wait) {
		blocked[ipam.BlockKey{Kind: ipam.CreateENI}] = ipam.Block{Until: wait, Reason: "EC2 has not said yet whose the further ENIs of the instance are"}
	}
	for kind, action := range actions {
		u, ok := b.budgets[action]
		if key := (ipam.BlockKey{Kind: kind}); ok && now.Before(u.next) && blocked[key].Until.Before(u.next) {
			blocked[key] = ipam.Block{Until: u.next, Reason: cmp.Or(u.why, "EC2 throttles "+action)}
		}
	}
	return blocked
}

// subnetPatience is how long after the start no ENI is made before EC2 has said
// what the subnets are, or refused to: it might be one in a zone where it is of no
// use, or in a subnet that is set aside.
const subnetPatience = 10 * time.Second

// firstListing is how long a start waits for EC2's first listing before it makes an
// ENI beside those that only IMDS has spoken of.
const firstListing = 5 * time.Second

// strangers reports whether there are ENIs of which it is not known whether they are
// ours: after a restart most likely they are, and another is not needed.
func (b *Book) strangers() bool {
	return !b.heard && !b.cfg.IMDSOnly && slices.ContainsFunc(b.others, func(e vpc.ENI) bool { return e.Tags == nil && e.Primary.IsValid() })
}

// actions is the EC2 action of each kind: EC2 throttles and authorizes by it.
var actions = map[ipam.Kind]string{
	ipam.CreateENI:         "CreateNetworkInterface",
	ipam.AttachENI:         "AttachNetworkInterface",
	ipam.MarkENI:           "ModifyNetworkInterfaceAttribute",
	ipam.AssignAddresses:   "AssignPrivateIpAddresses",
	ipam.AssignPrefixes:    "AssignPrivateIpAddresses",
	ipam.UnassignAddresses: "UnassignPrivateIpAddresses",
	ipam.UnassignPrefixes:  "UnassignPrivateIpAddresses",
	ipam.DetachENI:         "DetachNetworkInterface",
	ipam.DeleteENI:         "DeleteNetworkInterface",
	ipam.TagENI:            "CreateTags",
}

// Begin plans, and takes what may begin now into flight. What is to be given
// back is withdrawn from the pool and in the journal when it returns.
func (b *Book) Begin() []ipam.Change {
	var begun []ipam.Change
	now := b.now()
	for _, c := range ipam.Plan(b.State(), b.cfg.Targets, now) {
		f := flight{Change: c, Since: now}
		if shrinks(c.Kind) {
			f.addrs = b.given(c)
			if err := b.withdraw(c, f.addrs, now); err != nil {
				b.log.Error("begin to give addresses back", "change", c.String(), "error", err)
				continue
			}
		}
		b.flight = append(b.flight, f)
		begun = append(begun, c)
		if c.Kind == ipam.AttachENI {
			b.attaching[c.ENI] = now
		}
	}
	return begun
}

// shrinks holds for changes that take addresses from the node.
func shrinks(k ipam.Kind) bool {
	return k == ipam.UnassignAddresses || k == ipam.UnassignPrefixes || k == ipam.DetachENI
}

// given is the pool's addresses that a change gives back.
func (b *Book) given(c ipam.Change) []netip.Addr {
	addrs := slices.Clone(c.Addrs)
	for _, p := range c.Prefixes {
		addrs = append(addrs, vpc.ENI{Prefixes: []netip.Prefix{p}}.PodAddresses()...)
	}
	if c.Kind == ipam.DetachENI {
		for _, e := range b.managed {
			if e.ID == c.ENI {
				addrs = append(addrs, e.PodAddresses()...)
			}
		}
	}
	return addrs
}

// withdraw takes addresses out of use before EC2 is asked to take them.
func (b *Book) withdraw(c ipam.Change, addrs []netip.Addr, now time.Time) error {
	if err := b.pool.Withdraw(addrs); err != nil {
		return err
	}
	journal := slices.Clone(b.leaving)
	for _, p := range b.units(c, addrs) {
		journal = slices.DeleteFunc(journal, func(l store.Leaving) bool { return l.Prefix == p })
		journal = append(journal, store.Leaving{Prefix: p, ENI: c.ENI, Since: now})
	}
	if err := b.store.PutLeaving(journal); err != nil {
		b.pool.Readmit(addrs, now)
		return err
	}
	b.leaving = journal
	return nil
}

// units is what the journal has of addresses: prefixes as such, others one by one.
func (b *Book) units(c ipam.Change, addrs []netip.Addr) []netip.Prefix {
	out := slices.Clone(c.Prefixes)
	for _, e := range b.managed {
		if c.Kind == ipam.DetachENI && e.ID == c.ENI {
			out = append(out, e.Prefixes...)
		}
	}
	for _, a := range addrs {
		if !slices.ContainsFunc(out, func(p netip.Prefix) bool { return p.Contains(a) }) {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out
}

// readmit makes addresses the pool's again that EC2 has not taken. They leave the
// journal before a pod can get one: the next agent would take it for lost.
func (b *Book) readmit(addrs []netip.Addr, now time.Time) {
	if err := b.strike(addrs); err != nil {
		b.log.Error("write the journal of addresses that are not given back after all; they stay out of use", "error", err)
		for _, a := range addrs {
			b.unsure[a] = now // the next listing tries again
		}
		return
	}
	b.pool.Readmit(addrs, now)
}

// strike takes addresses, and the prefixes that they are of, out of the journal.
func (b *Book) strike(addrs []netip.Addr) error {
	keep := slices.DeleteFunc(slices.Clone(b.leaving), func(l store.Leaving) bool { return slices.ContainsFunc(addrs, l.Prefix.Contains) })
	if len(keep) == len(b.leaving) {
		return nil
	}
	if err := b.store.PutLeaving(keep); err != nil {
		return err
	}
	b.leaving = keep
	return nil
}

// forgetLeft drops journal entries whose time is over: EC2's reads tell the
// truth about them by now.
func (b *Book) forgetLeft(now time.Time) {
	keep := slices.DeleteFunc(slices.Clone(b.leaving), func(l store.Leaving) bool {
		return now.Sub(l.Since) >= 2*Settle && !b.inFlight(l.Prefix.Addr())
	})
	if len(keep) == len(b.leaving) {
		return
	}
	if err := b.store.PutLeaving(keep); err != nil {
		b.log.Error("write the journal of addresses that were given back", "error", err)
		return
	}
	b.leaving = keep
}

func (b *Book) inFlight(a netip.Addr) bool {
	return slices.ContainsFunc(b.flight, func(f flight) bool { return slices.Contains(f.addrs, a) })
}

// Conclude takes what came of a change: the belief and the blocks follow, and
// what was not given back after all is the pool's again.
func (b *Book) Conclude(c ipam.Change, r ipam.Result, err error) {
	now := b.now()
	var f flight
	b.flight = slices.DeleteFunc(b.flight, func(g flight) bool {
		if f.Since.IsZero() && same(g.Change, c) {
			f = g
			return true
		}
		return false
	})
	b.judge(c, err, now)
	switch {
	case err == nil:
		b.belief.Wrote(c, r, now)
		// EC2 may give back at once what it was given a moment ago.
		if err := b.strike(gained(r)); err != nil {
			b.log.Error("write the journal of addresses that were given back", "error", err)
		}
	case undecided(err):
		b.belief.Unsure(c, now)
		for _, a := range f.addrs {
			b.unsure[a] = now
		}
	default:
		if contradicts(err) { // EC2 knows the node otherwise than we do
			b.belief.Unsure(c, now)
		}
		b.readmit(f.addrs, now)
	}
	if err := b.Refresh(); err != nil {
		// EC2 did what it was asked for; the owner tries the kernel again.
		b.log.Error("make the kernel follow ec2", "error", err)
	}
}

// gained is the addresses that a call has brought.
func gained(r ipam.Result) []netip.Addr {
	return slices.Concat(r.Addrs, vpc.ENI{Prefixes: r.Prefixes}.PodAddresses(), r.ENI.PodAddresses())
}

// same holds for a change and itself: an ENI has at most one of a kind in flight.
func same(a, c ipam.Change) bool {
	return a.Kind == c.Kind && a.ENI == c.ENI && a.SubnetID == c.SubnetID && a.Count == c.Count && a.PrefixCount == c.PrefixCount
}

// SawENIs takes a complete listing by EC2, of which the request began at asked.
// What an undecided call should have taken and EC2 still has is the pool's again.
func (b *Book) SawENIs(enis []vpc.ENI, asked time.Time) {
	now := b.now()
	b.belief.SawEC2(enis, asked, now)
	b.heard, b.listed, b.offline = true, asked, false
	var kept []netip.Addr
	for a, at := range maps.Clone(b.unsure) {
		if asked.Sub(at) < Settle {
			continue
		}
		delete(b.unsure, a)
		if slices.ContainsFunc(enis, func(e vpc.ENI) bool { return e.Owns(a) }) {
			kept = append(kept, a)
		}
	}
	b.readmit(kept, now)
	b.refreshLogged("what EC2 says of the ENIs")
}

// SawMetadata takes a complete listing by IMDS.
func (b *Book) SawMetadata(enis []vpc.ENI, asked time.Time) {
	b.belief.SawIMDS(enis, asked, b.now())
	b.refreshLogged("what IMDS says of the ENIs")
}

func (b *Book) refreshLogged(after string) {
	if err := b.Refresh(); err != nil {
		b.log.Error("make the kernel follow", "after", after, "error", err)
	}
}

// next is when time alone gives the executor something to do; zero: never.
func (b *Book) next() time.Time {
	now := b.now()
	at := ipam.NextPlan(b.State(), b.cfg.Targets, now)
	if len(b.arriving) > 0 {
		at = sooner(at, now.Add(deviceInterval))
	}
	return at
}

// sooner is the earlier of two times, of which zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// deviceInterval is how often the kernel is looked at for a device that EC2 says
// is attached, beside the kernel's own news. It usually takes a few seconds; the
// worst that others measured in production is 150 s.
const deviceInterval = 100 * time.Millisecond
