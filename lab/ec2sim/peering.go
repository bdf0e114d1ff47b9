package ec2sim

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// The status of a [VPCPeering]. Source: "VPC peering connection lifecycle",
// Amazon VPC Peering Guide. Others than the first two are the end of it.
const (
	PeeringPending  = "pending-acceptance"
	PeeringActive   = "active"
	PeeringFailed   = "failed"
	PeeringRejected = "rejected"
	PeeringExpired  = "expired"
	PeeringDeleted  = "deleted"
)

// VPCPeering joins two VPCs, of one region or two.
type VPCPeering struct {
	ID                  string
	Requester, Accepter PeeredVPC
	Status, Message     string
	CreatedAt, EndedAt  time.Time // EndedAt is zero until it is at an end
	Tags                map[string]string
}

// PeeredVPC is one side of a peering.
type PeeredVPC struct{ VPCID, Region string }

func (p VPCPeering) clone() VPCPeering { p.Tags = maps.Clone(p.Tags); return p }

func (p VPCPeering) has(vpcID string) bool {
	return p.Requester.VPCID == vpcID || p.Accepter.VPCID == vpcID
}

func (p VPCPeering) joins(a, b string) bool { return a != b && p.has(a) && p.has(b) }

// Times in the life of a peering. Source: "VPC peering connection lifecycle",
// Amazon VPC Peering Guide.
const (
	peeringPatience = 7 * 24 * time.Hour // until an unanswered request expires
	peeringGrave    = 2 * time.Hour      // for which an ended one stays visible
)

// withStatus makes a request expire in time.
func (s *state) withStatus(p VPCPeering) VPCPeering {
	if p.Status == PeeringPending && s.now.Sub(p.CreatedAt) >= peeringPatience {
		p.Status, p.Message, p.EndedAt = PeeringExpired, "Expired at "+stamp(p.CreatedAt.Add(peeringPatience)), p.CreatedAt.Add(peeringPatience)
	}
	return p
}

// peeringRows yields the peerings that can be seen: here, or with here unset in
// any region.
func (s *state) peeringRows(here bool) iter.Seq2[uint64, VPCPeering] {
	return func(yield func(uint64, VPCPeering) bool) {
		for _, r := range s.peerings.order {
			p := s.withStatus(r.val)
			foreign := p.Requester.Region != s.region && p.Accepter.Region != s.region
			if here && foreign || !p.EndedAt.IsZero() && s.now.Sub(p.EndedAt) >= peeringGrave {
				continue
			}
			if !yield(r.seq, p) {
				return
			}
		}
	}
}

// peeringsNow copies the peerings of all regions.
func (s *state) peeringsNow() []VPCPeering {
	var out []VPCPeering
	for _, p := range s.peeringRows(false) {
		out = append(out, p.clone())
	}
	return out
}

func (s *state) peeringsHere() []VPCPeering {
	var out []VPCPeering
	for _, p := range s.peeringRows(true) {
		out = append(out, p)
	}
	return out
}

// peered reports whether an active peering joins two VPCs of this region.
func (s *state) peered(a, b string) bool {
	return slices.ContainsFunc(s.peeringsHere(), func(p VPCPeering) bool {
		return p.Status == PeeringActive && p.joins(a, b) && p.Requester.Region == p.Accepter.Region
	})
}

func (s *state) findPeering(id string) (VPCPeering, error) {
	if id == "" {
		return VPCPeering{}, missing("vpcPeeringConnectionId")
	}
	if err := kindPeering.check(id); err != nil {
		return VPCPeering{}, err
	}
	for _, p := range s.peeringRows(true) {
		if p.ID == id {
			return p, nil
		}
	}
	return VPCPeering{}, kindPeering.missing(id)
}

// CreateVPCPeeringInput asks for a peering of a VPC of this region with another.
type CreateVPCPeeringInput struct {
	VPCID, PeerVPCID string
	PeerRegion       string // empty: this one
	Tags             map[string]string
}

// CreateVPCPeeringConnection asks for a peering. One between VPCs that overlap,
// or with a VPC that is not there, is made and has failed.
func (c *Cloud) CreateVPCPeeringConnection(in CreateVPCPeeringInput) (VPCPeering, error) {
	p, err := call(c, in, createPeering)
	return p.clone(), err
}

