package world

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// builder makes what a World describes, by the calls that anyone would use, and
// remembers what became of its names.
type builder struct {
	w     *World
	cloud *ec2sim.Cloud // its default region; see in
	made  map[string]string
}

// build makes what the World describes: all that can be routed to first, the
// routes last.
func build(c *ec2sim.Cloud, w *World) error {
	b := &builder{w: w, cloud: c, made: make(map[string]string)}
	for _, step := range []func() error{
		b.prefixLists, b.vpcs, b.peerings, b.groupRules, b.networkACLs, b.natGateways, b.instances, b.transitGateways, b.routeTables, b.shortRoutes,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// in is the cloud in the region of a VPC.
func (b *builder) in(v VPC) *ec2sim.Cloud { return b.cloud.In(b.w.RegionOf(v)) }

// Names are kept by kind, region or VPC, and name.
func (b *builder) keep(id, kind, scope, name string) { b.made[kind+" "+scope+"/"+name] = id }

func (b *builder) id(kind, scope, name string) string { return b.made[kind+" "+scope+"/"+name] }

func (b *builder) prefixLists() error {
	for _, region := range b.w.Regions() {
		for _, l := range b.w.PrefixLists {
			in := ec2sim.CreateManagedPrefixListInput{Name: l.Name, MaxEntries: max(len(l.Entries), 1), Tags: named(l.Name)}
			for _, p := range l.Entries {
				in.Entries = append(in.Entries, ec2sim.PrefixListEntry{CIDR: p})
			}
			made, err := b.cloud.In(region).CreateManagedPrefixList(in)
			if err != nil {
				return fmt.Errorf("%s: create prefix list %q: %w", l.Pos, l.Name, err)
			}
			b.keep(made.ID, "list", region, l.Name)
		}
	}
	return nil
}

func (b *builder) vpcs() error {
	for _, v := range b.w.VPCs {
		c := b.in(v)
		made, err := c.CreateVPC(ec2sim.CreateVPCInput{CIDR: v.CIDRs[0], Tags: named(v.Name)})
		if err != nil {
			return fmt.Errorf("%s: create vpc %q: %w", v.Pos, v.Name, err)
		}
		b.keep(made.ID, "vpc", "", v.Name)
		b.keep(made.MainRouteTable, "main", v.Name, "")
		for _, cidr := range v.CIDRs[1:] {
			if _, err := c.AssociateVPCCIDRBlock(ec2sim.AssociateVPCCIDRBlockInput{VPCID: made.ID, CIDR: cidr}); err != nil {
				return fmt.Errorf("%s: add cidr %s to vpc %q: %w", v.Pos, cidr, v.Name, err)
			}
		}
		for _, s := range v.Subnets {
			subnet, err := c.CreateSubnet(ec2sim.CreateSubnetInput{VPCID: made.ID, CIDR: s.CIDR, Zone: s.Zone, Tags: named(s.Name)})
			if err != nil {
				return fmt.Errorf("%s: create subnet %q: %w", s.Pos, s.Name, err)
			}
			b.keep(subnet.ID, "subnet", v.Name, s.Name)
			b.keep(subnet.ACLAssociation, "aclassoc", v.Name, s.Name)
			b.keep(subnet.ACL, "acl", v.Name, defaultName)
			if s.PublicAddresses {
				if err := c.ModifySubnetAttribute(ec2sim.ModifySubnetInput{ID: subnet.ID, MapPublic: ec2sim.Some(true)}); err != nil {
					return fmt.Errorf("%s: give subnet %q public addresses: %w", s.Pos, s.Name, err)
				}
			}
		}
		if err := b.gateway(v, made.ID); err != nil {
			return fmt.Errorf("%s: give vpc %q an internet gateway: %w", v.Pos, v.Name, err)
		}
		if err := b.groups(v, made.ID); err != nil {
			return err
		}
		if err := b.flowLogs(v, made.ID); err != nil {
			return fmt.Errorf("%s: make a flow log of vpc %q: %w", v.Pos, v.Name, err)
		}
	}
	return nil
}

// flowLogs has all that the VPC's ENIs carry recorded. Log group and role are
// those that EC2 wants named; the lab writes to neither.
func (b *builder) flowLogs(v VPC, vpcID string) error {
	if !v.FlowLogs {
		return nil
	}
	_, err := b.in(v).CreateFlowLogs(ec2sim.CreateFlowLogsInput{
		Type: ec2sim.FlowLogVPC, Resources: []string{vpcID}, Traffic: ec2sim.TrafficAll, Tags: named(v.Name),
		LogGroup: "fairway-lab", RoleARN: "arn:aws:iam::" + Account + ":role/fairway-lab",
	})
	return err
}

func (b *builder) gateway(v VPC, vpcID string) error {
	if !v.InternetGateway {
		return nil
	}
	g, err := b.in(v).CreateInternetGateway(ec2sim.CreateInternetGatewayInput{Tags: named(v.Name)})
	if err != nil {
		return err
	}
	b.keep(g.ID, "igw", v.Name, "")
	return b.in(v).AttachInternetGateway(ec2sim.InternetGatewayInput{ID: g.ID, VPCID: vpcID})
}

func (b *builder) peerings() error {
	for _, p := range b.w.Peerings {
		a, _ := b.w.findVPC(p.VPCs[0])
		z, _ := b.w.findVPC(p.VPCs[1])
		made, err := b.in(a).CreateVPCPeeringConnection(ec2sim.CreateVPCPeeringInput{
			VPCID: b.id("vpc", "", a.Name), PeerVPCID: b.id("vpc", "", z.Name), PeerRegion: b.w.RegionOf(z), Tags: named(p.Name),
		})
		if err == nil {
			_, err = b.in(z).AcceptVPCPeeringConnection(ec2sim.VPCPeeringInput{ID: made.ID})
		}
		if err != nil {
			return fmt.Errorf("%s: peer vpc %q with vpc %q: %w", p.Pos, a.Name, z.Name, err)
		}
		b.keep(made.ID, "peering", "", p.Name)
	}
	return nil
}

func (b *builder) natGateways() error {
	for _, v := range b.w.VPCs {
		for _, g := range v.NATGateways {
			in := ec2sim.CreateNATGatewayInput{SubnetID: b.id("subnet", v.Name, g.Subnet), Private: g.Private, Tags: named(g.Name)}
			if !g.Private {
				a, err := b.in(v).AllocateAddress(ec2sim.AllocateAddressInput{Tags: named(g.Name)})
				if err != nil {
					return fmt.Errorf("%s: allocate the address of nat gateway %q: %w", g.Pos, g.Name, err)
				}
				in.AllocationID = a.ID
			}
			made, err := b.in(v).CreateNATGateway(in)
			if err != nil {
				return fmt.Errorf("%s: create nat gateway %q: %w", g.Pos, g.Name, err)
			}
			b.keep(made.ID, "nat", v.Name, g.Name)
		}
	}
	return nil
}

func (b *builder) instances() error {
	for _, i := range b.w.Instances {
		v, _ := b.w.findVPC(i.VPC)
		var groups []string
		for _, name := range i.SecurityGroups {
			groups = append(groups, b.id("group", v.Name, name))
		}
		// A launch takes one or the other ("RunInstances", Amazon EC2 API Reference).
		atLaunch := ec2sim.Addressing{Count: i.SecondaryAddresses}
		if i.SecondaryAddresses == 0 {
			atLaunch.PrefixCount = i.Prefixes
		}
		r, err := b.in(v).RunInstances(ec2sim.RunInstancesInput{
			Type: i.Type,
			Interfaces: []ec2sim.LaunchInterface{{
				SubnetID: b.id("subnet", v.Name, i.Subnet), Groups: groups, Addresses: atLaunch,
			}},
			Tags:            named(i.Name),
			Metadata:        ec2sim.Metadata{HopLimit: i.HopLimit, Tokens: "required"},
			InstanceProfile: i.profile(),
		})
		if err != nil {
			return fmt.Errorf("%s: run instance %q: %w", i.Pos, i.Name, err)
		}
		eni := r.Instances[0].Interfaces[0]
		b.keep(eni, "eni", "", i.Name)
		if rest := i.Prefixes - atLaunch.PrefixCount; rest > 0 {
			if _, err := b.in(v).AssignPrivateIPAddresses(ec2sim.AssignPrivateIPAddressesInput{ID: eni, PrefixCount: rest}); err != nil {
				return fmt.Errorf("%s: give instance %q prefixes: %w", i.Pos, i.Name, err)
			}
		}
		if i.NoSourceDestCheck {
			if err := b.in(v).ModifyNetworkInterfaceAttribute(ec2sim.ModifyNetworkInterfaceInput{ID: eni, SourceDest: ec2sim.Some(false)}); err != nil {
				return fmt.Errorf("%s: turn the source/destination check of instance %q off: %w", i.Pos, i.Name, err)
			}
		}
		if i.ElasticAddress {
			a, err := b.in(v).AllocateAddress(ec2sim.AllocateAddressInput{Tags: named(i.Name)})
			if err == nil {
				_, err = b.in(v).AssociateAddress(ec2sim.AssociateAddressInput{AllocationID: a.ID, InterfaceID: eni})
			}
			if err != nil {
				return fmt.Errorf("%s: give instance %q an elastic address: %w", i.Pos, i.Name, err)
			}
		}
	}
	return nil
}

func (b *builder) transitGateways() error {
	for _, g := range b.w.TransitGateways {
		if err := b.transitGateway(g); err != nil {
			return fmt.Errorf("%s: create transit gateway %q: %w", g.Pos, g.Name, err)
		}
	}
	return nil
}

func (b *builder) transitGateway(g TransitGateway) error {
	first, _ := b.w.findVPC(g.VPCs[0])
	c := b.in(first)
	plain := ec2sim.Some(len(g.Tables) == 0)
	hub, err := c.CreateTransitGateway(ec2sim.CreateTransitGatewayInput{Associate: plain, Propagate: plain, Tags: named(g.Name)})
	if err != nil {
		return err
	}
	b.keep(hub.ID, "transit", "", g.Name)
	attachments := map[string]string{}
	for _, name := range g.VPCs {
		v, _ := b.w.findVPC(name)
		var subnets, zones []string
		for _, s := range v.Subnets {
			if !slices.Contains(zones, s.Zone) {
				subnets, zones = append(subnets, b.id("subnet", v.Name, s.Name)), append(zones, s.Zone)
			}
		}
		a, err := c.CreateTransitGatewayVPCAttachment(ec2sim.CreateTransitAttachmentInput{
			GatewayID: hub.ID, VPCID: b.id("vpc", "", v.Name), Subnets: subnets, Tags: named(v.Name),
		})
		if err != nil {
			return err
		}
		attachments[name] = a.ID
	}
	for _, t := range g.Tables {
		if err := transitTable(c, hub.ID, t, attachments); err != nil {
			return fmt.Errorf("table %q: %w", t.Name, err)
		}
	}
	return nil
}

func transitTable(c *ec2sim.Cloud, hub string, t TransitTable, attachments map[string]string) error {
	made, err := c.CreateTransitGatewayRouteTable(ec2sim.CreateTransitTableInput{GatewayID: hub, Tags: named(t.Name)})
	if err != nil {
		return err
	}
	for _, name := range t.VPCs {
		if err := c.AssociateTransitGatewayRouteTable(ec2sim.TransitTieInput{TableID: made.ID, AttachmentID: attachments[name]}); err != nil {
			return err
		}
	}
	for _, name := range t.Propagate {
		if err := c.EnableTransitGatewayRouteTablePropagation(ec2sim.TransitTieInput{TableID: made.ID, AttachmentID: attachments[name]}); err != nil {
			return err
		}
	}
	for _, r := range t.Routes {
		_, name := via(r.Via)
		if err := c.CreateTransitGatewayRoute(ec2sim.TransitRouteInput{
			TableID: made.ID, Dst: r.To, AttachmentID: attachments[name], Blackhole: name == "",
		}); err != nil {
			return fmt.Errorf("route to %s: %w", r.To, err)
		}
	}
	return nil
}

func (b *builder) routeTables() error {
	for _, v := range b.w.VPCs {
		for _, t := range v.RouteTables {
			if err := b.routeTable(v, t); err != nil {
				return fmt.Errorf("%s: create route table %q: %w", t.Pos, t.Name, err)
			}
		}
	}
	return nil
}

func (b *builder) routeTable(v VPC, t RouteTable) error {
	c, id := b.in(v), b.id("main", v.Name, "")
	if t.Main {
		if err := c.CreateTags(ec2sim.CreateTagsInput{IDs: []string{id}, Tags: named(t.Name)}); err != nil {
			return err
		}
	} else {
		made, err := c.CreateRouteTable(ec2sim.CreateRouteTableInput{VPCID: b.id("vpc", "", v.Name), Tags: named(t.Name)})
		if err != nil {
			return err
		}
		id = made.ID
	}
	b.keep(id, "table", v.Name, t.Name)
	for _, s := range t.Subnets {
		if _, err := c.AssociateRouteTable(ec2sim.AssociateRouteTableInput{TableID: id, SubnetID: b.id("subnet", v.Name, s)}); err != nil {
			return err
		}
	}
	for _, r := range t.Routes {
		in := ec2sim.RouteInput{TableID: id, Dst: r.To}
		switch kind, name := via(r.Via); kind {
		case "internetGateway":
			in.Gateway = b.id("igw", v.Name, "")
		case "nat":
			in.NAT = b.id("nat", v.Name, name)
		case "peering":
			in.Peering = b.id("peering", "", name)
		case "transitGateway":
			in.Transit = b.id("transit", "", name)
		case "instance":
			in.Interface = b.id("eni", "", name)
		}
		if err := c.CreateRoute(in); err != nil {
			return fmt.Errorf("route to %s: %w", r.To, err)
		}
	}
	return nil
}

// shortRoutes makes the routes that a World leaves unsaid. One that it does say
// stays as it is.
func (b *builder) shortRoutes() error {
	for _, v := range b.w.VPCs {
		described := slices.ContainsFunc(v.RouteTables, func(t RouteTable) bool { return t.Main })
		if v.InternetGateway && !described {
			in := ec2sim.RouteInput{TableID: b.id("main", v.Name, ""), Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Gateway: b.id("igw", v.Name, "")}
			if err := b.in(v).CreateRoute(in); err != nil {
				return fmt.Errorf("%s: route vpc %q to the internet: %w", v.Pos, v.Name, err)
			}
		}
	}
	for _, p := range b.w.Peerings {
		if !p.Routes {
			continue
		}
		target := ec2sim.RouteInput{Peering: b.id("peering", "", p.Name)}
		if err := b.join(p.VPCs, target); err != nil {
			return fmt.Errorf("%s: route peering %q: %w", p.Pos, p.Name, err)
		}
	}
	for _, g := range b.w.TransitGateways {
		if !g.Routes {
			continue
		}
		if err := b.join(g.VPCs, ec2sim.RouteInput{Transit: b.id("transit", "", g.Name)}); err != nil {
			return fmt.Errorf("%s: route transit gateway %q: %w", g.Pos, g.Name, err)
		}
	}
	return nil
}

// join leads all route tables of each VPC to all others by one target, where the
// World does not lead them elsewhere.
func (b *builder) join(vpcs []string, target ec2sim.RouteInput) error {
	taken := map[string]map[netip.Prefix]bool{}
	for _, t := range b.cloud.Snapshot().RouteTables {
		taken[t.ID] = map[netip.Prefix]bool{}
		for _, r := range t.Routes {
			taken[t.ID][r.Dst] = true
		}
	}
	for _, from := range vpcs {
		v, _ := b.w.findVPC(from)
		tables := []string{b.id("main", v.Name, "")}
		for _, t := range v.RouteTables {
			if !t.Main {
				tables = append(tables, b.id("table", v.Name, t.Name))
			}
		}
		for _, to := range vpcs {
			other, _ := b.w.findVPC(to)
			if to == from {
				continue
			}
			for _, table := range tables {
				for _, block := range other.CIDRs {
					if taken[table][block] {
						continue
					}
					target.TableID, target.Dst = table, block
					if err := b.in(v).CreateRoute(target); err != nil {
						return fmt.Errorf("from vpc %q to %s: %w", v.Name, block, err)
					}
				}
			}
		}
	}
	return nil
}

func named(name string) map[string]string { return map[string]string{"Name": name} }
