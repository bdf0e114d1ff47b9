package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/world"
)

func ec2Command(o *options) *cobra.Command {
	var region, output string
	cmd := &cobra.Command{
		Use:   "ec2 ACTION [PARAM=VALUE ...]",
		Short: "Call the lab's EC2 API, with names for identifiers",
		Long: `Call any action of the lab's EC2 API: action and parameters as the Amazon EC2 API
Reference has them, lists as NAME.1, NAME.2. When the command returns, the
fabric does what the call has changed.

A value @NAME is the identifier of what has that name, or the tag Name; the
parameter says of what kind. Where two VPCs have the same name in them, write
@VPC/NAME. Further:

  NetworkInterfaceId=@INSTANCE/DEVICE   that device, such as @node-a/ens5
  NetworkInterfaceId=@INSTANCE          its primary ENI
  RouteTableId=@SUBNET                  the table that serves the subnet
  RouteTableId=@VPC                     the VPC's main table
  NetworkAclId=@SUBNET                  the network ACL of the subnet
  NetworkAclId=@VPC/default             the one that the VPC was born with
  GroupId=@VPC/default                  the VPC's default group
  AssociationId=@SUBNET                 of the subnet's table or ACL, as the action is
  AssociationId=@VPC/BLOCK              of a block of the VPC, for DisassociateVpcCidrBlock
  AttachmentId=@INSTANCE/DEVICE         for DetachNetworkInterface
  InternetGatewayId=@VPC                the VPC's
  TransitGatewayAttachmentId=@VPC       or @GATEWAY/VPC

A name of its own goes before one that is had from a subnet, and that before one
from a VPC. @@ begins a value that begins with @.

Without --region the call is done in the region of the first thing that is named
so, else in the lab's own.

Nothing is printed where EC2 answers only that it is done; else a line for each
value of the answer.`,
		Example: `  fairway-lab ec2 CreateRoute RouteTableId=@a DestinationCidrBlock=10.1.0.0/16 VpcPeeringConnectionId=@left-right
  fairway-lab ec2 AssignPrivateIpAddresses NetworkInterfaceId=@node-a/ens6 PrivateIpAddress.1=10.0.1.77
  fairway-lab ec2 DescribeVpcs Filter.1.Name=vpc-id Filter.1.Value.1=@main -o json`,
		Args: arguments(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"lines", "json", "xml"}, output) {
				return fmt.Errorf("%w: --output %q: must be lines, json or xml", ErrUsage, output)
			}
			params, err := parseParams(args[1:])
			if err != nil {
				return err
			}
			return o.ec2(cmd.Context(), ec2Call{Action: args[0], Params: params, Region: region}, output)
		},
	}
	cmd.Flags().StringVar(&region, "region", "", "where the call is done, such as us-east-1")
	cmd.Flags().StringVarP(&output, "output", "o", "lines", "lines, json or xml (the answer as it came)")
	return cmd
}

func (o *options) ec2(ctx context.Context, call ec2Call, output string) error {
	r, _, err := o.remote()
	if err != nil {
		return err
	}
	if call.names() {
		all, err := r.Objects(ctx)
		if err != nil {
			return err
		}
		if call, err = call.resolve(all); err != nil {
			return fmt.Errorf("%s: %w", call.Action, err)
		}
	}
	values := url.Values{}
	for _, p := range call.Params {
		values.Add(p.name, p.value)
	}
	answer, err := r.EC2(ctx, call.Action, call.Region, values)
	if err != nil {
		return fmt.Errorf("%s: %w", call.Action, err)
	}
	done := progress(o.Stderr, "waiting until the fabric follows")
	if !reads(call.Action) {
		err = r.Settle(ctx)
	}
	done()
	return errors.Join(o.printAnswer(answer, output), err)
}

// reads tells the actions that change nothing.
func reads(action string) bool {
	for _, verb := range []string{"Describe", "Get", "Search"} {
		if strings.HasPrefix(action, verb) {
			return true
		}
	}
	return false
}

// printAnswer prints what EC2 answered in the form that is asked for.
func (o *options) printAnswer(answer []byte, output string) error {
	if output == "xml" {
		_, err := fmt.Fprintf(o.Stdout, "%s\n", answer)
		return err
	}
	root, err := parseXML(answer)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if output == "json" {
		return o.json(root.json())
	}
	leaves := root.leaves()
	if len(leaves) == 1 && leaves[0] == [2]string{"return", "true"} {
		return nil
	}
	t := tabwriter.NewWriter(o.Stdout, 0, 0, 2, ' ', 0)
	for _, l := range leaves {
		fmt.Fprintf(t, "%s\t%s\n", l[0], l[1])
	}
	return t.Flush()
}

// param is one parameter of a call, in the order of the command line.
type param struct{ name, value string }

