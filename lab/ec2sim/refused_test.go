package ec2sim

import (
	"os"
	"strings"
	"testing"
)

// documented is how to bring about each row of the table in the design page: the
// row is found by its action and condition. The code is in the page alone.
var documented = []struct{ action, when, parameters, message string }{
	{"NoSuchAction", "there is no such action", "", ""},
	{"DescribeVpcs", "a parameter that the action does not have", "Nonsense=1", "Nonsense"},
	{"DescribeVpcs", "a list's member has no number", "VpcId.x=VPC", "VpcId.x"},
	{"DescribeVpcs", "a list without numbers", "VpcId=VPC", "VpcId"},
	{"DescribeVpcs", "a parameter is given twice", "VpcId.1=VPC&VpcId.1=VPC", "VpcId.1"},
	{"DescribeVpcs", "the query string does not parse", "a=%zz", "%zz"},
	{"DescribeVpcs", "a flag is neither true nor false", "DryRun=maybe", "DryRun"},
	{"DescribeVpcs", "a dry run that would succeed", "DryRun=true", "would have succeeded"},
	{"AssignPrivateIpAddresses", "a dry run: this action has none", "NetworkInterfaceId=ENI&SecondaryPrivateIpAddressCount=1&DryRun=true", "DryRun"},
	{"DescribeVpcs", "an identifier of another form", "VpcId.1=vpc-1", "vpc-1"},
	{"DescribeVpcs", "no such VPC", "VpcId.1=vpc-00000000000000000", "'vpc-00000000000000000'"},
	{"DescribeSubnets", "no such subnet", "SubnetId.1=subnet-00000000", ""},
	{"DescribeSecurityGroups", "an identifier of another form", "GroupId.1=sg-0000000g", ""},
	{"DescribeSecurityGroups", "no such group", "GroupId.1=sg-00000000", ""},
	{"DescribeNetworkInterfaces", "one of two ENIs does not exist", "NetworkInterfaceId.1=ENI&NetworkInterfaceId.2=eni-00000000", "The networkInterface ID 'eni-00000000' does not exist"},
	{"DescribeNetworkInterfaces", "an attachment's identifier in place of an ENI's", "NetworkInterfaceId.1=ATTACHMENT", ""},
	{"DescribeInstances", "no such instance", "InstanceId.1=i-00000000", "'i-00000000'"},
	{"DescribeInstances", "an identifier of another form", "InstanceId.1=i-", ""},
	{"DescribeInstanceTypes", "no such type", "InstanceType.1=m5.tiny", "[m5.tiny]"},
	{"DescribeAvailabilityZones", "no such zone", "ZoneName.1=eu-west-1z", "eu-west-1z"},
	{"DescribeInstances", "no such filter", "Filter.1.Name=nonsense&Filter.1.Value.1=x", "The filter 'nonsense' is invalid"},
	{"DescribeInstances", "a filter without values", "Filter.1.Name=vpc-id", "vpc-id"},
	{"DescribeNetworkInterfaces", "a page of less than 5", "MaxResults=4", "maxResults"},
	{"DescribeNetworkInterfaces", "a page of more than 1000", "MaxResults=1001", "maxResults"},
	{"DescribeNetworkInterfaces", "pages together with identifiers", "MaxResults=5&NetworkInterfaceId.1=ENI", "networkInterfaceId"},
	{"DescribeNetworkInterfaces", "a token that was never given", "NextToken=nonsense", ""},
	{"DescribeRegions", "no such region", "RegionName.1=mars-1", "mars-1"},
	{"CreateVpc", "no block", "", "cidrBlock"},
	{"CreateVpc", "a block larger than /16", "CidrBlock=10.0.0.0/15", "10.0.0.0/15"},
	{"CreateVpc", "a block smaller than /28", "CidrBlock=10.0.0.0/29", ""},
	{"CreateVpc", "a block of IPv6", "CidrBlock=2001:db8::/56", "CIDR"},
	{"CreateVpc", "IPv6 from Amazon", "CidrBlock=10.0.0.0/16&AmazonProvidedIpv6CidrBlock=true", "AmazonProvidedIpv6CidrBlock"},
	{"CreateVpc", "tags for another kind of resource", "CidrBlock=10.0.0.0/16&TagSpecification.1.ResourceType=subnet&TagSpecification.1.Tag.1.Key=a", "'subnet'"},
	{"CreateVpc", "a tag whose key begins with aws:", "CidrBlock=10.0.0.0/16&TagSpecification.1.ResourceType=vpc&TagSpecification.1.Tag.1.Key=aws:x", "aws:"},
	{"AssociateVpcCidrBlock", "a block that the VPC has", "VpcId=VPC&CidrBlock=10.0.128.0/17", "10.0.128.0/17"},
	{"DisassociateVpcCidrBlock", "the VPC's first block", "AssociationId=MAINBLOCK", "primary"},
	{"DeleteVpc", "something is in it", "VpcId=VPC", "The vpc 'VPC' has dependencies"},
	{"DescribeVpcAttribute", "no attribute is named", "VpcId=VPC", "attribute"},
	{"DescribeVpcAttribute", "no such attribute", "VpcId=VPC&Attribute=enableMagic", "Attribute"},
	{"ModifyVpcAttribute", "two attributes at once", "VpcId=VPC&EnableDnsSupport.Value=true&EnableDnsHostnames.Value=true", "multiple"},
	{"CreateSubnet", "it overlaps with another one", "VpcId=VPC&CidrBlock=10.0.0.0/23", "10.0.0.0/23"},
	{"CreateSubnet", "outside the VPC", "VpcId=VPC&CidrBlock=10.1.0.0/24", "10.1.0.0/24"},
	{"CreateSubnet", "smaller than /28", "VpcId=VPC&CidrBlock=10.0.9.0/29", ""},
	{"CreateSubnet", "a zone of another region", "VpcId=VPC&CidrBlock=10.0.9.0/24&AvailabilityZone=us-east-1a", "eu-west-1a, eu-west-1b"},
	{"DeleteSubnet", "an ENI is in it", "SubnetId=SUBNET", ""},
	{"CreateSubnetCidrReservation", "outside the subnet", "SubnetId=SUBNET&Cidr=10.0.9.0/28&ReservationType=prefix", "10.0.9.0/28"},
	{"CreateSubnetCidrReservation", "it overlaps with another one", "SubnetId=SIDE&Cidr=10.0.4.64/27&ReservationType=explicit", "SCR"},
	{"CreateSubnetCidrReservation", "for prefixes, and smaller than one", "SubnetId=SUBNET&Cidr=10.0.1.128/29&ReservationType=prefix", "/28"},
	{"CreateSubnetCidrReservation", "no such type", "SubnetId=SUBNET&Cidr=10.0.1.128/28&ReservationType=both", "ReservationType"},
	{"DeleteSubnetCidrReservation", "no such reservation", "SubnetCidrReservationId=scr-00000000", "scr-00000000"},
	{"CreateSecurityGroup", "no VPC", "GroupName=a&GroupDescription=b", ""},
	{"CreateSecurityGroup", "the VPC has one of this name", "VpcId=VPC&GroupName=default&GroupDescription=b", "'default'"},
	{"DeleteSecurityGroup", "the VPC's default one", "GroupId=DEFAULT", "default"},
	{"DeleteSecurityGroup", "a rule names it", "GroupId=G2", "G2"},
	{"GetSecurityGroupsForVpc", "no such VPC", "VpcId=vpc-00000000", ""},
	{"AuthorizeSecurityGroupIngress", "no rule", "GroupId=G1", "ipPermissions"},
	{"AuthorizeSecurityGroupIngress", "ports the wrong way round", "GroupId=G1&IpProtocol=tcp&FromPort=90&ToPort=80&CidrIp=0.0.0.0/0", "(90-80)"},
	{"AuthorizeSecurityGroupIngress", "a source of IPv6", "GroupId=G1&IpPermissions.1.IpProtocol=-1&IpPermissions.1.Ipv6Ranges.1.CidrIpv6=::/0", "Ipv6Ranges"},
	{"AuthorizeSecurityGroupEgress", "the rule is there", "GroupId=G1&IpProtocol=-1&CidrIp=0.0.0.0/0", "peer: 0.0.0.0/0, ALL, ALLOW"},
	{"RevokeSecurityGroupIngress", "the rule is not there", "GroupId=G1&IpProtocol=-1&CidrIp=0.0.0.0/0", ""},
	{"RevokeSecurityGroupIngress", "no rule has this identifier", "GroupId=G1&SecurityGroupRuleId.1=sgr-00000000", ""},
	{"CreateNetworkInterface", "no subnet", "", "subnetId"},
	{"CreateNetworkInterface", "the subnet is full", "SubnetId=FULL", ""},
	{"CreateNetworkInterface", "more addresses than the subnet has", "SubnetId=SUBNET&SecondaryPrivateIpAddressCount=400", ""},
	{"CreateNetworkInterface", "more /28 prefixes than there are free blocks", "SubnetId=SUBNET&Ipv4PrefixCount=15", "does not have enough free cidr blocks"},
	{"CreateNetworkInterface", "prefixes and addresses by count", "SubnetId=SUBNET&Ipv4PrefixCount=1&SecondaryPrivateIpAddressCount=1", ""},
	{"CreateNetworkInterface", "the primary address is in use", "SubnetId=SUBNET&PrivateIpAddress=10.0.1.4", "10.0.1.4"},
	{"CreateNetworkInterface", "a secondary address is in use", "SubnetId=SUBNET&PrivateIpAddresses.1.PrivateIpAddress=10.0.1.4", "10.0.1.4"},
	{"CreateNetworkInterface", "one of the first four addresses", "SubnetId=SUBNET&PrivateIpAddress=10.0.1.3", "reserved"},
	{"CreateNetworkInterface", "the last address", "SubnetId=SUBNET&PrivateIpAddress=10.0.1.255", "reserved"},
	{"CreateNetworkInterface", "an address of another subnet", "SubnetId=SUBNET&PrivateIpAddress=10.0.2.5", "range"},
	{"CreateNetworkInterface", "a prefix that is not aligned", "SubnetId=SUBNET&Ipv4Prefix.1.Ipv4Prefix=10.0.1.40/28", "aligned"},
	{"CreateNetworkInterface", "a prefix that is no /28", "SubnetId=SUBNET&Ipv4Prefix.1.Ipv4Prefix=10.0.1.32/27", "aligned"},
	{"CreateNetworkInterface", "a group of another VPC", "SubnetId=SUBNET&SecurityGroupId.1=OTHERGROUP", "different networks"},
	{"CreateNetworkInterface", "more than five groups", "SubnetId=SUBNET&SecurityGroupId.1=G1&SecurityGroupId.2=G2&SecurityGroupId.3=G3&SecurityGroupId.4=G4&SecurityGroupId.5=G5&SecurityGroupId.6=G6", ""},
	{"CreateNetworkInterface", "a type that the lab has not", "SubnetId=SUBNET&InterfaceType=efa", "InterfaceType"},
	{"CreateNetworkInterface", "IPv6 addresses", "SubnetId=SUBNET&Ipv6AddressCount=1", "Ipv6AddressCount"},
	{"DeleteNetworkInterface", "it is attached", "NetworkInterfaceId=ENI", "'ENI' is currently in use"},
	{"DeleteNetworkInterface", "a branch that is tied to a trunk", "NetworkInterfaceId=TIED", "currently in use"},
	{"AttachNetworkInterface", "no device index", "NetworkInterfaceId=FREE&InstanceId=INSTANCE", "DeviceIndex"},
	{"AttachNetworkInterface", "the device index is taken", "NetworkInterfaceId=FREE&InstanceId=INSTANCE&DeviceIndex=0", "device index '0'"},
	{"AttachNetworkInterface", "the type has no such card", "NetworkInterfaceId=FREE&InstanceId=INSTANCE&DeviceIndex=1&NetworkCardIndex=1", "card"},
	{"AttachNetworkInterface", "the ENI is attached", "NetworkInterfaceId=ENI&InstanceId=INSTANCE&DeviceIndex=1", "ENI"},
	{"AttachNetworkInterface", "it has more addresses than the type allows", "NetworkInterfaceId=BIG&InstanceId=INSTANCE&DeviceIndex=1", "Address count 11 on interface-BIG exceeds the limit for m5.large"},
	{"AttachNetworkInterface", "the instance has as many ENIs as its type allows", "NetworkInterfaceId=FREE&InstanceId=FULLINSTANCE&DeviceIndex=7", "Interface count 4 exceeds the limit for m5.large"},
	{"AttachNetworkInterface", "the instance is in another zone", "NetworkInterfaceId=FAR&InstanceId=INSTANCE&DeviceIndex=1", "availability zone"},
	{"AttachNetworkInterface", "the instance is terminated", "NetworkInterfaceId=FREE&InstanceId=DEAD&DeviceIndex=1", "DEAD"},
	{"AttachNetworkInterface", "a branch", "NetworkInterfaceId=BRANCH&InstanceId=INSTANCE&DeviceIndex=1", "branch"},
	{"AttachNetworkInterface", "a trunk, and the type has none", "NetworkInterfaceId=TRUNK&InstanceId=XEN&DeviceIndex=1", "m4.large"},
	{"DetachNetworkInterface", "the primary ENI", "AttachmentId=ATTACHMENT", "device index 0"},
	{"DetachNetworkInterface", "no such attachment", "AttachmentId=eni-attach-00000000", ""},
	{"ModifyNetworkInterfaceAttribute", "nothing to change", "NetworkInterfaceId=ENI", ""},
	{"ModifyNetworkInterfaceAttribute", "two attributes at once", "NetworkInterfaceId=ENI&SourceDestCheck.Value=false&Description.Value=x", ""},
	{"ModifyNetworkInterfaceAttribute", "another ENI's attachment", "NetworkInterfaceId=FREE&Attachment.AttachmentId=ATTACHMENT&Attachment.DeleteOnTermination=true", ""},
	{"ModifyNetworkInterfaceAttribute", "an idle time-out out of range", "NetworkInterfaceId=ENI&ConnectionTrackingSpecification.UdpTimeout=61", "UdpTimeout"},
	{"DescribeNetworkInterfaceAttribute", "no attribute is named", "NetworkInterfaceId=ENI", "attribute"},
	{"ResetNetworkInterfaceAttribute", "nothing to reset", "NetworkInterfaceId=ENI", "attribute"},
	{"AssignPrivateIpAddresses", "nothing to assign", "NetworkInterfaceId=ENI", "secondaryPrivateIpAddressCount"},
	{"AssignPrivateIpAddresses", "more addresses than the instance's type allows", "NetworkInterfaceId=ENI&SecondaryPrivateIpAddressCount=10", "Number of private addresses will exceed limit."},
	{"AssignPrivateIpAddresses", "more prefixes than the instance's type allows", "NetworkInterfaceId=ENI&Ipv4PrefixCount=10", ""},
	{"AssignPrivateIpAddresses", "by count and by name", "NetworkInterfaceId=ENI&SecondaryPrivateIpAddressCount=1&PrivateIpAddress.1=10.0.1.99", ""},
	{"AssignPrivateIpAddresses", "an address that another ENI has", "NetworkInterfaceId=ENI&PrivateIpAddress.1=BIGSECOND", "in use"},
	{"AssignPrivateIpAddresses", "the subnet is full", "NetworkInterfaceId=FULLENI&SecondaryPrivateIpAddressCount=1", ""},
	{"AssignPrivateIpAddresses", "the subnet has no free /28", "NetworkInterfaceId=FULLENI&Ipv4PrefixCount=1", ""},
	{"AssignPrivateIpAddresses", "a prefix, and the type is of Xen", "NetworkInterfaceId=XENENI&Ipv4PrefixCount=1", "m4.large"},
	{"UnassignPrivateIpAddresses", "the primary address", "NetworkInterfaceId=ENI&PrivateIpAddress.1=10.0.1.4", "primary"},
	{"UnassignPrivateIpAddresses", "an address that it has not", "NetworkInterfaceId=BIG&PrivateIpAddress.1=BIGSECOND&PrivateIpAddress.2=10.0.1.99", "10.0.1.99"},
	{"AssociateTrunkInterface", "no VLAN", "TrunkInterfaceId=TRUNK&BranchInterfaceId=BRANCH", "vlanId"},
	{"AssociateTrunkInterface", "a VLAN that no frame can name", "TrunkInterfaceId=TRUNK&BranchInterfaceId=BRANCH&VlanId=4095", "4095"},
	{"AssociateTrunkInterface", "the VLAN is taken on the trunk", "TrunkInterfaceId=TRUNK&BranchInterfaceId=BRANCH&VlanId=7", "VLAN ID 7"},
	{"AssociateTrunkInterface", "the branch is an ordinary ENI", "TrunkInterfaceId=TRUNK&BranchInterfaceId=FREE&VlanId=8", "not a branch"},
	{"AssociateTrunkInterface", "the trunk is an ordinary ENI", "TrunkInterfaceId=FREE&BranchInterfaceId=BRANCH&VlanId=8", "not a trunk"},
	{"AssociateTrunkInterface", "the branch is tied already", "TrunkInterfaceId=TRUNK&BranchInterfaceId=TIED&VlanId=8", "TIED"},
	{"AssociateTrunkInterface", "by GRE", "TrunkInterfaceId=TRUNK&BranchInterfaceId=BRANCH&GreKey=8", "GreKey"},
	{"DisassociateTrunkInterface", "no such association", "AssociationId=trunk-assoc-00000000", ""},
	{"RunInstances", "neither subnet nor interfaces", "MinCount=1&MaxCount=1", ""},
	{"RunInstances", "more at least than at most", "MinCount=2&MaxCount=1&SubnetId=SUBNET", "minCount"},
	{"RunInstances", "more than the account may have", "MinCount=1&MaxCount=1001&SubnetId=SUBNET", ""},
	{"RunInstances", "no such type", "MinCount=1&MaxCount=1&SubnetId=SUBNET&InstanceType=m5.tiny", "Invalid value 'm5.tiny' for InstanceType."},
	{"RunInstances", "the subnet is full", "MinCount=1&MaxCount=1&SubnetId=FULL", ""},
	{"RunInstances", "one address for two instances", "MinCount=2&MaxCount=2&SubnetId=SUBNET&PrivateIpAddress=10.0.1.99", ""},
	{"RunInstances", "interfaces, and a subnet beside them", "MinCount=1&MaxCount=1&SubnetId=SUBNET&NetworkInterface.1.DeviceIndex=0", "instance-level"},
	{"RunInstances", "interfaces, and none has index 0", "MinCount=1&MaxCount=1&NetworkInterface.1.DeviceIndex=1&NetworkInterface.1.SubnetId=SUBNET", "device index 0"},
	{"RunInstances", "prefixes and addresses by count on one interface", "MinCount=1&MaxCount=1&NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.SubnetId=SUBNET&NetworkInterface.1.Ipv4PrefixCount=1&NetworkInterface.1.SecondaryPrivateIpAddressCount=1", ""},
	{"RunInstances", "more addresses than the type allows", "MinCount=1&MaxCount=1&NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.SubnetId=SUBNET&NetworkInterface.1.SecondaryPrivateIpAddressCount=10&InstanceType=m5.large", "Address count 11"},
	{"RunInstances", "a hop limit above 64", "MinCount=1&MaxCount=1&SubnetId=SUBNET&MetadataOptions.HttpPutResponseHopLimit=65", "HttpPutResponseHopLimit"},
	{"RunInstances", "user data that is no base64", "MinCount=1&MaxCount=1&SubnetId=SUBNET&UserData=%25", ""},
	{"TerminateInstances", "one of two does not exist", "InstanceId.1=INSTANCE&InstanceId.2=i-00000000", "'i-00000000'"},
	{"StartInstances", "it is terminated", "InstanceId.1=DEAD", "'terminated'"},
	{"StopInstances", "it is terminated", "InstanceId.1=DEAD", "'terminated'"},
	{"StopInstances", "hibernation", "InstanceId.1=INSTANCE&Hibernate=true", "Hibernate"},
	{"RebootInstances", "it is stopped", "InstanceId.1=STOPPED", "'stopped'"},
	{"ModifyInstanceMetadataOptions", "nothing to change", "InstanceId=INSTANCE", "At least one"},
	{"ModifyInstanceMetadataOptions", "a hop limit above 64", "InstanceId=INSTANCE&HttpPutResponseHopLimit=65", "HttpPutResponseHopLimit"},
	{"ModifyInstanceAttribute", "the instance has several ENIs", "InstanceId=FULLINSTANCE&SourceDestCheck.Value=false", "multiple interfaces"},
	{"DescribeAccountAttributes", "no such attribute", "AttributeName.1=colour", "colour"},
	{"CreateTags", "no tag", "ResourceId.1=VPC", "tagSet"},
	{"CreateTags", "what has no tags", "ResourceId.1=nonsense&Tag.1.Key=a", "'nonsense'"},
	{"CreateTags", "one of two resources does not exist", "ResourceId.1=VPC&ResourceId.2=eni-00000000&Tag.1.Key=a", ""},
	{"CreateTags", "a key twice", "ResourceId.1=VPC&Tag.1.Key=a&Tag.2.Key=a", "'a'"},
	{"CreateManagedPrefixList", "more entries than it is made for", "PrefixListName=l&MaxEntries=1&AddressFamily=IPv4&Entry.1.Cidr=10.0.0.0/8&Entry.2.Cidr=11.0.0.0/8", ""},
	{"CreateManagedPrefixList", "of IPv6", "PrefixListName=l&MaxEntries=5&AddressFamily=IPv6", "AddressFamily"},
	{"ModifyManagedPrefixList", "another version than the current one", "PrefixListId=LIST&CurrentVersion=9&AddEntry.1.Cidr=11.0.0.0/8", "not 9"},
	{"DeleteManagedPrefixList", "a rule names it", "PrefixListId=LIST", "LIST"},
	{"CreateNetworkAclEntry", "the number is taken", "NetworkAclId=ACL&RuleNumber=100&Egress=false&Protocol=-1&RuleAction=allow&CidrBlock=0.0.0.0/0", "100"},
	{"CreateNetworkAclEntry", "a number above 32766", "NetworkAclId=ACL&RuleNumber=32767&Egress=false&Protocol=-1&RuleAction=allow&CidrBlock=0.0.0.0/0", "32767"},
	{"DeleteNetworkAclEntry", "no entry has the number", "NetworkAclId=ACL&RuleNumber=1&Egress=true", ""},
	{"DeleteNetworkAcl", "the VPC's default one", "NetworkAclId=ACL", "default"},
	{"CreateRoute", "the destination has a route", "RouteTableId=TABLE&DestinationCidrBlock=0.0.0.0/0&GatewayId=GATEWAY", "0.0.0.0/0"},
	{"CreateRoute", "more specific than the local route, by a gateway", "RouteTableId=TABLE&DestinationCidrBlock=10.0.1.0/24&GatewayId=GATEWAY", "more specific"},
	{"CreateRoute", "two targets", "RouteTableId=TABLE&DestinationCidrBlock=1.0.0.0/8&GatewayId=GATEWAY&NetworkInterfaceId=ENI", ""},
	{"CreateRoute", "no such peering", "RouteTableId=TABLE&DestinationCidrBlock=1.0.0.0/8&VpcPeeringConnectionId=pcx-00000000", ""},
	{"ReplaceRoute", "there is none to replace", "RouteTableId=TABLE&DestinationCidrBlock=1.0.0.0/8&GatewayId=GATEWAY", "no route defined"},
	{"DeleteRoute", "the local route", "RouteTableId=TABLE&DestinationCidrBlock=10.0.0.0/16", "local route"},
	{"DeleteRoute", "no such route", "RouteTableId=TABLE&DestinationCidrBlock=1.0.0.0/8", ""},
	{"DeleteRouteTable", "the VPC's main one", "RouteTableId=TABLE", ""},
	{"AttachInternetGateway", "it is attached", "InternetGatewayId=GATEWAY&VpcId=VPC", ""},
	{"DetachInternetGateway", "the VPC has public addresses", "InternetGatewayId=GATEWAY&VpcId=VPC", "mapped public address"},
	{"CreateNatGateway", "a public one without an address", "SubnetId=SUBNET", "allocationId"},
	{"DescribeNatGateways", "no such gateway", "NatGatewayId.1=nat-00000000", ""},
	{"ReleaseAddress", "it is associated", "AllocationId=EIP", "in use"},
	{"DeleteTransitGatewayRouteTable", "the gateway's default one", "TransitGatewayRouteTableId=HTABLE", "default"},
	{"AssociateTransitGatewayRouteTable", "the attachment has a table", "TransitGatewayRouteTableId=HTABLE&TransitGatewayAttachmentId=SPOKE", ""},
	{"CreateFlowLogs", "no such ENI", "ResourceType=NetworkInterface&ResourceId.1=eni-00000000&TrafficType=ALL&LogGroupName=g&DeliverLogsPermissionArn=arn:aws:iam::123456789012:role/r", ""},
}

