package imds

import (
	"net/netip"
	"time"
)

// Metadata is what one instance is, at one moment. Whoever gives it away must
// not change it afterwards.
type Metadata struct {
	InstanceID         string
	InstanceType       string // m5.large
	Architecture       string // x86_64 (also if empty) or arm64
	Region             string // us-west-2
	AvailabilityZone   string // us-west-2a
	AvailabilityZoneID string // usw2-az1
	AccountID          string // 12 digits
	AMI                string
	LaunchTime         time.Time
	LocalHostname      string     // ip-10-0-0-4.us-west-2.compute.internal
	LocalIPv4          netip.Addr // primary address of the primary ENI
	PublicIPv4         netip.Addr // that it has on the internet; zero: none
	MAC                string     // of the primary ENI, lower-case, colons
	Interfaces         []Interface
	Tags               map[string]string // nil: tags are not to be had by metadata
	Credentials        *Credentials      // nil: the instance has no role
}

// Interface is one attached ENI.
type Interface struct {
	MAC              string // lower-case, colons: the name of the directory
	ID               string
	DeviceNumber     int
	NetworkCard      int
	LocalIPv4s       []netip.Addr // the primary first
	Public           []Association
	Prefixes         []netip.Prefix // /28s
	SubnetID         string
	SubnetCIDR       netip.Prefix
	VPCID            string
	VPCCIDRs         []netip.Prefix // the VPC's first CIDR first
	SecurityGroupIDs []string
	SecurityGroups   []string // names, in the order of the IDs
	LocalHostname    string
	OwnerID          string // account
}

// Association is a public address and the private one that it stands for.
type Association struct{ Public, Private netip.Addr }

// Credentials are those of the instance's role.
type Credentials struct {
	Role            string // its name
	AccessKeyID     string
	SecretAccessKey string
	Token           string
	LastUpdated     time.Time
	Expiration      time.Time
}
