package ipamd

import (
	"maps"
	"reflect"
	"slices"

	"github.com/fairway-cni/fairway/internal/core/cluster"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// What a cluster knows of the node, and what may change while the agent runs.

// Schedule says which pods are bound to the node and will ask for an address. Those
// that have one by now may be among them: they are told apart when it counts, so that
// a pod that is served in between is never planned for twice.
func (b *Book) Schedule(pods map[cluster.PodName]bool) {
	if !maps.Equal(b.scheduled, pods) {
		b.scheduled = pods
		b.wake()
	}
}

// expected is how many pods will ask for an address and do not wait for one: those
// that are scheduled and have none, or the ADDs that have come and had no turn yet
// where these are more. An ADD that waits is taken for that of a scheduled pod.
func (b *Book) expected() int {
	coming := int(b.coming.Load())
	if len(b.scheduled) == 0 {
		return coming
	}
	served, n := b.PodNames(), 0
	for p := range b.scheduled {
		if !served[p] {
			n++
		}
	}
	return max(n-len(b.queue), coming)
}

// PodNames is the pods that hold an address.
func (b *Book) PodNames() map[cluster.PodName]bool {
	served := make(map[cluster.PodName]bool, len(b.records))
	for _, r := range b.records {
		served[cluster.PodName{Namespace: r.PodNamespace, Name: r.PodName}] = true
	}
	return served
}

// SetMaxPods says how many pods kubelet starts at most; 0: it is not known.
func (b *Book) SetMaxPods(n int) {
	if b.cfg.MaxPods != n {
		b.cfg.MaxPods = n
		b.wake()
	}
}

// SetCustom takes another ENIConfig. ENIs that there are stay where they are; further
// ones are made by it. Whether there is custom networking at all does not change.
func (b *Book) SetCustom(c Custom) {
	c.Enabled = b.cfg.Custom.Enabled
	if reflect.DeepEqual(b.cfg.Custom, c) {
		return
	}
	b.cfg.Custom = c
	if c.Subnet != "" && !slices.ContainsFunc(b.subnets, func(s vpc.Subnet) bool { return s.ID == c.Subnet }) {
		b.subnetsAt = b.now() // it may be new
	}
	b.log.Info("custom networking", "eniconfig", c.Name, "subnet", c.Subnet, "groups", c.Groups, "problem", c.Problem)
	b.tell()
	b.wake()
}
