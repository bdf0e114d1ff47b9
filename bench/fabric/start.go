package fabric

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/world"
)

const (
	labName      = "bench-fabric"
	instanceType = "m5.xlarge" // 4 ENIs
	startTimeout = 2 * time.Minute
)

// start starts a lab and ends it, and gives the time from the one call until
// every ENI is in its instance. An instance boots with one, as EC2's does; the
// others are attached once all run.
func start(ctx context.Context, env Env, n size) (took time.Duration, err error) {
	dir := world.Dir(labName)
	if err := clearLeftover(ctx, dir); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	began := time.Now()
	l, err := world.Start(ctx, world.Config{World: describe(n), Dir: dir,
		Log: slog.New(slog.NewTextHandler(env.Progress, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	select {
	case <-l.Ready():
	case <-ctx.Done():
		return 0, errors.Join(fmt.Errorf("start lab: %w", ctx.Err()), l.Failure())
	}
	if err := attach(l.Cloud(), n.enis-1); err != nil {
		return 0, err
	}
	for {
		changed := l.Cloud().Changed()
		if attached(l.Cloud().Snapshot()) == n.instances*n.enis {
			return time.Since(began), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, errors.Join(fmt.Errorf("attach enis: %w", ctx.Err()), l.Failure())
		}
	}
}

// attach gives every instance more ENIs.
func attach(c *ec2sim.Cloud, more int) error {
	snap := c.Snapshot()
	for _, i := range snap.Instances {
		for k := range more {
			e, err := c.CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: snap.Subnets[0].ID})
			if err != nil {
				return err
			}
			if _, err := c.AttachNetworkInterface(ec2sim.AttachNetworkInterfaceInput{InterfaceID: e.ID, InstanceID: i.ID, DeviceIndex: k + 1}); err != nil {
				return err
			}
		}
	}
	return nil
}

func attached(s ec2sim.Snapshot) (n int) {
	for _, e := range s.Interfaces {
		if e.Attachment != nil && e.Attachment.Status == ec2sim.StatusAttached {
			n++
		}
	}
	return n
}

// describe is a world of instances without daemons, in one subnet.
func describe(n size) *world.World {
	w := &world.World{
		Name: labName, Region: "eu-west-1",
		VPCs: []world.VPC{{Name: "main", CIDRs: []netip.Prefix{vpcCIDR},
			Subnets: []world.Subnet{{Name: "a", CIDR: netip.MustParsePrefix("10.0.0.0/20"), Zone: "eu-west-1a"}}}},
	}
	for i := range n.instances {
		w.Instances = append(w.Instances, world.Instance{
			Name: fmt.Sprintf("node-%d", i+1), Type: instanceType, VPC: "main", Subnet: "a", HopLimit: 2,
		})
	}
	return w
}

// clearLeftover removes what a bench that was killed has left. One that runs
// keeps its lock, and is left alone.
func clearLeftover(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := world.Connect(dir).Down(ctx, labName); err != nil {
		return fmt.Errorf("lab %s is there already, of a bench that runs: %w", labName, err)
	}
	return nil
}
