package add

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
)

// The plan. Floor and ADD take turns in every round, and pods of 0 and of 250
// take turns in the run, so that what else goes on in the machine hits both.
const (
	fullNode     = 250 // resident pods of the full node
	turns        = 5   // of empty node and full node
	turnRounds   = 12  // with each number of resident pods
	roundPairs   = 10  // of floor and ADD, one after the other, in a round
	parallel     = 16  // at a time
	burstRounds  = 60  // of 16 floors and 16 ADDs
	warmUpRounds = 3   // thrown away: page cache, the agent's first garbage
	growAtOnce   = 10  // resident pods that are made at a time
)

// round is what was measured side by side.
type round struct {
	Turn     int
	Pods     int // residents
	Parallel int // 1 or 16
	Floor    []time.Duration
	Add      []time.Duration
	Del      []time.Duration
}

// Inside is the bench's half in the instance: it measures there, since to enter
// the instance for each call would be measured too. It prints the rounds as JSON.
func Inside(ctx context.Context, arg string, out, progress io.Writer) (err error) {
	var w where
	if err := json.Unmarshal([]byte(arg), &w); err != nil {
		return fmt.Errorf("read what the bench says: %w", err)
	}
	say := func(format string, args ...any) { fmt.Fprintf(progress, "add: "+format+"\n", args...) }
	// Collected between rounds, by hand.
	debug.SetGCPercent(-1)
	// A goroutine that forks or waits keeps its place in the scheduler for up to
	// 10 ms: with one place per processor the 16 would run one after the other.
	runtime.GOMAXPROCS(2 * parallel)
	say("waiting for %d warm addresses", w.Addresses)
	m, err := openMachine(ctx, w)
	if err != nil {
		return err
	}
	floor, ours, err := m.compareOnce()
	if err != nil {
		return err
	}
	if err := m.release(ctx, 0, []sandbox{floor}, []sandbox{ours}); err != nil {
		return err
	}
	say("the floor leaves the kernel as an ADD does")
	rounds, err := m.measure(ctx, say)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(rounds)
}

func (m *machine) measure(ctx context.Context, say func(string, ...any)) ([]round, error) {
	for range warmUpRounds {
		if _, err := m.pairs(ctx, 0); err != nil {
			return nil, err
		}
	}
	var rounds []round
	for turn := range turns {
		say("turn %d of %d: %d ADDs one after the other, no pods on the node", turn+1, turns, turnRounds*roundPairs)
		some, err := m.turn(ctx, turn, 0)
		if err != nil {
			return nil, err
		}
		say("turn %d of %d: %d ADDs, %d at a time", turn+1, turns, burstRounds/turns*parallel, parallel)
		burst, err := m.bursts(ctx, turn)
		if err != nil {
			return nil, err
		}
		say("turn %d of %d: making %d pods that stay", turn+1, turns, fullNode)
		residents, err := m.grow(fullNode)
		if err != nil {
			return nil, err
		}
		say("turn %d of %d: %d ADDs one after the other, %d pods on the node", turn+1, turns, turnRounds*roundPairs, fullNode)
		more, err := m.turn(ctx, turn, len(residents))
		if err != nil {
			return nil, err
		}
		rounds = slices.Concat(rounds, some, burst, more)
		if err := m.release(ctx, 0, nil, residents); err != nil {
			return nil, err
		}
	}
	return rounds, nil
}

// turn is a number of rounds one after the other.
func (m *machine) turn(ctx context.Context, turn, residents int) ([]round, error) {
	var rounds []round
	for range turnRounds {
		r, err := m.pairs(ctx, residents)
		if err != nil {
			return nil, err
		}
		r.Turn = turn
		rounds = append(rounds, r)
	}
	return rounds, nil
}

// pairs is one round of floor and ADD in turn, then of DEL.
func (m *machine) pairs(ctx context.Context, residents int) (round, error) {
	made, err := m.sandboxes(2 * roundPairs)
	if err != nil {
		return round{}, err
	}
	floors, ours := made[:roundPairs], made[roundPairs:]
	runtime.GC()
	var floor, add, del []outcome
	for i := range roundPairs {
		// Each comes first as often as the other: what one leaves running in
		// the kernel is paid by its follower.
		if i%2 == 0 {
			floor = append(floor, one(m.floor(floors[i])))
		}
		add = append(add, one(m.plugin("ADD", ours[i])))
		if i%2 == 1 {
			floor = append(floor, one(m.floor(floors[i])))
		}
	}
	for _, s := range ours {
		del = append(del, one(m.plugin("DEL", s)))
	}
	r := round{Pods: residents, Parallel: 1}
	if err := r.fill(floor, add, del); err != nil {
		return r, err
	}
	return r, m.dismiss(ctx, residents, floors, ours)
}

// bursts are rounds of floors at a time and ADDs at a time, each first in every
// other round.
func (m *machine) bursts(ctx context.Context, turn int) ([]round, error) {
	var rounds []round
	for i := range burstRounds / turns {
		made, err := m.sandboxes(2 * parallel)
		if err != nil {
			return nil, err
		}
		floors, ours := made[:parallel], made[parallel:]
		runtime.GC()
		var floor, add []outcome
		if i%2 == 0 {
			floor = all(m.floors(floors))
		}
		add = all(m.plugins("ADD", ours))
		if i%2 == 1 {
			floor = all(m.floors(floors))
		}
		del := all(m.plugins("DEL", ours))
		r := round{Turn: turn, Parallel: parallel}
		if err := r.fill(floor, add, del); err != nil {
			return nil, err
		}
		rounds = append(rounds, r)
		if err := m.dismiss(ctx, 0, floors, ours); err != nil {
			return nil, err
		}
	}
	return rounds, nil
}

func (r *round) fill(floor, add, del []outcome) error {
	var err1, err2, err3 error
	r.Floor, err1 = times(floor)
	r.Add, err2 = times(add)
	r.Del, err3 = times(del)
	return errors.Join(err1, err2, err3)
}

// grow makes pods that stay.
func (m *machine) grow(n int) ([]sandbox, error) {
	made, err := m.sandboxes(n)
	if err != nil {
		return nil, err
	}
	for chunk := range slices.Chunk(made, growAtOnce) {
		if _, err := times(all(m.plugins("ADD", chunk))); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// release gives back pods of either kind, without measuring.
func (m *machine) release(ctx context.Context, residents int, floors, ours []sandbox) error {
	for chunk := range slices.Chunk(ours, growAtOnce) {
		if _, err := times(all(m.plugins("DEL", chunk))); err != nil {
			return err
		}
	}
	return m.dismiss(ctx, residents, floors, ours)
}
