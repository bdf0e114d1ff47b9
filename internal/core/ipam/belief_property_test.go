package ipam

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// truth is what EC2 really holds, with its past, so that a reader may lag.
type truth struct {
	t   *testing.T
	r   *rand.Rand
	now time.Time
	b   *Belief

	places  map[string][]moment[place]                 // of each ENI
	units   map[string]map[netip.Prefix][]moment[bool] // of each ENI
	ours    map[subject]bool                           // our own last call that succeeded: has it, or not
	vague   map[string]bool                            // ENIs of which we do not know what our calls did
	pending []func()                                   // answers that have not arrived
	next    int
	counts  map[string]int
	log     []string
}

type moment[T any] struct {
	at time.Time
	is T
}

// was is the last moment at or before a time.
func was[T any](past []moment[T], at time.Time) T {
	var is T
	for _, m := range past {
		if !m.at.After(at) {
			is = m.is
		}
	}
	return is
}

func newTruth(t *testing.T, r *rand.Rand) *truth {
	w := &truth{t: t, r: r, now: t0, b: NewBelief(settle), places: map[string][]moment[place]{},
		units: map[string]map[netip.Prefix][]moment[bool]{}, ours: map[subject]bool{}, vague: map[string]bool{}, counts: map[string]int{}}
	w.put("eni-0", attached)
	w.set("eni-0", w.fresh(), true)
	w.now = w.now.Add(time.Hour)
	w.b.SawEC2(w.read(0, true), w.now, w.now)
	w.b.SawIMDS(w.read(0, false), w.now, w.now)
	return w
}

func (w *truth) put(id string, p place) { w.places[id] = append(w.places[id], moment[place]{w.now, p}) }

func (w *truth) set(id string, u netip.Prefix, has bool) {
	if w.units[id] == nil {
		w.units[id] = map[netip.Prefix][]moment[bool]{}
	}
	w.units[id][u] = append(w.units[id][u], moment[bool]{w.now, has})
}

func (w *truth) has(id string, u netip.Prefix) bool { return was(w.units[id][u], w.now) }

func (w *truth) fresh() netip.Prefix {
	w.next++
	if w.next%4 == 0 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(w.next >> 4), byte(w.next << 4)}), 28)
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 8, byte(w.next >> 8), byte(w.next)}), 32)
}

// read is what a source answers: each thing as it was up to lag ago, and not all
// of the same time.
func (w *truth) read(lag time.Duration, ec2 bool) []vpc.ENI {
	ago := func() time.Time {
		if lag == 0 {
			return w.now
		}
		return w.now.Add(-time.Duration(w.r.Int64N(int64(lag))))
	}
	var enis []vpc.ENI
	for _, id := range slices.Sorted(maps.Keys(w.places)) {
		p := was(w.places[id], ago())
		if p == nowhere || !ec2 && p != attached {
			continue
		}
		e := vpc.ENI{ID: id, DeviceIndex: slices.Index(slices.Sorted(maps.Keys(w.places)), id)}
		if ec2 && p == attached {
			e.Status, e.AttachmentID = "attached", "attach-"+id
		}
		var has []netip.Prefix
		for u, past := range w.units[id] {
			if was(past, ago()) {
				has = append(has, u)
			}
		}
		slices.SortFunc(has, comparePrefix)
		give(&e, has)
		enis = append(enis, e)
	}
	return enis
}

