package ec2sim

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// The types here have the shape of EC2's replies. Their source is the response
// elements in the Amazon EC2 API Reference.

// set is a list: each member is an element "item".
type set[T any] struct {
	Items []T `xml:"item"`
}

func setOf[V, X any](list []V, show func(V) X) set[X] {
	var out set[X]
	for _, v := range list {
		out.Items = append(out.Items, show(v))
	}
	return out
}

type xmlTag struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

func showTags(tags map[string]string) set[xmlTag] {
	return setOf(slices.Sorted(maps.Keys(tags)), func(key string) xmlTag { return xmlTag{key, tags[key]} })
}

func stamp(t time.Time) string { return t.Format("2006-01-02T15:04:05.000Z") }

type doneReply struct {
	reply
	Return bool `xml:"return"`
}

func renderDone(*state, struct{}) replier { return &doneReply{Return: true} }

type xmlVPC struct {
	VPCID       string           `xml:"vpcId"`
	OwnerID     string           `xml:"ownerId"`
	State       string           `xml:"state"`
	CIDR        string           `xml:"cidrBlock"`
	CIDRs       set[xmlVPCBlock] `xml:"cidrBlockAssociationSet"`
	DHCPOptions string           `xml:"dhcpOptionsId"`
	Tenancy     string           `xml:"instanceTenancy"`
	Default     bool             `xml:"isDefault"`
	Tags        set[xmlTag]      `xml:"tagSet"`
}

type xmlVPCBlock struct {
	ID    string `xml:"associationId"`
	CIDR  string `xml:"cidrBlock"`
	State string `xml:"cidrBlockState>state"`
}

func (s *state) showVPC(v VPC) xmlVPC {
	return xmlVPC{
		VPCID: v.ID, OwnerID: s.cfg.Account, State: "available", CIDR: v.CIDRs[0].String(),
		CIDRs:       setOf(v.CIDRs, func(p netip.Prefix) xmlVPCBlock { return showVPCBlock(v, p) }),
		DHCPOptions: "default", Tenancy: "default", Tags: showTags(v.Tags),
	}
}

// showVPCBlock describes one block of a VPC. The association has no life of its
// own here: its identifier follows from the VPC's, and which block it is.
func showVPCBlock(v VPC, p netip.Prefix) xmlVPCBlock {
	vpc := v.ID[len(kindVPC.prefix):]
	id := fmt.Sprintf("vpc-cidr-assoc-%s%02x", vpc[:len(vpc)-2], slices.Index(v.CIDRs, p))
	return xmlVPCBlock{id, p.String(), "associated"}
}

func renderAssociateVPCBlock(_ *state, v VPC) replier {
	return &struct {
		reply
		VPCID string      `xml:"vpcId"`
		Block xmlVPCBlock `xml:"cidrBlockAssociation"`
	}{VPCID: v.ID, Block: showVPCBlock(v, v.CIDRs[len(v.CIDRs)-1])}
}

func renderCreateVPC(s *state, v VPC) replier {
	return &struct {
		reply
		VPC xmlVPC `xml:"vpc"`
	}{VPC: s.showVPC(v)}
}

func renderVPCs(s *state, page Page[VPC]) replier {
	return &struct {
		reply
		Set  set[xmlVPC] `xml:"vpcSet"`
		Next string      `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showVPC), Next: page.NextToken}
}

type xmlSubnet struct {
	ID        string      `xml:"subnetId"`
	ARN       string      `xml:"subnetArn"`
	State     string      `xml:"state"`
	OwnerID   string      `xml:"ownerId"`
	VPCID     string      `xml:"vpcId"`
	CIDR      string      `xml:"cidrBlock"`
	Available int         `xml:"availableIpAddressCount"`
	Zone      string      `xml:"availabilityZone"`
	ZoneID    string      `xml:"availabilityZoneId"`
	Default   bool        `xml:"defaultForAz"`
	PublicIP  bool        `xml:"mapPublicIpOnLaunch"`
	IPv6      bool        `xml:"assignIpv6AddressOnCreation"`
	Tags      set[xmlTag] `xml:"tagSet"`
}

func (s *state) arn(resource, id string) string {
	return "arn:aws:ec2:" + s.cfg.Region + ":" + s.cfg.Account + ":" + resource + "/" + id
}

func (s *state) showSubnet(n Subnet) xmlSubnet {
	return xmlSubnet{
		ID: n.ID, ARN: s.arn("subnet", n.ID), State: "available", OwnerID: s.cfg.Account, VPCID: n.VPCID,
		CIDR: n.CIDR.String(), Available: n.Available, Zone: n.Zone, ZoneID: s.zoneID(n.Zone), Tags: showTags(n.Tags),
	}
}

func renderCreateSubnet(s *state, n Subnet) replier {
	return &struct {
		reply
		Subnet xmlSubnet `xml:"subnet"`
	}{Subnet: s.showSubnet(n)}
}

func renderSubnets(s *state, page Page[Subnet]) replier {
	return &struct {
		reply
		Set  set[xmlSubnet] `xml:"subnetSet"`
		Next string         `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showSubnet), Next: page.NextToken}
}

