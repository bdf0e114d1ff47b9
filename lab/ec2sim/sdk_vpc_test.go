package ec2sim

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"
)

func str(s string) *string { return aws.String(s) }

// want compares the code of an error.
func want(t *testing.T, what string, err error, wanted string) {
	t.Helper()
	if got := code(err); got != wanted {
		t.Errorf("%s: %v, want %q", what, err, wanted)
	}
}

func permission(protocol string, from, to int32, cidrs ...string) types.IpPermission {
	p := types.IpPermission{IpProtocol: &protocol, FromPort: &from, ToPort: &to}
	for _, c := range cidrs {
		p.IpRanges = append(p.IpRanges, types.IpRange{CidrIp: str(c)})
	}
	return p
}

func TestSDKSecurityGroups(t *testing.T) {
	w := newWorld(t, New(Config{}))
	group := func(id string) types.SecurityGroup {
		return must(w.api.DescribeSecurityGroups(w.ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{id}}))(t).SecurityGroups[0]
	}
	def := must(w.api.DescribeSecurityGroups(w.ctx, &ec2.DescribeSecurityGroupsInput{
		Filters: []types.Filter{{Name: str("group-name"), Values: []string{"default"}}},
	}))(t).SecurityGroups[0]
	if in := def.IpPermissions; len(in) != 1 || *in[0].IpProtocol != "-1" || in[0].FromPort != nil || *in[0].UserIdGroupPairs[0].GroupId != *def.GroupId {
		t.Errorf("the default group admits %+v", in)
	}
	g := *must(w.api.CreateSecurityGroup(w.ctx, &ec2.CreateSecurityGroupInput{VpcId: &w.vpc, GroupName: str("web"), Description: str("d")}))(t).GroupId
	list := *must(w.api.CreateManagedPrefixList(w.ctx, &ec2.CreateManagedPrefixListInput{
		PrefixListName: str("offices"), AddressFamily: str("IPv4"), MaxEntries: aws.Int32(5),
		Entries: []types.AddPrefixListEntry{{Cidr: str("192.0.2.0/24"), Description: str("x")}},
	}))(t).PrefixList.PrefixListId
	web := permission("tcp", 80, 443, "0.0.0.0/0", "10.9.8.7/8")
	web.UserIdGroupPairs = []types.UserIdGroupPair{{GroupId: def.GroupId, Description: str("in")}}
	web.PrefixListIds = []types.PrefixListId{{PrefixListId: &list}}
	added := must(w.api.AuthorizeSecurityGroupIngress(w.ctx, &ec2.AuthorizeSecurityGroupIngressInput{
		GroupId: &g, IpPermissions: []types.IpPermission{web, permission("icmp", 8, -1, "0.0.0.0/0")},
	}))(t)
	if len(added.SecurityGroupRules) != 5 || *added.SecurityGroupRules[1].CidrIpv4 != "10.0.0.0/8" || *added.SecurityGroupRules[0].IsEgress {
		t.Errorf("added %+v", added.SecurityGroupRules)
	}
	in := group(g).IpPermissions
	if len(in) != 2 || len(in[0].IpRanges) != 2 || len(in[0].UserIdGroupPairs) != 1 || len(in[0].PrefixListIds) != 1 || *in[1].FromPort != 8 || *in[1].ToPort != -1 {
		t.Errorf("permissions %+v", in)
	}
	if out := group(g).IpPermissionsEgress; len(out) != 1 || *out[0].IpProtocol != "-1" || *out[0].IpRanges[0].CidrIp != "0.0.0.0/0" {
		t.Errorf("a new group lets out %+v", out)
	}
	_, err := w.api.AuthorizeSecurityGroupIngress(w.ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &g, CidrIp: str("0.0.0.0/0"), IpProtocol: str("tcp"), FromPort: aws.Int32(80), ToPort: aws.Int32(443)})
	want(t, "the same rule again", err, "InvalidPermission.Duplicate")
	_, err = w.api.DeleteManagedPrefixList(w.ctx, &ec2.DeleteManagedPrefixListInput{PrefixListId: &list})
	want(t, "delete a list in use", err, "DependencyViolation")

	must(w.api.RevokeSecurityGroupEgress(w.ctx, &ec2.RevokeSecurityGroupEgressInput{GroupId: &g, IpPermissions: []types.IpPermission{permission("-1", -1, -1, "0.0.0.0/0")}}))(t)
	gone := must(w.api.RevokeSecurityGroupIngress(w.ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: &g, SecurityGroupRuleIds: []string{*added.SecurityGroupRules[3].SecurityGroupRuleId}}))(t)
	if len(gone.RevokedSecurityGroupRules) != 1 || *gone.RevokedSecurityGroupRules[0].PrefixListId != list {
		t.Errorf("revoked %+v", gone.RevokedSecurityGroupRules)
	}
	rules := must(w.api.DescribeSecurityGroupRules(w.ctx, &ec2.DescribeSecurityGroupRulesInput{Filters: []types.Filter{{Name: str("group-id"), Values: []string{g}}}}))(t)
	if len(rules.SecurityGroupRules) != 4 || len(group(g).IpPermissionsEgress) != 0 {
		t.Errorf("%d rules left", len(rules.SecurityGroupRules))
	}
	must(w.api.DeleteManagedPrefixList(w.ctx, &ec2.DeleteManagedPrefixListInput{PrefixListId: &list}))(t)
	_, err = w.api.DeleteSecurityGroup(w.ctx, &ec2.DeleteSecurityGroupInput{GroupId: def.GroupId})
	want(t, "delete the default group", err, "CannotDelete")
	e := *must(w.api.CreateNetworkInterface(w.ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &w.subnet, Groups: []string{g}}))(t).NetworkInterface.NetworkInterfaceId
	_, err = w.api.DeleteSecurityGroup(w.ctx, &ec2.DeleteSecurityGroupInput{GroupId: &g})
	want(t, "delete a group of an ENI", err, "DependencyViolation")
	must(w.api.DeleteNetworkInterface(w.ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: &e}))(t)
	must(w.api.DeleteSecurityGroup(w.ctx, &ec2.DeleteSecurityGroupInput{GroupId: &g}))(t)
	_, err = w.api.DescribeSecurityGroups(w.ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{g}})
	want(t, "describe a deleted group", err, "InvalidGroup.NotFound")
}

