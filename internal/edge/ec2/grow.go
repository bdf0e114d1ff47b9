package ec2

import (
	"context"
	"errors"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// cleanupTime bounds what is done after a failure, also where the caller's
// context has ended.
const cleanupTime = 15 * time.Second

// CreateAndAttachENI makes an ENI with all its first addresses, attaches it to
// the instance, and has EC2 delete it with the instance: three calls.
//
//	create --> attach --> delete on termination --> done
//	              | fails         | fails
//	              v               v
//	           delete         ErrNotMarked, and the ENI is in use
//
// EC2 may have attached the ENI although the answer was lost. It cannot be
// deleted then, and will be in the next [Client.ENIs].
func (c *Client) CreateAndAttachENI(ctx context.Context, spec Spec) (vpc.ENI, error) {
	e, err := c.CreateENI(ctx, spec)
	if err == nil {
		err = c.onceKnown(ctx, func() (err error) {
			e.AttachmentID, err = c.AttachENI(ctx, e.ID, spec.InstanceID, spec.DeviceIndex, spec.CardIndex)
			return err
		})
	}
	if err != nil {
		if e.ID != "" {
			err = errors.Join(err, c.delete(ctx, e.ID))
		}
		return vpc.ENI{}, err
	}
	e.DeviceIndex, e.CardIndex = spec.DeviceIndex, spec.CardIndex
	if err := c.MarkDeleteOnTermination(ctx, e.ID, e.AttachmentID); err != nil {
		return e, err
	}
	e.DeleteOnTermination = true
	return e, nil
}

// onceKnown makes a call on an ENI that was created just now, again and again
// for some seconds while EC2 says that it does not exist.
func (c *Client) onceKnown(ctx context.Context, call func() error) error {
	for _, pause := range c.notFoundPauses {
		err := call()
		if !unknownENI(err) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		if ctx.Err() != nil { // also where both were ready
			return errors.Join(err, ctx.Err())
		}
	}
	return call()
}

// delete removes an ENI that could not be attached, also after ctx has ended:
// that may be why it could not.
func (c *Client) delete(ctx context.Context, eniID string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	err := c.onceKnown(ctx, func() error { return c.deleteKnown(ctx, eniID) })
	if unknownENI(err) {
		return nil // gone is what we want
	}
	return err
}
