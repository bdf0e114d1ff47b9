package ipam

import (
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// world drives a Pool with random operations and keeps, in the plainest way,
// what must be true of it. It is the judge, so it shares no code with the Pool.
type world struct {
	t        *testing.T
	p        *Pool
	now      time.Time
	held     map[Owner]netip.Addr
	released map[netip.Addr]time.Time // last release
	enis     []vpc.ENI
	reserved map[netip.Addr]bool
	counts   map[string]int
}

// FuzzPool reads each byte pair as one operation and its argument.
func FuzzPool(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		ops := make([]byte, 2*(20+r.IntN(300)))
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		f.Add(ops)
	}
	f.Fuzz(func(t *testing.T, ops []byte) { newWorld(t).run(ops) })
}

// TestPoolProperty runs far longer than the seeds, and fails if an operation was
// never seen to succeed: a judge that sees nothing approves of everything.
func TestPoolProperty(t *testing.T) {
	total := map[string]int{}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		ops := make([]byte, 4000)
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		w := newWorld(t)
		w.run(ops)
		for k, n := range w.counts {
			total[k] += n
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	for _, k := range []string{"assign", "again", "exhausted", "release", "orphan", "restart", "conflict", "reserve", "unreserve"} {
		if total[k] < 20 {
			t.Errorf("%q happened %d times only: %v", k, total[k], total)
		}
	}
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, p: NewPool(Config{CoolDown: coolDown}), now: t0, counts: map[string]int{},
		held: map[Owner]netip.Addr{}, released: map[netip.Addr]time.Time{}, reserved: map[netip.Addr]bool{},
	}
}

func (w *world) run(ops []byte) {
	for len(ops) >= 2 && !w.t.Failed() {
		op, arg := ops[0]%16, int(ops[1])
		ops = ops[2:]
		switch {
		case op < 5:
			w.assign(pod(arg % 12))
		case op < 9:
			w.release(pod(arg % 12))
		case op < 11:
			w.setENIs(arg)
		case op < 14:
			w.now = w.now.Add(time.Duration(arg) * 100 * time.Millisecond)
		case op == 14:
			w.reserve(addr(arg%3, 10+arg/3%3))
		default:
			w.restart(arg)
		}
		w.check()
	}
}

func (w *world) onENI(a netip.Addr) bool {
	return slices.ContainsFunc(w.enis, func(e vpc.ENI) bool { return e.Owns(a) })
}

func (w *world) assign(o Owner) {
	was, again := w.held[o]
	got, err := w.p.Assign(o, w.now)
	switch {
	case err != nil && !errors.Is(err, ErrExhausted):
		w.t.Fatalf("Assign(%s): %v", o, err)
	case err != nil:
		w.counts["exhausted"]++
		if again {
			w.t.Errorf("Assign(%s) = %v, but it holds %s", o, err, was)
		}
		for _, e := range w.enis {
			for _, a := range e.PodAddresses() {
				if w.free(a) {
					w.t.Errorf("Assign(%s) = %v, but %s is free", o, err, a)
				}
			}
		}
		return
	case again:
		w.counts["again"]++
		if got.Addr != was {
			w.t.Errorf("Assign(%s) = %s, it holds %s", o, got.Addr, was)
		}
		return
	}
	w.counts["assign"]++
	if !w.free(got.Addr) || !w.onENI(got.Addr) {
		w.t.Errorf("Assign(%s) = %s, which is not free: held %v, released %v (now %v), reserved %v, on an ENI %v",
			o, got.Addr, w.held, w.released[got.Addr], w.now, w.reserved[got.Addr], w.onENI(got.Addr))
	}
	w.held[o] = got.Addr
}

func (w *world) free(a netip.Addr) bool {
	since, ever := w.released[a]
	return !w.reserved[a] && (!ever || w.now.Sub(since) >= coolDown) &&
		!slices.Contains(slices.Collect(maps.Values(w.held)), a)
}

