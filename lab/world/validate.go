package world

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Sizes of CIDR blocks, for VPCs and subnets alike. Source: "VPC CIDR blocks"
// and "Subnet CIDR blocks", Amazon VPC User Guide.
const (
	minBits = 16
	maxBits = 28
)

// reservedPerSubnet is how many addresses of a subnet AWS keeps: the first four
// and the last. Source: "Subnet CIDR blocks", Amazon VPC User Guide.
const reservedPerSubnet = 5

var (
	labName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,19}$`)
	label   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`) // RFC 1123: an instance's name is its host name
	region  = regexp.MustCompile(`^[a-z]{2}(-[a-z]{1,12}){1,3}-[1-9]$`)
	envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// unroutable are the blocks that no VPC can have: an address in them never
// leaves a machine, or reaches more than one. Sources: RFC 6890, RFC 5771.
var unroutable = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/3"),
}

// CheckName says whether a lab may be called so. The name becomes part of paths
// that are removed with all that is in them.
func CheckName(name string) error {
	if !labName.MatchString(name) {
		return fmt.Errorf("lab name %s: want a-z, 0-9 and \"-\", a letter or digit first, at most 20 characters", quoted(name))
	}
	return nil
}

// Validate checks a World that was built in Go by the rules that Parse applies:
// AWS's for addresses and limits, the lab's for names. The error is like Parse's.
func (w *World) Validate() error { return joined(w.problems()) }

// checker collects what is wrong with one World.
type checker struct {
	problems []*Error
}

func (c *checker) failf(pos Pos, format string, args ...any) {
	c.problems = append(c.problems, &Error{pos, fmt.Sprintf(format, args...)})
}

// name checks a name; used holds the places of its kind's names so far.
func (c *checker) name(obj Pos, keys keyLines, what, name string, used map[string]Pos) {
	at := keys.at(obj, "name")
	switch prev, twice := used[name]; {
	case keys["name"].bad:
	case name == "":
		c.failf(at, "%s has no name", what)
	case !label.MatchString(name):
		c.failf(at, "%s name %s: want a-z, 0-9 and \"-\" inside, at most 63 characters", what, quoted(name))
	case twice:
		c.failf(at, "%s %q is there twice, first in line %d", what, name, prev.Line)
	default:
		used[name] = at
	}
}

// problems gives everything that is wrong with w, leaving out what the parser
// has complained about.
func (w *World) problems() []*Error {
	c := &checker{}
	switch {
	case w.keys["name"].bad:
	case w.Name == "":
		c.failf(w.keys.at(w.Pos, "name"), "the world has no name: add one, such as name: demo")
	case !labName.MatchString(w.Name):
		c.failf(w.keys.at(w.Pos, "name"), "name %s: want a-z, 0-9 and \"-\", a letter or digit first, at most 20 characters", quoted(w.Name))
	}
	if !w.keys["region"].bad && !region.MatchString(w.Region) {
		c.failf(w.keys.at(w.Pos, "region"), "region %s: want the shape of eu-west-1", quoted(w.Region))
	}
	if len(w.VPCs) == 0 && !w.keys["vpcs"].bad {
		c.failf(w.keys.at(w.Pos, "vpcs"), "the world has no vpcs: it needs at least one")
	}
	vpcs := map[string]Pos{}
	for _, v := range w.VPCs {
		c.name(v.Pos, v.keys, "vpc", v.Name, vpcs)
		if !v.keys["region"].bad && !region.MatchString(w.RegionOf(v)) && v.Region != "" {
			c.failf(v.keys.at(v.Pos, "region"), "vpc %s: region %s: want the shape of eu-west-1", quoted(v.Name), quoted(v.Region))
		}
		c.cidrs(v)
		c.subnets(w.RegionOf(v), v)
	}
	instances := map[string]Pos{}
	for _, in := range w.Instances {
		c.name(in.Pos, in.keys, "instance", in.Name, instances)
		c.instance(w, in)
		c.daemons(in)
	}
	c.room(w)
	c.network(w)
	c.roles(w)
	return c.problems
}

// block checks what holds for every IPv4 CIDR block and reports whether it does.
func (c *checker) block(at Pos, what string, p netip.Prefix) bool {
	switch {
	case !p.IsValid() || !p.Addr().Is4():
		c.failf(at, "%s %s: want an IPv4 block", what, p)
	case p.Bits() < minBits || p.Bits() > maxBits:
		c.failf(at, "%s %s: the size must be between /%d and /%d", what, p, minBits, maxBits)
	case p != p.Masked():
		c.failf(at, "%s %s has host bits set: write %s", what, p, p.Masked())
	default:
		return true
	}
	return false
}

