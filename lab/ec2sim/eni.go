package ec2sim

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Addressing says which addresses an ENI gets. Count, Secondary, PrefixCount
// and Prefixes exclude each other.
type Addressing struct {
	Primary     netip.Addr     // zero: the lowest free one
	Count       int            // of secondary addresses to choose
	Secondary   []netip.Addr   // secondary addresses by name
	PrefixCount int            // of /28 prefixes to choose
	Prefixes    []netip.Prefix // /28 prefixes by name
}

// CreateNetworkInterfaceInput describes an ENI to make.
type CreateNetworkInterfaceInput struct {
	SubnetID    string
	Description string
	Type        string   // [TypeTrunk], [TypeBranch]; empty: an ordinary one
	Groups      []string // none: the VPC's default group
	Addresses   Addressing
	Tracking    ConnectionTracking
	Tags        map[string]string
	ClientToken string // a repeat with the same token and input gives the first result
}

// CreateNetworkInterface makes an ENI that is on no instance.
func (c *Cloud) CreateNetworkInterface(in CreateNetworkInterfaceInput) (NetworkInterface, error) {
	e, err := call(c, in, createNetworkInterface)
	return e.clone(), err
}

func createNetworkInterface(s *state, in CreateNetworkInterfaceInput) (NetworkInterface, error) {
	return once(s, "CreateNetworkInterface", in.ClientToken, in, makeENI)
}

func makeENI(s *state, in CreateNetworkInterfaceInput) (NetworkInterface, error) {
	if in.SubnetID == "" {
		return NetworkInterface{}, missing("subnetId")
	}
	n, err := find(&s.subnets, kindSubnet, in.SubnetID)
	if err != nil {
		return NetworkInterface{}, err
	}
	if err := checkDescription(in.Description); err != nil {
		return NetworkInterface{}, err
	}
	groups, err := s.checkGroups(in.Groups, n.VPCID)
	if err != nil {
		return NetworkInterface{}, err
	}
	if err := checkTags(in.Tags); err != nil {
		return NetworkInterface{}, err
	}
	if err := in.Addresses.check(); err != nil {
		return NetworkInterface{}, err
	}
	if err := in.Tracking.check(); err != nil {
		return NetworkInterface{}, err
	}
	e := NetworkInterface{
		SubnetID: n.ID, VPCID: n.VPCID, Zone: n.Zone, Description: in.Description, Type: in.Type,
		Groups: groups, SourceDestCheck: true, Tracking: in.Tracking, Status: StatusAvailable, Tags: maps.Clone(in.Tags),
	}
	if e, err = s.fillNew(e, in.Addresses); err != nil {
		return NetworkInterface{}, err
	}
	e.ID, e.MAC = s.newID(kindENI.prefix), s.newMAC()
	s.enis.insert(s.nextRow(), e.ID, e)
	return e, s.eniQuota()
}

func checkDescription(text string) error {
	if len(text) > 255 {
		return invalidValue("Value (%s) for parameter description is invalid. It must be at most 255 characters long.", text)
	}
	return nil
}

// check refuses combinations. Source: CreateNetworkInterface, Amazon EC2 API
// Reference, whose parameters say what they cannot be given with.
func (a Addressing) check() error {
	given := 0
	for _, is := range []bool{a.Count != 0, len(a.Secondary) > 0, a.PrefixCount != 0, len(a.Prefixes) > 0} {
		if is {
			given++
		}
	}
	if given > 1 {
		return invalidCombination("Only one of secondaryPrivateIpAddressCount, privateIpAddresses, ipv4PrefixCount and ipv4Prefixes can be specified.")
	}
	if a.Count < 0 || a.PrefixCount < 0 {
		return invalidValue("Value (%d) for parameter count is invalid. It must not be negative.", min(a.Count, a.PrefixCount))
	}
	return nil
}

// fillNew gives a new ENI its addresses. What is named is taken before what is
// chosen, so that the choice cannot take it.
func (s *state) fillNew(e NetworkInterface, a Addressing) (NetworkInterface, error) {
	p := s.pools[e.SubnetID]
	var err error
	if a.Primary.IsValid() {
		if err := p.claim(a.Primary); err != nil {
			return e, err
		}
		e.Primary = a.Primary
	}
	if e, err = s.assignNamed(e, assignment{addrs: a.Secondary, prefixes: a.Prefixes}); err != nil {
		return e, err
	}
	if !e.Primary.IsValid() {
		if e.Primary, err = p.takeLowest(); err != nil {
			return e, err
		}
	}
	return s.assignChosen(e, a.Count, a.PrefixCount)
}

// claim takes an address that is asked for by name.
func (p *pool) claim(a netip.Addr) error {
	if err := p.checkAddr(a); err != nil {
		return err
	}
	if !p.isFree(a, 1) {
		return fail("InvalidIPAddress.InUse", "Address %s is in use.", a)
	}
	p.take(a, 1)
	return nil
}

func (p *pool) checkAddr(a netip.Addr) error {
	if !p.cidr.Contains(a) {
		return invalidValue("Address %s does not fall within the subnet's address range", a)
	}
	if p.isReserved(a) {
		return invalidValue("Address %s is in subnet's reserved address range", a)
	}
	return nil
}

// checkPrefix refuses what is no aligned /28 of the subnet that nobody has.
func (p *pool) checkPrefix(x netip.Prefix) error {
	if !x.Addr().Is4() || x.Bits() != prefixBits || x != x.Masked() {
		return invalidValue("The prefix %s is invalid. An IPv4 prefix must be an aligned /%d.", x, prefixBits)
	}
	if p.cidr.Bits() > prefixBits || !p.cidr.Contains(x.Addr()) {
		return invalidValue("The prefix %s does not fall within the subnet's address range", x)
	}
	if !p.isFree(x.Addr(), prefixBlock) {
		return invalidValue("The prefix %s is in use or holds an address that is in use or reserved", x)
	}
	return nil
}

