package ec2sim

import (
	"slices"
	"strconv"
)

func parseCreateACL(f form) CreateNetworkACLInput {
	return CreateNetworkACLInput{
		VPCID: f.in("VpcId").text(), Tags: f.tagsFor(kindACL)[kindACL], ClientToken: f.in("ClientToken").text(),
	}
}

func parseDeleteACL(f form) DeleteNetworkACLInput {
	return DeleteNetworkACLInput{ID: f.in("NetworkAclId").text()}
}

// parseACLNumber reads what all entries have.
func parseACLNumber(f form) NetworkACLEntryInput {
	f.in("RuleNumber").required()
	f.in("Egress").required()
	return NetworkACLEntryInput{
		ACLID: f.in("NetworkAclId").text(), Way: Direction(f.in("Egress").flag().Value),
		Entry: ACLEntry{Number: f.in("RuleNumber").count(1)},
	}
}

func parseACLEntry(f form) NetworkACLEntryInput {
	in := parseACLNumber(f)
	e := &in.Entry
	f.in("Protocol").required()
	f.in("RuleAction").required()
	e.Protocol, e.CIDR = f.in("Protocol").protocol(), f.in("CidrBlock").cidr()
	e.Allow = f.in("RuleAction").choice("allow", "deny") == "allow"
	ports, icmp := f.in("PortRange"), f.in("Icmp")
	switch e.Protocol {
	case ProtocolTCP, ProtocolUDP:
		ports.in("From").required()
		ports.in("To").required()
		e.From, e.To = ports.in("From").count(0), ports.in("To").count(0)
	case ProtocolICMP:
		icmp.in("Type").required()
		icmp.in("Code").required()
		e.From, e.To = icmp.in("Type").count(-1), icmp.in("Code").count(-1)
	default: // ports of a protocol that has none are not looked at
		ports.in("From").text()
		ports.in("To").text()
	}
	return in
}

func parseReplaceACLAssociation(f form) ReplaceNetworkACLAssociationInput {
	return ReplaceNetworkACLAssociationInput{AssociationID: f.in("AssociationId").text(), ACLID: f.in("NetworkAclId").text()}
}

// subnetsOf lists the subnets that are associated with an ACL.
func (s *state) subnetsOf(a NetworkACL) []Subnet {
	var out []Subnet
	for n := range s.subnets.all() {
		if n.ACL == a.ID {
			out = append(out, n)
		}
	}
	return out
}

func entryField(field func(ACLEntry) string) func(*state, NetworkACL) []string {
	return func(_ *state, a NetworkACL) []string {
		var out []string
		for _, e := range slices.Concat(a.Ingress, a.Egress) {
			out = append(out, field(e))
		}
		return out
	}
}

func aclSubnetField(field func(Subnet) string) func(*state, NetworkACL) []string {
	return func(s *state, a NetworkACL) []string {
		var out []string
		for _, n := range s.subnetsOf(a) {
			out = append(out, field(n))
		}
		return out
	}
}

var aclListing = listing[NetworkACL]{
	action: "DescribeNetworkAcls", maxPage: 1000, idsName: "networkAclId",
	tags: func(a NetworkACL) map[string]string { return a.Tags },
	fields: map[string]func(*state, NetworkACL) []string{
		"network-acl-id":             one(func(a NetworkACL) string { return a.ID }),
		"vpc-id":                     one(func(a NetworkACL) string { return a.VPCID }),
		"default":                    one(func(a NetworkACL) string { return strconv.FormatBool(a.Default) }),
		"owner-id":                   ownerField[NetworkACL],
		"association.association-id": aclSubnetField(func(n Subnet) string { return n.ACLAssociation }),
		"association.subnet-id":      aclSubnetField(func(n Subnet) string { return n.ID }),
		"association.network-acl-id": aclSubnetField(func(n Subnet) string { return n.ACL }),
		"entry.rule-number":          entryField(func(e ACLEntry) string { return strconv.Itoa(e.Number) }),
		"entry.cidr":                 entryField(func(e ACLEntry) string { return e.CIDR.String() }),
		"entry.protocol":             entryField(func(e ACLEntry) string { return strconv.Itoa(e.Protocol) }),
		"entry.rule-action":          entryField(func(e ACLEntry) string { return aclAction(e) }),
		"entry.port-range.from":      entryField(func(e ACLEntry) string { return strconv.Itoa(e.From) }),
		"entry.port-range.to":        entryField(func(e ACLEntry) string { return strconv.Itoa(e.To) }),
	},
}

