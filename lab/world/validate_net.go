package world

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// network checks what is around the VPCs' subnets, by AWS's rules.
func (c *checker) network(w *World) {
	lists := map[string]Pos{}
	for _, l := range w.PrefixLists {
		c.name(l.Pos, l.keys, "prefix list", l.Name, lists)
		c.entries(l)
	}
	for _, v := range w.VPCs {
		c.groups(w, v)
		c.acls(v)
		c.gateways(v)
		c.tables(w, v)
	}
	c.peerings(w)
	c.transit(w)
	c.memberships(w)
	c.internet(w)
}

func (c *checker) entries(l PrefixList) {
	at := l.keys.at(l.Pos, "entries")
	for i, p := range l.Entries {
		switch {
		case l.keys["entries"].bad:
		case !ipv4Block(p):
			c.failf(at, "prefix list %s: entry %s: want an IPv4 block without host bits", quoted(l.Name), p)
		case slices.Contains(l.Entries[:i], p):
			c.failf(at, "prefix list %s: entry %s is there twice", quoted(l.Name), p)
		}
	}
}

func ipv4Block(p netip.Prefix) bool { return p.IsValid() && p.Addr().Is4() && p == p.Masked() }

func (c *checker) groups(w *World, v VPC) {
	names := map[string]Pos{}
	for _, g := range v.SecurityGroups {
		c.name(g.Pos, g.keys, "security group", g.Name, names)
		what := fmt.Sprintf("security group %s of vpc %s", quoted(g.Name), quoted(v.Name))
		for _, r := range slices.Concat(g.Ingress, g.Egress) {
			if _, err := r.Traffic.parse(); err != nil && !r.keys["protocol"].bad && !r.keys["ports"].bad {
				c.failf(r.Pos, "%s: %s", what, err)
			}
			if _, err := w.remote(v, r.Remote); err != nil && !r.keys["remote"].bad {
				c.failf(r.keys.at(r.Pos, "remote"), "%s: %s", what, err)
			}
		}
	}
}

// ports is a Traffic in EC2's form.
type ports struct{ protocol, from, to int }

// parse reads what the person wrote. The errors name the values.
func (t Traffic) parse() (ports, error) {
	out := ports{protocol: ec2sim.AllProtocols, from: -1, to: -1}
	switch t.Protocol {
	case "", "all":
	case "tcp":
		out.protocol = ec2sim.ProtocolTCP
	case "udp":
		out.protocol = ec2sim.ProtocolUDP
	case "icmp":
		out.protocol = ec2sim.ProtocolICMP
	default:
		n, err := strconv.ParseUint(t.Protocol, 10, 8)
		if err != nil {
			return out, fmt.Errorf("protocol %s: want tcp, udp, icmp, all or a number of 0 to 255", quoted(t.Protocol))
		}
		out.protocol = int(n)
	}
	withPorts := out.protocol == ec2sim.ProtocolTCP || out.protocol == ec2sim.ProtocolUDP
	separator, most, form := "-", uint64(65535), "PORT or FIRST-LAST, of 0 to 65535"
	if out.protocol == ec2sim.ProtocolICMP {
		separator, most, form = "/", 255, "TYPE or TYPE/CODE, of 0 to 255"
	}
	switch {
	case t.Ports == "" && withPorts:
		out.from, out.to = 0, 65535
		return out, nil
	case t.Ports == "":
		return out, nil
	case !withPorts && out.protocol != ec2sim.ProtocolICMP:
		return out, fmt.Errorf("ports %s: only tcp, udp and icmp have any", quoted(t.Ports))
	}
	first, last, both := strings.Cut(t.Ports, separator)
	from, err := strconv.ParseUint(first, 10, 16)
	to, errTo := from, error(nil)
	if both {
		to, errTo = strconv.ParseUint(last, 10, 16)
	}
	if err != nil || errTo != nil || from > most || to > most || withPorts && from > to {
		return out, fmt.Errorf("ports %s: want %s", quoted(t.Ports), form)
	}
	out.from, out.to = int(from), int(to)
	if !withPorts && !both {
		out.to = -1
	}
	return out, nil
}

