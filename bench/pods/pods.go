// Package pods measures how soon the pods of a crowd are ready in a cluster of real
// Kubernetes programs: 300 at once over three nodes, with Fairway, and with a
// network that does next to nothing (the plugins ptp and host-local).
//
//	this process                                        three instances
//	+----------------------------------+               +------------------------+
//	| lab: EC2, each call 50 ms        |               | kubelet                |
//	| cluster: API server, scheduler   |<--- VPC ----->| containerd - shim - ...|
//	| Run: POST 300 pods, watch them --|-> API server  | fairway-agent, or      |
//	+----------------------------------+               |   ptp + host-local     |
//	                                                   +------------------------+
//
// A pod's start is from the request that makes it to the moment when a watch shows
// it ready. With 300 at once the machine's processors are what everybody waits for,
// so the figure is of the work that a pod costs, and of any time that Fairway would
// have a pod wait for EC2. Other work on the machine disturbs it; so what the
// processors did is measured, too.
//
// The pool starts cold: the agents have been ready for seconds, with their default
// targets, and each node needs a hundred addresses. They are members of the cluster
// and see which pods come. The instance type has room for these without prefixes, so
// that further ENIs have to be made while pods wait.
//
// A sandbox is counted when containerd is asked for it. A pod that needs a second
// one was refused by the network, or was not done when the kubelet lost patience.
//
// [Run] has one cluster at a time, in rounds: one with Fairway and one without, in
// turn. What it made is removed also when its context ends.
package pods

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Env is the outside of the bench.
type Env struct {
	BinDir   string // has the programs of Packages
	Programs string // directory of those of Kubernetes, as `make kubernetes` makes it
	Deploy   string // the source tree's, with the agent's rights
	Progress io.Writer
}

// Packages are the programs that the bench runs, built alike.
var Packages = []string{
	"github.com/fairway-cni/fairway/cmd/fairway-agent",
	"github.com/fairway-cni/fairway/cmd/fairway-cni",
	"github.com/fairway-cni/fairway/cmd/fairway-lab",
}

// The conditions of a crowd.
const (
	nodes      = 3
	Count      = 300          // pods, spread evenly
	nodeType   = "m5.4xlarge" // 8 ENIs of 30 addresses; 4 of them are needed
	callDelay  = 50 * time.Millisecond
	attachTime = time.Second // at most, and half of it more at most until the device is there
	rounds     = 3           // of a crowd with Fairway and one without
)

// Network is what gives pods an interface.
type Network string

// The networks that are compared.
const (
	Fairway Network = "fairway"
	PTP     Network = "ptp" // with host-local; pods of other nodes cannot be reached
)

// Crowd is what became of the pods of one cluster.
type Crowd struct {
	Starts []time.Duration // of each pod, the shortest first
	// Work is that of the machine's processors until all were ready: this crowd's, and
	// whatever else ran at the usual priority.
	Work            time.Duration
	SecondSandboxes int // pods for which containerd was asked more than once
	Refused         int // times that the kubelet said that a sandbox could not be made
}

// Last is the longest start.
func (c Crowd) Last() time.Duration { return c.Starts[len(c.Starts)-1] }

// Run runs the bench, and prints its rounds to out.
func Run(ctx context.Context, env Env, out io.Writer) (Figures, error) {
	var f Figures
	for round := range rounds {
		order := []Network{Fairway, PTP}
		if round%2 == 1 { // whatever a round leaves warm or full meets both
			order = []Network{PTP, Fairway}
		}
		for _, n := range order {
			fmt.Fprintf(env.Progress, "pods: round %d of %d: %s\n", round+1, rounds, n)
			c, err := Measure(ctx, env, n, round)
			if err != nil {
				return Figures{}, fmt.Errorf("%s: %w", n, err)
			}
			fmt.Fprintf(env.Progress, "pods: the last was ready after %.0f s, and the processors had worked %.0f s; %d needed a second sandbox\n",
				c.Last().Seconds(), c.Work.Seconds(), c.SecondSandboxes)
			f.add(n, c)
		}
	}
	return f, f.WriteTable(out)
}