// refusedRow is one row of the page.
type refusedRow struct {
	line               int
	action, when, code string
	source             string
}

const designPage = "../../docs/design/ec2sim.md"

// refusedRows reads the table under the heading that says what is refused.
func refusedRows(t *testing.T) []refusedRow {
	t.Helper()
	text, err := os.ReadFile(designPage)
	if err != nil {
		t.Fatal(err)
	}
	var rows []refusedRow
	inside := false
	for i, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "## ") {
			inside = line == "## What is refused"
		}
		cells := strings.Split(line, "|")
		if !inside || len(cells) != 6 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		for k := range cells {
			cells[k] = strings.Trim(strings.TrimSpace(cells[k]), "`")
		}
		rows = append(rows, refusedRow{i + 1, cells[1], cells[2], cells[3], cells[4]})
	}
	return rows
}

// TestDocumentedRefusals does what each row of the page says, and finds its
// code. A row that no case is for, and a case that no row tells of, fail.
func TestDocumentedRefusals(t *testing.T) {
	rows := map[string]refusedRow{}
	for _, r := range refusedRows(t) {
		key := r.action + ": " + r.when
		if other, twice := rows[key]; twice {
			t.Errorf("%s:%d: the same as line %d", designPage, r.line, other.line)
		}
		if r.code == "" || r.source == "" {
			t.Errorf("%s:%d: a code and a source are needed", designPage, r.line)
		}
		rows[key] = r
	}
	if len(rows) < 80 {
		t.Errorf("%s: %d rows under \"What is refused\", want 80 at least", designPage, len(rows))
	}
	for _, tt := range documented {
		key := tt.action + ": " + tt.when
		r, ok := rows[key]
		delete(rows, key)
		if !ok {
			t.Errorf("%s: no row for the case %q", designPage, key)
			continue
		}
		t.Run(key, func(t *testing.T) {
			c, names := refusalWorld(t)
			before := c.Snapshot()
			a := post(t, c, query(tt.action, names.Replace(tt.parameters)))
			if a.code != r.code || !strings.Contains(a.message, names.Replace(tt.message)) {
				t.Errorf("got %s %q, but %s:%d says %s, with %q in its message", a.code, a.message, designPage, r.line, r.code, names.Replace(tt.message))
			}
			if diff := sameSnapshot(before, c.Snapshot()); diff != "" {
				t.Errorf("a refused request changed the state:\n%s", diff)
			}
		})
	}
	for key, r := range rows {
		t.Errorf("%s:%d: no case performs %q", designPage, r.line, key)
	}
}
