package ipamd

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/imds"
)

const (
	// metadataInterval is how often IMDS is read: it is local and costs no
	// budget, so that is where changes behind our back are seen first.
	metadataInterval = 30 * time.Second
	// listInterval is how often EC2 lists the ENIs where nothing gives a reason
	// to: two calls an hour of each node.
	listInterval = time.Hour
	// subnetInterval is how often the subnets and their free addresses are read.
	subnetInterval = time.Hour
	// callTimeout bounds one EC2 call, the SDK's second attempt included.
	callTimeout = 30 * time.Second
)

// Executor makes the calls that the book wants. It holds no state that a restart
// would miss.
type Executor struct {
	Log   *slog.Logger
	Now   func() time.Time
	At    func(time.Time) time.Time // by Now, when it was so late by other machines; nil: they agree
	Cloud *ec2.Client               // nil: EC2 is never called (IMDS only)
	Meta  *imds.Client              // nil: there is no metadata service
	Do    Do
	Rand  func(time.Duration) time.Duration // up to that much, for jitter; nil: random

	Observe Observer
}

// chore is a read that is due at times. One runs at most once at a time, and
// after a failure again at growing intervals.
type chore struct {
	what  string
	kind  Reading
	due   time.Time
	every time.Duration
	run   func(ctx context.Context) (func(*Book), error)
	// wanted is when the book has a reason to want it done; zero: it has none.
	wanted func(*Book) time.Time

	running  bool
	failures int
	last     time.Time // when it began last
}

// outcome is what a goroutine brings back to the loop.
type outcome struct {
	tell  func(*Book) // in the goroutine of the book's owner
	chore *chore
	err   error
}

// Run is the executor's loop. It ends with ctx, when the calls under way have.
func (x *Executor) Run(ctx context.Context) {
	if x.Rand == nil {
		x.Rand = func(d time.Duration) time.Duration { return rand.N(d) }
	}
	var book *Book
	if err := x.Do(ctx, func(b *Book) { book = b }); err != nil {
		return
	}
	chores := x.chores(book)
	outcomes := make(chan outcome)
	var calls sync.WaitGroup
	defer calls.Wait()
	start := func(f func() outcome) {
		calls.Go(func() {
			o := f()
			select {
			case outcomes <- o:
			case <-ctx.Done():
			}
		})
	}
	for ctx.Err() == nil {
		var orders []order
		var next time.Time
		err := x.Do(ctx, func(b *Book) {
			for _, c := range chores {
				c.hurry(b)
			}
			if x.Cloud != nil {
				orders = b.orders()
			}
			next = b.next()
		})
		if err != nil {
			return
		}
		for _, o := range orders {
			x.Log.Info("ec2 change", "change", o.String())
			start(func() outcome { return x.change(ctx, o) })
		}
		now := x.Now()
		for _, c := range chores {
			if c.running || c.due.After(now) {
				next = later(next, c)
				continue
			}
			c.running, c.last = true, now
			start(func() outcome {
				ctx, cancel := context.WithTimeout(ctx, callTimeout)
				defer cancel()
				tell, err := c.run(ctx)
				return outcome{tell: tell, chore: c, err: err}
			})
		}
		x.await(ctx, book, next, outcomes)
	}
}

// later is the sooner of next and the chore's time, where it is not running.
func later(next time.Time, c *chore) time.Time {
	if c.running {
		return next
	}
	return sooner(next, c.due)
}

// await sleeps until something has happened or next has come, and takes in what
// came back.
func (x *Executor) await(ctx context.Context, book *Book, next time.Time, outcomes <-chan outcome) {
	var timer <-chan time.Time
	if !next.IsZero() {
		t := time.NewTimer(max(next.Sub(x.Now()), 0))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
	case <-book.kick:
	case <-timer:
		_ = x.Do(ctx, (*Book).lookForDevices) // fails with ctx only, and the loop sees that
	case o := <-outcomes:
		x.take(ctx, o)
	}
}

