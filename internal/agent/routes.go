package agent

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/imds"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
)

// routes is the loop that follows the VPC: its CIDRs, route tables and peerings.
type routes struct {
	log   *slog.Logger
	cloud *ec2.Client
	imds  *imds.Client
	vpcID string
	mac   vpc.MAC // of the primary ENI

	denied bool // EC2 refused for want of rights, and that has been said
}

// learn asks EC2. Without the right to, what IMDS says has to do: the VPC's CIDRs.
func (r *routes) learn(ctx context.Context) (vpc.Routing, error) {
	routing, err := r.cloud.Routing(ctx, r.vpcID)
	if err == nil {
		r.denied = false
		return routing, nil
	}
	if !errors.Is(err, ec2.ErrUnauthorized) {
		return vpc.Routing{}, err
	}
	if !r.denied {
		r.denied = true
		r.log.Warn("the vpc's routes may not be read: only the vpc's own CIDRs and configured prefixes see pods' addresses",
			"error", err, "advice", ec2.Advice(err))
	}
	cidrs, err := r.imds.VPCPrefixes(ctx, r.mac)
	return vpc.Routing{CIDRs: cidrs}, err
}

// run asks again and again, until ctx ends. Nodes that started together do not
// ask together: each wait is up to a tenth longer or shorter.
func (r *routes) run(ctx context.Context, interval time.Duration, loop *nodeLoop) {
	for {
		wait := time.NewTimer(interval - interval/10 + rand.N(interval/5))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
		routing, err := r.learn(ctx)
		if err == nil {
			if lost := loop.do(ctx, func(n *nodeState) { err = n.setRouting(routing) }); lost != nil {
				return
			}
		}
		if err != nil && ctx.Err() == nil {
			r.log.Error("follow the vpc's routes", "error", err, "advice", ec2.Advice(err), "retry", interval)
		}
	}
}

// watch tells the node loop that something else changed what is ours in the
// kernel. It ends with ctx.
func watch(ctx context.Context, w *kernel.Watcher, loop *nodeLoop, log *slog.Logger) {
	for {
		why, err := w.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			log.Error("watch the kernel; repairs wait for the timer", "error", err)
			return
		}
		select {
		case loop.drift <- why:
		case <-ctx.Done():
			return
		}
	}
}
