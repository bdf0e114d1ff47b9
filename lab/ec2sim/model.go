package ec2sim

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"
)

// VPC is one virtual network.
type VPC struct {
	ID, Region      string
	CIDRs           []netip.Prefix // IPv4; the first is the VPC's own, masked
	MainRouteTable  string         // of the subnets that have no route table of their own
	MainAssociation string         // identifier of that tie
	Tags            map[string]string
	Attributes      VPCAttributes
}

// Subnet is a part of a VPC in one zone.
type Subnet struct {
	ID, VPCID string
	CIDR      netip.Prefix // IPv4, masked
	Zone      string       // such as "eu-west-1a"
	Available int          // addresses that nobody holds, reserved ones not counted
	MapPublic bool         // a launch gives its primary ENI a public address

	ACL, ACLAssociation               string // every subnet has one
	RouteTable, RouteTableAssociation string // both empty: the VPC's main one
	Tags                              map[string]string
}

// The status of a [NetworkInterface].
const (
	StatusAvailable = "available"
	StatusInUse     = "in-use"
)

// The status of an [Attachment]. A detached one is gone: its network interface
// has none.
const (
	StatusAttaching = "attaching"
	StatusAttached  = "attached"
	StatusDetaching = "detaching"
)

// NetworkInterface is an ENI. Primary, Secondary and each of Prefixes take one
// address slot of the ENI's limit.
type NetworkInterface struct {
	ID, SubnetID, VPCID, Zone string
	Description               string
	Type                      string // [TypeTrunk], [TypeBranch]; empty: [TypeInterface]
	MAC                       net.HardwareAddr
	Primary                   netip.Addr
	Secondary                 []netip.Addr   // IPv4, in the order they were assigned
	Prefixes                  []netip.Prefix // IPv4 /28s, in the order they were assigned
	Groups                    []string       // security group identifiers
	AutoPublic                netip.Addr     // public address of Primary that came with a launch; elastic ones are [Address]es
	SourceDestCheck           bool
	Tracking                  ConnectionTracking
	Status                    string
	Attachment                *Attachment // nil while the ENI is on no instance
	Tags                      map[string]string
}

// slots is how many of its address slots the ENI uses.
func (e NetworkInterface) slots() int { return 1 + len(e.Secondary) + len(e.Prefixes) }

// Attachment ties an ENI to an instance. With [Config.Attach] it takes its time,
// but for what comes with a launch:
//
//	At       Until           DeviceAt         Until:    after half of Attach to all of it
//	|--------|---------------|                DeviceAt: after at most half of Attach more
//	attaching attached        in the instance
type Attachment struct {
	ID, InstanceID         string
	DeviceIndex, CardIndex int
	Status                 string
	DeleteOnTermination    bool
	At                     time.Time // when it was asked for

	Until    time.Time // the status does not go on before; zero: it may at once
	DeviceAt time.Time // the device is not in the instance before; zero: it may be
}

// The states of an [Instance].
const (
	StatePending      = "pending"
	StateRunning      = "running"
	StateShuttingDown = "shutting-down"
	StateTerminated   = "terminated"
	StateStopping     = "stopping"
	StateStopped      = "stopped"
)

// Instance is a virtual machine. One that has terminated stays visible for an
// hour, without network interfaces.
type Instance struct {
	ID, ReservationID     string
	LaunchIndex           int
	Type, ImageID         string
	State                 string
	VPCID, SubnetID, Zone string // of the primary ENI
	PrivateIP             netip.Addr
	PrivateDNSName        string   // such as "ip-10-0-1-5.eu-west-1.compute.internal"
	Interfaces            []string // ENI identifiers by card, then device index
	Name                  string   // the tag "Name"
	Tags                  map[string]string
	UserData              string // as the instance sees it, not in base64
	Metadata              Metadata
	InstanceProfile       string // ARN or name
	KeyName               string
	ClientToken           string
	LaunchedAt            time.Time
	TerminatedAt          time.Time // zero while it lives
	Reboots               int       // how often RebootInstances asked for one
	PublicAtStart         bool      // it is stopped, and its start brings a public address
}

// Metadata says how the instance metadata service answers.
type Metadata struct {
	HopLimit int    // IP TTL of the replies, 1 to 64
	Tokens   string // "required" or "optional"
	Disabled bool
}

// Snapshot is everything at one moment in all regions, a copy of its own. Every
// list is in the order of creation. What has been deleted is not in it, but for
// instances, which stay for an hour.
type Snapshot struct {
	VPCs        []VPC
	Subnets     []Subnet
	Groups      []SecurityGroup
	Interfaces  []NetworkInterface
	Instances   []Instance
	PrefixLists []PrefixList
	ACLs        []NetworkACL
	RouteTables []RouteTable // with the state of each route
	Gateways    []InternetGateway
	NATGateways []NATGateway // in any state but "deleted"
	Addresses   []Address
	Peerings    []VPCPeering // in any state

	TransitGateways    []TransitGateway
	TransitAttachments []TransitAttachment
	TransitTables      []TransitRouteTable // with the propagated routes

	FlowLogs []FlowLog

	Trunks       []TrunkAssociation
	Reservations []CIDRReservation
}

func (v VPC) clone() VPC {
	v.CIDRs, v.Tags = slices.Clone(v.CIDRs), maps.Clone(v.Tags)
	return v
}

func (s Subnet) clone() Subnet {
	s.Tags = maps.Clone(s.Tags)
	return s
}

func (e NetworkInterface) clone() NetworkInterface {
	e.MAC, e.Secondary, e.Prefixes = slices.Clone(e.MAC), slices.Clone(e.Secondary), slices.Clone(e.Prefixes)
	e.Groups, e.Tags = slices.Clone(e.Groups), maps.Clone(e.Tags)
	if e.Attachment != nil {
		a := *e.Attachment
		e.Attachment = &a
	}
	return e
}

func (i Instance) clone() Instance {
	i.Interfaces, i.Tags = slices.Clone(i.Interfaces), maps.Clone(i.Tags)
	return i
}
