package ec2sim

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// answer is what a request got.
type answer struct {
	status        int
	code, message string
	body          string
}

// post sends a form.
func post(t testing.TB, c *Cloud, form string) answer {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	return send(t, c, r)
}

func send(t testing.TB, c *Cloud, r *http.Request) answer {
	t.Helper()
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	a := answer{status: w.Code, body: w.Body.String()}
	var shape struct {
		XMLName xml.Name
		Errors  []struct {
			Code    string `xml:"Code"`
			Message string `xml:"Message"`
		} `xml:"Errors>Error"`
		OldID     string `xml:"RequestID"`
		RequestID string `xml:"requestId"`
	}
	if err := xml.Unmarshal(w.Body.Bytes(), &shape); err != nil {
		t.Fatalf("no XML: %v\n%s", err, a.body)
	}
	if len(shape.Errors) > 0 {
		a.code, a.message = shape.Errors[0].Code, shape.Errors[0].Message
	}
	failed := w.Code != http.StatusOK
	if failed != (shape.XMLName.Local == "Response") || failed != (len(shape.Errors) == 1) || failed != (shape.OldID != "") || failed == (shape.RequestID != "") {
		t.Errorf("status %d with a reply of another form:\n%s", w.Code, a.body)
	}
	if got := w.Header().Get("Content-Type"); got != "text/xml;charset=UTF-8" {
		t.Errorf("content type %q", got)
	}
	return a
}

// call makes the form of an action.
func query(action string, parameters ...string) string {
	return strings.Join(append([]string{"Action=" + action, "Version=2016-11-15"}, parameters...), "&")
}

