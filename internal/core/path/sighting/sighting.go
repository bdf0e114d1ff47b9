// Package sighting compares what was predicted of a packet with what kernels saw
// of it when it was sent for real.
//
//	path.Answer, hop by hop --+
//	                          +--> Compare --> hops seen, the first that differs
//	sightings of tracepoints --+
//
// A kernel tells of devices: by which one the packet came, by which it left, where
// it was freed. So a hop of a routing decision is seen if the packet left by the
// device that was predicted, one of a translation if it was met with the addresses
// that were, a drop if the kernel dropped it there. What the VPC does is nowhere to
// be seen: whether the reply comes back says it for all of it.
//
// The package is pure and safe for concurrent use.
package sighting

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// Event is what a kernel did with the packet.
type Event string

// The events.
const (
	Sent     Event = "sent"     // handed to a device
	Received Event = "received" // taken from a device
	Dropped  Event = "dropped"  // freed before it was delivered
	Routed   Event = "routed"   // a lookup found a route
)

// Way is which packet it was.
type Way string

// The ways.
const (
	Packet Way = "packet"
	Reply  Way = "reply"
	Error  Way = "icmp error" // about the packet
)

// Sighting is one event.
type Sighting struct {
	After  time.Duration  `json:"afterNs"` // since the first
	At     path.Where     `json:"at"`
	Event  Event          `json:"event"`
	Way    Way            `json:"way"`
	Device string         `json:"device,omitempty"`
	Table  int            `json:"table,omitempty"`  // of Routed
	Reason string         `json:"reason,omitempty"` // of Dropped, the kernel's word
	Src    netip.AddrPort `json:"src"`
	Dst    netip.AddrPort `json:"dst"` // of ICMP the ports are 0
}

// Answered is what the sender got.
type Answered string

// What a sender gets.
const (
	Yes     Answered = "answered"
	Refused Answered = "refused" // RST, or ICMP "port unreachable"
	Failed  Answered = "failed"  // another error, as the sender's kernel has it
	Silence Answered = "no answer"
)

// Trip is a packet that was sent.
type Trip struct {
	Answered  Answered      `json:"answered"`
	Error     string        `json:"error,omitempty"` // of Failed
	RTT       time.Duration `json:"rttNs,omitempty"` // of Yes and Refused
	Waited    time.Duration `json:"waitedNs"`
	Sightings []Sighting    `json:"sightings"`
}

// Live is a prediction beside the trip.
type Live struct {
	Trip
	Seen    []int    `json:"seen"` // the hops, from 0
	Differs *Differs `json:"differs,omitempty"`
}

// Differs is the first hop that is not as predicted.
type Differs struct {
	Hop   int    `json:"hop"` // from 0; one more than there are: behind the last
	Words string `json:"words"`
}

// Compare marks the hops at places that were watched, up to the first that was
// predicted to drop the packet. Hops that depend on what is not known predict
// nothing.
func Compare(a *path.Answer, trip Trip, watched func(path.Where) bool) Live {
	l := Live{Trip: trip, Seen: []int{}}
	c := comparison{a, &l}
	last := len(a.Hops) - 1
	if faults := a.Faults(); len(faults) > 0 {
		last = faults[0]
	}
	blind := false
	for i := range a.Hops[:last+1] {
		h := &a.Hops[i]
		blind = blind || h.Verdict == path.Blind
		switch {
		case h.Verdict == path.Blind || !watched(h.Where):
		case c.seen(h, i == 0):
			l.Seen = append(l.Seen, i)
		case l.Differs == nil && !blind && c.tells(h):
			l.Differs = &Differs{i, c.instead(h)}
		}
	}
	if l.Differs == nil && !blind {
		l.Differs = c.end(last)
	}
	return l
}

type comparison struct {
	a *path.Answer
	l *Live
}

func (c comparison) at(h *path.Hop, event Event) []Sighting {
	way := Packet
	if h.Reply {
		way = Reply
	}
	var out []Sighting
	for _, s := range c.l.Sightings {
		if s.At == h.Where && s.Event == event && s.Way == way {
			out = append(out, s)
		}
	}
	return out
}

