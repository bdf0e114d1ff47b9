package world

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
)

// built makes a world of testdata, in a cloud where everything is ready at once.
func built(t *testing.T, name string) (*ec2sim.Cloud, *World) {
	t.Helper()
	w, err := Parse(name, read(t, name))
	if err != nil {
		t.Fatal(err)
	}
	c := ec2sim.New(ec2sim.Config{Region: w.Region, Regions: w.Regions()})
	if err := build(c, w); err != nil {
		t.Fatal(err)
	}
	return c, w
}

// readable is what stands in a golden file for the identifiers of a snapshot.
func readable(snap ec2sim.Snapshot) *strings.Replacer {
	var pairs []string
	add := func(id, kind, name string) { pairs = append(pairs, id, kind+":"+name) }
	vpc := map[string]string{}
	for _, v := range snap.VPCs {
		vpc[v.ID] = v.Tags["Name"]
		add(v.ID, "vpc", v.Tags["Name"])
		add(v.MainRouteTable, "table", v.Tags["Name"]+"/main")
	}
	for _, n := range snap.Subnets {
		add(n.ID, "subnet", vpc[n.VPCID]+"/"+n.Tags["Name"])
	}
	for _, g := range snap.Groups {
		add(g.ID, "group", vpc[g.VPCID]+"/"+g.Name)
	}
	for _, a := range snap.ACLs {
		name := a.Tags["Name"]
		if a.Default {
			name = "default"
		}
		add(a.ID, "acl", vpc[a.VPCID]+"/"+name)
	}
	for _, r := range snap.RouteTables {
		add(r.ID, "table", vpc[r.VPCID]+"/"+r.Tags["Name"])
	}
	for _, g := range snap.Gateways {
		add(g.ID, "igw", vpc[g.VPCID])
	}
	for _, g := range snap.NATGateways {
		add(g.ID, "nat", g.Tags["Name"])
	}
	for _, p := range snap.Peerings {
		add(p.ID, "peering", p.Tags["Name"])
	}
	for _, h := range snap.TransitGateways {
		add(h.ID, "tgw", h.Tags["Name"])
	}
	for _, a := range snap.TransitAttachments {
		add(a.ID, "attachment", a.Tags["Name"])
	}
	for _, r := range snap.TransitTables {
		add(r.ID, "tgw-table", r.Tags["Name"])
	}
	for _, i := range snap.Instances {
		add(i.Interfaces[0], "eni", i.Name)
		add(i.ID, "instance", i.Name)
	}
	return strings.NewReplacer(pairs...)
}

// text writes a topology for a person to read.
func text(t fabric.Topology) string {
	var b bytes.Buffer
	line := func(depth int, format string, args ...any) {
		fmt.Fprintf(&b, strings.Repeat("  ", depth)+format+"\n", args...)
	}
	rules := func(way string, list []fabric.GroupRule) {
		for _, r := range list {
			if r.Group != "" {
				line(2, "%s %d %d-%d %s", way, r.Protocol, r.Ports.From, r.Ports.To, r.Group)
			} else {
				line(2, "%s %d %d-%d %s", way, r.Protocol, r.Ports.From, r.Ports.To, r.CIDR)
			}
		}
	}
	entries := func(way string, list []fabric.ACLRule) {
		for _, r := range list {
			line(2, "%s %d allow=%t %d %d-%d %s", way, r.Number, r.Allow, r.Protocol, r.Ports.From, r.Ports.To, r.CIDR)
		}
	}
	tables := func(list []fabric.RouteTable) {
		for _, r := range list {
			line(1, "%s", r.ID)
			for _, to := range r.Routes {
				line(2, "%s %s %s", to.Dst, to.Kind, to.Target)
			}
		}
	}
	for _, v := range t.VPCs {
		line(0, "%s %s %v gateway=%s", v.ID, v.Region, v.CIDRs, v.InternetGateway)
		for _, n := range v.Subnets {
			line(1, "%s %s %s %s %s", n.ID, n.CIDR, n.Zone, n.RouteTable, n.ACL)
		}
		tables(v.RouteTables)
		for _, a := range v.ACLs {
			line(1, "%s", a.ID)
			entries("in", a.Ingress)
			entries("out", a.Egress)
		}
		for _, g := range v.Groups {
			line(1, "%s", g.ID)
			rules("in", g.Ingress)
			rules("out", g.Egress)
		}
		for _, g := range v.NATGateways {
			line(1, "%s %s %s", g.ID, g.Subnet, g.Address)
		}
		for _, e := range v.ENIs {
			line(1, "%s %s %s check=%t log=%t guest=%s %s %v", e.ID, e.SubnetID, e.Primary, e.SourceDestCheck, e.FlowLog, e.Guest, e.Device, e.Groups)
			for _, private := range append(e.Addresses, e.Primary) {
				if public, ok := v.Public[private]; ok {
					line(2, "%s is %s", private, public)
				}
			}
		}
		line(1, "%d public", len(v.Public))
	}
	for _, p := range t.Peerings {
		line(0, "%s %v", p.ID, p.VPCs)
	}
	for _, h := range t.TransitGateways {
		line(0, "%s", h.ID)
		for _, a := range h.Attachments {
			line(1, "%s %s %s %s", a.ID, a.VPC, a.Table, a.Subnet)
		}
		tables(h.Tables)
	}
	line(0, "internet %v", t.Internet.Hosts)
	return b.String()
}

