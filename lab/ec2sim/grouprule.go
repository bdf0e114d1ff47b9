package ec2sim

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The protocols that have ports or types, and the one that is all of them.
// Source: "Protocol Numbers", IANA.
const (
	AllProtocols = -1
	ProtocolICMP = 1
	ProtocolTCP  = 6
	ProtocolUDP  = 17
)

// everywhere is all of IPv4.
var everywhere = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

// maxRules is how many rules a group may have in each direction; a prefix list
// counts as many as it may have entries. Source: "Amazon VPC quotas".
const maxRules = 60

// Direction is the way of a packet as the network interface sees it.
type Direction bool

// The directions.
const (
	Ingress Direction = false
	Egress  Direction = true
)

// GroupRulesInput names rules of a security group, for one direction. To take
// them away they may be named by RuleIDs.
type GroupRulesInput struct {
	GroupID string
	Rules   []GroupRule // their IDs are not looked at
	RuleIDs []string
}

// AuthorizeSecurityGroupIngress adds rules, all or none.
func (c *Cloud) AuthorizeSecurityGroupIngress(in GroupRulesInput) ([]GroupRule, error) {
	out, err := call(c, in, authorize(Ingress))
	return slices.Clone(out.rules), err
}

// AuthorizeSecurityGroupEgress adds rules, all or none.
func (c *Cloud) AuthorizeSecurityGroupEgress(in GroupRulesInput) ([]GroupRule, error) {
	out, err := call(c, in, authorize(Egress))
	return slices.Clone(out.rules), err
}

// RevokeSecurityGroupIngress takes rules away, all or none.
func (c *Cloud) RevokeSecurityGroupIngress(in GroupRulesInput) error {
	_, err := call(c, in, revoke(Ingress))
	return err
}

// RevokeSecurityGroupEgress takes rules away, all or none.
func (c *Cloud) RevokeSecurityGroupEgress(in GroupRulesInput) error {
	_, err := call(c, in, revoke(Egress))
	return err
}

// changedRules are the rules that a call was about.
type changedRules struct {
	group string
	way   Direction
	rules []GroupRule
}

func (g *SecurityGroup) rules(way Direction) *[]GroupRule {
	if way == Egress {
		return &g.Egress
	}
	return &g.Ingress
}

func authorize(way Direction) func(*state, GroupRulesInput) (changedRules, error) {
	return func(s *state, in GroupRulesInput) (changedRules, error) {
		out := changedRules{group: in.GroupID, way: way}
		g, err := s.findGroup(in.GroupID)
		if err != nil {
			return out, err
		}
		if len(in.Rules) == 0 {
			return out, missing("ipPermissions")
		}
		rules := g.rules(way)
		*rules = slices.Clone(*rules)
		for _, r := range in.Rules {
			if r, err = s.checkRule(g, r); err != nil {
				return out, err
			}
			if slices.ContainsFunc(*rules, r.same) {
				return out, fail("InvalidPermission.Duplicate", "the specified rule %q already exists", r)
			}
			r.ID = s.newID(kindGroupRule.prefix)
			*rules = append(*rules, r)
			out.rules = append(out.rules, r)
		}
		weight := 0
		for _, r := range *rules {
			weight += s.weight(r)
		}
		if weight > maxRules {
			return out, fail("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached.")
		}
		s.groups.put(g.ID, g)
		return out, nil
	}
}

// weight is how many of a group's rules a rule counts for.
func (s *state) weight(r GroupRule) int {
	if l, ok := s.lists.get(r.PrefixList); ok {
		return l.MaxEntries
	}
	return 1
}

// String is a rule as EC2 writes it in messages.
func (r GroupRule) String() string {
	peer, protocol := r.Group+r.PrefixList, strings.ToUpper(protocolName(r.Protocol))
	if r.CIDR.IsValid() {
		peer = r.CIDR.String()
	}
	switch r.Protocol {
	case AllProtocols:
		protocol = "ALL"
	case ProtocolTCP, ProtocolUDP:
		protocol += fmt.Sprintf(", from port: %d, to port: %d", r.From, r.To)
	case ProtocolICMP:
		protocol += fmt.Sprintf(", type: %d, code: %d", r.From, r.To)
	}
	return fmt.Sprintf("peer: %s, %s, ALLOW", peer, protocol)
}

