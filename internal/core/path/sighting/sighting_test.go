package sighting_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
	"github.com/fairway-cni/fairway/internal/core/path/sighting"
)

func answer(t *testing.T, name string) *path.Answer {
	t.Helper()
	e, w, err := example.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	a, err := path.NewTracer(w).Trace(path.Probe{From: e.From, To: e.To})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// faithful is a trip that went as predicted, as kernels tell it.
func faithful(a *path.Answer) sighting.Trip {
	trip := sighting.Trip{Answered: sighting.Yes, RTT: time.Millisecond}
	for i := range a.Hops {
		h := &a.Hops[i]
		s := sighting.Sighting{At: h.Where, Way: sighting.Packet, Device: h.Device,
			Src: netip.AddrPortFrom(h.After.Src, h.After.SrcPort.Lo), Dst: netip.AddrPortFrom(h.After.Dst, h.After.DstPort.Lo)}
		if h.Reply {
			s.Way = sighting.Reply
		}
		switch {
		case h.Verdict == path.Drop:
			s.Event, s.Reason = sighting.Dropped, "IP_RPFILTER"
			trip.Sightings = append(trip.Sightings, s)
			trip.Answered, trip.RTT = sighting.Silence, 0
			return trip
		case h.Where.Kind != path.KindPod && h.Where.Kind != path.KindNode:
			continue
		case h.Device == "":
			s.Event, s.Device = sighting.Received, "eth0"
		default:
			s.Event = sighting.Sent
		}
		trip.Sightings = append(trip.Sightings, s)
	}
	return trip
}

func kernels(w path.Where) bool { return w.Kind == path.KindPod || w.Kind == path.KindNode }

// TestAsPredicted: where kernels see what was predicted, every hop in a kernel is
// seen and nothing differs.
func TestAsPredicted(t *testing.T) {
	for _, name := range []string{"healthy", "seed002", "seed003"} {
		a := answer(t, name)
		l := sighting.Compare(a, faithful(a), kernels)
		if l.Differs != nil {
			t.Errorf("%s: hop %d: %s", name, l.Differs.Hop, l.Differs.Words)
		}
		want := 0
		for _, h := range a.Hops {
			if kernels(h.Where) {
				want++
			}
			if h.Verdict == path.Drop {
				break
			}
		}
		if len(l.Seen) != want {
			t.Errorf("%s: %d hops seen, want %d: %v", name, len(l.Seen), want, l.Seen)
		}
	}
}

// TestDiffers takes something from what went as predicted, or adds to it.
func TestDiffers(t *testing.T) {
	node := func(w path.Where) bool { return kernels(w) && w.Site == "b" }
	for _, c := range []struct {
		name, example string
		watched       func(path.Where) bool
		change        func(*sighting.Trip)
		hop           int // 0: the last but one place does not matter
		want          string
	}{
		{"another device", "healthy", kernels, func(trip *sighting.Trip) {
			s := &trip.Sightings[1]
			s.Device = "ens5"
			trip.Sightings = append(trip.Sightings[:2], sighting.Sighting{At: s.At, Event: sighting.Routed, Way: s.Way, Device: "ens5", Table: 254})
			trip.Answered = sighting.Silence
		}, 1, "predicted out ens6; it left by ens5, by table 254"},
		{"a drop", "healthy", kernels, func(trip *sighting.Trip) {
			s := &trip.Sightings[1]
			s.Event, s.Reason, s.Device = sighting.Dropped, "NETFILTER_DROP", "fwy1"
			trip.Sightings, trip.Answered = trip.Sightings[:2], sighting.Silence
		}, 1, "predicted out ens6; the kernel dropped it: NETFILTER_DROP at fwy1"},
		{"no reply", "healthy", node, func(trip *sighting.Trip) {
			trip.Sightings, trip.Answered = trip.Sightings[:2], sighting.Silence
		}, 16, "predicted pod; it did not come here"},
		{"not forwarded", "healthy", kernels, func(trip *sighting.Trip) {
			trip.Sightings[1].Event, trip.Sightings[1].Device = sighting.Received, "fwy1"
			trip.Sightings, trip.Answered = trip.Sightings[:2], sighting.Silence
		}, 1, "it came in by fwy1, from 10.12.7.33 to 10.11.4.91, and was not met again"},
		{"an answer where none was to be", "seed003", node, func(trip *sighting.Trip) { trip.Answered = sighting.Yes }, 0, "predicted RPFILTER_STRICT; it was answered"},
		{"refused where it was to be dropped", "seed003", node, func(trip *sighting.Trip) { trip.Answered = sighting.Refused }, 0, "it arrived, and was refused"},
		{"refused where it was to be answered", "healthy", func(path.Where) bool { return false }, func(trip *sighting.Trip) { trip.Answered = sighting.Refused }, 0, "predicted an answer; it was refused"},
		{"an error of the socket", "healthy", kernels, func(trip *sighting.Trip) {
			*trip = sighting.Trip{Answered: sighting.Failed, Error: "network is unreachable"}
		}, 0, "the sender's kernel says: network is unreachable"},
		{"an error by ICMP", "healthy", node, func(trip *sighting.Trip) {
			trip.Sightings = append(trip.Sightings[:2], sighting.Sighting{Event: sighting.Received, Way: sighting.Error, Src: netip.MustParseAddrPort("10.12.0.1:0")})
			trip.Answered = sighting.Silence
		}, 16, "10.12.0.1 says by ICMP that it goes no further"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := answer(t, c.example)
			trip := faithful(a)
			c.change(&trip)
			l := sighting.Compare(a, trip, c.watched)
			if l.Differs == nil || !strings.Contains(l.Differs.Words, c.want) || c.hop != 0 && l.Differs.Hop != c.hop {
				t.Errorf("differs %+v, want hop %d: %s", l.Differs, c.hop, c.want)
			}
		})
	}
}

// TestNothingKnown: hops behind one that is blind predict nothing, and neither does
// silence to a datagram.
func TestNothingKnown(t *testing.T) {
	a := answer(t, "healthy")
	a.Hops[0].Verdict = path.Blind
	if l := sighting.Compare(a, sighting.Trip{Answered: sighting.Silence}, kernels); l.Differs != nil || len(l.Seen) != 0 {
		t.Errorf("%+v", l)
	}
	a = answer(t, "healthy")
	a.Probe.Proto = path.UDP
	if l := sighting.Compare(a, sighting.Trip{Answered: sighting.Silence}, func(path.Where) bool { return false }); l.Differs != nil {
		t.Errorf("%+v", l.Differs)
	}
}
