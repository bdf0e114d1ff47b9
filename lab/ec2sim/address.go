package ec2sim

import (
	"fmt"
	"maps"
	"net/netip"
)

// Address is an elastic IP address. It belongs to the account until it is
// released, and maps to at most one private address.
type Address struct {
	ID, Region    string // ID is the allocation's
	PublicIP      netip.Addr
	AssociationID string // empty while nothing uses it
	InterfaceID   string // of the ENI it maps to, or
	NATGatewayID  string // the NAT gateway
	PrivateIP     netip.Addr
	Tags          map[string]string
}

func (a Address) clone() Address { a.Tags = maps.Clone(a.Tags); return a }

// publicBlocks are what public addresses come from, the lowest first: they are
// nobody's on the internet. Sources: RFC 5737 (TEST-NET-2), RFC 2544.
var publicBlocks = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("198.18.0.0/15")}

// takePublic takes a public address out of its block, for a row of its own in
// the table of those in use.
func (s *state) takePublic() (netip.Addr, error) {
	for _, block := range publicBlocks {
		for a := block.Addr().Next(); block.Contains(a.Next()); a = a.Next() {
			if _, used := s.public.get(a.String()); !used {
				s.public.insert(s.nextRow(), a.String(), struct{}{})
				return a, nil
			}
		}
	}
	return netip.Addr{}, fail("InsufficientAddressCapacity", "Not enough available addresses to satisfy your request.")
}

func (s *state) releasePublic(a netip.Addr) { s.public.remove(a.String()) }

// mapping gives the elastic address of a private address of an ENI.
func (s *state) mapping(eniID string, private netip.Addr) (Address, bool) {
	for a := range s.addresses.all() {
		if a.InterfaceID == eniID && a.PrivateIP == private {
			return a, true
		}
	}
	return Address{}, false
}

// publicOf gives what the internet sees of a private address of an ENI, and the
// elastic address if it is one.
func (s *state) publicOf(e NetworkInterface, private netip.Addr) (netip.Addr, Address) {
	if a, ok := s.mapping(e.ID, private); ok {
		return a.PublicIP, a
	}
	if private == e.Primary {
		return e.AutoPublic, Address{}
	}
	return netip.Addr{}, Address{}
}

// unmap ends the mapping of a private address that an ENI loses.
func (s *state) unmap(eniID string, private netip.Addr) {
	if a, ok := s.mapping(eniID, private); ok {
		s.addresses.put(a.ID, a.free())
	}
}

func (a Address) free() Address {
	a.AssociationID, a.InterfaceID, a.NATGatewayID, a.PrivateIP = "", "", "", netip.Addr{}
	return a
}

// dropAutoPublic gives back the public address that an ENI got at launch.
func (s *state) dropAutoPublic(e NetworkInterface) NetworkInterface {
	if e.AutoPublic.IsValid() {
		s.releasePublic(e.AutoPublic)
		e.AutoPublic = netip.Addr{}
	}
	return e
}

// hasPublic reports whether a public address is in use in a VPC.
func (s *state) hasPublic(vpcID string) bool {
	for a := range s.addresses.all() {
		e, isENI := s.enis.get(a.InterfaceID)
		g, isNAT := s.nats.get(a.NATGatewayID)
		if isENI && e.VPCID == vpcID || isNAT && g.VPCID == vpcID {
			return true
		}
	}
	for e := range s.enis.all() {
		if e.VPCID == vpcID && e.AutoPublic.IsValid() {
			return true
		}
	}
	return false
}

// AllocateAddressInput asks for an elastic address.
type AllocateAddressInput struct{ Tags map[string]string }

// AllocateAddress gives the account an elastic address.
func (c *Cloud) AllocateAddress(in AllocateAddressInput) (Address, error) {
	a, err := call(c, in, allocateAddress)
	return a.clone(), err
}

