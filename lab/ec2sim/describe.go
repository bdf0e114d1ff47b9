package ec2sim

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

func one[T any](field func(T) string) func(*state, T) []string {
	return func(_ *state, item T) []string { return []string{field(item)} }
}

func texts[T fmt.Stringer](list ...T) []string {
	var out []string
	for _, v := range list {
		out = append(out, v.String())
	}
	return out
}

func ownerField[T any](s *state, _ T) []string { return []string{s.cfg.Account} }

var vpcListing = listing[VPC]{
	action: "DescribeVpcs", maxPage: 1000, idsName: "vpcId",
	tags: func(v VPC) map[string]string { return v.Tags },
	fields: map[string]func(*state, VPC) []string{
		"vpc-id":                            one(func(v VPC) string { return v.ID }),
		"cidr":                              one(func(v VPC) string { return v.CIDRs[0].String() }),
		"cidr-block-association.cidr-block": func(_ *state, v VPC) []string { return texts(v.CIDRs...) },
		"state":                             one(func(VPC) string { return "available" }),
		"is-default":                        one(func(VPC) string { return "false" }),
		"owner-id":                          ownerField[VPC],
	},
}

// DescribeVPCs lists VPCs.
func (c *Cloud) DescribeVPCs(q Query) (Page[VPC], error) { return cloned(call(c, q, describeVPCs)) }

func cloned[T interface{ clone() T }](p Page[T], err error) (Page[T], error) {
	p.Items = cloneAll(p.Items)
	return p, err
}

func describeVPCs(s *state, q Query) (Page[VPC], error) {
	if err := known(&s.vpcs, kindVPC, q.IDs); err != nil {
		return Page[VPC]{}, err
	}
	return vpcListing.apply(s, q, rows(&s.vpcs, q.IDs))
}

var subnetListing = listing[Subnet]{
	action: "DescribeSubnets", maxPage: 1000, idsName: "subnetId",
	tags: func(n Subnet) map[string]string { return n.Tags },
	fields: map[string]func(*state, Subnet) []string{
		"subnet-id":                  one(func(n Subnet) string { return n.ID }),
		"vpc-id":                     one(func(n Subnet) string { return n.VPCID }),
		"availability-zone":          one(func(n Subnet) string { return n.Zone }),
		"availabilityZone":           one(func(n Subnet) string { return n.Zone }),
		"availability-zone-id":       func(s *state, n Subnet) []string { return []string{s.zoneID(n.Zone)} },
		"availabilityZoneId":         func(s *state, n Subnet) []string { return []string{s.zoneID(n.Zone)} },
		"cidr":                       one(func(n Subnet) string { return n.CIDR.String() }),
		"cidr-block":                 one(func(n Subnet) string { return n.CIDR.String() }),
		"cidrBlock":                  one(func(n Subnet) string { return n.CIDR.String() }),
		"map-public-ip-on-launch":    one(func(n Subnet) string { return strconv.FormatBool(n.MapPublic) }),
		"available-ip-address-count": func(s *state, n Subnet) []string { return []string{strconv.Itoa(s.withFree(n).Available)} },
		"state":                      one(func(Subnet) string { return "available" }),
		"owner-id":                   ownerField[Subnet],
	},
}

// DescribeSubnets lists subnets.
func (c *Cloud) DescribeSubnets(q Query) (Page[Subnet], error) {
	return cloned(call(c, q, describeSubnets))
}

func describeSubnets(s *state, q Query) (Page[Subnet], error) {
	if err := known(&s.subnets, kindSubnet, q.IDs); err != nil {
		return Page[Subnet]{}, err
	}
	page, err := subnetListing.apply(s, q, rows(&s.subnets, q.IDs))
	for i, n := range page.Items {
		page.Items[i] = s.withFree(n)
	}
	return page, err
}

var groupListing = listing[SecurityGroup]{
	action: "DescribeSecurityGroups", maxPage: 1000, idsName: "groupId",
	tags: func(g SecurityGroup) map[string]string { return g.Tags },
	fields: ruleFilters(map[string]func(*state, SecurityGroup) []string{
		"group-id":    one(func(g SecurityGroup) string { return g.ID }),
		"group-name":  one(func(g SecurityGroup) string { return g.Name }),
		"vpc-id":      one(func(g SecurityGroup) string { return g.VPCID }),
		"description": one(func(g SecurityGroup) string { return g.Description }),
		"owner-id":    ownerField[SecurityGroup],
	}),
}

// DescribeSecurityGroups lists security groups.
func (c *Cloud) DescribeSecurityGroups(q Query) (Page[SecurityGroup], error) {
	return cloned(call(c, q, describeGroups))
}

func describeGroups(s *state, q Query) (Page[SecurityGroup], error) {
	if err := known(&s.groups, kindGroup, q.IDs); err != nil {
		return Page[SecurityGroup]{}, err
	}
	return groupListing.apply(s, q, rows(&s.groups, q.IDs))
}

