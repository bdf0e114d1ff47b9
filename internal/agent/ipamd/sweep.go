package ipamd

import (
	"context"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
)

const (
	// sweepInterval is how often leaked ENIs are looked for; sweepJitter spreads
	// the first time, as nodes start together.
	sweepInterval = time.Hour
	sweepJitter   = 5 * time.Minute
	// leakedFor is how long an ENI must have been seen detached, and how old it
	// must be, before it counts as leaked. A node attaches what it has made
	// within seconds, and tries for minutes where EC2 refuses.
	leakedFor = 15 * time.Minute
)

// sweep deletes the ENIs that other nodes of this cluster have left: those that
// ended between creating and attaching one, or between detaching and deleting. It
// deletes in two phases: only what two looks, leakedFor apart, have found detached.
// EC2 itself refuses to delete an ENI that has been attached in between.
//
// The node's own are the planner's: it attaches or deletes them.
type sweep struct {
	x       *Executor
	self    Identity
	cluster string
	seen    map[string]time.Time // first seen detached, by ENI
}

// wanted brings the second look forward where the first has found something.
func (s *sweep) wanted(*Book) time.Time {
	var at time.Time
	for _, first := range s.seen {
		at = sooner(at, first.Add(leakedFor))
	}
	return at
}

func (s *sweep) run(ctx context.Context) (func(*Book), error) {
	now := s.x.Now()
	found, err := s.x.Cloud.Leaked(ctx, s.self.VPCID, s.cluster)
	if err != nil {
		return nil, err
	}
	s.x.date(found)
	seen := make(map[string]time.Time)
	for _, e := range found {
		if e.Tags[ec2.TagInstance] == s.self.InstanceID || now.Sub(e.CreatedAt) < leakedFor {
			continue
		}
		first, again := s.seen[e.ID]
		if !again {
			first = now
		}
		if now.Sub(first) < leakedFor {
			seen[e.ID] = first
			continue
		}
		if err := s.delete(ctx, e); err != nil {
			seen[e.ID] = now // later, not at once
			s.x.Log.Error("delete a leaked eni", "eni", e.ID, "error", err, "advice", ec2.Advice(err))
		}
	}
	s.seen = seen
	return nil, nil
}

func (s *sweep) delete(ctx context.Context, e vpc.ENI) error {
	if err := s.x.Cloud.DeleteENI(ctx, e.ID); err != nil {
		return err
	}
	if s.x.Observe.LeakedDeleted != nil {
		s.x.Observe.LeakedDeleted()
	}
	s.x.Log.Info("leaked eni deleted", "eni", e.ID, "node", e.Tags[ec2.TagInstance], "created", e.CreatedAt)
	return nil
}