func allocateAddress(s *state, in AllocateAddressInput) (Address, error) {
	if err := checkTags(in.Tags); err != nil {
		return Address{}, err
	}
	public, err := s.takePublic()
	if err != nil {
		return Address{}, err
	}
	a := Address{ID: s.newID(kindAddress.prefix), Region: s.region, PublicIP: public, Tags: maps.Clone(in.Tags)}
	s.addresses.insert(s.nextRow(), a.ID, a)
	return a, s.elasticQuota()
}

// ReleaseAddressInput names an elastic address to give back.
type ReleaseAddressInput struct{ AllocationID string }

// ReleaseAddress gives back an elastic address that nothing uses.
func (c *Cloud) ReleaseAddress(in ReleaseAddressInput) error {
	_, err := call(c, in, releaseAddress)
	return err
}

func (s *state) findAddress(id string) (Address, error) {
	if id == "" {
		return Address{}, missing("allocationId")
	}
	return find(&s.addresses, kindAddress, id)
}

func releaseAddress(s *state, in ReleaseAddressInput) (struct{}, error) {
	a, err := s.findAddress(in.AllocationID)
	if err != nil {
		return struct{}{}, err
	}
	if a.AssociationID != "" {
		return struct{}{}, fail("InvalidIPAddress.InUse", "Address %s is in use.", a.PublicIP)
	}
	s.addresses.remove(a.ID)
	s.releasePublic(a.PublicIP)
	return struct{}{}, nil
}

// AssociateAddressInput maps an elastic address to a private one of an ENI, or
// of the primary ENI of an instance.
type AssociateAddressInput struct {
	AllocationID            string
	InterfaceID, InstanceID string
	PrivateIP               netip.Addr     // zero: the ENI's primary one
	AllowReassociation      Optional[bool] // left out: true, as for an account without EC2-Classic
}

// AssociateAddress maps an elastic address, and tells the association. What it
// was mapped to before loses it.
func (c *Cloud) AssociateAddress(in AssociateAddressInput) (string, error) {
	return call(c, in, associateAddress)
}

func associateAddress(s *state, in AssociateAddressInput) (string, error) {
	a, err := s.findAddress(in.AllocationID)
	if err != nil {
		return "", err
	}
	e, err := s.mappingTarget(in)
	if err != nil {
		return "", err
	}
	private := in.PrivateIP
	if !private.IsValid() {
		private = e.Primary
	}
	if !e.has(private) {
		return "", invalidValue("The private IP address %s is not assigned to network interface '%s'.", private, e.ID)
	}
	if _, ok := s.gatewayOf(e.VPCID); !ok {
		return "", fail("Gateway.NotAttached", "Network %s is not attached to any internet gateway", e.VPCID)
	}
	if a.InterfaceID == e.ID && a.PrivateIP == private {
		return a.AssociationID, nil
	}
	stays := in.AllowReassociation.Given && !in.AllowReassociation.Value
	if a.AssociationID != "" && (stays || a.NATGatewayID != "") {
		return "", fail("Resource.AlreadyAssociated", "resource %s is already associated with associate-id %s", a.ID, a.AssociationID)
	}
	if other, ok := s.mapping(e.ID, private); ok {
		if stays {
			return "", fail("Resource.AlreadyAssociated", "resource %s is already associated with associate-id %s", private, other.AssociationID)
		}
		s.addresses.put(other.ID, other.free())
	}
	if private == e.Primary && e.AutoPublic.IsValid() {
		s.enis.put(e.ID, s.dropAutoPublic(e))
	}
	a = a.free()
	a.AssociationID, a.InterfaceID, a.PrivateIP = s.newID(kindMapping.prefix), e.ID, private
	s.addresses.put(a.ID, a)
	return a.AssociationID, nil
}

// has reports whether a private address is the ENI's. Addresses of its prefixes
// cannot have a public one unless they are assigned by themselves.
func (e NetworkInterface) has(a netip.Addr) bool {
	if a == e.Primary {
		return true
	}
	for _, x := range e.Secondary {
		if a == x {
			return true
		}
	}
	return false
}