// attachmentField reads something of the attachment of an ENI that has one.
func attachmentField(field func(Attachment) string) func(*state, NetworkInterface) []string {
	return func(_ *state, e NetworkInterface) []string {
		if e.Attachment == nil {
			return nil
		}
		return []string{field(*e.Attachment)}
	}
}

func eniAddresses(_ *state, e NetworkInterface) []string {
	return texts(append([]netip.Addr{e.Primary}, e.Secondary...)...)
}

var eniListing = listing[NetworkInterface]{
	action: "DescribeNetworkInterfaces", maxPage: 1000, idsName: "networkInterfaceId",
	tags: func(e NetworkInterface) map[string]string { return e.Tags },
	fields: map[string]func(*state, NetworkInterface) []string{
		"network-interface-id":         one(func(e NetworkInterface) string { return e.ID }),
		"vpc-id":                       one(func(e NetworkInterface) string { return e.VPCID }),
		"subnet-id":                    one(func(e NetworkInterface) string { return e.SubnetID }),
		"availability-zone":            one(func(e NetworkInterface) string { return e.Zone }),
		"availability-zone-id":         func(s *state, e NetworkInterface) []string { return []string{s.zoneID(e.Zone)} },
		"description":                  one(func(e NetworkInterface) string { return e.Description }),
		"mac-address":                  one(func(e NetworkInterface) string { return e.MAC.String() }),
		"status":                       one(func(e NetworkInterface) string { return e.Status }),
		"interface-type":               one(NetworkInterface.typeName),
		"source-dest-check":            one(func(e NetworkInterface) string { return strconv.FormatBool(e.SourceDestCheck) }),
		"private-dns-name":             func(s *state, e NetworkInterface) []string { return []string{s.privateDNS(e.Primary)} },
		"owner-id":                     ownerField[NetworkInterface],
		"group-id":                     func(_ *state, e NetworkInterface) []string { return e.Groups },
		"private-ip-address":           eniAddresses,
		"addresses.private-ip-address": eniAddresses,
		"association.public-ip": func(s *state, e NetworkInterface) []string {
			public, _ := s.publicOf(e, e.Primary)
			return []string{addrText(public)}
		},
		"attachment.attachment-id": attachmentField(func(a Attachment) string { return a.ID }),
		"attachment.instance-id":   attachmentField(func(a Attachment) string { return a.InstanceID }),
		"attachment.status":        attachmentField(func(a Attachment) string { return a.Status }),
		"attachment.device-index":  attachmentField(func(a Attachment) string { return strconv.Itoa(a.DeviceIndex) }),
		"attachment.delete-on-termination": attachmentField(func(a Attachment) string {
			return strconv.FormatBool(a.DeleteOnTermination)
		}),
	},
}

// DescribeNetworkInterfaces lists ENIs.
func (c *Cloud) DescribeNetworkInterfaces(q Query) (Page[NetworkInterface], error) {
	return cloned(call(c, q, describeENIs))
}

func describeENIs(s *state, q Query) (Page[NetworkInterface], error) {
	if err := known(&s.enis, kindENI, q.IDs); err != nil {
		return Page[NetworkInterface]{}, err
	}
	return eniListing.apply(s, q, rows(&s.enis, q.IDs))
}

