package ec2sim

import (
	"maps"
	"net/netip"
	"slices"
)

// The types of a [CIDRReservation].
const (
	ReservePrefixes = "prefix"   // for /28 prefixes that EC2 chooses
	ReserveExplicit = "explicit" // for what is asked for by name
)

// CIDRReservation keeps a part of a subnet from being chosen by EC2:
//
//	10.0.1.0/24   |....|=prefix=|....|#explicit#|....|
//	an address     ^                                    never from either
//	a prefix             ^first here, then elsewhere    never from the explicit
//
// By name everything can be had. What is in use already stays so. Source: "Subnet
// CIDR reservations", Amazon VPC User Guide.
type CIDRReservation struct {
	ID, SubnetID string
	CIDR         netip.Prefix // IPv4, masked
	Type         string
	Description  string
	Tags         map[string]string
}

func (r CIDRReservation) clone() CIDRReservation { r.Tags = maps.Clone(r.Tags); return r }

var kindReservation = kind{"scr-", "subnet CIDR reservation ID", "subnet-cidr-reservation", "InvalidSubnetCidrReservationID.NotFound", "InvalidSubnetCidrReservationID.Malformed"}

// CreateReservationInput describes a reservation to make.
type CreateReservationInput struct {
	SubnetID    string
	CIDR        netip.Prefix // inside the subnet; for prefixes /28 or larger
	Type        string
	Description string
	Tags        map[string]string
}

// CreateSubnetCIDRReservation keeps a part of a subnet.
func (c *Cloud) CreateSubnetCIDRReservation(in CreateReservationInput) (CIDRReservation, error) {
	r, err := call(c, in, createReservation)
	return r.clone(), err
}

func createReservation(s *state, in CreateReservationInput) (CIDRReservation, error) {
	var none CIDRReservation
	n, err := s.findSubnet(in.SubnetID)
	if err != nil {
		return none, err
	}
	cidr := in.CIDR.Masked()
	switch {
	case !in.CIDR.IsValid():
		return none, missing("cidr")
	case in.Type == "":
		return none, missing("reservationType")
	case cidr.Bits() < n.CIDR.Bits() || !n.CIDR.Contains(cidr.Addr()):
		return none, invalidValue("The CIDR '%s' is not within the subnet's CIDR '%s'.", in.CIDR, n.CIDR)
	case in.Type == ReservePrefixes && cidr.Bits() > prefixBits:
		return none, invalidValue("The CIDR '%s' is too small for a reservation of type prefix: at least a /%d is needed.", in.CIDR, prefixBits)
	}
	for _, r := range s.reservationsOf(n.ID) {
		if r.CIDR.Overlaps(cidr) {
			return none, fail("InvalidCidr.Conflict", "The CIDR '%s' conflicts with the reservation '%s'.", in.CIDR, r.ID)
		}
	}
	if err := checkDescription(in.Description); err != nil {
		return none, err
	}
	if err := checkTags(in.Tags); err != nil {
		return none, err
	}
	r := CIDRReservation{
		ID: s.newID(kindReservation.prefix), SubnetID: n.ID, CIDR: cidr, Type: in.Type,
		Description: in.Description, Tags: maps.Clone(in.Tags),
	}
	s.reservations.insert(s.nextRow(), r.ID, r)
	s.reserve(n.ID)
	return r, nil
}

// DeleteReservationInput names a reservation to end.
type DeleteReservationInput struct{ ID string }

// DeleteSubnetCIDRReservation lets a part of a subnet be chosen again.
func (c *Cloud) DeleteSubnetCIDRReservation(in DeleteReservationInput) (CIDRReservation, error) {
	r, err := call(c, in, deleteReservation)
	return r.clone(), err
}

func deleteReservation(s *state, in DeleteReservationInput) (CIDRReservation, error) {
	if in.ID == "" {
		return CIDRReservation{}, missing("subnetCidrReservationId")
	}
	r, err := find(&s.reservations, kindReservation, in.ID)
	if err != nil {
		return r, err
	}
	s.reservations.remove(r.ID)
	s.reserve(r.SubnetID)
	return r, nil
}

