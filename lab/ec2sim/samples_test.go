package ec2sim

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// samples are a request of each action that succeeds in refusalWorld.
var samples = map[string]string{
	"DescribeRegions":                 "",
	"CreateVpc":                       "CidrBlock=10.5.0.0/16",
	"DescribeVpcs":                    "",
	"AssociateVpcCidrBlock":           "VpcId=VPC&CidrBlock=100.64.0.0/16",
	"CreateSubnet":                    "VpcId=VPC&CidrBlock=10.0.200.0/24",
	"DescribeSubnets":                 "",
	"CreateSecurityGroup":             "VpcId=VPC&GroupName=x&GroupDescription=y",
	"DescribeSecurityGroups":          "",
	"CreateNetworkInterface":          "SubnetId=SUBNET&Ipv4PrefixCount=1",
	"DescribeNetworkInterfaces":       "",
	"DeleteNetworkInterface":          "NetworkInterfaceId=FREE",
	"AttachNetworkInterface":          "NetworkInterfaceId=FREE&InstanceId=INSTANCE&DeviceIndex=1",
	"DetachNetworkInterface":          "AttachmentId=SECOND",
	"ModifyNetworkInterfaceAttribute": "NetworkInterfaceId=ENI&SourceDestCheck.Value=false",
	"AssignPrivateIpAddresses":        "NetworkInterfaceId=ENI&SecondaryPrivateIpAddressCount=1&Ipv4PrefixCount=1",
	"UnassignPrivateIpAddresses":      "NetworkInterfaceId=BIG&PrivateIpAddress.1=BIGSECOND",
	"RunInstances": "MinCount=1&MaxCount=1&InstanceType=m5.large&NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.SubnetId=SUBNET&NetworkInterface.1.Ipv4PrefixCount=1" +
		"&NetworkInterface.2.DeviceIndex=1&NetworkInterface.2.SubnetId=SUBNET&NetworkInterface.2.SecondaryPrivateIpAddressCount=2",
	"TerminateInstances":        "InstanceId.1=INSTANCE",
	"DescribeInstances":         "",
	"DescribeInstanceTypes":     "InstanceType.1=m5.large",
	"DescribeAvailabilityZones": "",
	"CreateTags":                "ResourceId.1=ENI&Tag.1.Key=a&Tag.1.Value=b",
	"DeleteTags":                "ResourceId.1=SCR&Tag.1.Key=kept",
	"DescribeTags":              "",
	"DeleteVpc":                 "VpcId=EMPTY",
	"DisassociateVpcCidrBlock":  "AssociationId=OTHERBLOCK",
	"DeleteSubnet":              "SubnetId=BARE",
	"ModifySubnetAttribute":     "SubnetId=SUBNET&MapPublicIpOnLaunch.Value=true",

	"DeleteSecurityGroup":           "GroupId=G1",
	"DescribeSecurityGroupRules":    "",
	"AuthorizeSecurityGroupIngress": "GroupId=G1&IpProtocol=-1&CidrIp=0.0.0.0/0",
	"AuthorizeSecurityGroupEgress":  "GroupId=G1&IpProtocol=tcp&FromPort=1&ToPort=2&CidrIp=10.0.0.0/8",
	"RevokeSecurityGroupIngress":    "GroupId=DEFAULT&IpPermissions.1.IpProtocol=-1&IpPermissions.1.PrefixListIds.1.PrefixListId=LIST",
	"RevokeSecurityGroupEgress":     "GroupId=G1&IpProtocol=-1&CidrIp=0.0.0.0/0",
	"GetSecurityGroupsForVpc":       "VpcId=VPC",

	"CreateManagedPrefixList":     "PrefixListName=l&MaxEntries=5&AddressFamily=IPv4",
	"ModifyManagedPrefixList":     "PrefixListId=LIST&CurrentVersion=1&AddEntry.1.Cidr=11.0.0.0/8",
	"DeleteManagedPrefixList":     "PrefixListId=UNUSED",
	"DescribeManagedPrefixLists":  "",
	"GetManagedPrefixListEntries": "PrefixListId=LIST",

	"CreateNetworkAcl":             "VpcId=VPC",
	"DeleteNetworkAcl":             "NetworkAclId=STRICT",
	"DescribeNetworkAcls":          "",
	"CreateNetworkAclEntry":        "NetworkAclId=ACL&RuleNumber=7&Egress=true&Protocol=-1&RuleAction=deny&CidrBlock=1.2.3.0/24",
	"ReplaceNetworkAclEntry":       "NetworkAclId=ACL&RuleNumber=100&Egress=false&Protocol=-1&RuleAction=deny&CidrBlock=0.0.0.0/0",
	"DeleteNetworkAclEntry":        "NetworkAclId=ACL&RuleNumber=100&Egress=true",
	"ReplaceNetworkAclAssociation": "AssociationId=ACLTIE&NetworkAclId=STRICT",

	"CreateRouteTable":             "VpcId=VPC",
	"DeleteRouteTable":             "RouteTableId=THIRD",
	"DescribeRouteTables":          "",
	"CreateRoute":                  "RouteTableId=TABLE&DestinationCidrBlock=10.7.0.0/16&VpcPeeringConnectionId=PCX",
	"ReplaceRoute":                 "RouteTableId=TABLE&DestinationCidrBlock=0.0.0.0/0&VpcPeeringConnectionId=PCX",
	"DeleteRoute":                  "RouteTableId=TABLE&DestinationCidrBlock=0.0.0.0/0",
	"AssociateRouteTable":          "RouteTableId=THIRD&SubnetId=SUBNET",
	"DisassociateRouteTable":       "AssociationId=TABLETIE",
	"ReplaceRouteTableAssociation": "AssociationId=TABLETIE&RouteTableId=THIRD",

	"CreateInternetGateway":    "",
	"AttachInternetGateway":    "InternetGatewayId=LOOSE&VpcId=EMPTY",
	"DetachInternetGateway":    "InternetGatewayId=DOOR&VpcId=WOOED",
	"DeleteInternetGateway":    "InternetGatewayId=LOOSE",
	"DescribeInternetGateways": "",
	"CreateNatGateway":         "SubnetId=SUBNET&ConnectivityType=private",
	"DeleteNatGateway":         "NatGatewayId=NAT",
	"DescribeNatGateways":      "",

	"AllocateAddress":     "",
	"ReleaseAddress":      "AllocationId=VACANT",
	"AssociateAddress":    "AllocationId=VACANT&NetworkInterfaceId=ENI",
	"DisassociateAddress": "AssociationId=EIPTIE",
	"DescribeAddresses":   "",

	"CreateVpcPeeringConnection":    "VpcId=VPC&PeerVpcId=LONELY",
	"AcceptVpcPeeringConnection":    "VpcPeeringConnectionId=ASKED",
	"RejectVpcPeeringConnection":    "VpcPeeringConnectionId=ASKED",
	"DeleteVpcPeeringConnection":    "VpcPeeringConnectionId=PCX",
	"DescribeVpcPeeringConnections": "",

	"CreateTransitGateway":                       "",
	"DeleteTransitGateway":                       "TransitGatewayId=IDLE",
	"DescribeTransitGateways":                    "",
	"CreateTransitGatewayVpcAttachment":          "TransitGatewayId=IDLE&VpcId=VPC&SubnetIds.1=SUBNET",
	"DeleteTransitGatewayVpcAttachment":          "TransitGatewayAttachmentId=SPOKE",
	"DescribeTransitGatewayVpcAttachments":       "",
	"DescribeTransitGatewayAttachments":          "",
	"CreateTransitGatewayRouteTable":             "TransitGatewayId=HUB",
	"DeleteTransitGatewayRouteTable":             "TransitGatewayRouteTableId=HTWO",
	"DescribeTransitGatewayRouteTables":          "",
	"CreateTransitGatewayRoute":                  "TransitGatewayRouteTableId=HTABLE&DestinationCidrBlock=1.0.0.0/8&TransitGatewayAttachmentId=SPOKE",
	"ReplaceTransitGatewayRoute":                 "TransitGatewayRouteTableId=HTWO&DestinationCidrBlock=9.0.0.0/8&TransitGatewayAttachmentId=SPOKE",
	"DeleteTransitGatewayRoute":                  "TransitGatewayRouteTableId=HTWO&DestinationCidrBlock=9.0.0.0/8",
	"SearchTransitGatewayRoutes":                 "TransitGatewayRouteTableId=HTABLE&Filter.1.Name=state&Filter.1.Value.1=active",
	"AssociateTransitGatewayRouteTable":          "TransitGatewayRouteTableId=HTWO&TransitGatewayAttachmentId=UNTIED",
	"DisassociateTransitGatewayRouteTable":       "TransitGatewayRouteTableId=HTABLE&TransitGatewayAttachmentId=SPOKE",
	"EnableTransitGatewayRouteTablePropagation":  "TransitGatewayRouteTableId=HTWO&TransitGatewayAttachmentId=SPOKE",
	"DisableTransitGatewayRouteTablePropagation": "TransitGatewayRouteTableId=HTABLE&TransitGatewayAttachmentId=SPOKE",
	"GetTransitGatewayRouteTableAssociations":    "TransitGatewayRouteTableId=HTABLE",
	"GetTransitGatewayRouteTablePropagations":    "TransitGatewayRouteTableId=HTABLE",

	"DescribeVpcAttribute":              "VpcId=VPC&Attribute=enableDnsSupport",
	"ModifyVpcAttribute":                "VpcId=VPC&EnableDnsHostnames.Value=true",
	"DescribeNetworkInterfaceAttribute": "NetworkInterfaceId=ENI&Attribute=groupSet",
	"ResetNetworkInterfaceAttribute":    "NetworkInterfaceId=ENI&SourceDestCheck=true",
	"ModifyInstanceMetadataOptions":     "InstanceId=INSTANCE&HttpPutResponseHopLimit=1&HttpEndpoint=disabled",
	"ModifyInstanceAttribute":           "InstanceId=INSTANCE&SourceDestCheck.Value=false",
	"DescribeAccountAttributes":         "",

	"StopInstances":          "InstanceId.1=INSTANCE&Force=true",
	"StartInstances":         "InstanceId.1=STOPPED",
	"RebootInstances":        "InstanceId.1=INSTANCE",
	"DescribeInstanceStatus": "IncludeAllInstances=true",

	"CreateSubnetCidrReservation": "SubnetId=SUBNET&Cidr=10.0.1.128/26&ReservationType=prefix",
	"DeleteSubnetCidrReservation": "SubnetCidrReservationId=SCR",
	"GetSubnetCidrReservations":   "SubnetId=SIDE",

	"AssociateTrunkInterface":            "TrunkInterfaceId=TRUNK&BranchInterfaceId=BRANCH&VlanId=8&ClientToken=t",
	"DisassociateTrunkInterface":         "AssociationId=TRUNKTIE",
	"DescribeTrunkInterfaceAssociations": "",

	"CreateFlowLogs":   "ResourceType=Subnet&ResourceId.1=SUBNET&TrafficType=ALL&LogGroupName=g&DeliverLogsPermissionArn=arn:aws:iam::123456789012:role/r",
	"DeleteFlowLogs":   "FlowLogId.1=FLOWLOG",
	"DescribeFlowLogs": "",
}

