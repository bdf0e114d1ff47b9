package ec2sim

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// CreateVPCInput describes a VPC to make.
type CreateVPCInput struct {
	CIDR netip.Prefix // IPv4, /16 to /28
	Tags map[string]string
}

// CreateVPC makes a VPC and its "default" security group. VPCs may overlap.
func (c *Cloud) CreateVPC(in CreateVPCInput) (VPC, error) {
	v, err := call(c, in, createVPC)
	return v.clone(), err
}

func createVPC(s *state, in CreateVPCInput) (VPC, error) {
	if !in.CIDR.IsValid() {
		return VPC{}, missing("cidrBlock")
	}
	if !blockAllowed(in.CIDR) {
		return VPC{}, fail("InvalidVpc.Range", "The CIDR '%s' is invalid.", in.CIDR)
	}
	if err := checkTags(in.Tags); err != nil {
		return VPC{}, err
	}
	v := VPC{ID: s.newID(kindVPC.prefix), CIDRs: []netip.Prefix{in.CIDR.Masked()}, Tags: maps.Clone(in.Tags)}
	s.vpcs.insert(s.nextRow(), v.ID, v)
	g := SecurityGroup{ID: s.newID(kindGroup.prefix), VPCID: v.ID, Name: "default", Description: "default VPC security group"}
	s.groups.insert(s.nextRow(), g.ID, g)
	return v, nil
}

// AssociateVPCCIDRBlockInput gives a VPC one more block.
type AssociateVPCCIDRBlockInput struct {
	VPCID string
	CIDR  netip.Prefix // IPv4, /16 to /28, clear of the VPC's other blocks
}

// AssociateVPCCIDRBlock gives a VPC one more block of addresses.
func (c *Cloud) AssociateVPCCIDRBlock(in AssociateVPCCIDRBlockInput) (VPC, error) {
	v, err := call(c, in, associateVPCBlock)
	return v.clone(), err
}

func associateVPCBlock(s *state, in AssociateVPCCIDRBlockInput) (VPC, error) {
	if in.VPCID == "" {
		return VPC{}, missing("vpcId")
	}
	if !in.CIDR.IsValid() {
		return VPC{}, missing("cidrBlock")
	}
	v, err := find(&s.vpcs, kindVPC, in.VPCID)
	if err != nil {
		return VPC{}, err
	}
	if !blockAllowed(in.CIDR) || slices.ContainsFunc(v.CIDRs, in.CIDR.Overlaps) {
		return VPC{}, fail("InvalidVpc.Range", "The CIDR '%s' is invalid.", in.CIDR)
	}
	v = v.clone()
	v.CIDRs = append(v.CIDRs, in.CIDR.Masked())
	s.vpcs.put(v.ID, v)
	return v, nil
}

// blockAllowed reports whether a VPC or a subnet can have the block: IPv4, /16
// to /28. Source: "VPC CIDR blocks", Amazon VPC User Guide.
func blockAllowed(p netip.Prefix) bool {
	return p.Addr().Is4() && p.Bits() >= 16 && p.Bits() <= 28
}

// CreateSubnetInput describes a subnet to make.
type CreateSubnetInput struct {
	VPCID  string
	CIDR   netip.Prefix // IPv4, /16 to /28, inside the VPC
	Zone   string       // name of the zone; empty: the region's first
	ZoneID string       // instead of Zone
	Tags   map[string]string
}

// CreateSubnet makes a subnet.
func (c *Cloud) CreateSubnet(in CreateSubnetInput) (Subnet, error) {
	n, err := call(c, in, createSubnet)
	return n.clone(), err
}

func createSubnet(s *state, in CreateSubnetInput) (Subnet, error) {
	if in.VPCID == "" {
		return Subnet{}, missing("vpcId")
	}
	if !in.CIDR.IsValid() {
		return Subnet{}, missing("cidrBlock")
	}
	v, err := find(&s.vpcs, kindVPC, in.VPCID)
	if err != nil {
		return Subnet{}, err
	}
	zone, err := s.pickZone(in.Zone, in.ZoneID)
	if err != nil {
		return Subnet{}, err
	}
	if err := checkTags(in.Tags); err != nil {
		return Subnet{}, err
	}
	cidr := in.CIDR.Masked()
	inside := func(p netip.Prefix) bool { return p.Bits() <= cidr.Bits() && p.Contains(cidr.Addr()) }
	if !blockAllowed(cidr) || !slices.ContainsFunc(v.CIDRs, inside) {
		return Subnet{}, fail("InvalidSubnet.Range", "The CIDR '%s' is invalid.", in.CIDR)
	}
	for other := range s.subnets.all() {
		if other.VPCID == v.ID && other.CIDR.Overlaps(cidr) {
			return Subnet{}, fail("InvalidSubnet.Conflict", "The CIDR '%s' conflicts with another subnet", in.CIDR)
		}
	}
	n := Subnet{ID: s.newID(kindSubnet.prefix), VPCID: v.ID, CIDR: cidr, Zone: zone, Tags: maps.Clone(in.Tags)}
	s.subnets.insert(s.nextRow(), n.ID, n)
	s.pools[n.ID] = newPool(s.journal, cidr)
	s.journal.add(func() { delete(s.pools, n.ID) })
	return s.withFree(n), nil
}

func (s *state) pickZone(name, id string) (string, error) {
	zones := s.zones()
	if name == "" && id == "" {
		return zones[0], nil
	}
	if name != "" && id != "" {
		return "", invalidCombination("The parameters availabilityZone and availabilityZoneId cannot be used together.")
	}
	for _, zone := range zones {
		if zone == name || s.zoneID(zone) == id {
			return zone, nil
		}
	}
	return "", invalidValue("Value (%s) for parameter availabilityZone is invalid. Subnets can currently only be created in the following availability zones: %s.",
		name+id, strings.Join(zones, ", "))
}

// withFree fills in how many addresses of a subnet are free.
func (s *state) withFree(n Subnet) Subnet {
	n.Available = s.pools[n.ID].free
	return n
}

// CreateSecurityGroupInput describes a security group to make.
type CreateSecurityGroupInput struct {
	VPCID, Name, Description string
	Tags                     map[string]string
}

// CreateSecurityGroup makes a security group. Its rules are not simulated yet.
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
	g := SecurityGroup{ID: s.newID(kindGroup.prefix), VPCID: in.VPCID, Name: in.Name, Description: in.Description, Tags: maps.Clone(in.Tags)}
	s.groups.insert(s.nextRow(), g.ID, g)
	return g, nil
}

// maxGroups is how many security groups an ENI may have. Source: "Amazon VPC
// quotas", default of "Security groups per network interface".
const maxGroups = 5

// checkGroups gives the groups for an ENI in a VPC: those named, or the VPC's
// default one.
func (s *state) checkGroups(ids []string, vpcID string) ([]string, error) {
	if len(ids) == 0 {
		for g := range s.groups.all() {
			if g.VPCID == vpcID && g.Name == "default" {
				return []string{g.ID}, nil
			}
		}
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
