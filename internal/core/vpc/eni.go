package vpc

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

// MAC is the hardware address of an ENI. An ENI keeps its MAC for life, across
// attachments, which is why a device is found by MAC and never by name.
type MAC [6]byte

// ParseMAC reads the colon form, as EC2 and IMDS print it.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return MAC{}, fmt.Errorf("parse mac %q: %w", s, err)
	}
	if len(hw) != len(MAC{}) {
		return MAC{}, fmt.Errorf("parse mac %q: %d bytes, want 6", s, len(hw))
	}
	return MAC(hw), nil
}

// String gives the lower-case colon form.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// ENI is one elastic network interface as EC2 describes it, attached to an
// instance or about to be.
type ENI struct {
	ID           string
	AttachmentID string // empty while not attached
	MAC          MAC
	DeviceIndex  int // 0 is the primary ENI, which lives and dies with the instance
	CardIndex    int
	SubnetID     string
	Subnet       netip.Prefix   // the subnet's IPv4 CIDR
	Primary      netip.Addr     // the ENI's own address: the node's, never a pod's
	Secondary    []netip.Addr   // secondary IPv4 addresses, each for one pod
	Prefixes     []netip.Prefix // /28 prefixes, sixteen pod addresses each
	Groups       []string       // security group IDs

	// What only EC2 says; the zero value where the source is the metadata
	// service.
	Tags                map[string]string
	Zone                string    // availability zone by name
	Status              string    // of the attachment: "attached", "attaching", "detaching", "detached"; empty while there is none
	DeleteOnTermination bool      // EC2 deletes the ENI with its instance
	CreatedAt           time.Time // from the tag that its maker set
	Type                string    // in EC2's words: "interface", "trunk", "efa", "efa-only" and others
}

// Gateway is the address of the subnet's implied router: the network address
// plus one. Source: "Subnet CIDR blocks", Amazon VPC User Guide.
func (e ENI) Gateway() netip.Addr { return e.Subnet.Masked().Addr().Next() }

// PodAddresses lists every address of the ENI that a pod may hold, in the
// order EC2 gave them: the secondaries, then each prefix from its first
// address. A /28 gives all sixteen: the addresses of a prefix are not a
// subnet, so none is reserved.
func (e ENI) PodAddresses() []netip.Addr {
	addrs := append([]netip.Addr(nil), e.Secondary...)
	for _, p := range e.Prefixes {
		for a := p.Masked().Addr(); p.Contains(a); a = a.Next() {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// Owns reports whether the VPC delivers a packet for addr to this ENI.
func (e ENI) Owns(addr netip.Addr) bool {
	if addr == e.Primary {
		return true
	}
	for _, a := range e.Secondary {
		if a == addr {
			return true
		}
	}
	for _, p := range e.Prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Subnet is a subnet that further ENIs may be made in.
type Subnet struct {
	ID   string
	Zone string       // availability zone by name
	CIDR netip.Prefix // IPv4
	Free int          // free IPv4 addresses, as EC2 last counted them; -1 where that is not known
	Tags map[string]string
}

// Slots is how many of the ENI's address slots are taken. The primary, each
// secondary and each prefix take one. Source: "Assign prefixes to network
// interfaces", Amazon EC2 User Guide.
func (e ENI) Slots() int { return 1 + len(e.Secondary) + len(e.Prefixes) }
