package ec2sim

import (
	"fmt"
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

// CreateVPC makes a VPC with what each is born with: a "default" security group
// that admits its own members, an ACL that lets everything pass and a main route
// table. VPCs may overlap.
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
	v := VPC{ID: s.newID(kindVPC.prefix), Region: s.region, CIDRs: []netip.Prefix{in.CIDR.Masked()}, Tags: maps.Clone(in.Tags)}
	v.MainRouteTable, v.MainAssociation = s.newRouteTable(v.ID, nil).ID, s.newID(kindTableAssociation.prefix)
	s.vpcs.insert(s.nextRow(), v.ID, v)
	g := s.newGroup(SecurityGroup{VPCID: v.ID, Name: defaultGroup, Description: "default VPC security group"})
	g.Ingress = []GroupRule{{ID: s.newID(kindGroupRule.prefix), Protocol: AllProtocols, From: -1, To: -1, Group: g.ID}}
	s.groups.put(g.ID, g)
	s.newDefaultACL(v.ID)
	return v, s.vpcQuota()
}

func (s *state) findVPC(id string) (VPC, error) {
	if id == "" {
		return VPC{}, missing("vpcId")
	}
	return find(&s.vpcs, kindVPC, id)
}

func (s *state) findSubnet(id string) (Subnet, error) {
	if id == "" {
		return Subnet{}, missing("subnetId")
	}
	return find(&s.subnets, kindSubnet, id)
}

// DeleteVPCInput names a VPC to delete.
type DeleteVPCInput struct{ ID string }

// DeleteVPC deletes a VPC in which nothing is left but what it was born with.
func (c *Cloud) DeleteVPC(in DeleteVPCInput) error {
	_, err := call(c, in, deleteVPC)
	return err
}

func deleteVPC(s *state, in DeleteVPCInput) (struct{}, error) {
	var none struct{}
	v, err := s.findVPC(in.ID)
	if err != nil {
		return none, err
	}
	if s.vpcInUse(v) {
		return none, dependency("vpc", v.ID)
	}
	for g := range s.groups.all() {
		if g.VPCID == v.ID {
			s.groups.remove(g.ID) // the default one: the loop ends with it
			break
		}
	}
	s.acls.remove(s.defaultACL(v.ID).ID)
	s.routeTables.remove(v.MainRouteTable)
	s.vpcs.remove(v.ID)
	return none, nil
}

// vpcInUse reports whether something of a VPC must go before it.
func (s *state) vpcInUse(v VPC) bool {
	for n := range s.subnets.all() {
		if n.VPCID == v.ID {
			return true
		}
	}
	for g := range s.groups.all() {
		if g.VPCID == v.ID && g.Name != defaultGroup {
			return true
		}
	}
	for a := range s.acls.all() {
		if a.VPCID == v.ID && !a.Default {
			return true
		}
	}
	for t := range s.routeTables.all() {
		if t.VPCID == v.ID && t.ID != v.MainRouteTable {
			return true
		}
	}
	if _, ok := s.gatewayOf(v.ID); ok {
		return true
	}
	g := s.defaultGroupOf(v.ID)
	names := func(r GroupRule) bool { return r.Group == g.ID }
	for other := range s.groups.all() {
		if other.VPCID != v.ID && (slices.ContainsFunc(other.Ingress, names) || slices.ContainsFunc(other.Egress, names)) {
			return true
		}
	}
	return slices.ContainsFunc(s.peeringsHere(), func(p VPCPeering) bool {
		return p.has(v.ID) && (p.Status == PeeringActive || p.Status == PeeringPending)
	})
}

func (s *state) defaultGroupOf(vpcID string) SecurityGroup {
	for g := range s.groups.all() {
		if g.VPCID == vpcID && g.Name == defaultGroup {
			return g
		}
	}
	return SecurityGroup{}
}

// DisassociateVPCCIDRBlockInput names a block by its association.
type DisassociateVPCCIDRBlockInput struct{ AssociationID string }

// DisassociateVPCCIDRBlock takes a block away in which no subnet is.
func (c *Cloud) DisassociateVPCCIDRBlock(in DisassociateVPCCIDRBlockInput) error {
	_, err := call(c, in, disassociateVPCBlock)
	return err
}

// vpcBlock is a block of a VPC.
type vpcBlock struct {
	vpc  VPC
	cidr netip.Prefix
}

func disassociateVPCBlock(s *state, in DisassociateVPCCIDRBlockInput) (vpcBlock, error) {
	if in.AssociationID == "" {
		return vpcBlock{}, missing("associationId")
	}
	if err := kindBlockAssociation.check(in.AssociationID); err != nil {
		return vpcBlock{}, err
	}
	for v := range s.vpcs.all() {
		at := slices.IndexFunc(v.CIDRs, func(p netip.Prefix) bool { return BlockAssociationID(v.ID, p) == in.AssociationID })
		if at < 0 {
			continue
		}
		block := v.CIDRs[at]
		if at == 0 {
			return vpcBlock{}, fail("OperationNotPermitted",
				"The vpc CIDR block with association ID %s may not be disassociated. It is the primary IPv4 CIDR block of the VPC", in.AssociationID)
		}
		for n := range s.subnets.all() {
			if n.VPCID == v.ID && n.CIDR.Overlaps(block) {
				return vpcBlock{}, fail("InvalidCidr.InUse", "The vpc CIDR block with association ID %s is in use by %s.", in.AssociationID, n.ID)
			}
		}
		v.CIDRs = without(v.CIDRs, block)
		s.vpcs.put(v.ID, v)
		return vpcBlock{v, block}, nil
	}
	return vpcBlock{}, kindBlockAssociation.missing(in.AssociationID)
}