func TestSDKPrefixLists(t *testing.T) {
	w := newWorld(t, New(Config{}))
	l := must(w.api.CreateManagedPrefixList(w.ctx, &ec2.CreateManagedPrefixListInput{
		PrefixListName: str("l"), AddressFamily: str("IPv4"), MaxEntries: aws.Int32(2), Entries: []types.AddPrefixListEntry{{Cidr: str("192.0.2.0/24")}},
		TagSpecifications: tagSpec("prefix-list", "a", "b"),
	}))(t).PrefixList
	modify := func(version int64, add, remove string) error {
		in := &ec2.ModifyManagedPrefixListInput{PrefixListId: l.PrefixListId, CurrentVersion: &version}
		if add != "" {
			in.AddEntries = []types.AddPrefixListEntry{{Cidr: &add}}
		}
		if remove != "" {
			in.RemoveEntries = []types.RemovePrefixListEntry{{Cidr: &remove}}
		}
		_, err := w.api.ModifyManagedPrefixList(w.ctx, in)
		return err
	}
	want(t, "add", modify(1, "198.51.100.0/24", ""), "")
	want(t, "an old version", modify(1, "198.51.100.0/24", ""), "PrefixListVersionMismatch")
	want(t, "one too many", modify(2, "203.0.113.0/24", ""), "PrefixListMaxEntriesExceeded")
	want(t, "swap", modify(2, "203.0.113.0/24", "192.0.2.0/24"), "")
	var got []string
	for _, e := range must(w.api.GetManagedPrefixListEntries(w.ctx, &ec2.GetManagedPrefixListEntriesInput{PrefixListId: l.PrefixListId}))(t).Entries {
		got = append(got, *e.Cidr)
	}
	if diff := cmp.Diff([]string{"198.51.100.0/24", "203.0.113.0/24"}, got); diff != "" {
		t.Errorf("entries (-want +got)\n%s", diff)
	}
	lists := must(w.api.DescribeManagedPrefixLists(w.ctx, &ec2.DescribeManagedPrefixListsInput{Filters: []types.Filter{{Name: str("tag:a"), Values: []string{"b"}}}}))(t)
	if len(lists.PrefixLists) != 1 || *lists.PrefixLists[0].Version != 3 || lists.PrefixLists[0].State != "create-complete" {
		t.Errorf("lists %+v", lists.PrefixLists)
	}
	must(w.api.DeleteManagedPrefixList(w.ctx, &ec2.DeleteManagedPrefixListInput{PrefixListId: l.PrefixListId}))(t)
	want(t, "modify a deleted one", modify(3, "192.0.2.0/24", ""), "InvalidPrefixListID.NotFound")
}

func TestSDKNetworkACLs(t *testing.T) {
	w := newWorld(t, New(Config{}))
	acls := func() []types.NetworkAcl {
		return must(w.api.DescribeNetworkAcls(w.ctx, &ec2.DescribeNetworkAclsInput{Filters: []types.Filter{{Name: str("vpc-id"), Values: []string{w.vpc}}}}))(t).NetworkAcls
	}
	def := acls()[0]
	if !*def.IsDefault || len(def.Entries) != 4 || *def.Entries[0].RuleNumber != 100 || *def.Entries[1].RuleNumber != 32767 || *def.Associations[0].SubnetId != w.subnet {
		t.Errorf("default ACL %+v", def)
	}
	a := must(w.api.CreateNetworkAcl(w.ctx, &ec2.CreateNetworkAclInput{VpcId: &w.vpc}))(t).NetworkAcl
	if len(a.Entries) != 2 || a.Entries[0].RuleAction != "deny" {
		t.Errorf("a new ACL has %+v", a.Entries)
	}
	entry := &ec2.CreateNetworkAclEntryInput{
		NetworkAclId: a.NetworkAclId, RuleNumber: aws.Int32(200), Egress: aws.Bool(false), Protocol: str("6"), RuleAction: "allow",
		CidrBlock: str("10.0.0.0/8"), PortRange: &types.PortRange{From: aws.Int32(22), To: aws.Int32(22)},
	}
	must(w.api.CreateNetworkAclEntry(w.ctx, entry))(t)
	_, err := w.api.CreateNetworkAclEntry(w.ctx, entry)
	want(t, "a number twice", err, "NetworkAclEntryAlreadyExists")
	must(w.api.CreateNetworkAclEntry(w.ctx, &ec2.CreateNetworkAclEntryInput{
		NetworkAclId: a.NetworkAclId, RuleNumber: aws.Int32(100), Egress: aws.Bool(false), Protocol: str("icmp"), RuleAction: "deny",
		CidrBlock: str("0.0.0.0/0"), IcmpTypeCode: &types.IcmpTypeCode{Type: aws.Int32(-1), Code: aws.Int32(-1)},
	}))(t)
	id := *must(w.api.ReplaceNetworkAclAssociation(w.ctx, &ec2.ReplaceNetworkAclAssociationInput{AssociationId: def.Associations[0].NetworkAclAssociationId, NetworkAclId: a.NetworkAclId}))(t).NewAssociationId
	now := acls()
	if len(now[0].Associations) != 0 || *now[1].Associations[0].NetworkAclAssociationId != id {
		t.Errorf("associations %+v", now)
	}
	if e := now[1].Entries; len(e) != 4 || *e[1].RuleNumber != 100 || *e[1].IcmpTypeCode.Type != -1 || *e[2].PortRange.To != 22 {
		t.Errorf("entries %+v", e)
	}
	_, err = w.api.DeleteNetworkAcl(w.ctx, &ec2.DeleteNetworkAclInput{NetworkAclId: a.NetworkAclId})
	want(t, "delete an ACL in use", err, "DependencyViolation")
	must(w.api.ReplaceNetworkAclEntry(w.ctx, &ec2.ReplaceNetworkAclEntryInput{
		NetworkAclId: a.NetworkAclId, RuleNumber: aws.Int32(200), Egress: aws.Bool(false), Protocol: str("-1"), RuleAction: "allow", CidrBlock: str("0.0.0.0/0"),
	}))(t)
	del := &ec2.DeleteNetworkAclEntryInput{NetworkAclId: a.NetworkAclId, RuleNumber: aws.Int32(100), Egress: aws.Bool(false)}
	must(w.api.DeleteNetworkAclEntry(w.ctx, del))(t)
	_, err = w.api.DeleteNetworkAclEntry(w.ctx, del)
	want(t, "delete an entry twice", err, "InvalidNetworkAclEntry.NotFound")
	must(w.api.ReplaceNetworkAclAssociation(w.ctx, &ec2.ReplaceNetworkAclAssociationInput{AssociationId: &id, NetworkAclId: def.NetworkAclId}))(t)
	must(w.api.DeleteNetworkAcl(w.ctx, &ec2.DeleteNetworkAclInput{NetworkAclId: a.NetworkAclId}))(t)
}

