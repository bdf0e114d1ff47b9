package world

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// How many of each a world may have. AWS's own default quotas where there is
// one ("Amazon VPC quotas": subnets per VPC 200, IPv4 CIDR blocks per VPC up to
// 50), and otherwise far more than one machine runs.
const (
	maxVPCs      = 64
	maxCIDRs     = 50
	maxSubnets   = 200
	maxInstances = 500
	maxDaemons   = 32
	maxWords     = 256 // of a command, a capability list, an environment
)

func (p *parser) pos(n *yaml.Node) Pos { return Pos{File: p.file, Line: n.Line} }

func (p *parser) world(n *yaml.Node) *World {
	w := &World{Pos: p.pos(n), Region: defaultRegion}
	w.keys = p.mapping(n, "world", []field{
		{"name", p.text("name", &w.Name)},
		{"region", p.text("region", &w.Region)},
		{"vpcs", func(n *yaml.Node) bool {
			return p.list(n, "vpcs", maxVPCs, func(c *yaml.Node) { w.VPCs = append(w.VPCs, p.vpc(c)) })
		}},
		{"instances", func(n *yaml.Node) bool {
			return p.list(n, "instances", maxInstances, func(c *yaml.Node) { w.Instances = append(w.Instances, p.instance(c)) })
		}},
		{"prefixLists", objects(p, "prefixLists", maxLists, &w.PrefixLists, p.prefixList)},
		{"peerings", objects(p, "peerings", maxPeerings, &w.Peerings, p.peering)},
		{"transitGateways", objects(p, "transitGateways", maxTransit, &w.TransitGateways, p.transitGateway)},
		{"internet", func(n *yaml.Node) bool { w.Internet = p.internet(n); return true }},
		{"ec2", func(n *yaml.Node) bool { w.EC2 = p.ec2(n); return true }},
		{"roles", objects(p, "roles", maxRoles, &w.Roles, p.role)},
	})
	// The region may be written below the subnets that belong to it.
	for i := range w.VPCs {
		for j := range w.VPCs[i].Subnets {
			w.VPCs[i].Subnets[j].Zone = w.RegionOf(w.VPCs[i]) + w.VPCs[i].Subnets[j].Zone
		}
	}
	return w
}

func (p *parser) vpc(n *yaml.Node) VPC {
	v := VPC{Pos: p.pos(n)}
	var one netip.Prefix
	elements := keyLines{}
	v.keys = p.mapping(n, "vpc", []field{
		{"name", p.text("name", &v.Name)},
		{"region", p.text("region", &v.Region)},
		{"cidr", p.cidr("cidr", &one)},
		{"cidrs", func(n *yaml.Node) bool {
			return p.list(n, "cidrs", maxCIDRs, func(c *yaml.Node) {
				var prefix netip.Prefix
				ok := p.cidr("cidr", &prefix)(c)
				elements[cidrKey(len(v.CIDRs))] = keyAt{line: c.Line, bad: !ok}
				v.CIDRs = append(v.CIDRs, prefix)
			})
		}},
		{"subnets", func(n *yaml.Node) bool {
			return p.list(n, "subnets", maxSubnets, func(c *yaml.Node) { v.Subnets = append(v.Subnets, p.subnet(c)) })
		}},
		{"internetGateway", p.flag("internetGateway", &v.InternetGateway)},
		{"natGateways", objects(p, "natGateways", maxNATs, &v.NATGateways, p.nat)},
		{"securityGroups", objects(p, "securityGroups", maxGroups, &v.SecurityGroups, p.group)},
		{"networkAcls", objects(p, "networkAcls", maxACLs, &v.NetworkACLs, p.acl)},
		{"routeTables", objects(p, "routeTables", maxTables, &v.RouteTables, p.table)},
		{"flowLogs", p.flag("flowLogs", &v.FlowLogs)},
	})
	if v.keys == nil {
		v.keys = keyLines{}.allBad("name", "cidr", "cidrs")
		return v
	}
	if at, ok := v.keys["cidr"]; ok {
		if list, both := v.keys["cidrs"]; both {
			p.failf(max(at.line, list.line), "vpc %s has both cidr and cidrs: put all of them in cidrs, the primary first", quoted(v.Name))
			elements = keyLines{}
		}
		v.CIDRs, elements[cidrKey(0)] = []netip.Prefix{one}, at
	}
	maps.Copy(v.keys, elements)
	return v
}

// cidrKey is the key of the i-th CIDR block in a VPC's keyLines, whether it was
// written under cidr or under cidrs.
func cidrKey(i int) string { return fmt.Sprintf("cidrs[%d]", i) }

func (p *parser) subnet(n *yaml.Node) Subnet {
	s := Subnet{Pos: p.pos(n), Zone: defaultZone}
	s.keys = p.mapping(n, "subnet", []field{
		{"name", p.text("name", &s.Name)},
		{"cidr", p.cidr("cidr", &s.CIDR)},
		{"zone", p.text("zone", &s.Zone)},
		{"publicAddresses", p.flag("publicAddresses", &s.PublicAddresses)},
	})
	if s.keys == nil {
		s.keys = keyLines{}.allBad("name", "cidr", "zone")
	}
	return s
}