// BlockAssociationID is the identifier of the tie between a VPC and a block. It
// has no row of its own but follows from both: the bits of a block that may be
// set, and its length, make 32.
func BlockAssociationID(vpcID string, p netip.Prefix) string {
	vpc := strings.TrimPrefix(vpcID, kindVPC.prefix)
	return fmt.Sprintf("%s%.9s%08x", kindBlockAssociation.prefix, vpc, number(p.Addr())|uint32(p.Bits()-16))
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
	if err := s.blockClear(v, in.CIDR.Masked()); err != nil {
		return VPC{}, err
	}
	v = v.clone()
	v.CIDRs = append(v.CIDRs, in.CIDR.Masked())
	s.vpcs.put(v.ID, v)
	return v, nil
}

// blockClear refuses a block that another VPC has which is peered with v, or that
// a route of v leads elsewhere. Sources: "VPC CIDR blocks", Amazon VPC User Guide,
// and AssociateVpcCidrBlock, Amazon EC2 API Reference.
func (s *state) blockClear(v VPC, block netip.Prefix) error {
	for t := range s.routeTables.all() {
		for _, r := range t.Routes {
			if t.VPCID == v.ID && r.Dst.Bits() >= block.Bits() && block.Contains(r.Dst.Addr()) {
				return fail("InvalidVpc.Range", "The CIDR '%s' covers the route %s in route table %s.", block, r.Dst, t.ID)
			}
		}
	}
	for _, p := range s.peeringsHere() {
		if !p.has(v.ID) || p.Status != PeeringActive {
			continue
		}
		other := p.Requester
		if other.VPCID == v.ID {
			other = p.Accepter
		}
		if peer, _ := s.regions[other.Region].vpcs.get(other.VPCID); slices.ContainsFunc(peer.CIDRs, block.Overlaps) {
			return fail("InvalidVpc.Range", "The CIDR '%s' overlaps with %s, which is peered by %s.", block, peer.ID, p.ID)
		}
	}
	return nil
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
	n := Subnet{
		ID: s.newID(kindSubnet.prefix), VPCID: v.ID, CIDR: cidr, Zone: zone, Tags: maps.Clone(in.Tags),
		ACL: s.defaultACL(v.ID).ID, ACLAssociation: s.newID(kindACLAssociation.prefix),
	}
	s.subnets.insert(s.nextRow(), n.ID, n)
	pools := s.pools
	p := newPool(s.journal, cidr)
	pools[n.ID] = p
	s.journal.add(func() { delete(pools, n.ID) }, func() { pools[n.ID] = p })
	return s.withFree(n), s.subnetQuota(n.VPCID)
}

// DeleteSubnetInput names a subnet to delete.
type DeleteSubnetInput struct{ ID string }

// DeleteSubnet deletes a subnet in which nothing has an address.
func (c *Cloud) DeleteSubnet(in DeleteSubnetInput) error {
	_, err := call(c, in, deleteSubnet)
	return err
}

func deleteSubnet(s *state, in DeleteSubnetInput) (struct{}, error) {
	var none struct{}
	n, err := s.findSubnet(in.ID)
	if err != nil {
		return none, err
	}
	for e := range s.enis.all() {
		if e.SubnetID == n.ID {
			return none, dependency("subnet", n.ID)
		}
	}
	for g := range s.nats.all() {
		if g.SubnetID == n.ID && g.PrivateIP.IsValid() {
			return none, dependency("subnet", n.ID)
		}
	}
	for a := range s.spokes.all() {
		if slices.Contains(a.Subnets, n.ID) {
			return none, dependency("subnet", n.ID)
		}
	}
	for _, r := range s.reservationsOf(n.ID) {
		s.reservations.remove(r.ID)
	}
	s.subnets.remove(n.ID)
	pools, p := s.pools, s.pools[n.ID]
	delete(pools, n.ID)
	s.journal.add(func() { pools[n.ID] = p }, func() { delete(pools, n.ID) })
	return none, nil
}

// ModifySubnetInput changes an attribute of a subnet.
type ModifySubnetInput struct {
	ID        string
	MapPublic Optional[bool]
}

// ModifySubnetAttribute says whether launches into a subnet get public addresses.
func (c *Cloud) ModifySubnetAttribute(in ModifySubnetInput) error {
	_, err := call(c, in, modifySubnet)
	return err
}

func modifySubnet(s *state, in ModifySubnetInput) (struct{}, error) {
	n, err := s.findSubnet(in.ID)
	if err != nil {
		return struct{}{}, err
	}
	if !in.MapPublic.Given {
		return struct{}{}, missing("attribute")
	}
	n.MapPublic = in.MapPublic.Value
	s.subnets.put(n.ID, n)
	return struct{}{}, nil
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
