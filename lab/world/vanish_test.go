package world

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// Things that end while somebody looks at them.

// errorCount is a log that counts the errors.
type errorCount struct {
	slog.Handler
	errors *atomic.Int32
}

func (c errorCount) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		c.errors.Add(1)
	}
	return c.Handler.Handle(ctx, r)
}

// TestStatusOfWhatEnds asks for the status when an instance's power has been cut,
// and the loop has not come to saying so.
func TestStatusOfWhatEnds(t *testing.T) {
	l := mustStart(t)
	a := findInstance(t, l, "node-a")
	m := l.machine(a.ID)
	if err := m.end(); err != nil {
		t.Fatal(err)
	}
	s, err := l.Status(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if in, err := s.Find("node-a"); err != nil || in.PID != 0 || in.Socket != "" {
		t.Errorf("status of an instance that ends: %+v, %v", in, err)
	}
	if in, err := s.Find("node-b"); err != nil || in.PID == 0 {
		t.Errorf("status of the other instance: %+v, %v", in, err)
	}
	if err := l.Reboot(t.Context(), "node-a"); err != nil { // ends it once more
		t.Error(err)
	}
}

// TestStatusOfWhatFails: an instance that ends by itself is no instance without
// power, and is told.
func TestStatusOfWhatFails(t *testing.T) {
	l := mustStart(t)
	m := l.machine(findInstance(t, l, "node-a").ID)
	if err := unix.Kill(m.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if _, err := l.Status(t.Context(), 1); err == nil {
		t.Error("the status says nothing of an instance whose init was killed")
	}
}

// TestTerminateWhileDetaching: what is being detached goes with its instance, and
// is not to be reported by itself after that.
func TestTerminateWhileDetaching(t *testing.T) {
	cfg := scratch(t, "\nec2: {attach: 1m}"+smallWorld)
	var failed atomic.Int32
	cfg.Log = slog.New(errorCount{cfg.Log.Handler(), &failed})
	l := start(t, cfg)
	<-l.Ready()
	one := l.Cloud().Snapshot().Instances[0]
	made, err := l.Cloud().CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: one.SubnetID})
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Cloud().AttachNetworkInterface(ec2sim.AttachNetworkInterfaceInput{InterfaceID: made.ID, InstanceID: one.ID, DeviceIndex: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Cloud().DetachNetworkInterface(ec2sim.DetachNetworkInterfaceInput{AttachmentID: a.ID, Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Cloud().TerminateInstances(ec2sim.TerminateInstancesInput{IDs: []string{one.ID}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the instance is terminated", func() error {
		if i := l.Cloud().Snapshot().Instances[0]; i.State != ec2sim.StateTerminated {
			return fmt.Errorf("it is %s", i.State)
		}
		return nil
	})
	if err := l.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := failed.Load(); n > 0 {
		t.Errorf("the loop failed %d times", n)
	}
}