// take hands an outcome to the book, and says when a chore is due again.
func (x *Executor) take(ctx context.Context, o outcome) {
	if c := o.chore; c != nil {
		c.running = false
		if x.Observe.Read != nil && ctx.Err() == nil {
			x.Observe.Read(c.kind, o.err)
		}
		switch {
		case o.err == nil:
			c.failures = 0
			c.due = x.Now().Add(c.every - c.every/10 + x.Rand(c.every/5))
		default:
			pause := min(firstPause<<c.failures, longestPause)
			c.failures = min(c.failures+1, 10)
			c.due = x.Now().Add(pause)
			if ctx.Err() == nil {
				x.Log.Error(c.what, "error", o.err, "advice", ec2.Advice(o.err), "retry", pause)
			}
		}
	}
	if o.tell != nil {
		_ = x.Do(ctx, o.tell) // the same
	}
}

// hurry brings a read forward that the book has a reason to want. After a failure
// its own pace holds.
func (c *chore) hurry(b *Book) {
	if c.wanted == nil || c.running || c.failures > 0 {
		return
	}
	if at := c.wanted(b); !at.IsZero() {
		if again := c.last.Add(askInterval); at.Before(again) {
			at = again
		}
		c.due = sooner(c.due, at)
	}
}

// askInterval is the least between two reads of one kind, whatever the reason.
const askInterval = 2 * time.Second

// chores is what is read, and how often.
func (x *Executor) chores(b *Book) []*chore {
	now := x.Now()
	var list []*chore
	if x.Meta != nil {
		// The start has just read them.
		list = append(list, &chore{what: "read the ENIs from instance metadata", kind: FromMetadata, every: metadataInterval,
			due: now.Add(x.Rand(metadataInterval)), run: x.metadata})
	}
	if x.Cloud == nil {
		return list
	}
	list = append(list, &chore{what: "read the node's ENIs from ec2", kind: FromEC2, every: listInterval, due: now, run: x.list, wanted: (*Book).wantsList})
	if b.choosesSubnet() {
		list = append(list, &chore{what: "read the subnets from ec2", kind: OfSubnets, every: subnetInterval, due: now, run: x.subnets, wanted: (*Book).wantsSubnets})
	}
	if b.cfg.LeakedCleanup && !b.cfg.Targets.NoProvisioning {
		s := &sweep{x: x, self: b.self, cluster: b.cfg.Cluster, seen: make(map[string]time.Time)}
		list = append(list, &chore{what: "delete leaked ENIs", kind: OfLeaked, every: sweepInterval, due: now.Add(x.Rand(sweepJitter)), run: s.run, wanted: s.wanted})
	}
	return list
}

// wantsList is when EC2 should be asked what the ENIs are: where sources
// contradict each other, or the outcome of a call is not known.
func (b *Book) wantsList() time.Time {
	at := b.listAt
	if view := b.belief.View(b.now()); view.Ask {
		at = sooner(at, view.AskAt)
	}
	return at
}

func (b *Book) wantsSubnets() time.Time { return b.subnetsAt }

// lookForDevices tries again whether the devices of attached ENIs have appeared.
func (b *Book) lookForDevices() {
	if len(b.arriving) > 0 {
		b.refreshLogged("looking for the devices of ENIs")
	}
}

// metadata reads the ENIs from IMDS.
func (x *Executor) metadata(ctx context.Context) (func(*Book), error) {
	asked := x.Now()
	enis, err := x.Meta.ENIs(ctx)
	if err != nil {
		return nil, err
	}
	return func(b *Book) { b.SawMetadata(enis, asked) }, nil
}

// list reads from EC2 what is attached, and what is ours and not attached.
func (x *Executor) list(ctx context.Context) (func(*Book), error) {
	asked := x.Now()
	var self Identity
	if err := x.Do(ctx, func(b *Book) { self = b.self }); err != nil {
		return nil, err
	}
	enis, err := x.Cloud.ENIs(ctx, self.InstanceID)
	if err != nil {
		return unreachable(err), err
	}
	detached, err := x.Cloud.Detached(ctx, self.InstanceID)
	if err != nil {
		return unreachable(err), err
	}
	all := slices.Concat(enis, detached)
	x.date(all)
	return func(b *Book) { b.SawENIs(all, asked) }, nil
}

