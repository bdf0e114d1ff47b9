package ec2sim

import (
	"slices"
	"strconv"
)

func parseDeleteGroup(f form) DeleteSecurityGroupInput {
	return DeleteSecurityGroupInput{ID: f.in("GroupId").text()}
}

// parseRules reads the two forms of naming rules: one rule at the top level, or
// any number of IpPermissions, each with any number of remotes.
func parseRules(f form) GroupRulesInput {
	in := GroupRulesInput{GroupID: f.in("GroupId").text(), RuleIDs: f.in("SecurityGroupRuleId").texts()}
	if _, ok := f.in("IpProtocol").raw(); ok {
		r := f.rule()
		r.CIDR = f.in("CidrIp").cidr()
		in.Rules = append(in.Rules, r)
	}
	for _, m := range f.in("IpPermissions").members() {
		m.in("IpProtocol").required()
		base, before := m.rule(), len(in.Rules)
		for _, x := range m.in("IpRanges").members() {
			r := base
			r.CIDR, r.Description = x.in("CidrIp").cidr(), x.in("Description").text()
			in.Rules = append(in.Rules, r)
		}
		for _, x := range m.in("Groups").members() {
			r := base
			r.Group, r.Description = x.in("GroupId").text(), x.in("Description").text()
			x.in("UserId").text() // there is one account
			x.in("VpcId").text()
			x.in("VpcPeeringConnectionId").text()
			in.Rules = append(in.Rules, r)
		}
		for _, x := range m.in("PrefixListIds").members() {
			r := base
			r.PrefixList, r.Description = x.in("PrefixListId").text(), x.in("Description").text()
			in.Rules = append(in.Rules, r)
		}
		if len(in.Rules) == before {
			in.Rules = append(in.Rules, base) // which is refused for having no remote
		}
	}
	return in
}

// rule reads protocol and ports.
func (f form) rule() GroupRule {
	r := GroupRule{From: -1, To: -1}
	r.Protocol = f.in("IpProtocol").protocol()
	if f.in("FromPort").given() {
		r.From = f.in("FromPort").count(-1)
	}
	if f.in("ToPort").given() {
		r.To = f.in("ToPort").count(-1)
	}
	if (r.Protocol == ProtocolTCP || r.Protocol == ProtocolUDP) && !(f.in("FromPort").given() && f.in("ToPort").given()) {
		f.fail(invalidValue("Must specify both from and to ports with TCP/UDP."))
	}
	return r
}

func (f form) protocol() int {
	v, ok := f.raw()
	n, known := parseProtocol(v)
	if ok && !known {
		f.fail(invalidValue("Invalid value '%s' for IP protocol. Unknown protocol.", v))
	}
	return n
}

func (f form) given() bool { return f.node != nil && f.node.given }

// groupRule is a rule with where it is, as DescribeSecurityGroupRules has it.
type groupRule struct {
	GroupRule
	group string
	way   Direction
}

var ruleListing = listing[groupRule]{
	action: "DescribeSecurityGroupRules", maxPage: 1000, idsName: "securityGroupRuleId",
	fields: map[string]func(*state, groupRule) []string{
		"security-group-rule-id": one(func(r groupRule) string { return r.ID }),
		"group-id":               one(func(r groupRule) string { return r.group }),
	},
}

// describeRules counts its pages, so a change between two may repeat or skip a
// rule.
func describeRules(s *state, q Query) (Page[groupRule], error) {
	var all []groupRule
	for g := range s.groups.all() {
		for _, way := range []Direction{Ingress, Egress} {
			for _, r := range *g.rules(way) {
				all = append(all, groupRule{r, g.ID, way})
			}
		}
	}
	for _, id := range q.IDs {
		if err := kindGroupRule.check(id); err != nil {
			return Page[groupRule]{}, err
		}
		if !slices.ContainsFunc(all, func(r groupRule) bool { return r.ID == id }) {
			return Page[groupRule]{}, kindGroupRule.missing(id)
		}
	}
	if len(q.IDs) > 0 {
		all = slices.DeleteFunc(all, func(r groupRule) bool { return !slices.Contains(q.IDs, r.ID) })
	}
	return ruleListing.apply(s, q, counted(all))
}

