package agent

import (
	"context"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
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

// status is how the agent stands.
func (l *nodeLoop) status(ctx context.Context) (s agentapi.Status, err error) {
	err = l.do(ctx, func(n *nodeState) { s = n.status() })
	return s, err
}

// status adds to the book's what the kernel has.
func (n *nodeState) status() agentapi.Status {
	s := n.book.Status()
	s.Version = release()
	devices := make(map[string]string, len(n.devices))
	for mac, name := range n.devices {
		devices[mac.String()] = name
	}
	for i, e := range s.ENIs {
		if e.DeviceIndex >= 0 {
			s.ENIs[i].Device = devices[e.MAC]
		}
	}
	for i, p := range s.Pods {
		if a, ok := n.pods[ipam.Owner{ContainerID: p.ContainerID, IfName: p.Interface}]; ok {
			s.Pods[i].Device = a.Veth
		}
	}
	s.Kernel.Behind = n.behind
	s.Paths = n.paths
	s.Date(time.Now())
	s.Problems = s.Diagnose()
	return s
}