// refusals are what EC2 rejects, and with which code. Names in capitals stand
// for what refusalWorld holds; the message is a part of it.
var refusals = []struct{ action, parameters, code, message string }{
	// the protocol
	{"NoSuchAction", "", "InvalidAction", "NoSuchAction"},
	{"DescribeVpcs", "Nonsense=1", "UnknownParameter", "The parameter Nonsense is not recognized"},
	{"DescribeVpcs", "VpcId.x=VPC", "UnknownParameter", "VpcId.x"},
	{"DescribeVpcs", "VpcId.0=VPC", "UnknownParameter", "VpcId.0"},
	{"DescribeVpcs", "VpcId.01=VPC", "UnknownParameter", "VpcId.01"},
	{"DescribeVpcs", "VpcId.99999999999999999999=VPC", "UnknownParameter", "VpcId.9"},
	{"DescribeVpcs", "VpcId=VPC", "UnknownParameter", "VpcId"},
	{"DescribeVpcs", "VpcId.1.2=VPC", "UnknownParameter", "VpcId.1.2"},
	{"DescribeVpcs", "VpcId.1=VPC&VpcId.1=VPC", "InvalidQueryParameter", "VpcId.1"},
	{"DescribeVpcs", "A.B.C.D.E.F.G.H.I=1", "UnknownParameter", "A.B.C"},
	{"DescribeVpcs", "a=%zz", "MalformedQueryString", "%zz"},
	{"DescribeVpcs", "DryRun=maybe", "InvalidParameterValue", "DryRun"},
	{"DescribeVpcs", "DryRun=true", "DryRunOperation", "would have succeeded"},
	{"AssignPrivateIpAddresses", "NetworkInterfaceId=ENI&SecondaryPrivateIpAddressCount=1&DryRun=true", "UnknownParameter", "DryRun"},
	{"CreateVpc", "CidrBlock=10.0.0.0/16&DryRun=true", "DryRunOperation", ""},
	{"RunInstances", "MinCount=1&MaxCount=1&SubnetId=SUBNET&DryRun=true", "DryRunOperation", ""},

	// describing
	{"DescribeVpcs", "VpcId.1=vpc-1", "InvalidVpcID.Malformed", "vpc-1"},
	{"DescribeVpcs", "VpcId.1=vpc-00000000000000000", "InvalidVpcID.NotFound", "'vpc-00000000000000000'"},
	{"DescribeSubnets", "SubnetId.1=x", "InvalidSubnetID.Malformed", ""},
	{"DescribeSubnets", "SubnetId.1=subnet-00000000", "InvalidSubnetID.NotFound", "'subnet-00000000'"},
	{"DescribeSecurityGroups", "GroupId.1=sg-0000000g", "InvalidGroupId.Malformed", ""},
	{"DescribeSecurityGroups", "GroupId.1=sg-00000000", "InvalidGroup.NotFound", "'sg-00000000'"},
	{"DescribeNetworkInterfaces", "NetworkInterfaceId.1=ENI&NetworkInterfaceId.2=eni-00000000", "InvalidNetworkInterfaceID.NotFound", "The networkInterface ID 'eni-00000000' does not exist"},
	{"DescribeNetworkInterfaces", "NetworkInterfaceId.1=ATTACHMENT", "InvalidNetworkInterfaceId.Malformed", ""},
	{"DescribeInstances", "InstanceId.1=i-", "InvalidInstanceID.Malformed", ""},
	{"DescribeInstances", "InstanceId.1=i-00000000", "InvalidInstanceID.NotFound", "'i-00000000'"},
	{"DescribeInstanceTypes", "InstanceType.1=m5.large&InstanceType.2=m5.tiny", "InvalidInstanceType", "[m5.tiny]"},
	{"DescribeAvailabilityZones", "ZoneName.1=eu-west-1z", "InvalidParameterValue", "eu-west-1z"},
	{"DescribeInstances", "Filter.1.Name=nonsense&Filter.1.Value.1=x", "InvalidParameterValue", "The filter 'nonsense' is invalid"},
	{"DescribeInstances", "Filter.1.Value.1=x", "InvalidParameterValue", "filter 'null'"},
	{"DescribeInstances", "Filter.1.Name=vpc-id", "InvalidParameterValue", "vpc-id"},
	{"DescribeTags", "Filter.1.Name=tag:x&Filter.1.Value.1=x", "InvalidParameterValue", "tag:x"},
	{"DescribeNetworkInterfaces", "MaxResults=4", "InvalidParameterValue", "maxResults"},
	{"DescribeNetworkInterfaces", "MaxResults=1001", "InvalidParameterValue", "maxResults"},
	{"DescribeNetworkInterfaces", "MaxResults=five", "InvalidParameterValue", "integer"},
	{"DescribeNetworkInterfaces", "MaxResults=5&NetworkInterfaceId.1=ENI", "InvalidParameterCombination", "networkInterfaceId"},
	{"DescribeNetworkInterfaces", "NextToken=nonsense", "InvalidNextToken", ""},
	{"DescribeNetworkInterfaces", "NextToken=RGVzY3JpYmVWcGNzLzE", "InvalidNextToken", ""}, // one of DescribeVpcs

	// networks
	{"CreateVpc", "", "MissingParameter", "cidrBlock"},
	{"CreateVpc", "CidrBlock=10.0.0.0/15", "InvalidVpc.Range", "10.0.0.0/15"},
	{"CreateVpc", "CidrBlock=10.0.0.0/29", "InvalidVpc.Range", ""},
	{"CreateVpc", "CidrBlock=10.0.0.0", "InvalidParameterValue", "CIDR"},
	{"CreateVpc", "CidrBlock=2001:db8::/56", "InvalidParameterValue", "CIDR"},
	{"CreateVpc", "CidrBlock=10.0.0.0/16&InstanceTenancy=dedicated", "InvalidParameterValue", "InstanceTenancy"},
	{"CreateVpc", "CidrBlock=10.0.0.0/16&TagSpecification.1.ResourceType=subnet&TagSpecification.1.Tag.1.Key=a", "InvalidParameterValue", "'subnet'"},
	{"CreateVpc", "CidrBlock=10.0.0.0/16&TagSpecification.1.ResourceType=vpc", "InvalidParameterValue", "at least one tag"},
	{"CreateVpc", "CidrBlock=10.0.0.0/16&TagSpecification.1.ResourceType=vpc&TagSpecification.1.Tag.1.Key=aws:x", "InvalidParameterValue", "aws:"},
	{"AssociateVpcCidrBlock", "CidrBlock=100.64.0.0/16", "MissingParameter", "vpcId"},
	{"AssociateVpcCidrBlock", "VpcId=VPC", "MissingParameter", "cidrBlock"},
	{"AssociateVpcCidrBlock", "VpcId=vpc-00000000&CidrBlock=100.64.0.0/16", "InvalidVpcID.NotFound", ""},
	{"AssociateVpcCidrBlock", "VpcId=VPC&CidrBlock=10.0.128.0/17", "InvalidVpc.Range", "10.0.128.0/17"},
	{"AssociateVpcCidrBlock", "VpcId=VPC&CidrBlock=100.64.0.0/10", "InvalidVpc.Range", ""},
	{"CreateSubnet", "CidrBlock=10.0.9.0/24", "MissingParameter", "vpcId"},
	{"CreateSubnet", "VpcId=VPC", "MissingParameter", "cidrBlock"},
	{"CreateSubnet", "VpcId=vpc-00000000&CidrBlock=10.0.9.0/24", "InvalidVpcID.NotFound", ""},
	{"CreateSubnet", "VpcId=VPC&CidrBlock=10.0.0.0/23", "InvalidSubnet.Conflict", "10.0.0.0/23"},
	{"CreateSubnet", "VpcId=VPC&CidrBlock=10.1.0.0/24", "InvalidSubnet.Range", "10.1.0.0/24"},
	{"CreateSubnet", "VpcId=VPC&CidrBlock=10.0.0.0/15", "InvalidSubnet.Range", ""},
	{"CreateSubnet", "VpcId=VPC&CidrBlock=10.0.9.0/29", "InvalidSubnet.Range", ""},
	{"CreateSubnet", "VpcId=VPC&CidrBlock=10.0.9.0/24&AvailabilityZone=us-east-1a", "InvalidParameterValue", "eu-west-1a, eu-west-1b"},
	{"CreateSecurityGroup", "GroupName=a&GroupDescription=b", "VPCIdNotSpecified", ""},
	{"CreateSecurityGroup", "VpcId=VPC&GroupDescription=b", "MissingParameter", "groupName"},
	{"CreateSecurityGroup", "VpcId=VPC&GroupName=default&GroupDescription=b", "InvalidGroup.Duplicate", "'default'"},

	// network interfaces
	{"CreateNetworkInterface", "", "MissingParameter", "subnetId"},
	{"CreateNetworkInterface", "SubnetId=subnet-00000000", "InvalidSubnetID.NotFound", ""},
	{"CreateNetworkInterface", "SubnetId=FULL", "InsufficientFreeAddressesInSubnet", ""},
	{"CreateNetworkInterface", "SubnetId=SUBNET&SecondaryPrivateIpAddressCount=400", "InsufficientFreeAddressesInSubnet", ""},
	{"CreateNetworkInterface", "SubnetId=SUBNET&Ipv4PrefixCount=15", "InsufficientCidrBlocks", ""},
	{"CreateNetworkInterface", "SubnetId=SUBNET&Ipv4PrefixCount=1000000", "InsufficientCidrBlocks", ""},
	{"CreateNetworkInterface", "SubnetId=SUBNET&Ipv4PrefixCount=-1", "InvalidParameterValue", ""},
	{"CreateNetworkInterface", "SubnetId=SUBNET&Ipv4PrefixCount=1&SecondaryPrivateIpAddressCount=1", "InvalidParameterCombination", ""},
	{"CreateNetworkInterface", "SubnetId=SUBNET&PrivateIpAddress=10.0.1.4", "InvalidIPAddress.InUse", "10.0.1.4"},
	{"CreateNetworkInterface", "SubnetId=SUBNET&PrivateIpAddress=10.0.1.3", "InvalidParameterValue", "reserved"},
	{"CreateNetworkInterface", "SubnetId=SUBNET&PrivateIpAddress=10.0.1.255", "InvalidParameterValue", "reserved"},
	{"CreateNetworkInterface", "SubnetId=SUBNET&PrivateIpAddress=10.0.2.5", "InvalidParameterValue", "range"},
	{"CreateNetworkInterface", "SubnetId=SUBNET&PrivateIpAddress=10.0.1.300", "InvalidParameterValue", "10.0.1.300"},
	{"CreateNetworkInterface", "SubnetId=SUBNET&PrivateIpAddresses.1.PrivateIpAddress=10.0.1.4", "InvalidParameterValue", "10.0.1.4"},
	{"CreateNetworkInterface", "SubnetId=SUBNET&PrivateIpAddresses.1.Primary=true", "MissingParameter", "PrivateIpAddresses.1"},
	{"CreateNetworkInterface", "SubnetId=SUBNET&PrivateIpAddress=10.0.1.80&PrivateIpAddresses.1.PrivateIpAddress=10.0.1.81&PrivateIpAddresses.1.Primary=true", "InvalidParameterCombination", "primary"},
	{"CreateNetworkInterface", "SubnetId=SUBNET&Ipv4Prefix.1.Ipv4Prefix=10.0.1.0/28", "InvalidParameterValue", "10.0.1.0/28"},
	{"CreateNetworkInterface", "SubnetId=SUBNET&Ipv4Prefix.1.Ipv4Prefix=10.0.1.40/28", "InvalidParameterValue", "aligned"},
	{"CreateNetworkInterface", "SubnetId=SUBNET&Ipv4Prefix.1.Ipv4Prefix=10.0.1.32/27", "InvalidParameterValue", "aligned"},
	{"CreateNetworkInterface", "SubnetId=SUBNET&SecurityGroupId.1=sg-00000000", "InvalidGroup.NotFound", ""},
	{"CreateNetworkInterface", "SubnetId=SUBNET&SecurityGroupId.1=OTHERGROUP", "InvalidParameterValue", "different networks"},
	{"CreateNetworkInterface", "SubnetId=SUBNET&SecurityGroupId.1=G1&SecurityGroupId.2=G2&SecurityGroupId.3=G3&SecurityGroupId.4=G4&SecurityGroupId.5=G5&SecurityGroupId.6=G6", "SecurityGroupsPerInterfaceLimitExceeded", ""},
	{"CreateNetworkInterface", "SubnetId=SUBNET&InterfaceType=efa", "InvalidParameterValue", "InterfaceType"},
	{"CreateNetworkInterface", "SubnetId=SUBNET&Ipv6AddressCount=1", "UnknownParameter", "Ipv6AddressCount"},
	{"DeleteNetworkInterface", "NetworkInterfaceId=ENI", "InvalidParameterValue", "'ENI' is currently in use"},
	{"DeleteNetworkInterface", "NetworkInterfaceId=eni-00000000", "InvalidNetworkInterfaceID.NotFound", ""},
	{"DeleteNetworkInterface", "", "MissingParameter", "networkInterfaceId"},

	// attaching
	{"AttachNetworkInterface", "NetworkInterfaceId=FREE&InstanceId=INSTANCE", "MissingParameter", "DeviceIndex"},
	{"AttachNetworkInterface", "NetworkInterfaceId=FREE&DeviceIndex=1", "MissingParameter", "instanceId"},
	{"AttachNetworkInterface", "NetworkInterfaceId=FREE&InstanceId=i-00000000&DeviceIndex=1", "InvalidInstanceID.NotFound", ""},
	{"AttachNetworkInterface", "NetworkInterfaceId=FREE&InstanceId=INSTANCE&DeviceIndex=0", "InvalidParameterValue", "device index '0'"},
	{"AttachNetworkInterface", "NetworkInterfaceId=FREE&InstanceId=INSTANCE&DeviceIndex=one", "InvalidParameterValue", "DeviceIndex"},
	{"AttachNetworkInterface", "NetworkInterfaceId=FREE&InstanceId=INSTANCE&DeviceIndex=1000", "InvalidParameterValue", "deviceIndex"},
	{"AttachNetworkInterface", "NetworkInterfaceId=FREE&InstanceId=INSTANCE&DeviceIndex=1&NetworkCardIndex=1", "InvalidParameterValue", "card"},
	{"AttachNetworkInterface", "NetworkInterfaceId=ENI&InstanceId=INSTANCE&DeviceIndex=1", "InvalidNetworkInterface.InUse", "ENI"},
	{"AttachNetworkInterface", "NetworkInterfaceId=BIG&InstanceId=INSTANCE&DeviceIndex=1", "InvalidInterface.IpAddressLimitExceeded", "Address count 11 on interface-BIG exceeds the limit for m5.large"},
	{"AttachNetworkInterface", "NetworkInterfaceId=FREE&InstanceId=FULLINSTANCE&DeviceIndex=7", "AttachmentLimitExceeded", "Interface count 4 exceeds the limit for m5.large"},
	{"AttachNetworkInterface", "NetworkInterfaceId=FAR&InstanceId=INSTANCE&DeviceIndex=1", "InvalidParameterCombination", "availability zone"},
	{"AttachNetworkInterface", "NetworkInterfaceId=FREE&InstanceId=DEAD&DeviceIndex=1", "IncorrectState", "DEAD"},
	{"DetachNetworkInterface", "AttachmentId=ATTACHMENT", "OperationNotPermitted", "device index 0"},
	{"DetachNetworkInterface", "AttachmentId=ATTACHMENT&Force=true", "OperationNotPermitted", ""},
	{"DetachNetworkInterface", "AttachmentId=eni-attach-00000000", "InvalidAttachmentID.NotFound", ""},
	{"DetachNetworkInterface", "AttachmentId=ENI", "InvalidNetworkInterfaceAttachmentId.Malformed", ""},
	{"DetachNetworkInterface", "", "MissingParameter", "attachmentId"},
	{"ModifyNetworkInterfaceAttribute", "NetworkInterfaceId=ENI", "MissingParameter", ""},
	{"ModifyNetworkInterfaceAttribute", "NetworkInterfaceId=ENI&SourceDestCheck.Value=false&Description.Value=x", "InvalidParameterCombination", ""},
	{"ModifyNetworkInterfaceAttribute", "NetworkInterfaceId=FREE&Attachment.AttachmentId=ATTACHMENT&Attachment.DeleteOnTermination=true", "InvalidAttachmentID.NotFound", ""},
	{"ModifyNetworkInterfaceAttribute", "NetworkInterfaceId=ENI&Attachment.AttachmentId=ATTACHMENT", "MissingParameter", "deleteOnTermination"},
	{"ModifyNetworkInterfaceAttribute", "NetworkInterfaceId=ENI&SecurityGroupId.1=OTHERGROUP", "InvalidParameterValue", ""},
	{"ModifyNetworkInterfaceAttribute", "NetworkInterfaceId=ENI&SourceDestCheck.Value=0", "InvalidParameterValue", "SourceDestCheck.Value"},

	// addresses
	{"AssignPrivateIpAddresses", "NetworkInterfaceId=ENI", "MissingParameter", "secondaryPrivateIpAddressCount"},
	{"AssignPrivateIpAddresses", "NetworkInterfaceId=ENI&SecondaryPrivateIpAddressCount=10", "PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit."},
	{"AssignPrivateIpAddresses", "NetworkInterfaceId=ENI&Ipv4PrefixCount=10", "PrivateIpAddressLimitExceeded", ""},
	{"AssignPrivateIpAddresses", "NetworkInterfaceId=ENI&SecondaryPrivateIpAddressCount=5&Ipv4PrefixCount=5", "PrivateIpAddressLimitExceeded", ""},
	{"AssignPrivateIpAddresses", "NetworkInterfaceId=ENI&SecondaryPrivateIpAddressCount=2147483647&Ipv4PrefixCount=2147483647", "PrivateIpAddressLimitExceeded", ""},
	{"AssignPrivateIpAddresses", "NetworkInterfaceId=ENI&SecondaryPrivateIpAddressCount=0", "InvalidParameterValue", ""},
	{"AssignPrivateIpAddresses", "NetworkInterfaceId=ENI&SecondaryPrivateIpAddressCount=1&PrivateIpAddress.1=10.0.1.99", "InvalidParameterCombination", ""},
	{"AssignPrivateIpAddresses", "NetworkInterfaceId=ENI&PrivateIpAddress.1=10.0.1.99&PrivateIpAddress.2=10.0.1.99", "InvalidParameterValue", "10.0.1.99"},
	{"AssignPrivateIpAddresses", "NetworkInterfaceId=ENI&PrivateIpAddress.1=10.0.1.99&PrivateIpAddress.2=10.9.1.99", "InvalidParameterValue", "10.9.1.99"},
	{"AssignPrivateIpAddresses", "NetworkInterfaceId=FULLENI&SecondaryPrivateIpAddressCount=1", "InsufficientFreeAddressesInSubnet", ""},
	{"AssignPrivateIpAddresses", "NetworkInterfaceId=FULLENI&Ipv4PrefixCount=1", "InsufficientCidrBlocks", ""},
	{"AssignPrivateIpAddresses", "NetworkInterfaceId=XENENI&Ipv4PrefixCount=1", "UnsupportedOperation", "m4.large"},
	{"AssignPrivateIpAddresses", "NetworkInterfaceId=ENI&Ipv4Prefix.1=10.0.1.250/28", "InvalidParameterValue", ""},
	{"UnassignPrivateIpAddresses", "NetworkInterfaceId=ENI", "MissingParameter", ""},
	{"UnassignPrivateIpAddresses", "NetworkInterfaceId=ENI&PrivateIpAddress.1=10.0.1.4", "InvalidParameterValue", "primary"},
	{"UnassignPrivateIpAddresses", "NetworkInterfaceId=BIG&PrivateIpAddress.1=BIGSECOND&PrivateIpAddress.2=10.0.1.99", "InvalidParameterValue", "10.0.1.99"},
	{"UnassignPrivateIpAddresses", "NetworkInterfaceId=ENI&Ipv4Prefix.1=10.0.1.16/28", "InvalidParameterValue", "10.0.1.16/28"},

	// instances
	{"RunInstances", "SubnetId=SUBNET&MaxCount=1", "MissingParameter", "MinCount"},
	{"RunInstances", "MinCount=1&MaxCount=1", "VPCIdNotSpecified", ""},
	{"RunInstances", "MinCount=2&MaxCount=1&SubnetId=SUBNET", "InvalidParameterValue", "minCount"},
	{"RunInstances", "MinCount=1&MaxCount=1001&SubnetId=SUBNET", "InstanceLimitExceeded", ""},
	{"RunInstances", "MinCount=1&MaxCount=1&SubnetId=SUBNET&InstanceType=m5.tiny", "InvalidParameterValue", "Invalid value 'm5.tiny' for InstanceType."},
	{"RunInstances", "MinCount=1&MaxCount=1&SubnetId=FULL", "InsufficientFreeAddressesInSubnet", ""},
	{"RunInstances", "MinCount=2&MaxCount=2&SubnetId=SUBNET&PrivateIpAddress=10.0.1.99", "InvalidParameterCombination", ""},
	{"RunInstances", "MinCount=1&MaxCount=1&SubnetId=SUBNET&PrivateIpAddress=10.0.1.4", "InvalidIPAddress.InUse", ""},
	{"RunInstances", "MinCount=1&MaxCount=1&SubnetId=SUBNET&NetworkInterface.1.DeviceIndex=0", "InvalidParameterCombination", "instance-level"},
	{"RunInstances", "MinCount=1&MaxCount=1&NetworkInterface.1.SubnetId=SUBNET", "MissingParameter", "NetworkInterface.1.DeviceIndex"},
	{"RunInstances", "MinCount=1&MaxCount=1&NetworkInterface.1.DeviceIndex=1&NetworkInterface.1.SubnetId=SUBNET", "InvalidParameterValue", "device index 0"},
	{"RunInstances", "MinCount=1&MaxCount=1&NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.SubnetId=SUBNET&NetworkInterface.2.DeviceIndex=0&NetworkInterface.2.SubnetId=SUBNET&InstanceType=m5.large", "InvalidParameterValue", "already has"},
	{"RunInstances", "MinCount=1&MaxCount=1&NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.SubnetId=SUBNET&NetworkInterface.1.SecondaryPrivateIpAddressCount=10&InstanceType=m5.large", "InvalidInterface.IpAddressLimitExceeded", "Address count 11"},
	{"RunInstances", "MinCount=1&MaxCount=1&NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.NetworkInterfaceId=FREE&NetworkInterface.1.SubnetId=SUBNET", "InvalidParameterCombination", ""},
	{"RunInstances", "MinCount=1&MaxCount=1&NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.NetworkInterfaceId=ENI", "InvalidNetworkInterface.InUse", ""},
	{"RunInstances", "MinCount=1&MaxCount=1&SubnetId=SUBNET&MetadataOptions.HttpPutResponseHopLimit=65", "InvalidParameterValue", "HttpPutResponseHopLimit"},
	{"RunInstances", "MinCount=1&MaxCount=1&SubnetId=SUBNET&MetadataOptions.HttpTokens=maybe", "InvalidParameterValue", "HttpTokens"},
	{"RunInstances", "MinCount=1&MaxCount=1&SubnetId=SUBNET&UserData=%25", "InvalidUserData.Malformed", ""},
	{"RunInstances", "MinCount=1&MaxCount=1&SubnetId=SUBNET&EbsOptimized=true", "UnknownParameter", "EbsOptimized"},
	{"TerminateInstances", "", "MissingParameter", "InstanceId"},
	{"TerminateInstances", "InstanceId.1=INSTANCE&InstanceId.2=i-00000000", "InvalidInstanceID.NotFound", "'i-00000000'"},

	// tags
	{"CreateTags", "ResourceId.1=VPC", "MissingParameter", "tagSet"},
	{"CreateTags", "Tag.1.Key=a", "MissingParameter", "resourceIdSet"},
	{"CreateTags", "ResourceId.1=VPC&ResourceId.2=eni-00000000&Tag.1.Key=a", "InvalidNetworkInterfaceID.NotFound", ""},
	{"CreateTags", "ResourceId.1=nonsense&Tag.1.Key=a", "InvalidID", "'nonsense'"},
	{"CreateTags", "ResourceId.1=ATTACHMENT&Tag.1.Key=a", "InvalidID", ""},
	{"CreateTags", "ResourceId.1=VPC&Tag.1.Value=a", "InvalidTagKey.Malformed", ""},
	{"CreateTags", "ResourceId.1=VPC&Tag.1.Key=a&Tag.2.Key=a", "InvalidParameterValue", "'a'"},
	{"CreateTags", "ResourceId.1=VPC&Tag.1.Key=" + strings.Repeat("k", 129), "InvalidParameterValue", "128"},
	{"CreateTags", "ResourceId.1=VPC&Tag.1.Key=a&Tag.1.Value=" + strings.Repeat("v", 257), "InvalidParameterValue", "256"},
	{"CreateTags", "ResourceId.1=VPC" + manyTags(51), "TagLimitExceeded", "50"},

	// deleting networks
	{"DeleteVpc", "", "MissingParameter", "vpcId"},
	{"DeleteVpc", "VpcId=VPC", "DependencyViolation", "The vpc 'VPC' has dependencies"},
	{"DeleteSubnet", "SubnetId=SUBNET", "DependencyViolation", ""},
	{"DeleteSubnet", "SubnetId=subnet-00000000", "InvalidSubnetID.NotFound", ""},
	{"ModifySubnetAttribute", "SubnetId=SUBNET", "MissingParameter", ""},
	{"ModifySubnetAttribute", "SubnetId=SUBNET&EnableDns64.Value=true", "UnknownParameter", "EnableDns64"},
	{"DisassociateVpcCidrBlock", "AssociationId=MAINBLOCK", "OperationNotPermitted", "primary"},
	{"DisassociateVpcCidrBlock", "AssociationId=vpc-cidr-assoc-00000000", "InvalidVpcCidrBlockAssociationID.NotFound", ""},
	{"DescribeRegions", "RegionName.1=mars-1", "InvalidParameterValue", "mars-1"},

	// rules of security groups
	{"AuthorizeSecurityGroupIngress", "GroupId=G1", "MissingParameter", "ipPermissions"},
	{"AuthorizeSecurityGroupIngress", "IpProtocol=-1&CidrIp=0.0.0.0/0", "MissingParameter", "groupId"},
	{"AuthorizeSecurityGroupIngress", "GroupId=sg-00000000&IpProtocol=-1&CidrIp=0.0.0.0/0", "InvalidGroup.NotFound", ""},
	{"AuthorizeSecurityGroupIngress", "GroupId=G1&IpPermissions.1.IpProtocol=-1", "MissingParameter", "source"},
	{"AuthorizeSecurityGroupIngress", "GroupId=G1&IpProtocol=tcp&CidrIp=0.0.0.0/0", "InvalidParameterValue", "from and to ports"},
	{"AuthorizeSecurityGroupIngress", "GroupId=G1&IpProtocol=tcp&FromPort=90&ToPort=80&CidrIp=0.0.0.0/0", "InvalidParameterValue", "(90-80)"},
	{"AuthorizeSecurityGroupIngress", "GroupId=G1&IpProtocol=tcp&FromPort=1&ToPort=65536&CidrIp=0.0.0.0/0", "InvalidParameterValue", "out of range"},
	{"AuthorizeSecurityGroupIngress", "GroupId=G1&IpProtocol=tcpp&CidrIp=0.0.0.0/0", "InvalidParameterValue", "'tcpp'"},
	{"AuthorizeSecurityGroupIngress", "GroupId=G1&IpProtocol=icmp&FromPort=-1&ToPort=3&CidrIp=0.0.0.0/0", "InvalidParameterValue", "ICMP"},
	{"AuthorizeSecurityGroupIngress", "GroupId=G1&IpProtocol=-1&CidrIp=10.0.0.0", "InvalidParameterValue", "CIDR"},
	{"AuthorizeSecurityGroupIngress", "GroupId=G1&IpPermissions.1.IpProtocol=-1&IpPermissions.1.Groups.1.GroupId=OTHERGROUP", "InvalidGroup.NotFound", "different networks"},
	{"AuthorizeSecurityGroupIngress", "GroupId=G1&IpPermissions.1.IpProtocol=-1&IpPermissions.1.PrefixListIds.1.PrefixListId=pl-00000000", "InvalidPrefixListID.NotFound", ""},
	{"AuthorizeSecurityGroupIngress", "GroupId=G1&IpPermissions.1.IpProtocol=-1&IpPermissions.1.Ipv6Ranges.1.CidrIpv6=::/0", "UnknownParameter", "Ipv6Ranges"},
	{"AuthorizeSecurityGroupEgress", "GroupId=G1&IpProtocol=-1&CidrIp=0.0.0.0/0", "InvalidPermission.Duplicate", "peer: 0.0.0.0/0, ALL, ALLOW"},
	{"AuthorizeSecurityGroupIngress", "GroupId=G1" + manyRules(61), "RulesPerSecurityGroupLimitExceeded", ""},
	{"RevokeSecurityGroupIngress", "GroupId=G1&IpProtocol=-1&CidrIp=0.0.0.0/0", "InvalidPermission.NotFound", ""},
	{"RevokeSecurityGroupIngress", "GroupId=G1&SecurityGroupRuleId.1=sgr-00000000", "InvalidSecurityGroupRuleId.NotFound", ""},
	{"DeleteSecurityGroup", "GroupId=DEFAULT", "CannotDelete", "default"},
	{"DeleteSecurityGroup", "GroupId=G2", "DependencyViolation", "G2"},

	// prefix lists
	{"CreateManagedPrefixList", "PrefixListName=l&MaxEntries=5", "MissingParameter", "AddressFamily"},
	{"CreateManagedPrefixList", "PrefixListName=l&MaxEntries=5&AddressFamily=IPv6", "InvalidParameterValue", "AddressFamily"},
	{"CreateManagedPrefixList", "PrefixListName=com.amazonaws.x&MaxEntries=5&AddressFamily=IPv4", "InvalidParameterValue", "com.amazonaws.x"},
	{"CreateManagedPrefixList", "PrefixListName=l&MaxEntries=1&AddressFamily=IPv4&Entry.1.Cidr=10.0.0.0/8&Entry.2.Cidr=11.0.0.0/8", "PrefixListMaxEntriesExceeded", ""},
	{"CreateManagedPrefixList", "PrefixListName=l&MaxEntries=5&AddressFamily=IPv4&Entry.1.Cidr=10.0.0.0/8&Entry.2.Cidr=10.0.0.1/8", "InvalidParameterValue", "twice"},
	{"ModifyManagedPrefixList", "PrefixListId=LIST&AddEntry.1.Cidr=11.0.0.0/8", "MissingParameter", "currentVersion"},
	{"ModifyManagedPrefixList", "PrefixListId=LIST&CurrentVersion=9&AddEntry.1.Cidr=11.0.0.0/8", "PrefixListVersionMismatch", "not 9"},
	{"ModifyManagedPrefixList", "PrefixListId=LIST&CurrentVersion=1&RemoveEntry.1.Cidr=11.0.0.0/8", "InvalidParameterValue", "11.0.0.0/8"},
	{"DeleteManagedPrefixList", "PrefixListId=LIST", "DependencyViolation", "LIST"},
	{"GetManagedPrefixListEntries", "PrefixListId=x", "InvalidPrefixListId.Malformed", ""},

	// network ACLs
	{"CreateNetworkAcl", "VpcId=vpc-00000000", "InvalidVpcID.NotFound", ""},
	{"CreateNetworkAclEntry", "NetworkAclId=ACL&RuleNumber=100&Egress=false&Protocol=-1&RuleAction=allow&CidrBlock=0.0.0.0/0", "NetworkAclEntryAlreadyExists", "100"},
	{"CreateNetworkAclEntry", "NetworkAclId=ACL&RuleNumber=32767&Egress=false&Protocol=-1&RuleAction=allow&CidrBlock=0.0.0.0/0", "InvalidParameterValue", "32767"},
	{"CreateNetworkAclEntry", "NetworkAclId=ACL&RuleNumber=1&Egress=false&Protocol=6&RuleAction=allow&CidrBlock=0.0.0.0/0", "MissingParameter", "PortRange.From"},
	{"CreateNetworkAclEntry", "NetworkAclId=ACL&RuleNumber=1&Egress=false&Protocol=-1&RuleAction=allow", "MissingParameter", "cidrBlock"},
	{"CreateNetworkAclEntry", "NetworkAclId=ACL&RuleNumber=1&Protocol=-1&RuleAction=allow&CidrBlock=0.0.0.0/0", "MissingParameter", "Egress"},
	{"CreateNetworkAclEntry", "NetworkAclId=acl-00000000&RuleNumber=1&Egress=false&Protocol=-1&RuleAction=allow&CidrBlock=0.0.0.0/0", "InvalidNetworkAclID.NotFound", ""},
	{"DeleteNetworkAclEntry", "NetworkAclId=ACL&RuleNumber=1&Egress=true", "InvalidNetworkAclEntry.NotFound", ""},
	{"DeleteNetworkAcl", "NetworkAclId=ACL", "InvalidParameterValue", "default"},
	{"ReplaceNetworkAclAssociation", "AssociationId=aclassoc-00000000&NetworkAclId=ACL", "InvalidAssociationID.NotFound", ""},

	// route tables
	{"CreateRoute", "RouteTableId=TABLE&DestinationCidrBlock=1.0.0.0/8", "MissingParameter", ""},
	{"CreateRoute", "RouteTableId=TABLE&GatewayId=GATEWAY", "MissingParameter", "destinationCidrBlock"},
	{"CreateRoute", "RouteTableId=TABLE&DestinationCidrBlock=0.0.0.0/0&GatewayId=GATEWAY", "RouteAlreadyExists", "0.0.0.0/0"},
	{"CreateRoute", "RouteTableId=TABLE&DestinationCidrBlock=10.0.0.0/16&NetworkInterfaceId=ENI", "RouteAlreadyExists", "10.0.0.0/16"},
	{"CreateRoute", "RouteTableId=TABLE&DestinationCidrBlock=10.0.1.0/24&GatewayId=GATEWAY", "InvalidParameterValue", "more specific"},
	{"CreateRoute", "RouteTableId=TABLE&DestinationCidrBlock=10.0.1.0/25&NetworkInterfaceId=ENI", "InvalidParameterValue", "doesn't match any subnet"},
	{"CreateRoute", "RouteTableId=TABLE&DestinationCidrBlock=1.0.0.0/8&GatewayId=GATEWAY&NetworkInterfaceId=ENI", "InvalidParameterCombination", ""},
	{"CreateRoute", "RouteTableId=TABLE&DestinationCidrBlock=1.0.0.0/8&InstanceId=FULLINSTANCE", "InvalidInstanceID", "multiple interfaces"},
	{"CreateRoute", "RouteTableId=TABLE&DestinationCidrBlock=1.0.0.0/8&GatewayId=igw-00000000", "InvalidInternetGatewayID.NotFound", ""},
	{"CreateRoute", "RouteTableId=TABLE&DestinationCidrBlock=1.0.0.0/8&NatGatewayId=nat-00000000", "NatGatewayNotFound", ""},
	{"CreateRoute", "RouteTableId=TABLE&DestinationCidrBlock=1.0.0.0/8&VpcPeeringConnectionId=pcx-00000000", "InvalidVpcPeeringConnectionID.NotFound", ""},
	{"CreateRoute", "RouteTableId=TABLE&DestinationCidrBlock=1.0.0.0/8&TransitGatewayId=tgw-00000000", "InvalidTransitGatewayID.NotFound", ""},
	{"ReplaceRoute", "RouteTableId=TABLE&DestinationCidrBlock=1.0.0.0/8&GatewayId=GATEWAY", "InvalidParameterValue", "no route defined"},
	{"DeleteRoute", "RouteTableId=TABLE&DestinationCidrBlock=10.0.0.0/16", "InvalidParameterValue", "local route"},
	{"DeleteRoute", "RouteTableId=TABLE&DestinationCidrBlock=1.0.0.0/8", "InvalidRoute.NotFound", ""},
	{"DeleteRouteTable", "RouteTableId=TABLE", "DependencyViolation", ""},
	{"AssociateRouteTable", "RouteTableId=rtb-00000000&SubnetId=SUBNET", "InvalidRouteTableID.NotFound", ""},
	{"DisassociateRouteTable", "AssociationId=rtbassoc-00000000", "InvalidAssociationID.NotFound", ""},

	// gateways and addresses
	{"AttachInternetGateway", "InternetGatewayId=GATEWAY&VpcId=VPC", "Resource.AlreadyAssociated", ""},
	{"DeleteInternetGateway", "InternetGatewayId=GATEWAY", "DependencyViolation", ""},
	{"DetachInternetGateway", "InternetGatewayId=GATEWAY&VpcId=VPC", "DependencyViolation", "mapped public address"},
	{"DetachInternetGateway", "InternetGatewayId=igw-00000000&VpcId=VPC", "InvalidInternetGatewayID.NotFound", ""},
	{"CreateNatGateway", "SubnetId=SUBNET", "MissingParameter", "allocationId"},
	{"CreateNatGateway", "SubnetId=SUBNET&AllocationId=EIP", "Resource.AlreadyAssociated", ""},
	{"CreateNatGateway", "SubnetId=SUBNET&ConnectivityType=private&AllocationId=EIP", "InvalidParameterCombination", ""},
	{"CreateNatGateway", "SubnetId=SUBNET&ConnectivityType=private&PrivateIpAddress=10.0.1.4", "InvalidIPAddress.InUse", ""},
	{"DescribeNatGateways", "NatGatewayId.1=nat-00000000", "NatGatewayNotFound", ""},
	{"DescribeNatGateways", "NatGatewayId.1=x", "NatGatewayMalformed", ""},
	{"AssociateAddress", "AllocationId=eipalloc-00000000&InstanceId=INSTANCE", "InvalidAllocationID.NotFound", ""},
	{"AssociateAddress", "AllocationId=EIP", "MissingParameter", ""},
	{"AssociateAddress", "AllocationId=EIP&NetworkInterfaceId=ENI&PrivateIpAddress=10.0.1.200", "InvalidParameterValue", "10.0.1.200"},
	{"AssociateAddress", "AllocationId=EIP&NetworkInterfaceId=BIG&AllowReassociation=false", "Resource.AlreadyAssociated", ""},
	{"AssociateAddress", "AllocationId=EIP&InstanceId=FULLINSTANCE", "InvalidInstanceID", "multiple"},
	{"DisassociateAddress", "AssociationId=eipassoc-00000000", "InvalidAssociationID.NotFound", ""},
	{"ReleaseAddress", "AllocationId=EIP", "InvalidIPAddress.InUse", ""},
	{"DescribeAddresses", "PublicIp.1=203.0.113.1", "InvalidAddress.NotFound", "203.0.113.1"},
	{"RunInstances", "MinCount=1&MaxCount=1&NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.SubnetId=SUBNET&NetworkInterface.1.AssociatePublicIpAddress=true&NetworkInterface.2.DeviceIndex=1&NetworkInterface.2.SubnetId=SUBNET", "InvalidParameterCombination", "associatePublicIPAddress"},

	// peerings
	{"CreateVpcPeeringConnection", "VpcId=VPC", "MissingParameter", "peerVpcId"},
	{"CreateVpcPeeringConnection", "VpcId=VPC&PeerVpcId=VPC", "InvalidParameterValue", "itself"},
	{"CreateVpcPeeringConnection", "VpcId=VPC&PeerVpcId=vpc-00000000&PeerRegion=mars-1", "InvalidParameterValue", "mars-1"},
	{"CreateVpcPeeringConnection", "VpcId=VPC&PeerVpcId=PEER", "VpcPeeringConnectionAlreadyExists", "PCX"},
	{"AcceptVpcPeeringConnection", "VpcPeeringConnectionId=pcx-00000000", "InvalidVpcPeeringConnectionID.NotFound", ""},
	{"RejectVpcPeeringConnection", "VpcPeeringConnectionId=PCX", "InvalidStateTransition", "from active"},
	{"DeleteVpcPeeringConnection", "VpcPeeringConnectionId=x", "InvalidVpcPeeringConnectionId.Malformed", ""},

	// transit gateways
	{"CreateTransitGateway", "Options.AmazonSideAsn=1", "InvalidParameterValue", "ASN 1"},
	{"CreateTransitGateway", "Options.MulticastSupport=enable", "InvalidParameterValue", "MulticastSupport"},
	{"DeleteTransitGateway", "TransitGatewayId=HUB", "IncorrectState", "SPOKE"},
	{"CreateTransitGatewayVpcAttachment", "TransitGatewayId=HUB&VpcId=PEER", "MissingParameter", "subnetIds"},
	{"CreateTransitGatewayVpcAttachment", "TransitGatewayId=HUB&VpcId=PEER&SubnetIds.1=SUBNET", "InvalidSubnetID.NotFound", ""},
	{"CreateTransitGatewayVpcAttachment", "TransitGatewayId=HUB&VpcId=VPC&SubnetIds.1=SUBNET&SubnetIds.2=FULL", "DuplicateSubnetsInSameZone", ""},
	{"CreateTransitGatewayVpcAttachment", "TransitGatewayId=HUB&VpcId=VPC&SubnetIds.1=SUBNET", "DuplicateTransitGatewayAttachment", ""},
	{"CreateTransitGatewayRoute", "TransitGatewayRouteTableId=HTABLE&DestinationCidrBlock=1.0.0.0/8", "MissingParameter", ""},
	{"CreateTransitGatewayRoute", "TransitGatewayRouteTableId=HTABLE&DestinationCidrBlock=1.0.0.0/8&Blackhole=true&TransitGatewayAttachmentId=SPOKE", "InvalidParameterCombination", ""},
	{"CreateTransitGatewayRoute", "TransitGatewayRouteTableId=tgw-rtb-00000000&DestinationCidrBlock=1.0.0.0/8&Blackhole=true", "InvalidRouteTableID.NotFound", ""},
	{"DeleteTransitGatewayRoute", "TransitGatewayRouteTableId=HTABLE&DestinationCidrBlock=10.0.0.0/16", "InvalidRoute.NotFound", ""},
	{"DeleteTransitGatewayRouteTable", "TransitGatewayRouteTableId=HTABLE", "IncorrectState", "default"},
	{"AssociateTransitGatewayRouteTable", "TransitGatewayRouteTableId=HTABLE&TransitGatewayAttachmentId=SPOKE", "Resource.AlreadyAssociated", ""},
	{"EnableTransitGatewayRouteTablePropagation", "TransitGatewayRouteTableId=HTABLE&TransitGatewayAttachmentId=SPOKE", "TransitGatewayRouteTablePropagation.Duplicate", ""},
	{"SearchTransitGatewayRoutes", "TransitGatewayRouteTableId=HTABLE", "MissingParameter", "Filters"},
	{"SearchTransitGatewayRoutes", "TransitGatewayRouteTableId=HTABLE&Filter.1.Name=route-search.subnet-of-match&Filter.1.Value.1=x", "InvalidParameterValue", "(x)"},
}

