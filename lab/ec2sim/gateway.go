package ec2sim

import (
	"cmp"
	"maps"
	"net/netip"
	"time"
)

// InternetGateway joins a VPC to the internet. A VPC has at most one.
type InternetGateway struct {
	ID, VPCID string // VPCID is empty while it is detached
	Tags      map[string]string
}

func (g InternetGateway) clone() InternetGateway { g.Tags = maps.Clone(g.Tags); return g }

// CreateInternetGatewayInput describes an internet gateway to make.
type CreateInternetGatewayInput struct{ Tags map[string]string }

// CreateInternetGateway makes a gateway that is not attached.
func (c *Cloud) CreateInternetGateway(in CreateInternetGatewayInput) (InternetGateway, error) {
	g, err := call(c, in, createGateway)
	return g.clone(), err
}

func createGateway(s *state, in CreateInternetGatewayInput) (InternetGateway, error) {
	if err := checkTags(in.Tags); err != nil {
		return InternetGateway{}, err
	}
	g := InternetGateway{ID: s.newID(kindGateway.prefix), Tags: maps.Clone(in.Tags)}
	s.gateways.insert(s.nextRow(), g.ID, g)
	return g, nil
}

// InternetGatewayInput names a gateway and, but for deleting, a VPC.
type InternetGatewayInput struct{ ID, VPCID string }

// AttachInternetGateway attaches a gateway to a VPC that has none.
func (c *Cloud) AttachInternetGateway(in InternetGatewayInput) error {
	_, err := call(c, in, attachGateway)
	return err
}

// DetachInternetGateway detaches a gateway from a VPC in which no public address
// is in use.
func (c *Cloud) DetachInternetGateway(in InternetGatewayInput) error {
	_, err := call(c, in, detachGateway)
	return err
}

// DeleteInternetGateway deletes a gateway that is not attached. Routes to it
// become black holes.
func (c *Cloud) DeleteInternetGateway(in InternetGatewayInput) error {
	_, err := call(c, in, deleteGateway)
	return err
}

func (s *state) findGateway(id string) (InternetGateway, error) {
	if id == "" {
		return InternetGateway{}, missing("internetGatewayId")
	}
	return find(&s.gateways, kindGateway, id)
}

// gatewayOf gives the gateway that is attached to a VPC.
func (s *state) gatewayOf(vpcID string) (InternetGateway, bool) {
	for g := range s.gateways.all() {
		if g.VPCID == vpcID {
			return g, true
		}
	}
	return InternetGateway{}, false
}

func attachGateway(s *state, in InternetGatewayInput) (struct{}, error) {
	var none struct{}
	g, err := s.findGateway(in.ID)
	if err != nil {
		return none, err
	}
	v, err := s.findVPC(in.VPCID)
	if err != nil {
		return none, err
	}
	if g.VPCID != "" {
		return none, fail("Resource.AlreadyAssociated", "resource %s is already attached to network %s", g.ID, g.VPCID)
	}
	if _, ok := s.gatewayOf(v.ID); ok {
		return none, invalidValue("Network %s already has an internet gateway attached", v.ID)
	}
	g.VPCID = v.ID
	s.gateways.put(g.ID, g)
	return none, nil
}

func detachGateway(s *state, in InternetGatewayInput) (struct{}, error) {
	var none struct{}
	g, err := s.findGateway(in.ID)
	if err != nil {
		return none, err
	}
	v, err := s.findVPC(in.VPCID)
	if err != nil {
		return none, err
	}
	if g.VPCID != v.ID {
		return none, fail("Gateway.NotAttached", "resource %s is not attached to network %s", g.ID, v.ID)
	}
	if s.hasPublic(v.ID) {
		return none, fail("DependencyViolation",
			"Network %s has some mapped public address(es). Please unmap those public address(es) before detaching the gateway.", v.ID)
	}
	g.VPCID = ""
	s.gateways.put(g.ID, g)
	return none, nil
}

func deleteGateway(s *state, in InternetGatewayInput) (struct{}, error) {
	g, err := s.findGateway(in.ID)
	if err != nil {
		return struct{}{}, err
	}
	if g.VPCID != "" {
		return struct{}{}, dependency("internetGateway", g.ID)
	}
	s.gateways.remove(g.ID)
	return struct{}{}, nil
}

// The states of a [NATGateway]. Source: NatGateway, Amazon EC2 API Reference.
const (
	NATAvailable = "available"
	NATFailed    = "failed"
	NATDeleted   = "deleted"
)

