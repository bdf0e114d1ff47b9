// Package world describes a lab: its VPCs, subnets and instances, as a person
// writes them in a YAML file, and brings such a description to life.
//
//	world.yaml --Parse--> World --(checked by Validate)--> the running lab
//
// The description half (this file, parse.go and validate.go) is pure: no I/O,
// clock or goroutine; the same bytes give the same World or the same error. A
// World is a value: nothing in the package changes one that it was handed, so
// it may be read from several goroutines.
//
// Every object keeps where it was written, so that every complaint, also one
// about two objects that do not fit together, names file and line.
package world

import (
	_ "embed"
	"fmt"
	"net/netip"
)

// Pos is a place in a world file. The zero Pos belongs to a description that
// was built in Go instead of parsed.
type Pos struct {
	File string
	Line int // from 1
}

// String gives "file:line", and "world" for the zero Pos.
func (p Pos) String() string {
	if p == (Pos{}) {
		return "world"
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// World is one lab: what exists in it when it starts.
type World struct {
	Pos       Pos
	Name      string // of the lab: [a-z0-9-], 1 to 20 characters
	Region    string // such as "eu-west-1"; of the VPCs that name none
	VPCs      []VPC
	Instances []Instance

	PrefixLists     []PrefixList
	Peerings        []Peering
	TransitGateways []TransitGateway
	Internet        Internet
	EC2             EC2
	Roles           []Role

	keys keyLines
}

// VPC is a virtual private cloud. Two VPCs may have the same addresses.
type VPC struct {
	Pos     Pos
	Name    string
	Region  string         // empty: the World's
	CIDRs   []netip.Prefix // IPv4, the first is the primary one
	Subnets []Subnet

	// InternetGateway attaches one; the main route table leads to it, unless
	// the World describes that table.
	InternetGateway bool
	NATGateways     []NATGateway
	SecurityGroups  []SecurityGroup
	NetworkACLs     []NetworkACL
	RouteTables     []RouteTable

	// FlowLogs records what all its ENIs carry and refuse.
	FlowLogs bool

	keys keyLines
}

// Subnet is one subnet of a VPC, in one availability zone.
type Subnet struct {
	Pos  Pos
	Name string // unique in its VPC
	CIDR netip.Prefix
	Zone string // the zone's full name: region and letter, such as "eu-west-1a"

	// PublicAddresses gives each launch a public address.
	PublicAddresses bool

	keys keyLines
}

// Instance is one EC2 instance, launched when the lab starts.
type Instance struct {
	Pos                Pos
	Name               string
	Type               string // such as "m5.large"
	VPC                string // name of the VPC of its primary ENI
	Subnet             string // name of the subnet, in VPC
	HopLimit           int    // IMDS response hop limit, 1 to 64
	SecondaryAddresses int    // of the primary ENI, at launch
	Prefixes           int    // /28s of the primary ENI, at launch
	Daemons            []Daemon

	SecurityGroups    []string // of its VPC; none: the VPC's default one
	ElasticAddress    bool     // maps one to its primary address
	NoSourceDestCheck bool     // turns the check of its primary ENI off
	Role              string   // whose credentials it gets; none: that of [AgentRole], [NoRole]: no role

	keys keyLines
}

// Daemon is a program that runs in an instance from its boot on: the node
// daemons of a CNI, whoever made it.
type Daemon struct {
	Pos     Pos
	Name    string // unique in its instance
	Command []string
	// Capabilities lists exactly what the daemon may do, without "CAP_" and
	// sorted. Nil means all; empty but not nil means none.
	Capabilities []string
	Env          map[string]string

	keys keyLines
}

// FindSubnet gives the VPC and the subnet that the instance is in. ok is false
// where the World does not have them, which Validate complains about.
func (w *World) FindSubnet(in Instance) (v VPC, s Subnet, ok bool) {
	for _, v := range w.VPCs {
		if v.Name != in.VPC {
			continue
		}
		for _, s := range v.Subnets {
			if s.Name == in.Subnet {
				return v, s, true
			}
		}
	}
	return VPC{}, Subnet{}, false
}

// DefaultYAML is the world that a lab runs when it is given none, written as
// the documentation of the format.
//
//go:embed default.yaml
var DefaultYAML []byte

// Default is the World of [DefaultYAML]. Each call gives a new one.
func Default() *World {
	w, err := Parse("default.yaml", DefaultYAML)
	if err != nil {
		panic("world: the embedded default.yaml is wrong: " + err.Error())
	}
	return w
}

// keyLines says for each key of an object where it is written, "cidrs[1]" for
// the elements of a list. It is nil for a description built in Go.
type keyLines map[string]keyAt

type keyAt struct {
	line int
	bad  bool // the value could not be read, and the parser has said so
}

// at is where key is written, and where the object begins when that is not known.
func (k keyLines) at(object Pos, key string) Pos {
	if a, ok := k[key]; ok {
		return Pos{File: object.File, Line: a.line}
	}
	return object
}
