package ec2sim

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// FuzzQuery sends any form to a cloud that holds something of everything. No
// request may panic, get a reply without its envelope, or change the state
// unless it succeeds.
func FuzzQuery(f *testing.F) {
	_, names := refusalWorld(f)
	for _, seed := range []string{
		query("DescribeNetworkInterfaces", "Filter.1.Name=tag:a", "Filter.1.Value.1=*", "MaxResults=5"),
		query("DescribeNetworkInterfaces", "NetworkInterfaceId.1=ENI"),
		query("CreateNetworkInterface", "SubnetId=SUBNET", "Ipv4PrefixCount=1", "ClientToken=a", "SecurityGroupId.1=G1", "TagSpecification.1.ResourceType=network-interface", "TagSpecification.1.Tag.1.Key=a"),
		query("CreateNetworkInterface", "SubnetId=SUBNET", "PrivateIpAddresses.1.PrivateIpAddress=10.0.1.77", "PrivateIpAddresses.1.Primary=true"),
		query("AttachNetworkInterface", "NetworkInterfaceId=FREE", "InstanceId=INSTANCE", "DeviceIndex=1", "NetworkCardIndex=0"),
		query("DetachNetworkInterface", "AttachmentId=ATTACHMENT", "Force=true"),
		query("ModifyNetworkInterfaceAttribute", "NetworkInterfaceId=ENI", "Attachment.AttachmentId=ATTACHMENT", "Attachment.DeleteOnTermination=false"),
		query("AssignPrivateIpAddresses", "NetworkInterfaceId=ENI", "PrivateIpAddress.1=10.0.1.88", "Ipv4PrefixCount=2", "AllowReassignment=true"),
		query("AssignPrivateIpAddresses", "NetworkInterfaceId=ENI", "Ipv4Prefix.1=10.0.1.64/28"),
		query("UnassignPrivateIpAddresses", "NetworkInterfaceId=BIG", "PrivateIpAddress.1=BIGSECOND"),
		query("RunInstances", "MinCount=1", "MaxCount=3", "InstanceType=t3.small", "NetworkInterface.1.DeviceIndex=0", "NetworkInterface.1.SubnetId=SUBNET", "NetworkInterface.1.Ipv4PrefixCount=1"),
		query("RunInstances", "MinCount=1", "MaxCount=1", "NetworkInterface.1.DeviceIndex=0", "NetworkInterface.1.NetworkInterfaceId=FREE", "UserData=aGVsbG8="),
		query("TerminateInstances", "InstanceId.1=INSTANCE", "InstanceId.2=DEAD"),
		query("DescribeInstances", "Filter.1.Name=instance-state-name", "Filter.1.Value.1=r?nning"),
		query("DescribeInstanceTypes", "InstanceType.1=m5.large"),
		query("CreateVpc", "CidrBlock=10.5.0.0/16"), query("CreateSubnet", "VpcId=VPC", "CidrBlock=10.0.200.0/24", "AvailabilityZoneId=euw1-az2"),
		query("CreateSecurityGroup", "VpcId=VPC", "GroupName=x", "GroupDescription=y"), query("DescribeSecurityGroups"), query("DescribeSubnets"),
		query("CreateTags", "ResourceId.1=ENI", "Tag.1.Key=a", "Tag.1.Value=b"), query("DeleteTags", "ResourceId.1=ENI", "Tag.1.Key=a"),
		query("DescribeTags", "DryRun=true"), query("DescribeAvailabilityZones", "ZoneId.1=euw1-az1"), query("DeleteNetworkInterface", "NetworkInterfaceId=FREE"),
		query("DeleteVpc", "VpcId=PEER"), query("AuthorizeSecurityGroupIngress", "GroupId=G1", "IpPermissions.1.IpProtocol=tcp", "IpPermissions.1.FromPort=1", "IpPermissions.1.ToPort=2", "IpPermissions.1.Groups.1.GroupId=G2", "IpPermissions.1.PrefixListIds.1.PrefixListId=LIST"),
		query("RevokeSecurityGroupEgress", "GroupId=G1", "IpProtocol=-1", "CidrIp=0.0.0.0/0"), query("DeleteSecurityGroup", "GroupId=G1"), query("DescribeSecurityGroupRules"),
		query("ModifyManagedPrefixList", "PrefixListId=LIST", "CurrentVersion=1", "AddEntry.1.Cidr=11.0.0.0/8", "RemoveEntry.1.Cidr=10.0.0.0/8"), query("GetManagedPrefixListEntries", "PrefixListId=LIST"),
		query("CreateNetworkAclEntry", "NetworkAclId=ACL", "RuleNumber=7", "Egress=true", "Protocol=icmp", "RuleAction=deny", "CidrBlock=1.2.3.4/8", "Icmp.Type=8", "Icmp.Code=-1"), query("DescribeNetworkAcls"),
		query("CreateRoute", "RouteTableId=TABLE", "DestinationCidrBlock=10.7.0.0/16", "VpcPeeringConnectionId=PCX"), query("DescribeRouteTables"), query("DeleteVpcPeeringConnection", "VpcPeeringConnectionId=PCX"),
		query("AssociateAddress", "AllocationId=EIP", "NetworkInterfaceId=BIG", "PrivateIpAddress=BIGSECOND"), query("DescribeAddresses"), query("DescribeNatGateways"), query("CreateNatGateway", "SubnetId=SUBNET", "ConnectivityType=private"),
		query("CreateTransitGatewayRoute", "TransitGatewayRouteTableId=HTABLE", "DestinationCidrBlock=1.0.0.0/8", "TransitGatewayAttachmentId=SPOKE"), query("DeleteTransitGatewayVpcAttachment", "TransitGatewayAttachmentId=SPOKE"),
		query("SearchTransitGatewayRoutes", "TransitGatewayRouteTableId=HTABLE", "Filter.1.Name=route-search.longest-prefix-match", "Filter.1.Value.1=10.0.0.1"), query("CreateTransitGateway", "Options.AmazonSideAsn=64999"),
		query("AssociateTrunkInterface", "TrunkInterfaceId=TRUNK", "BranchInterfaceId=BRANCH", "VlanId=9"), query("DisassociateTrunkInterface", "AssociationId=TRUNKTIE"), query("DeleteNetworkInterface", "NetworkInterfaceId=TRUNK"),
		query("CreateSubnetCidrReservation", "SubnetId=SUBNET", "Cidr=10.0.1.0/24", "ReservationType=prefix"), query("CreateNetworkInterface", "SubnetId=SIDE", "Ipv4PrefixCount=9"), query("DeleteSubnetCidrReservation", "SubnetCidrReservationId=SCR"),
		query("StopInstances", "InstanceId.1=INSTANCE", "InstanceId.2=STOPPED"), query("StartInstances", "InstanceId.1=STOPPED"), query("ModifyVpcAttribute", "VpcId=VPC", "EnableDnsSupport.Value=false"), query("ModifyInstanceMetadataOptions", "InstanceId=STOPPED", "HttpTokens=optional"),
		"Action=", "&&;=%", "a.1.b.2.c=%00", query("DescribeVpcs", "..=1", ".1=2", "VpcId..1=3"),
	} {
		f.Add(names.Replace(seed))
	}
	f.Fuzz(func(t *testing.T, form string) {
		c, _ := refusalWorld(t)
		before := c.Snapshot()
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(form))
		if a := send(t, c, r); a.status != http.StatusOK {
			if diff := sameSnapshot(before, c.Snapshot()); diff != "" {
				t.Errorf("%s, but the state changed:\n%s", a.code, diff)
			}
		}
		checkInvariants(t, c)
	})
}

