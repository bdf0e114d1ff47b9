package world

import (
	"fmt"
	"slices"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// groups makes the groups of a VPC, without rules: those may name groups that
// are not there yet.
func (b *builder) groups(v VPC, vpcID string) error {
	page, err := b.in(v).DescribeSecurityGroups(ec2sim.Query{Filters: []ec2sim.Filter{
		{Name: "vpc-id", Values: []string{vpcID}}, {Name: "group-name", Values: []string{defaultName}},
	}})
	if err != nil {
		return fmt.Errorf("%s: find the default security group of vpc %q: %w", v.Pos, v.Name, err)
	}
	b.keep(page.Items[0].ID, "group", v.Name, defaultName)
	for _, g := range v.SecurityGroups {
		if g.Name == defaultName {
			continue
		}
		made, err := b.in(v).CreateSecurityGroup(ec2sim.CreateSecurityGroupInput{VPCID: vpcID, Name: g.Name, Description: g.Name, Tags: named(g.Name)})
		if err != nil {
			return fmt.Errorf("%s: create security group %q: %w", g.Pos, g.Name, err)
		}
		b.keep(made.ID, "group", v.Name, g.Name)
	}
	return nil
}

func (b *builder) groupRules() error {
	for _, v := range b.w.VPCs {
		for _, g := range v.SecurityGroups {
			if err := b.rules(v, g); err != nil {
				return fmt.Errorf("%s: set the rules of security group %q: %w", g.Pos, g.Name, err)
			}
		}
	}
	return nil
}

// rules gives a group the rules of each direction that is described, in place of
// those that it was born with.
func (b *builder) rules(v VPC, g SecurityGroup) error {
	c, id := b.in(v), b.id("group", v.Name, g.Name)
	page, err := c.DescribeSecurityGroups(ec2sim.Query{IDs: []string{id}})
	if err != nil {
		return err
	}
	for _, way := range []struct {
		wanted    []GroupRule
		born      []ec2sim.GroupRule
		revoke    func(ec2sim.GroupRulesInput) error
		authorize func(ec2sim.GroupRulesInput) ([]ec2sim.GroupRule, error)
	}{
		{g.Ingress, page.Items[0].Ingress, c.RevokeSecurityGroupIngress, c.AuthorizeSecurityGroupIngress},
		{g.Egress, page.Items[0].Egress, c.RevokeSecurityGroupEgress, c.AuthorizeSecurityGroupEgress},
	} {
		if way.wanted != nil && len(way.born) > 0 {
			if err := way.revoke(ec2sim.GroupRulesInput{GroupID: id, Rules: way.born}); err != nil {
				return err
			}
		}
		if len(way.wanted) == 0 {
			continue
		}
		in := ec2sim.GroupRulesInput{GroupID: id}
		for _, r := range way.wanted {
			rule, err := b.rule(v, r)
			if err != nil {
				return err
			}
			in.Rules = append(in.Rules, rule)
		}
		if _, err := way.authorize(in); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) rule(v VPC, r GroupRule) (ec2sim.GroupRule, error) {
	p, err := r.Traffic.parse()
	if err != nil {
		return ec2sim.GroupRule{}, err
	}
	to, err := b.w.remote(v, r.Remote)
	if err != nil {
		return ec2sim.GroupRule{}, err
	}
	out := ec2sim.GroupRule{Protocol: p.protocol, From: p.from, To: p.to, CIDR: to.cidr}
	if to.group != "" {
		out.Group = b.id("group", to.vpc, to.group)
	}
	if to.list != "" {
		out.PrefixList = b.id("list", b.w.RegionOf(v), to.list)
	}
	return out, nil
}

func (b *builder) networkACLs() error {
	for _, v := range b.w.VPCs {
		for _, a := range v.NetworkACLs {
			if err := b.networkACL(v, a); err != nil {
				return fmt.Errorf("%s: create network acl %q: %w", a.Pos, a.Name, err)
			}
		}
	}
	return nil
}

func (b *builder) networkACL(v VPC, a NetworkACL) error {
	c, vpcID := b.in(v), b.id("vpc", "", v.Name)
	var acl ec2sim.NetworkACL
	if a.Name == defaultName {
		page, err := c.DescribeNetworkACLs(ec2sim.Query{Filters: []ec2sim.Filter{
			{Name: "vpc-id", Values: []string{vpcID}}, {Name: "default", Values: []string{"true"}},
		}})
		if err != nil {
			return err
		}
		acl = page.Items[0]
	} else {
		var err error
		if acl, err = c.CreateNetworkACL(ec2sim.CreateNetworkACLInput{VPCID: vpcID, Tags: named(a.Name)}); err != nil {
			return err
		}
	}
	for _, s := range a.Subnets {
		if a.Name == defaultName {
			break // they have it already
		}
		in := ec2sim.ReplaceNetworkACLAssociationInput{AssociationID: b.id("aclassoc", v.Name, s), ACLID: acl.ID}
		if _, err := c.ReplaceNetworkACLAssociation(in); err != nil {
			return fmt.Errorf("give it to subnet %q: %w", s, err)
		}
	}
	if err := replaceEntries(c, acl.ID, ec2sim.Ingress, acl.Ingress, a.Ingress); err != nil {
		return err
	}
	return replaceEntries(c, acl.ID, ec2sim.Egress, acl.Egress, a.Egress)
}

// replaceEntries gives one direction of an ACL the entries that are described,
// if it is, in place of those that it was born with.
func replaceEntries(c *ec2sim.Cloud, id string, way ec2sim.Direction, born []ec2sim.ACLEntry, wanted []ACLEntry) error {
	if wanted == nil {
		return nil
	}
	for _, e := range born {
		if err := c.DeleteNetworkACLEntry(ec2sim.NetworkACLEntryInput{ACLID: id, Way: way, Entry: e}); err != nil {
			return err
		}
	}
	for _, e := range slices.SortedFunc(slices.Values(wanted), func(a, b ACLEntry) int { return a.Number - b.Number }) {
		p, err := e.Traffic.parse()
		if err == nil {
			err = c.CreateNetworkACLEntry(ec2sim.NetworkACLEntryInput{ACLID: id, Way: way, Entry: ec2sim.ACLEntry{
				Number: e.Number, Allow: e.Action == "allow", Protocol: p.protocol, From: p.from, To: p.to, CIDR: e.CIDR,
			}})
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.Number, err)
		}
	}
	return nil
}
