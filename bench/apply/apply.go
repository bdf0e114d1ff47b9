// Package apply measures what it costs to bring a node's kernel to what it should
// hold: all of it, nothing, one thing.
//
//	floor   the kernel's own description of the state, replayed   netlink, no thought
//	ours    snapshot -> intent -> read the kernel -> difference -> write
//
// The node has 15 ENIs and 737 pods whose devices exist. In each round its
// routes, neighbours, rules and nftables table are wiped and rebuilt, once by
// the floor and once by us, in turn. The floor is what `ip route restore` and
// its like would do: it sends what the kernel said when it was asked, prepared
// before, in one call for routing and one for nftables. So it does not depend on
// the code that it is the measure of. What each of the two leaves is compared
// with what was there before; the bench fails if it is not the same.
//
// A warm restart opens the kernel anew, as an agent that starts does, while
// everything is as it should be. What it writes is counted by the kernel's own
// notifications.
//
// [Run] is one goroutine.
package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/bench/packet/site"
	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
)

const (
	pods         = 737 // of m5.24xlarge on EKS
	rounds       = 40
	warmUpRounds = 3 // thrown away
)

// Run measures and says to progress what it does.
func Run(ctx context.Context, progress io.Writer) (Figures, error) {
	return measure(ctx, pods, rounds, func(format string, args ...any) { fmt.Fprintf(progress, "apply: "+format+"\n", args...) })
}

func measure(ctx context.Context, pods, rounds int, say func(string, ...any)) (_ Figures, err error) {
	say("building a node with %d pods", pods)
	n, err := site.NewNode(0, nil, site.Snapshot(0, pods, intent.Default()))
	if err != nil {
		return Figures{}, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	f := Figures{Pods: pods}
	// Collected between rounds, by hand.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	return f, n.Do(func() (err error) {
		runtime.LockOSThread() // for good: the thread ends with its class
		if why := site.OwnCPU(); why != nil {
			say("others may come between, expect more spread: %v", why)
		}
		b := bench{node: n}
		defer func() { err = errors.Join(err, b.close()) }()
		if err := b.open(); err != nil {
			return err
		}
		for i := range warmUpRounds + rounds {
			if err := ctx.Err(); err != nil {
				return err
			}
			if i%10 == warmUpRounds {
				say("round %d of %d", i-warmUpRounds+1, rounds)
			}
			r, err := b.round(i)
			if err != nil {
				return err
			}
			if i >= warmUpRounds {
				f.rounds = append(f.rounds, r)
			}
		}
		return nil
	})
}

// bench is a node and what its kernel said when all was well.
type bench struct {
	node    *site.Node
	route   *conn
	filter  *conn
	watcher *watcher
	good    state
	floor   batches
	wipe    batches
}

func (b *bench) open() (err error) {
	if b.route, err = dial(protoRoute); err != nil {
		return err
	}
	if b.filter, err = dial(protoFilter); err != nil {
		return err
	}
	if b.watcher, err = watch(); err != nil {
		return err
	}
	if err := b.node.Settle(); err != nil {
		return err
	}
	if b.good, err = record(b.route, b.filter, b.node.Snapshot); err != nil {
		return err
	}
	b.floor, b.wipe = b.good.rebuild(), b.good.remove()
	return nil
}