// What reads changes nothing, and what writes changes something.
func readsOnly(action string) bool {
	return slices.ContainsFunc([]string{"Describe", "Get", "Search"}, func(verb string) bool { return strings.HasPrefix(action, verb) })
}

// Every action succeeds, refuses a parameter that it does not know, and has no
// effect in a dry run: there is no silent success.
func TestEveryAction(t *testing.T) {
	for action := range samples {
		if _, ok := actions[action]; !ok {
			t.Errorf("there is no action %s", action)
		}
	}
	unchanged := map[string]bool{"ResetNetworkInterfaceAttribute": true} // it was so before
	for _, action := range slices.Sorted(maps.Keys(actions)) {
		t.Run(action, func(t *testing.T) {
			parameters, ok := samples[action]
			if !ok {
				t.Fatal("no sample of this action")
			}
			dry := "DryRunOperation"
			if !actions[action].dryRun {
				dry = "UnknownParameter"
			}
			c, names := refusalWorld(t)
			for _, tt := range []struct{ more, code string }{
				{"&Nonsense=1", "UnknownParameter"}, {"&Nonsense.1.Deep=1", "UnknownParameter"}, {"&DryRun=true", dry}, {"", ""},
			} {
				before := c.Snapshot()
				a := post(t, c, query(action, names.Replace(parameters)+tt.more))
				if a.code != tt.code {
					t.Errorf("with %q: %s %s, want %q", tt.more, a.code, a.message, tt.code)
				}
				diff := sameSnapshot(before, c.Snapshot())
				if a.code != "" && diff != "" {
					t.Errorf("with %q the state changed:\n%s", tt.more, diff)
				}
				if a.code == "" && (diff == "") != (readsOnly(action) || unchanged[action]) {
					t.Errorf("with %q: changed: %t", tt.more, diff != "")
				}
				checkInvariants(t, c)
			}
		})
	}
}