func createPeering(s *state, in CreateVPCPeeringInput) (VPCPeering, error) {
	v, err := s.findVPC(in.VPCID)
	if err != nil {
		return VPCPeering{}, err
	}
	if in.PeerVPCID == "" {
		return VPCPeering{}, missing("peerVpcId")
	}
	if err := kindVPC.check(in.PeerVPCID); err != nil {
		return VPCPeering{}, err
	}
	if in.PeerRegion == "" {
		in.PeerRegion = s.region
	}
	there := s.regions[in.PeerRegion]
	if there == nil {
		return VPCPeering{}, invalidValue("Invalid value '%s' for peerRegion.", in.PeerRegion)
	}
	if in.PeerVPCID == v.ID {
		return VPCPeering{}, invalidValue("Value (%s) for parameter peerVpcId is invalid. A VPC cannot be peered with itself.", v.ID)
	}
	if err := checkTags(in.Tags); err != nil {
		return VPCPeering{}, err
	}
	for _, p := range s.peeringRows(true) {
		if p.joins(v.ID, in.PeerVPCID) && (p.Status == PeeringActive || p.Status == PeeringPending) {
			return VPCPeering{}, fail("VpcPeeringConnectionAlreadyExists", "A VPC peering connection already exists between %s and %s: %s", v.ID, in.PeerVPCID, p.ID)
		}
	}
	p := VPCPeering{
		ID: s.newID(kindPeering.prefix), Requester: PeeredVPC{v.ID, s.region}, Accepter: PeeredVPC{in.PeerVPCID, in.PeerRegion},
		Status: PeeringPending, Message: "Pending Acceptance by " + s.cfg.Account, CreatedAt: s.now, Tags: maps.Clone(in.Tags),
	}
	peer, ok := there.vpcs.get(in.PeerVPCID)
	if !ok || overlap(v.CIDRs, peer.CIDRs) {
		p.Status, p.Message, p.EndedAt = PeeringFailed, "Failed due to incorrect VPC-ID, Account ID, or overlapping CIDR range", s.now
	}
	s.peerings.insert(s.nextRow(), p.ID, p)
	return p, nil
}

func overlap(a, b []netip.Prefix) bool {
	return slices.ContainsFunc(a, func(p netip.Prefix) bool { return slices.ContainsFunc(b, p.Overlaps) })
}

// VPCPeeringInput names a peering.
type VPCPeeringInput struct{ ID string }

// AcceptVPCPeeringConnection makes a peering that is asked for active. It is
// done in the accepter's region.
func (c *Cloud) AcceptVPCPeeringConnection(in VPCPeeringInput) (VPCPeering, error) {
	p, err := call(c, in, acceptPeering)
	return p.clone(), err
}

// RejectVPCPeeringConnection refuses a peering that is asked for, in the
// accepter's region.
func (c *Cloud) RejectVPCPeeringConnection(in VPCPeeringInput) error {
	_, err := call(c, in, rejectPeering)
	return err
}

// DeleteVPCPeeringConnection ends a peering from either side. Routes to it
// become black holes.
func (c *Cloud) DeleteVPCPeeringConnection(in VPCPeeringInput) error {
	_, err := call(c, in, deletePeering)
	return err
}

func acceptPeering(s *state, in VPCPeeringInput) (VPCPeering, error) {
	p, err := s.answerable(in.ID, PeeringActive)
	if err != nil {
		return p, err
	}
	here, _ := s.vpcs.get(p.Accepter.VPCID)
	there, _ := s.regions[p.Requester.Region].vpcs.get(p.Requester.VPCID)
	if p.Status, p.Message = PeeringActive, "Active"; overlap(here.CIDRs, there.CIDRs) {
		return p, fail("OverlappingCidr", "The CIDR blocks of %s and %s overlap.", here.ID, there.ID) // added since the request
	}
	s.peerings.put(p.ID, p)
	return p, s.checkUsage(here.ID)
}

func rejectPeering(s *state, in VPCPeeringInput) (struct{}, error) {
	p, err := s.answerable(in.ID, PeeringRejected)
	if err != nil {
		return struct{}{}, err
	}
	p.Status, p.Message, p.EndedAt = PeeringRejected, "Inactive", s.now
	s.peerings.put(p.ID, p)
	return struct{}{}, nil
}

// answerable gives a peering that this region can accept or reject.
func (s *state) answerable(id, answer string) (VPCPeering, error) {
	p, err := s.findPeering(id)
	switch {
	case err != nil:
		return p, err
	case p.Accepter.Region != s.region:
		return p, fail("OperationNotPermitted", "Incorrect region (%s) specified for this request. VPC peering connection %s must be answered in region %s", s.region, p.ID, p.Accepter.Region)
	case p.Status != PeeringPending && !(answer == PeeringActive && p.Status == PeeringActive):
		return p, fail("InvalidStateTransition", "Invalid state transition for %s, attempted to transition from %s to %s", p.ID, p.Status, answer)
	}
	return p, nil
}

func deletePeering(s *state, in VPCPeeringInput) (struct{}, error) {
	p, err := s.findPeering(in.ID)
	if err != nil {
		return struct{}{}, err
	}
	if p.Status != PeeringActive && p.Status != PeeringPending {
		return struct{}{}, fail("InvalidStateTransition", "Invalid state transition for %s, attempted to transition from %s to deleting", p.ID, p.Status)
	}
	p.Status, p.Message, p.EndedAt = PeeringDeleted, "Deleted by "+s.cfg.Account, s.now
	s.peerings.put(p.ID, p)
	return struct{}{}, nil
}

// sideField reads something of one side.
func sideField(side func(VPCPeering) PeeredVPC, field func(PeeredVPC) string) func(*state, VPCPeering) []string {
	return one(func(p VPCPeering) string { return field(side(p)) })
}

func requester(p VPCPeering) PeeredVPC { return p.Requester }

func accepter(p VPCPeering) PeeredVPC { return p.Accepter }