// NATGateway translates the sources of what is routed to it. A public one needs
// an elastic address and an internet gateway; without the latter it is made, but
// fails. It shows no network interface of its own here.
type NATGateway struct {
	ID, VPCID, SubnetID string
	State               string
	FailureCode         string
	FailureMessage      string
	PrivateIP           netip.Addr // of the subnet; zero once it has failed or is deleted
	AllocationID        string     // of its elastic address; empty for a private one
	CreatedAt           time.Time
	DeletedAt           time.Time // zero while it is there
	Tags                map[string]string
}

func (g NATGateway) clone() NATGateway { g.Tags = maps.Clone(g.Tags); return g }

// CreateNATGatewayInput describes a NAT gateway to make.
type CreateNATGatewayInput struct {
	SubnetID     string
	AllocationID string     // of an elastic address that nothing uses
	Private      bool       // translates to its private address only
	PrivateIP    netip.Addr // zero: the lowest free one
	Tags         map[string]string
	ClientToken  string
}

// CreateNATGateway makes a NAT gateway. It is ready at once.
func (c *Cloud) CreateNATGateway(in CreateNATGatewayInput) (NATGateway, error) {
	g, err := call(c, in, createNAT)
	return g.clone(), err
}

func createNAT(s *state, in CreateNATGatewayInput) (NATGateway, error) {
	return once(s, "CreateNatGateway", in.ClientToken, in, makeNAT)
}

func makeNAT(s *state, in CreateNATGatewayInput) (NATGateway, error) {
	n, err := s.findSubnet(in.SubnetID)
	if err != nil {
		return NATGateway{}, err
	}
	if err := checkTags(in.Tags); err != nil {
		return NATGateway{}, err
	}
	if in.Private && in.AllocationID != "" {
		return NATGateway{}, invalidCombination("An elastic IP address cannot be used with a private NAT gateway.")
	}
	g := NATGateway{
		ID: s.newID(kindNAT.prefix), VPCID: n.VPCID, SubnetID: n.ID, State: NATAvailable, AllocationID: in.AllocationID,
		CreatedAt: s.now, Tags: maps.Clone(in.Tags),
	}
	var a Address
	if !in.Private {
		if in.AllocationID == "" {
			return g, missing("allocationId")
		}
		if a, err = find(&s.addresses, kindAddress, in.AllocationID); err != nil {
			return g, err
		}
		if a.AssociationID != "" {
			return g, fail("Resource.AlreadyAssociated", "Elastic IP address [%s] is already associated", a.ID)
		}
		if _, ok := s.gatewayOf(n.VPCID); !ok {
			g.State, g.AllocationID = NATFailed, ""
			g.FailureCode, g.FailureMessage = "Gateway.NotAttached", "Network "+n.VPCID+" has no Internet gateway attached"
			s.nats.insert(s.nextRow(), g.ID, g)
			return g, nil
		}
	}
	p := s.pools[n.ID]
	if g.PrivateIP = in.PrivateIP; g.PrivateIP.IsValid() {
		err = p.claim(g.PrivateIP)
	} else {
		g.PrivateIP, err = p.takeLowest()
	}
	if err != nil {
		return g, err
	}
	s.nats.insert(s.nextRow(), g.ID, g)
	if !in.Private {
		a.AssociationID, a.NATGatewayID, a.PrivateIP = s.newID(kindMapping.prefix), g.ID, g.PrivateIP
		s.addresses.put(a.ID, a)
	}
	return g, nil
}

// findNAT gives a gateway that was not forgotten. Its identifier has codes that
// differ from action to action; these are DescribeNatGateways' own.
func (s *state) findNAT(id string) (NATGateway, error) {
	if id == "" {
		return NATGateway{}, missing("natGatewayId")
	}
	if err := kindNAT.check(id); err != nil {
		return NATGateway{}, err
	}
	g, ok := s.nats.get(id)
	if !ok || s.natForgotten(g) {
		return NATGateway{}, fail(kindNAT.notFound, "The Nat Gateway %s was not found", id)
	}
	return g, nil
}

// natForgotten reports whether a deleted gateway is no longer shown: after about
// an hour. Source: "NAT gateways", Amazon VPC User Guide.
func (s *state) natForgotten(g NATGateway) bool {
	return !g.DeletedAt.IsZero() && s.now.Sub(g.DeletedAt) >= graveTime
}