func parseParams(args []string) ([]param, error) {
	var params []param
	for _, a := range args {
		name, value, ok := strings.Cut(a, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%w: parameter %q: want PARAM=VALUE, such as VpcId=@main", ErrUsage, a)
		}
		if slices.ContainsFunc(params, func(p param) bool { return p.name == name }) {
			return nil, fmt.Errorf("%w: parameter %s is there twice; the members of a list are %s.1, %s.2", ErrUsage, name, name, name)
		}
		params = append(params, param{name, value})
	}
	return params, nil
}

// ec2Call is a call as a person writes it.
type ec2Call struct {
	Action string
	Params []param
	Region string // empty: that of what is named, or the lab's
}

// names says whether any value is a name.
func (c ec2Call) names() bool {
	return slices.ContainsFunc(c.Params, func(p param) bool { return strings.HasPrefix(p.value, "@") })
}

// resolve gives the call with identifiers for names. It is pure.
func (c ec2Call) resolve(all world.Objects) (ec2Call, error) {
	found := make([][]world.Object, len(c.Params)) // what has the name, in any region
	out := ec2Call{Action: c.Action, Region: c.Region, Params: slices.Clone(c.Params)}
	for i, p := range c.Params {
		ref, named := strings.CutPrefix(p.value, "@")
		if !named || strings.HasPrefix(ref, "@") {
			continue
		}
		found[i] = matching(all.Objects, c.kind(p.name), ref)
		if len(found[i]) == 0 {
			return out, c.unknown(all, p)
		}
		if at := found[i][0].Region; out.Region == "" && !anywhere(p.name) && !slices.ContainsFunc(found[i], func(o world.Object) bool { return o.Region != at }) {
			out.Region = at
		}
	}
	if out.Region == "" {
		out.Region = all.Region
	}
	for i, p := range c.Params {
		switch {
		case strings.HasPrefix(p.value, "@@"):
			out.Params[i].value = p.value[1:]
		case strings.HasPrefix(p.value, "@"):
			o, err := choose(found[i], p, out.Region)
			if err != nil {
				return out, err
			}
			out.Params[i].value = o.ID
		}
	}
	return out, nil
}

// anywhere tells the parameters that name what may be in another region than
// the call.
func anywhere(name string) bool { return strings.HasPrefix(name, "Peer") }

// matching lists what is called ref, of a kind or, where that is empty, of any.
// Of any kind nothing is found by another's name: a VPC is not its main table.
func matching(all []world.Object, kind, ref string) []world.Object {
	scope, name, scoped := strings.Cut(ref, "/")
	var out []world.Object
	for _, o := range all {
		switch {
		case kind != "" && o.Kind != kind, kind == "" && (o.After != "" || o.Kind == world.KindAttachment || o.Kind == world.KindMapping):
		case o.Name == ref, scoped && o.Scope == scope && o.Name == name:
			out = append(out, o)
		}
	}
	return out
}

// choose takes the one that a name means in a region.
func choose(found []world.Object, p param, region string) (world.Object, error) {
	var here []world.Object
	for _, o := range found {
		if o.Region == "" || o.Region == region || anywhere(p.name) {
			here = append(here, o)
		}
	}
	if len(here) == 0 {
		return world.Object{}, fmt.Errorf("%s=%s: %s is in %s, and the call is done in %s; use --region %s, or a name of %s", p.name, p.value, found[0].ID, found[0].Region, region, found[0].Region, region)
	}
	best := slices.MinFunc(here, func(a, b world.Object) int { return rank(a) - rank(b) })
	var ids []string
	var texts []string
	for _, o := range here {
		if rank(o) == rank(best) && !slices.Contains(ids, o.ID) {
			ids = append(ids, o.ID)
			texts = append(texts, o.Kind+" "+fullName(o)+" ("+o.ID+")")
		}
	}
	if len(ids) > 1 {
		return best, fmt.Errorf("%s=%s is ambiguous: %s; write @VPC/NAME, or the identifier", p.name, p.value, strings.Join(texts, ", "))
	}
	return best, nil
}

// fullName is the name with that of what it is in.
func fullName(o world.Object) string { return strings.TrimPrefix(o.Scope+"/"+o.Name, "/") }

// rank orders names: its own before those that it has from others, of which the
// nearer count more.
func rank(o world.Object) int {
	switch o.After {
	case "":
		return 0
	case world.KindSubnet, world.KindInstance:
		return 1
	}
	return 2
}

// unknown says what names there are instead.
func (c ec2Call) unknown(all world.Objects, p param) error {
	kind := c.kind(p.name)
	var there []string
	for _, o := range all.Objects {
		name := fullName(o)
		if o.Kind == kind && !slices.Contains(there, name) {
			there = append(there, name)
		}
	}
	what := strings.ReplaceAll(kind, "-", " ")
	switch {
	case kind == "":
		return fmt.Errorf("%s=%s: nothing has this name", p.name, p.value)
	case len(there) == 0:
		return fmt.Errorf("%s=%s: the lab has no %s", p.name, p.value, what)
	}
	return fmt.Errorf("%s=%s: no %s has this name; there are: %s", p.name, p.value, what, strings.Join(there, ", "))
}
