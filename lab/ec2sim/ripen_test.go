package ec2sim

import (
	"testing"
	"time"
)

// attachLate is a cloud with an ENI that is being attached.
func attachLate(t *testing.T, cfg Config) (*Cloud, *clock, NetworkInterface) {
	t.Helper()
	k := newClock()
	cfg.Now, cfg.Attach = k.Now, 4*time.Second
	c := New(cfg)
	_, n := place(t, c)
	i := must(c.RunInstances(RunInstancesInput{Type: "m5.large", SubnetID: n.ID}))(t).Instances[0]
	if cfg.Devices {
		if err := c.InstanceRunning(i.ID); err != nil {
			t.Fatal(err)
		}
	}
	e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID}))(t)
	must(c.AttachNetworkInterface(AttachNetworkInterfaceInput{InterfaceID: e.ID, InstanceID: i.ID, DeviceIndex: 1}))(t)
	return c, k, eni(t, c, e.ID)
}

func eni(t *testing.T, c *Cloud, id string) NetworkInterface {
	t.Helper()
	return must(c.DescribeNetworkInterfaces(Query{IDs: []string{id}}))(t).Items[0]
}

func TestAttachTakesTime(t *testing.T) {
	for _, devices := range []bool{false, true} {
		c, k, e := attachLate(t, Config{Devices: devices})
		a := e.Attachment
		took, after := a.Until.Sub(a.At), a.DeviceAt.Sub(a.Until)
		if a.Status != StatusAttaching || took < 2*time.Second || took > 4*time.Second || after < 0 || after > 2*time.Second {
			t.Fatalf("attachment %+v: attached after %s, device %s later", a, took, after)
		}
		if c.Next() != a.Until {
			t.Errorf("next at %s, want %s", c.Next(), a.Until)
		}
		if err := c.DeviceAttached(a.ID); err != nil || eni(t, c, e.ID).Attachment.Status != StatusAttaching {
			t.Errorf("a report before the time: %v, %+v", err, eni(t, c, e.ID).Attachment)
		}
		// A change is told to who waits for it when anyone looks.
		changed := c.Changed()
		k.advance(took - 1)
		if c.Snapshot(); isClosed(changed) {
			t.Error("changed too early")
		}
		k.advance(1)
		if c.Snapshot(); !isClosed(changed) {
			t.Error("nobody is told")
		}
		if got := eni(t, c, e.ID).Attachment.Status; got != StatusAttached {
			t.Errorf("devices %v: %s at its time", devices, got)
		}
		if after > 0 && c.Next() != a.DeviceAt {
			t.Errorf("next at %s, want that of the device, %s", c.Next(), a.DeviceAt)
		}
		changed = c.Changed()
		k.advance(after)
		if c.Snapshot(); !isClosed(changed) || !c.Next().IsZero() {
			t.Errorf("the device's time: told %v, next %s", isClosed(changed), c.Next())
		}
	}
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestDetachTakesTime(t *testing.T) {
	for _, devices := range []bool{false, true} {
		c, k, e := attachLate(t, Config{Devices: devices})
		k.advance(time.Minute)
		id := e.Attachment.ID
		if err := c.DetachNetworkInterface(DetachNetworkInterfaceInput{AttachmentID: id}); err != nil {
			t.Fatal(err)
		}
		if err := c.DeleteNetworkInterface(DeleteNetworkInterfaceInput{ID: e.ID}); errCode(err) != "InvalidParameterValue" {
			t.Errorf("delete while detaching: %v", err)
		}
		if devices {
			if err := c.DeviceDetached(id); err != nil || eni(t, c, e.ID).Attachment.Status != StatusDetaching {
				t.Errorf("a report before the time: %v, %+v", err, eni(t, c, e.ID))
			}
		}
		k.advance(4 * time.Second)
		if devices {
			if got := eni(t, c, e.ID); got.Attachment == nil {
				t.Error("detached although the device is there")
			}
			if err := c.DeviceDetached(id); err != nil {
				t.Error(err)
			}
		}
		if got := eni(t, c, e.ID); got.Attachment != nil || got.Status != StatusAvailable {
			t.Errorf("devices %v: %+v after its time", devices, got)
		}
	}
}

// What is undone leaves nothing to happen: an attachment that is forced off, or
// whose instance ends, does not come back; a dry run attaches nothing.
func TestNothingRipensTwice(t *testing.T) {
	c, k, e := attachLate(t, Config{})
	id := e.Attachment.InstanceID
	must(c.TerminateInstances(TerminateInstancesInput{IDs: []string{id}}))(t)
	n := e.SubnetID
	i := must(c.RunInstances(RunInstancesInput{Type: "m5.large", SubnetID: n}))(t).Instances[0]
	form := query("AttachNetworkInterface", "NetworkInterfaceId="+e.ID, "InstanceId="+i.ID, "DeviceIndex=1")
	if a := post(t, c, form+"&DryRun=true"); a.code != "DryRunOperation" {
		t.Fatal(a)
	}
	k.advance(time.Minute)
	if got := eni(t, c, e.ID); got.Attachment != nil {
		t.Errorf("attachment %+v", got.Attachment)
	}
	if a := post(t, c, form); a.code != "" {
		t.Fatal(a)
	}
	if got := eni(t, c, e.ID); got.Attachment.Status != StatusAttaching {
		t.Errorf("attachment %+v", got.Attachment)
	}
	// The ENI that came with the launch was there at once.
	if got := eni(t, c, i.Interfaces[0]); got.Attachment.Status != StatusAttached || !got.Attachment.DeviceAt.IsZero() {
		t.Errorf("the primary ENI: %+v", got.Attachment)
	}
}
