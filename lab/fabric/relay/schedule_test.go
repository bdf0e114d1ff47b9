package relay

import (
	"fmt"
	"math"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var start0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// pass gives frames to a schedule, one each step, and the order in which they
// come out of it.
func pass(f Fault, stream uint64, n int, step time.Duration) (got []string, s *Schedule) {
	s = NewSchedule(f, stream)
	now := start0
	for i := range n {
		s.Add(now, fmt.Appendf(nil, "%d", i))
		for _, frame := range s.Due(now) {
			got = append(got, string(frame))
		}
		now = now.Add(step)
	}
	for {
		next, ok := s.Next()
		if !ok {
			return got, s
		}
		for _, frame := range s.Due(next) {
			got = append(got, string(frame))
		}
	}
}

func numbers(list ...int) (names []string) {
	for _, n := range list {
		names = append(names, fmt.Sprint(n))
	}
	return names
}

func TestScheduleIsDeterministic(t *testing.T) {
	f := Fault{LossPercent: 30, Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond, ReorderPercent: 10, Seed: 42}
	a, sa := pass(f, 0, 1000, time.Millisecond)
	b, sb := pass(f, 0, 1000, time.Millisecond)
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("same seed, same frames (-first +second):\n%s", diff)
	}
	if sa.Stats() != sb.Stats() {
		t.Errorf("stats %+v and %+v", sa.Stats(), sb.Stats())
	}
	// What is lost does not depend on the pace, or on the delay.
	slow := f
	slow.Delay, slow.Jitter, slow.ReorderPercent = 0, 0, 0
	c, _ := pass(slow, 0, 1000, time.Second)
	slices.Sort(a)
	slices.Sort(c)
	if diff := cmp.Diff(a, c); diff != "" {
		t.Errorf("the pace changed what was lost (-first +slow):\n%s", diff)
	}
	if d, _ := pass(f, 1, 1000, time.Millisecond); cmp.Equal(b, d) {
		t.Error("another stream of the seed decided the same")
	}
	f.Seed++
	if d, _ := pass(f, 0, 1000, time.Millisecond); cmp.Equal(b, d) {
		t.Error("another seed decided the same")
	}
}

func TestScheduleLoss(t *testing.T) {
	const n = 10000
	for _, percent := range []float64{0, 1, 30, 99, 100} {
		got, s := pass(Fault{LossPercent: percent, Seed: 1}, 0, n, 0)
		lost := float64(n - len(got))
		// Five standard deviations of a binomial distribution.
		p := percent / 100
		if spread := 5 * math.Sqrt(n*p*(1-p)); math.Abs(lost-n*p) > spread {
			t.Errorf("loss %g%%: lost %g of %d", percent, lost, n)
		}
		if want := (Stats{Frames: n, Lost: uint64(lost), LostBytes: s.Stats().LostBytes}); s.Stats() != want {
			t.Errorf("stats %+v, want %+v", s.Stats(), want)
		}
	}
}

func TestScheduleJitterKeepsOrder(t *testing.T) {
	s := NewSchedule(Fault{Delay: 20 * time.Millisecond, Jitter: 20 * time.Millisecond, Seed: 5}, 0)
	var last time.Time
	for i := range 1000 {
		s.Add(start0.Add(time.Duration(i)*time.Microsecond), []byte{1})
	}
	spread := map[time.Time]bool{}
	for range 1000 {
		next, ok := s.Next()
		if !ok {
			break
		}
		if next.Before(last) || next.Before(start0) || next.After(start0.Add(41*time.Millisecond)) {
			t.Fatalf("due at %s, after one at %s", next.Sub(start0), last.Sub(start0))
		}
		last = next
		spread[next] = true
		if len(s.Due(next.Add(-1))) != 0 || len(s.Due(next)) == 0 {
			t.Fatal("due before its time, or not in its time")
		}
	}
	if len(spread) < 3 {
		t.Errorf("jitter gave %d different times", len(spread))
	}
}