// remote is what a rule of a group is about: exactly one is set.
type remote struct {
	cidr       netip.Prefix
	vpc, group string
	list       string
}

// remote resolves what a rule of v's says.
func (w *World) remote(v VPC, text string) (remote, error) {
	if text == "" {
		return remote{}, fmt.Errorf("a rule has no remote: add from (or to, for egress), a CIDR block, a group or prefixList/NAME")
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		if !ipv4Block(p) {
			return remote{}, fmt.Errorf("remote %s: want an IPv4 block without host bits", quoted(text))
		}
		return remote{cidr: p}, nil
	}
	if name, ok := strings.CutPrefix(text, "prefixList/"); ok {
		if slices.ContainsFunc(w.PrefixLists, func(l PrefixList) bool { return l.Name == name }) {
			return remote{list: name}, nil
		}
		return remote{}, fmt.Errorf("there is no prefix list %s", quoted(name))
	}
	other, group := v, text
	if vpc, name, ok := strings.Cut(text, "/"); ok {
		if other, ok = w.findVPC(vpc); !ok {
			return remote{}, fmt.Errorf("remote %s: there is no vpc %s: want a CIDR block, a group or prefixList/NAME", quoted(text), quoted(vpc))
		}
		group = name
	}
	if !other.hasGroup(group) {
		return remote{}, fmt.Errorf("remote %s: vpc %s has no security group %s: want a CIDR block, a group or prefixList/NAME", quoted(text), quoted(other.Name), quoted(group))
	}
	if other.Name == v.Name {
		return remote{vpc: v.Name, group: group}, nil
	}
	switch {
	case w.RegionOf(other) != w.RegionOf(v):
		return remote{}, fmt.Errorf("remote %s: a group can be named across a peering only within a region, and vpc %s is in %s", quoted(text), quoted(other.Name), quotedBare(w.RegionOf(other)))
	case !slices.ContainsFunc(w.Peerings, func(p Peering) bool { return slices.Contains(p.VPCs, v.Name) && slices.Contains(p.VPCs, other.Name) }):
		return remote{}, fmt.Errorf("remote %s: a group of another VPC can be named only where the two are peered", quoted(text))
	}
	return remote{vpc: other.Name, group: group}, nil
}

func (v VPC) hasGroup(name string) bool {
	return name == defaultName || slices.ContainsFunc(v.SecurityGroups, func(g SecurityGroup) bool { return g.Name == name })
}

func (v VPC) hasSubnet(name string) bool {
	return slices.ContainsFunc(v.Subnets, func(s Subnet) bool { return s.Name == name })
}

// claims checks a list of subnets of a VPC, of which each can be in one list.
func (c *checker) claims(at Pos, v VPC, what string, subnets []string, taken map[string]string) {
	for _, name := range subnets {
		switch other, twice := taken[name]; {
		case !v.hasSubnet(name):
			c.failf(at, "%s: vpc %s has no subnet %s", what, quoted(v.Name), quoted(name))
		case twice:
			c.failf(at, "%s: subnet %s has %s already: a subnet has exactly one", what, quoted(name), quoted(other))
		default:
			taken[name] = what
		}
	}
}

func (c *checker) acls(v VPC) {
	names, taken := map[string]Pos{}, map[string]string{}
	for _, a := range v.NetworkACLs {
		c.name(a.Pos, a.keys, "network acl", a.Name, names)
		what := fmt.Sprintf("network acl %s", quotedBare(a.Name))
		if !a.keys["subnets"].bad {
			c.claims(a.keys.at(a.Pos, "subnets"), v, what, a.Subnets, taken)
		}
		for _, entries := range [][]ACLEntry{a.Ingress, a.Egress} {
			numbers := map[int]Pos{}
			for _, e := range entries {
				c.aclEntry(what, e, numbers)
			}
		}
	}
}

