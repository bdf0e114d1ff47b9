package fabric

import (
	"net/netip"
	"strings"
	"testing"
)

func aclRule(number int, allow bool, protocol Protocol, from, to int, cidr string) ACLRule {
	return ACLRule{Number: number, Allow: allow, Protocol: protocol, Ports: Ports{from, to}, CIDR: netip.MustParsePrefix(cidr)}
}

// newACLLab has a and b in two subnets, of which b's has an ACL.
func newACLLab(t *testing.T) *filterLab {
	t.Helper()
	ea, eb := eniA(), eniB()
	ea.SubnetID, eb.SubnetID = "subnet-a", "subnet-b"
	l := newFilterLab(t, ea, eb)
	l.vpc.Subnets = []Subnet{{ID: "subnet-a", CIDR: ea.Subnet}, {ID: "subnet-b", CIDR: eb.Subnet, ACL: "acl-b"}}
	return l
}

func (l *filterLab) acl(ingress, egress []ACLRule) {
	l.t.Helper()
	l.vpc.ACLs = []NetworkACL{{ID: "acl-b", Ingress: ingress, Egress: egress}}
	l.sync()
}

func TestACLIsStateless(t *testing.T) {
	l := newACLLab(t)
	isStateless(l, l.ab(UDP, udp(4000, 53)), l.ba(UDP, udp(53, 4000)))
	l.b.Groups = nil
	isStateless(l, l.ab(UDP, long(udp(4001, 53))), l.ba(UDP, long(udp(53, 4001))))
}

func isStateless(l *filterLab, ask, reply []byte) {
	l.t.Helper()
	all := []ACLRule{aclRule(100, true, AllProtocols, 0, 0, "0.0.0.0/0")}
	in53 := []ACLRule{aclRule(100, true, UDP, 53, 53, "10.0.1.0/24")}

	l.acl(in53, nil)
	l.passes(ask)
	l.dropped(reply, NACLEgress, l.b)
	// The reply needs a rule for the ephemeral ports.
	l.acl(in53, []ACLRule{aclRule(100, true, UDP, 1024, 65535, "10.0.1.0/24")})
	l.passes(ask)
	l.passes(reply)
	// No flow is old enough not to be asked: also not one that groups track.
	l.b.Groups = []string{"sg-1"}
	l.vpc.Groups = []SecurityGroup{{ID: "sg-1", Ingress: []GroupRule{allow(UDP, 53, 53, "10.0.0.0/16")}}}
	l.acl(in53, all)
	for range 3 {
		l.passes(ask)
		l.passes(reply)
	}
	l.acl(nil, all)
	l.dropped(ask, NACLIngress, l.b)
	l.passes(reply)
	l.acl(in53, nil)
	l.passes(ask)
	l.dropped(reply, NACLEgress, l.b)
	l.acl(all, all)
	l.passes(ask)
	l.passes(reply)
}

func TestACLLowestNumberCounts(t *testing.T) {
	l := newACLLab(t)
	ask := l.ab(UDP, udp(4000, 53))
	deny53, allowAll := aclRule(200, false, UDP, 53, 53, "10.0.1.0/24"), aclRule(300, true, AllProtocols, 0, 0, "0.0.0.0/0")
	first := func(r ACLRule) ACLRule { r.Number = 100; return r }
	tests := []struct {
		name  string
		rules []ACLRule
		pass  bool
	}{
		{"deny before allow", []ACLRule{allowAll, deny53}, false},
		{"allow before deny", []ACLRule{deny53, first(allowAll)}, true},
		{"a narrower rule with a higher number", []ACLRule{aclRule(100, true, UDP, 1, 100, "10.0.0.0/16"), aclRule(101, false, UDP, 53, 53, "10.0.1.10/32")}, true},
		{"a wider rule with a lower number", []ACLRule{aclRule(100, false, UDP, 1, 100, "10.0.0.0/16"), aclRule(101, true, UDP, 53, 53, "10.0.1.10/32")}, false},
		{"deny of another port", []ACLRule{aclRule(100, false, UDP, 54, 54, "0.0.0.0/0"), allowAll}, true},
		{"deny of another protocol", []ACLRule{aclRule(100, false, TCP, 0, 65535, "0.0.0.0/0"), allowAll}, true},
		{"no match denies", []ACLRule{aclRule(100, true, UDP, 54, 54, "0.0.0.0/0")}, false},
		{"no rule denies", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l.acl(tt.rules, tt.rules)
			if tt.pass {
				l.passes(ask)
			} else {
				l.dropped(ask, NACLIngress, l.b)
			}
		})
	}
	t.Run("icmp type and code", func(t *testing.T) {
		l.acl([]ACLRule{aclRule(1, false, ICMP, 8, 0, "0.0.0.0/0"), allowAll}, nil)
		l.dropped(l.ab(ICMP, message(8, 0, 1, nil)), NACLIngress, l.b)
		l.passes(l.ab(ICMP, message(0, 0, 1, nil)))
	})
}

