package ec2

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// TestRoutingOfASimulatedVPC reads a VPC with a second CIDR, a peering, a prefix
// list and a subnet with a table of its own, and follows their changes.
func TestRoutingOfASimulatedVPC(t *testing.T) {
	r := newRegion(t, ec2sim.Config{}, "10.0.1.0/24")
	ctx, api := t.Context(), r.c.api
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	subnets, err := api.DescribeSubnets(ctx, nil)
	fatal(err)
	subnetID, vpcID := subnets.Subnets[0].SubnetId, subnets.Subnets[0].VpcId
	tables, err := api.DescribeRouteTables(ctx, nil)
	fatal(err)
	main := tables.RouteTables[0].RouteTableId

	native := func() []string {
		t.Helper()
		routing, err := r.c.Routing(ctx, aws.ToString(vpcID))
		fatal(err)
		var out []string
		for _, n := range vpc.NativeOf(routing, vpc.NativePolicy{}, aws.ToString(subnetID), netip.MustParsePrefix("10.0.1.0/24")) {
			out = append(out, n.Prefix.String())
		}
		return out
	}
	check := func(step string, want ...string) {
		t.Helper()
		if d := cmp.Diff(want, native()); d != "" {
			t.Errorf("%s (-want +got):\n%s", step, d)
		}
	}
	check("alone", "10.0.0.0/16")
	_, err = api.AssociateVpcCidrBlock(ctx, &ec2.AssociateVpcCidrBlockInput{VpcId: vpcID, CidrBlock: aws.String("10.9.0.0/16")})
	fatal(err)
	check("second CIDR", "10.0.0.0/16", "10.9.0.0/16")

	other, err := api.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.12.0.0/16")})
	fatal(err)
	peering, err := api.CreateVpcPeeringConnection(ctx, &ec2.CreateVpcPeeringConnectionInput{VpcId: vpcID, PeerVpcId: other.Vpc.VpcId})
	fatal(err)
	pcx := peering.VpcPeeringConnection.VpcPeeringConnectionId
	_, err = api.AcceptVpcPeeringConnection(ctx, &ec2.AcceptVpcPeeringConnectionInput{VpcPeeringConnectionId: pcx})
	fatal(err)
	check("peering without route", "10.0.0.0/16", "10.9.0.0/16")
	_, err = api.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: main, DestinationCidrBlock: aws.String("10.12.0.0/16"), VpcPeeringConnectionId: pcx})
	fatal(err)
	check("route by the main table", "10.0.0.0/16", "10.9.0.0/16", "10.12.0.0/16")

	list, err := api.CreateManagedPrefixList(ctx, &ec2.CreateManagedPrefixListInput{
		AddressFamily: aws.String("IPv4"), MaxEntries: aws.Int32(5), PrefixListName: aws.String("part"),
		Entries: []types.AddPrefixListEntry{{Cidr: aws.String("10.12.7.0/24")}, {Cidr: aws.String("10.12.8.0/24")}},
	})
	fatal(err)
	own, err := api.CreateRouteTable(ctx, &ec2.CreateRouteTableInput{VpcId: vpcID})
	fatal(err)
	_, err = api.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: own.RouteTable.RouteTableId,
		DestinationPrefixListId: list.PrefixList.PrefixListId, VpcPeeringConnectionId: pcx})
	fatal(err)
	_, err = api.AssociateRouteTable(ctx, &ec2.AssociateRouteTableInput{RouteTableId: own.RouteTable.RouteTableId, SubnetId: subnetID})
	fatal(err)
	check("own table with a prefix list", "10.0.0.0/16", "10.9.0.0/16", "10.12.7.0/24", "10.12.8.0/24")

	_, err = api.DeleteVpcPeeringConnection(ctx, &ec2.DeleteVpcPeeringConnectionInput{VpcPeeringConnectionId: pcx})
	fatal(err)
	check("peering gone", "10.0.0.0/16", "10.9.0.0/16")

	if _, err := r.c.Routing(ctx, "vpc-0123456789abcdef0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("routing of a VPC that is not: %v, want %v", err, ErrNotFound)
	}
	for _, action := range []string{"DescribeVpcs", "DescribeRouteTables"} {
		r.sim.InjectError(action, &ec2sim.Error{Code: "UnauthorizedOperation", Message: "no", Status: 403}, 1)
		var refused *Error
		if _, err := r.c.Routing(ctx, aws.ToString(vpcID)); !errors.Is(err, ErrUnauthorized) || !errors.As(err, &refused) || refused.Action != action {
			t.Errorf("without the right to %s: %v, want %v", action, err, ErrUnauthorized)
		}
	}
	if !slices.Contains(native(), "10.0.0.0/16") {
		t.Error("after the refusals nothing is known any more")
	}
}