func (s *state) mappingTarget(in AssociateAddressInput) (NetworkInterface, error) {
	switch {
	case in.InterfaceID != "" && in.InstanceID != "":
		return NetworkInterface{}, invalidCombination("You may specify only one of instanceId and networkInterfaceId.")
	case in.InterfaceID != "":
		return s.findENI(in.InterfaceID)
	case in.InstanceID == "":
		return NetworkInterface{}, missing("instanceId")
	}
	i, err := find(&s.instances, kindInstance, in.InstanceID)
	if err != nil {
		return NetworkInterface{}, err
	}
	if len(i.Interfaces) > 1 {
		return NetworkInterface{}, fail("InvalidInstanceID", "There are multiple interfaces attached to instance '%s'. Please specify an interface ID for the operation instead.", i.ID)
	}
	e, ok := s.primaryOf(i)
	if !ok {
		return e, fail("InvalidInstanceID", "The pending or running instance '%s' is not in a valid state for this operation.", i.ID)
	}
	return e, nil
}

// DisassociateAddressInput names an association to end.
type DisassociateAddressInput struct{ AssociationID string }

// DisassociateAddress ends the mapping of an elastic address.
func (c *Cloud) DisassociateAddress(in DisassociateAddressInput) error {
	_, err := call(c, in, disassociateAddress)
	return err
}

func disassociateAddress(s *state, in DisassociateAddressInput) (struct{}, error) {
	var none struct{}
	if in.AssociationID == "" {
		return none, missing("associationId")
	}
	if err := kindMapping.check(in.AssociationID); err != nil {
		return none, err
	}
	for a := range s.addresses.all() {
		if a.AssociationID != in.AssociationID {
			continue
		}
		if a.NATGatewayID != "" {
			return none, fail("OperationNotPermitted", "The address %s belongs to the NAT gateway %s.", a.PublicIP, a.NATGatewayID)
		}
		s.addresses.put(a.ID, a.free())
		return none, nil
	}
	return none, kindMapping.missing(in.AssociationID)
}

// publicDNS is the name of a public address.
func (s *state) publicDNS(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	b := a.As4()
	domain := s.region + ".compute.amazonaws.com"
	if s.region == "us-east-1" {
		domain = "compute-1.amazonaws.com"
	}
	return fmt.Sprintf("ec2-%d-%d-%d-%d.%s", b[0], b[1], b[2], b[3], domain)
}

// addressQuery asks for addresses by allocation, by address and by filter.
type addressQuery struct {
	ids     []string
	public  []netip.Addr
	filters []Filter
}

var addressListing = listing[Address]{
	action: "DescribeAddresses", maxPage: 1000, idsName: "allocationId",
	tags: func(a Address) map[string]string { return a.Tags },
	fields: map[string]func(*state, Address) []string{
		"allocation-id":        one(func(a Address) string { return a.ID }),
		"association-id":       one(func(a Address) string { return a.AssociationID }),
		"domain":               one(func(Address) string { return "vpc" }),
		"instance-id":          func(s *state, a Address) []string { return []string{s.instanceOf(a)} },
		"network-interface-id": one(func(a Address) string { return a.InterfaceID }),
		"private-ip-address":   one(func(a Address) string { return addrText(a.PrivateIP) }),
		"public-ip":            one(func(a Address) string { return addrText(a.PublicIP) }),
	},
}

// DescribeAddresses lists elastic addresses; the query's identifiers are those
// of allocations. The action has no pages.
func (c *Cloud) DescribeAddresses(q Query) ([]Address, error) {
	page, err := cloned(call(c, addressQuery{ids: q.IDs, filters: q.Filters}, describeAddresses))
	return page.Items, err
}