func (c *checker) aclEntry(what string, e ACLEntry, numbers map[int]Pos) {
	at := e.keys.at(e.Pos, "number")
	switch prev, twice := numbers[e.Number]; {
	case e.keys["number"].bad:
	case e.Number < 1 || e.Number > 32766: // CreateNetworkAclEntry, Amazon EC2 API Reference
		c.failf(at, "%s: number %d: want 1 to 32766", what, e.Number)
	case twice:
		c.failf(at, "%s: number %d is there twice%s: the lowest number that matches decides", what, e.Number, inLine(prev))
	default:
		numbers[e.Number] = at
	}
	if e.Action != "allow" && e.Action != "deny" && !e.keys["action"].bad {
		c.failf(e.keys.at(e.Pos, "action"), "%s: action %s: want allow or deny", what, quoted(e.Action))
	}
	if !ipv4Block(e.CIDR) && !e.keys["cidr"].bad {
		c.failf(e.keys.at(e.Pos, "cidr"), "%s: an entry needs a cidr, an IPv4 block without host bits such as 0.0.0.0/0", what)
	}
	if _, err := e.Traffic.parse(); err != nil && !e.keys["protocol"].bad && !e.keys["ports"].bad {
		c.failf(e.Pos, "%s: %s", what, err)
	}
}

func (c *checker) gateways(v VPC) {
	names := map[string]Pos{}
	for _, g := range v.NATGateways {
		c.name(g.Pos, g.keys, "nat gateway", g.Name, names)
		if !v.hasSubnet(g.Subnet) && !g.keys["subnet"].bad {
			c.failf(g.keys.at(g.Pos, "subnet"), "nat gateway %s: vpc %s has no subnet %s", quoted(g.Name), quoted(v.Name), quoted(g.Subnet))
		}
		if !g.Private && !v.InternetGateway && !v.keys["internetGateway"].bad {
			c.failf(g.Pos, "nat gateway %s: a public NAT gateway needs an internet gateway in its VPC: add internetGateway: true to vpc %s, or private: true here", quoted(g.Name), quoted(v.Name))
		}
	}
	for _, s := range v.Subnets {
		if s.PublicAddresses && !v.InternetGateway && !v.keys["internetGateway"].bad {
			c.failf(s.keys.at(s.Pos, "publicAddresses"), "subnet %s: public addresses need an internet gateway: add internetGateway: true to vpc %s", quoted(s.Name), quoted(v.Name))
		}
	}
}

func (c *checker) tables(w *World, v VPC) {
	names, taken := map[string]Pos{}, map[string]string{}
	main := Pos{}
	for i, t := range v.RouteTables {
		c.name(t.Pos, t.keys, "route table", t.Name, names)
		what := fmt.Sprintf("route table %s", quotedBare(t.Name))
		if !t.keys["subnets"].bad {
			c.claims(t.keys.at(t.Pos, "subnets"), v, what, t.Subnets, taken)
		}
		if t.Main && slices.ContainsFunc(v.RouteTables[:i], func(o RouteTable) bool { return o.Main }) {
			c.failf(t.keys.at(t.Pos, "main"), "%s: the main route table is there already%s: a VPC has exactly one", what, inLine(main))
		} else if t.Main {
			main = t.Pos
		}
		seen := map[netip.Prefix]Pos{}
		for _, r := range t.Routes {
			if !c.destination(what, r, seen) {
				continue
			}
			if err := w.checkRoute(v, r); err != nil && !r.keys["via"].bad {
				c.failf(r.keys.at(r.Pos, "via"), "%s: route to %s: %s", what, r.To, err)
			}
		}
	}
}

// destination checks where a route leads, and that it is there once.
func (c *checker) destination(what string, r Route, seen map[netip.Prefix]Pos) bool {
	at := r.keys.at(r.Pos, "to")
	switch prev, twice := seen[r.To]; {
	case r.keys["to"].bad:
	case !ipv4Block(r.To):
		c.failf(at, "%s: a route needs a destination, an IPv4 block without host bits: to: 0.0.0.0/0", what)
	case twice:
		c.failf(at, "%s: the route to %s is there twice%s", what, r.To, inLine(prev))
	default:
		seen[r.To] = at
		return true
	}
	return false
}

// via is the target of a route as a person writes it.
func via(text string) (kind, name string) {
	kind, name, _ = strings.Cut(text, "/")
	return kind, name
}

