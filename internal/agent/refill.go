package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
)

// refill is the loop that keeps addresses warm: it plans from what the node
// loop knows, asks EC2, and hands back what EC2 then says.
type refill struct {
	cfg    Config
	log    *slog.Logger
	now    func() time.Time
	cloud  *ec2.Client
	self   identity
	loop   *nodeLoop
	supply *supply

	failures map[ipam.Kind]int
	resyncAt time.Time // pods that come and go must not put it off
}

// identity is what the agent knows of its instance.
type identity struct {
	instanceID   string
	instanceType string
	limits       vpc.Limits
}

const (
	// resyncInterval is how often EC2 is asked for the node's ENIs where
	// nothing else gives a reason to.
	resyncInterval = time.Minute
	// deviceInterval is how often the kernel is looked at for a device that
	// EC2 says is attached. It usually takes a few seconds.
	deviceInterval = 100 * time.Millisecond
	// deviceWait is how long one may take: the worst that others measured in
	// production is 150 s; an address that is late by a resync is no harm.
	deviceWait = 30 * time.Second
	// firstPause and longestPause bound the wait after a refusal; it doubles.
	firstPause   = time.Second
	longestPause = time.Minute
)

// run is the refill loop. It ends with ctx.
func (r *refill) run(ctx context.Context) {
	r.resyncAt = r.now().Add(resyncInterval)
	for ctx.Err() == nil {
		if !r.now().Before(r.resyncAt) {
			r.resync(ctx)
			r.resyncAt = r.now().Add(resyncInterval)
		}
		if r.once(ctx) {
			continue
		}
		wait := time.NewTimer(r.pause())
		select {
		case <-ctx.Done():
		case <-r.supply.kick:
		case <-wait.C:
		}
		wait.Stop()
	}
}

// pause is how long there is nothing to do: until a refused action may be tried
// again, or the next resync.
func (r *refill) pause() time.Duration {
	pause := r.resyncAt.Sub(r.now())
	for _, b := range r.supply.blocks() {
		pause = min(pause, max(b.Until.Sub(r.now()), deviceInterval))
	}
	return max(pause, 0)
}

// once carries out one planned change, and reports whether there was one.
func (r *refill) once(ctx context.Context) bool {
	var plan []ipam.Change
	err := r.loop.do(ctx, func(n *nodeState) {
		plan = ipam.Plan(r.supply.state(n, r.self), targets(r.cfg), n.now())
	})
	if err != nil || len(plan) == 0 {
		return false
	}
	c := plan[0]
	r.log.Info("ec2 change", "change", c.String())
	r.supply.begin(c)
	enis, err := r.apply(ctx, c)
	if err == nil {
		err = r.settle(ctx, enis, deviceWait)
	}
	r.supply.end(r.verdict(c, err))
	return true
}

// apply asks EC2 for the change and for what the node then has.
func (r *refill) apply(ctx context.Context, c ipam.Change) ([]vpc.ENI, error) {
	var err error
	switch c.Kind {
	case ipam.AssignAddresses:
		_, err = r.cloud.AssignAddresses(ctx, c.ENI, c.Count)
	case ipam.CreateENI:
		_, err = r.cloud.CreateAndAttachENI(ctx, ec2.Spec{
			InstanceID: r.self.instanceID, SubnetID: c.SubnetID, Groups: c.Groups,
			DeviceIndex: c.DeviceIndex, CardIndex: c.CardIndex, Addresses: c.Count,
		})
		if errors.Is(err, ec2.ErrNotMarked) {
			// It works; it is just not deleted with the instance.
			r.log.Error("eni will outlive the instance", "error", err, "advice", ec2.Advice(err))
			err = nil
		}
	default:
		err = fmt.Errorf("no way to %s", c.Kind)
	}
	if err != nil {
		return nil, err
	}
	return r.cloud.ENIs(ctx, r.self.instanceID)
}

// settle hands the ENIs to the node loop and waits for devices that are on
// their way, as EC2 attaches before the kernel sees anything, but no longer than
// patience.
func (r *refill) settle(ctx context.Context, enis []vpc.ENI, patience time.Duration) error {
	deadline := r.now().Add(patience)
	for {
		var missing []string
		var fault error
		err := r.loop.do(ctx, func(n *nodeState) {
			fault = n.setENIs(enis)
			missing = n.missing()
		})
		if err != nil {
			return err
		}
		if fault != nil {
			// EC2 did what it was asked for; the node loop tries the kernel again.
			r.log.Error("make the kernel follow ec2", "error", fault)
		}
		r.supply.changed()
		if len(missing) == 0 {
			return nil
		}
		if r.now().After(deadline) {
			return fmt.Errorf("devices of %v have not appeared after %s", missing, patience)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(deviceInterval):
		}
	}
}

// resync asks EC2 without having changed anything: others may have.
func (r *refill) resync(ctx context.Context) {
	enis, err := r.cloud.ENIs(ctx, r.self.instanceID)
	if err == nil {
		err = r.settle(ctx, enis, 0)
	}
	if err != nil && ctx.Err() == nil {
		r.log.Error("compare with ec2 and the kernel", "error", err, "advice", ec2.Advice(err))
	}
}

// verdict turns the outcome of a change into what the planner must know: leave
// the action alone for a while after a refusal, longer after each.
func (r *refill) verdict(c ipam.Change, err error) (ipam.Kind, *ipam.Block) {
	if err == nil {
		delete(r.failures, c.Kind)
		return c.Kind, nil
	}
	if errors.Is(err, context.Canceled) {
		return c.Kind, nil
	}
	pause := min(firstPause<<r.failures[c.Kind], longestPause)
	r.failures[c.Kind] = min(r.failures[c.Kind]+1, 10)
	reason := err.Error()
	if advice := ec2.Advice(err); advice != "" {
		reason += "; " + advice
	}
	r.log.Error("ec2 refused", "change", c.String(), "error", err, "advice", ec2.Advice(err), "retry", pause)
	return c.Kind, &ipam.Block{Until: r.now().Add(pause), Reason: reason}
}

func targets(c Config) ipam.Targets {
	return ipam.Targets{WarmAddresses: c.WarmAddresses, MaxENIs: c.MaxENIs}
}