// A refusal has its code and status, and leaves no trace.
func TestRefusals(t *testing.T) {
	for _, tt := range refusals {
		t.Run(tt.action+"/"+tt.code+"/"+tt.parameters[:min(len(tt.parameters), 60)], func(t *testing.T) {
			c, names := refusalWorld(t)
			before := c.Snapshot()
			a := post(t, c, query(tt.action, names.Replace(tt.parameters)))
			if a.code != tt.code || !strings.Contains(a.message, names.Replace(tt.message)) {
				t.Errorf("got %s %q, want %s with %q", a.code, a.message, tt.code, names.Replace(tt.message))
			}
			if want := (&Error{Code: tt.code}).HTTPStatus(); a.status != want {
				t.Errorf("status %d, want %d", a.status, want)
			}
			if diff := sameSnapshot(before, c.Snapshot()); diff != "" {
				t.Errorf("a refused request changed the state:\n%s", diff)
			}
		})
	}
}

func manyTags(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "&Tag.%d.Key=k%d", i+1, i)
	}
	return b.String()
}

func manyRules(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "&IpPermissions.%d.IpProtocol=tcp&IpPermissions.%d.FromPort=%d&IpPermissions.%d.ToPort=%d&IpPermissions.%d.IpRanges.1.CidrIp=0.0.0.0/0", i+1, i+1, i, i+1, i, i+1)
	}
	return b.String()
}

