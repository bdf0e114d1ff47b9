package fabric

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// IdleTimeouts is how long the groups of an ENI remember a flow that is idle; a
// zero is the default. Source of defaults and meaning: "Amazon EC2 security group
// connection tracking", Amazon EC2 User Guide. Whole seconds.
type IdleTimeouts struct {
	TCPEstablished time.Duration // 432,000 s; on instances of Nitro v6 350 s
	UDPStream      time.Duration // of more than one request and response: 180 s
	UDP            time.Duration // 30 s
}

// The defaults of [IdleTimeouts].
const (
	DefaultTCPEstablished = 432_000 * time.Second
	DefaultUDPStream      = 180 * time.Second
	DefaultUDP            = 30 * time.Second
)

// filter.flags in bpf/flow.h; those of a direction are shifted by it.
const (
	filterGroups  = 1
	filterACL     = 2
	filterLog     = 8
	filterOpenTCP = 16
	filterOpenUDP = 64
)

// foundBits are FOUND in bpf/flow.h: no revision has them.
const foundBits = 7

// direction indexes the sets of a filter: OUT and IN in bpf/packet.h.
type direction int

const (
	out direction = 0
	in  direction = 1
)

// ruleEntries are the contents of the BPF maps of rules.
type ruleEntries struct {
	remotes  map[bpfRemoteKey]uint64
	verdicts map[bpfPortKey]uint8
}

func newRuleEntries() ruleEntries {
	return ruleEntries{map[bpfRemoteKey]uint64{}, map[bpfPortKey]uint8{}}
}

// filterSet is the compiled rules of both directions, of an ENI's groups or of
// an ACL, and the flags that they give a filter.
type filterSet struct {
	id    [2]uint64
	flags uint32
}

// filterCompiler makes the filters of a topology; ENIs with the same groups
// share one set of rules.
type filterCompiler struct {
	ruleEntries
	vpcs     []VPC
	peerings []Peering
	done     map[string]filterSet // by VPC and IDs
	errs     []error
}

// wantedFilters says what filters the ENIs have, by ID, and the rules that they
// lead to; those of attachments are by the attachment's ID. What contradicts
// itself allows nothing, and is in the errors: a group or ACL with a rule that
// cannot be, or an ENI that names one that does not exist.
func wantedFilters(t checked) (map[string]bpfFilter, ruleEntries, []error) {
	c := &filterCompiler{
		ruleEntries: newRuleEntries(), vpcs: t.vpcs, peerings: t.peerings, done: map[string]filterSet{},
	}
	filters := map[string]bpfFilter{}
	for _, g := range t.transit {
		for _, a := range g.Attachments {
			if f, ok := c.attachment(a); ok {
				filters[a.ID] = f
			}
		}
	}
	for _, v := range t.vpcs {
		for _, e := range v.ENIs {
			if f := c.filter(v, e); f.Flags != 0 {
				filters[e.ID] = f
			}
		}
	}
	return filters, c.ruleEntries, c.errs
}

// attachment is the ACL of the subnet that an attachment is in.
func (c *filterCompiler) attachment(a Attachment) (f bpfFilter, ok bool) {
	for _, v := range c.vpcs {
		i := slices.IndexFunc(v.Subnets, func(s Subnet) bool { return s.ID == a.Subnet })
		if v.ID != a.VPC || a.Subnet == "" || i < 0 {
			continue
		}
		s := v.Subnets[i]
		f.Subnet, f.Mask = beUint32(s.CIDR.Masked().Addr()), binary.NativeEndian.Uint32(net.CIDRMask(s.CIDR.Bits(), 32))
		if s.ACL != "" {
			set := c.acl(v, s.ACL)
			f.Acl, f.Flags = set.id, set.flags
		}
		return f, true
	}
	return f, false
}

func (c *filterCompiler) filter(v VPC, e ENI) bpfFilter {
	seconds := func(d, otherwise time.Duration) uint32 { return uint32(cmp.Or(d, otherwise) / time.Second) }
	f := bpfFilter{
		Subnet:         beUint32(e.Subnet.Masked().Addr()),
		Mask:           binary.NativeEndian.Uint32(net.CIDRMask(e.Subnet.Bits(), 32)),
		TcpEstablished: seconds(e.Idle.TCPEstablished, DefaultTCPEstablished),
		UdpStream:      seconds(e.Idle.UDPStream, DefaultUDPStream),
		Udp:            seconds(e.Idle.UDP, DefaultUDP),
	}
	if e.Groups != nil {
		set := c.groups(v, e)
		f.Groups = set.id
		f.Flags |= filterGroups | set.flags
	}
	if acl := aclOf(v, e); acl != "" {
		set := c.acl(v, acl)
		f.Acl = set.id
		f.Flags |= set.flags
	}
	if e.FlowLog {
		f.Flags |= filterLog
	}
	f.Revision = f.revision()
	return f
}

// revision tells the programs whether what they once found still holds.
func (f bpfFilter) revision() uint64 {
	var b []byte
	for _, id := range append(f.Groups[:], f.Acl[:]...) {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	for _, n := range []uint32{f.Flags, f.Subnet, f.Mask} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:]) &^ foundBits
}

