package ec2

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/fairway-cni/fairway/internal/core/preflight"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Asker is the node whose rights are tried.
type Asker struct {
	InstanceID   string
	InstanceType string
	VPCID        string
	Subnet       string // that ENIs would be made in
	Groups       []string
	ENIs         []vpc.ENI // as EC2 lists them, with their tags; none: not known
}

// granted is EC2's answer to a dry run of what is allowed ("DryRun", Amazon EC2 API
// Reference, common parameters).
const granted = "DryRunOperation"

// attempt of a right: try is nil where there is nothing here to try it on.
type attempt struct {
	right   preflight.Right
	try     func(ctx context.Context) error
	nothing string // why there is not
}

// Rights has EC2 say for each action of docs/iam.md whether this node's role may
// call it, by dry runs: nothing is changed. Some need an ENI of the node's own to be
// tried on, as the policies name such ENIs alone.
func (c *Client) Rights(ctx context.Context, a Asker) []preflight.Right {
	var out []preflight.Right
	for _, t := range slices.Concat(c.readingRights(a), c.growingRights(a), c.leavingRights(a)) {
		r := t.right
		if t.try == nil {
			r.Verdict, r.Text = preflight.Untried, t.nothing
		} else {
			r.Verdict, r.Text = verdict(r.Action, t.try(ctx))
		}
		out = append(out, r)
	}
	return out
}

// verdict reads the answer to a dry run. EC2 looks at rights before it looks at the
// state of things, so that a refusal for the state is a right.
func verdict(action string, err error) (preflight.RightVerdict, string) {
	code, message, class := classify(err)
	switch {
	case err == nil, code == granted, errors.Is(class, ErrState), errors.Is(class, ErrLimit), errors.Is(class, ErrSubnetFull):
		return preflight.Granted, ""
	case code == "UnauthorizedOperation":
		return preflight.Denied, message
	}
	err = wrap(action, "try "+action, err)
	text := err.Error()
	if advice := Advice(err); advice != "" {
		text += "; " + advice
	}
	return preflight.Unclear, text
}

func right(action, without string) preflight.Right {
	return preflight.Right{Action: "ec2:" + action, Without: without}
}

func minor(action, without string) preflight.Right {
	r := right(action, without)
	r.Minor = true
	return r
}

func (c *Client) readingRights(a Asker) []attempt {
	dry := aws.Bool(true)
	return []attempt{
		{right: right("DescribeNetworkInterfaces", "what the node had before a restart is of no use to pods, and never given back"), try: func(ctx context.Context) error {
			_, err := c.api.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{DryRun: dry, MaxResults: aws.Int32(pageSize)})
			return err
		}},
		{right: right("DescribeSubnets", "ENIs are made in the primary ENI's subnet only, and with custom networking none is"), try: func(ctx context.Context) error {
			_, err := c.api.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{DryRun: dry})
			return err
		}},
		{right: minor("DescribeInstanceTypes", "a node of a type that is newer than the agent keeps what it has"), try: func(ctx context.Context) error {
			_, err := c.api.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{DryRun: dry, InstanceTypes: []types.InstanceType{types.InstanceType(a.InstanceType)}})
			return err
		}},
		{right: minor("DescribeVpcs", "pods' own addresses are seen in the VPC's first CIDRs alone"), try: func(ctx context.Context) error {
			_, err := c.api.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{DryRun: dry})
			return err
		}},
		{right: minor("DescribeRouteTables", "what is behind peerings and gateways sees the node's address, and no pod's"), try: func(ctx context.Context) error {
			_, err := c.api.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{DryRun: dry})
			return err
		}},
		{right: minor("DescribeVpcPeeringConnections", "what is behind peerings sees the node's address, and no pod's"), try: func(ctx context.Context) error {
			_, err := c.api.DescribeVpcPeeringConnections(ctx, &ec2.DescribeVpcPeeringConnectionsInput{DryRun: dry})
			return err
		}},
		{right: minor("GetManagedPrefixListEntries", ""), nothing: "asked for only where a route names a prefix list, and then by that list"},
	}
}

