package ec2sim

import (
	"strings"

	"github.com/fairway-cni/fairway/lab/ec2sim/policy"
)

// sharedKeys are the condition keys that every request has.
func (s *state) sharedKeys(who Caller) policy.Keys {
	keys := policy.Keys{}
	keys.Set("ec2:Region", s.region)
	keys.Set("aws:RequestedRegion", s.region)
	keys.Set("aws:SecureTransport", "false") // the lab's endpoint speaks plain HTTP
	keys.Set("aws:PrincipalAccount", s.cfg.Account)
	keys.Set("aws:PrincipalArn", "arn:aws:iam::"+s.cfg.Account+":role/"+who.Role)
	keys.Set("aws:userid", roleID(s, who.Role)+":"+who.InstanceID)
	// Only credentials of an instance's own metadata service have it.
	keys.Set("ec2:SourceInstanceARN", s.arn(kindInstance.resource, who.InstanceID))
	return keys
}

// roleID is the unique identifier of a role: AROA and 17 letters and digits.
func roleID(s *state, role string) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	var id strings.Builder
	id.WriteString("AROA")
	for _, b := range s.mac("role", []byte(role))[:17] {
		id.WriteByte(letters[b%32])
	}
	return id.String()
}

// resourceKeys are those of one resource: its tags and its place. Of one that is
// not there only what its identifier says; then EC2 too refuses what depends on
// a tag, and not that it is missing.
func (s *state) resourceKeys(id string) policy.Keys {
	keys := policy.Keys{}
	for key, value := range s.tagsOf(id) {
		keys.Set("aws:ResourceTag/"+key, value)
		keys.Set("ec2:ResourceTag/"+key, value)
	}
	in := func(vpc, zone string) {
		if vpc != "" {
			keys.Set("ec2:Vpc", s.arn(kindVPC.resource, vpc))
		}
		if zone != "" {
			keys.Set("ec2:AvailabilityZone", zone)
		}
	}
	switch kindOf(id) {
	case kindVPC:
		keys.Set("ec2:VpcID", id)
		in(id, "")
	case kindSubnet:
		n, _ := s.subnets.get(id)
		keys.Set("ec2:SubnetID", id)
		in(n.VPCID, n.Zone)
	case kindGroup:
		g, _ := s.groups.get(id)
		keys.Set("ec2:SecurityGroupID", id)
		in(g.VPCID, "")
	case kindENI:
		e, ok := s.enis.get(id)
		keys.Set("ec2:NetworkInterfaceID", id)
		in(e.VPCID, e.Zone)
		if ok {
			keys.Set("ec2:Subnet", s.arn(kindSubnet.resource, e.SubnetID))
		}
	case kindInstance:
		i, ok := s.instances.get(id)
		keys.Set("ec2:InstanceID", id)
		in("", i.Zone)
		if ok {
			keys.Set("ec2:InstanceType", i.Type)
		}
	case kindRouteTable:
		t, _ := s.routeTables.get(id)
		in(t.VPCID, "")
	case kindACL:
		a, _ := s.acls.get(id)
		in(a.VPCID, "")
	}
	return keys
}

// tagsOf reads the tags of a resource of any kind, by the table that knows how to
// write them: the write is taken back.
func (s *state) tagsOf(id string) map[string]string {
	retag, ok := retaggers[kindOf(id)]
	if !ok {
		return nil
	}
	before := s.save()
	defer s.rollback(before)
	var found map[string]string
	// What it refuses has no tags.
	_ = retag(s, id, func(tags map[string]string) map[string]string { found = tags; return tags })
	return found
}

// checkProfile refuses an instance profile whose role nobody has described.
func (s *state) checkProfile(profile string) error {
	if profile == "" || !s.cfg.IAM || s.cfg.Roles[profileName(profile)] != nil {
		return nil
	}
	return invalidValue("Value (%s) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name", profileName(profile))
}