func (s *state) reservationsOf(subnetID string) []CIDRReservation {
	var out []CIDRReservation
	for r := range s.reservations.all() {
		if r.SubnetID == subnetID {
			out = append(out, r)
		}
	}
	return out
}

// reserve tells a subnet's pool what is reserved in it now.
func (s *state) reserve(subnetID string) {
	p, list := s.pools[subnetID], s.reservationsOf(subnetID)
	old, now := p.reserved, slices.Clip(list)
	p.reserved = now
	s.journal.add(func() { p.reserved = old }, func() { p.reserved = now })
}

// reservedBits gives the addresses of the pool's word w that a reservation has,
// and those of them that are for prefixes.
func (p *pool) reservedBits(w int) (all, prefixes uint64) {
	for _, r := range p.reserved {
		first := int(number(r.CIDR.Addr())-p.base) - 64*w
		last := first + 1<<(32-r.CIDR.Bits()) // exclusive
		if last <= 0 || first >= 64 {
			continue
		}
		bits := ^uint64(0) << max(first, 0)
		if last < 64 {
			bits &= 1<<last - 1
		}
		all |= bits
		if r.Type == ReservePrefixes {
			prefixes |= bits
		}
	}
	return all, prefixes
}

var reservationListing = listing[CIDRReservation]{
	action: "GetSubnetCidrReservations", maxPage: 1000,
	tags: func(r CIDRReservation) map[string]string { return r.Tags },
	fields: map[string]func(*state, CIDRReservation) []string{
		"reservationType": one(func(r CIDRReservation) string { return r.Type }),
		"subnet-id":       one(func(r CIDRReservation) string { return r.SubnetID }),
	},
}

// reservationQuery asks for the reservations of a subnet.
type reservationQuery struct {
	subnet string
	query  Query
}

func getReservations(s *state, in reservationQuery) (Page[CIDRReservation], error) {
	n, err := s.findSubnet(in.subnet)
	if err != nil {
		return Page[CIDRReservation]{}, err
	}
	return reservationListing.apply(s, in.query, func(yield func(uint64, CIDRReservation) bool) {
		for at, r := range rows(&s.reservations, nil) {
			if r.SubnetID == n.ID && !yield(at, r) {
				return
			}
		}
	})
}

func parseCreateReservation(f form) CreateReservationInput {
	return CreateReservationInput{
		SubnetID: f.in("SubnetId").text(), CIDR: f.in("Cidr").cidr(),
		Type:        f.in("ReservationType").choice(ReservePrefixes, ReserveExplicit),
		Description: f.in("Description").text(), Tags: f.tagsFor(kindReservation)[kindReservation],
	}
}

func parseDeleteReservation(f form) DeleteReservationInput {
	return DeleteReservationInput{ID: f.in("SubnetCidrReservationId").text()}
}

func parseReservations(f form) reservationQuery {
	return reservationQuery{f.in("SubnetId").text(), f.query("")}
}

type xmlReserved struct {
	ID          string      `xml:"subnetCidrReservationId"`
	SubnetID    string      `xml:"subnetId"`
	CIDR        string      `xml:"cidr"`
	Type        string      `xml:"reservationType"`
	OwnerID     string      `xml:"ownerId"`
	Description string      `xml:"description,omitempty"`
	Tags        set[xmlTag] `xml:"tagSet"`
}

func (s *state) showReservation(r CIDRReservation) xmlReserved {
	return xmlReserved{r.ID, r.SubnetID, r.CIDR.String(), r.Type, s.cfg.Account, r.Description, showTags(r.Tags)}
}

func renderReservation(s *state, r CIDRReservation) replier {
	return &struct {
		reply
		Reservation xmlReserved `xml:"subnetCidrReservation"`
	}{Reservation: s.showReservation(r)}
}

func renderDeletedReservation(s *state, r CIDRReservation) replier {
	return &struct {
		reply
		Reservation xmlReserved `xml:"deletedSubnetCidrReservation"`
	}{Reservation: s.showReservation(r)}
}

func renderReservations(s *state, page Page[CIDRReservation]) replier {
	return &struct {
		reply
		Set  set[xmlReserved] `xml:"subnetIpv4CidrReservationSet"`
		Next string           `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showReservation), Next: page.NextToken}
}
