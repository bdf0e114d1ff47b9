// Package fabric measures what a VPC's rules cost the lab's packets, and how
// long many instances take to start.
//
// Packets are sent through VPCs that differ in one thing each, from one instance
// to another:
//
//	plain     guest -- veth -- kernel's routes -- veth -- guest     no programs
//	groups    the same, with the fabric's programs: security groups at both ENIs
//	acls      the same, with network ACLs between the subnets too
//
// Each VPC has 200 ENIs in 50 instances, 1,000 rules in each direction of the
// group that they share, and 10,000 flows in its table. The VPCs take turns, so
// that what disturbs the machine hits all of them: a ratio is of rates that were
// taken side by side. The packets of 64 bytes (60 without the frame check
// sequence, which veth has not) go round all flows; the bulk is one more flow, a
// TCP connection of the kernel as it comes, with segmentation left to offload.
//
// The start is that of a lab, as fairway-lab up does it, until every ENI is in
// its instance.
//
// [Run] is one goroutine, but for the reader of the TCP connection and the lab's
// own. When its context ends it removes all that it made, too.
package fabric

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Env is the outside of the bench.
type Env struct {
	Progress io.Writer
}

// size is how much of everything there is.
type size struct {
	instances, enis int // ENIs of each instance
	rules           int // in each direction
	flows           int
}

var full = size{instances: 50, enis: 4, rules: 1000, flows: 10_000}

const (
	rounds = 12
	// Turns are short beside what the machine's other programs do to them, and
	// many: then these disturb a few turns much rather than all of them a little.
	packetTurns = 40        // of each VPC, in a round
	packets     = 2000      // in a turn: some milliseconds
	bulkTurns   = 16        // of each VPC, in a round
	bulk        = 128 << 20 // bytes in a turn
	starts      = 3         // of the lab
	tries       = 50        // of a turn
)

// Run runs the bench, prints its figures to out, and gives them.
func Run(ctx context.Context, env Env, out io.Writer) (Figures, error) {
	var f Figures
	if err := f.path(ctx, env, full); err != nil {
		return Figures{}, err
	}
	for i := range starts {
		fmt.Fprintf(env.Progress, "fabric: starting a lab of %d instances with %d ENIs each, %d of %d\n", full.instances, full.enis, i+1, starts)
		took, err := start(ctx, env, full)
		if err != nil {
			return Figures{}, err
		}
		f.starts = append(f.starts, []float64{took.Seconds()})
	}
	return f, f.WriteTable(out)
}

// path measures what packets meet.
func (f *Figures) path(ctx context.Context, env Env, n size) (err error) {
	sites := make([]*site, len(kinds))
	defer func() {
		for _, s := range sites {
			if s != nil {
				err = errors.Join(err, s.close())
			}
		}
	}()
	for i, k := range kinds {
		fmt.Fprintf(env.Progress, "fabric: making a VPC of %d ENIs, %s\n", n.instances*n.enis, k.name)
		if sites[i], err = open(ctx, k, n); err != nil {
			return fmt.Errorf("vpc %s: %w", k.name, err)
		}
	}
	fmt.Fprintf(env.Progress, "fabric: packets of 64 bytes, %d rounds\n", rounds)
	f.packets, err = inTurns(ctx, sites, packetTurns, func(s *site) (float64, error) { return s.packetTurn(packets) })
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Progress, "fabric: bulk, %d rounds\n", rounds)
	f.bulk, err = inTurns(ctx, sites, bulkTurns, func(s *site) (float64, error) {
		if err := s.sender.send(n.flows / bulkTurns); err != nil { // the other flows live
			return 0, err
		}
		return s.stream.turn(bulk)
	})
	if err != nil {
		return err
	}
	for i, s := range sites {
		if err := s.drops(); err != nil {
			return fmt.Errorf("vpc %s: %w", kinds[i].name, err)
		}
	}
	return nil
}

// inTurns gives the rates of one thing at each site, by site and round.
func inTurns(ctx context.Context, sites []*site, turns int, turn func(*site) (float64, error)) (rates [len(kinds)][][]float64, err error) {
	for range rounds {
		var round [len(kinds)][]float64
		for t := range turns {
			for i := range sites {
				if err := ctx.Err(); err != nil {
					return rates, err
				}
				i = (i + t) % len(sites) // who comes after whom changes
				rate, err := turn(sites[i])
				if err != nil {
					return rates, fmt.Errorf("vpc %s: %w", kinds[i].name, err)
				}
				round[i] = append(round[i], rate)
			}
		}
		for i := range sites {
			rates[i] = append(rates[i], round[i])
		}
	}
	return rates, nil
}

// packetTurn sends packets, each of the next flow, and gives those that arrived
// in a second. Where the machine is so busy that the kernel puts packets off, the
// clock has not seen all of their way: such a turn is taken again.
func (s *site) packetTurn(n int) (float64, error) {
	arrived := uint64(0)
	for range tries {
		before, err := s.received()
		if err != nil {
			return 0, err
		}
		began := time.Now()
		if err := s.sender.send(n); err != nil {
			return 0, err
		}
		took := time.Since(began)
		after, err := s.received()
		if err != nil {
			return 0, err
		}
		if arrived = after - before; arrived == uint64(n) {
			return float64(n) / took.Seconds(), nil
		}
	}
	return 0, fmt.Errorf("%d of %d packets arrived, at the last of %d tries", arrived, n, tries)
}