// routes gives the routes of a table: destination, target and state.
func (w world) routes(table string) []string {
	w.t.Helper()
	out := must(w.api.DescribeRouteTables(w.ctx, &ec2.DescribeRouteTablesInput{RouteTableIds: []string{table}}))(w.t)
	var list []string
	for _, r := range out.RouteTables[0].Routes {
		target := ""
		for _, id := range []*string{r.GatewayId, r.NatGatewayId, r.VpcPeeringConnectionId, r.TransitGatewayId, r.NetworkInterfaceId} {
			target += aws.ToString(id)
		}
		list = append(list, fmt.Sprintf("%s %s %s", *r.DestinationCidrBlock, kindOf(target).prefix, r.State))
	}
	return list
}

func TestSDKRouteTables(t *testing.T) {
	w := newWorld(t, New(Config{}))
	main := must(w.api.DescribeRouteTables(w.ctx, &ec2.DescribeRouteTablesInput{Filters: []types.Filter{{Name: str("association.main"), Values: []string{"true"}}}}))(t).RouteTables[0]
	if len(main.Associations) != 1 || !*main.Associations[0].Main || *main.Routes[0].GatewayId != "local" {
		t.Errorf("main table %+v", main)
	}
	g := *must(w.api.CreateInternetGateway(w.ctx, &ec2.CreateInternetGatewayInput{}))(t).InternetGateway.InternetGatewayId
	table := *must(w.api.CreateRouteTable(w.ctx, &ec2.CreateRouteTableInput{VpcId: &w.vpc}))(t).RouteTable.RouteTableId
	route := &ec2.CreateRouteInput{RouteTableId: &table, DestinationCidrBlock: str("0.0.0.0/0"), GatewayId: &g}
	_, err := w.api.CreateRoute(w.ctx, route)
	want(t, "a route to a gateway that is not attached", err, "InvalidParameterValue")
	must(w.api.AttachInternetGateway(w.ctx, &ec2.AttachInternetGatewayInput{InternetGatewayId: &g, VpcId: &w.vpc}))(t)
	must(w.api.CreateRoute(w.ctx, route))(t)
	_, err = w.api.CreateRoute(w.ctx, route)
	want(t, "a route twice", err, "RouteAlreadyExists")
	must(w.api.CreateRoute(w.ctx, &ec2.CreateRouteInput{RouteTableId: &table, DestinationCidrBlock: str("172.16.0.0/12"), InstanceId: w.instance.InstanceId}))(t)
	must(w.api.CreateRoute(w.ctx, &ec2.CreateRouteInput{RouteTableId: &table, DestinationCidrBlock: str("10.0.1.0/24"), NetworkInterfaceId: w.instance.NetworkInterfaces[0].NetworkInterfaceId}))(t)
	before := []string{"10.0.0.0/16  active", "0.0.0.0/0 igw- active", "10.0.1.0/24 eni- active", "172.16.0.0/12 eni- active"}
	if diff := cmp.Diff(before, w.routes(table)); diff != "" {
		t.Errorf("routes (-want +got)\n%s", diff)
	}
	id := *must(w.api.AssociateRouteTable(w.ctx, &ec2.AssociateRouteTableInput{RouteTableId: &table, SubnetId: &w.subnet}))(t).AssociationId
	_, err = w.api.AssociateRouteTable(w.ctx, &ec2.AssociateRouteTableInput{RouteTableId: main.RouteTableId, SubnetId: &w.subnet})
	want(t, "a second table for a subnet", err, "Resource.AlreadyAssociated")
	_, err = w.api.DeleteRouteTable(w.ctx, &ec2.DeleteRouteTableInput{RouteTableId: &table})
	want(t, "delete a table in use", err, "DependencyViolation")
	id = *must(w.api.ReplaceRouteTableAssociation(w.ctx, &ec2.ReplaceRouteTableAssociationInput{AssociationId: &id, RouteTableId: main.RouteTableId}))(t).NewAssociationId
	must(w.api.DisassociateRouteTable(w.ctx, &ec2.DisassociateRouteTableInput{AssociationId: &id}))(t)
	swapped := must(w.api.ReplaceRouteTableAssociation(w.ctx, &ec2.ReplaceRouteTableAssociationInput{AssociationId: main.Associations[0].RouteTableAssociationId, RouteTableId: &table}))(t)
	_, err = w.api.DisassociateRouteTable(w.ctx, &ec2.DisassociateRouteTableInput{AssociationId: swapped.NewAssociationId})
	want(t, "disassociate the main table", err, "InvalidParameterValue")
	must(w.api.DeleteRouteTable(w.ctx, &ec2.DeleteRouteTableInput{RouteTableId: main.RouteTableId}))(t)

	// What is gone leaves a black hole.
	must(w.api.DetachInternetGateway(w.ctx, &ec2.DetachInternetGatewayInput{InternetGatewayId: &g, VpcId: &w.vpc}))(t)
	must(w.api.DeleteInternetGateway(w.ctx, &ec2.DeleteInternetGatewayInput{InternetGatewayId: &g}))(t)
	must(w.api.TerminateInstances(w.ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*w.instance.InstanceId}}))(t)
	after := []string{"10.0.0.0/16  active", "0.0.0.0/0 igw- blackhole", "10.0.1.0/24 eni- blackhole", "172.16.0.0/12 eni- blackhole"}
	if diff := cmp.Diff(after, w.routes(table)); diff != "" {
		t.Errorf("routes (-want +got)\n%s", diff)
	}
	e := *must(w.api.CreateNetworkInterface(w.ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &w.subnet}))(t).NetworkInterface.NetworkInterfaceId
	must(w.api.ReplaceRoute(w.ctx, &ec2.ReplaceRouteInput{RouteTableId: &table, DestinationCidrBlock: str("0.0.0.0/0"), NetworkInterfaceId: &e}))(t)
	must(w.api.DeleteRoute(w.ctx, &ec2.DeleteRouteInput{RouteTableId: &table, DestinationCidrBlock: str("172.16.0.0/12")}))(t)
	_, err = w.api.DeleteRoute(w.ctx, &ec2.DeleteRouteInput{RouteTableId: &table, DestinationCidrBlock: str("172.16.0.0/12")})
	want(t, "delete a route twice", err, "InvalidRoute.NotFound")
}

