package ec2

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// furnished is a region with some of all that a survey reads. IDs by name.
func furnished(t *testing.T) (region, map[string]string) {
	t.Helper()
	r := newRegion(t, ec2sim.Config{}, "10.0.1.0/24")
	ctx, api := t.Context(), r.c.api
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	id := map[string]string{}
	other, err := api.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.9.0.0/16")})
	fatal(err)
	id["other"] = *other.Vpc.VpcId
	far, err := api.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: other.Vpc.VpcId, CidrBlock: aws.String("10.9.1.0/24"), AvailabilityZone: aws.String("eu-west-1a")})
	fatal(err)
	id["far"] = *far.Subnet.SubnetId
	pcx, err := api.CreateVpcPeeringConnection(ctx, &ec2.CreateVpcPeeringConnectionInput{VpcId: aws.String(r.vpc), PeerVpcId: other.Vpc.VpcId})
	fatal(err)
	id["pcx"] = *pcx.VpcPeeringConnection.VpcPeeringConnectionId
	_, err = api.AcceptVpcPeeringConnection(ctx, &ec2.AcceptVpcPeeringConnectionInput{VpcPeeringConnectionId: aws.String(id["pcx"])})
	fatal(err)
	list, err := api.CreateManagedPrefixList(ctx, &ec2.CreateManagedPrefixListInput{PrefixListName: aws.String("far"), AddressFamily: aws.String("IPv4"),
		MaxEntries: aws.Int32(2), Entries: []types.AddPrefixListEntry{{Cidr: aws.String("10.9.0.0/16")}}})
	fatal(err)
	id["pl"] = *list.PrefixList.PrefixListId
	table, err := api.CreateRouteTable(ctx, &ec2.CreateRouteTableInput{VpcId: aws.String(r.vpc)})
	fatal(err)
	id["rtb"] = *table.RouteTable.RouteTableId
	_, err = api.AssociateRouteTable(ctx, &ec2.AssociateRouteTableInput{RouteTableId: aws.String(id["rtb"]), SubnetId: aws.String(r.subnet)})
	fatal(err)
	_, err = api.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: aws.String(id["rtb"]), DestinationPrefixListId: aws.String(id["pl"]), VpcPeeringConnectionId: aws.String(id["pcx"])})
	fatal(err)
	_, err = api.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: aws.String(r.group), IpPermissions: []types.IpPermission{
		{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(80), ToPort: aws.Int32(90), IpRanges: []types.IpRange{{CidrIp: aws.String("10.9.0.0/16")}}},
		{IpProtocol: aws.String("icmp"), FromPort: aws.Int32(8), ToPort: aws.Int32(-1), PrefixListIds: []types.PrefixListId{{PrefixListId: aws.String(id["pl"])}}},
	}})
	fatal(err)
	acls, err := api.DescribeNetworkAcls(ctx, &ec2.DescribeNetworkAclsInput{Filters: inVPC(r.vpc)})
	fatal(err)
	id["acl"] = *acls.NetworkAcls[0].NetworkAclId
	_, err = api.CreateNetworkAclEntry(ctx, &ec2.CreateNetworkAclEntryInput{NetworkAclId: aws.String(id["acl"]), RuleNumber: aws.Int32(90), Protocol: aws.String("6"),
		Egress: aws.Bool(false), RuleAction: types.RuleActionDeny, CidrBlock: aws.String("10.9.9.0/24"), PortRange: &types.PortRange{From: aws.Int32(1024), To: aws.Int32(65535)}})
	fatal(err)
	tgw, err := api.CreateTransitGateway(ctx, &ec2.CreateTransitGatewayInput{})
	fatal(err)
	id["tgw"] = *tgw.TransitGateway.TransitGatewayId
	for name, v := range map[string][2]string{"near": {r.vpc, r.subnet}, "beyond": {id["other"], id["far"]}} {
		a, err := api.CreateTransitGatewayVpcAttachment(ctx, &ec2.CreateTransitGatewayVpcAttachmentInput{TransitGatewayId: aws.String(id["tgw"]),
			VpcId: aws.String(v[0]), SubnetIds: []string{v[1]}})
		fatal(err)
		id[name] = *a.TransitGatewayVpcAttachment.TransitGatewayAttachmentId
	}
	return r, id
}