// date turns the times at which ENIs were made, which whoever made them has from the
// clock of its machine, into those of the book's clock.
func (x *Executor) date(enis []vpc.ENI) {
	for i := range enis {
		enis[i].CreatedAt = x.at(enis[i].CreatedAt)
	}
}

func (x *Executor) at(t time.Time) time.Time {
	if x.At == nil {
		return t
	}
	return x.At(t)
}

// unreachable tells the book that EC2 does not answer, where that is the error.
func unreachable(err error) func(*Book) {
	if !errors.Is(err, ec2.ErrUnreachable) {
		return nil
	}
	return func(b *Book) { b.offline = true }
}

// subnets reads the subnets that ENIs of this node may be in.
func (x *Executor) subnets(ctx context.Context) (func(*Book), error) {
	var self Identity
	if err := x.Do(ctx, func(b *Book) { self = b.self }); err != nil {
		return nil, err
	}
	found, err := x.Cloud.Subnets(ctx, self.VPCID, self.Zone)
	if err != nil {
		return func(b *Book) { b.subnetsTried = true }, err
	}
	return func(b *Book) { b.subnetsAt = time.Time{}; b.SawSubnets(found) }, nil
}

// order is a change with all that its call says.
type order struct {
	ipam.Change
	self Identity
	spec ec2.Spec
}

// orders is what Begin takes into flight.
func (b *Book) orders() (list []order) {
	for _, c := range b.Begin() {
		list = append(list, order{c, b.self, b.spec(c)})
	}
	return list
}

// change makes the one call of a change.
func (x *Executor) change(ctx context.Context, o order) outcome {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := x.call(ctx, o)
	if x.Observe.Change != nil {
		x.Observe.Change(o.Change, err)
	}
	return outcome{tell: func(b *Book) { b.Conclude(o.Change, r, err) }}
}

// spec is the ENI that a change creates, or the tags of one that has none: whose
// it is, but not that we have made it, as it is not ours to delete.
func (b *Book) spec(c ipam.Change) ec2.Spec {
	s := ec2.Spec{InstanceID: b.self.InstanceID, SubnetID: c.SubnetID, Groups: c.Groups,
		Addresses: c.Count, Prefixes: c.PrefixCount, Cluster: b.cfg.Cluster, Tags: b.cfg.Tags}
	if c.Kind == ipam.TagENI {
		s.Tags = map[string]string{ec2.TagInstance: b.self.InstanceID}
		if b.cfg.Cluster != "" {
			s.Tags[ec2.TagCluster] = b.cfg.Cluster
		}
		maps.Copy(s.Tags, b.cfg.Tags)
	}
	return s
}

func (x *Executor) call(ctx context.Context, o order) (r ipam.Result, err error) {
	switch c := o.Change; c.Kind {
	case ipam.CreateENI:
		r.ENI, err = x.Cloud.CreateENI(ctx, o.spec)
		r.ENI.CreatedAt = x.at(r.ENI.CreatedAt)
	case ipam.AttachENI:
		r.AttachmentID, err = x.Cloud.AttachENI(ctx, c.ENI, o.self.InstanceID, c.DeviceIndex, c.CardIndex)
	case ipam.MarkENI:
		err = x.Cloud.MarkDeleteOnTermination(ctx, c.ENI, c.AttachmentID)
	case ipam.AssignAddresses:
		r.Addrs, err = x.Cloud.AssignAddresses(ctx, c.ENI, c.Count)
	case ipam.AssignPrefixes:
		r.Prefixes, err = x.Cloud.AssignPrefixes(ctx, c.ENI, c.PrefixCount)
	case ipam.UnassignAddresses:
		err = x.Cloud.UnassignAddresses(ctx, c.ENI, c.Addrs)
	case ipam.UnassignPrefixes:
		err = x.Cloud.UnassignPrefixes(ctx, c.ENI, c.Prefixes)
	case ipam.DetachENI:
		err = x.Cloud.DetachENI(ctx, c.AttachmentID)
	case ipam.DeleteENI:
		err = x.Cloud.DeleteENI(ctx, c.ENI)
	case ipam.TagENI:
		err = x.Cloud.TagENI(ctx, c.ENI, o.spec.Tags)
	}
	return r, err
}
