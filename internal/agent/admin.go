package agent

import (
	"context"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
)

// plan answers the person's tool. It compares, and changes nothing.
func (l *nodeLoop) plan(ctx context.Context) (agentapi.Plan, error) {
	var p agentapi.Plan
	var fault error
	err := l.do(ctx, func(n *nodeState) {
		have, want, changes, err := n.plan()
		if err != nil {
			fault = err
			return
		}
		p.Actual, p.Desired = node.Render(have), node.Render(want)
		for _, c := range changes {
			p.Changes = append(p.Changes, agentapi.Change{Verb: string(c.Verb), Key: c.Key, Why: c.Why, Text: c.String()})
		}
	})
	if err != nil {
		return p, err
	}
	return p, fault
}