// DescribeNetworkACLs lists network ACLs.
func (c *Cloud) DescribeNetworkACLs(q Query) (Page[NetworkACL], error) {
	return cloned(call(c, q, describeACLs))
}

func describeACLs(s *state, q Query) (Page[NetworkACL], error) {
	if err := known(&s.acls, kindACL, q.IDs); err != nil {
		return Page[NetworkACL]{}, err
	}
	return aclListing.apply(s, q, rows(&s.acls, q.IDs))
}

type xmlACL struct {
	ID           string                 `xml:"networkAclId"`
	VPCID        string                 `xml:"vpcId"`
	Default      bool                   `xml:"default"`
	Entries      set[xmlACLEntry]       `xml:"entrySet"`
	Associations set[xmlACLAssociation] `xml:"associationSet"`
	Tags         set[xmlTag]            `xml:"tagSet"`
	OwnerID      string                 `xml:"ownerId"`
}

type xmlACLEntry struct {
	Number   int       `xml:"ruleNumber"`
	Protocol int       `xml:"protocol"`
	Action   string    `xml:"ruleAction"`
	Egress   bool      `xml:"egress"`
	CIDR     string    `xml:"cidrBlock"`
	Ports    *xmlPorts `xml:"portRange"`
	ICMP     *xmlICMP  `xml:"icmpTypeCode"`
}

type xmlPorts struct {
	From int `xml:"from"`
	To   int `xml:"to"`
}

type xmlICMP struct {
	Type int `xml:"type"`
	Code int `xml:"code"`
}

type xmlACLAssociation struct {
	ID       string `xml:"networkAclAssociationId"`
	ACLID    string `xml:"networkAclId"`
	SubnetID string `xml:"subnetId"`
}

func aclAction(e ACLEntry) string {
	if e.Allow {
		return "allow"
	}
	return "deny"
}

// lastACLRule is the number of the entry that denies the rest, which cannot be
// changed: EC2 shows it as "*".
const lastACLRule = maxACLNumber + 1

func showEntries(entries []ACLEntry, way Direction) []xmlACLEntry {
	var out []xmlACLEntry
	for _, e := range entries {
		x := xmlACLEntry{Number: e.Number, Protocol: e.Protocol, Action: aclAction(e), Egress: bool(way), CIDR: e.CIDR.String()}
		switch e.Protocol {
		case ProtocolTCP, ProtocolUDP:
			x.Ports = &xmlPorts{e.From, e.To}
		case ProtocolICMP:
			x.ICMP = &xmlICMP{e.From, e.To}
		}
		out = append(out, x)
	}
	return append(out, xmlACLEntry{Number: lastACLRule, Protocol: AllProtocols, Action: "deny", Egress: bool(way), CIDR: everywhere.String()})
}

func (s *state) showACL(a NetworkACL) xmlACL {
	return xmlACL{
		ID: a.ID, VPCID: a.VPCID, Default: a.Default, Tags: showTags(a.Tags), OwnerID: s.cfg.Account,
		Entries: set[xmlACLEntry]{append(showEntries(a.Egress, Egress), showEntries(a.Ingress, Ingress)...)},
		Associations: setOf(s.subnetsOf(a), func(n Subnet) xmlACLAssociation {
			return xmlACLAssociation{n.ACLAssociation, a.ID, n.ID}
		}),
	}
}

func renderCreateACL(s *state, a NetworkACL) replier {
	return &struct {
		reply
		ACL xmlACL `xml:"networkAcl"`
	}{ACL: s.showACL(a)}
}

func renderACLs(s *state, page Page[NetworkACL]) replier {
	return &struct {
		reply
		Set  set[xmlACL] `xml:"networkAclSet"`
		Next string      `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showACL), Next: page.NextToken}
}

func renderNewAssociation(_ *state, id string) replier {
	return &struct {
		reply
		ID string `xml:"newAssociationId"`
	}{ID: id}
}
