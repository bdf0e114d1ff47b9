package ec2

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// cleanupTime bounds what is done after a failure, also where the caller's
// context has ended.
const cleanupTime = 15 * time.Second

// Spec says what ENI to create.
type Spec struct {
	InstanceID  string
	SubnetID    string
	Groups      []string // security group IDs
	DeviceIndex int
	CardIndex   int
	Addresses   int               // secondary addresses to begin with
	Tags        map[string]string // beside TagInstance and TagCreated
}

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
//
// The device appears in the instance some seconds later; find it by its MAC.
func (c *Client) CreateAndAttachENI(ctx context.Context, spec Spec) (vpc.ENI, error) {
	created, err := c.create(ctx, spec)
	if err != nil {
		return vpc.ENI{}, err
	}
	id := aws.ToString(created.NetworkInterfaceId)
	e, err := c.checkAndAttach(ctx, spec, created)
	if err != nil {
		return vpc.ENI{}, errors.Join(err, c.delete(ctx, id))
	}
	if err := c.MarkDeleteOnTermination(ctx, e.ID, e.AttachmentID); err != nil {
		return e, err
	}
	return e, nil
}

func (c *Client) create(ctx context.Context, spec Spec) (types.NetworkInterface, error) {
	tags := []types.Tag{
		{Key: aws.String(TagInstance), Value: aws.String(spec.InstanceID)},
		{Key: aws.String(TagCreated), Value: aws.String(time.Now().UTC().Format(time.RFC3339))},
	}
	for k, v := range spec.Tags {
		tags = append(tags, types.Tag{Key: aws.String(k), Value: aws.String(v)})
	}
	in := &ec2.CreateNetworkInterfaceInput{
		// The SDK's own attempts share it, so that a lost answer does not
		// make a second ENI. It is not kept across calls: the tags differ.
		ClientToken: aws.String(rand.Text()),
		Description: aws.String("fairway " + spec.InstanceID),
		SubnetId:    aws.String(spec.SubnetID),
		Groups:      spec.Groups,
		TagSpecifications: []types.TagSpecification{
			{ResourceType: types.ResourceTypeNetworkInterface, Tags: tags},
		},
	}
	if spec.Addresses > 0 {
		in.SecondaryPrivateIpAddressCount = aws.Int32(int32(spec.Addresses))
	}
	what := fmt.Sprintf("create an ENI with %d addresses in %s", spec.Addresses, spec.SubnetID)
	out, err := c.api.CreateNetworkInterface(ctx, in)
	if err != nil {
		return types.NetworkInterface{}, wrap("CreateNetworkInterface", what, err)
	}
	if out.NetworkInterface == nil || aws.ToString(out.NetworkInterface.NetworkInterfaceId) == "" {
		return types.NetworkInterface{}, fmt.Errorf("%s: EC2 answered without the ENI", what)
	}
	return *out.NetworkInterface, nil
}

// checkAndAttach attaches only what we understand.
func (c *Client) checkAndAttach(ctx context.Context, spec Spec, n types.NetworkInterface) (vpc.ENI, error) {
	what := fmt.Sprintf("attach %s to %s as device %d", aws.ToString(n.NetworkInterfaceId), spec.InstanceID, spec.DeviceIndex)
	if err := c.learnSubnets(ctx, what, []types.NetworkInterface{n}); err != nil {
		return vpc.ENI{}, err
	}
	e, err := c.eni(n)
	if err != nil {
		return vpc.ENI{}, fmt.Errorf("%s: %w", what, err)
	}
	e.DeviceIndex, e.CardIndex = spec.DeviceIndex, spec.CardIndex
	in := &ec2.AttachNetworkInterfaceInput{
		NetworkInterfaceId: aws.String(e.ID),
		InstanceId:         aws.String(spec.InstanceID),
		DeviceIndex:        aws.Int32(int32(spec.DeviceIndex)),
	}
	if spec.CardIndex != 0 { // types with one card refuse the parameter
		in.NetworkCardIndex = aws.Int32(int32(spec.CardIndex))
	}
	err = c.onceKnown(ctx, func() error {
		out, err := c.api.AttachNetworkInterface(ctx, in)
		if err != nil {
			return wrap("AttachNetworkInterface", what, err)
		}
		e.AttachmentID = aws.ToString(out.AttachmentId)
		return nil
	})
	if err != nil {
		return vpc.ENI{}, err
	}
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

// MarkDeleteOnTermination has EC2 delete the ENI with its instance. Any failure
// is an ErrNotMarked too.
func (c *Client) MarkDeleteOnTermination(ctx context.Context, eniID, attachmentID string) error {
	_, err := c.api.ModifyNetworkInterfaceAttribute(ctx, &ec2.ModifyNetworkInterfaceAttributeInput{
		NetworkInterfaceId: aws.String(eniID),
		Attachment: &types.NetworkInterfaceAttachmentChanges{
			AttachmentId:        aws.String(attachmentID),
			DeleteOnTermination: aws.Bool(true),
		},
	})
	if err != nil {
		err = wrap("ModifyNetworkInterfaceAttribute", "set "+eniID+" to be deleted on termination", err)
		return fmt.Errorf("%w: %w", ErrNotMarked, err)
	}
	return nil
}

// delete removes an ENI that could not be attached, also after ctx has ended:
// that may be why it could not.
func (c *Client) delete(ctx context.Context, eniID string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	err := c.onceKnown(ctx, func() error {
		_, err := c.api.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: aws.String(eniID)})
		if err != nil {
			return wrap("DeleteNetworkInterface", "delete "+eniID+" again", err)
		}
		return nil
	})
	if unknownENI(err) {
		return nil // gone is what we want
	}
	return err
}