func (c *checker) cidrs(v VPC) {
	what := fmt.Sprintf("vpc %s", quoted(v.Name))
	if len(v.CIDRs) == 0 && !v.keys["cidr"].bad && !v.keys["cidrs"].bad {
		c.failf(v.keys.at(v.Pos, "cidrs"), "%s has no cidr: add one, such as cidr: 10.0.0.0/16", what)
	}
	for i, p := range v.CIDRs {
		at := v.keys.at(v.Pos, cidrKey(i))
		if v.keys[cidrKey(i)].bad || !c.block(at, what, p) {
			continue
		}
		for _, u := range unroutable {
			if u.Overlaps(p) {
				c.failf(at, "%s %s lies in %s, which a VPC cannot use: take a block of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10", what, p, u)
			}
		}
		for j, q := range v.CIDRs[:i] {
			if p.Overlaps(q) {
				c.failf(at, "%s: %s overlaps %s%s: a VPC's CIDRs must not overlap", what, p, q, inLine(v.keys.at(v.Pos, cidrKey(j))))
			}
		}
	}
}

func (c *checker) subnets(region string, v VPC) {
	names := map[string]Pos{}
	for i, s := range v.Subnets {
		c.name(s.Pos, s.keys, "subnet", s.Name, names)
		c.zone(region, s)
		what, at := fmt.Sprintf("subnet %s", quoted(s.Name)), s.keys.at(s.Pos, "cidr")
		switch {
		case s.keys["cidr"].bad:
			continue
		case s.CIDR == netip.Prefix{}:
			c.failf(at, "%s has no cidr: add a part of its VPC, such as cidr: 10.0.1.0/24", what)
			continue
		case !c.block(at, what, s.CIDR):
			continue
		}
		if known := usable(v); len(known) > 0 && !slices.ContainsFunc(known, func(p netip.Prefix) bool { return within(s.CIDR, p) }) {
			c.failf(at, "%s %s is not inside its vpc %s, which has %s", what, s.CIDR, quoted(v.Name), joinPrefixes(known))
		}
		for _, other := range v.Subnets[:i] {
			if s.CIDR.Overlaps(other.CIDR) { // never so for one that could not be read
				c.failf(at, "%s %s overlaps subnet %s %s%s: CIDRs of a VPC's subnets must not overlap",
					what, s.CIDR, quoted(other.Name), other.CIDR, inLine(other.keys.at(other.Pos, "cidr")))
			}
		}
	}
}

func (c *checker) zone(region string, s Subnet) {
	letter := strings.TrimPrefix(s.Zone, region)
	if s.keys["zone"].bad || len(letter) == 1 && letter >= "a" && letter <= "c" {
		return
	}
	c.failf(s.keys.at(s.Pos, "zone"), "subnet %s: zone %s: want a, b or c, the zones of every region of the lab: a becomes %sa", quoted(s.Name), quoted(letter), quotedBare(region))
}

func (c *checker) instance(w *World, in Instance) {
	what := fmt.Sprintf("instance %s", quoted(in.Name))
	limits, known := vpc.LimitsOf(in.Type)
	switch {
	case in.keys["type"].bad:
	case in.Type == "":
		c.failf(in.keys.at(in.Pos, "type"), "%s has no type: add one, such as type: m5.large", what)
	case !known:
		c.failf(in.keys.at(in.Pos, "type"), "%s: unknown instance type %s: want one of EC2's, such as m5.large", what, quoted(in.Type))
	}
	if _, _, ok := w.FindSubnet(in); !ok && !in.keys["subnet"].bad && len(w.VPCs) > 0 {
		at := in.keys.at(in.Pos, "subnet")
		if in.Subnet == "" {
			c.failf(at, "%s has no subnet: name one of the world's, as SUBNET or VPC/SUBNET", what)
		} else {
			c.failf(at, "%s: there is no subnet %s", what, quoted(in.VPC+"/"+in.Subnet))
		}
	}
	// The range of the HttpPutResponseHopLimit of "InstanceMetadataOptions", EC2 API Reference.
	if in.HopLimit < 1 || in.HopLimit > 64 {
		c.failf(in.keys.at(in.Pos, "hopLimit"), "%s: hopLimit %d: want 1 to 64", what, in.HopLimit)
	}
	if in.SecondaryAddresses < 0 {
		c.failf(in.keys.at(in.Pos, "secondaryAddresses"), "%s: secondaryAddresses %d: want 0 or more", what, in.SecondaryAddresses)
	}
	if in.Prefixes < 0 {
		c.failf(in.keys.at(in.Pos, "prefixes"), "%s: prefixes %d: want 0 or more", what, in.Prefixes)
	}
	if !known || in.SecondaryAddresses < 0 || in.Prefixes < 0 {
		return
	}
	at := in.keys.at(in.Pos, cmp.Or(written(in.keys, "prefixes"), "secondaryAddresses"))
	if !fits(in, limits) {
		c.failf(at, "%s: %d secondary addresses and %d prefixes: an ENI of %s has room for %d together beside its primary address",
			what, in.SecondaryAddresses, in.Prefixes, in.Type, limits.IPv4PerENI-1)
	}
	if in.Prefixes > 0 && !limits.PrefixCapable() {
		c.failf(in.keys.at(in.Pos, "prefixes"), "%s: %s cannot hold prefixes: only Nitro instances can, such as m5.large", what, in.Type)
	}
}