func TestSDKAddressesAndNAT(t *testing.T) {
	c := New(Config{})
	w := newWorld(t, c)
	g := *must(w.api.CreateInternetGateway(w.ctx, &ec2.CreateInternetGatewayInput{}))(t).InternetGateway.InternetGatewayId
	a := must(w.api.AllocateAddress(w.ctx, &ec2.AllocateAddressInput{Domain: "vpc", TagSpecifications: tagSpec("elastic-ip", "Name", "x")}))(t)
	associate := &ec2.AssociateAddressInput{AllocationId: a.AllocationId, InstanceId: w.instance.InstanceId}
	_, err := w.api.AssociateAddress(w.ctx, associate)
	want(t, "associate without an internet gateway", err, "Gateway.NotAttached")
	failed := must(w.api.CreateNatGateway(w.ctx, &ec2.CreateNatGatewayInput{SubnetId: &w.subnet, AllocationId: a.AllocationId}))(t).NatGateway
	nat := func(id string) types.NatGateway {
		return must(w.api.DescribeNatGateways(w.ctx, &ec2.DescribeNatGatewaysInput{NatGatewayIds: []string{id}}))(t).NatGateways[0]
	}
	if n := nat(*failed.NatGatewayId); n.State != "failed" || *n.FailureCode != "Gateway.NotAttached" {
		t.Errorf("a NAT gateway without an internet gateway: %+v", n)
	}
	must(w.api.AttachInternetGateway(w.ctx, &ec2.AttachInternetGatewayInput{InternetGatewayId: &g, VpcId: &w.vpc}))(t)
	id := *must(w.api.AssociateAddress(w.ctx, associate))(t).AssociationId
	e := w.eni(*w.instance.NetworkInterfaces[0].NetworkInterfaceId)
	if e.Association == nil || *e.Association.PublicIp != *a.PublicIp || *e.PrivateIpAddresses[0].Association.AllocationId != *a.AllocationId {
		t.Errorf("ENI with an elastic address: %+v", e.Association)
	}
	i := must(w.api.DescribeInstances(w.ctx, &ec2.DescribeInstancesInput{Filters: []types.Filter{{Name: str("ip-address"), Values: []string{*a.PublicIp}}}}))(t).Reservations[0].Instances[0]
	if *i.PublicIpAddress != *a.PublicIp || *i.PublicDnsName != "ec2-198-51-100-1.eu-west-1.compute.amazonaws.com" {
		t.Errorf("instance at %s, %s", aws.ToString(i.PublicIpAddress), aws.ToString(i.PublicDnsName))
	}
	_, err = w.api.DetachInternetGateway(w.ctx, &ec2.DetachInternetGatewayInput{InternetGatewayId: &g, VpcId: &w.vpc})
	want(t, "detach under a public address", err, "DependencyViolation")
	_, err = w.api.ReleaseAddress(w.ctx, &ec2.ReleaseAddressInput{AllocationId: a.AllocationId})
	want(t, "release in use", err, "InvalidIPAddress.InUse")
	_, err = w.api.CreateNatGateway(w.ctx, &ec2.CreateNatGatewayInput{SubnetId: &w.subnet, AllocationId: a.AllocationId})
	want(t, "an address for two", err, "Resource.AlreadyAssociated")
	must(w.api.DisassociateAddress(w.ctx, &ec2.DisassociateAddressInput{AssociationId: &id}))(t)

	free := w.free()
	n := *must(w.api.CreateNatGateway(w.ctx, &ec2.CreateNatGatewayInput{SubnetId: &w.subnet, AllocationId: a.AllocationId}))(t).NatGateway.NatGatewayId
	if got := nat(n); got.State != "available" || *got.NatGatewayAddresses[0].PublicIp != *a.PublicIp || w.free() != free-1 {
		t.Errorf("NAT gateway %+v", got)
	}
	main := c.Snapshot().VPCs[0].MainRouteTable
	must(w.api.CreateRoute(w.ctx, &ec2.CreateRouteInput{RouteTableId: &main, DestinationCidrBlock: str("0.0.0.0/0"), NatGatewayId: &n}))(t)
	must(w.api.DeleteNatGateway(w.ctx, &ec2.DeleteNatGatewayInput{NatGatewayId: &n}))(t)
	if got := nat(n); got.State != "deleted" || w.free() != free {
		t.Errorf("deleted NAT gateway %+v", got)
	}
	if diff := cmp.Diff([]string{"10.0.0.0/16  active", "0.0.0.0/0 nat- blackhole"}, w.routes(main)); diff != "" {
		t.Errorf("routes (-want +got)\n%s", diff)
	}
	must(w.api.ReleaseAddress(w.ctx, &ec2.ReleaseAddressInput{AllocationId: a.AllocationId}))(t)

	// A launch into a public subnet.
	must(w.api.ModifySubnetAttribute(w.ctx, &ec2.ModifySubnetAttributeInput{SubnetId: &w.subnet, MapPublicIpOnLaunch: &types.AttributeBooleanValue{Value: aws.Bool(true)}}))(t)
	public := must(w.api.RunInstances(w.ctx, &ec2.RunInstancesInput{InstanceType: "m5.large", MinCount: aws.Int32(1), MaxCount: aws.Int32(1), SubnetId: &w.subnet}))(t).Instances[0]
	if aws.ToString(public.PublicIpAddress) != "198.51.100.1" || *public.NetworkInterfaces[0].Association.IpOwnerId != "amazon" {
		t.Errorf("launched with %s", aws.ToString(public.PublicIpAddress))
	}
	plain := must(w.api.RunInstances(w.ctx, &ec2.RunInstancesInput{InstanceType: "m5.large", MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
		NetworkInterfaces: []types.InstanceNetworkInterfaceSpecification{{DeviceIndex: aws.Int32(0), SubnetId: &w.subnet, AssociatePublicIpAddress: aws.Bool(false)}}}))(t).Instances[0]
	if plain.PublicIpAddress != nil {
		t.Errorf("launched with %s although it was not to be", *plain.PublicIpAddress)
	}
	must(w.api.TerminateInstances(w.ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*public.InstanceId}}))(t)
	if out := must(w.api.AllocateAddress(w.ctx, &ec2.AllocateAddressInput{}))(t); *out.PublicIp != "198.51.100.1" {
		t.Errorf("%s: the address of the instance was not given back", *out.PublicIp)
	}
	if all := must(w.api.DescribeAddresses(w.ctx, &ec2.DescribeAddressesInput{PublicIps: []string{"198.51.100.1"}}))(t); len(all.Addresses) != 1 {
		t.Errorf("addresses %+v", all.Addresses)
	}
}

