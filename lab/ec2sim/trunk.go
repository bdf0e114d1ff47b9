package ec2sim

import (
	"cmp"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// The types of a [NetworkInterface]. A trunk carries branches, each in a VLAN:
//
//	instance -- trunk ENI --+-- VLAN 1 -- branch ENI: its own addresses and groups
//	                        +-- VLAN 2 -- branch ENI
//
// Here this is so by the API alone: no frame of a branch is carried.
const (
	TypeInterface = "interface"
	TypeTrunk     = "trunk"
	TypeBranch    = "branch"
)

func (e NetworkInterface) typeName() string { return cmp.Or(e.Type, TypeInterface) }

// TrunkAssociation ties a branch ENI to a trunk ENI.
type TrunkAssociation struct {
	ID                string
	TrunkID, BranchID string
	VLAN              int // 1 to 4094
	ClientToken       string
}

func (a TrunkAssociation) clone() TrunkAssociation { return a }

var kindTrunkAssociation = kind{"trunk-assoc-", "trunk interface association ID", "", "InvalidAssociationID.NotFound", "InvalidAssociationID.Malformed"}

// maxVLAN is the last one that a frame can name. Source: IEEE 802.1Q.
const maxVLAN = 4094

// branchLimit is how many branch ENIs the trunk of an instance carries; 0: the
// type has no trunks. EC2's API does not tell. The rule fits what the VPC
// resource controller for Kubernetes lists for its types: it goes by the size,
// and burstable and Xen types have none.
func branchLimit(instanceType string, l vpc.Limits) int {
	family, size, _ := strings.Cut(instanceType, ".")
	burstable := len(family) > 1 && family[0] == 't' && family[1] >= '1' && family[1] <= '9'
	switch {
	case !l.PrefixCapable() || burstable:
		return 0
	case l.IPv4PerENI >= 50:
		return 107
	case l.IPv4PerENI >= 30:
		return 54
	case l.IPv4PerENI >= 15 && size == "xlarge":
		return 18
	case l.IPv4PerENI >= 15:
		return 38
	case l.IPv4PerENI >= 10:
		return 9
	}
	return 10
}

// checkTrunk refuses a trunk on an instance that can have none, or has one, or
// cannot carry the branches that it has.
func (s *state) checkTrunk(e NetworkInterface, i Instance) error {
	switch e.Type {
	case TypeBranch:
		return invalidValue("Network interface '%s' is a branch network interface and cannot be attached to an instance.", e.ID)
	case TypeTrunk:
	default:
		return nil
	}
	most := branchLimit(i.Type, s.limitsOf(i.ID))
	if most == 0 {
		return fail("UnsupportedOperation", "The instance type %s does not support trunk network interfaces.", i.Type)
	}
	for _, id := range i.Interfaces {
		if other, _ := s.enis.get(id); other.Type == TypeTrunk {
			return fail("AttachmentLimitExceeded", "Instance '%s' already has the trunk network interface '%s'.", i.ID, id)
		}
	}
	if n := len(s.branchesOf(e.ID)); n > most {
		return branchesExceeded(n, i.Type)
	}
	return nil
}

func branchesExceeded(n int, instanceType string) error {
	return fail("AttachmentLimitExceeded", "Branch interface count %d exceeds the limit for %s", n, instanceType)
}

// branchesOf gives the associations of a trunk.
func (s *state) branchesOf(trunkID string) []TrunkAssociation {
	var out []TrunkAssociation
	for a := range s.trunks.all() {
		if a.TrunkID == trunkID {
			out = append(out, a)
		}
	}
	return out
}

func (s *state) trunkOf(branchID string) (TrunkAssociation, bool) {
	for a := range s.trunks.all() {
		if a.BranchID == branchID {
			return a, true
		}
	}
	return TrunkAssociation{}, false
}

// AssociateTrunkInput ties a branch ENI to a trunk ENI.
type AssociateTrunkInput struct {
	TrunkID, BranchID string
	VLAN              int
	ClientToken       string
}

// AssociateTrunkInterface ties a branch ENI to a trunk ENI of its zone.
func (c *Cloud) AssociateTrunkInterface(in AssociateTrunkInput) (TrunkAssociation, error) {
	a, err := call(c, in, associateTrunk)
	return a.clone(), err
}

func associateTrunk(s *state, in AssociateTrunkInput) (TrunkAssociation, error) {
	return once(s, "AssociateTrunkInterface", in.ClientToken, in, makeTrunkAssociation)
}

func makeTrunkAssociation(s *state, in AssociateTrunkInput) (TrunkAssociation, error) {
	var none TrunkAssociation
	if in.TrunkID == "" {
		return none, missing("trunkInterfaceId")
	}
	if in.BranchID == "" {
		return none, missing("branchInterfaceId")
	}
	trunk, err := find(&s.enis, kindENI, in.TrunkID)
	if err != nil {
		return none, err
	}
	branch, err := find(&s.enis, kindENI, in.BranchID)
	if err != nil {
		return none, err
	}
	switch {
	case trunk.Type != TypeTrunk:
		return none, invalidValue("Network interface '%s' is not a trunk network interface.", trunk.ID)
	case branch.Type != TypeBranch:
		return none, invalidValue("Network interface '%s' is not a branch network interface.", branch.ID)
	case in.VLAN == 0:
		return none, missing("vlanId")
	case in.VLAN < 1 || in.VLAN > maxVLAN:
		return none, invalidValue("Value (%d) for parameter vlanId is invalid. It must be from 1 to %d.", in.VLAN, maxVLAN)
	case trunk.Zone != branch.Zone:
		return none, invalidCombination("The trunk and the branch network interface must be in the same availability zone.")
	case branch.Status != StatusAvailable:
		return none, fail("InvalidNetworkInterface.InUse", "Interface: [%s] in use", branch.ID)
	}
	branches := s.branchesOf(trunk.ID)
	if slices.ContainsFunc(branches, func(a TrunkAssociation) bool { return a.VLAN == in.VLAN }) {
		return none, invalidValue("The VLAN ID %d is in use on trunk network interface '%s'.", in.VLAN, trunk.ID)
	}
	if a := trunk.Attachment; a != nil {
		if n := len(branches) + 1; n > branchLimit(s.typeOf(a.InstanceID), s.limitsOf(a.InstanceID)) {
			return none, branchesExceeded(n, s.typeOf(a.InstanceID))
		}
	}
	out := TrunkAssociation{ID: s.newID(kindTrunkAssociation.prefix), TrunkID: trunk.ID, BranchID: branch.ID, VLAN: in.VLAN, ClientToken: in.ClientToken}
	s.trunks.insert(s.nextRow(), out.ID, out)
	branch.Status = StatusInUse
	s.enis.put(branch.ID, branch)
	return out, nil
}

// DisassociateTrunkInput names an association to end.
type DisassociateTrunkInput struct{ AssociationID, ClientToken string }

// DisassociateTrunkInterface ends the tie of a branch to its trunk.
func (c *Cloud) DisassociateTrunkInterface(in DisassociateTrunkInput) error {
	_, err := call(c, in, disassociateTrunk)
	return err
}

func disassociateTrunk(s *state, in DisassociateTrunkInput) (string, error) {
	return once(s, "DisassociateTrunkInterface", in.ClientToken, in, func(s *state, in DisassociateTrunkInput) (string, error) {
		if in.AssociationID == "" {
			return "", missing("associationId")
		}
		a, err := find(&s.trunks, kindTrunkAssociation, in.AssociationID)
		if err == nil {
			s.untie(a)
		}
		return in.ClientToken, err
	})
}

func (s *state) untie(a TrunkAssociation) {
	s.trunks.remove(a.ID)
	branch, _ := s.enis.get(a.BranchID)
	branch.Status = StatusAvailable
	s.enis.put(branch.ID, branch)
}

var trunkListing = listing[TrunkAssociation]{
	action: "DescribeTrunkInterfaceAssociations", maxPage: 255, idsName: "associationId",
	fields: map[string]func(*state, TrunkAssociation) []string{
		"gre-key":            func(*state, TrunkAssociation) []string { return nil },
		"interface-protocol": one(func(TrunkAssociation) string { return "VLAN" }),
	},
}

// DescribeTrunkInterfaceAssociations lists the ties of branches to trunks.
func (c *Cloud) DescribeTrunkInterfaceAssociations(q Query) (Page[TrunkAssociation], error) {
	return cloned(call(c, q, describeTrunks))
}

func describeTrunks(s *state, q Query) (Page[TrunkAssociation], error) {
	if err := known(&s.trunks, kindTrunkAssociation, q.IDs); err != nil {
		return Page[TrunkAssociation]{}, err
	}
	return trunkListing.apply(s, q, rows(&s.trunks, q.IDs))
}

func parseAssociateTrunk(f form) AssociateTrunkInput {
	return AssociateTrunkInput{
		TrunkID: f.in("TrunkInterfaceId").text(), BranchID: f.in("BranchInterfaceId").text(),
		VLAN: f.in("VlanId").count(0), ClientToken: f.in("ClientToken").text(),
	}
}

func parseDisassociateTrunk(f form) DisassociateTrunkInput {
	return DisassociateTrunkInput{AssociationID: f.in("AssociationId").text(), ClientToken: f.in("ClientToken").text()}
}

type xmlTrunk struct {
	ID       string `xml:"associationId"`
	BranchID string `xml:"branchInterfaceId"`
	TrunkID  string `xml:"trunkInterfaceId"`
	Protocol string `xml:"interfaceProtocol"`
	VLAN     int    `xml:"vlanId"`
}

func showTrunk(a TrunkAssociation) xmlTrunk {
	return xmlTrunk{a.ID, a.BranchID, a.TrunkID, "VLAN", a.VLAN}
}

func renderTrunk(_ *state, a TrunkAssociation) replier {
	return &struct {
		reply
		Association xmlTrunk `xml:"interfaceAssociation"`
		Token       string   `xml:"clientToken,omitempty"`
	}{Association: showTrunk(a), Token: a.ClientToken}
}

func renderUntied(_ *state, token string) replier {
	return &struct {
		doneReply
		Token string `xml:"clientToken,omitempty"`
	}{doneReply: doneReply{Return: true}, Token: token}
}

func renderTrunks(_ *state, page Page[TrunkAssociation]) replier {
	return &struct {
		reply
		Set  set[xmlTrunk] `xml:"interfaceAssociationSet"`
		Next string        `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, showTrunk), Next: page.NextToken}
}