// DeleteNetworkInterfaceInput names an ENI to delete.
type DeleteNetworkInterfaceInput struct{ ID string }

// DeleteNetworkInterface deletes an ENI that is on no instance and frees its
// addresses.
func (c *Cloud) DeleteNetworkInterface(in DeleteNetworkInterfaceInput) error {
	_, err := call(c, in, deleteNetworkInterface)
	return err
}

func deleteNetworkInterface(s *state, in DeleteNetworkInterfaceInput) (struct{}, error) {
	e, err := s.findENI(in.ID)
	if err != nil {
		return struct{}{}, err
	}
	if e.Status != StatusAvailable || len(s.branchesOf(e.ID)) > 0 {
		return struct{}{}, invalidValue("Network interface '%s' is currently in use.", e.ID)
	}
	s.dropENI(e)
	return struct{}{}, nil
}

func (s *state) dropENI(e NetworkInterface) {
	for _, a := range s.branchesOf(e.ID) {
		s.untie(a) // its branches stay, with no trunk
	}
	if a, ok := s.trunkOf(e.ID); ok {
		s.untie(a)
	}
	p := s.pools[e.SubnetID]
	p.release(e.Primary, 1)
	s.unmap(e.ID, e.Primary)
	for _, a := range e.Secondary {
		p.release(a, 1)
		s.unmap(e.ID, a)
	}
	for _, x := range e.Prefixes {
		p.release(x.Addr(), prefixBlock)
	}
	s.enis.remove(e.ID)
}

func (s *state) findENI(id string) (NetworkInterface, error) {
	if id == "" {
		return NetworkInterface{}, missing("networkInterfaceId")
	}
	return find(&s.enis, kindENI, id)
}

// ModifyNetworkInterfaceInput changes exactly one thing about an ENI: the
// fields after ID are alternatives.
type ModifyNetworkInterfaceInput struct {
	ID          string
	Description Optional[string]
	SourceDest  Optional[bool] // whether the source/destination check is on
	Groups      []string
	Tracking    ConnectionTracking // what is zero stays as it is
	Attachment  AttachmentChange
}

// Optional is a value that may be left out.
type Optional[T any] struct {
	Value T
	Given bool
}

// Some is a value that is there.
func Some[T any](v T) Optional[T] { return Optional[T]{v, true} }

// AttachmentChange changes what becomes of an ENI when its instance ends.
type AttachmentChange struct {
	ID                  string // of the ENI's attachment
	DeleteOnTermination Optional[bool]
}

// ModifyNetworkInterfaceAttribute changes one attribute of an ENI.
func (c *Cloud) ModifyNetworkInterfaceAttribute(in ModifyNetworkInterfaceInput) error {
	_, err := call(c, in, modifyNetworkInterface)
	return err
}

func modifyNetworkInterface(s *state, in ModifyNetworkInterfaceInput) (struct{}, error) {
	var none struct{}
	e, err := s.findENI(in.ID)
	if err != nil {
		return none, err
	}
	given := 0
	for _, is := range []bool{in.Description.Given, in.SourceDest.Given, len(in.Groups) > 0, in.Tracking != ConnectionTracking{}, in.Attachment != AttachmentChange{}} {
		if is {
			given++
		}
	}
	switch {
	case given == 0:
		return none, missing("attribute")
	case given > 1:
		return none, invalidCombination("Fields for multiple attribute types specified")
	case in.Description.Given:
		if err := checkDescription(in.Description.Value); err != nil {
			return none, err
		}
		e.Description = in.Description.Value
	case in.SourceDest.Given:
		e.SourceDestCheck = in.SourceDest.Value
	case len(in.Groups) > 0:
		if e.Groups, err = s.checkGroups(in.Groups, e.VPCID); err != nil {
			return none, err
		}
	case in.Tracking != ConnectionTracking{}:
		if err := in.Tracking.check(); err != nil {
			return none, err
		}
		e.Tracking = in.Tracking.with(e.Tracking)
	default:
		if e.Attachment, err = in.Attachment.apply(e); err != nil {
			return none, err
		}
	}
	s.enis.put(e.ID, e)
	return none, nil
}

func (ch AttachmentChange) apply(e NetworkInterface) (*Attachment, error) {
	if ch.ID == "" {
		return nil, missing("attachment.attachmentId")
	}
	if !ch.DeleteOnTermination.Given {
		return nil, missing("attachment.deleteOnTermination")
	}
	if err := kindAttachment.check(ch.ID); err != nil {
		return nil, err
	}
	if e.Attachment == nil || e.Attachment.ID != ch.ID {
		return nil, fail(kindAttachment.notFound, "The network interface '%s' has no attachment '%s'", e.ID, ch.ID)
	}
	changed := *e.Attachment
	changed.DeleteOnTermination = ch.DeleteOnTermination.Value
	return &changed, nil
}

// privateDNS is the name that the VPC's resolver gives an address.
func (s *state) privateDNS(a netip.Addr) string {
	b := a.As4()
	domain := s.region + ".compute.internal"
	if s.region == "us-east-1" {
		domain = "ec2.internal"
	}
	return fmt.Sprintf("ip-%d-%d-%d-%d.%s", b[0], b[1], b[2], b[3], domain)
}

// without gives a copy of list without one value.
func without[T comparable](list []T, v T) []T {
	return slices.DeleteFunc(slices.Clone(list), func(x T) bool { return x == v })
}