type xmlPermission struct {
	Protocol string            `xml:"ipProtocol"`
	From     *int              `xml:"fromPort"`
	To       *int              `xml:"toPort"`
	Ranges   set[xmlIPRange]   `xml:"ipRanges"`
	IPv6     struct{}          `xml:"ipv6Ranges"`
	Lists    set[xmlListID]    `xml:"prefixListIds"`
	Groups   set[xmlUserGroup] `xml:"groups"`
}

type xmlIPRange struct {
	CIDR        string `xml:"cidrIp"`
	Description string `xml:"description,omitempty"`
}

type xmlListID struct {
	ID          string `xml:"prefixListId"`
	Description string `xml:"description,omitempty"`
}

type xmlUserGroup struct {
	UserID      string `xml:"userId"`
	ID          string `xml:"groupId"`
	VPCID       string `xml:"vpcId,omitempty"`
	Peering     string `xml:"vpcPeeringConnectionId,omitempty"`
	Status      string `xml:"peeringStatus,omitempty"`
	Description string `xml:"description,omitempty"`
}

// showPorts shows none where a rule has none.
func (r GroupRule) showPorts() (from, to *int) {
	if r.Protocol == ProtocolICMP || r.Protocol == ProtocolTCP || r.Protocol == ProtocolUDP {
		return &r.From, &r.To
	}
	return nil, nil
}

// showReference shows a group that a rule names; one of a peered VPC with the
// peering.
func (s *state) showReference(g SecurityGroup, r GroupRule) xmlUserGroup {
	out := xmlUserGroup{UserID: s.cfg.Account, ID: r.Group, Description: r.Description}
	other, ok := s.groups.get(r.Group)
	if !ok || other.VPCID == g.VPCID {
		return out
	}
	out.VPCID, out.Status = other.VPCID, PeeringDeleted
	for _, p := range s.peeringsNow() {
		if p.joins(g.VPCID, other.VPCID) {
			out.Peering, out.Status = p.ID, p.Status
			if p.Status == PeeringActive {
				break
			}
		}
	}
	return out
}

// showPermissions puts rules of one protocol and ports together.
func (s *state) showPermissions(g SecurityGroup, rules []GroupRule) set[xmlPermission] {
	type key struct{ protocol, from, to int }
	var out set[xmlPermission]
	at := map[key]int{}
	for _, r := range rules {
		k := key{r.Protocol, r.From, r.To}
		n, ok := at[k]
		if !ok {
			n = len(out.Items)
			at[k] = n
			p := xmlPermission{Protocol: protocolName(r.Protocol)}
			p.From, p.To = r.showPorts()
			out.Items = append(out.Items, p)
		}
		p := &out.Items[n]
		switch {
		case r.Group != "":
			p.Groups.Items = append(p.Groups.Items, s.showReference(g, r))
		case r.PrefixList != "":
			p.Lists.Items = append(p.Lists.Items, xmlListID{r.PrefixList, r.Description})
		default:
			p.Ranges.Items = append(p.Ranges.Items, xmlIPRange{r.CIDR.String(), r.Description})
		}
	}
	return out
}

type xmlRule struct {
	ID          string        `xml:"securityGroupRuleId"`
	GroupID     string        `xml:"groupId"`
	OwnerID     string        `xml:"groupOwnerId"`
	Egress      bool          `xml:"isEgress"`
	Protocol    string        `xml:"ipProtocol"`
	From        int           `xml:"fromPort"`
	To          int           `xml:"toPort"`
	CIDR        string        `xml:"cidrIpv4,omitempty"`
	List        string        `xml:"prefixListId,omitempty"`
	Group       *xmlUserGroup `xml:"referencedGroupInfo"`
	Description string        `xml:"description,omitempty"`
}

