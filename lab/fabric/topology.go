package fabric

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// DefaultMTU is the MTU of an ENI inside its VPC, in bytes. Source: "Network
// maximum transmission unit (MTU) for your EC2 instance", Amazon EC2 User Guide.
const DefaultMTU = 9001

// maxName is the longest device name the kernel takes (IFNAMSIZ less the NUL).
const maxName = 15

// Topology is all that the fabric should carry. It is data: Sync reads it, and
// does not change it; nor may anyone else afterwards.
type Topology struct {
	VPCs            []VPC
	Peerings        []Peering
	TransitGateways []TransitGateway
	Internet        Internet
}

// VPC is a network of its own. VPCs may overlap in addresses.
type VPC struct {
	ID    string
	CIDRs []netip.Prefix // IPv4; a packet to an unassigned address in them is NO_OWNER, outside NO_ROUTE
	ENIs  []ENI

	Region          string
	Subnets         []Subnet
	RouteTables     []RouteTable
	ACLs            []NetworkACL
	Groups          []SecurityGroup
	InternetGateway string // ID; empty: none is attached
	NATGateways     []NATGateway
	Public          map[netip.Addr]netip.Addr // private address of an ENI or NAT gateway -> public address
}

// ENI is a network interface and, if Guest is set, where it is plugged in.
type ENI struct {
	ID              string // unique over all VPCs
	MAC             MAC
	Subnet          netip.Prefix   // the subnet's IPv4 CIDR
	Primary         netip.Addr     // in Subnet
	Addresses       []netip.Addr   // secondary IPv4 addresses
	Prefixes        []netip.Prefix // delegated prefixes, /28 in a VPC
	SourceDestCheck bool
	Guest           string // as in AddGuest; empty while the ENI is not attached
	Device          string // name inside the guest: "ens5"
	MTU             int    // bytes; 0 is DefaultMTU

	SubnetID string   // empty: no ACL, local routes only
	Groups   []string // IDs; nil: nothing is filtered, as for no ENI of EC2's
	Idle     IdleTimeouts
	FlowLog  bool // FlowLogs has what it carries

	down bool // a fault holds its link down
}

// MAC is a hardware address.
type MAC [6]byte

// String gives the lower-case colon form.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// DeviceName is the name of the fabric end of an ENI, NAT gateway, peering,
// attachment or internet gateway: the ID where it fits a device name, else its
// first three characters, a hyphen and its last 11. The device's alias holds the
// whole ID.
func DeviceName(id string) string {
	if len(id) <= maxName {
		return id
	}
	return id[:3] + "-" + id[len(id)-(maxName-len("eni-")):]
}

// owned lists what the VPC delivers to the ENI, as prefixes.
func (e ENI) owned() []netip.Prefix {
	owned := []netip.Prefix{netip.PrefixFrom(e.Primary, 32)}
	for _, a := range e.Addresses {
		owned = append(owned, netip.PrefixFrom(a, 32))
	}
	return append(owned, e.Prefixes...)
}

func (e ENI) mtu() int { return cmp.Or(e.MTU, DefaultMTU) }

// check finds what the fabric cannot hold of one ENI by itself.
func (e ENI) check() error {
	if err := checkID(e.ID); err != nil {
		return err
	}
	switch {
	case e.MAC == MAC{} || e.MAC[0]&1 != 0:
		return fmt.Errorf("mac %s is not the address of one device", e.MAC)
	case e.MAC == RouterMAC:
		return fmt.Errorf("mac %s is the implied router's", e.MAC)
	case !e.Subnet.IsValid() || !e.Subnet.Addr().Is4():
		return fmt.Errorf("subnet %s is not an IPv4 prefix", e.Subnet)
	case !e.Primary.Is4() || !e.Subnet.Contains(e.Primary):
		return fmt.Errorf("primary address %s is not in its subnet %s", e.Primary, e.Subnet)
	case e.mtu() < 68 || e.mtu() > 65535: // RFC 791
		return fmt.Errorf("mtu %d is not within 68..65535", e.MTU)
	case e.Guest != "" && !validDevice(e.Device):
		return fmt.Errorf("device %q is no device name of 1 to %d characters", e.Device, maxName)
	}
	for _, a := range e.Addresses {
		if !a.Is4() {
			return fmt.Errorf("address %s is not IPv4", a)
		}
	}
	for _, p := range e.Prefixes {
		if !p.IsValid() || !p.Addr().Is4() || p != p.Masked() || p.Bits() == 0 {
			return fmt.Errorf("prefix %s is not an IPv4 prefix without host bits", p)
		}
	}
	return nil
}