// refusalWorld is a cloud in which something of everything is, and what the
// capital names in TestRefusals stand for.
func refusalWorld(t testing.TB) (*Cloud, *strings.Replacer) {
	t.Helper()
	c := New(Config{Now: newClock().Now})
	v, n := place(t, c)
	other := must(c.CreateVPC(CreateVPCInput{CIDR: prefix("10.0.0.0/16")}))(t)
	full := must(c.CreateSubnet(CreateSubnetInput{VPCID: v.ID, CIDR: prefix("10.0.2.0/28")}))(t)
	far := must(c.CreateSubnet(CreateSubnetInput{VPCID: v.ID, CIDR: prefix("10.0.3.0/28"), Zone: "eu-west-1c"}))(t)
	run := func(kind string, enis int) Instance {
		in := RunInstancesInput{Type: kind}
		for i := range enis {
			in.Interfaces = append(in.Interfaces, LaunchInterface{DeviceIndex: i, SubnetID: n.ID})
		}
		return must(c.RunInstances(in))(t).Instances[0]
	}
	eni := func(subnet string, secondaries int) NetworkInterface {
		return must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: subnet, Addresses: Addressing{Count: secondaries}}))(t)
	}
	instance, fullInstance, xen, dead := run("m5.large", 1), run("m5.large", 3), run("m4.large", 1), run("m5.large", 1)
	must(c.TerminateInstances(TerminateInstancesInput{IDs: []string{dead.ID}}))(t)
	big := eni(n.ID, 10)
	pairs := []string{
		"FULLINSTANCE", fullInstance.ID, "FULLENI", eni(full.ID, 10).ID, "FULL", full.ID, "FAR", eni(far.ID, 0).ID,
		"DEAD", dead.ID, "BIGSECOND", big.Secondary[0].String(), "BIG", big.ID, "FREE", eni(n.ID, 0).ID,
	}
	for i := 1; i <= 6; i++ {
		g := must(c.CreateSecurityGroup(CreateSecurityGroupInput{VPCID: v.ID, Name: fmt.Sprint("g", i), Description: "d"}))(t)
		pairs = append(pairs, fmt.Sprint("G", i), g.ID)
	}
	pairs = append(refusalVPC(t, c, v, n), append([]string{"XENENI", xen.Interfaces[0], "XEN", xen.ID}, pairs...)...)
	pairs = append(refusalMore(t, c, v, other, fullInstance), pairs...)
	snap := c.Snapshot()
	otherGroup := snap.Groups[slices.IndexFunc(snap.Groups, func(g SecurityGroup) bool { return g.VPCID == other.ID })]
	primary := snap.Interfaces[slices.IndexFunc(snap.Interfaces, func(e NetworkInterface) bool { return e.ID == instance.Interfaces[0] })]
	return c, strings.NewReplacer(append(pairs, "OTHERGROUP", otherGroup.ID, "ENI", primary.ID,
		"ATTACHMENT", primary.Attachment.ID, "INSTANCE", instance.ID, "SUBNET", n.ID, "VPC", v.ID)...)
}

