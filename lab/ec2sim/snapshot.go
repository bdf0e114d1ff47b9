package ec2sim

import (
	"cmp"
	"slices"
	"time"
)

// Snapshot copies everything, in all regions.
func (c *Cloud) Snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.catchUp()
	return c.state.snapshot()
}

// SnapshotAt is what Snapshot would have given at a moment, or as soon after it
// as [Config.Memory] goes back.
func (c *Cloud) SnapshotAt(t time.Time) Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.catchUp()
	var snap Snapshot
	c.state.asOf(t, func() { snap = c.state.snapshot() })
	return snap
}

func (s *state) snapshot() Snapshot {
	return Snapshot{
		VPCs:        gather(s, func(r *regional) *table[VPC] { return &r.vpcs }, keep[VPC]),
		Subnets:     gather(s, func(r *regional) *table[Subnet] { return &r.subnets }, func(n Subnet) (Subnet, bool) { return s.withFree(n), true }),
		Groups:      gather(s, func(r *regional) *table[SecurityGroup] { return &r.groups }, keep[SecurityGroup]),
		Interfaces:  gather(s, func(r *regional) *table[NetworkInterface] { return &r.enis }, keep[NetworkInterface]),
		Instances:   gather(s, func(r *regional) *table[Instance] { return &r.instances }, func(i Instance) (Instance, bool) { return i, !s.forgotten(i) }),
		PrefixLists: gather(s, func(r *regional) *table[PrefixList] { return &r.lists }, keep[PrefixList]),
		ACLs:        gather(s, func(r *regional) *table[NetworkACL] { return &r.acls }, keep[NetworkACL]),
		RouteTables: gather(s, func(r *regional) *table[RouteTable] { return &r.routeTables }, func(t RouteTable) (RouteTable, bool) { return s.withStates(t), true }),
		Gateways:    gather(s, func(r *regional) *table[InternetGateway] { return &r.gateways }, keep[InternetGateway]),
		NATGateways: gather(s, func(r *regional) *table[NATGateway] { return &r.nats }, func(g NATGateway) (NATGateway, bool) { return g, g.DeletedAt.IsZero() }),
		Addresses:   gather(s, func(r *regional) *table[Address] { return &r.addresses }, keep[Address]),
		Peerings:    s.peeringsNow(),

		TransitGateways:    gather(s, func(r *regional) *table[TransitGateway] { return &r.hubs }, keep[TransitGateway]),
		TransitAttachments: gather(s, func(r *regional) *table[TransitAttachment] { return &r.spokes }, keep[TransitAttachment]),
		TransitTables:      gather(s, func(r *regional) *table[TransitRouteTable] { return &r.hubTables }, func(t TransitRouteTable) (TransitRouteTable, bool) { return s.withPropagated(t), true }),

		Trunks:       gather(s, func(r *regional) *table[TrunkAssociation] { return &r.trunks }, keep[TrunkAssociation]),
		Reservations: gather(s, func(r *regional) *table[CIDRReservation] { return &r.reservations }, keep[CIDRReservation]),

		FlowLogs: gather(s, func(r *regional) *table[FlowLog] { return &r.flowLogs }, keep[FlowLog]),
	}
}

func keep[T any](v T) (T, bool) { return v, true }

// gather copies a table of every region, in the order of creation. Each row is
// shown while its region is the one of s.
func gather[T interface{ clone() T }](s *state, of func(*regional) *table[T], show func(T) (T, bool)) []T {
	type placed struct {
		seq uint64
		val T
	}
	here := s.regional
	defer func() { s.regional = here }()
	var found []placed
	for _, name := range s.cfg.Regions {
		s.regional = s.regions[name]
		for _, r := range of(s.regional).order {
			if v, ok := show(r.val); ok {
				found = append(found, placed{r.seq, v.clone()})
			}
		}
	}
	if len(s.cfg.Regions) > 1 {
		slices.SortFunc(found, func(a, b placed) int { return cmp.Compare(a.seq, b.seq) })
	}
	var out []T
	for _, p := range found {
		out = append(out, p.val)
	}
	return out
}
