package ec2sim

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// NetworkACL is a stateless filter at the border of the subnets that are
// associated with it. What no entry matches is denied.
type NetworkACL struct {
	ID, VPCID       string
	Default         bool // of the VPC: new subnets have it
	Ingress, Egress []ACLEntry
	Tags            map[string]string
}

// ACLEntry decides by its number: the lowest that matches counts.
type ACLEntry struct {
	Number   int // 1 to 32766
	Allow    bool
	Protocol int // IP protocol number; -1 is all
	From, To int // destination ports of TCP and UDP, type and code of ICMP; -1 is all, and so it is for other protocols
	CIDR     netip.Prefix
}

func (a NetworkACL) clone() NetworkACL {
	a.Ingress, a.Egress, a.Tags = slices.Clone(a.Ingress), slices.Clone(a.Egress), maps.Clone(a.Tags)
	return a
}

func (a *NetworkACL) entries(way Direction) *[]ACLEntry {
	if way == Egress {
		return &a.Egress
	}
	return &a.Ingress
}

// Bounds of network ACLs. Sources: CreateNetworkAclEntry, Amazon EC2 API
// Reference; "Amazon VPC quotas" (rules per network ACL, raised to its most).
const (
	maxACLNumber  = 32766
	maxACLEntries = 40
)

// newDefaultACL makes the ACL that a VPC is born with: everything passes.
func (s *state) newDefaultACL(vpcID string) {
	all := []ACLEntry{{Number: 100, Allow: true, Protocol: AllProtocols, From: -1, To: -1, CIDR: everywhere}}
	a := NetworkACL{ID: s.newID(kindACL.prefix), VPCID: vpcID, Default: true, Ingress: all, Egress: all}
	s.acls.insert(s.nextRow(), a.ID, a)
}

func (s *state) defaultACL(vpcID string) NetworkACL {
	for a := range s.acls.all() {
		if a.VPCID == vpcID && a.Default {
			return a
		}
	}
	return NetworkACL{}
}

// CreateNetworkACLInput describes a network ACL to make.
type CreateNetworkACLInput struct {
	VPCID       string
	Tags        map[string]string
	ClientToken string
}

// CreateNetworkACL makes an ACL that denies everything.
func (c *Cloud) CreateNetworkACL(in CreateNetworkACLInput) (NetworkACL, error) {
	a, err := call(c, in, createACL)
	return a.clone(), err
}

func createACL(s *state, in CreateNetworkACLInput) (NetworkACL, error) {
	return once(s, "CreateNetworkAcl", in.ClientToken, in, func(s *state, in CreateNetworkACLInput) (NetworkACL, error) {
		v, err := s.findVPC(in.VPCID)
		if err != nil {
			return NetworkACL{}, err
		}
		if err := checkTags(in.Tags); err != nil {
			return NetworkACL{}, err
		}
		a := NetworkACL{ID: s.newID(kindACL.prefix), VPCID: v.ID, Tags: maps.Clone(in.Tags)}
		s.acls.insert(s.nextRow(), a.ID, a)
		return a, nil
	})
}

func (s *state) findACL(id string) (NetworkACL, error) {
	if id == "" {
		return NetworkACL{}, missing("networkAclId")
	}
	return find(&s.acls, kindACL, id)
}

// DeleteNetworkACLInput names an ACL to delete.
type DeleteNetworkACLInput struct{ ID string }

// DeleteNetworkACL deletes an ACL that no subnet has.
func (c *Cloud) DeleteNetworkACL(in DeleteNetworkACLInput) error {
	_, err := call(c, in, deleteACL)
	return err
}

func deleteACL(s *state, in DeleteNetworkACLInput) (struct{}, error) {
	var none struct{}
	a, err := s.findACL(in.ID)
	if err != nil {
		return none, err
	}
	if a.Default {
		return none, invalidValue("cannot delete default network ACL %s", a.ID)
	}
	for n := range s.subnets.all() {
		if n.ACL == a.ID {
			return none, dependency("networkAcl", a.ID)
		}
	}
	s.acls.remove(a.ID)
	return none, nil
}

// NetworkACLEntryInput is an entry and where it belongs.
type NetworkACLEntryInput struct {
	ACLID string
	Way   Direction
	Entry ACLEntry // to delete one, only its number counts
}

// CreateNetworkACLEntry adds an entry under a number that is free.
func (c *Cloud) CreateNetworkACLEntry(in NetworkACLEntryInput) error {
	_, err := call(c, in, createACLEntry)
	return err
}

// ReplaceNetworkACLEntry changes the entry of a number.
func (c *Cloud) ReplaceNetworkACLEntry(in NetworkACLEntryInput) error {
	_, err := call(c, in, replaceACLEntry)
	return err
}