func TestTopologyGolden(t *testing.T) {
	for _, name := range []string{"two-regions", "network"} {
		t.Run(name, func(t *testing.T) {
			c, w := built(t, name+".yaml")
			snap := c.Snapshot()
			got := readable(snap).Replace(text(topology(snap, w.Internet.Hosts)))
			file := "testdata/" + name + ".topology"
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(golden), got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// What ends by a call is not in the topology any more, or a black hole.
func TestTopologyFollows(t *testing.T) {
	c, _ := built(t, "network.yaml")
	before := c.Snapshot()
	short := readable(before)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := text(topology(before, nil)); !strings.Contains(short.Replace(got), "in 1 8--1 group:other/default") {
		t.Fatalf("no rule for the peered group:\n%s", short.Replace(got))
	}
	for _, p := range before.Peerings {
		ok(c.DeleteVPCPeeringConnection(ec2sim.VPCPeeringInput{ID: p.ID}))
	}
	for _, g := range before.NATGateways {
		ok(c.DeleteNATGateway(ec2sim.DeleteNATGatewayInput{ID: g.ID}))
	}
	for _, a := range before.TransitAttachments {
		ok(c.DeleteTransitGatewayVPCAttachment(ec2sim.TransitAttachmentInput{ID: a.ID}))
	}
	now := topology(c.Snapshot(), nil)
	got := short.Replace(text(now))
	for _, gone := range []string{"group:other/default\n", "peering:", "nat:", "attachment:"} {
		if part, _, found := strings.Cut(got, gone); found && gone != "group:other/default\n" {
			t.Errorf("still %q after\n%s", gone, part)
		}
	}
	if strings.Contains(got, "in 1 8--1 group:other/default") {
		t.Error("a rule names a group of a VPC that is peered no more")
	}
	for _, route := range []string{"0.0.0.0/0 blackhole", "10.4.0.0/16 blackhole", "10.5.0.0/16 blackhole", "10.0.0.0/16 blackhole", "0.0.0.0/0 igw igw:main"} {
		if !strings.Contains(got, route) {
			t.Errorf("no route %q in\n%s", route, got)
		}
	}
	if len(now.Peerings) != 0 || len(now.TransitGateways) != 1 {
		t.Errorf("%d peerings, %d transit gateways", len(now.Peerings), len(now.TransitGateways))
	}
}

// A world without any of it behaves as before: the instances of a VPC share its
// default group, and nothing is in the way.
func TestTopologyOfDefault(t *testing.T) {
	w := Default()
	c := ec2sim.New(ec2sim.Config{Region: w.Region, Regions: w.Regions()})
	if err := build(c, w); err != nil {
		t.Fatal(err)
	}
	v := topology(c.Snapshot(), w.Internet.Hosts).VPCs[0]
	group := v.Groups[0]
	for _, e := range v.ENIs {
		if len(e.Groups) != 1 || e.Groups[0] != group.ID {
			t.Errorf("ENI in %v", e.Groups)
		}
	}
	in := group.Ingress
	if len(in) != 1 || in[0].Group != group.ID || in[0].Protocol != fabric.AllProtocols || len(group.Egress) != 1 {
		t.Errorf("group %+v", group)
	}
	if acl := v.ACLs[0]; !acl.Ingress[0].Allow || !acl.Egress[0].Allow || v.Subnets[0].ACL != acl.ID {
		t.Errorf("acl %+v", acl)
	}
	if len(v.RouteTables) != 1 || len(v.RouteTables[0].Routes) != 0 || v.InternetGateway != "" || v.Public != nil {
		t.Errorf("vpc %+v", v)
	}
}