// refusalVPC gives v one of everything that joins it to others, and what the
// names stand for.
func refusalVPC(t testing.TB, c *Cloud, v VPC, n Subnet) []string {
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	peer := must(c.CreateVPC(CreateVPCInput{CIDR: prefix("10.7.0.0/16")}))(t)
	p := must(c.CreateVPCPeeringConnection(CreateVPCPeeringInput{VPCID: v.ID, PeerVPCID: peer.ID}))(t)
	must(c.AcceptVPCPeeringConnection(VPCPeeringInput{p.ID}))(t)
	g := must(c.CreateInternetGateway(CreateInternetGatewayInput{}))(t)
	ok(c.AttachInternetGateway(InternetGatewayInput{g.ID, v.ID}))
	ok(c.CreateRoute(RouteInput{TableID: v.MainRouteTable, Dst: prefix("0.0.0.0/0"), Gateway: g.ID}))
	a := must(c.AllocateAddress(AllocateAddressInput{}))(t)
	must(c.CreateNATGateway(CreateNATGatewayInput{SubnetID: n.ID, AllocationID: a.ID}))(t)
	h := must(c.CreateTransitGateway(CreateTransitGatewayInput{}))(t)
	spoke := must(c.CreateTransitGatewayVPCAttachment(CreateTransitAttachmentInput{GatewayID: h.ID, VPCID: v.ID, Subnets: []string{n.ID}}))(t)
	list := must(c.CreateManagedPrefixList(CreateManagedPrefixListInput{Name: "l", MaxEntries: 3, Entries: []PrefixListEntry{{CIDR: prefix("10.0.0.0/8")}}}))(t)
	snap := c.Snapshot()
	def := snap.Groups[slices.IndexFunc(snap.Groups, func(g SecurityGroup) bool { return g.VPCID == v.ID && g.Name == "default" })]
	group := snap.Groups[slices.IndexFunc(snap.Groups, func(g SecurityGroup) bool { return g.Name == "g2" })]
	must(c.AuthorizeSecurityGroupIngress(GroupRulesInput{GroupID: def.ID, Rules: []GroupRule{
		{Protocol: AllProtocols, PrefixList: list.ID}, {Protocol: ProtocolTCP, From: 22, To: 22, Group: group.ID},
	}}))(t)
	return []string{
		"PEER", peer.ID, "PCX", p.ID, "GATEWAY", g.ID, "HTABLE", h.AssociationTable, "TABLE", v.MainRouteTable, "EIP", a.ID, "HUB", h.ID, "SPOKE", spoke.ID,
		"LIST", list.ID, "ACL", n.ACL, "DEFAULT", def.ID, "MAINBLOCK", BlockAssociationID(v.ID, v.CIDRs[0]),
	}
}

