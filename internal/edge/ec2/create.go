package ec2

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Spec says what ENI to create. It begins with addresses or with prefixes: EC2
// refuses both together.
type Spec struct {
	InstanceID string // whose it will be: TagInstance
	Cluster    string // TagCluster, unless it is empty
	SubnetID   string
	Groups     []string          // security group IDs
	Addresses  int               // secondary addresses to begin with
	Prefixes   int               // /28 prefixes to begin with
	Tags       map[string]string // beside those that every ENI has, which win
}

func (s Spec) tags() map[string]string {
	tags := map[string]string{}
	maps.Copy(tags, s.Tags)
	tags[TagInstance], tags[TagOwner] = s.InstanceID, Owner
	tags[TagCreated] = time.Now().UTC().Format(time.RFC3339)
	if s.Cluster != "" {
		tags[TagCluster] = s.Cluster
	}
	return tags
}

func (s Spec) String() string {
	var with []string
	if s.Addresses > 0 || s.Prefixes == 0 {
		with = append(with, fmt.Sprintf("%d addresses", s.Addresses))
	}
	if s.Prefixes > 0 {
		with = append(with, fmt.Sprintf("%d prefixes", s.Prefixes))
	}
	return "create an ENI with " + strings.Join(with, " and ") + " in " + s.SubnetID
}

// CreateENI makes an ENI that is attached to nothing, with all its first addresses
// or prefixes; EC2 gives all or none. The answer is whole, so that nothing need
// be asked for again. EC2 may say for some seconds that it does not know the ENI.
//
// Where EC2 made it and answered what makes no sense, there is an error and an ENI
// of which only the ID is known.
func (c *Client) CreateENI(ctx context.Context, spec Spec) (vpc.ENI, error) {
	what := spec.String()
	// First: a failure here must not leave an ENI behind.
	if err := c.learnSubnets(ctx, what, spec.SubnetID); err != nil {
		return vpc.ENI{}, err
	}
	subnet, err := c.subnet(spec.SubnetID)
	if err != nil {
		return vpc.ENI{}, fmt.Errorf("%s: %w", what, err)
	}
	in := &ec2.CreateNetworkInterfaceInput{
		// It is shared with the second attempt after a lost connection, so that
		// that makes no second ENI. It is not kept across calls: the tags differ.
		ClientToken: aws.String(rand.Text()),
		Description: aws.String("fairway " + spec.InstanceID),
		SubnetId:    aws.String(spec.SubnetID),
		Groups:      spec.Groups,
		TagSpecifications: []types.TagSpecification{
			{ResourceType: types.ResourceTypeNetworkInterface, Tags: tagList(spec.tags())},
		},
	}
	if spec.Addresses > 0 {
		in.SecondaryPrivateIpAddressCount = aws.Int32(int32(spec.Addresses))
	}
	if spec.Prefixes > 0 {
		in.Ipv4PrefixCount = aws.Int32(int32(spec.Prefixes))
	}
	out, err := c.api.CreateNetworkInterface(ctx, in)
	if err != nil {
		return vpc.ENI{}, wrap("CreateNetworkInterface", what, err)
	}
	if out.NetworkInterface == nil || aws.ToString(out.NetworkInterface.NetworkInterfaceId) == "" {
		return vpc.ENI{}, &answerError{what, fmt.Errorf("EC2 answered without the ENI")}
	}
	e, err := eni(*out.NetworkInterface)
	if err != nil {
		return e, &answerError{what, err}
	}
	e.Subnet = subnet
	return e, nil
}

// tagList is in order of the keys, so that equal requests read alike.
func tagList(tags map[string]string) []types.Tag {
	var list []types.Tag
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, types.Tag{Key: aws.String(k), Value: aws.String(tags[k])})
	}
	return list
}

// AttachENI puts a detached ENI on the instance and returns the attachment's ID.
// The device appears in the instance some seconds later; find it by its MAC.
//
// ErrNotFound just after the ENI was created means that EC2 does not know it
// everywhere yet; ErrState that it is attached already, or the index taken;
// ErrLimit that the instance type allows no more.
func (c *Client) AttachENI(ctx context.Context, eniID, instanceID string, device, card int) (string, error) {
	what := fmt.Sprintf("attach %s to %s as device %d", eniID, instanceID, device)
	in := &ec2.AttachNetworkInterfaceInput{
		NetworkInterfaceId: aws.String(eniID),
		InstanceId:         aws.String(instanceID),
		DeviceIndex:        aws.Int32(int32(device)),
	}
	if card != 0 { // types with one card refuse the parameter
		what += fmt.Sprintf(" of card %d", card)
		in.NetworkCardIndex = aws.Int32(int32(card))
	}
	out, err := c.api.AttachNetworkInterface(ctx, in)
	if err != nil {
		return "", wrap("AttachNetworkInterface", what, err)
	}
	if aws.ToString(out.AttachmentId) == "" {
		return "", &answerError{what, fmt.Errorf("EC2 answered without the attachment")}
	}
	return *out.AttachmentId, nil
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

// DetachENI takes an ENI off its instance, which takes some seconds: until then
// it is listed with the status "detaching". ErrState: it is still being attached.
// ErrNotFound: there is no such attachment, or EC2 does not know it everywhere yet.
func (c *Client) DetachENI(ctx context.Context, attachmentID string) error {
	_, err := c.api.DetachNetworkInterface(ctx, &ec2.DetachNetworkInterfaceInput{AttachmentId: aws.String(attachmentID)})
	if err != nil {
		return wrap("DetachNetworkInterface", "detach "+attachmentID, err)
	}
	return nil
}

// DeleteENI deletes a detached ENI. That there is none is success; just after it
// was made EC2 may say so of one that there is, and lists it later. ErrState: it
// is attached.
func (c *Client) DeleteENI(ctx context.Context, eniID string) error {
	_, err := c.api.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: aws.String(eniID)})
	if err != nil {
		err = wrap("DeleteNetworkInterface", "delete "+eniID, err)
	}
	if unknownENI(err) {
		return nil
	}
	return err
}

// TagENI adds tags to an ENI, in place of those with the same keys. With TagOwner
// and TagInstance it makes one that was not made here one that was: it is listed
// as detached or leaked once it is attached no more.
func (c *Client) TagENI(ctx context.Context, eniID string, tags map[string]string) error {
	_, err := c.api.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{eniID}, Tags: tagList(tags)})
	if err != nil {
		return wrap("CreateTags", "tag "+eniID, err)
	}
	return nil
}
