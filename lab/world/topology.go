package world

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
)

// topology is the fabric's part of a snapshot, and the hosts of the internet. It
// resolves what the fabric does not know: prefix lists, the main route table,
// the state of routes, who has which public address. It is pure.
func topology(snap ec2sim.Snapshot, hosts []netip.Addr) fabric.Topology {
	t := fabric.Topology{Internet: fabric.Internet{Hosts: hosts}}
	vpcOf := make(map[string]string) // of a group
	for _, g := range snap.Groups {
		vpcOf[g.ID] = g.VPCID
	}
	lists := make(map[string][]netip.Prefix)
	for _, l := range snap.PrefixLists {
		for _, e := range l.Entries {
			lists[l.ID] = append(lists[l.ID], e.CIDR)
		}
	}
	peered := make(map[[2]string]bool)
	for _, p := range snap.Peerings {
		if p.Status != ec2sim.PeeringActive {
			continue
		}
		a, b := p.Requester.VPCID, p.Accepter.VPCID
		t.Peerings = append(t.Peerings, fabric.Peering{ID: p.ID, VPCs: [2]string{a, b}})
		if p.Requester.Region == p.Accepter.Region {
			peered[[2]string{a, b}], peered[[2]string{b, a}] = true, true
		}
	}
	enis := interfaces(snap)
	for _, v := range snap.VPCs {
		vpc := fabric.VPC{ID: v.ID, Region: v.Region, CIDRs: v.CIDRs, ENIs: enis[v.ID], Public: publicAddresses(snap, v.ID)}
		for _, n := range snap.Subnets {
			if n.VPCID == v.ID {
				vpc.Subnets = append(vpc.Subnets, fabric.Subnet{
					ID: n.ID, CIDR: n.CIDR, Zone: n.Zone, RouteTable: cmp.Or(n.RouteTable, v.MainRouteTable), ACL: n.ACL,
				})
			}
		}
		for _, r := range snap.RouteTables {
			if r.VPCID == v.ID {
				vpc.RouteTables = append(vpc.RouteTables, routeTable(r, lists))
			}
		}
		for _, a := range snap.ACLs {
			if a.VPCID == v.ID {
				vpc.ACLs = append(vpc.ACLs, fabric.NetworkACL{ID: a.ID, Ingress: aclRules(a.Ingress), Egress: aclRules(a.Egress)})
			}
		}
		// A rule that names a group of a VPC that is peered no more is stale: it
		// allows nothing ("Work with stale security group rules").
		named := func(group string) bool { return vpcOf[group] == v.ID || peered[[2]string{v.ID, vpcOf[group]}] }
		for _, g := range snap.Groups {
			if g.VPCID == v.ID {
				vpc.Groups = append(vpc.Groups, fabric.SecurityGroup{
					ID: g.ID, Ingress: groupRules(g.Ingress, lists, named), Egress: groupRules(g.Egress, lists, named),
				})
			}
		}
		for _, g := range snap.Gateways {
			if g.VPCID == v.ID {
				vpc.InternetGateway = g.ID
			}
		}
		for _, g := range snap.NATGateways {
			if g.VPCID == v.ID && g.State == ec2sim.NATAvailable {
				vpc.NATGateways = append(vpc.NATGateways, fabric.NATGateway{ID: g.ID, Subnet: g.SubnetID, Address: g.PrivateIP})
			}
		}
		t.VPCs = append(t.VPCs, vpc)
	}
	t.TransitGateways = transitGateways(snap)
	return t
}

// interfaces gives the ENIs of each VPC. One that is being detached has no guest
// any more: the fabric unplugs it, and then the cloud is told.
func interfaces(snap ec2sim.Snapshot) map[string][]fabric.ENI {
	live := make(map[string]bool)
	for _, i := range snap.Instances {
		live[i.ID] = alive(i)
	}
	subnets := make(map[string]netip.Prefix)
	for _, s := range snap.Subnets {
		subnets[s.ID] = s.CIDR
	}
	out := make(map[string][]fabric.ENI)
	for _, e := range snap.Interfaces {
		eni := fabric.ENI{
			ID: e.ID, MAC: fabric.MAC(e.MAC), Subnet: subnets[e.SubnetID], Primary: e.Primary,
			Addresses: e.Secondary, Prefixes: e.Prefixes, SourceDestCheck: e.SourceDestCheck,
			SubnetID: e.SubnetID, Groups: e.Groups, Idle: fabric.IdleTimeouts(e.Tracking), FlowLog: logged(snap, e) != nothing,
		}
		if a := e.Attachment; a != nil && a.Status != ec2sim.StatusDetaching && live[a.InstanceID] {
			eni.Guest, eni.Device = a.InstanceID, deviceName(*a)
		}
		out[e.VPCID] = append(out[e.VPCID], eni)
	}
	return out
}

