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
	switch kindOf(id) {
	case kindVPC:
		return edit(&s.vpcs, kindVPC, id, func(v *VPC) error { v.Tags = after(v.Tags); return checkTags(v.Tags) })
	case kindSubnet:
		return edit(&s.subnets, kindSubnet, id, func(n *Subnet) error { n.Tags = after(n.Tags); return checkTags(n.Tags) })
	case kindGroup:
		return edit(&s.groups, kindGroup, id, func(g *SecurityGroup) error { g.Tags = after(g.Tags); return checkTags(g.Tags) })
	case kindENI:
		return edit(&s.enis, kindENI, id, func(e *NetworkInterface) error { e.Tags = after(e.Tags); return checkTags(e.Tags) })
	case kindInstance:
		return edit(&s.instances, kindInstance, id, func(i *Instance) error {
			i.Tags = after(i.Tags)
			i.Name = i.Tags["Name"]
			return checkTags(i.Tags)
		})
	}
	return fail("InvalidID", "The ID '%s' is not valid", id)
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

// kindOf tells what kind of taggable resource an identifier names, or the zero
// kind.
func kindOf(id string) kind {
	for _, k := range taggable {
		if strings.HasPrefix(id, k.prefix) && !strings.HasPrefix(id, kindAttachment.prefix) {
			return k
		}
	}
	return kind{}
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
	for i := range s.instances.all() {
		if !s.forgotten(i) {
			add(kindInstance, i.ID, i.Tags)
		}
	}
	return out
}
