package cli

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/lab/world"
)

// known is a lab of two VPCs in two regions.
var known = world.Objects{Region: "eu-west-1", Objects: []world.Object{
	{Kind: world.KindVPC, ID: "vpc-1", Name: "left", Region: "eu-west-1"},
	{Kind: world.KindVPC, ID: "vpc-2", Name: "right", Region: "us-east-1"},
	{Kind: world.KindInternetGateway, ID: "igw-1", Name: "left", Scope: "left", Region: "eu-west-1"},
	{Kind: world.KindSubnet, ID: "subnet-1", Name: "a", Scope: "left", Region: "eu-west-1"},
	{Kind: world.KindSubnet, ID: "subnet-2", Name: "b", Scope: "left", Region: "eu-west-1"},
	{Kind: world.KindSubnet, ID: "subnet-3", Name: "c", Scope: "right", Region: "us-east-1"},
	{Kind: world.KindRouteTable, ID: "rtb-1", Name: "left", Scope: "left", Region: "eu-west-1", After: world.KindVPC},
	{Kind: world.KindRouteTable, ID: "rtb-1", Name: "a", Scope: "left", Region: "eu-west-1", After: world.KindSubnet},
	{Kind: world.KindRouteTable, ID: "rtb-2", Name: "b", Scope: "left", Region: "eu-west-1", After: world.KindSubnet},
	{Kind: world.KindRouteTable, ID: "rtb-3", Name: "a", Scope: "right", Region: "us-east-1"},
	{Kind: world.KindRouteTable, ID: "rtb-4", Name: "b", Scope: "left", Region: "eu-west-1"},
	{Kind: world.KindGroup, ID: "sg-1", Name: "default", Scope: "left", Region: "eu-west-1"},
	{Kind: world.KindGroup, ID: "sg-2", Name: "default", Scope: "right", Region: "us-east-1"},
	{Kind: world.KindGroup, ID: "sg-3", Name: "web", Scope: "left", Region: "eu-west-1"},
	{Kind: world.KindPrefixList, ID: "pl-1", Name: "offices", Region: "eu-west-1"},
	{Kind: world.KindPrefixList, ID: "pl-2", Name: "offices", Region: "us-east-1"},
	{Kind: world.KindPeering, ID: "pcx-1", Name: "left-right"},
	{Kind: world.KindENI, ID: "eni-1", Name: "ens5", Scope: "node-a", Region: "eu-west-1"},
	{Kind: world.KindENI, ID: "eni-1", Name: "node-a", Region: "eu-west-1", After: world.KindInstance},
	{Kind: world.KindENI, ID: "eni-2", Name: "ens6", Scope: "node-a", Region: "eu-west-1"},
	{Kind: world.KindAttachment, ID: "eni-attach-2", Name: "ens6", Scope: "node-a", Region: "eu-west-1"},
	{Kind: world.KindInstance, ID: "i-1", Name: "node-a", Region: "eu-west-1"},
	{Kind: world.KindACLAssociation, ID: "aclassoc-1", Name: "a", Scope: "left", Region: "eu-west-1", After: world.KindSubnet},
	{Kind: world.KindTableAssociation, ID: "rtbassoc-1", Name: "a", Scope: "left", Region: "eu-west-1", After: world.KindSubnet},
	{Kind: world.KindBlock, ID: "vpc-cidr-assoc-1", Name: "10.9.0.0/16", Scope: "left", Region: "eu-west-1", After: world.KindVPC},
}}

