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
		"XENENI", xen.Interfaces[0], "DEAD", dead.ID, "BIGSECOND", big.Secondary[0].String(), "BIG", big.ID, "FREE", eni(n.ID, 0).ID,
	}
	for i := 1; i <= 6; i++ {
		g := must(c.CreateSecurityGroup(CreateSecurityGroupInput{VPCID: v.ID, Name: fmt.Sprint("g", i), Description: "d"}))(t)
		pairs = append(pairs, fmt.Sprint("G", i), g.ID)
	}
	snap := c.Snapshot()
	otherGroup := snap.Groups[slices.IndexFunc(snap.Groups, func(g SecurityGroup) bool { return g.VPCID == other.ID })]
	primary := snap.Interfaces[slices.IndexFunc(snap.Interfaces, func(e NetworkInterface) bool { return e.ID == instance.Interfaces[0] })]
	return c, strings.NewReplacer(append(pairs, "OTHERGROUP", otherGroup.ID, "ENI", primary.ID,
		"ATTACHMENT", primary.Attachment.ID, "INSTANCE", instance.ID, "SUBNET", n.ID, "VPC", v.ID)...)
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