func (c *Client) growingRights(a Asker) []attempt {
	dry := aws.Bool(true)
	const noOwn = "no ENI here bears the node's name yet, and the policies name no other"
	own := slices.IndexFunc(a.ENIs, func(e vpc.ENI) bool {
		return e.DeviceIndex > 0 && e.Tags[TagInstance] == a.InstanceID && e.AttachmentID != ""
	})
	unnamed := slices.IndexFunc(a.ENIs, func(e vpc.ENI) bool { return e.Tags[TagInstance] == "" && e.Tags[TagNoManage] == "" })
	list := []attempt{
		{right: right("CreateNetworkInterface", "the node is full with the ENIs it has"), try: func(ctx context.Context) error {
			_, err := c.api.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{DryRun: dry, SubnetId: aws.String(a.Subnet), Groups: a.Groups,
				Description: aws.String("fairway " + a.InstanceID), TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeNetworkInterface,
					Tags: tagList(Spec{InstanceID: a.InstanceID}.tags())}}})
			return err
		}},
		{right: right("AssignPrivateIpAddresses", ""), nothing: "EC2 has no dry run of it; the agent's status says if it is refused"},
		{right: right("AttachNetworkInterface", "the node is full with the ENIs it has"), nothing: noOwn},
		{right: minor("ModifyNetworkInterfaceAttribute", "ENIs are left over when nodes end"), nothing: noOwn},
		{right: minor("CreateTags", "ENIs that came with the instance lack its name"), nothing: "every ENI bears the node's name already, or is not to be managed"},
	}
	if own >= 0 {
		e := a.ENIs[own]
		list[2].try = func(ctx context.Context) error {
			_, err := c.api.AttachNetworkInterface(ctx, &ec2.AttachNetworkInterfaceInput{DryRun: dry, NetworkInterfaceId: aws.String(e.ID),
				InstanceId: aws.String(a.InstanceID), DeviceIndex: aws.Int32(int32(e.DeviceIndex))})
			return err
		}
		list[3].try = func(ctx context.Context) error {
			_, err := c.api.ModifyNetworkInterfaceAttribute(ctx, &ec2.ModifyNetworkInterfaceAttributeInput{DryRun: dry, NetworkInterfaceId: aws.String(e.ID),
				Attachment: &types.NetworkInterfaceAttachmentChanges{AttachmentId: aws.String(e.AttachmentID), DeleteOnTermination: aws.Bool(true)}})
			return err
		}
	}
	if unnamed >= 0 {
		list[4].try = func(ctx context.Context) error {
			_, err := c.api.CreateTags(ctx, &ec2.CreateTagsInput{DryRun: dry, Resources: []string{a.ENIs[unnamed].ID},
				Tags: tagList(map[string]string{TagInstance: a.InstanceID})})
			return err
		}
	}
	return list
}

func (c *Client) leavingRights(a Asker) []attempt {
	dry := aws.Bool(true)
	const noOwn = "no ENI that Fairway has made is here to try it on"
	list := []attempt{
		{right: minor("UnassignPrivateIpAddresses", ""), nothing: "EC2 has no dry run of it; the agent's status says if it is refused"},
		{right: minor("DetachNetworkInterface", "a node keeps every ENI that it ever had"), nothing: noOwn},
		{right: minor("DeleteNetworkInterface", "ENIs are left over"), nothing: noOwn},
	}
	i := slices.IndexFunc(a.ENIs, func(e vpc.ENI) bool {
		return e.DeviceIndex > 0 && e.Tags[TagInstance] == a.InstanceID && e.Tags[TagOwner] == Owner && e.AttachmentID != ""
	})
	if i < 0 {
		return list
	}
	e := a.ENIs[i]
	list[1].try = func(ctx context.Context) error {
		_, err := c.api.DetachNetworkInterface(ctx, &ec2.DetachNetworkInterfaceInput{DryRun: dry, AttachmentId: aws.String(e.AttachmentID)})
		return err
	}
	list[2].try = func(ctx context.Context) error {
		_, err := c.api.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{DryRun: dry, NetworkInterfaceId: aws.String(e.ID)})
		return err
	}
	return list
}

// Skew is how far this machine's clock is ahead of EC2's, to the second: that of the
// answer to a dry run, whatever it says.
func (c *Client) Skew(ctx context.Context) (time.Duration, error) {
	_, err := c.api.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{DryRun: aws.Bool(true)})
	now := time.Now()
	var answered *smithyhttp.ResponseError
	if !errors.As(err, &answered) || answered.Response == nil {
		return 0, wrap("DescribeSubnets", "ask for the time", errors.Join(err, errors.New("EC2 gave no answer")))
	}
	at, err := http.ParseTime(answered.Response.Header.Get("Date"))
	if err != nil {
		return 0, fmt.Errorf("read EC2's time: %w", err)
	}
	skew := now.Sub(at)
	if skew > 0 && skew < 2*time.Second { // the header has no more than seconds
		return 0, nil
	}
	return skew, nil
}
