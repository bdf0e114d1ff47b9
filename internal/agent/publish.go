package agent

import (
	"context"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-cni/fairway/api/v1alpha1"
	"github.com/fairway-cni/fairway/internal/core/cluster"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
)

// How often an ENINode is written, at most. Counts and pods change with every pod, and
// are a minute late for people; conditions and ENIs are what somebody waits for. A
// node on which nothing changes writes nothing.
const (
	publishLook   = 5 * time.Second
	publishUrgent = 15 * time.Second
	publishRest   = time.Minute
	publishJitter = 5 * time.Second // of the first write, and a quarter of each pause
)

// eventPause is the least between two events about one condition.
const eventPause = 5 * time.Minute

// eventRetry is the wait after one that the API server did not take.
const eventRetry = time.Minute

// publisher says in the API how the node stands. It belongs to one goroutine.
type publisher struct {
	m       *member
	judge   judge
	written *v1alpha1.ENINodeStatus
	owner   string    // UID of the Node that it was written for
	next    time.Time // before which nothing is written but what is urgent
	urgent  time.Time // before which nothing is written at all
	again   time.Time // when it is written though nothing has changed; zero: never
	pause   time.Duration
	told    map[string]told
	events  time.Time // before which none is posted, as the last was not taken
}

// told is the last event about a condition.
type told struct {
	at  time.Time
	bad bool
}

func newPublisher(m *member) *publisher { return &publisher{m: m, told: make(map[string]told)} }

// run looks every few seconds, until ctx ends.
func (p *publisher) run(ctx context.Context) {
	wait := rand.N(publishJitter)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = publishLook - publishLook/10 + rand.N(publishLook/5)
		s, err := p.m.loop.status(ctx)
		if err != nil {
			return
		}
		p.look(ctx, s)
	}
}

// look writes what is to be written by now.
func (p *publisher) look(ctx context.Context, s agentapi.Status) {
	n, known := p.m.api.Node()
	if !known {
		return // without an owner the object would stay when the Node goes
	}
	inForce, problem := p.m.rollout.standing()
	status := statusOf(s)
	status.NodeConfig = nodeConfigRef(inForce)
	status.Conditions = since(p.judge.conditions(s, problem), p.written, s.At)
	p.tell(ctx, n, status.Conditions, s.At)
	if !p.due(n, status, s.At) {
		return
	}
	if err := p.m.api.PublishENINode(ctx, n, status); err != nil {
		if ctx.Err() == nil && p.pause == 0 {
			p.m.log.Warn("publish how the node stands; it is tried again", "error", err)
		}
		p.pause = min(max(2*p.pause, publishUrgent), longestWrite)
		p.urgent = s.At.Add(spread(p.pause))
		return
	}
	p.pause, p.again = 0, time.Time{}
	if p.owner != n.UID { // the object of the former Node may be about to go with it
		if p.owner != "" {
			p.again = s.At.Add(longestWrite)
		}
		p.owner = n.UID
	}
	p.written = &status
	p.urgent, p.next = s.At.Add(spread(publishUrgent)), s.At.Add(spread(publishRest))
}

// spread is a pause, up to a quarter longer: nodes that began together do not stay so.
func spread(d time.Duration) time.Duration { return d + rand.N(d/4) }

// due reports whether the status is to be written now. A clock that was set back is no
// reason to wait for longer than the pause.
func (p *publisher) due(n cluster.Node, status v1alpha1.ENINodeStatus, now time.Time) bool {
	if p.urgent.Sub(now) > 2*longestWrite {
		p.urgent, p.next = now, now
	}
	switch {
	case now.Before(p.urgent):
		return false
	case p.written == nil, p.owner != n.UID, !p.again.IsZero() && !now.Before(p.again):
		return true
	case reflect.DeepEqual(*p.written, status):
		return false
	}
	return !now.Before(p.next) || !reflect.DeepEqual(matters(*p.written), matters(status))
}

// matters is the part of a status that is written soon.
func matters(s v1alpha1.ENINodeStatus) any {
	var words []string
	for _, c := range s.Conditions {
		words = append(words, c.Type, string(c.Status), c.Reason)
	}
	for _, e := range s.ENIs {
		words = append(words, e.ID, e.State, e.Subnet)
	}
	return []any{words, s.Targets, s.ENIConfig, s.NodeConfig, s.Limits}
}

// since gives conditions the times at which they became what they are.
func since(list []metav1.Condition, written *v1alpha1.ENINodeStatus, now time.Time) []metav1.Condition {
	for i, c := range list {
		list[i].LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
		if written == nil {
			continue
		}
		j := slices.IndexFunc(written.Conditions, func(old metav1.Condition) bool { return old.Type == c.Type })
		if j >= 0 && written.Conditions[j].Status == c.Status {
			list[i].LastTransitionTime = written.Conditions[j].LastTransitionTime
		}
	}
	return list
}

// tell makes an event of each condition that has become false, and of its recovery. Of
// one that changes to and fro there is one in [eventPause].
func (p *publisher) tell(ctx context.Context, n cluster.Node, list []metav1.Condition, now time.Time) {
	if wait := p.events.Sub(now); wait > 0 && wait <= eventRetry {
		return
	}
	for _, c := range list {
		bad := c.Status == metav1.ConditionFalse
		last, known := p.told[c.Type]
		if last.bad == bad || known && now.Sub(last.at) < eventPause && !now.Before(last.at) {
			continue
		}
		e := cluster.Event{Node: n, Warning: bad, Reason: c.Reason, Message: c.Type + ": " + c.Message, At: now}
		if !bad {
			e.Reason = c.Type + reasonRecovered
		}
		if err := p.m.api.PostEvent(ctx, e); err != nil {
			if ctx.Err() == nil {
				p.m.log.Warn("post an event", "reason", e.Reason, "message", e.Message, "error", err, "retry", eventRetry)
			}
			p.events = now.Add(eventRetry)
			return
		}
		p.told[c.Type] = told{now, bad}
	}
}
