package ec2sim

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of tags. Source: "Tag restrictions", Amazon EC2 User Guide.
const (
	maxTags     = 50
	maxTagKey   = 128 // characters
	maxTagValue = 256
)

func checkTags(tags map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		switch {
		case key == "":
			return fail("InvalidTagKey.Malformed", "Tag keys cannot be empty.")
		case utf8.RuneCountInString(key) > maxTagKey:
			return invalidValue("Tag key exceeds the maximum length of %d characters", maxTagKey)
		case utf8.RuneCountInString(tags[key]) > maxTagValue:
			return invalidValue("Tag value exceeds the maximum length of %d characters", maxTagValue)
		case strings.HasPrefix(key, "aws:"):
			return invalidValue("Tag keys starting with 'aws:' are reserved for internal use")
		}
	}
	if len(tags) > maxTags {
		return fail("TagLimitExceeded", "You have reached the maximum number of tags on a resource (%d).", maxTags)
	}
	return nil
}

// CreateTagsInput sets tags of resources of any kind.
type CreateTagsInput struct {
	IDs  []string
	Tags map[string]string
}

// CreateTags sets tags, on all resources named or on none.
func (c *Cloud) CreateTags(in CreateTagsInput) error {
	_, err := call(c, in, createTags)
	return err
}

func createTags(s *state, in CreateTagsInput) (struct{}, error) {
	if len(in.Tags) == 0 {
		return struct{}{}, missing("tagSet")
	}
	return struct{}{}, s.retagAll(in.IDs, func(tags map[string]string) { maps.Copy(tags, in.Tags) })
}

// DeleteTagsInput names tags to take away; without any, all of them go.
type DeleteTagsInput struct {
	IDs  []string
	Tags map[string]Optional[string] // by key; with a value, only if the tag has it
}

// DeleteTags takes tags away. What is not there is no error.
func (c *Cloud) DeleteTags(in DeleteTagsInput) error {
	_, err := call(c, in, deleteTags)
	return err
}

func deleteTags(s *state, in DeleteTagsInput) (struct{}, error) {
	return struct{}{}, s.retagAll(in.IDs, func(tags map[string]string) {
		maps.DeleteFunc(tags, func(key, value string) bool {
			want, named := in.Tags[key]
			return len(in.Tags) == 0 || named && (!want.Given || want.Value == value)
		})
	})
}

func (s *state) retagAll(ids []string, change func(map[string]string)) error {
	if len(ids) == 0 {
		return missing("resourceIdSet")
	}
	for _, id := range ids {
		if err := s.retag(id, change); err != nil {
			return err
		}
	}
	return nil
}

func (s *state) retag(id string, change func(map[string]string)) error {
	after := func(tags map[string]string) map[string]string {
		changed := map[string]string{}
		maps.Copy(changed, tags)
		if change(changed); len(changed) == 0 {
			return nil
		}
		return changed
	}
	retagger, ok := retaggers[kindOf(id)]
	if !ok {
		return fail("InvalidID", "The ID '%s' is not valid", id)
	}
	return retagger(s, id, after)
}

