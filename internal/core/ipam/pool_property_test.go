package ipam

import (
	"errors"
	"fmt"
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
	leaving  map[netip.Addr]bool
	disputed map[netip.Addr]bool
	excluded string
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
	for _, k := range []string{"assign", "again", "exhausted", "release", "orphan", "restart", "conflict", "reserve", "unreserve", "withdraw", "not free", "readmit", "disputed", "exclude", "cancel"} {
		if total[k] < 20 {
			t.Errorf("%q happened %d times only: %v", k, total[k], total)
		}
	}
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, p: NewPool(Config{CoolDown: coolDown}), now: t0, counts: map[string]int{},
		held: map[Owner]netip.Addr{}, released: map[netip.Addr]time.Time{}, reserved: map[netip.Addr]bool{},
		leaving: map[netip.Addr]bool{}, disputed: map[netip.Addr]bool{},
	}
}

func (w *world) run(ops []byte) {
	for len(ops) >= 2 && !w.t.Failed() {
		op, arg := ops[0]%20, int(ops[1])
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
		case op == 15:
			w.restart(arg)
		case op == 16:
			w.withdraw(addr(arg%3, 10+arg/3%3), addr(arg/9%3, 10+arg/27%3))
		case op == 17:
			w.readmit(arg)
		case op == 18:
			w.excluded = []string{"", "eni-0", "eni-1"}[arg%3]
			w.counts["exclude"]++
			w.p.Exclude(w.excluded)
			w.p.Prefer(arg%2 == 0)
		default:
			w.cancel(pod(arg % 12))
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
				if w.free(a) && w.offered(a) {
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
	if !w.free(got.Addr) || !w.onENI(got.Addr) || !w.offered(got.Addr) {
		w.t.Errorf("Assign(%s) = %s, which is not free: held %v, released %v (now %v), reserved %v, on an ENI %v",
			o, got.Addr, w.held, w.released[got.Addr], w.now, w.reserved[got.Addr], w.onENI(got.Addr))
	}
	w.held[o] = got.Addr
}

// offered holds for addresses that new pods may get if they are free.
func (w *world) offered(a netip.Addr) bool {
	on := fmt.Sprintf("eni-%d", a.As4()[2])
	return !w.disputed[a] && on != w.excluded
}

func (w *world) free(a netip.Addr) bool {
	since, ever := w.released[a]
	return !w.reserved[a] && !w.leaving[a] && (!ever || w.now.Sub(since) >= coolDown) &&
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

// cancel makes as if a pod had never come.
func (w *world) cancel(o Owner) {
	if a, ok := w.held[o]; ok {
		w.counts["cancel"]++
		delete(w.held, o)
		delete(w.released, a)
	}
	w.p.Cancel(o)
}

// withdraw must take both or none.
func (w *world) withdraw(addrs ...netip.Addr) {
	all := true
	for _, a := range addrs {
		all = all && w.free(a) && w.onENI(a)
	}
	err := w.p.Withdraw(addrs)
	if (err == nil) != all {
		w.t.Errorf("Withdraw(%v) = %v; all free: %v", addrs, err, all)
	}
	if err != nil {
		w.counts["not free"]++
		return
	}
	w.counts["withdraw"]++
	for _, a := range addrs {
		w.leaving[a] = true
	}
}

// readmit makes one that leaves free again, and tells of one that does not leave.
func (w *world) readmit(arg int) {
	other := addr(arg%3, 10+arg/3%3)
	back := []netip.Addr{other}
	if leaving := slices.SortedFunc(maps.Keys(w.leaving), netip.Addr.Compare); len(leaving) > 0 {
		w.counts["readmit"]++
		back = append(back, leaving[arg%len(leaving)])
	}
	for _, a := range back {
		delete(w.leaving, a)
	}
	w.p.Readmit(back, w.now)
}

// setENIs gives device d as many addresses as two bits of arg say, and the last
// of one of them is disputed.
func (w *world) setENIs(arg int) {
	w.enis = nil
	clear(w.disputed)
	for d := range 3 {
		if n := arg >> (2 * d) & 3; n > 0 {
			w.enis = append(w.enis, eni(d, n))
		}
	}
	if len(w.enis) > 0 && arg >= 64 {
		addrs := w.enis[arg%len(w.enis)].PodAddresses()
		w.disputed[addrs[len(addrs)-1]] = true
		w.counts["disputed"]++
	}
	maps.DeleteFunc(w.leaving, func(a netip.Addr, _ bool) bool { return !w.onENI(a) })
	for _, a := range w.p.SetENIs(w.enis, w.disputed, w.now) {
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
	delete(w.leaving, a)
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
	w.p.Exclude(w.excluded)
	clear(w.leaving) // the record of these is not the pool's
	clear(w.disputed)
	if arg&4 == 0 {
		w.p.SetENIs(w.enis, nil, w.now)
	}
	err := w.p.Restore(r, w.now)
	if errors.Is(err, ErrConflict) != clash.IsValid() {
		w.t.Errorf("Restore: %v; conflict at %v", err, clash)
	}
	if clash.IsValid() {
		w.counts["conflict"]++
		w.taken(clash)
	}
	w.p.SetENIs(w.enis, nil, w.now)
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
		case Leaving:
			if !w.leaving[e.Addr] {
				w.t.Errorf("%s counts as leaving", e.Addr)
			}
		}
		if e.Disputed != w.disputed[e.Addr] {
			w.t.Errorf("%+v: disputed is %v", e, w.disputed[e.Addr])
		}
		if e.Orphan == w.onENI(e.Addr) {
			w.t.Errorf("%+v: on an ENI is %v", e, w.onENI(e.Addr))
		}
	}
	if !maps.Equal(seen, w.held) {
		w.t.Errorf("the pool says %v, the model %v", seen, w.held)
	}
	st := w.p.Stats(w.now)
	if st.Free+st.Assigned+st.Cooling+st.Reserved+st.Leaving+st.Disputed != st.Total {
		w.t.Errorf("stats do not add up: %+v", st)
	}
}