// checkInvariants compares what is derived with what it is derived from.
func checkInvariants(t *testing.T, c *Cloud) {
	t.Helper()
	snap := c.Snapshot()
	taken, owner, tied := map[string]int{}, map[string]string{}, map[string]bool{}
	for _, a := range snap.Trunks {
		tied[a.BranchID] = true
	}
	for _, e := range snap.Interfaces {
		own := func(what string) {
			key := e.SubnetID + " " + what
			if other, twice := owner[key]; twice {
				t.Errorf("%s is of %s and of %s", key, other, e.ID)
			}
			owner[key] = e.ID
			taken[e.SubnetID]++
		}
		own(e.Primary.String())
		for _, a := range e.Secondary {
			own(a.String())
		}
		for _, p := range e.Prefixes {
			for a := p.Addr(); p.Contains(a); a = a.Next() {
				own(a.String())
			}
		}
		if (e.Attachment == nil && !tied[e.ID]) != (e.Status == StatusAvailable) || tied[e.ID] && e.Type != TypeBranch {
			t.Errorf("%s is %s with the attachment %v", e.ID, e.Status, e.Attachment)
		}
	}
	for _, g := range snap.NATGateways {
		if g.PrivateIP.IsValid() {
			if other, twice := owner[g.SubnetID+" "+g.PrivateIP.String()]; twice {
				t.Errorf("%s is of %s and of %s", g.PrivateIP, other, g.ID)
			}
			taken[g.SubnetID]++
		}
	}
	public := map[netip.Addr]string{}
	claim := func(a netip.Addr, by string) {
		if other, twice := public[a]; twice && a.IsValid() {
			t.Errorf("%s is of %s and of %s", a, other, by)
		}
		public[a] = by
	}
	for _, a := range snap.Addresses {
		claim(a.PublicIP, a.ID)
		if (a.AssociationID == "") != (a.InterfaceID == "" && a.NATGatewayID == "") {
			t.Errorf("half associated: %+v", a)
		}
	}
	for _, e := range snap.Interfaces {
		claim(e.AutoPublic, e.ID)
	}
	for _, n := range snap.Subnets {
		if size := 1 << (32 - n.CIDR.Bits()); n.Available != size-5-taken[n.ID] {
			t.Errorf("%s has %d free and %d taken", n.ID, n.Available, taken[n.ID])
		}
	}
}