// Parameters alone that are not known are refused as such, whatever is missing.
func TestUnknownBeforeMissing(t *testing.T) {
	c, _ := refusalWorld(t)
	for _, action := range slices.Sorted(maps.Keys(actions)) {
		if a := post(t, c, query(action, "Nonsense=1")); a.code != "UnknownParameter" || !strings.Contains(a.message, "Nonsense") {
			t.Errorf("%s: %s %s", action, a.code, a.message)
		}
	}
}

// refusalMore adds to refusalWorld what the newer actions and the samples need,
// clear of the addresses of its first subnet.
func refusalMore(t testing.TB, c *Cloud, v VPC, other VPC, full Instance) []string {
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	side := must(c.CreateSubnet(CreateSubnetInput{VPCID: v.ID, CIDR: prefix("10.0.4.0/24")}))(t)
	bare := must(c.CreateSubnet(CreateSubnetInput{VPCID: v.ID, CIDR: prefix("10.0.5.0/24")}))(t)
	pairs := []string{"SIDE", side.ID, "BARE", bare.ID, "ACLTIE", side.ACLAssociation}
	for i, name := range []string{"TRUNK", "BRANCH", "TIED"} {
		kind := []string{TypeTrunk, TypeBranch, TypeBranch}[i]
		e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: side.ID, Type: kind}))(t)
		pairs = append(pairs, name, e.ID)
	}
	names := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		names[pairs[i]] = pairs[i+1]
	}
	tie := must(c.AssociateTrunkInterface(AssociateTrunkInput{TrunkID: names["TRUNK"], BranchID: names["TIED"], VLAN: 7}))(t)
	scr := must(c.CreateSubnetCIDRReservation(CreateReservationInput{SubnetID: side.ID, CIDR: prefix("10.0.4.64/26"), Type: ReservePrefixes, Tags: map[string]string{"kept": "1"}}))(t)
	stopped := must(c.RunInstances(RunInstancesInput{Type: "m5.large", SubnetID: side.ID}))(t).Instances[0]
	must(c.StopInstances(PowerInput{[]string{stopped.ID}}))(t)

	empty := must(c.CreateVPC(CreateVPCInput{CIDR: prefix("10.9.0.0/16")}))(t)
	lonely := must(c.CreateVPC(CreateVPCInput{CIDR: prefix("10.8.0.0/16")}))(t)
	must(c.AssociateVPCCIDRBlock(AssociateVPCCIDRBlockInput{other.ID, prefix("10.42.0.0/16")}))(t)
	peer := must(c.CreateVPC(CreateVPCInput{CIDR: prefix("10.6.0.0/16")}))(t)
	asked := must(c.CreateVPCPeeringConnection(CreateVPCPeeringInput{VPCID: v.ID, PeerVPCID: peer.ID}))(t)
	list := must(c.CreateManagedPrefixList(CreateManagedPrefixListInput{Name: "unused", MaxEntries: 1}))(t)
	strict := must(c.CreateNetworkACL(CreateNetworkACLInput{VPCID: v.ID}))(t)
	third := must(c.CreateRouteTable(CreateRouteTableInput{VPCID: v.ID}))(t)
	sideTable := must(c.CreateRouteTable(CreateRouteTableInput{VPCID: v.ID}))(t)
	tableTie := must(c.AssociateRouteTable(AssociateRouteTableInput{sideTable.ID, side.ID}))(t)
	loose, door := must(c.CreateInternetGateway(CreateInternetGatewayInput{}))(t), must(c.CreateInternetGateway(CreateInternetGatewayInput{}))(t)
	ok(c.AttachInternetGateway(InternetGatewayInput{door.ID, peer.ID}))
	vacant, used := must(c.AllocateAddress(AllocateAddressInput{}))(t), must(c.AllocateAddress(AllocateAddressInput{}))(t)
	eipTie := must(c.AssociateAddress(AssociateAddressInput{AllocationID: used.ID, InterfaceID: names["TRUNK"]}))(t)
	idle := must(c.CreateTransitGateway(CreateTransitGatewayInput{}))(t)
	logs := must(c.CreateFlowLogs(CreateFlowLogsInput{Type: FlowLogSubnet, Resources: []string{side.ID}, Traffic: TrafficAll, LogGroup: "g", RoleARN: "arn:aws:iam::123456789012:role/r"}))(t)

	snap := c.Snapshot()
	hub := snap.TransitGateways[0]
	peerNet := must(c.CreateSubnet(CreateSubnetInput{VPCID: peer.ID, CIDR: prefix("10.6.0.0/24")}))(t)
	untied := must(c.CreateTransitGatewayVPCAttachment(CreateTransitAttachmentInput{GatewayID: hub.ID, VPCID: peer.ID, Subnets: []string{peerNet.ID}}))(t)
	ok(c.DisassociateTransitGatewayRouteTable(TransitTieInput{hub.AssociationTable, untied.ID}))
	htwo := must(c.CreateTransitGatewayRouteTable(CreateTransitTableInput{GatewayID: hub.ID}))(t)
	ok(c.CreateTransitGatewayRoute(TransitRouteInput{TableID: htwo.ID, Dst: prefix("9.0.0.0/8"), Blackhole: true}))

	var second string
	for _, e := range snap.Interfaces {
		if e.ID == full.Interfaces[1] {
			second = e.Attachment.ID
		}
	}
	return append([]string{
		"TRUNKTIE", tie.ID, "SCR", scr.ID, "STOPPED", stopped.ID, "EMPTY", empty.ID, "LONELY", lonely.ID, "OTHERBLOCK", BlockAssociationID(other.ID, prefix("10.42.0.0/16")),
		"ASKED", asked.ID, "UNUSED", list.ID, "STRICT", strict.ID, "THIRD", third.ID, "TABLETIE", tableTie, "LOOSE", loose.ID, "DOOR", door.ID, "WOOED", peer.ID,
		"VACANT", vacant.ID, "EIPTIE", eipTie, "IDLE", idle.ID, "FLOWLOG", logs[0].ID, "UNTIED", untied.ID, "HTWO", htwo.ID,
		"NAT", snap.NATGateways[0].ID, "SECOND", second,
	}, pairs...)
}