func TestProtocol(t *testing.T) {
	c := New(Config{})
	request := func(method, target, body string) answer {
		return send(t, c, httptest.NewRequest(method, target, strings.NewReader(body)))
	}
	presigned := "&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=x&X-Amz-Signature=y"
	for _, tt := range []struct {
		name   string
		got    answer
		status int
		code   string
	}{
		{"post", request("POST", "/", query("DescribeVpcs")), 200, ""},
		{"get", request("GET", "/?"+query("DescribeVpcs")+presigned, ""), 200, ""},
		{"split", request("POST", "/?Action=DescribeVpcs", "Version=2016-11-15"), 200, ""},
		{"twice", request("POST", "/?Action=DescribeVpcs", query("DescribeVpcs")), 400, "InvalidQueryParameter"},
		{"no action", request("POST", "/", "Version=2016-11-15"), 400, "MissingAction"},
		{"no version", request("POST", "/", "Action=DescribeVpcs"), 400, "MissingParameter"},
		{"old version", request("POST", "/", "Action=DescribeVpcs&Version=2014-01-01"), 400, "NoSuchVersion"},
		{"method", request("PUT", "/", query("DescribeVpcs")), 405, "MethodNotAllowed"},
		{"path", request("POST", "/x", query("DescribeVpcs")), 404, "InvalidRequest"},
		{"bad query", request("GET", "/?a=%zz", ""), 400, "MalformedQueryString"},
		{"large", request("POST", "/", query("DescribeVpcs", "x="+strings.Repeat("x", maxBody))), 413, "RequestEntityTooLarge"},
		{"members", request("POST", "/", query("TerminateInstances", members(maxMembers+1))), 400, "InvalidParameterValue"},
	} {
		if tt.got.status != tt.status || tt.got.code != tt.code {
			t.Errorf("%s: %d %s %s, want %d %s", tt.name, tt.got.status, tt.got.code, tt.got.message, tt.status, tt.code)
		}
	}
}

