package ec2sim

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// TransitGateway routes between the VPCs of one region that are attached to it.
// It is ready at once, and gone at once when it is deleted; so are its
// attachments and tables.
type TransitGateway struct {
	ID, Region, Description string
	ASN                     int
	AssociationTable        string // that new attachments are asked about; empty: none
	PropagationTable        string // that new attachments propagate to; empty: none
	CreatedAt               time.Time
	Tags                    map[string]string
}

// TransitAttachment joins a VPC to a transit gateway.
type TransitAttachment struct {
	ID, GatewayID, VPCID string
	Subnets              []string // one in each zone that is served
	Table                string   // the route table that is asked about what comes by it; empty: none
	CreatedAt            time.Time
	Tags                 map[string]string
}

// TransitRouteTable is a route table of a transit gateway.
type TransitRouteTable struct {
	ID, GatewayID string
	Routes        []TransitRoute // by destination; for readers with the propagated ones
	Propagations  []string       // attachments whose VPC's blocks are routes
	CreatedAt     time.Time
	Tags          map[string]string
}

// TransitRoute leads a destination to an attachment, or nowhere.
type TransitRoute struct {
	Dst        netip.Prefix // IPv4, masked
	Attachment string       // empty: a black hole by intent
	Propagated bool         // else static, which wins over a propagated one
	State      string       // filled in for readers
}

func (h TransitGateway) clone() TransitGateway { h.Tags = maps.Clone(h.Tags); return h }

func (a TransitAttachment) clone() TransitAttachment {
	a.Subnets, a.Tags = slices.Clone(a.Subnets), maps.Clone(a.Tags)
	return a
}

func (t TransitRouteTable) clone() TransitRouteTable {
	t.Routes, t.Propagations, t.Tags = slices.Clone(t.Routes), slices.Clone(t.Propagations), maps.Clone(t.Tags)
	return t
}

// CreateTransitGatewayInput describes a transit gateway to make.
type CreateTransitGatewayInput struct {
	Description string
	ASN         int            // 0: 64512
	Associate   Optional[bool] // new attachments with a default table; left out: true
	Propagate   Optional[bool] // new attachments to a default table; left out: true
	Tags        map[string]string
}

// CreateTransitGateway makes a transit gateway, and the default route table
// unless nothing is to use it.
func (c *Cloud) CreateTransitGateway(in CreateTransitGatewayInput) (TransitGateway, error) {
	h, err := call(c, in, createHub)
	return h.clone(), err
}

// defaultASN is the ASN of a transit gateway that asks for none. Source:
// TransitGatewayRequestOptions, Amazon EC2 API Reference, as are the ranges.
const defaultASN = 64512

func createHub(s *state, in CreateTransitGatewayInput) (TransitGateway, error) {
	asn := cmp.Or(in.ASN, defaultASN)
	if !(asn >= 64512 && asn <= 65534 || asn >= 4200000000 && asn <= 4294967294) {
		return TransitGateway{}, invalidValue("Amazon side ASN %d is invalid.", asn)
	}
	if err := cmp.Or(checkTags(in.Tags), checkDescription(in.Description)); err != nil {
		return TransitGateway{}, err
	}
	h := TransitGateway{ID: s.newID(kindHub.prefix), Region: s.region, Description: in.Description, ASN: asn, CreatedAt: s.now, Tags: maps.Clone(in.Tags)}
	associate, propagate := !in.Associate.Given || in.Associate.Value, !in.Propagate.Given || in.Propagate.Value
	if associate || propagate {
		t := s.newHubTable(h.ID, nil)
		if associate {
			h.AssociationTable = t.ID
		}
		if propagate {
			h.PropagationTable = t.ID
		}
	}
	s.hubs.insert(s.nextRow(), h.ID, h)
	return h, nil
}

func (s *state) newHubTable(hubID string, tags map[string]string) TransitRouteTable {
	t := TransitRouteTable{ID: s.newID(kindHubTable.prefix), GatewayID: hubID, CreatedAt: s.now, Tags: maps.Clone(tags)}
	s.hubTables.insert(s.nextRow(), t.ID, t)
	return t
}

func (s *state) findHub(id string) (TransitGateway, error) {
	if id == "" {
		return TransitGateway{}, missing("transitGatewayId")
	}
	return find(&s.hubs, kindHub, id)
}

// TransitGatewayInput names a transit gateway.
type TransitGatewayInput struct{ ID string }

// DeleteTransitGateway deletes a transit gateway without attachments, with its
// tables.
func (c *Cloud) DeleteTransitGateway(in TransitGatewayInput) error {
	_, err := call(c, in, deleteHub)
	return err
}

func deleteHub(s *state, in TransitGatewayInput) (TransitGateway, error) {
	h, err := s.findHub(in.ID)
	if err != nil {
		return h, err
	}
	for a := range s.spokes.all() {
		if a.GatewayID == h.ID {
			return h, fail("IncorrectState", "%s has non-deleted VPC Attachments: %s.", h.ID, a.ID)
		}
	}
	var tables []string
	for t := range s.hubTables.all() {
		if t.GatewayID == h.ID {
			tables = append(tables, t.ID)
		}
	}
	for _, id := range tables {
		s.hubTables.remove(id)
	}
	s.hubs.remove(h.ID)
	return h, nil
}

