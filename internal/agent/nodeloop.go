package agent

import (
	"context"
	"time"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
)

// replayInterval is how often a running agent looks into the spool: the plugin
// also leaves a DEL there when the agent was too slow to answer.
const replayInterval = 10 * time.Second

// tick does what time asks for: dead links go, records of addresses that have
// cooled down go, releases that were left in the spool are carried out.
func (n *nodeState) tick() {
	if now := n.clock.Now(); !now.Before(n.replayAt) {
		n.replayAt = now.Add(replayInterval)
		if err := n.replay(); err != nil {
			n.log.Error("replay spool", "error", err)
		}
	}
	n.watchSysctls()
	if err := n.kernel.Reap(); err != nil {
		n.log.Error("reap dead links", "error", err)
	}
	n.reapOrphans()
	n.book.Tick()
}

// nodeLoop runs the functions that are sent to it, one after the other, and has
// the kernel repaired when someone else has changed it.
//
// What the executor does with the addresses goes before pods: it is short, and in a
// burst the ADDs that wait for their turn take many times as long as a call to EC2,
// which the rest of the burst needs under way.
type nodeLoop struct {
	state    *nodeState
	commands chan func(*nodeState)
	first    chan func(*nodeState) // the executor's
	drift    chan string           // why the kernel should be looked at; nil: nobody watches
	repair   func(why string) bool // of the state
}

func newNodeLoop(n *nodeState) *nodeLoop {
	return &nodeLoop{state: n, commands: make(chan func(*nodeState)), first: make(chan func(*nodeState)), drift: make(chan string), repair: n.repair}
}

const (
	tickInterval = time.Second
	// driftDelay is how long changes by others are gathered before the kernel is
	// compared: they come in crowds. It is most of what a repair takes.
	driftDelay = 50 * time.Millisecond
	// retryDelay is the wait after a comparison or repair that failed.
	retryDelay = 200 * time.Millisecond
	// compareInterval is how often the kernel is compared though nobody said
	// that it changed.
	compareInterval = 30 * time.Second
)

// run is the node loop. It ends with ctx, after the function at hand.
func (l *nodeLoop) run(ctx context.Context) {
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	compare := time.NewTimer(compareInterval)
	defer compare.Stop()
	pending, why := false, "timer"
	for {
		var f func(*nodeState)
		select {
		case f = <-l.first:
		default:
			select {
			case <-ctx.Done():
				return
			case f = <-l.first:
			case f = <-l.commands:
			case <-ticker.C:
				f = (*nodeState).tick
			case reason := <-l.drift:
				if !pending {
					pending, why = true, reason
					compare.Reset(driftDelay)
				}
			case <-compare.C:
				next := compareInterval
				pending = false
				if !l.repair(why) {
					next, pending = retryDelay, true
				}
				why = "timer"
				compare.Reset(next)
			}
		}
		if f != nil {
			f(l.state)
		}
		if l.state.behind && !pending {
			pending, why = true, "an earlier attempt failed"
			compare.Reset(retryDelay)
		}
	}
}

// do runs f in the node loop and waits for it.
func (l *nodeLoop) do(ctx context.Context, f func(*nodeState)) error {
	return l.send(ctx, l.commands, f)
}

// doBook is do for what concerns the addresses only.
func (l *nodeLoop) doBook(ctx context.Context, f func(*ipamd.Book)) error {
	return l.do(ctx, func(n *nodeState) { f(n.book) })
}

// doFirst is doBook for the executor.
func (l *nodeLoop) doFirst(ctx context.Context, f func(*ipamd.Book)) error {
	return l.send(ctx, l.first, func(n *nodeState) { f(n.book) })
}

func (l *nodeLoop) send(ctx context.Context, to chan<- func(*nodeState), f func(*nodeState)) error {
	done := make(chan struct{})
	select {
	case to <- func(n *nodeState) { defer close(done); f(n) }:
		<-done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