func members(n int) string {
	form := url.Values{}
	for i := range n {
		form.Set(fmt.Sprintf("InstanceId.%d", i+1), "i-00000000")
	}
	return form.Encode()
}

// The exact bytes of a refusal, which clients without an XML parser match.
func TestErrorEnvelope(t *testing.T) {
	a := post(t, New(Config{}), query("Nope<"))
	_, id, _ := strings.Cut(a.body, "<RequestID>")
	id, _, _ = strings.Cut(id, "<")
	want := `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<Response><Errors><Error><Code>InvalidAction</Code><Message>The action Nope&lt; is not valid for this web service.</Message></Error></Errors><RequestID>` + id + `</RequestID></Response>`
	if a.body != want || len(id) != 36 {
		t.Errorf("got\n%s\nwant\n%s", a.body, want)
	}
}

func TestInjectedBeforeParameters(t *testing.T) {
	c := New(Config{})
	c.InjectError("CreateNetworkInterface", &Error{Code: "InsufficientFreeAddressesInSubnet", Message: "m"}, 1)
	if a := post(t, c, query("CreateNetworkInterface", "Nonsense=1")); a.code != "InsufficientFreeAddressesInSubnet" || a.status != 400 {
		t.Errorf("injected: %+v", a)
	}
	if a := post(t, c, query("CreateNetworkInterface", "Nonsense=1")); a.code != "UnknownParameter" {
		t.Errorf("after the injected: %+v", a)
	}
}