func (b *bench) close() error {
	var errs []error
	for _, c := range []interface{ Close() error }{b.route, b.filter, b.watcher} {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// round is what was measured once.
type round struct {
	floor, ours        time.Duration // the wiped kernel rebuilt
	compare            time.Duration // nothing to do
	change, pod        time.Duration
	restart            time.Duration
	writes             int // in the restart
	intent, read, diff time.Duration
}

func (b *bench) round(i int) (round, error) {
	var r round
	runtime.GC()
	rebuilds := []func(*round) error{b.rebuildByFloor, b.rebuildByUs}
	if i%2 == 1 {
		slices.Reverse(rebuilds)
	}
	for _, f := range append(rebuilds, b.compare, b.oneChange, b.onePod, b.restart) {
		if err := f(&r); err != nil {
			return r, err
		}
	}
	return r, nil
}

// clock takes the time of f.
func clock(took *time.Duration, f func() error) error {
	start := time.Now()
	err := f()
	*took = time.Since(start)
	return err
}

func (b *bench) rebuildByFloor(r *round) error {
	if err := b.wipe.send(b.route, b.filter); err != nil {
		return fmt.Errorf("wipe the kernel: %w", err)
	}
	if err := clock(&r.floor, func() error { return b.floor.send(b.route, b.filter) }); err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	return b.same("the floor")
}

func (b *bench) rebuildByUs(r *round) error {
	if err := b.wipe.send(b.route, b.filter); err != nil {
		return fmt.Errorf("wipe the kernel: %w", err)
	}
	err := clock(&r.ours, func() error {
		changes, err := b.node.Converge()
		if err == nil && len(changes) < b.node.Pods() {
			err = fmt.Errorf("%d changes for a wiped kernel", len(changes))
		}
		return err
	})
	if err != nil {
		return err
	}
	return b.same("our rebuilding")
}

// same holds what is there to what was there.
func (b *bench) same(who string) error {
	return site.Until(func() (bool, error) {
		now, err := record(b.route, b.filter, b.node.Snapshot)
		if errors.Is(err, errIncomplete) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if d := b.good.difference(now); d != "" {
			return false, fmt.Errorf("%s leaves another kernel than there was: %s", who, d)
		}
		return true, nil
	})
}

// compare is the full comparison, with its parts.
func (b *bench) compare(r *round) error {
	start := time.Now()
	want := intent.Desired(b.node.Snapshot)
	r.intent = time.Since(start)
	have, err := b.node.Kernel.Read(want)
	if err != nil {
		return err
	}
	r.read = time.Since(start) - r.intent
	changes := diff.Compare(have, want)
	r.compare = time.Since(start)
	r.diff = r.compare - r.read - r.intent
	return none(changes)
}

func none(changes []diff.Change) error {
	if len(changes) > 0 {
		return fmt.Errorf("%d changes where all is well, the first: %s", len(changes), changes[0])
	}
	return nil
}

// oneChange is a route that somebody removed, found by the full comparison and
// written again.
func (b *bench) oneChange(r *round) error {
	last := b.node.Last()
	if err := b.route.send(b.good.removalOf(last.Addr)); err != nil {
		return fmt.Errorf("remove the route to %s: %w", last.Addr, err)
	}
	return clock(&r.change, func() error {
		changes, err := b.node.Converge()
		if err == nil && len(changes) != 1 {
			err = fmt.Errorf("%d changes for one route", len(changes))
		}
		return err
	})
}

// onePod is what an ADD writes besides the device: one pod's objects, without a
// comparison.
func (b *bench) onePod(r *round) error {
	s := b.node.Snapshot
	objects := intent.Pod(s, b.node.Last())
	objects = slices.DeleteFunc(objects, func(o node.Object) bool { return o.Rank() == node.RankLink }) // it is there
	if err := b.node.Kernel.Apply(diff.Compare(objects, nil)); err != nil {
		return fmt.Errorf("remove one pod: %w", err)
	}
	return clock(&r.pod, func() error {
		objects := intent.Pod(s, b.node.Last())
		objects = slices.DeleteFunc(objects, func(o node.Object) bool { return o.Rank() == node.RankLink })
		return b.node.Kernel.Apply(diff.Compare(nil, objects))
	})
}

// restart is a warm restart, all being well.
func (b *bench) restart(r *round) error {
	if err := b.node.Settle(); err != nil {
		return err
	}
	return b.restartOnly(r)
}

// restartOnly is the part of an agent's start that concerns the kernel.
func (b *bench) restartOnly(r *round) error {
	if _, err := b.watcher.count(); err != nil { // of what came before
		return err
	}
	asked := 0
	err := clock(&r.restart, func() (err error) {
		k, err := kernel.Open()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, k.Close()) }()
		k.FailWrites = func() error { asked++; return nil }
		if _, err := k.Devices(); err != nil {
			return err
		}
		want := intent.Desired(b.node.Snapshot)
		have, err := k.Read(want)
		if err != nil {
			return err
		}
		return k.Converge(diff.Compare(have, want), want)
	})
	if err != nil {
		return fmt.Errorf("warm restart: %w", err)
	}
	told, err := b.watcher.count()
	r.writes = max(asked, told)
	return err
}