// retaggers change the tags of the kinds that carry them.
var retaggers = map[kind]func(s *state, id string, change func(map[string]string) map[string]string) error{
	kindVPC:        retagIn(kindVPC, func(s *state) *table[VPC] { return &s.vpcs }, func(v *VPC) *map[string]string { return &v.Tags }),
	kindSubnet:     retagIn(kindSubnet, func(s *state) *table[Subnet] { return &s.subnets }, func(n *Subnet) *map[string]string { return &n.Tags }),
	kindGroup:      retagIn(kindGroup, func(s *state) *table[SecurityGroup] { return &s.groups }, func(g *SecurityGroup) *map[string]string { return &g.Tags }),
	kindENI:        retagIn(kindENI, func(s *state) *table[NetworkInterface] { return &s.enis }, func(e *NetworkInterface) *map[string]string { return &e.Tags }),
	kindPrefixList: retagIn(kindPrefixList, func(s *state) *table[PrefixList] { return &s.lists }, func(l *PrefixList) *map[string]string { return &l.Tags }),
	kindACL:        retagIn(kindACL, func(s *state) *table[NetworkACL] { return &s.acls }, func(a *NetworkACL) *map[string]string { return &a.Tags }),
	kindRouteTable: retagIn(kindRouteTable, func(s *state) *table[RouteTable] { return &s.routeTables }, func(t *RouteTable) *map[string]string { return &t.Tags }),
	kindGateway:    retagIn(kindGateway, func(s *state) *table[InternetGateway] { return &s.gateways }, func(g *InternetGateway) *map[string]string { return &g.Tags }),
	kindNAT:        retagIn(kindNAT, func(s *state) *table[NATGateway] { return &s.nats }, func(g *NATGateway) *map[string]string { return &g.Tags }),
	kindAddress:    retagIn(kindAddress, func(s *state) *table[Address] { return &s.addresses }, func(a *Address) *map[string]string { return &a.Tags }),
	kindPeering: func(s *state, id string, change func(map[string]string) map[string]string) error {
		if _, err := s.findPeering(id); err != nil {
			return err
		}
		return retagIn(kindPeering, func(s *state) *table[VPCPeering] { return &s.peerings }, func(p *VPCPeering) *map[string]string { return &p.Tags })(s, id, change)
	},
	kindHub:         retagIn(kindHub, func(s *state) *table[TransitGateway] { return &s.hubs }, func(h *TransitGateway) *map[string]string { return &h.Tags }),
	kindSpoke:       retagIn(kindSpoke, func(s *state) *table[TransitAttachment] { return &s.spokes }, func(a *TransitAttachment) *map[string]string { return &a.Tags }),
	kindHubTable:    retagIn(kindHubTable, func(s *state) *table[TransitRouteTable] { return &s.hubTables }, func(t *TransitRouteTable) *map[string]string { return &t.Tags }),
	kindFlowLog:     retagIn(kindFlowLog, func(s *state) *table[FlowLog] { return &s.flowLogs }, func(l *FlowLog) *map[string]string { return &l.Tags }),
	kindReservation: retagIn(kindReservation, func(s *state) *table[CIDRReservation] { return &s.reservations }, func(r *CIDRReservation) *map[string]string { return &r.Tags }),
	kindInstance: func(s *state, id string, change func(map[string]string) map[string]string) error {
		return edit(&s.instances, kindInstance, id, func(i *Instance) error {
			i.Tags = change(i.Tags)
			i.Name = i.Tags["Name"]
			return checkTags(i.Tags)
		})
	},
}

func retagIn[T any](k kind, in func(*state) *table[T], tags func(*T) *map[string]string) func(*state, string, func(map[string]string) map[string]string) error {
	return func(s *state, id string, change func(map[string]string) map[string]string) error {
		return edit(in(s), k, id, func(v *T) error {
			at := tags(v)
			*at = change(*at)
			return checkTags(*at)
		})
	}
}

// edit replaces a row by a changed one.
func edit[T any](t *table[T], k kind, id string, change func(*T) error) error {
	v, err := find(t, k, id)
	if err != nil {
		return err
	}
	if err := change(&v); err != nil {
		return err
	}
	t.put(id, v)
	return nil
}

// TagDescription is one tag of one resource.
type TagDescription struct {
	ResourceID, ResourceType string // such as "network-interface"
	Key, Value               string
}

// allTags lists the tags of all resources: by kind, resource age and key.
func (s *state) allTags() []TagDescription {
	var out []TagDescription
	add := func(k kind, id string, tags map[string]string) {
		for _, key := range slices.Sorted(maps.Keys(tags)) {
			out = append(out, TagDescription{id, k.resource, key, tags[key]})
		}
	}
	for v := range s.vpcs.all() {
		add(kindVPC, v.ID, v.Tags)
	}
	for n := range s.subnets.all() {
		add(kindSubnet, n.ID, n.Tags)
	}
	for g := range s.groups.all() {
		add(kindGroup, g.ID, g.Tags)
	}
	for e := range s.enis.all() {
		add(kindENI, e.ID, e.Tags)
	}
	for l := range s.lists.all() {
		add(kindPrefixList, l.ID, l.Tags)
	}
	for a := range s.acls.all() {
		add(kindACL, a.ID, a.Tags)
	}
	for t := range s.routeTables.all() {
		add(kindRouteTable, t.ID, t.Tags)
	}
	for g := range s.gateways.all() {
		add(kindGateway, g.ID, g.Tags)
	}
	for g := range s.nats.all() {
		add(kindNAT, g.ID, g.Tags)
	}
	for a := range s.addresses.all() {
		add(kindAddress, a.ID, a.Tags)
	}
	for _, p := range s.peeringsHere() {
		add(kindPeering, p.ID, p.Tags)
	}
	for h := range s.hubs.all() {
		add(kindHub, h.ID, h.Tags)
	}
	for a := range s.spokes.all() {
		add(kindSpoke, a.ID, a.Tags)
	}
	for t := range s.hubTables.all() {
		add(kindHubTable, t.ID, t.Tags)
	}
	for l := range s.flowLogs.all() {
		add(kindFlowLog, l.ID, l.Tags)
	}
	for r := range s.reservations.all() {
		add(kindReservation, r.ID, r.Tags)
	}
	for i := range s.instances.all() {
		if !s.forgotten(i) {
			add(kindInstance, i.ID, i.Tags)
		}
	}
	return out
}