func (c *checker) daemons(in Instance) {
	names := map[string]Pos{}
	for _, d := range in.Daemons {
		c.name(d.Pos, d.keys, "daemon", d.Name, names)
		what := fmt.Sprintf("instance %s: daemon %s", quoted(in.Name), quoted(d.Name))
		at := d.keys.at(d.Pos, "command")
		switch {
		case d.keys["command"].bad:
		case len(d.Command) == 0 || d.Command[0] == "":
			c.failf(at, "%s has no command: add one, such as command: [fairway-agent]", what)
		case slices.ContainsFunc(d.Command, hasNUL):
			c.failf(at, "%s: the command holds a zero byte", what)
		}
		for i, name := range d.Capabilities {
			at := d.keys.at(d.Pos, "capabilities")
			switch {
			case d.keys["capabilities"].bad:
			case !slices.Contains(capabilities, name):
				c.failf(at, "%s: unknown capability %s%s: want the names of capabilities(7)", what, quoted(name), suggest(name, capabilities))
			case slices.Contains(d.Capabilities[:i], name):
				c.failf(at, "%s: capability %s is there twice", what, name)
			}
		}
		for _, k := range slices.Sorted(maps.Keys(d.Env)) {
			if at := d.keys.at(d.Pos, "env"); !envName.MatchString(k) {
				c.failf(at, "%s: env name %s: want letters, digits and \"_\", no digit first", what, quoted(k))
			} else if hasNUL(d.Env[k]) {
				c.failf(at, "%s: env %s holds a zero byte", what, quoted(k))
			}
		}
	}
}

// room checks that each subnet has the addresses that its instances are
// launched with.
func (c *checker) room(w *World) {
	type need struct{ instances, addresses, prefixes int }
	needs := map[[2]string]need{}
	for _, in := range w.Instances {
		limits, ok := vpc.LimitsOf(in.Type)
		if !ok || !fits(in, limits) {
			continue // said already; what it needs is not known
		}
		k := [2]string{in.VPC, in.Subnet}
		n := needs[k]
		n.instances++
		n.addresses += 1 + in.SecondaryAddresses
		n.prefixes += in.Prefixes
		needs[k] = n
	}
	gateways := map[[2]string]int{} // each takes an address
	for _, v := range w.VPCs {
		for _, g := range v.NATGateways {
			gateways[[2]string{v.Name, g.Subnet}]++
		}
	}
	for _, v := range w.VPCs {
		for _, s := range v.Subnets {
			p := s.CIDR
			if !p.IsValid() || !p.Addr().Is4() || p.Bits() < minBits || p.Bits() > maxBits {
				continue
			}
			n := needs[[2]string{v.Name, s.Name}]
			total := 1 << (32 - p.Bits())
			// The first and the last /28 of a subnet hold reserved addresses.
			blocks := max(total/16-2, 0)
			at := s.keys.at(s.Pos, "cidr")
			if n.prefixes > blocks {
				c.failf(at, "subnet %s %s has %d free /28 blocks, its instances are launched with %d prefixes: make it larger",
					quoted(s.Name), p, blocks, n.prefixes)
			} else if free := total - reservedPerSubnet - 16*n.prefixes - gateways[[2]string{v.Name, s.Name}]; n.addresses > max(free, 0) {
				c.failf(at, "subnet %s %s has %d addresses to give (AWS keeps %d, prefixes take %d), its %d instances are launched with %d: make it larger",
					quoted(s.Name), p, free, reservedPerSubnet, 16*n.prefixes, n.instances, n.addresses)
			}
		}
	}
}

// fits reports whether an instance's primary ENI can hold what it is launched
// with. It subtracts, because a sum of numbers from a file could wrap.
func fits(in Instance, l vpc.Limits) bool {
	free := l.IPv4PerENI - 1
	return in.SecondaryAddresses >= 0 && in.SecondaryAddresses <= free &&
		in.Prefixes >= 0 && in.Prefixes <= free-in.SecondaryAddresses
}

// usable are the blocks of a VPC that could be read.
func usable(v VPC) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(v.CIDRs), func(p netip.Prefix) bool { return !p.IsValid() })
}

// within reports whether all of p lies in q.
func within(p, q netip.Prefix) bool { return q.Overlaps(p) && q.Bits() <= p.Bits() }

func joinPrefixes(ps []netip.Prefix) string {
	var all []string
	for _, p := range ps {
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}

func inLine(p Pos) string {
	if p.Line == 0 {
		return ""
	}
	return fmt.Sprintf(" (line %d)", p.Line)
}

// written is key where the file has it, or empty.
func written(keys keyLines, key string) string {
	if _, ok := keys[key]; ok {
		return key
	}
	return ""
}

// quotedBare keeps a name from a file short and printable without quotes.
func quotedBare(s string) string { return strings.Trim(quoted(s), `"`) }

func hasNUL(s string) bool { return strings.ContainsRune(s, 0) }