func (r region) scope(vpcs ...string) Scope {
	return Scope{Region: "eu-west-1", VPCs: vpcs, Pauses: []time.Duration{time.Microsecond}}
}

func linesOf[T interface{ String() string }](all []T) (out []string) {
	for _, v := range all {
		out = append(out, v.String())
	}
	return out
}

// TestSurvey reads a furnished VPC, and of the one at the other end its name.
func TestSurvey(t *testing.T) {
	r, id := furnished(t)
	s, err := r.c.Survey(t.Context(), r.scope(r.vpc))
	if err != nil || len(s.VPCs) != 1 || len(s.Refused) > 0 {
		t.Fatalf("%v, refused %v, %+v", err, s.Refused, s.VPCs)
	}
	v := s.VPCs[0]
	check := func(what string, want, got any) {
		t.Helper()
		if d := gocmp.Diff(want, got, cmpAddr); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	p := netip.MustParsePrefix
	check("CIDRs", []netip.Prefix{p("10.0.0.0/16")}, v.CIDRs.Value)
	check("subnets", []path.Subnet{{ID: r.subnet, CIDR: p("10.0.1.0/24"), Zone: "eu-west-1a"}}, v.Subnets.Value)
	i := slices.IndexFunc(v.RouteTables.Value, func(t path.RouteTable) bool { return t.ID == id["rtb"] })
	if i < 0 || len(v.RouteTables.Value) != 2 || !v.RouteTables.Value[1-i].Main {
		t.Fatalf("route tables %+v", v.RouteTables)
	}
	check("its subnets", []string{r.subnet}, v.RouteTables.Value[i].Subnets)
	routes := linesOf(v.RouteTables.Value[i].Routes)
	slices.Sort(routes)
	check("routes", []string{"10.0.0.0/16 local", id["pl"] + " " + id["pcx"]}, routes)
	check("prefix lists", map[string][]netip.Prefix{id["pl"]: {p("10.9.0.0/16")}}, v.PrefixLists.Value)
	if len(v.ACLs.Value) != 1 || !v.ACLs.Value[0].Default {
		t.Fatalf("ACLs %+v", v.ACLs)
	}
	check("ACL in", []string{"90 deny tcp 1024-65535 from 10.9.9.0/24", "100 allow all from 0.0.0.0/0"}, linesOf(v.ACLs.Value[0].In))
	check("ACL out", []string{"100 allow all to 0.0.0.0/0"}, linesOf(v.ACLs.Value[0].Out))
	g := slices.IndexFunc(v.Groups.Value, func(g path.Group) bool { return g.ID == r.group })
	in := linesOf(v.Groups.Value[g].In)
	slices.Sort(in)
	check("group in", []string{"all from " + r.group, "icmp 8 from " + id["pl"], "tcp 80-90 from 10.9.0.0/16"}, in)
	check("group out", []string{"all to 0.0.0.0/0"}, linesOf(v.Groups.Value[g].Out))
	primary := r.enis(t)[0]
	check("ENIs", []path.ENI{{ID: primary.ID, Subnet: r.subnet, Addresses: []netip.Addr{primary.Primary}, Groups: path.Known([]string{r.group}),
		Check: path.Known(true), Attached: path.Known(true)}}, v.ENIs.Value)
	check("instances", map[string]string{primary.ID: r.instance}, s.Instances)
	check("peerings", []path.Peering{{ID: id["pcx"], State: "active", VPCs: [2]string{r.vpc, id["other"]}}}, s.Peerings.Value)
	if len(s.Beyond) != 1 || s.Beyond[0].ID != id["other"] || s.Beyond[0].By != id["pcx"] || s.Beyond[0].Region != "eu-west-1" {
		t.Errorf("beyond: %+v", s.Beyond)
	}
	if len(s.TransitGateways.Value) != 1 {
		t.Fatalf("transit gateways: %+v", s.TransitGateways)
	}
	tgw := s.TransitGateways.Value[0]
	if len(tgw.Tables) != 1 || len(tgw.Attachments) != 2 {
		t.Fatalf("%+v", tgw)
	}
	routes = linesOf(tgw.Tables[0].Routes)
	slices.Sort(routes)
	check("its routes", []string{"10.0.0.0/16 " + id["near"], "10.9.0.0/16 " + id["beyond"]}, routes)
	for _, a := range tgw.Attachments {
		want := path.Attachment{ID: id["near"], VPC: r.vpc, Subnets: []string{r.subnet}, State: "available", Table: tgw.Tables[0].ID}
		if a.ID == id["beyond"] {
			want.ID, want.VPC, want.Subnets = id["beyond"], id["other"], []string{id["far"]}
		}
		check("attachment", want, a)
	}
	// A VPC that is not there is said to be elsewhere.
	s, err = r.c.Survey(t.Context(), r.scope(r.vpc, "vpc-0123456789abcdef0"))
	if err != nil || len(s.VPCs) != 1 || !slices.ContainsFunc(s.Beyond, func(f FarVPC) bool { return f.ID == "vpc-0123456789abcdef0" && f.By == "" }) {
		t.Errorf("%v, %+v", err, s.Beyond)
	}
}

// TestVPCsOf: more ENIs than one filter takes, most of which are nowhere.
func TestVPCsOf(t *testing.T) {
	r, _ := furnished(t)
	var enis []string
	for i := range 250 {
		enis = append(enis, fmt.Sprintf("eni-%017d", i))
	}
	if got, err := r.c.VPCsOf(t.Context(), enis); err != nil || len(got) != 0 {
		t.Errorf("of ENIs that are nowhere: %v, %v", got, err)
	}
	enis = append(enis, r.enis(t)[0].ID, r.enis(t)[0].ID)
	if got, err := r.c.VPCsOf(t.Context(), enis); err != nil || !slices.Equal(got, []string{r.vpc}) {
		t.Errorf("%v, %v, want %s", got, err, r.vpc)
	}
}

// TestSurveyRefused: what one right is missing for is unknown, by name, and
// nothing else is.
func TestSurveyRefused(t *testing.T) {
	r, _ := furnished(t)
	for action, part := range map[string]func(Survey) (known bool, why string){
		"DescribeVpcs":                         func(s Survey) (bool, string) { return s.VPCs[0].CIDRs.Known, s.VPCs[0].CIDRs.Why },
		"DescribeSubnets":                      func(s Survey) (bool, string) { return s.VPCs[0].Subnets.Known, s.VPCs[0].Subnets.Why },
		"DescribeRouteTables":                  func(s Survey) (bool, string) { return s.VPCs[0].RouteTables.Known, s.VPCs[0].RouteTables.Why },
		"DescribeNetworkAcls":                  func(s Survey) (bool, string) { return s.VPCs[0].ACLs.Known, s.VPCs[0].ACLs.Why },
		"DescribeSecurityGroups":               func(s Survey) (bool, string) { return s.VPCs[0].Groups.Known, s.VPCs[0].Groups.Why },
		"DescribeNetworkInterfaces":            func(s Survey) (bool, string) { return s.VPCs[0].ENIs.Known, s.VPCs[0].ENIs.Why },
		"DescribeNatGateways":                  func(s Survey) (bool, string) { return s.VPCs[0].NATGateways.Known, s.VPCs[0].NATGateways.Why },
		"GetManagedPrefixListEntries":          func(s Survey) (bool, string) { return s.VPCs[0].PrefixLists.Known, s.VPCs[0].PrefixLists.Why },
		"DescribeVpcPeeringConnections":        func(s Survey) (bool, string) { return s.Peerings.Known, s.Peerings.Why },
		"DescribeTransitGatewayVpcAttachments": func(s Survey) (bool, string) { return s.TransitGateways.Known, s.TransitGateways.Why },
		"DescribeTransitGateways":              func(s Survey) (bool, string) { return s.TransitGateways.Known, s.TransitGateways.Why },
		"DescribeTransitGatewayAttachments":    func(s Survey) (bool, string) { return s.TransitGateways.Known, s.TransitGateways.Why },
		"DescribeTransitGatewayRouteTables":    func(s Survey) (bool, string) { return s.TransitGateways.Known, s.TransitGateways.Why },
		"SearchTransitGatewayRoutes":           func(s Survey) (bool, string) { return s.TransitGateways.Known, s.TransitGateways.Why },
	} {
		r.sim.InjectError(action, &ec2sim.Error{Code: "UnauthorizedOperation", Message: "no", Status: 403}, -1)
		s, err := r.c.Survey(t.Context(), r.scope(r.vpc))
		r.sim.InjectError(action, nil, 0)
		if err != nil || len(s.VPCs) != 1 {
			t.Errorf("without %s: %v, %d VPCs", action, err, len(s.VPCs))
			continue
		}
		known, why := part(s)
		if want := "no right to ec2:" + action; known || why != want || !slices.Equal(s.Refused, []string{want}) {
			t.Errorf("without %s: known %v, %q, refused %v", action, known, why, s.Refused)
		}
	}
}

// TestSurveyThrottled: it waits and asks again, and gives up after its pauses.
func TestSurveyThrottled(t *testing.T) {
	r, _ := furnished(t)
	throttled := &ec2sim.Error{Code: "RequestLimitExceeded", Message: "no", Status: 503}
	r.sim.InjectError("DescribeSubnets", throttled, 1)
	s, err := r.c.Survey(t.Context(), r.scope(r.vpc))
	if err != nil || !s.VPCs[0].Subnets.Known {
		t.Errorf("throttled once: %v, %+v", err, s.VPCs[0].Subnets)
	}
	r.sim.InjectError("DescribeSubnets", throttled, 2)
	s, err = r.c.Survey(t.Context(), r.scope(r.vpc))
	if err != nil || s.VPCs[0].Subnets.Known || !strings.Contains(s.VPCs[0].Subnets.Why, "RequestLimitExceeded") {
		t.Errorf("throttled twice: %v, %+v", err, s.VPCs[0].Subnets)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.c.Survey(ctx, r.scope(r.vpc)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestSurveyPages: more route tables than a page has.
func TestSurveyPages(t *testing.T) {
	r := newRegion(t, ec2sim.Config{}, "10.0.1.0/24")
	for range tablePage {
		if _, err := r.sim.CreateRouteTable(ec2sim.CreateRouteTableInput{VPCID: r.vpc}); err != nil {
			t.Fatal(err)
		}
	}
	r.calls.take()
	s, err := r.c.Survey(t.Context(), r.scope(r.vpc))
	if err != nil || len(s.VPCs[0].RouteTables.Value) != tablePage+1 {
		t.Errorf("%v, %d route tables, want %d", err, len(s.VPCs[0].RouteTables.Value), tablePage+1)
	}
	n := 0
	for _, c := range r.calls.take() {
		if c.Action == "DescribeRouteTables" {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d pages of route tables, want 2", n)
	}
}

func TestMatchLine(t *testing.T) {
	for _, tt := range []struct {
		proto    string
		from, to int32
		want     string
	}{
		{"-1", -1, -1, "all"}, {"tcp", 0, 65535, "tcp"}, {"6", 80, 80, "tcp 80"}, {"udp", 1, 2, "udp 1-2"},
		{"icmp", -1, -1, "icmp"}, {"1", 8, -1, "icmp 8"}, {"1", 3, 4, "icmp 3/4"}, {"50", -1, -1, "50"}, {"58", -1, -1, ""}, {"tcp", -1, -1, "tcp"},
	} {
		if got, _ := matchLine(tt.proto, tt.from, tt.to); got != tt.want {
			t.Errorf("%s %d %d: %q, want %q", tt.proto, tt.from, tt.to, got, tt.want)
		}
	}
	for _, tt := range []struct{ name, want string }{{"blue", "blue"}, {"", "vpc-1"}, {"a:b", "vpc-1"}, {"two words", "vpc-1"}, {"node", "vpc-1"}} {
		if got := label(tt.name, "vpc-1"); got != tt.want {
			t.Errorf("label of %q: %s", tt.name, got)
		}
	}
	if routeLine(types.Route{DestinationIpv6CidrBlock: aws.String("::/0"), GatewayId: aws.String("igw-1")}) != "" {
		t.Error("a route of IPv6 has a line")
	}
}