var instanceListing = listing[Instance]{
	action: "DescribeInstances", maxPage: 1000, idsName: "instanceId",
	tags: func(i Instance) map[string]string { return i.Tags },
	fields: map[string]func(*state, Instance) []string{
		"instance-id":         one(func(i Instance) string { return i.ID }),
		"instance-type":       one(func(i Instance) string { return i.Type }),
		"instance-state-name": one(func(i Instance) string { return i.State }),
		"instance-state-code": one(func(i Instance) string { return strconv.Itoa(stateCode[i.State]) }),
		"image-id":            one(func(i Instance) string { return i.ImageID }),
		"vpc-id":              one(func(i Instance) string { return i.VPCID }),
		"subnet-id":           one(func(i Instance) string { return i.SubnetID }),
		"availability-zone":   one(func(i Instance) string { return i.Zone }),
		"private-dns-name":    one(func(i Instance) string { return i.PrivateDNSName }),
		"private-ip-address":  one(func(i Instance) string { return addrText(i.PrivateIP) }),
		"ip-address": func(s *state, i Instance) []string {
			e, _ := s.primaryOf(i)
			public, _ := s.publicOf(e, e.Primary)
			return []string{addrText(public)}
		},
		"reservation-id":                         one(func(i Instance) string { return i.ReservationID }),
		"client-token":                           one(func(i Instance) string { return i.ClientToken }),
		"key-name":                               one(func(i Instance) string { return i.KeyName }),
		"owner-id":                               ownerField[Instance],
		"network-interface.network-interface-id": func(_ *state, i Instance) []string { return i.Interfaces },
	},
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// DescribeInstances lists instances. One that has terminated stays listed for
// an hour.
func (c *Cloud) DescribeInstances(q Query) (Page[Instance], error) {
	return cloned(call(c, q, describeInstances))
}

func describeInstances(s *state, q Query) (Page[Instance], error) {
	if err := known(&s.instances, kindInstance, q.IDs); err != nil {
		return Page[Instance]{}, err
	}
	for _, id := range q.IDs {
		if i, _ := s.instances.get(id); s.forgotten(i) {
			return Page[Instance]{}, kindInstance.missing(id)
		}
	}
	all := rows(&s.instances, q.IDs)
	return instanceListing.apply(s, q, func(yield func(uint64, Instance) bool) {
		for at, i := range all {
			if !s.forgotten(i) && !yield(at, i) {
				return
			}
		}
	})
}

var tagListing = listing[TagDescription]{
	action: "DescribeTags", maxPage: 1000,
	fields: map[string]func(*state, TagDescription) []string{
		"resource-id":   one(func(t TagDescription) string { return t.ResourceID }),
		"resource-type": one(func(t TagDescription) string { return t.ResourceType }),
		"key":           one(func(t TagDescription) string { return t.Key }),
		"value":         one(func(t TagDescription) string { return t.Value }),
	},
}

// DescribeTags lists the tags of all resources. Its pages are counted, so a
// change between two of them may repeat or skip a tag.
func (c *Cloud) DescribeTags(q Query) (Page[TagDescription], error) {
	return call(c, q, describeTags)
}

func describeTags(s *state, q Query) (Page[TagDescription], error) {
	return tagListing.apply(s, q, counted(s.allTags()))
}

// counted yields a list with places from 1.
func counted[T any](list []T) iter.Seq2[uint64, T] {
	return func(yield func(uint64, T) bool) {
		for i, v := range list {
			if !yield(uint64(i+1), v) {
				return
			}
		}
	}
}

// instanceType is what an instance type allows of network interfaces.
type instanceType struct {
	Name   string
	limits vpc.Limits
}

var typeListing = listing[instanceType]{
	action: "DescribeInstanceTypes", maxPage: 100, idsName: "instanceType",
	fields: map[string]func(*state, instanceType) []string{
		"instance-type": one(func(t instanceType) string { return t.Name }),
		"hypervisor":    one(func(t instanceType) string { return t.limits.Hypervisor }),
		"bare-metal":    one(func(t instanceType) string { return strconv.FormatBool(t.limits.BareMetal) }),
	},
}

func describeInstanceTypes(s *state, q Query) (Page[instanceType], error) {
	names := q.IDs
	if len(names) == 0 {
		names = vpc.InstanceTypes()
		if q.MaxResults == 0 {
			q.MaxResults = typeListing.maxPage // EC2 pages this list whether asked to or not
		}
	}
	var types []instanceType
	var unknown []string
	for _, name := range names {
		limits, ok := vpc.LimitsOf(name)
		if !ok {
			unknown = append(unknown, name)
		}
		types = append(types, instanceType{name, limits})
	}
	if len(unknown) > 0 {
		return Page[instanceType]{}, fail("InvalidInstanceType", "The following supplied instance types do not exist: [%s]", strings.Join(unknown, ", "))
	}
	return typeListing.apply(s, q, counted(types))
}

// zone is an availability zone.
type zone struct{ Name, ID string }

var zoneListing = listing[zone]{
	action: "DescribeAvailabilityZones", maxPage: 1000,
	fields: map[string]func(*state, zone) []string{
		"zone-name":   one(func(z zone) string { return z.Name }),
		"zone-id":     one(func(z zone) string { return z.ID }),
		"region-name": func(s *state, _ zone) []string { return []string{s.region} },
		"zone-type":   one(func(zone) string { return "availability-zone" }),
		"state":       one(func(zone) string { return "available" }),
	},
}

// zoneQuery asks for zones by name, by identifier and by filter.
type zoneQuery struct {
	names, ids []string
	filters    []Filter
}

func describeZones(s *state, q zoneQuery) (Page[zone], error) {
	var zones []zone
	for _, name := range s.zones() {
		zones = append(zones, zone{name, s.zoneID(name)})
	}
	for _, name := range slices.Concat(q.names, q.ids) {
		if !slices.ContainsFunc(zones, func(z zone) bool { return z.Name == name || z.ID == name }) {
			return Page[zone]{}, invalidValue("Invalid availability zone: [%s]", name)
		}
	}
	zones = slices.DeleteFunc(zones, func(z zone) bool {
		return len(q.names) > 0 && !slices.Contains(q.names, z.Name) || len(q.ids) > 0 && !slices.Contains(q.ids, z.ID)
	})
	return zoneListing.apply(s, Query{Filters: q.filters}, counted(zones))
}