func TestACLIsAtTheBorder(t *testing.T) {
	ea, eb := eniA(), testENI(eniB().ID, "i-b", macB, "10.0.1.20")
	ea.SubnetID, eb.SubnetID = "subnet-a", "subnet-a"
	l := newFilterLab(t, ea, eb)
	l.vpc.Subnets = []Subnet{{ID: "subnet-a", CIDR: ea.Subnet, ACL: "acl-1"}}
	l.vpc.ACLs = []NetworkACL{{ID: "acl-1"}}
	l.sync()
	l.passes(l.ab(UDP, udp(4000, 53)))
	l.passes(l.ba(UDP, udp(53, 4000)))
	// Out of the subnet, even to nobody: the ACL comes before the routes.
	l.dropped(ipFrame(macA, "10.0.1.10", "10.0.9.9", 17, 0, udp(1, 2)), NACLEgress, l.a)
}

// group out -> ACL out -> routes -> ACL in -> group in
func TestOrderOfFilters(t *testing.T) {
	l := newACLLab(t)
	l.vpc.Subnets[0].ACL = "acl-b"
	l.vpc.Groups = []SecurityGroup{{ID: "sg-none"}, {ID: "sg-all", Ingress: []GroupRule{allRule}, Egress: []GroupRule{allRule}}}
	none := []ACLRule{}
	all := []ACLRule{aclRule(1, true, AllProtocols, 0, 0, "0.0.0.0/0")}
	ask := l.ab(UDP, udp(4000, 53))
	l.a.Groups, l.b.Groups = []string{"sg-none"}, []string{"sg-none"}
	l.acl(none, none)
	l.dropped(ask, SGEgress, l.a)
	l.a.Groups = []string{"sg-all"}
	l.acl(none, none)
	l.dropped(ask, NACLEgress, l.a)
	l.acl(none, all)
	l.dropped(ask, NACLIngress, l.b)
	l.acl(all, all)
	l.dropped(ask, SGIngress, l.b)
	l.b.Groups = []string{"sg-all"}
	l.acl(all, all)
	l.passes(ask)
}

func TestImpossibleACLDeniesEverything(t *testing.T) {
	l := newACLLab(t)
	allowAll := aclRule(1, true, AllProtocols, 0, 0, "0.0.0.0/0")
	for want, r := range map[string]ACLRule{
		"rule number 0":         aclRule(0, true, UDP, 1, 2, "0.0.0.0/0"),
		"rule number 32767":     aclRule(32767, true, UDP, 1, 2, "0.0.0.0/0"),
		"or is there twice":     aclRule(1, false, UDP, 1, 2, "0.0.0.0/0"),
		"rule 2: ports 3 to 2":  aclRule(2, false, UDP, 3, 2, "0.0.0.0/0"),
		"rule 2: cidr 10.0.0.1": aclRule(2, false, UDP, 1, 2, "10.0.0.1/8"),
	} {
		l.vpc.ACLs = []NetworkACL{{ID: "acl-b", Ingress: []ACLRule{allowAll, r}, Egress: []ACLRule{allowAll}}}
		if err := l.syncFails(); !strings.Contains(err.Error(), "network acl acl-b denies everything") || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %q, want %q", r, err, want)
		}
	}
	l.dropped(l.ab(UDP, udp(1, 2)), NACLIngress, l.b)
	l.vpc.ACLs = nil
	if err := l.syncFails(); !strings.Contains(err.Error(), "network acl acl-b denies everything: the vpc does not have it") {
		t.Errorf("unknown acl: %v", err)
	}
	l.dropped(l.ab(UDP, udp(1, 2)), NACLIngress, l.b)
}

// The default ACL of a VPC has no cost: there is nothing in the maps for it.
func TestACLThatAllowsAllIsNone(t *testing.T) {
	l := newACLLab(t)
	all := []ACLRule{aclRule(100, true, AllProtocols, 0, 0, "0.0.0.0/0"), aclRule(200, false, TCP, 22, 22, "0.0.0.0/0")}
	l.acl(all, all)
	have, err := l.f.readMaps()
	if err != nil {
		t.Fatal(err)
	}
	for index, e := range have.enis {
		if e.Filter.Flags != 0 {
			t.Errorf("device %d has a filter: %+v", index, e.Filter)
		}
	}
	l.passes(l.ab(TCP, tcp(4000, 22, syn)))
}