func describeAddresses(s *state, q addressQuery) (Page[Address], error) {
	if err := known(&s.addresses, kindAddress, q.ids); err != nil {
		return Page[Address]{}, err
	}
	wanted := map[netip.Addr]bool{}
	for _, a := range q.public {
		wanted[a] = true
	}
	for a := range s.addresses.all() {
		delete(wanted, a.PublicIP)
	}
	for _, a := range q.public {
		if wanted[a] {
			return Page[Address]{}, fail("InvalidAddress.NotFound", "Address '%s' not found.", a)
		}
	}
	for _, a := range q.public {
		wanted[a] = true
	}
	all := rows(&s.addresses, q.ids)
	return addressListing.apply(s, Query{Filters: q.filters}, func(yield func(uint64, Address) bool) {
		for at, a := range all {
			if (len(wanted) == 0 || wanted[a.PublicIP]) && !yield(at, a) {
				return
			}
		}
	})
}

func (s *state) instanceOf(a Address) string {
	if e, ok := s.enis.get(a.InterfaceID); ok && e.Attachment != nil {
		return e.Attachment.InstanceID
	}
	return ""
}

func parseAllocate(f form) AllocateAddressInput {
	f.in("Domain").choice("vpc")
	return AllocateAddressInput{Tags: f.tagsFor(kindAddress)[kindAddress]}
}

func parseRelease(f form) ReleaseAddressInput {
	return ReleaseAddressInput{AllocationID: f.in("AllocationId").text()}
}

func parseAssociateAddress(f form) AssociateAddressInput {
	return AssociateAddressInput{
		AllocationID: f.in("AllocationId").text(), InterfaceID: f.in("NetworkInterfaceId").text(), InstanceID: f.in("InstanceId").text(),
		PrivateIP: f.in("PrivateIpAddress").addr(), AllowReassociation: f.in("AllowReassociation").flag(),
	}
}

func parseDisassociateAddress(f form) DisassociateAddressInput {
	return DisassociateAddressInput{AssociationID: f.in("AssociationId").text()}
}

func parseAddresses(f form) addressQuery {
	return addressQuery{ids: f.in("AllocationId").texts(), public: f.in("PublicIp").addrs(), filters: f.filters()}
}

type xmlElastic struct {
	PublicIP      string      `xml:"publicIp"`
	ID            string      `xml:"allocationId"`
	AssociationID string      `xml:"associationId,omitempty"`
	Domain        string      `xml:"domain"`
	InstanceID    string      `xml:"instanceId,omitempty"`
	InterfaceID   string      `xml:"networkInterfaceId,omitempty"`
	Owner         string      `xml:"networkInterfaceOwnerId,omitempty"`
	PrivateIP     string      `xml:"privateIpAddress,omitempty"`
	Border        string      `xml:"networkBorderGroup"`
	Pool          string      `xml:"publicIpv4Pool"`
	Tags          set[xmlTag] `xml:"tagSet"`
}

func (s *state) showElastic(a Address) xmlElastic {
	out := xmlElastic{
		PublicIP: a.PublicIP.String(), ID: a.ID, AssociationID: a.AssociationID, Domain: "vpc", InstanceID: s.instanceOf(a),
		InterfaceID: a.InterfaceID, PrivateIP: addrText(a.PrivateIP), Border: s.region, Pool: "amazon", Tags: showTags(a.Tags),
	}
	if a.InterfaceID != "" {
		out.Owner = s.cfg.Account
	}
	return out
}

func renderAllocated(s *state, a Address) replier {
	return &struct {
		reply
		PublicIP string `xml:"publicIp"`
		ID       string `xml:"allocationId"`
		Domain   string `xml:"domain"`
		Border   string `xml:"networkBorderGroup"`
		Pool     string `xml:"publicIpv4Pool"`
	}{PublicIP: a.PublicIP.String(), ID: a.ID, Domain: "vpc", Border: s.region, Pool: "amazon"}
}

func renderMapped(_ *state, id string) replier {
	return &struct {
		doneReply
		ID string `xml:"associationId"`
	}{doneReply: doneReply{Return: true}, ID: id}
}

func renderElastics(s *state, page Page[Address]) replier {
	return &struct {
		reply
		Set set[xmlElastic] `xml:"addressesSet"`
	}{Set: setOf(page.Items, s.showElastic)}
}
