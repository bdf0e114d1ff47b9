// Package packet measures what a packet from pod to pod costs on its way through
// two nodes, beside the host's own path and beside two rules per pod.
//
//	client --> node 0 --> router --> node 1 --> server
//	   ^            one thread, one CPU            |
//	   +-------------------------------------------+
//
// One thread holds both ends' sockets. The kernel carries a packet from one to
// the other within the system call that sends it, on that thread's CPU: there is
// no other CPU, no wake-up and no scheduler in a figure, only the path. The
// thread is pinned and of a real-time class, so that others do not come between.
//
// Every design is alive all the time, at every number of pods, and each sample
// comes right after one of the host's path. A ratio is the median of the ratios
// of such pairs. How a site is built is in package site.
//
//	rtt    64-byte packets (RFC 2544, section 9.1) there and back, by UDP
//	pps    the same, one way
//	bulk   one TCP connection, writes of 64 KiB, per core: both ends are on one
package packet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/fairway-cni/fairway/bench/packet/site"
	"github.com/fairway-cni/fairway/internal/core/intent"
)

// Kind is what a node does with its packets.
type Kind string

// The kinds.
const (
	Host  Kind = "host"  // the host's own path, of a node without pods
	Seed  Kind = "seed"  // ours as it is by default: source NAT and NodePort on
	Lean  Kind = "lean"  // ours with external source NAT and without NodePort
	Rules Kind = "rules" // two rules per pod
)

// Design is a kind at a number of pods on each node.
type Design struct {
	Kind Kind
	Pods int
}

func (d Design) String() string { return fmt.Sprintf("%s with %d pods", d.Kind, d.Pods) }

// Pods are the numbers of pods on a node: pod limits of instance types, on EKS,
// from m5.large (29 and one) to m5.24xlarge.
var Pods = []int{1, 30, 110, 250, 737}

// rounds is how often every design is measured.
const rounds = 400

// Run measures, prints the table to out and says to progress what it does.
func Run(ctx context.Context, out, progress io.Writer) (Figures, error) {
	designs := []Design{}
	for _, k := range []Kind{Seed, Lean, Rules} {
		for _, n := range Pods {
			designs = append(designs, Design{k, n})
		}
	}
	f, err := measure(ctx, designs, rounds, progress)
	if err != nil {
		return f, err
	}
	return f, f.WriteTable(out)
}

func measure(ctx context.Context, designs []Design, rounds int, progress io.Writer) (_ Figures, err error) {
	say := func(format string, args ...any) { fmt.Fprintf(progress, "packet: "+format+"\n", args...) }
	b := bench{rounds: rounds, say: say}
	defer func() { err = errors.Join(err, b.close()) }()
	start := time.Now()
	for _, d := range append([]Design{{Kind: Host}}, designs...) {
		if err := ctx.Err(); err != nil {
			return Figures{}, err
		}
		say("building %s on each of two nodes", d)
		if err := b.build(d); err != nil {
			return Figures{}, fmt.Errorf("build %s: %w", d, err)
		}
	}
	for i, d := range append([]Design{{Kind: Host}}, designs...) {
		if err := b.open(d, b.sites[i]); err != nil {
			return Figures{}, fmt.Errorf("%s: %w", d, err)
		}
	}
	say("built in %.0f s", time.Since(start).Seconds())
	return b.run(ctx)
}

// configOf is the configuration of a kind.
func configOf(k Kind) intent.Config {
	c := intent.Default()
	if k == Lean {
		c.ExternalSNAT, c.NodePort = true, false
	}
	return c
}

func (b *bench) build(d Design) error {
	layout := map[Kind]site.Layout{Host: site.Bare, Seed: site.Ours, Lean: site.Ours, Rules: site.Rules}[d.Kind]
	s, err := site.New(layout, d.Pods, configOf(d.Kind))
	if err != nil {
		return err
	}
	b.sites = append(b.sites, s)
	return nil
}

// open opens the sockets at the two ends of a site.
func (b *bench) open(d Design, s *site.Site) error {
	if err := s.Settle(); err != nil {
		return err
	}
	l, err := newLane(d, s)
	if err != nil {
		return err
	}
	b.lanes = append(b.lanes, l)
	return l.check(s)
}

// bench is all that is alive during a run.
type bench struct {
	rounds int
	say    func(string, ...any)
	sites  []*site.Site
	lanes  []*lane // of each site; the first is the host's
}

func (b *bench) close() error {
	var errs []error
	for _, l := range b.lanes {
		errs = append(errs, l.close())
	}
	for _, s := range b.sites {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// run measures in rounds, on a thread of its own that ends with it.
func (b *bench) run(ctx context.Context) (Figures, error) {
	// Collected between rounds, by hand.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	type outcome struct {
		f   Figures
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if why := site.OwnCPU(); why != nil {
			b.say("others may come between samples, expect more spread: %v", why)
		}
		f, err := b.measure(ctx)
		done <- outcome{f, err}
	}()
	o := <-done
	return o.f, o.err
}

// Numbers of the samples.
const (
	sampleTime = 2 * time.Millisecond
	warmUp     = 32 // packets there and back before a sample: the caches are another design's
	// pause after each pair of samples leaves others their turn, before the
	// kernel takes it for them (kernel documentation, sched-rt-group).
	pause = 500 * time.Microsecond
)

func (b *bench) measure(ctx context.Context) (Figures, error) {
	f := Figures{samples: make(map[key][]pair)}
	host, lanes := b.lanes[0], b.lanes[1:]
	for _, l := range lanes {
		f.Designs = append(f.Designs, l.Design)
	}
	for _, l := range b.lanes {
		if err := l.calibrate(); err != nil {
			return f, fmt.Errorf("%s: %w", l.Design, err)
		}
	}
	for r := range b.rounds {
		if err := ctx.Err(); err != nil {
			return f, err
		}
		if r%50 == 0 {
			b.say("round %d of %d", r+1, b.rounds)
		}
		runtime.GC()
		for _, w := range works {
			for i := range lanes {
				l := lanes[(i+r)%len(lanes)] // each comes first once
				before, err := host.sample(w)
				if err != nil {
					return f, fmt.Errorf("host's path, %s: %w", w, err)
				}
				ours, err := l.sample(w)
				if err != nil {
					return f, fmt.Errorf("%s, %s: %w", l.Design, w, err)
				}
				k := key{l.Design, w}
				f.samples[k] = append(f.samples[k], pair{before, ours})
				nap(pause)
			}
		}
	}
	return f, nil
}
