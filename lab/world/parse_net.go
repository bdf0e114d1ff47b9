package world

import (
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v3"
)

// How many of each a world may have: AWS's own default quotas ("Amazon VPC
// quotas", "Quotas for your Amazon VPC Transit Gateways"), raised where they can be.
const (
	maxGroups      = 500
	maxRules       = 60
	maxACLs        = 200
	maxEntries     = 40
	maxTables      = 200
	maxRoutes      = 500
	maxNATs        = 50
	maxPeerings    = 500
	maxTransit     = 5
	maxLists       = 100
	maxListEntries = 1000
	maxHosts       = 64
	maxENIGroups   = 5
)

// objects reads a list of objects. An empty list is not nil, as in the file.
func objects[T any](p *parser, what string, limit int, into *[]T, read func(*yaml.Node) T) func(*yaml.Node) bool {
	return func(n *yaml.Node) bool {
		*into = []T{}
		return p.list(n, what, limit, func(c *yaml.Node) { *into = append(*into, read(c)) })
	}
}

func (p *parser) flag(what string, into *bool) func(*yaml.Node) bool {
	return func(n *yaml.Node) bool {
		if n.Kind != yaml.ScalarNode || n.Value != "true" && n.Value != "false" {
			p.failf(n.Line, "%s: found %s, want true or false", what, kind(n))
			return false
		}
		*into = n.Value == "true"
		return true
	}
}

func (p *parser) addr(what string, into *netip.Addr) func(*yaml.Node) bool {
	return func(n *yaml.Node) bool {
		var s string
		if !p.text(what, &s)(n) {
			return false
		}
		a, err := netip.ParseAddr(s)
		if err != nil || !a.Is4() {
			p.failf(n.Line, "%s %s: want an IPv4 address such as 203.0.113.10", what, quoted(s))
			return false
		}
		*into = a
		return true
	}
}

func (p *parser) cidrs(what string, limit int, into *[]netip.Prefix) func(*yaml.Node) bool {
	return func(n *yaml.Node) bool {
		all := true
		ok := p.list(n, what, limit, func(c *yaml.Node) {
			var one netip.Prefix
			all = p.cidr("cidr", &one)(c) && all
			*into = append(*into, one)
		})
		return ok && all
	}
}

func (p *parser) group(n *yaml.Node) SecurityGroup {
	g := SecurityGroup{Pos: p.pos(n)}
	g.keys = p.mapping(n, "security group", []field{
		{"name", p.text("name", &g.Name)},
		{"ingress", objects(p, "ingress", maxRules, &g.Ingress, p.groupRule("from"))},
		{"egress", objects(p, "egress", maxRules, &g.Egress, p.groupRule("to"))},
	})
	if g.keys == nil {
		g.keys = keyLines{}.allBad("name")
	}
	return g
}

// groupRule reads a rule whose remote is under the key "from" or "to".
func (p *parser) groupRule(remote string) func(*yaml.Node) GroupRule {
	return func(n *yaml.Node) GroupRule {
		r := GroupRule{Pos: p.pos(n)}
		r.keys = p.mapping(n, "rule", append(p.traffic(&r.Traffic), field{remote, p.text(remote, &r.Remote)}))
		if r.keys == nil {
			return GroupRule{Pos: r.Pos, keys: keyLines{}.allBad("remote", "protocol", "ports")}
		}
		if at, ok := r.keys[remote]; ok {
			r.keys["remote"] = at
		}
		return r
	}
}

func (p *parser) traffic(t *Traffic) []field {
	return []field{{"protocol", p.text("protocol", &t.Protocol)}, {"ports", p.text("ports", &t.Ports)}}
}

func (p *parser) acl(n *yaml.Node) NetworkACL {
	a := NetworkACL{Pos: p.pos(n)}
	a.keys = p.mapping(n, "network acl", []field{
		{"name", p.text("name", &a.Name)},
		{"subnets", p.texts("subnets", maxSubnets, &a.Subnets)},
		{"ingress", objects(p, "ingress", maxEntries, &a.Ingress, p.aclEntry)},
		{"egress", objects(p, "egress", maxEntries, &a.Egress, p.aclEntry)},
	})
	if a.keys == nil {
		a.keys = keyLines{}.allBad("name", "subnets")
	}
	return a
}

func (p *parser) aclEntry(n *yaml.Node) ACLEntry {
	e := ACLEntry{Pos: p.pos(n), Action: "allow"}
	e.keys = p.mapping(n, "entry", append([]field{
		{"number", p.number("number", &e.Number)},
		{"action", p.text("action", &e.Action)},
		{"cidr", p.cidr("cidr", &e.CIDR)},
	}, p.traffic(&e.Traffic)...))
	if e.keys == nil {
		e.keys = keyLines{}.allBad("number", "action", "cidr", "protocol", "ports")
	}
	return e
}