// DeleteNATGatewayInput names a NAT gateway to delete.
type DeleteNATGatewayInput struct{ ID string }

// DeleteNATGateway deletes a gateway; its elastic address is free again, and
// routes to it become black holes.
func (c *Cloud) DeleteNATGateway(in DeleteNATGatewayInput) error {
	_, err := call(c, in, deleteNAT)
	return err
}

func deleteNAT(s *state, in DeleteNATGatewayInput) (string, error) {
	g, err := s.findNAT(in.ID)
	if err != nil || g.State == NATDeleted {
		return g.ID, err
	}
	if g.AllocationID != "" {
		a, _ := s.addresses.get(g.AllocationID)
		a.AssociationID, a.NATGatewayID, a.PrivateIP = "", "", netip.Addr{}
		s.addresses.put(a.ID, a)
	}
	if g.PrivateIP.IsValid() {
		s.pools[g.SubnetID].release(g.PrivateIP, 1)
	}
	g.State, g.DeletedAt, g.PrivateIP = NATDeleted, s.now, netip.Addr{}
	s.nats.put(g.ID, g)
	var gone []string
	for old := range s.nats.all() {
		if s.natForgotten(old) {
			gone = append(gone, old.ID)
		}
	}
	for _, id := range gone {
		s.nats.remove(id)
	}
	return g.ID, nil
}

// connectivity is what DescribeNatGateways calls a gateway with or without a
// public address.
func (g NATGateway) connectivity() string {
	if g.AllocationID == "" && g.FailureCode == "" {
		return "private"
	}
	return "public"
}

// natAddress is how a gateway shows its addresses.
type xmlNATAddress struct {
	AllocationID string `xml:"allocationId,omitempty"`
	PublicIP     string `xml:"publicIp,omitempty"`
	PrivateIP    string `xml:"privateIp,omitempty"`
	Primary      bool   `xml:"isPrimary"`
	Status       string `xml:"status"`
}

type xmlNAT struct {
	ID             string             `xml:"natGatewayId"`
	VPCID          string             `xml:"vpcId"`
	SubnetID       string             `xml:"subnetId"`
	State          string             `xml:"state"`
	FailureCode    string             `xml:"failureCode,omitempty"`
	FailureMessage string             `xml:"failureMessage,omitempty"`
	CreatedAt      string             `xml:"createTime"`
	DeletedAt      string             `xml:"deleteTime,omitempty"`
	Addresses      set[xmlNATAddress] `xml:"natGatewayAddressSet"`
	Connectivity   string             `xml:"connectivityType"`
	Tags           set[xmlTag]        `xml:"tagSet"`
}

func (s *state) showNAT(g NATGateway) xmlNAT {
	out := xmlNAT{
		ID: g.ID, VPCID: g.VPCID, SubnetID: g.SubnetID, State: g.State, FailureCode: g.FailureCode, FailureMessage: g.FailureMessage,
		CreatedAt: stamp(g.CreatedAt), Connectivity: g.connectivity(), Tags: showTags(g.Tags),
	}
	if !g.DeletedAt.IsZero() {
		out.DeletedAt = stamp(g.DeletedAt)
	}
	if g.PrivateIP.IsValid() {
		a, _ := s.addresses.get(g.AllocationID)
		out.Addresses.Items = []xmlNATAddress{{g.AllocationID, addrText(a.PublicIP), g.PrivateIP.String(), true, "succeeded"}}
	}
	return out
}

// renderCreateNAT shows the state as "pending", as EC2 does in this reply.
func renderCreateNAT(s *state, g NATGateway) replier {
	shown := s.showNAT(g)
	shown.State, shown.FailureCode, shown.FailureMessage = "pending", "", ""
	return &struct {
		reply
		NAT xmlNAT `xml:"natGateway"`
	}{NAT: shown}
}

func renderDeleteNAT(_ *state, id string) replier {
	return &struct {
		reply
		ID string `xml:"natGatewayId"`
	}{ID: id}
}

