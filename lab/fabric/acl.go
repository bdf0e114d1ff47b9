package fabric

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// aclOf is the network ACL of the ENI's subnet; empty is none.
func aclOf(v VPC, e ENI) string {
	i := slices.IndexFunc(v.Subnets, func(s Subnet) bool { return s.ID == e.SubnetID })
	if e.SubnetID == "" || i < 0 {
		return ""
	}
	return v.Subnets[i].ACL
}

// acl compiles a network ACL. A direction that lets everything pass, as those of
// a VPC's default ACL do, has no set and costs its packets nothing.
func (c *filterCompiler) acl(v VPC, id string) filterSet {
	name := "acl " + v.ID + " " + id
	if set, ok := c.done[name]; ok {
		return set
	}
	var a NetworkACL
	err := errors.New("the vpc does not have it")
	if i := slices.IndexFunc(v.ACLs, func(a NetworkACL) bool { return a.ID == id }); i >= 0 {
		a = v.ACLs[i]
		err = a.check()
	}
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("vpc %s: network acl %s denies everything: %w", v.ID, id, err))
		a = NetworkACL{}
	}
	var set filterSet
	for dir, rules := range [][]ACLRule{out: a.Egress, in: a.Ingress} {
		rules = slices.SortedFunc(slices.Values(rules), func(a, b ACLRule) int { return cmp.Compare(a.Number, b.Number) })
		if len(rules) > 0 && rules[0].Allow && rules[0].Protocol == AllProtocols && rules[0].CIDR.Bits() == 0 {
			continue
		}
		var list []match
		for _, r := range rules {
			m := match{remotes: []netip.Prefix{r.CIDR}, ports: portSpans(r.Protocol, r.Ports)}
			if r.Allow {
				m.verdict = verdictAllow
			}
			list = append(list, m)
		}
		compiled := compile(list, firstVerdict)
		compiled.addTo(c.remotes, c.verdicts)
		set.id[dir] = compiled.id
		set.flags |= filterACL << dir
	}
	c.done[name] = set
	return set
}

// Rule numbers: "Network ACL rules", Amazon VPC User Guide (32,767 is the rule
// that denies what is left).
const maxRuleNumber = 32766

func (a NetworkACL) check() error {
	for _, list := range [][]ACLRule{a.Ingress, a.Egress} {
		seen := map[int]bool{}
		for _, r := range list {
			if r.Number < 1 || r.Number > maxRuleNumber || seen[r.Number] {
				return fmt.Errorf("rule number %d is not within 1..%d, or is there twice", r.Number, maxRuleNumber)
			}
			seen[r.Number] = true
			if err := cmp.Or(checkPorts(r.Protocol, r.Ports), checkRuleCIDR(r.CIDR)); err != nil {
				return fmt.Errorf("rule %d: %w", r.Number, err)
			}
		}
	}
	return nil
}

// firstVerdict folds the rules of an ACL, which come in the order of their
// numbers: the lowest counts.
func firstVerdict(said []uint8) uint8 { return said[0] }