// attachmentOf gives the attachment of a VPC to a transit gateway.
func (s *state) attachmentOf(hubID, vpcID string) (TransitAttachment, bool) {
	for a := range s.spokes.all() {
		if a.GatewayID == hubID && a.VPCID == vpcID {
			return a, true
		}
	}
	return TransitAttachment{}, false
}

// CreateTransitAttachmentInput joins a VPC to a transit gateway.
type CreateTransitAttachmentInput struct {
	GatewayID, VPCID string
	Subnets          []string // one in each zone that is to be served
	Tags             map[string]string
}

// CreateTransitGatewayVPCAttachment attaches a VPC. It is associated with, and
// propagates to, the gateway's default tables.
func (c *Cloud) CreateTransitGatewayVPCAttachment(in CreateTransitAttachmentInput) (TransitAttachment, error) {
	a, err := call(c, in, createSpoke)
	return a.clone(), err
}

func createSpoke(s *state, in CreateTransitAttachmentInput) (TransitAttachment, error) {
	h, err := s.findHub(in.GatewayID)
	if err != nil {
		return TransitAttachment{}, err
	}
	v, err := s.findVPC(in.VPCID)
	if err != nil {
		return TransitAttachment{}, err
	}
	if len(in.Subnets) == 0 {
		return TransitAttachment{}, missing("subnetIds")
	}
	zones := map[string]bool{}
	for _, id := range in.Subnets {
		n, err := s.findSubnet(id)
		if err != nil {
			return TransitAttachment{}, err
		}
		if n.VPCID != v.ID {
			return TransitAttachment{}, fail("InvalidSubnetID.NotFound", "The subnet '%s' does not exist in VPC '%s'", id, v.ID)
		}
		if zones[n.Zone] {
			return TransitAttachment{}, fail("DuplicateSubnetsInSameZone", "Duplicate Subnets for same AZ")
		}
		zones[n.Zone] = true
	}
	if _, ok := s.attachmentOf(h.ID, v.ID); ok {
		return TransitAttachment{}, fail("DuplicateTransitGatewayAttachment", "%s has non-deleted Transit Gateway Attachments with same VPC ID.", h.ID)
	}
	if err := checkTags(in.Tags); err != nil {
		return TransitAttachment{}, err
	}
	a := TransitAttachment{
		ID: s.newID(kindSpoke.prefix), GatewayID: h.ID, VPCID: v.ID, Subnets: slices.Clone(in.Subnets),
		Table: h.AssociationTable, CreatedAt: s.now, Tags: maps.Clone(in.Tags),
	}
	s.spokes.insert(s.nextRow(), a.ID, a)
	if t, ok := s.hubTables.get(h.PropagationTable); ok {
		t.Propagations = append(slices.Clone(t.Propagations), a.ID)
		s.hubTables.put(t.ID, t)
	}
	return a, nil
}

func (s *state) findSpoke(id string) (TransitAttachment, error) {
	if id == "" {
		return TransitAttachment{}, missing("transitGatewayAttachmentId")
	}
	return find(&s.spokes, kindSpoke, id)
}

// TransitAttachmentInput names an attachment.
type TransitAttachmentInput struct{ ID string }

// DeleteTransitGatewayVPCAttachment ends an attachment. Static routes to it
// become black holes, and so do the VPC's routes to the gateway.
func (c *Cloud) DeleteTransitGatewayVPCAttachment(in TransitAttachmentInput) error {
	_, err := call(c, in, deleteSpoke)
	return err
}

func deleteSpoke(s *state, in TransitAttachmentInput) (TransitAttachment, error) {
	a, err := s.findSpoke(in.ID)
	if err != nil {
		return a, err
	}
	var changed []TransitRouteTable
	for t := range s.hubTables.all() {
		if slices.Contains(t.Propagations, a.ID) {
			t.Propagations = without(t.Propagations, a.ID)
			changed = append(changed, t)
		}
	}
	for _, t := range changed {
		s.hubTables.put(t.ID, t)
	}
	s.spokes.remove(a.ID)
	return a, nil
}

// CreateTransitTableInput describes a route table to make.
type CreateTransitTableInput struct {
	GatewayID string
	Tags      map[string]string
}

// CreateTransitGatewayRouteTable makes an empty route table.
func (c *Cloud) CreateTransitGatewayRouteTable(in CreateTransitTableInput) (TransitRouteTable, error) {
	t, err := call(c, in, createHubTable)
	return t.clone(), err
}

func createHubTable(s *state, in CreateTransitTableInput) (TransitRouteTable, error) {
	h, err := s.findHub(in.GatewayID)
	if err != nil {
		return TransitRouteTable{}, err
	}
	if err := checkTags(in.Tags); err != nil {
		return TransitRouteTable{}, err
	}
	return s.newHubTable(h.ID, in.Tags), nil
}