// DeleteNetworkACLEntry takes the entry of a number away.
func (c *Cloud) DeleteNetworkACLEntry(in NetworkACLEntryInput) error {
	_, err := call(c, in, deleteACLEntry)
	return err
}

func createACLEntry(s *state, in NetworkACLEntryInput) (struct{}, error) {
	return s.editACL(in, func(entries []ACLEntry, at int, found bool) ([]ACLEntry, error) {
		e, err := in.Entry.canonical()
		switch {
		case err != nil:
			return nil, err
		case found:
			return nil, fail("NetworkAclEntryAlreadyExists", "The network acl entry identified by %d already exists.", e.Number)
		case len(entries) >= maxACLEntries:
			return nil, fail("NetworkAclEntryLimitExceeded", "The maximum number of network acl entries has been reached.")
		}
		return slices.Insert(entries, at, e), nil
	})
}

func replaceACLEntry(s *state, in NetworkACLEntryInput) (struct{}, error) {
	return s.editACL(in, func(entries []ACLEntry, at int, found bool) ([]ACLEntry, error) {
		e, err := in.Entry.canonical()
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, noSuchEntry(e.Number)
		}
		entries[at] = e
		return entries, nil
	})
}

func deleteACLEntry(s *state, in NetworkACLEntryInput) (struct{}, error) {
	return s.editACL(in, func(entries []ACLEntry, at int, found bool) ([]ACLEntry, error) {
		if !found {
			return nil, noSuchEntry(in.Entry.Number)
		}
		return slices.Delete(entries, at, at+1), nil
	})
}

func noSuchEntry(number int) error {
	return fail("InvalidNetworkAclEntry.NotFound", "The network acl entry identified by %d does not exist.", number)
}

// editACL changes a copy of an ACL's entries; change is told where the number
// is or belongs.
func (s *state) editACL(in NetworkACLEntryInput, change func([]ACLEntry, int, bool) ([]ACLEntry, error)) (struct{}, error) {
	var none struct{}
	a, err := s.findACL(in.ACLID)
	if err != nil {
		return none, err
	}
	if in.Entry.Number < 1 || in.Entry.Number > maxACLNumber {
		return none, invalidValue("Invalid value '%d' for ruleNumber. Must be between 1 and %d.", in.Entry.Number, maxACLNumber)
	}
	entries := a.entries(in.Way)
	*entries = slices.Clone(*entries)
	at, found := slices.BinarySearchFunc(*entries, in.Entry.Number, func(e ACLEntry, n int) int { return cmp.Compare(e.Number, n) })
	if *entries, err = change(*entries, at, found); err != nil {
		return none, err
	}
	s.acls.put(a.ID, a)
	return none, nil
}

// canonical masks the CIDR, as EC2 does (CreateNetworkAclEntry, Amazon EC2 API
// Reference), and checks protocol and ports.
func (e ACLEntry) canonical() (ACLEntry, error) {
	if !e.CIDR.IsValid() {
		return e, missing("cidrBlock")
	}
	e.CIDR = e.CIDR.Masked()
	var err error
	e.From, e.To, err = checkPorts(e.Protocol, e.From, e.To)
	return e, err
}

// ReplaceNetworkACLAssociationInput gives a subnet another ACL. The association
// is the one that the subnet has.
type ReplaceNetworkACLAssociationInput struct{ AssociationID, ACLID string }

// ReplaceNetworkACLAssociation gives the subnet of an association another ACL,
// and tells the identifier of the new association.
func (c *Cloud) ReplaceNetworkACLAssociation(in ReplaceNetworkACLAssociationInput) (string, error) {
	return call(c, in, replaceACLAssociation)
}

func replaceACLAssociation(s *state, in ReplaceNetworkACLAssociationInput) (string, error) {
	if in.AssociationID == "" {
		return "", missing("associationId")
	}
	a, err := s.findACL(in.ACLID)
	if err != nil {
		return "", err
	}
	if err := kindACLAssociation.check(in.AssociationID); err != nil {
		return "", err
	}
	for n := range s.subnets.all() {
		if n.ACLAssociation != in.AssociationID {
			continue
		}
		if n.VPCID != a.VPCID {
			return "", invalidValue("network acl %s and subnet %s belong to different networks", a.ID, n.ID)
		}
		n.ACL, n.ACLAssociation = a.ID, s.newID(kindACLAssociation.prefix)
		s.subnets.put(n.ID, n)
		return n.ACLAssociation, nil
	}
	return "", kindACLAssociation.missing(in.AssociationID)
}
