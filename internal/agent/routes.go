package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
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

	known  vpc.Routing // what a start begins with
	cache  string      // path of the file that keeps it
	saved  []byte      // what the file holds
	failed bool        // the last attempt did
	denied bool        // EC2 refused for want of rights, and that has been said
}

// routesCache is the name of the file that holds EC2's last word on the VPC's
// routes. It is no record: without it a start while EC2 is away knows the VPC's
// CIDRs only, and peers see the node's address until EC2 answers.
const routesCache = "routes.json"

// first finds out what is native, for a start that must not wait for EC2: what EC2
// says within a few seconds, else what it said last, else the VPC's CIDRs.
func (r *routes) first(ctx context.Context) {
	if r.cloud == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	routing, err := r.learn(ctx)
	if err == nil {
		r.known = routing
		return
	}
	from := "instance metadata"
	if data, unread := os.ReadFile(r.cache); unread == nil {
		var last vpc.Routing
		if json.Unmarshal(data, &last) == nil && len(last.CIDRs) > 0 {
			r.known, from = last, r.cache
		}
	}
	r.failed = true
	r.log.Error("read the vpc's routes from ec2", "error", err, "advice", ec2.Advice(err), "meanwhile", from)
}

// learn asks EC2. Without the right to, what IMDS says has to do: the VPC's CIDRs.
func (r *routes) learn(ctx context.Context) (vpc.Routing, error) {
	routing, err := r.cloud.Routing(ctx, r.vpcID)
	if err == nil {
		r.denied = false
		r.save(routing)
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

// save keeps EC2's word for the next start, by a rename, so that half a file is
// never read. Not to be able to costs nothing now.
func (r *routes) save(routing vpc.Routing) {
	data, err := json.Marshal(routing)
	if err == nil && !bytes.Equal(data, r.saved) {
		if err = os.WriteFile(r.cache+".new", data, 0o600); err == nil {
			err = os.Rename(r.cache+".new", r.cache)
		}
		r.saved = data
	}
	if err != nil {
		r.log.Warn("keep the vpc's routes for the next start", "error", err)
	}
}

// run asks again and again, until ctx ends. Nodes that started together do not
// ask together: each wait is up to a tenth longer or shorter. After a failure the
// wait is short, and grows.
func (r *routes) run(ctx context.Context, interval time.Duration, loop *nodeLoop) {
	pause := firstPause
	for {
		wait := interval - interval/10 + rand.N(interval/5)
		if r.failed {
			wait = min(wait, pause)
			pause = min(2*pause, interval)
		} else {
			pause = firstPause
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		routing, err := r.learn(ctx)
		if err == nil {
			if lost := loop.do(ctx, func(n *nodeState) { err = n.setRouting(routing) }); lost != nil {
				return
			}
		}
		r.failed = err != nil
		if err != nil && ctx.Err() == nil {
			r.log.Error("follow the vpc's routes", "error", err, "advice", ec2.Advice(err), "retry", min(pause, interval))
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
