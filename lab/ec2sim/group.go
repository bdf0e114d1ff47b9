package ec2sim

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// SecurityGroup is a stateful, allow-only filter of the network interfaces that
// name it.
type SecurityGroup struct {
	ID, VPCID, Name, Description string
	Ingress, Egress              []GroupRule
	Tags                         map[string]string
}

// GroupRule allows one protocol, range of ports and remote. Of CIDR, Group and
// PrefixList exactly one is set.
type GroupRule struct {
	ID          string // "sgr-..."
	Protocol    int    // IP protocol number; -1 is all
	From, To    int    // ports of TCP and UDP, type and code of ICMP; -1 is all, and so it is for other protocols
	CIDR        netip.Prefix
	Group       string
	PrefixList  string
	Description string
}

// same reports whether two rules allow the same, whatever they are called.
func (r GroupRule) same(other GroupRule) bool {
	r.ID, r.Description = other.ID, other.Description
	return r == other
}

func (g SecurityGroup) clone() SecurityGroup {
	g.Ingress, g.Egress, g.Tags = slices.Clone(g.Ingress), slices.Clone(g.Egress), maps.Clone(g.Tags)
	return g
}

// CreateSecurityGroupInput describes a security group to make.
type CreateSecurityGroupInput struct {
	VPCID, Name, Description string
	Tags                     map[string]string
}

// CreateSecurityGroup makes a security group that lets everything out and
// nothing in.
func (c *Cloud) CreateSecurityGroup(in CreateSecurityGroupInput) (SecurityGroup, error) {
	g, err := call(c, in, createSecurityGroup)
	return g.clone(), err
}

func createSecurityGroup(s *state, in CreateSecurityGroupInput) (SecurityGroup, error) {
	switch {
	case in.Name == "":
		return SecurityGroup{}, missing("groupName")
	case in.Description == "":
		return SecurityGroup{}, missing("groupDescription")
	case in.VPCID == "":
		return SecurityGroup{}, fail("VPCIdNotSpecified", "No default VPC for this user.")
	case len(in.Name) > 255 || strings.HasPrefix(in.Name, "sg-"):
		return SecurityGroup{}, invalidValue("Invalid security group name '%s': it must be at most 255 characters long and not start with 'sg-'.", in.Name)
	case len(in.Description) > 255:
		return SecurityGroup{}, invalidValue("Value (%s) for parameter groupDescription is invalid. It must be at most 255 characters long.", in.Description)
	}
	if _, err := find(&s.vpcs, kindVPC, in.VPCID); err != nil {
		return SecurityGroup{}, err
	}
	if err := checkTags(in.Tags); err != nil {
		return SecurityGroup{}, err
	}
	for g := range s.groups.all() {
		if g.VPCID == in.VPCID && g.Name == in.Name {
			return SecurityGroup{}, fail("InvalidGroup.Duplicate", "The security group '%s' already exists for VPC '%s'", in.Name, in.VPCID)
		}
	}
	return s.newGroup(SecurityGroup{VPCID: in.VPCID, Name: in.Name, Description: in.Description, Tags: maps.Clone(in.Tags)}), s.groupQuota()
}

// newGroup adds a group with the rule that each is born with.
func (s *state) newGroup(g SecurityGroup) SecurityGroup {
	g.ID = s.newID(kindGroup.prefix)
	g.Egress = []GroupRule{{
		ID: s.newID(kindGroupRule.prefix), Protocol: AllProtocols, From: -1, To: -1, CIDR: everywhere,
	}}
	s.groups.insert(s.nextRow(), g.ID, g)
	return g
}

// DeleteSecurityGroupInput names a group to delete.
type DeleteSecurityGroupInput struct{ ID string }

// DeleteSecurityGroup deletes a group that no network interface and no rule of
// another group names, and that is not a VPC's default one.
func (c *Cloud) DeleteSecurityGroup(in DeleteSecurityGroupInput) error {
	_, err := call(c, in, deleteSecurityGroup)
	return err
}

func deleteSecurityGroup(s *state, in DeleteSecurityGroupInput) (SecurityGroup, error) {
	g, err := s.findGroup(in.ID)
	if err != nil {
		return g, err
	}
	if g.Name == defaultGroup {
		return g, fail("CannotDelete", "the specified group: %q name: %q cannot be deleted by a user", g.ID, g.Name)
	}
	for e := range s.enis.all() {
		if slices.Contains(e.Groups, g.ID) {
			return g, fail("DependencyViolation", "resource %s has a dependent object", g.ID)
		}
	}
	names := func(r GroupRule) bool { return r.Group == g.ID }
	for other := range s.groups.all() {
		if other.ID != g.ID && (slices.ContainsFunc(other.Ingress, names) || slices.ContainsFunc(other.Egress, names)) {
			return g, fail("DependencyViolation", "resource %s has a dependent object", g.ID)
		}
	}
	s.groups.remove(g.ID)
	return g, nil
}

func (s *state) findGroup(id string) (SecurityGroup, error) {
	if id == "" {
		return SecurityGroup{}, missing("groupId")
	}
	return find(&s.groups, kindGroup, id)
}

// defaultGroup is the name of the group that each VPC has from its beginning.
const defaultGroup = "default"

// maxGroups is how many security groups an ENI may have. Source: "Amazon VPC
// quotas", default of "Security groups per network interface".
const maxGroups = 5

// checkGroups gives the groups for an ENI in a VPC: those named, or the VPC's
// default one.
func (s *state) checkGroups(ids []string, vpcID string) ([]string, error) {
	if len(ids) == 0 {
		return []string{s.defaultGroupOf(vpcID).ID}, nil
	}
	var groups []string
	for _, id := range ids {
		g, err := find(&s.groups, kindGroup, id)
		if err != nil {
			return nil, err
		}
		if g.VPCID != vpcID {
			return nil, invalidValue("The security group '%s' and the subnet belong to different networks.", id)
		}
		if !slices.Contains(groups, id) {
			groups = append(groups, id)
		}
	}
	if len(groups) > maxGroups {
		return nil, fail("SecurityGroupsPerInterfaceLimitExceeded",
			"The maximum number of security groups per interface has been reached (%d of %d).", len(groups), maxGroups)
	}
	return groups, nil
}