func (s *state) showRule(r groupRule) xmlRule {
	out := xmlRule{
		ID: r.ID, GroupID: r.group, OwnerID: s.cfg.Account, Egress: bool(r.way), Protocol: protocolName(r.Protocol),
		From: r.From, To: r.To, List: r.PrefixList, Description: r.Description,
	}
	if r.CIDR.IsValid() {
		out.CIDR = r.CIDR.String()
	}
	if r.Group != "" {
		g, _ := s.groups.get(r.group)
		shown := s.showReference(g, r.GroupRule)
		shown.Description = ""
		out.Group = &shown
	}
	return out
}

func (s *state) showChanged(ch changedRules) set[xmlRule] {
	return setOf(ch.rules, func(r GroupRule) xmlRule { return s.showRule(groupRule{r, ch.group, ch.way}) })
}

func renderAuthorized(s *state, ch changedRules) replier {
	return &struct {
		doneReply
		Set set[xmlRule] `xml:"securityGroupRuleSet"`
	}{doneReply: doneReply{Return: true}, Set: s.showChanged(ch)}
}

type xmlRevoked struct {
	ID       string `xml:"securityGroupRuleId"`
	GroupID  string `xml:"groupId"`
	Egress   bool   `xml:"isEgress"`
	Protocol string `xml:"ipProtocol"`
	From     int    `xml:"fromPort"`
	To       int    `xml:"toPort"`
	CIDR     string `xml:"cidrIpv4,omitempty"`
	List     string `xml:"prefixListId,omitempty"`
	Group    string `xml:"referencedGroupId,omitempty"`
}

func renderRevoked(s *state, ch changedRules) replier {
	return &struct {
		doneReply
		Set set[xmlRevoked] `xml:"revokedSecurityGroupRuleSet"`
	}{doneReply: doneReply{Return: true}, Set: setOf(ch.rules, func(r GroupRule) xmlRevoked {
		shown := s.showRule(groupRule{r, ch.group, ch.way})
		return xmlRevoked{shown.ID, shown.GroupID, shown.Egress, shown.Protocol, shown.From, shown.To, shown.CIDR, shown.List, r.Group}
	})}
}

func renderDeletedGroup(_ *state, g SecurityGroup) replier {
	return &struct {
		doneReply
		ID string `xml:"groupId"`
	}{doneReply: doneReply{Return: true}, ID: g.ID}
}

func renderRules(s *state, page Page[groupRule]) replier {
	return &struct {
		reply
		Set  set[xmlRule] `xml:"securityGroupRuleSet"`
		Next string       `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showRule), Next: page.NextToken}
}

// rulePorts lists a property of rules for a filter.
func ruleField(way Direction, field func(GroupRule) string) func(*state, SecurityGroup) []string {
	return func(_ *state, g SecurityGroup) []string {
		var out []string
		for _, r := range *g.rules(way) {
			if v := field(r); v != "" {
				out = append(out, v)
			}
		}
		return out
	}
}

// ruleFilters are the filters of DescribeSecurityGroups about rules.
func ruleFilters(fields map[string]func(*state, SecurityGroup) []string) map[string]func(*state, SecurityGroup) []string {
	for prefix, way := range map[string]Direction{"ip-permission.": Ingress, "egress.ip-permission.": Egress} {
		fields[prefix+"protocol"] = ruleField(way, func(r GroupRule) string { return protocolName(r.Protocol) })
		fields[prefix+"from-port"] = ruleField(way, func(r GroupRule) string { return strconv.Itoa(r.From) })
		fields[prefix+"to-port"] = ruleField(way, func(r GroupRule) string { return strconv.Itoa(r.To) })
		fields[prefix+"group-id"] = ruleField(way, func(r GroupRule) string { return r.Group })
		fields[prefix+"prefix-list-id"] = ruleField(way, func(r GroupRule) string { return r.PrefixList })
		fields[prefix+"cidr"] = ruleField(way, func(r GroupRule) string {
			if !r.CIDR.IsValid() {
				return ""
			}
			return r.CIDR.String()
		})
	}
	return fields
}