func (p *parser) table(n *yaml.Node) RouteTable {
	t := RouteTable{Pos: p.pos(n)}
	t.keys = p.mapping(n, "route table", []field{
		{"name", p.text("name", &t.Name)},
		{"main", p.flag("main", &t.Main)},
		{"subnets", p.texts("subnets", maxSubnets, &t.Subnets)},
		{"routes", objects(p, "routes", maxRoutes, &t.Routes, p.route)},
	})
	if t.keys == nil {
		t.keys = keyLines{}.allBad("name", "subnets")
	}
	return t
}

func (p *parser) route(n *yaml.Node) Route {
	r := Route{Pos: p.pos(n)}
	r.keys = p.mapping(n, "route", []field{{"to", p.cidr("to", &r.To)}, {"via", p.text("via", &r.Via)}})
	if r.keys == nil {
		r.keys = keyLines{}.allBad("to", "via")
	}
	return r
}

func (p *parser) nat(n *yaml.Node) NATGateway {
	g := NATGateway{Pos: p.pos(n)}
	g.keys = p.mapping(n, "nat gateway", []field{
		{"name", p.text("name", &g.Name)},
		{"subnet", p.text("subnet", &g.Subnet)},
		{"private", p.flag("private", &g.Private)},
	})
	if g.keys == nil {
		g.keys = keyLines{}.allBad("name", "subnet")
	}
	return g
}

func (p *parser) prefixList(n *yaml.Node) PrefixList {
	l := PrefixList{Pos: p.pos(n)}
	l.keys = p.mapping(n, "prefix list", []field{
		{"name", p.text("name", &l.Name)},
		{"entries", p.cidrs("entries", maxListEntries, &l.Entries)},
	})
	if l.keys == nil {
		l.keys = keyLines{}.allBad("name", "entries")
	}
	return l
}

func (p *parser) peering(n *yaml.Node) Peering {
	g := Peering{Pos: p.pos(n), Routes: true}
	g.keys = p.mapping(n, "peering", []field{
		{"name", p.text("name", &g.Name)},
		{"vpcs", p.texts("vpcs", maxVPCs, &g.VPCs)},
		{"routes", p.flag("routes", &g.Routes)},
	})
	if g.keys == nil {
		g.keys = keyLines{}.allBad("name", "vpcs")
	}
	if _, written := g.keys["name"]; !written && len(g.VPCs) == 2 {
		g.Name = strings.Join(g.VPCs, "-")
	}
	return g
}

func (p *parser) transitGateway(n *yaml.Node) TransitGateway {
	g := TransitGateway{Pos: p.pos(n), Routes: true}
	g.keys = p.mapping(n, "transit gateway", []field{
		{"name", p.text("name", &g.Name)},
		{"vpcs", p.texts("vpcs", maxVPCs, &g.VPCs)},
		{"routes", p.flag("routes", &g.Routes)},
		{"tables", objects(p, "tables", maxTables, &g.Tables, p.transitTable)},
	})
	if g.keys == nil {
		g.keys = keyLines{}.allBad("name", "vpcs", "tables")
	}
	return g
}

func (p *parser) transitTable(n *yaml.Node) TransitTable {
	t := TransitTable{Pos: p.pos(n)}
	t.keys = p.mapping(n, "table", []field{
		{"name", p.text("name", &t.Name)},
		{"vpcs", p.texts("vpcs", maxVPCs, &t.VPCs)},
		{"propagate", p.texts("propagate", maxVPCs, &t.Propagate)},
		{"routes", objects(p, "routes", maxRoutes, &t.Routes, p.route)},
	})
	if t.keys == nil {
		t.keys = keyLines{}.allBad("name", "vpcs", "propagate")
	}
	return t
}

func (p *parser) internet(n *yaml.Node) Internet {
	i := Internet{Pos: p.pos(n)}
	i.keys = p.mapping(n, "internet", []field{{"hosts", func(n *yaml.Node) bool {
		all := true
		ok := p.list(n, "hosts", maxHosts, func(c *yaml.Node) {
			var a netip.Addr
			all = p.addr("host", &a)(c) && all
			i.Hosts = append(i.Hosts, a)
		})
		return ok && all
	}}})
	if i.keys == nil {
		i.keys = keyLines{}.allBad("hosts")
	}
	return i
}