// in gives the same world's client for another region.
func (w world) in(region string) *ec2.Client {
	o := w.api.Options()
	o.Region = region
	return ec2.New(o)
}

func TestSDKPeeringAcrossRegions(t *testing.T) {
	k := newClock()
	c := New(Config{Now: k.Now, Regions: []string{"eu-west-1", "us-east-1"}})
	w := newWorld(t, c)
	far := w.in("us-east-1")
	v := *must(far.CreateVpc(w.ctx, &ec2.CreateVpcInput{CidrBlock: str("10.1.0.0/16")}))(t).Vpc.VpcId
	if all := must(far.DescribeVpcs(w.ctx, &ec2.DescribeVpcsInput{}))(t); len(all.Vpcs) != 1 {
		t.Errorf("%d VPCs in us-east-1", len(all.Vpcs))
	}
	_, err := w.api.DescribeVpcs(w.ctx, &ec2.DescribeVpcsInput{VpcIds: []string{v}})
	want(t, "a VPC in another region", err, "InvalidVpcID.NotFound")
	_, err = w.in("ap-south-1").DescribeVpcs(w.ctx, &ec2.DescribeVpcsInput{})
	want(t, "a region that is not there", err, "AuthFailure")

	p := must(w.api.CreateVpcPeeringConnection(w.ctx, &ec2.CreateVpcPeeringConnectionInput{VpcId: &w.vpc, PeerVpcId: &v, PeerRegion: str("us-east-1")}))(t).VpcPeeringConnection
	id := p.VpcPeeringConnectionId
	if p.Status.Code != "initiating-request" {
		t.Errorf("status %s", p.Status.Code)
	}
	main := c.Snapshot().VPCs[0].MainRouteTable
	must(w.api.CreateRoute(w.ctx, &ec2.CreateRouteInput{RouteTableId: &main, DestinationCidrBlock: str("10.1.0.0/16"), VpcPeeringConnectionId: id}))(t)
	if got := w.routes(main)[1]; got != "10.1.0.0/16 pcx- blackhole" {
		t.Errorf("route %s before the peering is accepted", got)
	}
	_, err = w.api.AcceptVpcPeeringConnection(w.ctx, &ec2.AcceptVpcPeeringConnectionInput{VpcPeeringConnectionId: id})
	want(t, "accept in the wrong region", err, "OperationNotPermitted")
	must(far.AcceptVpcPeeringConnection(w.ctx, &ec2.AcceptVpcPeeringConnectionInput{VpcPeeringConnectionId: id}))(t)
	if got := w.routes(main)[1]; got != "10.1.0.0/16 pcx- active" {
		t.Errorf("route %s", got)
	}
	for _, api := range []*ec2.Client{w.api, far} {
		got := must(api.DescribeVpcPeeringConnections(w.ctx, &ec2.DescribeVpcPeeringConnectionsInput{VpcPeeringConnectionIds: []string{*id}}))(t).VpcPeeringConnections[0]
		if got.Status.Code != "active" || *got.AccepterVpcInfo.Region != "us-east-1" || *got.RequesterVpcInfo.CidrBlock != "10.0.0.0/16" || *got.AccepterVpcInfo.CidrBlock != "10.1.0.0/16" {
			t.Errorf("peering %+v", got)
		}
	}
	_, err = far.CreateVpcPeeringConnection(w.ctx, &ec2.CreateVpcPeeringConnectionInput{VpcId: &v, PeerVpcId: &w.vpc, PeerRegion: str("eu-west-1")})
	want(t, "a peering twice", err, "VpcPeeringConnectionAlreadyExists")
	_, err = far.AssociateVpcCidrBlock(w.ctx, &ec2.AssociateVpcCidrBlockInput{VpcId: &v, CidrBlock: str("10.0.128.0/20")})
	want(t, "a block that the peer has", err, "InvalidVpc.Range")
	_, err = far.DeleteVpc(w.ctx, &ec2.DeleteVpcInput{VpcId: &v})
	want(t, "delete a peered VPC", err, "DependencyViolation")
	must(far.DeleteVpcPeeringConnection(w.ctx, &ec2.DeleteVpcPeeringConnectionInput{VpcPeeringConnectionId: id}))(t)
	if got := w.routes(main)[1]; got != "10.1.0.0/16 pcx- blackhole" {
		t.Errorf("route %s after the peering is deleted", got)
	}
	must(far.DeleteVpc(w.ctx, &ec2.DeleteVpcInput{VpcId: &v}))(t)
	k.advance(peeringGrave)
	_, err = w.api.DescribeVpcPeeringConnections(w.ctx, &ec2.DescribeVpcPeeringConnectionsInput{VpcPeeringConnectionIds: []string{*id}})
	want(t, "describe after two hours", err, "InvalidVpcPeeringConnectionID.NotFound")
}

