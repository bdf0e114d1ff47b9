package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/sighting"
	"github.com/fairway-cni/fairway/internal/edge/hostnet"
	"github.com/fairway-cni/fairway/internal/edge/tracepoint"
)

const (
	// answerTime is for the answer: TCP repeats a SYN after one second and, from then,
	// after two.
	answerTime = 3 * time.Second
	// settle is how long nothing more may be heard of the packet, and settleMost how
	// long it may take all the same.
	settle     = 100 * time.Millisecond
	settleMost = time.Second
)

// sendLive sends the packet of an answer from where it begins, which must be on
// this node, and compares what this node's kernel sees of it.
func sendLive(ctx context.Context, a *path.Answer) (l sighting.Live, err error) {
	if len(a.Hops) == 0 {
		return l, errors.New("--live: the answer has no hop to begin at")
	}
	places, err := openPlaces(a)
	defer func() {
		for _, p := range places {
			err = errors.Join(err, p.NetNS.Close())
		}
	}()
	if err != nil {
		return l, fmt.Errorf("--live: %w", err)
	}
	first := a.Hops[0].Before
	shot, err := hostnet.Load(places[0].NetNS, first.Proto, netip.AddrPortFrom(first.Dst, first.DstPort.Lo), first.Size)
	if err != nil {
		return l, fmt.Errorf("--live: %w (root is needed, or CAP_NET_RAW for icmp)", err)
	}
	defer shot.Close()
	follow, err := tracepoint.NewFollow(tracepoint.Wanted{Proto: shot.Proto, To: shot.To, Port: shot.Port, Nonce: shot.Nonce}, places)
	if err != nil {
		return l, fmt.Errorf("--live: %w", err)
	}
	defer follow.Close()
	waiting, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	trip, err := shot.Fire(waiting)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return l, fmt.Errorf("--live: send: %w", err)
	}
	for end := time.Now().Add(settleMost); ; {
		s, ok, err := follow.Next(earlier(time.Now().Add(settle), end))
		if err != nil {
			return l, fmt.Errorf("--live: %w", err)
		}
		if !ok {
			break
		}
		trip.Sightings = append(trip.Sightings, s)
	}
	watched := map[path.Where]bool{}
	for _, p := range places {
		watched[p.Where] = true
	}
	return sighting.Compare(a, trip, func(w path.Where) bool { return watched[w] }), nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// openPlaces opens the namespaces of this node that the packet is in: first the one
// that sends, then the node's, then that of who receives, if it is here.
func openPlaces(a *path.Answer) (places []tracepoint.Place, err error) {
	add := func(o *hostnet.Open, w path.Where) {
		places = append(places, tracepoint.Place{NetNS: o.File, Where: w, Devices: o.Devices})
	}
	start := &a.Hops[0]
	host, itself, err := hostnet.OpenNode(start.After.Src)
	if err != nil {
		return nil, err
	}
	switch {
	case start.Where.Kind == path.KindNode && itself:
		add(host, start.Where)
	case start.Where.Kind == path.KindPod && !itself:
		pod, err := hostnet.OpenPod(start.After.Src)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%w: run it on the node of %s", err, start.Where), host.Close())
		}
		add(pod, start.Where)
		if where, ok := nodeOf(a); ok {
			add(host, where)
		} else {
			host.Close()
		}
	default:
		return nil, errors.Join(fmt.Errorf("this node has not the address %s: the packet is sent from where it begins, so run it there", start.After.Src), host.Close())
	}
	for i := range a.Hops[1:] {
		h := &a.Hops[i+1]
		if h.Reply || h.Where.Kind != path.KindPod || h.Where == start.Where {
			continue
		}
		pod, err := hostnet.OpenPod(h.After.Dst)
		if errors.Is(err, hostnet.ErrNotHere) {
			return places, nil
		}
		if err != nil {
			return places, err
		}
		add(pod, h.Where)
		return places, nil
	}
	return places, nil
}

// nodeOf is the node of the pod that sends: the first that the packet meets.
func nodeOf(a *path.Answer) (path.Where, bool) {
	for i := range a.Hops {
		if h := &a.Hops[i]; h.Where.Kind == path.KindNode && !h.Reply {
			return h.Where, true
		}
	}
	return path.Where{}, false
}

// statusOfLive: what happened counts, unless it is not what was predicted. Silence
// to a datagram decides nothing.
func statusOfLive(a *path.Answer, l *sighting.Live) error {
	switch {
	case l.Differs != nil:
		return exitStatus{status: pathUnsure}
	case l.Answered == sighting.Yes:
		return nil
	case a.Probe.Proto == path.UDP && l.Answered == sighting.Silence:
		return statusOf(a.Verdict)
	}
	return exitStatus{status: pathNotDelivered}
}