// checkRoute checks the target of a route of v's.
func (w *World) checkRoute(v VPC, r Route) error {
	kind, name := via(r.Via)
	device := kind == "nat" || kind == "instance"
	for _, p := range usable(v) {
		switch {
		case r.To == p:
			return fmt.Errorf("the local route of %s is always there", p)
		case !within(r.To, p):
		case !device:
			return fmt.Errorf("a route that is more specific than the local one of %s can lead only to a NAT gateway or an instance", p)
		case !slices.ContainsFunc(v.Subnets, func(s Subnet) bool { return s.CIDR == r.To }):
			return fmt.Errorf("a route that is more specific than the local one of %s must be to the whole of a subnet", p)
		}
	}
	ok := false
	switch kind {
	case "internetGateway":
		if !v.InternetGateway {
			return fmt.Errorf("vpc %s has no internet gateway: add internetGateway: true", quoted(v.Name))
		}
		return nil
	case "nat":
		ok = slices.ContainsFunc(v.NATGateways, func(g NATGateway) bool { return g.Name == name })
	case "peering":
		ok = slices.ContainsFunc(w.Peerings, func(p Peering) bool { return p.Name == name && slices.Contains(p.VPCs, v.Name) })
	case "transitGateway":
		ok = slices.ContainsFunc(w.TransitGateways, func(g TransitGateway) bool { return g.Name == name && slices.Contains(g.VPCs, v.Name) })
	case "instance":
		in, found := w.findInstance(name)
		ok = found && in.VPC == v.Name
	default:
		return fmt.Errorf("via %s: want internetGateway, nat/NAME, peering/NAME, transitGateway/NAME or instance/NAME", quoted(r.Via))
	}
	if !ok {
		return fmt.Errorf("via %s: vpc %s has no such target", quoted(r.Via), quoted(v.Name))
	}
	return nil
}

// memberships checks what instances say of groups and public addresses.
func (c *checker) memberships(w *World) {
	for _, in := range w.Instances {
		v, ok := w.findVPC(in.VPC)
		if !ok {
			continue
		}
		what, at := fmt.Sprintf("instance %s", quoted(in.Name)), in.keys.at(in.Pos, "securityGroups")
		for i, name := range in.SecurityGroups {
			switch {
			case in.keys["securityGroups"].bad:
			case !v.hasGroup(name):
				c.failf(at, "%s: vpc %s has no security group %s", what, quoted(v.Name), quoted(name))
			case slices.Contains(in.SecurityGroups[:i], name):
				c.failf(at, "%s: security group %s is there twice", what, quoted(name))
			}
		}
		if len(in.SecurityGroups) > maxENIGroups {
			c.failf(at, "%s: %d security groups: an ENI has at most %d", what, len(in.SecurityGroups), maxENIGroups)
		}
		if in.ElasticAddress && !v.InternetGateway && !v.keys["internetGateway"].bad {
			c.failf(in.keys.at(in.Pos, "elasticAddress"), "%s: an elastic address needs an internet gateway: add internetGateway: true to vpc %s", what, quoted(v.Name))
		}
	}
}

// labPublic are the blocks of which the lab's EC2 takes public addresses.
var labPublic = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("198.18.0.0/15")}

func (c *checker) internet(w *World) {
	i := w.Internet
	at := i.keys.at(i.Pos, "hosts")
	for k, a := range i.Hosts {
		switch {
		case i.keys["hosts"].bad:
		case !a.Is4():
			c.failf(at, "internet host %s: want an IPv4 address", a)
		case slices.Contains(i.Hosts[:k], a):
			c.failf(at, "internet host %s is there twice", a)
		case slices.ContainsFunc(unroutable, func(p netip.Prefix) bool { return p.Contains(a) }) || a.IsPrivate():
			c.failf(at, "internet host %s is no address of the internet: take one such as 203.0.113.10", a)
		case slices.ContainsFunc(labPublic, func(p netip.Prefix) bool { return p.Contains(a) }):
			c.failf(at, "internet host %s is in the block that the lab's EC2 takes public addresses from: take one such as 203.0.113.10", a)
		}
	}
}