func TestScheduleReorder(t *testing.T) {
	all := Fault{ReorderPercent: 100, Seed: 1}
	// Nobody comes to overtake: each waits for hold, and none is stuck.
	got, s := pass(all, 0, 3, time.Millisecond)
	if diff := cmp.Diff(numbers(0, 1, 2), got); diff != "" {
		t.Errorf("all chosen (-want +got):\n%s", diff)
	}
	if s.Stats().Reordered != 3 {
		t.Errorf("stats %+v", s.Stats())
	}
	s = NewSchedule(all, 0)
	s.Add(start0, []byte("x"))
	if next, _ := s.Next(); next != start0.Add(hold) {
		t.Errorf("a frame that nobody overtakes is due after %s, want %s", next.Sub(start0), hold)
	}
	// One chosen: the next goes first, both without further wait.
	s.fault.ReorderPercent = 0
	s.Add(start0, []byte("y"))
	if diff := cmp.Diff([][]byte{[]byte("y"), []byte("x")}, s.Due(start0)); diff != "" {
		t.Errorf("one chosen (-want +got):\n%s", diff)
	}
	got, s = pass(Fault{ReorderPercent: 10, Delay: time.Millisecond, Seed: 2}, 0, 1000, 10*time.Microsecond)
	if len(got) != 1000 || slices.IsSorted(got) || s.Stats().Reordered == 0 {
		t.Errorf("%d frames of 1000, %+v", len(got), s.Stats())
	}
}

func TestScheduleIsBounded(t *testing.T) {
	s := NewSchedule(Fault{Delay: time.Second}, 0)
	frame := make([]byte, 1<<20)
	for range maxQueued>>20 + 5 {
		s.Add(start0, frame)
	}
	if s.Stats().Lost != 5 {
		t.Errorf("lost %d on top of %d bytes, want 5", s.Stats().Lost, maxQueued)
	}
	if n := len(s.Due(start0.Add(time.Second))); n != maxQueued>>20 {
		t.Errorf("%d frames came out", n)
	}
	s.Add(start0, frame)
	if s.Stats().Lost != 5 {
		t.Error("an empty queue takes nothing")
	}
}

func TestFaultCheck(t *testing.T) {
	good := []Fault{{}, {LossPercent: 100, ReorderPercent: 100, Delay: MaxDelay, Jitter: MaxDelay}}
	bad := []Fault{
		{LossPercent: -1}, {LossPercent: 100.1}, {LossPercent: math.NaN()}, {ReorderPercent: math.Inf(1)},
		{Delay: -1}, {Delay: MaxDelay + 1}, {Jitter: 1}, {Delay: 5, Jitter: -1},
	}
	for _, f := range good {
		if err := f.Check(); err != nil {
			t.Errorf("%+v: %v", f, err)
		}
	}
	for _, f := range bad {
		if f.Check() == nil {
			t.Errorf("%+v: no error", f)
		}
	}
}

// The device is a pipe in memory: its deadlines follow the bubble's clock.
func TestRelayWaitsAsLongAsItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		r := start(near, NewSchedule(Fault{Delay: 30 * time.Millisecond}, 0))
		began := time.Now()
		for range 3 {
			if _, err := far.Write([]byte("frame")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond) // the bubble's time
		}
		buf := make([]byte, 100)
		for i := range 3 {
			n, err := far.Read(buf)
			if err != nil || string(buf[:n]) != "frame" {
				t.Fatalf("read %q, %v", buf[:n], err)
			}
			if got, want := time.Since(began), time.Duration(30+10*i)*time.Millisecond; got != want {
				t.Errorf("frame %d after %s, want %s", i, got, want)
			}
		}
		synctest.Wait()
		if got := r.Stats().Frames; got != 3 {
			t.Errorf("stats say %d frames", got)
		}
		// What waits when the relay is stopped goes on at once.
		if _, err := far.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		stopped := make(chan error)
		before := time.Now()
		go func() { stopped <- r.Stop() }()
		n, err := far.Read(buf)
		if err != nil || string(buf[:n]) != "late" || time.Since(before) != 0 {
			t.Errorf("read %q, %v after %s", buf[:n], err, time.Since(before))
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		if err := r.Stop(); err != nil {
			t.Errorf("second stop: %v", err)
		}
	})
}

func TestRelaySaysWhyItEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		r := start(near, NewSchedule(Fault{}, 0))
		far.Close()
		synctest.Wait()
		if err := r.Stop(); err == nil {
			t.Error("the device ended, and nobody says so")
		}
	})
}

func TestTapErrors(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: tap devices (CAP_NET_ADMIN)")
	}
	if _, err := Tap("a-name-that-is-far-too-long", 4242); err == nil {
		t.Error("no error for a long name")
	}
}