var peeringListing = listing[VPCPeering]{
	action: "DescribeVpcPeeringConnections", maxPage: 1000, idsName: "vpcPeeringConnectionId",
	tags: func(p VPCPeering) map[string]string { return p.Tags },
	fields: map[string]func(*state, VPCPeering) []string{
		"vpc-peering-connection-id":   one(func(p VPCPeering) string { return p.ID }),
		"status-code":                 one(func(p VPCPeering) string { return p.Status }),
		"requester-vpc-info.vpc-id":   sideField(requester, func(v PeeredVPC) string { return v.VPCID }),
		"accepter-vpc-info.vpc-id":    sideField(accepter, func(v PeeredVPC) string { return v.VPCID }),
		"requester-vpc-info.owner-id": ownerField[VPCPeering],
		"accepter-vpc-info.owner-id":  ownerField[VPCPeering],
	},
}

// DescribeVPCPeeringConnections lists the peerings of this region's VPCs. One
// that is at an end stays listed for two hours.
func (c *Cloud) DescribeVPCPeeringConnections(q Query) (Page[VPCPeering], error) {
	return cloned(call(c, q, describePeerings))
}

func describePeerings(s *state, q Query) (Page[VPCPeering], error) {
	for _, id := range q.IDs {
		if _, err := s.findPeering(id); err != nil {
			return Page[VPCPeering]{}, err
		}
	}
	return peeringListing.apply(s, q, func(yield func(uint64, VPCPeering) bool) {
		for at, p := range s.peeringRows(true) {
			if (len(q.IDs) == 0 || slices.Contains(q.IDs, p.ID)) && !yield(at, p) {
				return
			}
		}
	})
}

func parseCreatePeering(f form) CreateVPCPeeringInput {
	in := CreateVPCPeeringInput{
		VPCID: f.in("VpcId").text(), PeerVPCID: f.in("PeerVpcId").text(), PeerRegion: f.in("PeerRegion").text(),
		Tags: f.tagsFor(kindPeering)[kindPeering],
	}
	f.in("PeerOwnerId").text() // there is one account
	return in
}

func parsePeering(f form) VPCPeeringInput {
	return VPCPeeringInput{ID: f.in("VpcPeeringConnectionId").text()}
}

type xmlPeering struct {
	ID        string      `xml:"vpcPeeringConnectionId"`
	Requester xmlPeered   `xml:"requesterVpcInfo"`
	Accepter  xmlPeered   `xml:"accepterVpcInfo"`
	Code      string      `xml:"status>code"`
	Message   string      `xml:"status>message"`
	Expires   string      `xml:"expirationTime,omitempty"`
	Tags      set[xmlTag] `xml:"tagSet"`
}

type xmlPeered struct {
	OwnerID string        `xml:"ownerId"`
	VPCID   string        `xml:"vpcId"`
	Region  string        `xml:"region"`
	CIDR    string        `xml:"cidrBlock,omitempty"`
	CIDRs   *set[xmlCIDR] `xml:"cidrBlockSet"`
}

type xmlCIDR struct {
	CIDR string `xml:"cidrBlock"`
}

// showPeered shows the blocks of a side only to those who may know them: the
// accepter's after it has accepted.
func (s *state) showPeered(side PeeredVPC, blocks bool) xmlPeered {
	out := xmlPeered{OwnerID: s.cfg.Account, VPCID: side.VPCID, Region: side.Region}
	if v, ok := s.regions[side.Region].vpcs.get(side.VPCID); ok && blocks {
		out.CIDR = v.CIDRs[0].String()
		list := setOf(v.CIDRs, func(p netip.Prefix) xmlCIDR { return xmlCIDR{p.String()} })
		out.CIDRs = &list
	}
	return out
}

func (s *state) showPeering(p VPCPeering) xmlPeering {
	out := xmlPeering{
		ID: p.ID, Requester: s.showPeered(p.Requester, true), Accepter: s.showPeered(p.Accepter, p.Status == PeeringActive),
		Code: p.Status, Message: p.Message, Tags: showTags(p.Tags),
	}
	if p.Status == PeeringPending {
		out.Expires = stamp(p.CreatedAt.Add(peeringPatience))
	}
	return out
}

// renderCreatePeering shows the status as "initiating-request", as EC2 does in
// this reply only: a failure comes later.
func renderCreatePeering(s *state, p VPCPeering) replier {
	shown := s.showPeering(p)
	shown.Code, shown.Message = "initiating-request", "Initiating Request to "+s.cfg.Account
	return &struct {
		reply
		Peering xmlPeering `xml:"vpcPeeringConnection"`
	}{Peering: shown}
}

func renderPeering(s *state, p VPCPeering) replier {
	return &struct {
		reply
		Peering xmlPeering `xml:"vpcPeeringConnection"`
	}{Peering: s.showPeering(p)}
}

func renderPeerings(s *state, page Page[VPCPeering]) replier {
	return &struct {
		reply
		Set  set[xmlPeering] `xml:"vpcPeeringConnectionSet"`
		Next string          `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showPeering), Next: page.NextToken}
}