// publicAddresses gives what the internet sees of a VPC's private addresses.
func publicAddresses(snap ec2sim.Snapshot, vpcID string) map[netip.Addr]netip.Addr {
	public := make(map[netip.Addr]netip.Addr)
	holders := make(map[string]bool)
	for _, e := range snap.Interfaces {
		if e.VPCID != vpcID {
			continue
		}
		holders[e.ID] = true
		if e.AutoPublic.IsValid() {
			public[e.Primary] = e.AutoPublic
		}
	}
	for _, g := range snap.NATGateways {
		holders[g.ID] = holders[g.ID] || g.VPCID == vpcID
	}
	for _, a := range snap.Addresses {
		if a.AssociationID != "" && holders[cmp.Or(a.InterfaceID, a.NATGatewayID)] {
			public[a.PrivateIP] = a.PublicIP
		}
	}
	if len(public) == 0 {
		return nil
	}
	return public
}

// targets are what the routes of a VPC lead to, by the prefix of the identifier.
var targets = map[string]fabric.TargetKind{
	"igw": fabric.ToInternetGateway, "nat": fabric.ToNATGateway, "pcx": fabric.ToPeering, "tgw": fabric.ToTransitGateway, "eni": fabric.ToENI,
}

// routeTable gives the routes of a table, one for each entry of a prefix list.
// One for a block goes before one of a list for the same block. Source: "Route
// priority", Amazon VPC User Guide: prefix lists.
func routeTable(t ec2sim.RouteTable, lists map[string][]netip.Prefix) fabric.RouteTable {
	out := fabric.RouteTable{ID: t.ID}
	add := func(dst netip.Prefix, r ec2sim.Route) {
		route := fabric.Route{Dst: dst, Kind: fabric.Blackhole}
		if r.State == ec2sim.RouteActive {
			route.Kind, route.Target = targets[r.Target[:3]], r.Target
		}
		out.Routes = append(out.Routes, route)
	}
	for _, r := range t.Routes {
		if r.List == "" {
			add(r.Dst, r)
		}
	}
	for _, r := range t.Routes {
		for _, dst := range lists[r.List] {
			if !slices.ContainsFunc(out.Routes, func(have fabric.Route) bool { return have.Dst == dst }) {
				add(dst, r)
			}
		}
	}
	return out
}

func aclRules(entries []ec2sim.ACLEntry) []fabric.ACLRule {
	var out []fabric.ACLRule
	for _, e := range entries {
		out = append(out, fabric.ACLRule{
			Number: e.Number, Allow: e.Allow, Protocol: fabric.Protocol(e.Protocol), Ports: fabric.Ports{From: e.From, To: e.To}, CIDR: e.CIDR,
		})
	}
	return out
}

// groupRules gives the rules that allow something: one for each entry of a
// prefix list, and of those that name a group the ones that may.
func groupRules(rules []ec2sim.GroupRule, lists map[string][]netip.Prefix, named func(group string) bool) []fabric.GroupRule {
	var out []fabric.GroupRule
	for _, r := range rules {
		rule := fabric.GroupRule{Protocol: fabric.Protocol(r.Protocol), Ports: fabric.Ports{From: r.From, To: r.To}, CIDR: r.CIDR, Group: r.Group}
		switch {
		case r.PrefixList != "":
			for _, p := range lists[r.PrefixList] {
				rule.CIDR = p
				out = append(out, rule)
			}
		case r.Group == "" || named(r.Group):
			out = append(out, rule)
		}
	}
	return out
}

func transitGateways(snap ec2sim.Snapshot) []fabric.TransitGateway {
	var out []fabric.TransitGateway
	for _, h := range snap.TransitGateways {
		hub := fabric.TransitGateway{ID: h.ID}
		for _, a := range snap.TransitAttachments {
			if a.GatewayID == h.ID {
				hub.Attachments = append(hub.Attachments, fabric.Attachment{ID: a.ID, VPC: a.VPCID, Table: a.Table, Subnet: a.Subnets[0]})
			}
		}
		for _, t := range snap.TransitTables {
			if t.GatewayID != h.ID {
				continue
			}
			table := fabric.RouteTable{ID: t.ID}
			for _, r := range t.Routes {
				route := fabric.Route{Dst: r.Dst, Kind: fabric.Blackhole}
				if r.State == ec2sim.RouteActive {
					route.Kind, route.Target = fabric.ToAttachment, r.Attachment
				}
				table.Routes = append(table.Routes, route)
			}
			hub.Tables = append(hub.Tables, table)
		}
		out = append(out, hub)
	}
	return out
}

// regionOf is the region of an instance, which is that of its VPC.
func regionOf(snap ec2sim.Snapshot, i ec2sim.Instance) string {
	k := slices.IndexFunc(snap.VPCs, func(v ec2sim.VPC) bool { return v.ID == i.VPCID })
	if k < 0 {
		return ""
	}
	return snap.VPCs[k].Region
}