// step is one thing that happens.
func (w *truth) step() {
	id := w.some(attached, detached)
	switch w.r.IntN(16) {
	case 0, 1, 2:
		w.assign(id)
	case 3, 4, 5:
		w.unassign(id)
	case 6:
		w.call(Change{Kind: CreateENI}, func() Result {
			w.next++
			id := fmt.Sprintf("eni-%d", w.next)
			w.put(id, detached)
			u := w.fresh()
			w.set(id, u, true)
			w.ours[subject{id, u}] = true
			e := vpc.ENI{ID: id}
			give(&e, []netip.Prefix{u})
			return Result{ENI: e}
		})
	case 7:
		if id := w.some(detached); id != "" {
			w.call(Change{Kind: AttachENI, ENI: id, DeviceIndex: 1}, func() Result { w.put(id, attached); return Result{AttachmentID: "attach-" + id} })
		}
	case 8:
		if id := w.some(attached); id != "eni-0" {
			w.call(Change{Kind: DetachENI, ENI: id}, func() Result { w.put(id, detached); return Result{} })
		}
	case 9:
		if id := w.some(detached); id != "" {
			w.call(Change{Kind: DeleteENI, ENI: id}, func() Result { w.put(id, nowhere); return Result{} })
		}
	case 10: // somebody else
		u := w.fresh()
		if w.r.IntN(2) == 0 {
			if has := w.all(id); len(has) > 0 {
				u = has[w.r.IntN(len(has))]
			}
		}
		w.set(id, u, !w.has(id, u))
		delete(w.ours, subject{id, u})
		w.counts["others"]++
	case 11, 12, 13:
		w.begin(w.r.IntN(3) == 0)
	default:
		w.pass(time.Duration(w.r.IntN(8000)) * time.Millisecond)
	}
	w.arrive()
}

// some is an ENI that is in one of the places, and that we know: nobody calls EC2
// for another.
func (w *truth) some(places ...place) string {
	known := map[string]bool{}
	v := w.b.View(w.now)
	for _, e := range slices.Concat(v.Attached, v.Detached) {
		known[e.ID] = true
	}
	var ids []string
	for id, past := range w.places {
		if known[id] && slices.Contains(places, was(past, w.now)) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return ""
	}
	slices.Sort(ids)
	return ids[w.r.IntN(len(ids))]
}

func (w *truth) all(id string) []netip.Prefix {
	var has []netip.Prefix
	for u := range w.units[id] {
		if w.has(id, u) {
			has = append(has, u)
		}
	}
	slices.SortFunc(has, comparePrefix)
	return has
}

// call makes one of our own calls: it succeeds, or fails, or nobody knows.
func (w *truth) call(c Change, do func() Result) {
	switch w.r.IntN(6) {
	case 0:
		return // refused
	case 1:
		w.log = append(w.log, fmt.Sprintf("%s unsure %s %s", w.now.Sub(t0), c.Kind, c.ENI))
		w.counts["unsure"]++
		switch c.Kind {
		case AttachENI, DetachENI, DeleteENI:
			w.vague[c.ENI] = true
		}
		if w.r.IntN(2) == 0 {
			w.forgetUnsure(c, do())
		}
		w.b.Unsure(c, w.now)
	default:
		w.counts[string(c.Kind)]++
		w.log = append(w.log, fmt.Sprintf("%s %s %s", w.now.Sub(t0), c.Kind, c.ENI))
		r := do()
		w.pass(time.Duration(w.r.IntN(2000)) * time.Millisecond)
		w.b.Wrote(c, r, w.now)
	}
}

// forgetUnsure: nobody was told of what was added.
func (w *truth) forgetUnsure(c Change, r Result) {
	id := c.ENI
	if c.Kind == CreateENI {
		id = r.ENI.ID
		w.vague[id] = true
	}
	for _, u := range append(unitsOf(r.Addrs, r.Prefixes), unitsOf(r.ENI.Secondary, r.ENI.Prefixes)...) {
		delete(w.ours, subject{id, u})
	}
}

func (w *truth) assign(id string) {
	u := w.fresh()
	w.call(Change{Kind: AssignAddresses, ENI: id}, func() Result {
		w.set(id, u, true)
		w.ours[subject{id, u}] = true
		var e vpc.ENI
		give(&e, []netip.Prefix{u})
		return Result{Addrs: e.Secondary, Prefixes: e.Prefixes}
	})
}

func (w *truth) unassign(id string) {
	has := w.all(id)
	if len(has) == 0 {
		return
	}
	u := has[w.r.IntN(len(has))]
	var e vpc.ENI
	give(&e, []netip.Prefix{u})
	w.call(Change{Kind: UnassignAddresses, ENI: id, Addrs: e.Secondary, Prefixes: e.Prefixes}, func() Result {
		w.set(id, u, false)
		w.ours[subject{id, u}] = false
		return Result{}
	})
}