func TestPeeringStates(t *testing.T) {
	k := newClock()
	c := New(Config{Now: k.Now})
	vpc := func(cidr string) string { return must(c.CreateVPC(CreateVPCInput{CIDR: prefix(cidr)}))(t).ID }
	a, b, same := vpc("10.0.0.0/16"), vpc("10.1.0.0/16"), vpc("10.0.0.0/20")
	request := func(x, y string) VPCPeering {
		return must(c.CreateVPCPeeringConnection(CreateVPCPeeringInput{VPCID: x, PeerVPCID: y}))(t)
	}
	accept := func(id string) error {
		_, err := c.AcceptVPCPeeringConnection(VPCPeeringInput{id})
		return err
	}
	status := func(id string) string {
		return must(c.DescribeVPCPeeringConnections(Query{IDs: []string{id}}))(t).Items[0].Status
	}
	p := request(a, same)
	if p.Status != PeeringFailed || errCode(accept(p.ID)) != "InvalidStateTransition" {
		t.Errorf("overlapping: %+v", p)
	}
	p = request(a, b)
	if err := c.RejectVPCPeeringConnection(VPCPeeringInput{p.ID}); err != nil || status(p.ID) != PeeringRejected {
		t.Errorf("rejected: %v %s", err, status(p.ID))
	}
	p = request(a, b)
	k.advance(peeringPatience)
	if status(p.ID) != PeeringExpired || errCode(accept(p.ID)) != "InvalidStateTransition" {
		t.Errorf("expired: %s", status(p.ID))
	}

	// A group can be named across a peering while it is active, but not before.
	group := func(vpcID string) SecurityGroup {
		page := must(c.DescribeSecurityGroups(Query{Filters: []Filter{{"vpc-id", []string{vpcID}}}}))(t)
		return page.Items[0]
	}
	name := func() error {
		_, err := c.AuthorizeSecurityGroupIngress(GroupRulesInput{GroupID: group(a).ID, Rules: []GroupRule{{Protocol: AllProtocols, Group: group(b).ID}}})
		return err
	}
	p = request(a, b)
	if errCode(name()) != "InvalidGroup.NotFound" {
		t.Error("a group of a VPC that is not peered was accepted")
	}
	if err := accept(p.ID); err != nil {
		t.Fatal(err)
	}
	if err := name(); err != nil {
		t.Error(err)
	}
	if errCode(c.DeleteVPC(DeleteVPCInput{b})) != "DependencyViolation" {
		t.Error("a VPC whose group is named was deleted")
	}
}