func (w *world) release(o Owner) {
	was, holds := w.held[o]
	got, ok := w.p.Release(o, w.now)
	if ok != holds || got.Addr != was {
		w.t.Errorf("Release(%s) = %s, %v; it held %s", o, got.Addr, ok, was)
	}
	if holds {
		w.counts["release"]++
		delete(w.held, o)
		w.released[was] = w.now
	}
}

// setENIs gives device d as many addresses as two bits of arg say.
func (w *world) setENIs(arg int) {
	w.enis = nil
	for d := range 3 {
		if n := arg >> (2 * d) & 3; n > 0 {
			w.enis = append(w.enis, eni(d, n))
		}
	}
	for _, a := range w.p.SetENIs(w.enis, w.now) {
		w.counts["orphan"]++
		if w.held[a.Owner] != a.Addr || w.onENI(a.Addr) {
			w.t.Errorf("orphan %+v: held %v, ENIs %v", a, w.held, w.enis)
		}
	}
}

// reserve takes back an address that was reserved, and reserves any other.
func (w *world) reserve(a netip.Addr) {
	if w.reserved[a] {
		w.counts["unreserve"]++
		delete(w.reserved, a)
		w.released[a] = w.now
		w.p.Unreserve(a, w.now)
		return
	}
	w.counts["reserve"]++
	w.p.Reserve(a)
	w.taken(a)
}

func (w *world) taken(a netip.Addr) {
	w.reserved[a] = true
	maps.DeleteFunc(w.held, func(_ Owner, h netip.Addr) bool { return h == a })
}

// restart makes a new Pool from what the record would say, at times with a
// second owner for one of the addresses.
func (w *world) restart(arg int) {
	w.counts["restart"]++
	var r Restored
	var clash netip.Addr
	for o, a := range w.held {
		r.Held = append(r.Held, Assignment{Owner: o, Addr: a})
		if arg&3 == 0 && !clash.IsValid() {
			clash = a
			r.Held = append(r.Held, Assignment{Owner: Owner{ContainerID: "stranger", IfName: "eth0"}, Addr: a})
		}
	}
	for a, at := range w.released {
		r.Cooling = append(r.Cooling, Cooling{Addr: a, ReleasedAt: at})
	}
	r.Unreadable = slices.Collect(maps.Keys(w.reserved))

	w.p = NewPool(Config{CoolDown: coolDown})
	if arg&4 == 0 {
		w.p.SetENIs(w.enis, w.now)
	}
	err := w.p.Restore(r, w.now)
	if errors.Is(err, ErrConflict) != clash.IsValid() {
		w.t.Errorf("Restore: %v; conflict at %v", err, clash)
	}
	if clash.IsValid() {
		w.counts["conflict"]++
		w.taken(clash)
	}
	w.p.SetENIs(w.enis, w.now)
}

// check compares all the pool says of itself with the model.
func (w *world) check() {
	seen := map[Owner]netip.Addr{}
	for _, e := range w.p.Entries(w.now) {
		switch e.State {
		case Assigned:
			if other, twice := seen[e.Owner]; twice {
				w.t.Errorf("%s holds %s and %s", e.Owner, e.Addr, other)
			}
			seen[e.Owner] = e.Addr
		case Free:
			if !w.free(e.Addr) {
				w.t.Errorf("%s counts as free", e.Addr)
			}
		case Reserved:
			if !w.reserved[e.Addr] {
				w.t.Errorf("%s counts as reserved", e.Addr)
			}
		}
		if e.Orphan == w.onENI(e.Addr) {
			w.t.Errorf("%+v: on an ENI is %v", e, w.onENI(e.Addr))
		}
	}
	if !maps.Equal(seen, w.held) {
		w.t.Errorf("the pool says %v, the model %v", seen, w.held)
	}
	st := w.p.Stats(w.now)
	if st.Free+st.Assigned+st.Cooling+st.Reserved != st.Total {
		w.t.Errorf("stats do not add up: %+v", st)
	}
}
