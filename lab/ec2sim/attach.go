package ec2sim

import (
	"cmp"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// maxDeviceIndex bounds the device index of an attachment; the largest type
// has 24 interfaces on a card. Assumed: AWS publishes no bound.
const maxDeviceIndex = 127

// AttachNetworkInterfaceInput puts an ENI on an instance.
type AttachNetworkInterfaceInput struct {
	InterfaceID, InstanceID string
	DeviceIndex, CardIndex  int
}

// AttachNetworkInterface puts an ENI on an instance in its zone, which runs or
// is stopped.
func (c *Cloud) AttachNetworkInterface(in AttachNetworkInterfaceInput) (Attachment, error) {
	return call(c, in, attachNetworkInterface)
}

func attachNetworkInterface(s *state, in AttachNetworkInterfaceInput) (Attachment, error) {
	e, err := s.findENI(in.InterfaceID)
	if err != nil {
		return Attachment{}, err
	}
	if in.InstanceID == "" {
		return Attachment{}, missing("instanceId")
	}
	i, err := find(&s.instances, kindInstance, in.InstanceID)
	if err != nil {
		return Attachment{}, err
	}
	if i.State != StateRunning && i.State != StateStopped {
		return Attachment{}, fail("IncorrectState", "Instance '%s' is not 'running' or 'stopped'.", i.ID)
	}
	return s.attach(e, i, s.late(Attachment{DeviceIndex: in.DeviceIndex, CardIndex: in.CardIndex}))
}

// attach puts an ENI on an instance, at the device and card index of a, within
// the limits of the instance's type.
func (s *state) attach(e NetworkInterface, i Instance, a Attachment) (Attachment, error) {
	if e.Attachment != nil {
		return a, fail("InvalidNetworkInterface.InUse", "Interface: [%s] in use", e.ID)
	}
	if e.Zone != i.Zone {
		return a, invalidCombination("You may not attach a network interface to an instance if they are not in the same availability zone")
	}
	if err := s.checkPlace(i, a); err != nil {
		return a, err
	}
	if err := s.checkTrunk(e, i); err != nil {
		return a, err
	}
	limits := s.limitsOf(i.ID)
	if len(e.Prefixes) > 0 && !limits.PrefixCapable() {
		return a, prefixUnsupported(i.Type)
	}
	if e.slots() > limits.IPv4PerENI {
		return a, fail("InvalidInterface.IpAddressLimitExceeded",
			"Address count %d on interface-%s exceeds the limit for %s", e.slots(), e.ID, i.Type)
	}
	a.ID, a.InstanceID, a.At, a.Status = s.newID(kindAttachment.prefix), i.ID, s.now, StatusAttached
	if (s.cfg.Devices || !a.Until.IsZero()) && i.State != StateStopped {
		a.Status = StatusAttaching
	}
	s.expect(e.ID, a)
	e.Attachment, e.Status = &a, StatusInUse
	s.enis.put(e.ID, e)
	s.attachments.insert(s.nextRow(), a.ID, e.ID)
	i.Interfaces = append(slices.Clone(i.Interfaces), e.ID)
	slices.SortStableFunc(i.Interfaces, func(x, y string) int {
		ex, _ := s.enis.get(x)
		ey, _ := s.enis.get(y)
		return cmp.Or(cmp.Compare(ex.Attachment.CardIndex, ey.Attachment.CardIndex),
			cmp.Compare(ex.Attachment.DeviceIndex, ey.Attachment.DeviceIndex))
	})
	s.instances.put(i.ID, i)
	return a, s.checkUsage(e.VPCID)
}

// checkPlace refuses a device index that is taken, a card that the instance's
// type has not, and one interface more than the card can have.
func (s *state) checkPlace(i Instance, a Attachment) error {
	limits, _ := vpc.LimitsOf(i.Type)
	if a.CardIndex < 0 || a.CardIndex >= len(limits.Cards) {
		return invalidValue("Network card index %d is not valid for instance type %s, which has %d.", a.CardIndex, i.Type, len(limits.Cards))
	}
	if a.DeviceIndex < 0 || a.DeviceIndex > maxDeviceIndex {
		return invalidValue("Invalid value '%d' for deviceIndex.", a.DeviceIndex)
	}
	onCard, taken := 1, false
	for _, id := range i.Interfaces {
		other, _ := s.enis.get(id)
		if other.Attachment.CardIndex == a.CardIndex {
			onCard++
			taken = taken || other.Attachment.DeviceIndex == a.DeviceIndex
		}
	}
	if onCard > limits.Cards[a.CardIndex] {
		return fail("AttachmentLimitExceeded", "Interface count %d exceeds the limit for %s", onCard, i.Type)
	}
	if taken {
		return invalidValue("Instance '%s' already has an interface attached at device index '%d'.", i.ID, a.DeviceIndex)
	}
	return nil
}

// DetachNetworkInterfaceInput names an attachment to end. Force ends one that
// is still being made.
type DetachNetworkInterfaceInput struct {
	AttachmentID string
	Force        bool
}

// DetachNetworkInterface takes an ENI off its instance. The primary one cannot
// be.
func (c *Cloud) DetachNetworkInterface(in DetachNetworkInterfaceInput) error {
	_, err := call(c, in, detachNetworkInterface)
	return err
}

func detachNetworkInterface(s *state, in DetachNetworkInterfaceInput) (struct{}, error) {
	var none struct{}
	if in.AttachmentID == "" {
		return none, missing("attachmentId")
	}
	e, err := s.findAttached(in.AttachmentID)
	if err != nil {
		return none, err
	}
	a := *e.Attachment
	i, _ := s.instances.get(a.InstanceID)
	switch {
	case a.DeviceIndex == 0 && a.CardIndex == s.limitsOf(i.ID).DefaultCard:
		return none, fail("OperationNotPermitted", "The network interface at device index 0 cannot be detached.")
	case i.State == StateShuttingDown:
		return none, fail("IncorrectState", "Instance '%s' is shutting down.", i.ID)
	case a.Status == StatusDetaching && in.Force:
		return none, nil
	case a.Status != StatusAttached && !in.Force:
		return none, fail("IncorrectState", "Attachment '%s' is not 'attached' but '%s'.", a.ID, a.Status)
	case s.cfg.Devices || s.cfg.Attach > 0:
		a = s.late(a)
		a.Status, a.DeviceAt = StatusDetaching, time.Time{}
		s.expect(e.ID, a)
		e.Attachment = &a
		s.enis.put(e.ID, e)
	default:
		s.detach(e)
	}
	return none, nil
}

// findAttached gives the ENI of an attachment.
func (s *state) findAttached(attachmentID string) (NetworkInterface, error) {
	id, err := find(&s.attachments, kindAttachment, attachmentID)
	if err != nil {
		return NetworkInterface{}, err
	}
	e, _ := s.enis.get(id)
	return e, nil
}

// detach ends an attachment: the ENI is available, and its instance without it.
func (s *state) detach(e NetworkInterface) NetworkInterface {
	i, _ := s.instances.get(e.Attachment.InstanceID)
	i.Interfaces = without(i.Interfaces, e.ID)
	s.instances.put(i.ID, i)
	s.attachments.remove(e.Attachment.ID)
	e.Attachment, e.Status = nil, StatusAvailable
	e = s.dropAutoPublic(e) // it was the instance's
	s.enis.put(e.ID, e)
	return e
}

// DeviceAttached reports that the device of an attachment, in whichever region,
// is in the instance. For one that is no longer attaching, or not attached
// before a certain time, it says nothing new.
func (c *Cloud) DeviceAttached(attachmentID string) error {
	return report(c, attachmentID, hasAttachment(attachmentID), func(s *state, id string) error {
		e, err := s.findAttached(id)
		if err != nil || e.Attachment.Status != StatusAttaching || e.Attachment.Until.After(s.now) {
			return err
		}
		s.attached(e)
		return nil
	})
}

// DeviceDetached reports that the device of a detaching attachment has left
// the instance; the ENI is then available, unless it is not to be so before a
// certain time: then the report is to be made again. It is an error while nobody
// asked for that.
func (c *Cloud) DeviceDetached(attachmentID string) error {
	return report(c, attachmentID, hasAttachment(attachmentID), func(s *state, id string) error {
		e, err := s.findAttached(id)
		if err != nil {
			return err
		}
		if e.Attachment.Status != StatusDetaching {
			return fail("IncorrectState", "Attachment '%s' is not 'detaching' but '%s'.", id, e.Attachment.Status)
		}
		if e.Attachment.Until.After(s.now) {
			return nil
		}
		s.detach(e)
		return nil
	})
}

func hasAttachment(id string) func(*regional) bool {
	return func(r *regional) bool { _, ok := r.attachments.get(id); return ok }
}