// groups compiles the union of the ENI's groups.
func (c *filterCompiler) groups(v VPC, e ENI) filterSet {
	ids := slices.Compact(slices.Sorted(slices.Values(e.Groups)))
	name := "groups " + v.ID + " " + strings.Join(ids, " ")
	if set, ok := c.done[name]; ok {
		return set
	}
	var rules [2][]match
	var set filterSet
	for _, id := range ids {
		i := slices.IndexFunc(v.Groups, func(g SecurityGroup) bool { return g.ID == id })
		if i < 0 {
			c.errs = append(c.errs, fmt.Errorf("vpc %s: eni %s is in security group %s, which the vpc does not have: it allows nothing", v.ID, e.ID, id))
			continue
		}
		g := v.Groups[i]
		if err := g.check(); err != nil {
			c.errs = append(c.errs, fmt.Errorf("vpc %s: security group %s allows nothing: %w", v.ID, id, err))
			continue
		}
		for dir, list := range [][]GroupRule{out: g.Egress, in: g.Ingress} {
			for _, r := range list {
				rules[dir] = append(rules[dir], c.groupRule(v, r))
				set.flags |= openFlags(r) << dir
			}
		}
	}
	for dir := range rules {
		compiled := compile(rules[dir], anyVerdict)
		compiled.addTo(c.remotes, c.verdicts)
		set.id[dir] = compiled.id
	}
	c.done[name] = set
	return set
}

// openFlags: the rule allows TCP or UDP from and to everywhere at all ports.
func openFlags(r GroupRule) (flags uint32) {
	if r.Group != "" || r.CIDR.Bits() != 0 {
		return 0
	}
	if r.Protocol == AllProtocols || r.Protocol == TCP && allPorts(r.Ports) {
		flags |= filterOpenTCP
	}
	if r.Protocol == AllProtocols || r.Protocol == UDP && allPorts(r.Ports) {
		flags |= filterOpenUDP
	}
	return flags
}

func (c *filterCompiler) groupRule(v VPC, r GroupRule) match {
	m := match{ports: portSpans(r.Protocol, r.Ports), verdict: verdictAllow}
	switch {
	case r.Group != "":
		m.remotes = c.members(v, r.Group)
	case r.CIDR.Bits() == 0:
		m.verdict |= verdictAnywhere
		fallthrough
	default:
		m.remotes = []netip.Prefix{r.CIDR}
	}
	return m
}

// members are the private addresses of the ENIs in a group: one of the VPC's own,
// or of a VPC that is peered with it in the same region. Source: "Update your
// security groups to reference peer security groups", Amazon VPC Peering Guide.
func (c *filterCompiler) members(v VPC, group string) []netip.Prefix {
	var list []netip.Prefix
	for _, w := range c.vpcs {
		if w.ID != v.ID && (w.Region != v.Region || !c.peered(v.ID, w.ID)) {
			continue
		}
		for _, e := range w.ENIs {
			if slices.Contains(e.Groups, group) {
				list = append(list, e.owned()...)
			}
		}
	}
	return list
}

func (c *filterCompiler) peered(a, b string) bool {
	return slices.ContainsFunc(c.peerings, func(p Peering) bool {
		return p.VPCs == [2]string{a, b} || p.VPCs == [2]string{b, a}
	})
}

func (g SecurityGroup) check() error {
	for _, r := range slices.Concat(g.Ingress, g.Egress) {
		if err := checkPorts(r.Protocol, r.Ports); err != nil {
			return err
		}
		if (r.Group == "") != (r.CIDR != netip.Prefix{}) {
			return errors.New("a rule has not exactly one of cidr and group")
		}
		if r.Group == "" {
			if err := checkRuleCIDR(r.CIDR); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkRuleCIDR(p netip.Prefix) error {
	if !p.IsValid() || !p.Addr().Is4() || p != p.Masked() {
		return fmt.Errorf("cidr %s is not an IPv4 prefix without host bits", p)
	}
	return nil
}

func checkPorts(protocol Protocol, p Ports) error {
	within := func(n, low, high int) bool { return low <= n && n <= high }
	switch {
	case !within(int(protocol), -1, 255):
		return fmt.Errorf("protocol %d is not within -1..255", protocol)
	case protocol == ICMP && (!within(p.From, -1, 255) || !within(p.To, -1, 255) || p.From < 0 && p.To >= 0):
		return fmt.Errorf("icmp type %d and code %d are not within -1..255, or there is a code without a type", p.From, p.To)
	case (protocol == TCP || protocol == UDP) && !allPorts(p) && (!within(p.From, 0, p.To) || p.To > 65535):
		return fmt.Errorf("ports %d to %d are no range within 0..65535", p.From, p.To)
	}
	return nil
}

// anyVerdict folds the rules of groups: allowed is what one of them allows.
func anyVerdict(said []uint8) (v uint8) {
	for _, s := range said {
		v |= s
	}
	return v
}