func TestSDKTransitGateway(t *testing.T) {
	c := New(Config{})
	w := newWorld(t, c)
	v := must(c.CreateVPC(CreateVPCInput{CIDR: prefix("10.1.0.0/16")}))(t)
	n := must(c.CreateSubnet(CreateSubnetInput{VPCID: v.ID, CIDR: prefix("10.1.1.0/24")}))(t)
	h := must(w.api.CreateTransitGateway(w.ctx, &ec2.CreateTransitGatewayInput{Description: str("hub"), TagSpecifications: tagSpec("transit-gateway", "Name", "hub"),
		Options: &types.TransitGatewayRequestOptions{AmazonSideAsn: aws.Int64(64600), DnsSupport: "enable"}}))(t).TransitGateway
	hub := h.TransitGatewayId
	if h.State != "pending" || *h.Options.AmazonSideAsn != 64600 || *h.Options.AssociationDefaultRouteTableId != *h.Options.PropagationDefaultRouteTableId {
		t.Errorf("transit gateway %+v", h)
	}
	main := c.Snapshot().VPCs[0].MainRouteTable
	_, err := w.api.CreateRoute(w.ctx, &ec2.CreateRouteInput{RouteTableId: &main, DestinationCidrBlock: str("10.0.0.0/8"), TransitGatewayId: hub})
	want(t, "a route of a VPC that is not attached", err, "InvalidTransitGatewayID.NotFound")
	attach := func(vpcID, subnet string) (string, error) {
		out, err := w.api.CreateTransitGatewayVpcAttachment(w.ctx, &ec2.CreateTransitGatewayVpcAttachmentInput{TransitGatewayId: hub, VpcId: &vpcID, SubnetIds: []string{subnet}})
		if err != nil {
			return "", err
		}
		return *out.TransitGatewayVpcAttachment.TransitGatewayAttachmentId, nil
	}
	one, two := must(attach(w.vpc, w.subnet))(t), must(attach(v.ID, n.ID))(t)
	_, err = attach(v.ID, n.ID)
	want(t, "attach twice", err, "DuplicateTransitGatewayAttachment")
	must(w.api.CreateRoute(w.ctx, &ec2.CreateRouteInput{RouteTableId: &main, DestinationCidrBlock: str("10.0.0.0/8"), TransitGatewayId: hub}))(t)
	if got := w.routes(main)[1]; got != "10.0.0.0/8 tgw- active" {
		t.Errorf("route %s", got)
	}
	routes := func(table *string, name, value string) []string {
		out := must(w.api.SearchTransitGatewayRoutes(w.ctx, &ec2.SearchTransitGatewayRoutesInput{TransitGatewayRouteTableId: table, Filters: []types.Filter{{Name: &name, Values: []string{value}}}}))(t)
		var list []string
		for _, r := range out.Routes {
			list = append(list, fmt.Sprintf("%s %s %s", *r.DestinationCidrBlock, r.Type, r.State))
		}
		return list
	}
	def := h.Options.AssociationDefaultRouteTableId
	must(w.api.CreateTransitGatewayRoute(w.ctx, &ec2.CreateTransitGatewayRouteInput{TransitGatewayRouteTableId: def, DestinationCidrBlock: str("10.1.0.0/16"), Blackhole: aws.Bool(true)}))(t)
	if diff := cmp.Diff([]string{"10.0.0.0/16 propagated active", "10.1.0.0/16 static blackhole"}, routes(def, "route-search.subnet-of-match", "10.0.0.0/8")); diff != "" {
		t.Errorf("routes (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"10.1.0.0/16 static blackhole"}, routes(def, "route-search.longest-prefix-match", "10.1.2.3")); diff != "" {
		t.Errorf("routes (-want +got)\n%s", diff)
	}
	must(w.api.ReplaceTransitGatewayRoute(w.ctx, &ec2.ReplaceTransitGatewayRouteInput{TransitGatewayRouteTableId: def, DestinationCidrBlock: str("10.1.0.0/16"), TransitGatewayAttachmentId: &two}))(t)
	must(w.api.DeleteTransitGatewayRoute(w.ctx, &ec2.DeleteTransitGatewayRouteInput{TransitGatewayRouteTableId: def, DestinationCidrBlock: str("10.1.0.0/16")}))(t)
	if diff := cmp.Diff([]string{"10.0.0.0/16 propagated active", "10.1.0.0/16 propagated active"}, routes(def, "state", "active")); diff != "" {
		t.Errorf("routes (-want +got)\n%s", diff)
	}

	own := must(w.api.CreateTransitGatewayRouteTable(w.ctx, &ec2.CreateTransitGatewayRouteTableInput{TransitGatewayId: hub, TagSpecifications: tagSpec("transit-gateway-route-table", "a", "b")}))(t).TransitGatewayRouteTable.TransitGatewayRouteTableId
	_, err = w.api.AssociateTransitGatewayRouteTable(w.ctx, &ec2.AssociateTransitGatewayRouteTableInput{TransitGatewayRouteTableId: own, TransitGatewayAttachmentId: &one})
	want(t, "associate twice", err, "Resource.AlreadyAssociated")
	must(w.api.DisassociateTransitGatewayRouteTable(w.ctx, &ec2.DisassociateTransitGatewayRouteTableInput{TransitGatewayRouteTableId: def, TransitGatewayAttachmentId: &one}))(t)
	must(w.api.AssociateTransitGatewayRouteTable(w.ctx, &ec2.AssociateTransitGatewayRouteTableInput{TransitGatewayRouteTableId: own, TransitGatewayAttachmentId: &one}))(t)
	must(w.api.EnableTransitGatewayRouteTablePropagation(w.ctx, &ec2.EnableTransitGatewayRouteTablePropagationInput{TransitGatewayRouteTableId: own, TransitGatewayAttachmentId: &two}))(t)
	must(w.api.DisableTransitGatewayRouteTablePropagation(w.ctx, &ec2.DisableTransitGatewayRouteTablePropagationInput{TransitGatewayRouteTableId: def, TransitGatewayAttachmentId: &two}))(t)
	ties := must(w.api.GetTransitGatewayRouteTableAssociations(w.ctx, &ec2.GetTransitGatewayRouteTableAssociationsInput{TransitGatewayRouteTableId: own}))(t).Associations
	props := must(w.api.GetTransitGatewayRouteTablePropagations(w.ctx, &ec2.GetTransitGatewayRouteTablePropagationsInput{TransitGatewayRouteTableId: own}))(t).TransitGatewayRouteTablePropagations
	if len(ties) != 1 || *ties[0].TransitGatewayAttachmentId != one || len(props) != 1 || *props[0].ResourceId != v.ID {
		t.Errorf("associated %+v, propagating %+v", ties, props)
	}
	any := must(w.api.DescribeTransitGatewayAttachments(w.ctx, &ec2.DescribeTransitGatewayAttachmentsInput{TransitGatewayAttachmentIds: []string{one}}))(t).TransitGatewayAttachments
	if len(any) != 1 || *any[0].Association.TransitGatewayRouteTableId != *own {
		t.Errorf("attachment %+v", any)
	}
	tables := must(w.api.DescribeTransitGatewayRouteTables(w.ctx, &ec2.DescribeTransitGatewayRouteTablesInput{Filters: []types.Filter{{Name: str("tag:a"), Values: []string{"b"}}}}))(t).TransitGatewayRouteTables
	if len(tables) != 1 || *tables[0].DefaultAssociationRouteTable {
		t.Errorf("tables %+v", tables)
	}
	_, err = w.api.DeleteTransitGatewayRouteTable(w.ctx, &ec2.DeleteTransitGatewayRouteTableInput{TransitGatewayRouteTableId: own})
	want(t, "delete a table in use", err, "IncorrectState")
	_, err = w.api.DeleteTransitGateway(w.ctx, &ec2.DeleteTransitGatewayInput{TransitGatewayId: hub})
	want(t, "delete a gateway in use", err, "IncorrectState")
	_, err = w.api.DeleteSubnet(w.ctx, &ec2.DeleteSubnetInput{SubnetId: &n.ID})
	want(t, "delete a subnet of an attachment", err, "DependencyViolation")
	for _, id := range []string{one, two} {
		must(w.api.DeleteTransitGatewayVpcAttachment(w.ctx, &ec2.DeleteTransitGatewayVpcAttachmentInput{TransitGatewayAttachmentId: &id}))(t)
	}
	if got := w.routes(main)[1]; got != "10.0.0.0/8 tgw- blackhole" {
		t.Errorf("route %s after the attachment is gone", got)
	}
	must(w.api.DeleteTransitGateway(w.ctx, &ec2.DeleteTransitGatewayInput{TransitGatewayId: hub}))(t)
	if snap := c.Snapshot(); len(snap.TransitGateways)+len(snap.TransitTables)+len(snap.TransitAttachments) != 0 {
		t.Errorf("left over: %+v", snap.TransitTables)
	}
}

// Everything of a VPC goes, and then the VPC.
func TestSDKDeleteVPC(t *testing.T) {
	c := New(Config{})
	empty := c.Snapshot()
	w := newWorld(t, c)
	v := must(w.api.AssociateVpcCidrBlock(w.ctx, &ec2.AssociateVpcCidrBlockInput{VpcId: &w.vpc, CidrBlock: str("100.64.0.0/16")}))(t)
	n := must(w.api.CreateSubnet(w.ctx, &ec2.CreateSubnetInput{VpcId: &w.vpc, CidrBlock: str("100.64.1.0/24")}))(t).Subnet.SubnetId
	_, err := w.api.DisassociateVpcCidrBlock(w.ctx, &ec2.DisassociateVpcCidrBlockInput{AssociationId: v.CidrBlockAssociation.AssociationId})
	want(t, "take a block that has a subnet", err, "InvalidCidr.InUse")
	_, err = w.api.DeleteVpc(w.ctx, &ec2.DeleteVpcInput{VpcId: &w.vpc})
	want(t, "delete a VPC with subnets", err, "DependencyViolation")
	must(w.api.DeleteSubnet(w.ctx, &ec2.DeleteSubnetInput{SubnetId: n}))(t)
	must(w.api.DisassociateVpcCidrBlock(w.ctx, &ec2.DisassociateVpcCidrBlockInput{AssociationId: v.CidrBlockAssociation.AssociationId}))(t)
	_, err = w.api.DeleteSubnet(w.ctx, &ec2.DeleteSubnetInput{SubnetId: &w.subnet})
	want(t, "delete a subnet with an ENI", err, "DependencyViolation")
	must(w.api.TerminateInstances(w.ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*w.instance.InstanceId}}))(t)
	must(w.api.DeleteSubnet(w.ctx, &ec2.DeleteSubnetInput{SubnetId: &w.subnet}))(t)
	must(w.api.DeleteVpc(w.ctx, &ec2.DeleteVpcInput{VpcId: &w.vpc}))(t)
	after := c.Snapshot()
	after.Instances = nil
	if diff := sameSnapshot(empty, after); diff != "" {
		t.Errorf("left over:\n%s", diff)
	}
}

