package pathworld

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// Cloud is the part of a world that EC2 knows.
func Cloud(name string, snap ec2sim.Snapshot) *path.World {
	const why = "no API server was asked"
	w := &path.World{Form: path.Form, Name: name, Services: path.Unknown[[]path.Service](why), Pods: path.Unknown[[]path.ListedPod](why)}
	for _, v := range snap.VPCs {
		w.VPCs = append(w.VPCs, vpc(snap, v))
	}
	peerings := []path.Peering{}
	for _, p := range snap.Peerings {
		peerings = append(peerings, path.Peering{ID: p.ID, State: p.Status, VPCs: [2]string{p.Requester.VPCID, p.Accepter.VPCID}})
	}
	w.Peerings = path.Known(peerings)
	w.TransitGateways = path.Known(transit(snap))
	return w
}

func vpc(snap ec2sim.Snapshot, v ec2sim.VPC) path.VPC {
	lists := map[string][]netip.Prefix{}
	for _, l := range snap.PrefixLists {
		if l.Region != v.Region {
			continue
		}
		lists[l.ID] = []netip.Prefix{}
		for _, e := range l.Entries {
			lists[l.ID] = append(lists[l.ID], e.CIDR)
		}
	}
	subnets := []path.Subnet{}
	for _, n := range snap.Subnets {
		if n.VPCID == v.ID {
			subnets = append(subnets, path.Subnet{ID: n.ID, CIDR: n.CIDR, Zone: n.Zone})
		}
	}
	groups := []path.Group{}
	for _, g := range snap.Groups {
		if g.VPCID == v.ID {
			groups = append(groups, path.Group{ID: g.ID, In: groupRules(g.Ingress, false), Out: groupRules(g.Egress, true)})
		}
	}
	gateways := []path.NATGateway{}
	for _, g := range snap.NATGateways {
		if g.VPCID == v.ID && g.PrivateIP.IsValid() {
			gateways = append(gateways, path.NATGateway{ID: g.ID, Subnet: g.SubnetID, Private: g.PrivateIP, Public: publicOf(snap, g.ID), State: g.State})
		}
	}
	return path.VPC{
		ID: v.ID, Name: cmp.Or(v.Tags["Name"], v.ID), Region: v.Region,
		CIDRs: path.Known(v.CIDRs), Subnets: path.Known(subnets), RouteTables: path.Known(routeTables(snap, v)),
		ACLs: path.Known(acls(snap, v.ID)), Groups: path.Known(groups), ENIs: path.Known(enis(snap, v.ID)),
		PrefixLists: path.Known(lists), NATGateways: path.Known(gateways),
	}
}

// publicOf is the address of a NAT gateway; none of a private one.
func publicOf(snap ec2sim.Snapshot, gateway string) netip.Addr {
	for _, a := range snap.Addresses {
		if a.NATGatewayID == gateway {
			return a.PublicIP
		}
	}
	return netip.Addr{}
}

func routeTables(snap ec2sim.Snapshot, v ec2sim.VPC) []path.RouteTable {
	out := []path.RouteTable{}
	for _, t := range snap.RouteTables {
		if t.VPCID != v.ID {
			continue
		}
		table := path.RouteTable{ID: t.ID, Main: t.ID == v.MainRouteTable, Routes: []path.VPCRoute{}}
		for _, n := range snap.Subnets {
			if n.RouteTable == t.ID {
				table.Subnets = append(table.Subnets, n.ID)
			}
		}
		// DescribeRouteTables lists the local routes, which the simulator keeps to itself.
		for _, c := range v.CIDRs {
			table.Routes = append(table.Routes, path.VPCRoute{Dst: c, Target: "local"})
		}
		for _, r := range t.Routes {
			table.Routes = append(table.Routes, path.VPCRoute{Dst: r.Dst, PrefixList: r.List, Target: r.Target, Blackhole: r.State != ec2sim.RouteActive})
		}
		out = append(out, table)
	}
	return out
}

func acls(snap ec2sim.Snapshot, vpc string) []path.ACL {
	out := []path.ACL{}
	for _, a := range snap.ACLs {
		if a.VPCID != vpc {
			continue
		}
		acl := path.ACL{ID: a.ID, Default: a.Default, In: aclRules(a.Ingress, false), Out: aclRules(a.Egress, true)}
		for _, n := range snap.Subnets {
			if n.ACL == a.ID {
				acl.Subnets = append(acl.Subnets, n.ID)
			}
		}
		out = append(out, acl)
	}
	return out
}

func aclRules(entries []ec2sim.ACLEntry, out bool) []path.ACLRule {
	rules := []path.ACLRule{}
	for _, e := range entries {
		m := match(e.Protocol, e.From, e.To, out)
		m.CIDR, m.Remote = e.CIDR, e.CIDR.String()
		rules = append(rules, path.ACLRule{Number: e.Number, Allow: e.Allow, Match: m})
	}
	return rules
}

