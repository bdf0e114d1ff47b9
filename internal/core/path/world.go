package path

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Form is the version of the form of a world's JSON that this package writes
// and reads.
const Form = 1

// ErrForm is returned for bytes that are no world, or one of another form. The
// text says which part.
var ErrForm = errors.New("not a world of this form")

// World is all that is known: VPCs, what joins them, and nodes with their pods.
type World struct {
	Form            int                    `json:"form"`
	Name            string                 `json:"name"`
	Taken           string                 `json:"taken,omitempty"` // when, as the collector wrote it; shown, never read
	VPCs            []VPC                  `json:"vpcs"`
	Peerings        Part[[]Peering]        `json:"peerings,omitzero"`
	TransitGateways Part[[]TransitGateway] `json:"transitGateways,omitzero"`
	Nodes           []Node                 `json:"nodes"`
	Services        Part[[]Service]        `json:"services,omitzero"`
	Pods            Part[[]ListedPod]      `json:"pods,omitzero"` // all that an API server lists, also those of nodes that are not here
}

// VPC is one VPC as its own account's Describe calls show it. One that is named
// by a peering and is not here is another's, and blind.
type VPC struct {
	ID          string                          `json:"id"`
	Name        string                          `json:"name"` // how places of it are labelled: "a" in a/rtb-0a
	Account     string                          `json:"account,omitempty"`
	Region      string                          `json:"region"`
	CIDRs       Part[[]netip.Prefix]            `json:"cidrs,omitzero"`
	Subnets     Part[[]Subnet]                  `json:"subnets,omitzero"`
	RouteTables Part[[]RouteTable]              `json:"routeTables,omitzero"`
	ACLs        Part[[]ACL]                     `json:"acls,omitzero"`
	Groups      Part[[]Group]                   `json:"groups,omitzero"`
	ENIs        Part[[]ENI]                     `json:"enis,omitzero"`
	PrefixLists Part[map[string][]netip.Prefix] `json:"prefixLists,omitzero"`
	NATGateways Part[[]NATGateway]              `json:"natGateways,omitzero"`
}

// Subnet is one subnet.
type Subnet struct {
	ID   string       `json:"id"`
	CIDR netip.Prefix `json:"cidr"`
	Zone string       `json:"zone,omitempty"`
}

// RouteTable is one route table; the main one serves the subnets that are
// associated with none.
type RouteTable struct {
	ID      string     `json:"id"`
	Main    bool       `json:"main,omitempty"`
	Subnets []string   `json:"subnets,omitempty"`
	Routes  []VPCRoute `json:"routes"`
}

// ACL is one network ACL; the default one serves the subnets that are
// associated with none.
type ACL struct {
	ID      string    `json:"id"`
	Default bool      `json:"default,omitempty"`
	Subnets []string  `json:"subnets,omitempty"`
	In      []ACLRule `json:"in"`
	Out     []ACLRule `json:"out"`
}

// Group is one security group.
type Group struct {
	ID  string      `json:"id"`
	In  []GroupRule `json:"in"`
	Out []GroupRule `json:"out"`
}

// ENI is one network interface.
type ENI struct {
	ID        string                    `json:"id"`
	Subnet    string                    `json:"subnet"`
	Addresses []netip.Addr              `json:"addresses"` // the primary one first
	Prefixes  []netip.Prefix            `json:"prefixes,omitempty"`
	Groups    Part[[]string]            `json:"groups,omitzero"`
	Check     Part[bool]                `json:"sourceDestCheck,omitzero"`
	Attached  Part[bool]                `json:"attached,omitzero"`
	Public    map[netip.Addr]netip.Addr `json:"public,omitempty"` // private to public; an ENI with none has none
}