func TestRegionsInProcess(t *testing.T) {
	c := New(Config{Regions: []string{"eu-west-1", "us-east-1"}, Devices: true})
	far := c.In("us-east-1")
	_, n := place(t, far)
	i := must(far.RunInstances(RunInstancesInput{Type: "m5.large", SubnetID: n.ID}))(t).Instances[0]
	if i.PrivateDNSName != "ip-10-0-1-4.ec2.internal" || i.Zone != "us-east-1a" {
		t.Errorf("instance %+v", i)
	}
	a := c.Snapshot().Interfaces[0].Attachment
	if err := c.DeviceAttached(a.ID); err != nil { // whoever makes devices knows no regions
		t.Error(err)
	}
	if err := c.InstanceRunning(i.ID); err != nil {
		t.Error(err)
	}
	if got := c.Snapshot().Instances[0].State; got != StateRunning {
		t.Errorf("state %s", got)
	}
	if _, err := c.In("nowhere-1").CreateVPC(CreateVPCInput{CIDR: prefix("10.0.0.0/16")}); errCode(err) != "AuthFailure" {
		t.Errorf("a region that is not there: %v", err)
	}
	place(t, c)
	place(t, far)
	var got []string
	for _, v := range c.Snapshot().VPCs {
		got = append(got, v.Region)
	}
	if !slices.Equal(got, []string{"us-east-1", "eu-west-1", "us-east-1"}) {
		t.Errorf("VPCs in the order of creation: %v", got)
	}
	secondary := must(c.AllocateAddress(AllocateAddressInput{}))(t)
	other := must(far.AllocateAddress(AllocateAddressInput{}))(t)
	if secondary.PublicIP == other.PublicIP || secondary.PublicIP != netip.MustParseAddr("198.51.100.1") {
		t.Errorf("public addresses %s and %s", secondary.PublicIP, other.PublicIP)
	}
}