func groupRules(list []ec2sim.GroupRule, out bool) []path.GroupRule {
	rules := []path.GroupRule{}
	for _, r := range list {
		m := match(r.Protocol, r.From, r.To, out)
		m.CIDR, m.Remote = r.CIDR, cmp.Or(r.Group, r.PrefixList)
		if r.CIDR.IsValid() {
			m.Remote = r.CIDR.String()
		}
		rules = append(rules, path.GroupRule{Match: m})
	}
	return rules
}

// Numbers of protocols (IANA, "Protocol Numbers").
const (
	icmp = 1
	tcp  = 6
	udp  = 17
)

func match(proto, from, to int, out bool) path.Match {
	m := path.Match{Proto: strconv.Itoa(proto), Ports: path.Ports{Hi: 65535}, Type: -1, Code: -1, Out: out}
	switch proto {
	case ec2sim.AllProtocols:
		m.Proto = "all"
	case icmp:
		m.Proto, m.Type, m.Code = "icmp", from, to
	case tcp, udp:
		m.Proto = map[int]string{tcp: "tcp", udp: "udp"}[proto]
		if from >= 0 {
			m.Ports = path.Ports{Lo: uint16(from), Hi: uint16(to)}
		}
	}
	return m
}

func enis(snap ec2sim.Snapshot, vpc string) []path.ENI {
	alive := map[string]bool{}
	for _, i := range snap.Instances {
		alive[i.ID] = i.State == ec2sim.StateRunning
	}
	out := []path.ENI{}
	for _, e := range snap.Interfaces {
		if e.VPCID != vpc {
			continue
		}
		eni := path.ENI{
			ID: e.ID, Subnet: e.SubnetID, Addresses: append([]netip.Addr{e.Primary}, e.Secondary...), Prefixes: slices.Clone(e.Prefixes),
			Groups: path.Known(slices.Clone(e.Groups)), Check: path.Known(e.SourceDestCheck),
			Attached: path.Known(e.Attachment != nil && alive[e.Attachment.InstanceID]),
		}
		public := map[netip.Addr]netip.Addr{}
		if e.AutoPublic.IsValid() {
			public[e.Primary] = e.AutoPublic
		}
		for _, a := range snap.Addresses {
			if a.InterfaceID == e.ID {
				public[a.PrivateIP] = a.PublicIP
			}
		}
		if len(public) > 0 {
			eni.Public = public
		}
		out = append(out, eni)
	}
	return out
}

// stateAvailable is the state of an attachment that works. The simulator has no
// other.
const stateAvailable = "available"

func transit(snap ec2sim.Snapshot) []path.TransitGateway {
	out := []path.TransitGateway{}
	for _, h := range snap.TransitGateways {
		g := path.TransitGateway{ID: h.ID, Attachments: []path.Attachment{}, Tables: []path.TransitTable{}}
		for _, a := range snap.TransitAttachments {
			if a.GatewayID == h.ID {
				g.Attachments = append(g.Attachments, path.Attachment{ID: a.ID, VPC: a.VPCID, Subnets: a.Subnets, State: stateAvailable, Table: a.Table})
			}
		}
		for _, t := range snap.TransitTables {
			if t.GatewayID != h.ID {
				continue
			}
			table := path.TransitTable{ID: t.ID, Routes: []path.VPCRoute{}}
			for _, r := range t.Routes {
				table.Routes = append(table.Routes, path.VPCRoute{Dst: r.Dst, Target: cmp.Or(r.Attachment, "none"), Blackhole: r.State != ec2sim.RouteActive})
			}
			g.Tables = append(g.Tables, table)
		}
		out = append(out, g)
	}
	return out
}

// eniOf finds the ENI that a device of an instance is, by its MAC.
func eniOf(snap ec2sim.Snapshot, instance, mac string) (string, bool) {
	i := slices.IndexFunc(snap.Interfaces, func(e ec2sim.NetworkInterface) bool {
		return e.Attachment != nil && e.Attachment.InstanceID == instance && e.MAC.String() == mac
	})
	if i < 0 {
		return "", false
	}
	return snap.Interfaces[i].ID, true
}

// instanceOf finds an instance.
func instanceOf(snap ec2sim.Snapshot, id string) (ec2sim.Instance, error) {
	i := slices.IndexFunc(snap.Instances, func(in ec2sim.Instance) bool { return in.ID == id })
	if i < 0 {
		return ec2sim.Instance{}, fmt.Errorf("EC2 has no instance %s", id)
	}
	return snap.Instances[i], nil
}