type xmlGroup struct {
	OwnerID     string      `xml:"ownerId"`
	ID          string      `xml:"groupId"`
	ARN         string      `xml:"securityGroupArn"`
	Name        string      `xml:"groupName"`
	Description string      `xml:"groupDescription"`
	VPCID       string      `xml:"vpcId"`
	Ingress     struct{}    `xml:"ipPermissions"`
	Egress      struct{}    `xml:"ipPermissionsEgress"`
	Tags        set[xmlTag] `xml:"tagSet"`
}

func renderCreateGroup(s *state, g SecurityGroup) replier {
	return &struct {
		doneReply
		ID   string      `xml:"groupId"`
		ARN  string      `xml:"securityGroupArn"`
		Tags set[xmlTag] `xml:"tagSet"`
	}{doneReply: doneReply{Return: true}, ID: g.ID, ARN: s.arn("security-group", g.ID), Tags: showTags(g.Tags)}
}

func renderGroups(s *state, page Page[SecurityGroup]) replier {
	return &struct {
		reply
		Set  set[xmlGroup] `xml:"securityGroupInfo"`
		Next string        `xml:"nextToken,omitempty"`
	}{Next: page.NextToken, Set: setOf(page.Items, func(g SecurityGroup) xmlGroup {
		return xmlGroup{
			OwnerID: s.cfg.Account, ID: g.ID, ARN: s.arn("security-group", g.ID), Name: g.Name,
			Description: g.Description, VPCID: g.VPCID, Tags: showTags(g.Tags),
		}
	})}
}

type xmlType struct {
	Name       string     `xml:"instanceType"`
	Hypervisor string     `xml:"hypervisor,omitempty"`
	BareMetal  bool       `xml:"bareMetal"`
	Network    xmlNetwork `xml:"networkInfo"`
}

type xmlNetwork struct {
	ENIs        int          `xml:"maximumNetworkInterfaces"`
	Cards       int          `xml:"maximumNetworkCards"`
	DefaultCard int          `xml:"defaultNetworkCardIndex"`
	Set         set[xmlCard] `xml:"networkCards"`
	IPv4        int          `xml:"ipv4AddressesPerInterface"`
}

type xmlCard struct {
	Index int `xml:"networkCardIndex"`
	ENIs  int `xml:"maximumNetworkInterfaces"`
}

func showType(t instanceType) xmlType {
	out := xmlType{Name: t.Name, BareMetal: t.limits.BareMetal, Network: showNetwork(t.limits)}
	if t.limits.Hypervisor != "unknown" {
		out.Hypervisor = t.limits.Hypervisor
	}
	return out
}

func showNetwork(l vpc.Limits) xmlNetwork {
	n := xmlNetwork{Cards: len(l.Cards), DefaultCard: l.DefaultCard, IPv4: l.IPv4PerENI}
	for i, enis := range l.Cards {
		n.ENIs += enis
		n.Set.Items = append(n.Set.Items, xmlCard{i, enis})
	}
	return n
}

func renderTypes(_ *state, page Page[instanceType]) replier {
	return &struct {
		reply
		Set  set[xmlType] `xml:"instanceTypeSet"`
		Next string       `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, showType), Next: page.NextToken}
}

type xmlZone struct {
	Name   string `xml:"zoneName"`
	ID     string `xml:"zoneId"`
	State  string `xml:"zoneState"`
	Region string `xml:"regionName"`
	Group  string `xml:"groupName"`
	Border string `xml:"networkBorderGroup"`
	OptIn  string `xml:"optInStatus"`
	Type   string `xml:"zoneType"`
}

func renderZones(s *state, page Page[zone]) replier {
	return &struct {
		reply
		Set set[xmlZone] `xml:"availabilityZoneInfo"`
	}{Set: setOf(page.Items, func(z zone) xmlZone {
		return xmlZone{z.Name, z.ID, "available", s.cfg.Region, s.cfg.Region, s.cfg.Region, "opt-in-not-required", "availability-zone"}
	})}
}

type xmlTagOf struct {
	ID       string `xml:"resourceId"`
	Resource string `xml:"resourceType"`
	xmlTag
}

func renderTags(_ *state, page Page[TagDescription]) replier {
	return &struct {
		reply
		Set  set[xmlTagOf] `xml:"tagSet"`
		Next string        `xml:"nextToken,omitempty"`
	}{Next: page.NextToken, Set: setOf(page.Items, func(t TagDescription) xmlTagOf {
		return xmlTagOf{ID: t.ResourceID, Resource: t.ResourceType, xmlTag: xmlTag{t.Key, t.Value}}
	})}
}