// tells says whether the hop, if it was as predicted, must have been met. What is
// refused before there is a packet, by the sender's own routes, is an error of its
// socket.
func (c comparison) tells(h *path.Hop) bool {
	return h.Verdict == path.Drop || h.Device != "" || arrives(h)
}

// arrives: the packet or its reply is where it was to get.
func arrives(h *path.Hop) bool {
	switch h.Result {
	case "SYN", "SYN-ACK", "echo", "echo reply", "datagram", "answer":
		return true
	}
	return false
}

func (c comparison) seen(h *path.Hop, first bool) bool {
	by := func(event Event) bool {
		return slices.ContainsFunc(c.at(h, event), func(s Sighting) bool { return h.Device == "" || s.Device == h.Device })
	}
	switch {
	case h.Verdict == path.Drop && h.Code == path.CodeNotListening && c.l.Answered == Refused:
		return true
	case h.Verdict == path.Drop:
		return len(c.at(h, Dropped)) > 0 || first && c.l.Answered == Failed
	case arrives(h):
		return len(c.at(h, Received)) > 0
	case h.Device != "":
		return by(Sent)
	}
	for _, event := range []Event{Sent, Received} {
		for _, s := range c.at(h, event) {
			if s.Src.Addr() == h.After.Src && s.Dst.Addr() == h.After.Dst {
				return true
			}
		}
	}
	return false
}

// instead says what was met where the hop was not.
func (c comparison) instead(h *path.Hop) string {
	predicted := "predicted " + h.Result
	switch {
	case h.Verdict == path.Drop:
		predicted = "predicted " + string(h.Code)
	case arrives(h):
		predicted = "predicted to arrive"
	}
	return predicted + "; " + c.got(h)
}

func (c comparison) got(h *path.Hop) string {
	for _, s := range c.at(h, Dropped) {
		return fmt.Sprintf("the kernel dropped it: %s%s", s.Reason, device(" at ", s.Device))
	}
	if sent := c.at(h, Sent); len(sent) > 0 {
		s := sent[len(sent)-1]
		return "it left by " + s.Device + c.table(h, s)
	}
	if came := c.at(h, Received); len(came) > 0 {
		return fmt.Sprintf("it came in by %s, from %s to %s, and was not met again", came[0].Device, came[0].Src.Addr(), came[0].Dst.Addr())
	}
	if c.l.Answered == Failed {
		return "the sender's kernel says: " + c.l.Error
	}
	for _, s := range c.l.Sightings {
		if s.Way == Error && s.Event == Received {
			return fmt.Sprintf("%s says by ICMP that it goes no further", s.Src.Addr())
		}
	}
	return "it did not come here"
}

func device(word, name string) string {
	if name == "" {
		return ""
	}
	return word + name
}

// table is which one led there.
func (c comparison) table(h *path.Hop, sent Sighting) string {
	for _, s := range slices.Backward(c.at(h, Routed)) {
		if s.Device == sent.Device {
			return fmt.Sprintf(", by table %d", s.Table)
		}
	}
	return ""
}

// end compares what the sender got. Of a datagram silence says nothing: nobody
// need answer one.
func (c comparison) end(last int) *Differs {
	dropped := len(c.a.Faults()) > 0
	switch got := c.l.Answered; {
	case dropped && got == Yes:
		return &Differs{last, "predicted " + string(c.a.Hops[last].Code) + "; it was answered"}
	case dropped && got == Refused && c.a.Hops[last].Code != path.CodeNotListening:
		return &Differs{last, "predicted " + string(c.a.Hops[last].Code) + "; it arrived, and was refused"}
	case dropped || got == Yes:
		return nil
	case got == Silence && c.a.Probe.Proto == path.UDP:
		return nil
	case got == Failed:
		return &Differs{len(c.a.Hops), "predicted an answer; the sender's kernel says: " + c.l.Error}
	}
	return &Differs{len(c.a.Hops), "predicted an answer; " + map[Answered]string{Refused: "it was refused", Silence: "none came"}[c.l.Answered]}
}