// begin asks a source; the answer may come later.
func (w *truth) begin(ec2 bool) {
	w.log = append(w.log, fmt.Sprintf("%s read ec2 %v", w.now.Sub(t0), ec2))
	asked := w.now
	answer := w.read(settle-time.Second, ec2)
	w.pending = append(w.pending, func() {
		if ec2 {
			w.b.SawEC2(answer, asked, w.now)
		} else {
			w.b.SawIMDS(answer, asked, w.now)
		}
	})
}

// arrive lets an answer come in, in any order.
func (w *truth) arrive() {
	if len(w.pending) > 0 && w.r.IntN(2) == 0 {
		i := w.r.IntN(len(w.pending))
		w.pending[i]()
		w.pending = slices.Delete(w.pending, i, i+1)
	}
}

func (w *truth) pass(d time.Duration) { w.now = w.now.Add(d) }

// check: what our own calls took away is never offered, and what they gave is
// never forgotten, unless somebody else had a hand in it.
func (w *truth) check() {
	v := w.b.View(w.now)
	offered, listed := map[subject]bool{}, map[subject]bool{}
	for _, e := range v.Attached {
		for _, u := range unitsOf(e.Secondary, e.Prefixes) {
			listed[subject{e.ID, u}] = true
			offered[subject{e.ID, u}] = !v.Disputed[u.Addr()]
		}
	}
	for _, e := range v.Detached {
		for _, u := range unitsOf(e.Secondary, e.Prefixes) {
			listed[subject{e.ID, u}] = true
		}
	}
	for s, has := range w.ours {
		if !has && offered[s] {
			w.t.Errorf("%v was given back, and is offered", s)
		}
		if has && !listed[s] && was(w.places[s.eni], w.now) != nowhere && !w.vague[s.eni] {
			w.t.Errorf("%v was given, and is forgotten", s)
		}
	}
	if v.Ask && v.AskAt.Before(w.now) || v.Ask == v.AskAt.IsZero() {
		w.t.Errorf("ask %v at %v, and it is %v", v.Ask, v.AskAt, w.now)
	}
}

// rest: once nothing happens any more, reads that are late enough end all doubt.
func (w *truth) rest() {
	for len(w.pending) > 0 {
		w.arrive()
	}
	w.pass(settle)
	w.b.SawIMDS(w.read(0, false), w.now, w.now)
	w.b.SawEC2(w.read(0, true), w.now, w.now)
	clear(w.vague)
	v := w.b.View(w.now)
	if v.Ask || len(v.Disputed) > 0 {
		w.t.Errorf("at rest: ask %v, disputed %v", v.Ask, v.Disputed)
	}
	got := map[string]place{}
	for p, enis := range map[place][]vpc.ENI{attached: v.Attached, detached: v.Detached} {
		for _, e := range enis {
			got[e.ID] = p
			units := unitsOf(e.Secondary, e.Prefixes)
			slices.SortFunc(units, comparePrefix)
			if want := w.all(e.ID); !slices.Equal(units, want) {
				w.t.Errorf("%s has %v, in truth %v", e.ID, units, want)
			}
		}
	}
	for id, past := range w.places {
		if p := was(past, w.now); got[id] != p {
			w.t.Errorf("%s is in place %d, in truth %d", id, got[id], p)
		}
	}
	if n := len(w.b.units) + len(w.b.enis) + len(w.b.doubts) + len(w.b.reviews); n > 0 {
		w.t.Errorf("%d facts are kept for nothing", n)
	}
}

func TestBeliefProperty(t *testing.T) {
	counts := map[string]int{}
	for seed := range uint64(500) {
		w := newTruth(t, rand.New(rand.NewPCG(seed, 11)))
		for i := range 120 {
			w.step()
			w.check()
			if i%40 == 39 {
				w.rest()
			}
			if t.Failed() {
				t.Fatalf("seed %d, step %d\n%s", seed, i, strings.Join(w.log, "\n"))
			}
		}
		for k, n := range w.counts {
			counts[k] += n
		}
	}
	for _, k := range []string{"unsure", "others", string(CreateENI), string(AttachENI), string(DetachENI), string(DeleteENI), string(AssignAddresses), string(UnassignAddresses)} {
		if counts[k] < 100 {
			t.Errorf("%q happened %d times only: %v", k, counts[k], counts)
		}
	}
}