// checkID takes what can be a device's name and alias.
func checkID(id string) error {
	ok := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
	}
	if id == "" || len(id) > 100 || strings.ContainsFunc(id, func(r rune) bool { return !ok(r) }) {
		return fmt.Errorf("id %q is not 1 to 100 letters, digits, - and _", id)
	}
	return nil
}

func validDevice(name string) bool {
	return name != "" && len(name) <= maxName && name != "." && name != ".." && !strings.ContainsAny(name, "/: \t\n\v\f\r\x00")
}

// checked is the part of a topology that can be built, and what was wrong with
// the rest: by ENI, and by VPC. A bad ENI is left out; it does not spoil its VPC.
type checked struct {
	vpcs []VPC // NAT gateways are among the ENIs too

	peerings []Peering
	transit  []TransitGateway

	enis map[string]error
	errs []error
}

// check sorts out what contradicts itself. Of two ENIs that claim one thing the
// first in the topology has it.
func (t Topology) check() checked {
	c := checked{enis: map[string]error{}}
	vpcIDs, eniIDs := map[string]bool{}, map[string]bool{}
	for _, v := range t.VPCs {
		if err := v.check(vpcIDs); err != nil {
			err = fmt.Errorf("vpc %s: %w", v.ID, err)
			c.errs = append(c.errs, err)
			for _, e := range v.ENIs {
				if !eniIDs[e.ID] {
					c.enis[e.ID] = err
				}
			}
			continue
		}
		vpcIDs[v.ID] = true
		good := v
		good.ENIs, good.NATGateways = nil, nil
		tables, err := checkTables(v.RouteTables)
		if err != nil {
			c.errs = append(c.errs, fmt.Errorf("vpc %s: %w", v.ID, err))
		}
		good.RouteTables = tables
		taken := map[string]string{} // device name or address -> ENI
		for _, e := range v.ENIs {
			err := e.check()
			if err == nil && eniIDs[e.ID] {
				err = errors.New("is in the topology twice")
			}
			if err == nil {
				err = claim(taken, e)
			}
			if err != nil {
				err = fmt.Errorf("eni %s: %w", e.ID, err)
				c.errs = append(c.errs, err)
				if !eniIDs[e.ID] {
					c.enis[e.ID] = err
				}
				continue
			}
			eniIDs[e.ID] = true
			delete(c.enis, e.ID)
			good.ENIs = append(good.ENIs, e)
		}
		for _, g := range v.NATGateways {
			e, err := g.eni(v)
			if err == nil {
				err = e.check()
			}
			if err == nil && eniIDs[g.ID] {
				err = errors.New("is in the topology twice")
			}
			if err == nil {
				err = claim(taken, e)
			}
			if err != nil {
				c.errs = append(c.errs, fmt.Errorf("vpc %s: nat gateway %s: %w", v.ID, g.ID, err))
				continue
			}
			eniIDs[g.ID] = true
			good.ENIs = append(good.ENIs, e)
			good.NATGateways = append(good.NATGateways, g)
		}
		c.vpcs = append(c.vpcs, good)
	}
	c.checkLinks(t)
	return c
}

func (v VPC) check(seen map[string]bool) error {
	if err := checkID(v.ID); err != nil {
		return err
	}
	if seen[v.ID] {
		return errors.New("is in the topology twice")
	}
	for _, p := range v.CIDRs {
		if !p.IsValid() || !p.Addr().Is4() || p != p.Masked() || p.Bits() == 0 {
			return fmt.Errorf("cidr %s is not an IPv4 prefix without host bits", p)
		}
	}
	return nil
}

// claim gives e its device name and addresses, all or none.
func claim(taken map[string]string, e ENI) error {
	keys := []string{"device " + DeviceName(e.ID)}
	for _, p := range e.owned() {
		keys = append(keys, "address "+p.String())
	}
	for i, k := range keys {
		if other, ok := taken[k]; ok {
			return fmt.Errorf("%s belongs to %s", k, other)
		}
		if slices.Contains(keys[:i], k) {
			return fmt.Errorf("%s is given twice", k)
		}
	}
	for _, k := range keys {
		taken[k] = e.ID
	}
	return nil
}
