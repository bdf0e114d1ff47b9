// Package burst measures how soon a crowd of pods has its network on a node that
// has no addresses yet, and what the address pool costs while nothing happens: EC2
// calls and memory.
//
//	bench process                          instance (its namespaces)
//	+-----------------------------+        +------------------------------+
//	| lab: EC2, each call 50 ms,  |--arg-->| Inside                       |
//	|   an attach 1 s at most     |        |  n x fairway-cni, all at once|
//	| Run: starts the agent, reads|<-JSON--|  fairway-agent, just ready   |
//	|   EC2's own log of calls    |        +------------------------------+
//	+-----------------------------+
//
// The floor of a burst is what EC2's calls take, each made at once and as much of
// them in parallel as can be; see [bound]. It is computed from what the lab's EC2
// has logged of the same burst, not from what was set. In prefix mode one call of
// 50 ms is enough for all, and the plugin's processes take longer than that; so
// the same burst is measured again on the same node with all addresses there, and
// the floor is the sum of the two.
//
// The agent has its default targets. Its cool-down is off, as the pods of a burst
// are deleted before the next; nothing rests before the first.
//
// [Run] runs the labs in its own goroutines, one after the other, and waits for
// [Inside], which runs all programs of a burst at a time.
package burst

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
)

// Env is the outside of the bench.
type Env struct {
	Program  string // path of this program, which calls Inside when it is run so
	Argv     []string
	BinDir   string // has fairway-agent and fairway-cni
	Progress io.Writer
}

// Packages are the programs that the bench runs, built alike.
var Packages = []string{
	"github.com/fairway-cni/fairway/cmd/fairway-agent",
	"github.com/fairway-cni/fairway/cmd/fairway-cni",
}

// The conditions of a burst, and the plan.
const (
	callDelay  = 50 * time.Millisecond
	attachTime = time.Second // at most, and half of it more at most until the device is there
	burstType  = "m5.large"  // 3 ENIs of 10 addresses
	rounds     = 5           // of a burst of addresses and one of prefixes
	warmBursts = 3           // after each cold one
)

// plan is one kind of burst.
type plan struct {
	name string
	pods int
	env  []string // of the agent
}

var (
	addresses = plan{"27 pods", 27, nil} // as many as the type has pod addresses
	prefixes  = plan{"60 pods, prefixes", 60, []string{"ENABLE_PREFIX_DELEGATION=true"}}
)

// Run runs the bench, prints its parts to out, and gives the figures. When ctx
// ends it removes all that it made, too.
func Run(ctx context.Context, env Env, out io.Writer) (Figures, error) {
	var f Figures
	for round := range rounds {
		for _, p := range []plan{addresses, prefixes} {
			fmt.Fprintf(env.Progress, "burst: round %d of %d: %s\n", round+1, rounds, p.name)
			b, err := p.run(ctx, env, round)
			if err != nil {
				return Figures{}, fmt.Errorf("%s: %w", p.name, err)
			}
			if p.name == addresses.name {
				f.addresses = append(f.addresses, b)
			} else {
				f.prefixes = append(f.prefixes, b)
			}
		}
	}
	var err error
	if f.still, err = rest(ctx, env); err != nil {
		return Figures{}, fmt.Errorf("idle nodes: %w", err)
	}
	fmt.Fprintln(env.Progress, "burst: hours of idle nodes, in virtual time")
	if f.idle, err = idleNodes(ctx); err != nil {
		return Figures{}, fmt.Errorf("hours of idle nodes: %w", err)
	}
	return f, f.WriteTable(out)
}

// run measures one burst on a node of its own, cold and then warm.
func (p plan) run(ctx context.Context, env Env, round int) (_ outcome, err error) {
	s, err := open(ctx, env, describe(1, burstType, round))
	if err != nil {
		return outcome{}, err
	}
	defer s.close(&err)
	in, err := s.inside(ctx, task{Pods: p.pods, Warm: warmBursts})
	if err != nil {
		return outcome{}, err
	}
	defer in.end(&err)
	if err := in.prepared(); err != nil {
		return outcome{}, err
	}
	began := time.Now()
	if err := s.startAgent(ctx, 0, p.env); err != nil {
		return outcome{}, err
	}
	cold, err := in.burst()
	if err != nil {
		return outcome{}, err
	}
	o := outcome{pods: p.pods, failed: cold.failed()}
	if o.failed == 0 {
		calls, snap := s.lab.Cloud().Calls(began), s.lab.Cloud().Snapshot()
		if o.calls, err = bound(calls, snap.Interfaces, cold.addresses()); err != nil {
			return outcome{}, err
		}
		o.last = cold.last().Sub(cold.Start)
		// The agent may have begun for itself, before the first pod: that is
		// no time gained.
		o.lead = max(cold.Start.Sub(firstGrowth(calls)), 0)
	}
	err = p.warm(s, in, &o, began)
	return o, err
}

// warm measures the same burst again, where the node has all addresses by now.
func (p plan) warm(s *site, in *half, o *outcome, began time.Time) error {
	var since time.Time
	for range warmBursts {
		// Inside says that the node is warm, and goes on at once.
		if err := in.prepared(); err != nil {
			return err
		}
		if since.IsZero() {
			since = time.Now()
			o.countGrowth(s.lab.Cloud().Calls(began), since, len(s.lab.Cloud().Snapshot().Interfaces)-1)
		}
		warm, err := in.burst()
		if err != nil {
			return err
		}
		if n := warm.failed(); n > 0 {
			return fmt.Errorf("%d of %d ADDs failed on a warm node: %s", n, p.pods, warm.why())
		}
		o.warm = append(o.warm, warm.last().Sub(warm.Start))
		o.warmAdds += p.pods
	}
	if err := in.ended(); err != nil { // with the last DEL
		return err
	}
	// That of DELs counts too: there is none either.
	o.warmCalls = len(ofPool(s.lab.Cloud().Calls(since)))
	return nil
}

// crowd is what Inside says of one burst.
type crowd struct {
	Start time.Time // before the first exec
	Pods  []podOutcome
}

// podOutcome is one ADD.
type podOutcome struct {
	End   time.Time // its process has been waited for
	Addr  netip.Addr
	Error string // empty: it succeeded
}

func (c crowd) last() time.Time {
	var last time.Time
	for _, p := range c.Pods {
		if p.End.After(last) {
			last = p.End
		}
	}
	return last
}

func (c crowd) failed() int {
	n := 0
	for _, p := range c.Pods {
		if p.Error != "" {
			n++
		}
	}
	return n
}

// why is what the first of those that failed said.
func (c crowd) why() string {
	for _, p := range c.Pods {
		if p.Error != "" {
			return strings.TrimSpace(p.Error)
		}
	}
	return ""
}

func (c crowd) addresses() []netip.Addr {
	var list []netip.Addr
	for _, p := range c.Pods {
		list = append(list, p.Addr)
	}
	return list
}
