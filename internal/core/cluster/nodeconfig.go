package cluster

import (
	"cmp"
	"slices"
	"time"
)

// NodeConfig is options for the agents of the nodes that it selects. See api/v1alpha1,
// whose kind it is.
type NodeConfig struct {
	Name       string
	Version    string // resource version, for a write that nobody else's may come between
	Generation int64
	Selector   map[string]string // labels; none: every node
	Priority   int32
	Options    map[string]string

	Rollout  Rollout
	Accepted Options // the zero value: no generation was accepted yet
}

// Options is what one generation says.
type Options struct {
	Name       string            `json:"name,omitempty"` // of the NodeConfig; empty: none is in force
	Generation int64             `json:"generation,omitempty"`
	Options    map[string]string `json:"options,omitempty"`
}

// Same reports whether both are of one generation of one NodeConfig.
func (o Options) Same(p Options) bool { return o.Name == p.Name && o.Generation == p.Generation }

// Rollout is what became of the newest generation that a node took up.
type Rollout struct {
	Generation int64 // 0: none was
	Node       string
	State      RolloutState
	Since      time.Time
	Message    string
}

// RolloutState is a state of a [Rollout].
type RolloutState string

// The states, as the API has them.
const (
	Trying   RolloutState = "Trying"
	Accepted RolloutState = "Accepted"
	Failed   RolloutState = "Failed"
)

// Newest is what the object says now.
func (c NodeConfig) Newest() Options {
	return Options{Name: c.Name, Generation: c.Generation, Options: c.Options}
}

// selects reports whether the node has all the labels.
func (c NodeConfig) selects(n Node) bool {
	for k, v := range c.Selector {
		if have, ok := n.Labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// Choose is the NodeConfig of a node: of those that select it the one with the highest
// priority, of equal ones the first by name.
func Choose(n Node, all []NodeConfig) (NodeConfig, bool) {
	var mine []NodeConfig
	for _, c := range all {
		if c.selects(n) {
			mine = append(mine, c)
		}
	}
	if len(mine) == 0 {
		return NodeConfig{}, false
	}
	return slices.MinFunc(mine, func(a, b NodeConfig) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Name, b.Name))
	}), true
}

// Act is what a node does for the rollout of its NodeConfig.
type Act string

const (
	// Stay with what is in force.
	Stay Act = "stay"
	// Follow: take over options that another node was ready with.
	Follow Act = "follow"
	// Claim: say that this node tries the newest generation, and then try it.
	Claim Act = "claim"
	// Try the newest generation: this node's claim stands.
	Try Act = "try"
	// GiveUp: say that the node that tried has never said what came of it.
	GiveUp Act = "give up"
)

// TryingPatience is how long a node may take to say what came of a generation that it
// tries. Its own agent restarts within seconds.
const TryingPatience = 10 * time.Minute

// Next is what this node does, and with which options. InForce is what it runs with.
// Watched is how long it has seen the claim as it stands: by its own clock, so that
// clocks that differ make no difference.
//
//	newest accepted                -> follow it
//	newest not tried yet           -> claim it
//	newest tried here              -> try it
//	newest tried elsewhere, failed -> stay with, or follow, the one accepted before
func Next(c NodeConfig, node string, inForce Options, watched time.Duration) (Act, Options) {
	r := c.Rollout
	follow := func() (Act, Options) {
		accepted := c.Accepted
		if accepted.Generation == 0 {
			if inForce.Same(Options{}) {
				return Stay, inForce
			}
			return Follow, Options{} // it has failed, or is of an object that is no more this node's
		}
		accepted.Name = c.Name
		if inForce.Same(accepted) {
			return Stay, inForce
		}
		return Follow, accepted
	}
	switch {
	case c.Accepted.Generation == c.Generation:
		return follow()
	case r.Generation != c.Generation:
		return Claim, c.Newest()
	case r.State == Trying && r.Node == node:
		return Try, c.Newest()
	case r.State == Trying && watched >= TryingPatience:
		return GiveUp, Options{}
	}
	return follow()
}
