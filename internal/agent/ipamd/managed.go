package ipamd

import (
	"fmt"

	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
)

// sort parts the ENIs that give pods addresses from the others of the instance,
// which take their places and are left alone:
//
//   - those on further network cards, and those that carry no pods by their type
//     (EFA, trunk) or for want of an IPv4 address;
//   - those that a user has tagged no_manage, and, where the user says so, those that
//     bear no instance tag of this node's;
//   - those of which only IMDS has spoken, which knows no tags, unless pods of ours
//     are on them: a user's ENI must not be touched because EC2 is late.
//
// The primary ENI is always ours.
func (b *Book) sort(attached []vpc.ENI) (managed, others []vpc.ENI) {
	ours := make(map[string]bool)
	for _, r := range b.records {
		ours[r.ENI] = true
	}
	for _, e := range attached {
		if b.manages(e, ours[e.ID]) {
			managed = append(managed, e)
		} else {
			others = append(others, e)
		}
	}
	return managed, others
}

func (b *Book) manages(e vpc.ENI, hasPods bool) bool { return b.leftAlone(e, hasPods) == "" }

// leftAlone says for people why an ENI gives pods nothing; empty: it does.
func (b *Book) leftAlone(e vpc.ENI, hasPods bool) string {
	switch {
	case e.CardIndex != b.self.Limits.DefaultCard:
		return fmt.Sprintf("on network card %d", e.CardIndex)
	case !e.Primary.IsValid():
		return "it has no IPv4 address"
	case e.DeviceIndex == 0, hasPods:
		return ""
	case e.Type != "" && e.Type != "interface":
		return "of type " + e.Type
	case e.Status == "detaching":
		return "being detached"
	case e.Tags == nil && b.cfg.IMDSOnly:
		return ""
	case e.Tags == nil:
		return "EC2 has not said what tags it has"
	case e.Tags[ec2.TagNoManage] == "true":
		return "tagged " + ec2.TagNoManage
	case b.cfg.ManageUntagged, e.Tags[ec2.TagInstance] == b.self.InstanceID, e.Tags[ec2.TagNoManage] == "false":
		return ""
	}
	return "not tagged for this instance (MANAGE_UNTAGGED_ENI is false)"
}
