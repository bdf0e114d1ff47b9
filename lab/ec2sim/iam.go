package ec2sim

import (
	"maps"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/lab/ec2sim/policy"
)

// A request is a list of questions to the policies of its caller's role, one for
// each resource that it touches or makes, and all must be answered with yes:
//
//	CreateNetworkInterface          ec2:CreateNetworkInterface on subnet/subnet-1
//	  SubnetId=subnet-1       -->   ec2:CreateNetworkInterface on security-group/sg-1
//	  SecurityGroupId.1=sg-1        ec2:CreateNetworkInterface on network-interface/*
//	  TagSpecification...           ec2:CreateTags             on network-interface/*
//
// What a request touches is read off its parameters that end in Id; which of that
// a right is needed for, off the tables in iamresources.go.

// question is a policy.Request, and the API action that it is asked for.
type question struct {
	policy.Request
	bare bool // the action has no resources
}

// authorize asks all questions of a request, and answers the first no as EC2
// does. Source of the words: "Troubleshoot access denied error messages", IAM
// User Guide; the encoded message that EC2 adds at their end is left out, since
// nothing here decodes it.
func (c *Cloud) authorize(who Caller, action string, root *node) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state
	if c.admin || !s.cfg.IAM {
		return nil
	}
	s.regional, s.now = s.regions[c.region], s.cfg.Now().UTC()
	for _, q := range s.questions(who, action, root) {
		decision := policy.Decide(s.cfg.Roles[who.Role], q.Request)
		if decision.Allowed {
			continue
		}
		on, why := "", " because no identity-based policy allows the "+q.Action+" action"
		if !q.bare {
			on = " on resource: " + q.Resource
		}
		if decision.By != "" {
			why = " with an explicit deny in an identity-based policy"
		}
		return fail("UnauthorizedOperation", "You are not authorized to perform this operation. User: %s is not authorized to perform: %s%s%s",
			who.ARN(s.cfg.Account), q.Action, on, why)
	}
	return nil
}

// questions gives those of a request: what it names in the order of its
// parameters, then what it makes.
func (s *state) questions(who Caller, action string, root *node) []question {
	shared := s.sharedKeys(who)
	var out []question
	ask := func(action, arn string, keys ...policy.Keys) {
		all := maps.Clone(shared)
		for _, more := range keys {
			maps.Copy(all, more)
		}
		q := question{policy.Request{Action: action, Resource: arn, Keys: all}, arn == "*"}
		if !slices.ContainsFunc(out, func(have question) bool { return have.Action == action && have.Resource == arn }) {
			out = append(out, q)
		}
	}
	verb := "ec2:" + action
	requested := policy.Keys{}
	if action == "CreateTags" || action == "DeleteTags" {
		requested = tagKeys(root.kids["Tag"])
	}
	place := policy.Keys{} // where a new thing will be
	for _, id := range s.named(action, root) {
		keys := s.resourceKeys(id)
		ask(verb, s.arn(kindOf(id).resource, id), keys, requested)
		if k := kindOf(id); k == kindSubnet || k == kindVPC {
			for _, name := range []string{"ec2:Vpc", "ec2:AvailabilityZone"} {
				if v, ok := keys[strings.ToLower(name)]; ok {
					place.Set(name, v...)
				}
			}
		}
		if kindOf(id) == kindSubnet {
			place.Set("ec2:Subnet", s.arn(kindOf(id).resource, id))
		}
	}
	for _, k := range slices.Concat(makes[action], tagsOnly[action]) {
		tags, tagged := specifiedTags(root, k)
		arn := s.arn(k.resource, "*")
		if tagsOnly[action] == nil {
			ask(verb, arn, place, tags)
		}
		if tagged {
			created := policy.Keys{}
			created.Set("ec2:CreateAction", action)
			ask("ec2:CreateTags", arn, place, tags, created)
		}
	}
	if role := root.at("DeliverLogsPermissionArn"); role != "" {
		ask("iam:PassRole", role)
	}
	if action == "RunInstances" {
		ask(verb, "arn:aws:ec2:"+s.region+"::image/"+root.at("ImageId"))
		if profile := root.at("IamInstanceProfile", "Name") + profileName(root.at("IamInstanceProfile", "Arn")); profile != "" {
			ask("iam:PassRole", "arn:aws:iam::"+s.cfg.Account+":role/"+profile)
		}
	}
	if len(out) == 0 {
		ask(verb, "*")
	}
	return out
}

// at is the value of a parameter, without marking it as read.
func (n *node) at(path ...string) string {
	for _, name := range path {
		if n = n.kids[name]; n == nil {
			return ""
		}
	}
	return n.value
}

// specifiedTags are the keys of the tags that a thing is to be made with.
func specifiedTags(root *node, k kind) (policy.Keys, bool) {
	keys := policy.Keys{}
	for _, list := range []string{"TagSpecification", "TagSpecifications"} {
		if root.kids[list] == nil {
			continue
		}
		for _, member := range root.kids[list].kids {
			if member.at("ResourceType") == k.resource {
				maps.Copy(keys, tagKeys(member.kids["Tag"]))
			}
		}
	}
	return keys, len(keys) > 0
}

// tagKeys are the keys of a list of tags in a request.
func tagKeys(list *node) policy.Keys {
	keys := policy.Keys{}
	if list == nil {
		return keys
	}
	var names []string
	for _, member := range list.kids {
		names = append(names, member.at("Key"))
		keys.Set("aws:RequestTag/"+member.at("Key"), member.at("Value"))
	}
	if slices.Sort(names); len(names) > 0 {
		keys.Set("aws:TagKeys", names...)
	}
	return keys
}