func TestEC2Names(t *testing.T) {
	for _, tt := range []struct {
		call   string
		want   string // parameters, or a part of the error
		region string
	}{
		{"CreateRoute RouteTableId=@left/a DestinationCidrBlock=10.1.0.0/16 VpcPeeringConnectionId=@left-right",
			"RouteTableId=rtb-1 DestinationCidrBlock=10.1.0.0/16 VpcPeeringConnectionId=pcx-1", "eu-west-1"},
		{"CreateRoute RouteTableId=@right/a", "RouteTableId=rtb-3", "us-east-1"},
		{"CreateRoute RouteTableId=@b", "RouteTableId=rtb-4", "eu-west-1"}, // its own name, not that of the subnet's
		{"CreateRoute RouteTableId=@left", "RouteTableId=rtb-1", "eu-west-1"},
		{"CreateRoute RouteTableId=@a", "RouteTableId=rtb-1", "eu-west-1"}, // in the lab's region
		{"--region=us-east-1 CreateRoute RouteTableId=@a", "RouteTableId=rtb-3", "us-east-1"},
		{"CreateSubnet VpcId=@right CidrBlock=10.1.9.0/24", "VpcId=vpc-2 CidrBlock=10.1.9.0/24", "us-east-1"},
		{"CreateVpcPeeringConnection VpcId=@left PeerVpcId=@right PeerRegion=us-east-1", "VpcId=vpc-1 PeerVpcId=vpc-2 PeerRegion=us-east-1", "eu-west-1"},
		{"AssignPrivateIpAddresses NetworkInterfaceId=@node-a/ens6", "NetworkInterfaceId=eni-2", "eu-west-1"},
		{"AssignPrivateIpAddresses NetworkInterfaceId=@node-a", "NetworkInterfaceId=eni-1", "eu-west-1"},
		{"DetachNetworkInterface AttachmentId=@node-a/ens6", "AttachmentId=eni-attach-2", "eu-west-1"},
		{"AuthorizeSecurityGroupIngress GroupId=@web IpPermissions.1.PrefixListIds.1.PrefixListId=@offices IpPermissions.1.UserIdGroupPairs.1.GroupId=@left/default",
			"GroupId=sg-3 IpPermissions.1.PrefixListIds.1.PrefixListId=pl-1 IpPermissions.1.UserIdGroupPairs.1.GroupId=sg-1", "eu-west-1"},
		{"RunInstances NetworkInterface.1.SubnetId=@c NetworkInterface.1.SecurityGroupId.1=@default",
			"NetworkInterface.1.SubnetId=subnet-3 NetworkInterface.1.SecurityGroupId.1=sg-2", "us-east-1"},
		{"ReplaceNetworkAclAssociation AssociationId=@a", "AssociationId=aclassoc-1", "eu-west-1"},
		{"ReplaceRouteTableAssociation AssociationId=@a", "AssociationId=rtbassoc-1", "eu-west-1"},
		{"DisassociateVpcCidrBlock AssociationId=@left/10.9.0.0/16", "AssociationId=vpc-cidr-assoc-1", "eu-west-1"},
		{"DescribeSubnets Filter.1.Name=vpc-id Filter.1.Value.1=@left", "Filter.1.Name=vpc-id Filter.1.Value.1=vpc-1", "eu-west-1"},
		{"DescribeNetworkInterfaces Filter.1.Name=attachment.instance-id Filter.1.Value.1=@node-a", "Filter.1.Name=attachment.instance-id Filter.1.Value.1=i-1", "eu-west-1"},
		{"DescribeTags Filter.1.Name=resource-id Filter.1.Value.1=@node-a", "Filter.1.Name=resource-id Filter.1.Value.1=i-1", "eu-west-1"},
		{"CreateTags ResourceId.1=@web Tag.1.Key=mail Tag.1.Value=@@x", "ResourceId.1=sg-3 Tag.1.Key=mail Tag.1.Value=@x", "eu-west-1"},
		{"CreateFlowLogs ResourceType=VPC ResourceId.1=@left", "ResourceType=VPC ResourceId.1=vpc-1", "eu-west-1"},

		{"CreateTags ResourceId.1=@left", "ResourceId.1=@left is ambiguous: vpc left (vpc-1), internet-gateway left/left (igw-1); write", ""},
		{"CreateSubnet VpcId=@middle", "no vpc has this name; there are: left, right", ""},
		{"CreateRoute NatGatewayId=@out", "the lab has no nat gateway", ""},
		{"CreateTags ResourceId.1=@nobody", "nothing has this name", ""},
		{"RunInstances SubnetId=@a SecurityGroupId.1=@right/default", "sg-2 is in us-east-1, and the call is done in eu-west-1", ""},
		{"--region=eu-west-1 CreateSubnet VpcId=@right", "vpc-2 is in us-east-1, and the call is done in eu-west-1; use --region us-east-1, or a name of eu-west-1", ""},
	} {
		words := strings.Fields(tt.call)
		region := ""
		if r, ok := strings.CutPrefix(words[0], "--region="); ok {
			region, words = r, words[1:]
		}
		params, err := parseParams(words[1:])
		if err != nil {
			t.Fatal(err)
		}
		got, err := ec2Call{Action: words[0], Params: params, Region: region}.resolve(known)
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) || tt.region != "" {
				t.Errorf("%s: %v, want %s", tt.call, err, tt.want)
			}
			continue
		}
		var text []string
		for _, p := range got.Params {
			text = append(text, p.name+"="+p.value)
		}
		if diff := cmp.Diff(tt.want, strings.Join(text, " ")); diff != "" || got.Region != tt.region {
			t.Errorf("%s: in %s, want %s (-want +got)\n%s", tt.call, got.Region, tt.region, diff)
		}
	}
}