// Owns reports whether the VPC delivers a packet for addr to this ENI.
func (e *ENI) Owns(addr netip.Addr) bool {
	return slices.Contains(e.Addresses, addr) ||
		slices.ContainsFunc(e.Prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// NATGateway is one NAT gateway. Its ENI has no security group and no check.
type NATGateway struct {
	ID      string     `json:"id"`
	Subnet  string     `json:"subnet"`
	Private netip.Addr `json:"private"`
	Public  netip.Addr `json:"public,omitzero"` // none: a private NAT gateway
	State   string     `json:"state"`           // EC2's word; "available" works
}

// Peering is one peering connection of two VPCs.
type Peering struct {
	ID    string    `json:"id"`
	State string    `json:"state"` // EC2's word; "active" works
	VPCs  [2]string `json:"vpcs"`
}

// TransitGateway joins VPCs by attachments, each with a route table of the
// gateway's.
type TransitGateway struct {
	ID              string         `json:"id"`
	GroupReferences bool           `json:"groupReferences,omitempty"` // SecurityGroupReferencingSupport
	Attachments     []Attachment   `json:"attachments"`
	Tables          []TransitTable `json:"tables"`
}

// Attachment is a VPC's attachment to a transit gateway.
type Attachment struct {
	ID      string   `json:"id"`
	VPC     string   `json:"vpc"`
	Subnets []string `json:"subnets"`
	State   string   `json:"state"` // "available" works
	Table   string   `json:"table"` // the table it is associated with, or empty
}

// TransitTable is one of a transit gateway's route tables. A route's target is
// an attachment.
type TransitTable struct {
	ID     string     `json:"id"`
	Routes []VPCRoute `json:"routes"`
}

// Node is one instance with its kernel and pods.
type Node struct {
	Name    string      `json:"name"`
	Cluster string      `json:"cluster"` // labels its places, as VPC.Name does
	Host    Namespace   `json:"host"`
	Pods    Part[[]Pod] `json:"pods,omitzero"`
	// Counters of nstat, each with one or two readings, the later one last.
	Counters map[string][]int64 `json:"counters,omitempty"`
}

// Pod is one pod of a node.
type Pod struct {
	Namespace string     `json:"namespace"`
	Name      string     `json:"name"`
	Addr      netip.Addr `json:"addr"`
	Net       Namespace  `json:"net"`
}

const maxWorld = 256 << 20 // bytes of JSON; 100 nodes with 737 pods are 80 MiB

// ParseWorld reads a world's JSON. The error wraps [ErrForm] and names the part.
func ParseWorld(b []byte) (*World, error) {
	if len(b) > maxWorld {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrForm, len(b), maxWorld)
	}
	var w World
	if err := strict(b, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if err := w.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	return &w, nil
}

// JSON is the world as ParseWorld reads it, indented for people.
func (w *World) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(w, "", " ")
	return append(b, '\n'), err
}

// Validate names what no collector could have seen: two things of one name, or
// an address that is not IPv4.
func (w *World) Validate() error {
	if w.Form != Form {
		return fmt.Errorf("form %d, want %d", w.Form, Form)
	}
	seen := map[string]bool{}
	once := func(what, name string) error {
		if name == "" || seen[what+name] {
			return fmt.Errorf("%s %q: without a name, or there twice", what, name)
		}
		seen[what+name] = true
		return nil
	}
	for i := range w.VPCs {
		v := &w.VPCs[i]
		if err := once("vpc ", v.ID); err != nil {
			return err
		}
		for j := range v.ENIs.Value {
			e := &v.ENIs.Value[j]
			if err := once("eni ", e.ID); err != nil {
				return err
			}
			if len(e.Addresses) == 0 || slices.ContainsFunc(e.Addresses, func(a netip.Addr) bool { return !a.Is4() }) {
				return fmt.Errorf("eni %s: no IPv4 address, or another kind", e.ID)
			}
		}
	}
	for i := range w.Nodes {
		n := &w.Nodes[i]
		if err := once("node ", n.Cluster+":"+n.Name); err != nil {
			return err
		}
		for j := range n.Pods.Value {
			p := &n.Pods.Value[j]
			if err := once("pod ", n.Cluster+":"+p.ID()); err != nil {
				return err
			}
			if !p.Addr.Is4() {
				return fmt.Errorf("pod %s: address %s is not IPv4", p.ID(), p.Addr)
			}
		}
	}
	for i := range w.Services.Value {
		s := &w.Services.Value[i]
		if err := once("Service ", s.Cluster+":"+s.ID()); err != nil {
			return err
		}
		if s.Addr.IsValid() && !s.Addr.Is4() || slices.ContainsFunc(s.Backends.Value, func(b Backend) bool { return !b.Addr.Is4() }) {
			return fmt.Errorf("Service %s: an address that is not IPv4", s.ID())
		}
	}
	for i := range w.Pods.Value {
		p := &w.Pods.Value[i]
		if err := once("listed pod ", p.Cluster+":"+p.ID()); err != nil {
			return err
		}
		if !p.Addr.Is4() {
			return fmt.Errorf("listed pod %s: address %s is not IPv4", p.ID(), p.Addr)
		}
	}
	return nil
}

// ID is namespace/name.
func (p *Pod) ID() string { return p.Namespace + "/" + p.Name }

// vpc finds a VPC, or nil.
func (w *World) vpc(id string) *VPC {
	for i := range w.VPCs {
		if w.VPCs[i].ID == id {
			return &w.VPCs[i]
		}
	}
	return nil
}

// eni finds an ENI and its VPC, or nil.
func (w *World) eni(id string) (*ENI, *VPC) {
	for i := range w.VPCs {
		v := &w.VPCs[i]
		for j := range v.ENIs.Value {
			if v.ENIs.Value[j].ID == id {
				return &v.ENIs.Value[j], v
			}
		}
	}
	return nil, nil
}

// owner finds the ENI of the VPC that has the address, or nil.
func (v *VPC) owner(addr netip.Addr) *ENI {
	for j := range v.ENIs.Value {
		if v.ENIs.Value[j].Owns(addr) {
			return &v.ENIs.Value[j]
		}
	}
	return nil
}

// has reports whether the address is in one of the VPC's CIDRs.
func (v *VPC) has(addr netip.Addr) bool {
	return slices.ContainsFunc(v.CIDRs.Value, func(p netip.Prefix) bool { return p.Contains(addr) })
}

func (v *VPC) subnet(id string) *Subnet {
	for i := range v.Subnets.Value {
		if v.Subnets.Value[i].ID == id {
			return &v.Subnets.Value[i]
		}
	}
	return nil
}

// table is the route table that serves the subnet. Source: "Subnet route
// tables", Amazon VPC User Guide.
func (v *VPC) table(subnet string) *RouteTable {
	var main *RouteTable
	for i := range v.RouteTables.Value {
		t := &v.RouteTables.Value[i]
		if slices.Contains(t.Subnets, subnet) {
			return t
		}
		if t.Main {
			main = t
		}
	}
	return main
}

func (v *VPC) acl(subnet string) *ACL {
	var def *ACL
	for i := range v.ACLs.Value {
		a := &v.ACLs.Value[i]
		if slices.Contains(a.Subnets, subnet) {
			return a
		}
		if a.Default {
			def = a
		}
	}
	return def
}

func (v *VPC) group(id string) *Group {
	for i := range v.Groups.Value {
		if v.Groups.Value[i].ID == id {
			return &v.Groups.Value[i]
		}
	}
	return nil
}

func (v *VPC) natGateway(id string) *NATGateway {
	for i := range v.NATGateways.Value {
		if v.NATGateways.Value[i].ID == id {
			return &v.NATGateways.Value[i]
		}
	}
	return nil
}
