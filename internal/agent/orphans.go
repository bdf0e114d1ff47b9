package agent

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/edge/cri"
)

// orphanAfter is how long a pod's device must have been gone before its address is
// released without a DEL. The device goes with the pod's namespace, so nobody can
// use the address any more; the time is for a runtime that is about to say so.
const orphanAfter = time.Minute

// reapOrphans releases the attachments whose device has been gone for long: their
// namespace has ended, and no DEL has come.
func (n *nodeState) reapOrphans() {
	now := n.clock.Now()
	for owner, p := range n.pods {
		if p.Wired {
			delete(n.gone, owner)
			continue
		}
		since, known := n.gone[owner]
		if !known {
			n.gone[owner] = now
			continue
		}
		if now.Sub(since) >= orphanAfter {
			n.release(owner, deviceGone)
		}
	}
}

// release releases an attachment that nobody has asked to, and says so.
func (n *nodeState) release(owner ipam.Owner, why orphan) {
	r := n.book.Held()[owner]
	if err := n.del(owner); err != nil {
		n.log.Error("release an orphaned attachment", "container", owner.ContainerID, "interface", owner.IfName, "error", err)
		return
	}
	n.metrics.Orphan(why.word)
	n.log.Info("orphaned attachment released", "reason", why.text, "addr", r.Addr, "pod", r.PodNamespace+"/"+r.PodName,
		"container", owner.ContainerID, "interface", owner.IfName)
}

const (
	// sandboxInterval is how often the container runtime is asked what it has.
	sandboxInterval = time.Minute
	// sandboxAge is how old an attachment must be before a list that misses it says
	// anything: a runtime lists a sandbox only once it runs, long after its ADD.
	sandboxAge = 5 * time.Minute
)

// sandboxes is the loop that asks the container runtime, where its socket is given.
type sandboxes struct {
	log     *slog.Logger
	runtime *cri.Client
	loop    *nodeLoop
}

// run asks until ctx ends. What one list misses is released when the next misses it
// too. A runtime that does not answer says nothing about anybody.
func (s *sandboxes) run(ctx context.Context) {
	ticker := time.NewTicker(sandboxInterval)
	defer ticker.Stop()
	var missed map[ipam.Owner]bool
	away := false // that has been said
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		list, err := s.runtime.Sandboxes(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !(away && errors.Is(err, cri.ErrAway)):
			s.log.Error("ask the container runtime for its sandboxes", "error", err, "retry", sandboxInterval)
		}
		away = errors.Is(err, cri.ErrAway)
		if err != nil {
			missed = nil
			continue
		}
		known := make(map[string]bool, len(list))
		for _, b := range list {
			known[b.ID] = true
		}
		if s.loop.do(ctx, func(n *nodeState) { missed = n.compareSandboxes(known, missed) }) != nil {
			return
		}
	}
}

// compareSandboxes releases the attachments that neither this list of containers nor
// the one before has, and gives those that this one misses.
func (n *nodeState) compareSandboxes(known map[string]bool, missed map[ipam.Owner]bool) map[ipam.Owner]bool {
	now := make(map[ipam.Owner]bool)
	if len(known) == 0 {
		return now // more likely another runtime's socket than a node without any sandbox
	}
	for owner := range n.pods {
		switch age := n.clock.Now().Sub(n.book.Held()[owner].CreatedAt); {
		case known[owner.ContainerID] || age < sandboxAge:
		case missed[owner]:
			n.release(owner, containerGone)
		default:
			now[owner] = true
		}
	}
	return now
}