func renderNATs(s *state, page Page[NATGateway]) replier {
	return &struct {
		reply
		Set  set[xmlNAT] `xml:"natGatewaySet"`
		Next string      `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showNAT), Next: page.NextToken}
}

var natListing = listing[NATGateway]{
	action: "DescribeNatGateways", maxPage: 1000, idsName: "natGatewayId",
	tags: func(g NATGateway) map[string]string { return g.Tags },
	fields: map[string]func(*state, NATGateway) []string{
		"nat-gateway-id": one(func(g NATGateway) string { return g.ID }),
		"vpc-id":         one(func(g NATGateway) string { return g.VPCID }),
		"subnet-id":      one(func(g NATGateway) string { return g.SubnetID }),
		"state":          one(func(g NATGateway) string { return g.State }),
	},
}

// DescribeNATGateways lists NAT gateways. A deleted one stays listed for an hour.
func (c *Cloud) DescribeNATGateways(q Query) (Page[NATGateway], error) {
	return cloned(call(c, q, describeNATs))
}

func describeNATs(s *state, q Query) (Page[NATGateway], error) {
	for _, id := range q.IDs {
		if _, err := s.findNAT(id); err != nil {
			return Page[NATGateway]{}, err
		}
	}
	all := rows(&s.nats, q.IDs)
	return natListing.apply(s, q, func(yield func(uint64, NATGateway) bool) {
		for at, g := range all {
			if !s.natForgotten(g) && !yield(at, g) {
				return
			}
		}
	})
}

var gatewayListing = listing[InternetGateway]{
	action: "DescribeInternetGateways", maxPage: 1000, idsName: "internetGatewayId",
	tags: func(g InternetGateway) map[string]string { return g.Tags },
	fields: map[string]func(*state, InternetGateway) []string{
		"internet-gateway-id": one(func(g InternetGateway) string { return g.ID }),
		"attachment.vpc-id":   one(func(g InternetGateway) string { return g.VPCID }),
		"attachment.state":    one(func(g InternetGateway) string { return map[bool]string{true: "available"}[g.VPCID != ""] }),
		"owner-id":            ownerField[InternetGateway],
	},
}

// DescribeInternetGateways lists internet gateways.
func (c *Cloud) DescribeInternetGateways(q Query) (Page[InternetGateway], error) {
	return cloned(call(c, q, describeGateways))
}

func describeGateways(s *state, q Query) (Page[InternetGateway], error) {
	if err := known(&s.gateways, kindGateway, q.IDs); err != nil {
		return Page[InternetGateway]{}, err
	}
	return gatewayListing.apply(s, q, rows(&s.gateways, q.IDs))
}

func parseCreateGateway(f form) CreateInternetGatewayInput {
	return CreateInternetGatewayInput{Tags: f.tagsFor(kindGateway)[kindGateway]}
}

func parseGateway(f form) InternetGatewayInput {
	return InternetGatewayInput{ID: f.in("InternetGatewayId").text(), VPCID: f.in("VpcId").text()}
}

func parseDeleteGateway(f form) InternetGatewayInput {
	return InternetGatewayInput{ID: f.in("InternetGatewayId").text()}
}

func parseCreateNAT(f form) CreateNATGatewayInput {
	return CreateNATGatewayInput{
		SubnetID: f.in("SubnetId").text(), AllocationID: f.in("AllocationId").text(),
		Private:   cmp.Or(f.in("ConnectivityType").choice("public", "private"), "public") == "private",
		PrivateIP: f.in("PrivateIpAddress").addr(), Tags: f.tagsFor(kindNAT)[kindNAT], ClientToken: f.in("ClientToken").text(),
	}
}

func parseDeleteNAT(f form) DeleteNATGatewayInput {
	return DeleteNATGatewayInput{ID: f.in("NatGatewayId").text()}
}

type xmlGateway struct {
	ID          string                    `xml:"internetGatewayId"`
	OwnerID     string                    `xml:"ownerId"`
	Attachments set[xmlGatewayAttachment] `xml:"attachmentSet"`
	Tags        set[xmlTag]               `xml:"tagSet"`
}

type xmlGatewayAttachment struct {
	VPCID string `xml:"vpcId"`
	State string `xml:"state"`
}

func (s *state) showGateway(g InternetGateway) xmlGateway {
	out := xmlGateway{ID: g.ID, OwnerID: s.cfg.Account, Tags: showTags(g.Tags)}
	if g.VPCID != "" {
		out.Attachments.Items = []xmlGatewayAttachment{{g.VPCID, "available"}}
	}
	return out
}

func renderCreateGateway(s *state, g InternetGateway) replier {
	return &struct {
		reply
		Gateway xmlGateway `xml:"internetGateway"`
	}{Gateway: s.showGateway(g)}
}

func renderGateways(s *state, page Page[InternetGateway]) replier {
	return &struct {
		reply
		Set  set[xmlGateway] `xml:"internetGatewaySet"`
		Next string          `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showGateway), Next: page.NextToken}
}
