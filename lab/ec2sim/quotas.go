package ec2sim

// Quotas are what an account may have in a region. One that is zero does not
// bind. Those that no account can have raised far are not here, but always hold:
// rules per group, groups per ENI, routes per table, entries per network ACL.
//
// Source of the defaults: "Amazon VPC quotas", Amazon VPC User Guide.
type Quotas struct {
	VPCs               int // per region
	Subnets            int // per VPC
	SecurityGroups     int // per region
	RouteTables        int // per VPC
	ElasticAddresses   int // per region
	NetworkInterfaces  int // per region
	AddressUsage       int // units per VPC
	PeeredAddressUsage int // units per VPC and those of the region that it is peered with
}

// DefaultQuotas are those of a new account.
func DefaultQuotas() Quotas {
	return Quotas{
		VPCs: 5, Subnets: 200, SecurityGroups: 2500, RouteTables: 200, ElasticAddresses: 5, NetworkInterfaces: 5000,
		AddressUsage: 64_000, PeeredAddressUsage: 128_000,
	}
}

// Quota is one of the quotas under its name in a file.
type Quota struct {
	Name  string
	Limit *int
}

// All gives the quotas by name.
func (q *Quotas) All() []Quota {
	return []Quota{
		{"vpcs", &q.VPCs}, {"subnets", &q.Subnets}, {"securityGroups", &q.SecurityGroups}, {"routeTables", &q.RouteTables},
		{"elasticAddresses", &q.ElasticAddresses}, {"networkInterfaces", &q.NetworkInterfaces},
		{"addressUsage", &q.AddressUsage}, {"peeredAddressUsage", &q.PeeredAddressUsage},
	}
}

// within refuses to have more than a quota. Codes: "Error codes for the Amazon
// EC2 API"; the messages are seen for VPCs, and assumed alike for the rest.
func within(quota, n int, code, what string) error {
	if quota <= 0 || n <= quota {
		return nil
	}
	return fail(code, "The maximum number of %s has been reached.", what)
}

func (s *state) vpcQuota() error {
	return within(s.cfg.Quotas.VPCs, len(s.vpcs.order), "VpcLimitExceeded", "VPCs")
}

func (s *state) subnetQuota(vpcID string) error {
	return within(s.cfg.Quotas.Subnets, countIn(&s.subnets, vpcID, func(n Subnet) string { return n.VPCID }),
		"SubnetLimitExceeded", "subnets in VPC '"+vpcID+"'")
}

func (s *state) groupQuota() error {
	return within(s.cfg.Quotas.SecurityGroups, len(s.groups.order), "SecurityGroupLimitExceeded", "security groups")
}

func (s *state) routeTableQuota(vpcID string) error {
	return within(s.cfg.Quotas.RouteTables, countIn(&s.routeTables, vpcID, func(t RouteTable) string { return t.VPCID }),
		"RouteTableLimitExceeded", "route tables in VPC '"+vpcID+"'")
}

func (s *state) elasticQuota() error {
	return within(s.cfg.Quotas.ElasticAddresses, len(s.addresses.order), "AddressLimitExceeded", "addresses")
}

func (s *state) eniQuota() error {
	return within(s.cfg.Quotas.NetworkInterfaces, len(s.enis.order), "NetworkInterfaceLimitExceeded", "network interfaces")
}

func countIn[T any](t *table[T], vpcID string, of func(T) string) int {
	n := 0
	for v := range t.all() {
		if of(v) == vpcID {
			n++
		}
	}
	return n
}

// checkUsage refuses what makes a VPC larger than its network may be. RunInstances,
// AttachNetworkInterface, AssignPrivateIpAddresses and AcceptVpcPeeringConnection
// fail by it; CreateNetworkInterface does not. Source: "Network Address Usage for
// your VPC", Amazon VPC User Guide.
func (s *state) checkUsage(vpcID string) error {
	q := s.cfg.Quotas
	if q.AddressUsage <= 0 && q.PeeredAddressUsage <= 0 {
		return nil
	}
	usage := s.usage()
	if q.AddressUsage > 0 && usage[vpcID] > q.AddressUsage {
		return fail("NetworkAddressUsageLimitExceeded", "The VPC '%s' exceeds its quota of %d network address usage units.", vpcID, q.AddressUsage)
	}
	if q.PeeredAddressUsage <= 0 {
		return nil
	}
	total := usage[vpcID]
	seen := map[string]bool{vpcID: true}
	add := func(other PeeredVPC) {
		if other.Region == s.region && !seen[other.VPCID] {
			seen[other.VPCID] = true
			total += usage[other.VPCID]
		}
	}
	for p := range s.peerings.all() {
		switch {
		case p.Status != PeeringActive:
		case p.Requester.VPCID == vpcID:
			add(p.Accepter)
		case p.Accepter.VPCID == vpcID:
			add(p.Requester)
		}
	}
	if len(seen) > 1 && total > q.PeeredAddressUsage {
		return fail("NetworkAddressUsagePeeredLimitExceeded", "The VPC '%s' and its peers exceed the quota of %d network address usage units.", vpcID, q.PeeredAddressUsage)
	}
	return nil
}

// Units of network address usage. An address, a prefix and an ENI beside the
// primary one are one each.
const unitsOfGateway = 6 // a NAT gateway, an attachment to a transit gateway

// usage counts the units of each VPC of the region.
func (s *state) usage() map[string]int {
	units := map[string]int{}
	for e := range s.enis.all() {
		if e.Attachment == nil {
			continue // addresses count when they are an instance's
		}
		units[e.VPCID] += e.slots()
		if e.AutoPublic.IsValid() {
			units[e.VPCID]++
		}
		if e.Attachment.DeviceIndex > 0 || e.Attachment.CardIndex > 0 {
			units[e.VPCID]++
		}
	}
	for a := range s.addresses.all() {
		if e, ok := s.enis.get(a.InterfaceID); ok && e.Attachment != nil {
			units[e.VPCID]++
		}
	}
	for g := range s.nats.all() {
		if g.PrivateIP.IsValid() {
			n, _ := s.subnets.get(g.SubnetID)
			units[n.VPCID] += unitsOfGateway
		}
	}
	for a := range s.spokes.all() {
		units[a.VPCID] += unitsOfGateway
	}
	return units
}