func TestEC2Params(t *testing.T) {
	for _, args := range [][]string{{"VpcId"}, {"=x"}, {"A=1", "A=2"}} {
		if _, err := parseParams(args); !errors.Is(err, ErrUsage) {
			t.Errorf("%q: %v", args, err)
		}
	}
	got, err := parseParams([]string{"A=1=2", "B="})
	if err != nil || !cmp.Equal(got, []param{{"A", "1=2"}, {"B", ""}}, cmp.AllowUnexported(param{})) {
		t.Errorf("%v, %v", got, err)
	}
}

const describe = `<?xml version="1.0" encoding="UTF-8"?>
<DescribeVpcsResponse xmlns="x"><requestId>r</requestId><vpcSet>
<item><vpcId>vpc-1</vpcId><isDefault>false</isDefault><tagSet><item><key>Name</key><value>a</value></item></tagSet></item>
<item><vpcId>vpc-2</vpcId><tagSet></tagSet></item></vpcSet></DescribeVpcsResponse>`

func TestEC2Answer(t *testing.T) {
	root, err := parseXML([]byte(describe))
	if err != nil {
		t.Fatal(err)
	}
	want := [][2]string{
		{"vpcSet.1.vpcId", "vpc-1"}, {"vpcSet.1.isDefault", "false"},
		{"vpcSet.1.tagSet.1.key", "Name"}, {"vpcSet.1.tagSet.1.value", "a"}, {"vpcSet.2.vpcId", "vpc-2"},
	}
	if diff := cmp.Diff(want, root.leaves()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	b, err := json.Marshal(root.json())
	if want := `{"vpcSet":[{"isDefault":"false","tagSet":[{"key":"Name","value":"a"}],"vpcId":"vpc-1"},{"tagSet":[],"vpcId":"vpc-2"}]}`; err != nil || string(b) != want {
		t.Errorf("%s, %v, want %s", b, err, want)
	}
	for _, bad := range []string{"", "<a>", "<a/><b/>", strings.Repeat("<a>", maxNesting+1) + strings.Repeat("</a>", maxNesting+1)} {
		if _, err := parseXML([]byte(bad)); err == nil {
			t.Errorf("%.20q is taken", bad)
		}
	}
}

func FuzzEC2Answer(f *testing.F) {
	f.Add([]byte(describe))
	f.Add([]byte("<a><item/><b>1</b></a>"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		root, err := parseXML(answer)
		if err != nil {
			return
		}
		if _, err := json.Marshal(root.json()); err != nil {
			t.Error(err)
		}
		for _, l := range root.leaves() {
			if l[0] == "" || l[1] == "" {
				t.Errorf("leaf %q", l)
			}
		}
	})
}

// What the caller has to mend is told before any lab is asked.
func TestUserEndUsage(t *testing.T) {
	lab := absent()
	for _, tt := range []struct {
		args   string
		status int
		stderr string // a part
	}{
		{"ec2", 2, "requires at least 1 arg"},
		{"ec2 DescribeVpcs VpcId", 2, `parameter "VpcId": want PARAM=VALUE`},
		{"ec2 DescribeVpcs -o table", 2, `--output "table": must be lines, json or xml`},
		{"ec2 DescribeVpcs", 1, "no lab of this name is running"},
		{"ec2 DescribeVpcs VpcId.1=@main", 1, "no lab of this name is running"},
		{"flowlog a b", 2, "accepts at most 1 arg"},
		{"flowlog -o xml", 2, `--output "xml": must be table or json`},
		{"flowlog", 1, "no lab of this name is running"},
		{"capture", 2, "accepts 1 arg"},
		{"capture a --side x", 2, `--side "x": must be fabric or guest`},
		{"capture a --count -1", 2, "must not be negative"},
		{"capture a", 1, "no lab of this name is running"},
	} {
		got := runCLI(t, append([]string{"--lab", lab}, strings.Fields(tt.args)...)...)
		if got.status != tt.status || !strings.Contains(got.stderr, tt.stderr) || got.stdout != "" {
			t.Errorf("%s: %+v, want status %d and %q", tt.args, got, tt.status, tt.stderr)
		}
	}
}
