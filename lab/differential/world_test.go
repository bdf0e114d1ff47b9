package differential

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// dice are the choices of one seed.
type dice struct{ *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 0x5eed))} }

// in says yes once in n times.
func (d dice) in(n int) bool { return d.IntN(n) == 0 }

func one[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

// blueprint is what of a world the later steps need to know.
type blueprint struct {
	yaml    string
	vpcs    []string
	online  map[string]bool // VPCs with an internet gateway
	nodes   []string        // instances that get pods
	plain   []string
	hosts   []string // addresses on the internet
	transit bool
}

const (
	knownHost = "203.0.113.80" // the one that the explainer means by "internet"
	otherHost = "203.0.113.10"
)

// design writes a random world: up to three VPCs of 10.N.0.0/16 with two subnets
// each, and what joins and filters them. About half of the choices are those that
// let packets pass, so that there is something behind a filter.
func design(d dice, name string) blueprint {
	b := blueprint{online: map[string]bool{}, hosts: []string{knownHost, otherHost}, transit: d.in(3)}
	b.vpcs = []string{"a", "b", "c"}[:2+d.IntN(2)]
	far := !b.transit && d.in(3) // b is in another region
	var y strings.Builder
	fmt.Fprintf(&y, "name: %s\nregion: eu-west-1\nvpcs:\n", name)
	for i, v := range b.vpcs {
		b.online[v] = !d.in(3)
		b.vpc(d, &y, i, v, far)
	}
	b.joins(d, &y, far)
	y.WriteString("instances:\n")
	for i, v := range b.vpcs {
		b.instances(d, &y, i, v)
	}
	fmt.Fprintf(&y, "internet: {hosts: [%s]}\n", strings.Join(b.hosts, ", "))
	y.WriteString("prefixLists:\n  - {name: some, entries: [10.0.1.0/24, 10.1.0.0/16]}\n")
	b.yaml = y.String()
	return b
}

func (b *blueprint) vpc(d dice, y *strings.Builder, i int, v string, far bool) {
	fmt.Fprintf(y, "  - name: %s\n    cidr: 10.%d.0.0/16\n", v, i)
	if far && v == "b" {
		y.WriteString("    region: us-east-1\n")
	}
	fmt.Fprintf(y, "    internetGateway: %t\n    subnets:\n", b.online[v])
	for s := range 2 {
		zone := "a"
		// One zone: which of an attachment's subnets a transit gateway delivers by
		// is its own choice.
		if s == 1 && !b.transit {
			zone = "b"
		}
		fmt.Fprintf(y, "      - {name: %s%d, cidr: 10.%d.%d.0/24, zone: %s, publicAddresses: %t}\n", v, s, i, s+1, zone, b.online[v] && d.in(3))
	}
	if b.online[v] && d.in(2) {
		fmt.Fprintf(y, "    natGateways: [{name: out-%s, subnet: %s1, private: %t}]\n", v, v, d.in(5))
	} else {
		fmt.Fprintf(y, "    natGateways: [{name: out-%s, subnet: %s1, private: true}]\n", v, v)
	}
	y.WriteString("    securityGroups:\n")
	for _, g := range []string{"default", "x"} {
		fmt.Fprintf(y, "      - {name: %s, ingress: %s, egress: %s}\n", g, b.groupRules(d, v, "from"), b.groupRules(d, v, "to"))
	}
	y.WriteString("    networkAcls:\n")
	for s := range 2 {
		if d.in(3) {
			fmt.Fprintf(y, "      - {name: acl%d, subnets: [%s%d], ingress: %s, egress: %s}\n", s, v, s, b.aclRules(d), b.aclRules(d))
		}
	}
	fmt.Fprintf(y, "      - {name: spare, subnets: []}\n    routeTables:\n")
	fmt.Fprintf(y, "      - {name: main, main: true, routes: %s}\n", b.routes(d, v, ""))
	for s := range 2 {
		if d.in(2) {
			// A route to an appliance may be for the other subnet: of one for its own
			// block AWS says nothing.
			other := fmt.Sprintf("10.%d.%d.0/24", i, 2-s)
			fmt.Fprintf(y, "      - {name: own%d, subnets: [%s%d], routes: %s}\n", s, v, s, b.routes(d, v, other))
		}
	}
}

// traffic is a protocol with its ports.
func traffic(d dice) string {
	return one(d,
		"protocol: all", "protocol: all", "protocol: tcp", "protocol: udp", "protocol: icmp", "protocol: tcp, ports: 80",
		"protocol: tcp, ports: 80-443", "protocol: tcp, ports: 8080", "protocol: udp, ports: 53", "protocol: tcp, ports: 1024-65535",
		"protocol: udp, ports: 1024-65535", "protocol: icmp, ports: 8/0", "protocol: icmp, ports: 0", "protocol: 6", "protocol: 17")
}

func (b *blueprint) block(d dice) string {
	return one(d, "0.0.0.0/0", "0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16", "10.0.1.0/24", "10.1.2.0/24",
		"10.0.0.0/15", knownHost+"/32")
}

func (b *blueprint) groupRules(d dice, v, way string) string {
	if !d.in(3) {
		return fmt.Sprintf("[{protocol: all, %s: 0.0.0.0/0}]", way)
	}
	var rules []string
	seen := map[string]bool{}
	for range d.IntN(5) {
		remote := b.block(d)
		switch d.IntN(6) {
		case 0:
			remote = one(d, "default", "x")
		case 1:
			remote = "prefixList/some"
		}
		rule := fmt.Sprintf("{%s, %s: %s}", traffic(d), way, remote)
		// EC2 knows two ways to write one rule for the same.
		same := strings.NewReplacer("protocol: 6", "protocol: tcp", "protocol: 17", "protocol: udp").Replace(rule)
		if !seen[same] {
			seen[same] = true
			rules = append(rules, rule)
		}
	}
	return "[" + strings.Join(rules, ", ") + "]"
}

func (b *blueprint) aclRules(d dice) string {
	var rules []string
	for i := range d.IntN(5) {
		cidr := b.block(d)
		rules = append(rules, fmt.Sprintf("{number: %d, action: %s, %s, cidr: %s}", 10+10*i, one(d, "allow", "deny"), traffic(d), cidr))
	}
	if !d.in(4) {
		rules = append(rules, "{number: 200, action: allow, protocol: all, cidr: 0.0.0.0/0}")
	}
	return "[" + strings.Join(rules, ", ") + "]"
}

// routes of a table of VPC v: most of what is joined, and now and then none, or
// one that leads elsewhere. other is the block of another subnet, or empty.
func (b *blueprint) routes(d dice, v, other string) string {
	var routes []string
	add := func(to, via string) { routes = append(routes, fmt.Sprintf("{to: %s, via: %s}", to, via)) }
	for i, o := range b.vpcs {
		if o == v || d.in(5) {
			continue
		}
		to := fmt.Sprintf("10.%d.0.0/%d", i, one(d, 16, 16, 16, 17))
		switch {
		case b.transit && d.in(2):
			add(to, "transitGateway/hub")
		case v == "a" || o == "a": // the spokes are peered with a alone
			add(to, "peering/"+min(v, o)+max(v, o))
		case d.in(2):
			add(to, "peering/a"+v) // which leads no further than a
		}
	}
	switch {
	case d.in(5):
	case b.online[v] && !d.in(3):
		add("0.0.0.0/0", "internetGateway")
	default:
		add("0.0.0.0/0", "nat/out-"+v)
	}
	if d.in(4) {
		add(one(d, "192.168.0.0/16", knownHost+"/32"), "instance/"+v+"-p")
	}
	if other != "" && d.in(4) {
		add(other, "instance/"+v+"-p")
	}
	if d.in(6) {
		add("192.168.7.0/24", "nat/out-"+v)
	}
	return "[" + strings.Join(routes, ", ") + "]"
}

func (b *blueprint) joins(d dice, y *strings.Builder, far bool) {
	y.WriteString("peerings:\n")
	for _, v := range b.vpcs[1:] {
		fmt.Fprintf(y, "  - {name: a%s, vpcs: [a, %s]}\n", v, v)
	}
	if !b.transit {
		return
	}
	fmt.Fprintf(y, "transitGateways:\n  - name: hub\n    vpcs: [%s]\n", strings.Join(b.vpcs, ", "))
	if d.in(2) {
		return
	}
	y.WriteString("    tables:\n")
	fmt.Fprintf(y, "      - {name: one, vpcs: [a], propagate: [%s]}\n", strings.Join(b.vpcs[1:], ", "))
	fmt.Fprintf(y, "      - {name: two, vpcs: [%s], propagate: [a], routes: [{to: 10.2.0.0/16, via: %s}]}\n",
		strings.Join(b.vpcs[1+d.IntN(len(b.vpcs)-1):], ", "), one(d, "blackhole", "vpc/a", "vpc/"+b.vpcs[len(b.vpcs)-1]))
}

func (b *blueprint) instances(d dice, y *strings.Builder, i int, v string) {
	groups := func() string { return one(d, "[default]", "[x]", "[default, x]") }
	addresses := one(d, "secondaryAddresses: 4", "prefixes: 1")
	node, plain := v+"-n", v+"-p"
	if i < 2 {
		b.nodes = append(b.nodes, node)
	} else {
		b.plain = append(b.plain, node)
	}
	b.plain = append(b.plain, plain)
	check := func(n int) string { return fmt.Sprint(!d.in(n)) }
	elastic := func() string { return fmt.Sprint(b.online[v] && d.in(2)) }
	fmt.Fprintf(y, "  - {name: %s, type: m5.xlarge, subnet: %s/%s0, %s, securityGroups: %s, sourceDestCheck: %s, elasticAddress: %s}\n",
		node, v, v, addresses, groups(), check(4), elastic())
	fmt.Fprintf(y, "  - {name: %s, type: m5.xlarge, subnet: %s/%s1, secondaryAddresses: 1, securityGroups: %s, sourceDestCheck: %s, elasticAddress: %s}\n",
		plain, v, v, groups(), check(2), elastic())
}