func (p *parser) instance(n *yaml.Node) Instance {
	in, check := Instance{Pos: p.pos(n), HopLimit: defaultHopLimit}, true
	in.keys = p.mapping(n, "instance", []field{
		{"name", p.text("name", &in.Name)},
		{"type", p.text("type", &in.Type)},
		{"subnet", p.text("subnet", &in.Subnet)},
		{"hopLimit", p.number("hopLimit", &in.HopLimit)},
		{"secondaryAddresses", p.number("secondaryAddresses", &in.SecondaryAddresses)},
		{"prefixes", p.number("prefixes", &in.Prefixes)},
		{"daemons", func(n *yaml.Node) bool {
			return p.list(n, "daemons", maxDaemons, func(c *yaml.Node) { in.Daemons = append(in.Daemons, p.daemon(c)) })
		}},
		{"securityGroups", p.texts("securityGroups", maxENIGroups, &in.SecurityGroups)},
		{"elasticAddress", p.flag("elasticAddress", &in.ElasticAddress)},
		{"sourceDestCheck", p.flag("sourceDestCheck", &check)},
		{"role", p.text("role", &in.Role)},
	})
	in.NoSourceDestCheck = !check
	if in.keys == nil {
		in.keys = keyLines{}.allBad("name", "type", "subnet")
	}
	return in
}

func (p *parser) daemon(n *yaml.Node) Daemon {
	d := Daemon{Pos: p.pos(n)}
	d.keys = p.mapping(n, "daemon", []field{
		{"name", p.text("name", &d.Name)},
		{"command", p.texts("command", maxWords, &d.Command)},
		{"capabilities", p.texts("capabilities", maxWords, &d.Capabilities)},
		{"env", p.environment(&d.Env)},
	})
	if d.keys == nil {
		d.keys = keyLines{}.allBad("name", "command")
	}
	// "CAP_NET_ADMIN" and "net_admin" are the same to the person who writes them.
	for i, c := range d.Capabilities {
		d.Capabilities[i] = strings.TrimPrefix(strings.ToUpper(c), "CAP_")
	}
	slices.Sort(d.Capabilities)
	return d
}

func (p *parser) environment(into *map[string]string) func(*yaml.Node) bool {
	return func(n *yaml.Node) bool {
		if n.Kind != yaml.MappingNode || len(n.Content) > 2*maxWords {
			p.failf(n.Line, "env: found %s, want a mapping of at most %d names to values", kind(n), maxWords)
			return false
		}
		ok := true
		*into = map[string]string{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			var key, value string
			if !p.text("env name", &key)(n.Content[i]) || !p.text("env "+quoted(key), &value)(n.Content[i+1]) {
				ok = false
				continue
			}
			if _, twice := (*into)[key]; twice {
				p.failf(n.Content[i].Line, "env %s is there twice", quoted(key))
				ok = false
			}
			(*into)[key] = value
		}
		return ok
	}
}

// resolve turns what an instance's subnet key says, "a" or "main/a", into the
// names of a VPC and a subnet.
func (p *parser) resolve(w *World) {
	type place struct{ vpc, subnet string }
	places := map[string][]place{} // by either way to write it
	var full, short []string
	for _, v := range w.VPCs {
		for _, s := range v.Subnets {
			f := v.Name + "/" + s.Name
			places[f] = append(places[f], place{v.Name, s.Name})
			places[s.Name] = append(places[s.Name], place{v.Name, s.Name})
			full, short = append(full, f), append(short, s.Name)
		}
	}
	for i := range w.Instances {
		in := &w.Instances[i]
		at, written := in.keys["subnet"]
		if !written || at.bad || len(w.VPCs) == 0 {
			continue
		}
		want, known := in.Subnet, short
		if strings.Contains(want, "/") {
			known = full
		}
		found := places[want]
		switch {
		case len(found) == 0:
			p.failf(at.line, "instance %s: there is no subnet %s%s: %s", quoted(in.Name), quoted(want), suggest(want, known), listed("subnets are", full))
		case len(found) > 1 && !strings.Contains(want, "/"):
			p.failf(at.line, "instance %s: subnet %s is in more than one VPC: write it as VPC/SUBNET, such as %q",
				quoted(in.Name), quoted(want), found[0].vpc+"/"+found[0].subnet)
		default:
			in.VPC, in.Subnet = found[0].vpc, found[0].subnet
			continue
		}
		in.keys["subnet"] = keyAt{line: at.line, bad: true}
	}
}

// listed names a few of many.
func listed(what string, all []string) string {
	const most = 8
	switch {
	case len(all) == 0:
		return what + " not given at all"
	case len(all) > most:
		return fmt.Sprintf("%s %s and %d more", what, strings.Join(all[:most], ", "), len(all)-most)
	}
	return what + " " + strings.Join(all, ", ")
}

// allBad marks keys of an object that is no mapping, of which the parser has complained already.
func (k keyLines) allBad(keys ...string) keyLines {
	for _, key := range keys {
		k[key] = keyAt{bad: true}
	}
	return k
}