func (s *state) findHubTable(id string) (TransitRouteTable, error) {
	if id == "" {
		return TransitRouteTable{}, missing("transitGatewayRouteTableId")
	}
	if err := kindHubTable.check(id); err != nil {
		return TransitRouteTable{}, err
	}
	t, ok := s.hubTables.get(id)
	if !ok {
		return t, fail(kindHubTable.notFound, "Transit Gateway Route Table %s was deleted or does not exist.", id)
	}
	return t, nil
}

// TransitTableInput names a route table.
type TransitTableInput struct{ ID string }

// DeleteTransitGatewayRouteTable deletes a table that is no default one and that
// no attachment is associated with.
func (c *Cloud) DeleteTransitGatewayRouteTable(in TransitTableInput) error {
	_, err := call(c, in, deleteHubTable)
	return err
}

func deleteHubTable(s *state, in TransitTableInput) (TransitRouteTable, error) {
	t, err := s.findHubTable(in.ID)
	if err != nil {
		return t, err
	}
	if h, _ := s.hubs.get(t.GatewayID); h.AssociationTable == t.ID || h.PropagationTable == t.ID {
		return t, fail("IncorrectState", "Cannot delete Transit Gateway Route Table %s since it is a default table.", t.ID)
	}
	for a := range s.spokes.all() {
		if a.Table == t.ID {
			return t, fail("IncorrectState", "Cannot delete Transit Gateway Route Table %s since there are associated attachments: %s.", t.ID, a.ID)
		}
	}
	s.hubTables.remove(t.ID)
	return t, nil
}

// TransitTieInput names a route table and an attachment of one gateway.
type TransitTieInput struct{ TableID, AttachmentID string }

// tie finds both ends, which must be of one gateway.
func (s *state) tie(in TransitTieInput) (TransitRouteTable, TransitAttachment, error) {
	t, err := s.findHubTable(in.TableID)
	if err != nil {
		return t, TransitAttachment{}, err
	}
	a, err := s.findSpoke(in.AttachmentID)
	if err == nil && a.GatewayID != t.GatewayID {
		err = invalidValue("%s and %s belong to different transit gateways.", t.ID, a.ID)
	}
	return t, a, err
}

// AssociateTransitGatewayRouteTable makes a table the one that is asked about
// what comes by an attachment, which has none yet.
func (c *Cloud) AssociateTransitGatewayRouteTable(in TransitTieInput) error {
	_, err := call(c, in, associateHubTable)
	return err
}

// DisassociateTransitGatewayRouteTable ends that.
func (c *Cloud) DisassociateTransitGatewayRouteTable(in TransitTieInput) error {
	_, err := call(c, in, disassociateHubTable)
	return err
}

// EnableTransitGatewayRouteTablePropagation makes the blocks of an attachment's
// VPC routes of a table.
func (c *Cloud) EnableTransitGatewayRouteTablePropagation(in TransitTieInput) error {
	_, err := call(c, in, enablePropagation)
	return err
}

// DisableTransitGatewayRouteTablePropagation ends that.
func (c *Cloud) DisableTransitGatewayRouteTablePropagation(in TransitTieInput) error {
	_, err := call(c, in, disablePropagation)
	return err
}

func associateHubTable(s *state, in TransitTieInput) (TransitTieInput, error) {
	t, a, err := s.tie(in)
	if err != nil {
		return in, err
	}
	if a.Table != "" {
		return in, fail("Resource.AlreadyAssociated", "Transit Gateway Attachment %s is already associated to a route table.", a.ID)
	}
	a.Table = t.ID
	s.spokes.put(a.ID, a)
	return in, nil
}

func disassociateHubTable(s *state, in TransitTieInput) (TransitTieInput, error) {
	t, a, err := s.tie(in)
	if err != nil {
		return in, err
	}
	if a.Table != t.ID {
		return in, fail("InvalidAssociation.NotFound", "No association exists between %s and %s.", t.ID, a.ID)
	}
	a.Table = ""
	s.spokes.put(a.ID, a)
	return in, nil
}

func enablePropagation(s *state, in TransitTieInput) (TransitTieInput, error) {
	t, a, err := s.tie(in)
	if err != nil {
		return in, err
	}
	if slices.Contains(t.Propagations, a.ID) {
		return in, fail("TransitGatewayRouteTablePropagation.Duplicate", "Propagation for attachment %s already exists in Transit Gateway Route Table %s.", a.ID, t.ID)
	}
	t.Propagations = append(slices.Clone(t.Propagations), a.ID)
	s.hubTables.put(t.ID, t)
	return in, nil
}

func disablePropagation(s *state, in TransitTieInput) (TransitTieInput, error) {
	t, a, err := s.tie(in)
	if err != nil {
		return in, err
	}
	if !slices.Contains(t.Propagations, a.ID) {
		return in, fail("TransitGatewayRouteTablePropagation.NotFound", "No propagation for attachment %s exists in Transit Gateway Route Table %s.", a.ID, t.ID)
	}
	t.Propagations = without(t.Propagations, a.ID)
	s.hubTables.put(t.ID, t)
	return in, nil
}
