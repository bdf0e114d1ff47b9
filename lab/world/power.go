package world

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
)

// ErrNoInstance says that no instance of this name or ID is alive.
var ErrNoInstance = errors.New("no such instance is alive")

// order is something that the loop is to do before its next pass, and that is
// answered after it.
type order struct {
	do   func() error
	done chan error
}

// Kill cuts an instance's power: what runs in it is gone at once, its devices
// with it, and nothing gives notice. For EC2 nothing has happened: the instance
// is running, its ENIs are attached. [Lab.Reboot] ends it. The instance is meant
// by name or ID. Kill returns when the fabric has unplugged the ENIs.
func (l *Lab) Kill(ctx context.Context, instance string) error {
	return l.order(ctx, "kill", instance, func(id string) error {
		err := l.powerOff(id)
		l.setOff(id, true)
		return err
	})
}

// Reboot boots an instance anew, whether it runs or was killed: the same ENIs
// and addresses, a fresh /run and /etc, the daemons that the World gives it.
// For EC2 it has been running all the time. Reboot returns when the daemons have
// been started.
func (l *Lab) Reboot(ctx context.Context, instance string) error {
	return l.order(ctx, "reboot", instance, func(id string) error {
		err := l.powerOff(id)
		l.setOff(id, false)
		return err
	})
}

// order has the loop do something to an instance, and waits for the pass that
// makes it true.
func (l *Lab) order(ctx context.Context, what, instance string, do func(id string) error) error {
	o := order{done: make(chan error, 1), do: func() error {
		if do == nil {
			return nil // the pass is what is wanted
		}
		id, err := l.find(instance)
		if err != nil {
			return err
		}
		return do(id)
	}}
	select {
	case l.orders <- o:
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", what, instance, ctx.Err())
	case <-l.done:
		return fmt.Errorf("%s %s: %w", what, instance, ErrNotRunning)
	}
	select {
	case err := <-o.done:
		if err != nil {
			return fmt.Errorf("%s %s: %w", what, instance, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", what, instance, ctx.Err())
	case <-l.done:
		return fmt.Errorf("%s %s: %w", what, instance, ErrNotRunning)
	}
}

func (l *Lab) find(instance string) (id string, err error) {
	instances := l.cloud.Snapshot().Instances
	k := slices.IndexFunc(instances, func(i ec2sim.Instance) bool {
		return alive(i) && (i.ID == instance || i.Name == instance)
	})
	if k < 0 {
		return "", ErrNoInstance
	}
	return instances[k].ID, nil
}

// powerOff ends an instance's guest, if there is one.
func (l *Lab) powerOff(id string) error {
	m := l.machine(id)
	if m == nil {
		return nil
	}
	l.fabric.RemoveGuest(id)
	if err := m.end(); err != nil {
		return err
	}
	l.mu.Lock()
	delete(l.machines, id)
	l.mu.Unlock()
	return nil
}

func (l *Lab) setOff(id string, off bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if off {
		l.off[id] = true
	} else {
		delete(l.off, id)
	}
}

// isOff says whether an instance was killed, and not rebooted since.
func (l *Lab) isOff(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.off[id]
}

// powered takes the ENIs of killed instances out of the topology's guests.
func (l *Lab) powered(t fabric.Topology) fabric.Topology {
	for _, v := range t.VPCs {
		for i := range v.ENIs {
			if e := &v.ENIs[i]; e.Guest != "" && l.isOff(e.Guest) {
				e.Guest, e.Device = "", ""
			}
		}
	}
	return t
}