// checkRule gives a rule in its one form, or refuses it.
func (s *state) checkRule(g SecurityGroup, r GroupRule) (GroupRule, error) {
	sources := 0
	for _, is := range []bool{r.CIDR.IsValid(), r.Group != "", r.PrefixList != ""} {
		if is {
			sources++
		}
	}
	switch {
	case sources == 0:
		return r, missing("source")
	case sources > 1:
		return r, invalidCombination("Only one of a CIDR block, a security group and a prefix list can be specified for a rule.")
	case len(r.Description) > 255:
		return r, invalidValue("Invalid rule description. Rule descriptions may be up to 255 characters in length.")
	}
	r, err := r.canonical()
	if err != nil {
		return r, err
	}
	if r.PrefixList != "" {
		_, err := find(&s.lists, kindPrefixList, r.PrefixList)
		return r, err
	}
	if r.Group != "" {
		return r, s.checkReference(g, r.Group)
	}
	return r, nil
}

// canonical masks the CIDR, as EC2 does (IpRange, Amazon EC2 API Reference),
// and checks protocol and ports.
func (r GroupRule) canonical() (GroupRule, error) {
	if r.CIDR.IsValid() {
		r.CIDR = r.CIDR.Masked()
	}
	var err error
	r.From, r.To, err = checkPorts(r.Protocol, r.From, r.To)
	return r, err
}

// checkPorts gives the ports of a rule of a security group. A protocol without
// ports has none, whatever was said. Source: IpPermission, Amazon EC2 API
// Reference.
func checkPorts(protocol, from, to int) (int, int, error) {
	switch {
	case protocol < AllProtocols || protocol > 255:
		return 0, 0, invalidValue("Invalid value '%d' for IP protocol. Unknown protocol.", protocol)
	case protocol == ProtocolTCP || protocol == ProtocolUDP:
		if from == -1 && to == -1 {
			from, to = 0, 65535
		}
		if from < 0 || to > 65535 || from > to {
			return 0, 0, invalidValue("Invalid value '%s' for portRange. TCP/UDP port (%d-%d) out of range or reversed", protocolName(protocol), from, to)
		}
		return from, to, nil
	case protocol == ProtocolICMP:
		if from < -1 || from > 255 || to < -1 || to > 255 || from == -1 && to != -1 {
			return 0, 0, invalidValue("ICMP code (%d) and type (%d) are not valid together.", to, from)
		}
		return from, to, nil
	}
	return -1, -1, nil
}

// checkReference refuses a group that a rule of g cannot name: it must be of the
// same VPC, or of one that is peered with it in the same region. Source: "Update
// your security groups to reference peer security groups", Amazon VPC Peering
// Guide.
func (s *state) checkReference(g SecurityGroup, id string) error {
	other, err := find(&s.groups, kindGroup, id)
	if err != nil {
		return err // also for a group in another region
	}
	if other.VPCID == g.VPCID || s.peered(g.VPCID, other.VPCID) {
		return nil
	}
	return fail(kindGroup.notFound, "You have specified two resources that belong to different networks.")
}

func revoke(way Direction) func(*state, GroupRulesInput) (changedRules, error) {
	return func(s *state, in GroupRulesInput) (changedRules, error) {
		out := changedRules{group: in.GroupID, way: way}
		g, err := s.findGroup(in.GroupID)
		if err != nil {
			return out, err
		}
		if len(in.Rules) == 0 && len(in.RuleIDs) == 0 {
			return out, missing("ipPermissions")
		}
		rules := g.rules(way)
		*rules = slices.Clone(*rules)
		take := func(is func(GroupRule) bool) bool {
			at := slices.IndexFunc(*rules, is)
			if at >= 0 {
				out.rules = append(out.rules, (*rules)[at])
				*rules = slices.Delete(*rules, at, at+1)
			}
			return at >= 0
		}
		for _, r := range in.Rules {
			if r, err = r.canonical(); err != nil {
				return out, err
			}
			if !take(r.same) {
				return out, fail("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
			}
		}
		for _, id := range in.RuleIDs {
			if err := kindGroupRule.check(id); err != nil {
				return out, err
			}
			if !take(func(r GroupRule) bool { return r.ID == id }) {
				return out, kindGroupRule.missing(id)
			}
		}
		s.groups.put(g.ID, g)
		return out, nil
	}
}

// protocolName is how a rule shows its protocol.
func protocolName(protocol int) string {
	switch protocol {
	case ProtocolICMP:
		return "icmp"
	case ProtocolTCP:
		return "tcp"
	case ProtocolUDP:
		return "udp"
	}
	return strconv.Itoa(protocol)
}

// parseProtocol reads a name or a number; "all" is -1.
func parseProtocol(text string) (int, bool) {
	switch strings.ToLower(text) {
	case "icmp":
		return ProtocolICMP, true
	case "tcp":
		return ProtocolTCP, true
	case "udp":
		return ProtocolUDP, true
	case "all":
		return AllProtocols, true
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= AllProtocols && n <= 255
}
