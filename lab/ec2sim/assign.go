package ec2sim

import (
	"net/netip"
	"slices"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// AssignPrivateIPAddressesInput asks for more addresses on an ENI. Addresses
// come by name or by count, and so do prefixes; addresses and prefixes may be
// asked for together.
type AssignPrivateIPAddressesInput struct {
	ID                string
	Count             int
	Addresses         []netip.Addr
	PrefixCount       int
	Prefixes          []netip.Prefix
	AllowReassignment bool // take named secondary addresses from other ENIs of the subnet
}

// Assigned says what an ENI has got.
type Assigned struct {
	ID        string
	Addresses []netip.Addr
	Prefixes  []netip.Prefix
}

// AssignPrivateIPAddresses gives an ENI more addresses: all of them or none.
func (c *Cloud) AssignPrivateIPAddresses(in AssignPrivateIPAddressesInput) (Assigned, error) {
	out, err := call(c, in, assignPrivateIPs)
	return Assigned{out.ID, slices.Clone(out.Addresses), slices.Clone(out.Prefixes)}, err
}

func assignPrivateIPs(s *state, in AssignPrivateIPAddressesInput) (Assigned, error) {
	e, err := s.findENI(in.ID)
	if err != nil {
		return Assigned{}, err
	}
	if in.Count < 0 || in.PrefixCount < 0 {
		return Assigned{}, invalidValue("Value (%d) for parameter count is invalid. It must not be negative.", min(in.Count, in.PrefixCount))
	}
	if in.Count > 0 && len(in.Addresses) > 0 || in.PrefixCount > 0 && len(in.Prefixes) > 0 {
		return Assigned{}, invalidCombination("Addresses or prefixes cannot be specified both by value and by count.")
	}
	if in.Count == 0 && len(in.Addresses) == 0 && in.PrefixCount == 0 && len(in.Prefixes) == 0 {
		return Assigned{}, missing("secondaryPrivateIpAddressCount")
	}
	addrs := 0
	for _, a := range in.Addresses {
		if !slices.Contains(e.Secondary, a) {
			addrs++
		}
	}
	prefixes := in.PrefixCount + len(in.Prefixes)
	if e.Attachment != nil {
		if err := s.checkSlots(e, addrs+in.Count, prefixes); err != nil {
			return Assigned{}, err
		}
	}
	after, err := s.assignNamed(e, assignment{in.Addresses, in.Prefixes, in.AllowReassignment})
	if err != nil {
		return Assigned{}, err
	}
	if after, err = s.assignChosen(after, in.Count, in.PrefixCount); err != nil {
		return Assigned{}, err
	}
	s.enis.put(e.ID, after)
	if err := s.checkUsage(e.VPCID); err != nil {
		return Assigned{}, err
	}
	out := Assigned{ID: e.ID, Addresses: after.Secondary[len(e.Secondary):], Prefixes: after.Prefixes[len(e.Prefixes):]}
	if len(in.Addresses) > 0 {
		out.Addresses = in.Addresses // with those it had already
	}
	return out, nil
}

// checkSlots refuses more addresses than the type of the ENI's instance
// allows, or prefixes where it has none.
func (s *state) checkSlots(e NetworkInterface, addrs, prefixes int) error {
	limits := s.limitsOf(e.Attachment.InstanceID)
	if prefixes > 0 && !limits.PrefixCapable() {
		return prefixUnsupported(s.typeOf(e.Attachment.InstanceID))
	}
	if addrs > limits.IPv4PerENI || prefixes > limits.IPv4PerENI || e.slots()+addrs+prefixes > limits.IPv4PerENI {
		return fail("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.")
	}
	return nil
}

func prefixUnsupported(instanceType string) error {
	return fail("UnsupportedOperation", "The instance type %s does not support prefixes on network interfaces.", instanceType)
}

func (s *state) typeOf(instanceID string) string {
	i, _ := s.instances.get(instanceID)
	return i.Type
}

func (s *state) limitsOf(instanceID string) vpc.Limits {
	limits, _ := vpc.LimitsOf(s.typeOf(instanceID))
	return limits
}

// assignment is a set of addresses and prefixes by name.
type assignment struct {
	addrs    []netip.Addr
	prefixes []netip.Prefix
	reassign bool
}

// assignNamed takes what is named for an ENI, and gives the ENI with it. The
// ENI's row is the caller's to write.
func (s *state) assignNamed(e NetworkInterface, want assignment) (NetworkInterface, error) {
	p := s.pools[e.SubnetID]
	e.Secondary, e.Prefixes = slices.Clone(e.Secondary), slices.Clone(e.Prefixes)
	for _, a := range want.addrs {
		if err := p.checkAddr(a); err != nil {
			return e, err
		}
		switch {
		case p.isFree(a, 1):
			p.take(a, 1)
		case want.reassign && slices.Contains(e.Secondary, a):
			continue
		case want.reassign:
			if err := s.takeFromOther(e, a); err != nil {
				return e, err
			}
		default:
			return e, invalidValue("Address %s is in use.", a)
		}
		e.Secondary = append(e.Secondary, a)
	}
	for _, x := range want.prefixes {
		if err := p.checkPrefix(x); err != nil {
			return e, err
		}
		p.take(x.Addr(), prefixBlock)
		e.Prefixes = append(e.Prefixes, x)
	}
	return e, nil
}

// takeFromOther takes a secondary address away from the ENI that has it. The
// address stays taken in the pool.
func (s *state) takeFromOther(e NetworkInterface, a netip.Addr) error {
	for other := range s.enis.all() {
		if other.ID != e.ID && other.SubnetID == e.SubnetID && slices.Contains(other.Secondary, a) {
			other.Secondary = without(other.Secondary, a)
			s.enis.put(other.ID, other)
			s.unmap(other.ID, a)
			return nil
		}
	}
	return invalidValue("Address %s cannot be reassigned: it is a primary address or part of a prefix.", a)
}

// assignChosen takes the lowest free addresses and blocks for an ENI.
func (s *state) assignChosen(e NetworkInterface, addrs, prefixes int) (NetworkInterface, error) {
	p := s.pools[e.SubnetID]
	e.Secondary, e.Prefixes = slices.Clone(e.Secondary), slices.Clone(e.Prefixes)
	if addrs > p.free {
		return e, noFreeAddress()
	}
	// Blocks first: the addresses chosen must not break the last free one.
	if prefixes > 0 && prefixes > p.free/prefixBlock {
		return e, noFreeBlock()
	}
	for range prefixes {
		x, err := p.takeBlock()
		if err != nil {
			return e, err
		}
		e.Prefixes = append(e.Prefixes, x)
	}
	for range addrs {
		a, err := p.takeLowest()
		if err != nil {
			return e, err
		}
		e.Secondary = append(e.Secondary, a)
	}
	return e, nil
}

// UnassignPrivateIPAddressesInput names what an ENI gives back.
type UnassignPrivateIPAddressesInput struct {
	ID        string
	Addresses []netip.Addr
	Prefixes  []netip.Prefix
}

// UnassignPrivateIPAddresses takes secondary addresses and prefixes from an
// ENI: all of them or none.
func (c *Cloud) UnassignPrivateIPAddresses(in UnassignPrivateIPAddressesInput) error {
	_, err := call(c, in, unassignPrivateIPs)
	return err
}

func unassignPrivateIPs(s *state, in UnassignPrivateIPAddressesInput) (struct{}, error) {
	var none struct{}
	e, err := s.findENI(in.ID)
	if err != nil {
		return none, err
	}
	if len(in.Addresses) == 0 && len(in.Prefixes) == 0 {
		return none, missing("privateIpAddress")
	}
	p := s.pools[e.SubnetID]
	for _, a := range in.Addresses {
		if a == e.Primary {
			return none, invalidValue("The primary address %s of network interface '%s' cannot be unassigned.", a, e.ID)
		}
		if !slices.Contains(e.Secondary, a) {
			return none, invalidValue("Some of [%s] are not assigned to network interface '%s'", a, e.ID)
		}
		e.Secondary = without(e.Secondary, a)
		p.release(a, 1)
		s.unmap(e.ID, a)
	}
	for _, x := range in.Prefixes {
		if !slices.Contains(e.Prefixes, x) {
			return none, invalidValue("Some of [%s] are not assigned to network interface '%s'", x, e.ID)
		}
		e.Prefixes = without(e.Prefixes, x)
		p.release(x.Addr(), prefixBlock)
	}
	s.enis.put(e.ID, e)
	return none, nil
}
