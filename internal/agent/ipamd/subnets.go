package ipamd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Tags of subnets that say where further ENIs may be made. Source: "Enhanced
// subnet discovery", Amazon VPC CNI plugin.
const (
	tagRole    = "kubernetes.io/role/cni" // "0": not here; any other value: here
	tagCluster = "cni.networking.k8s.aws/cluster/"
)

// SawSubnets takes the subnets of this node's VPC and zone.
func (b *Book) SawSubnets(subnets []vpc.Subnet) {
	b.subnets = subnets
	b.tell()
	b.wake()
}

// primarySubnet is that of the primary ENI; empty before it is known.
func (b *Book) primarySubnet() string {
	for _, e := range b.managed {
		if e.DeviceIndex == 0 {
			return e.SubnetID
		}
	}
	return ""
}

// candidates is the subnets in which a further ENI may be made. Without
// discovery, or before it, that is the primary ENI's, which the planner knows.
func (b *Book) candidates() []vpc.Subnet {
	if !b.cfg.SubnetDiscovery || b.cfg.Custom.Enabled {
		return nil
	}
	var found []vpc.Subnet
	for _, s := range b.subnets {
		role, tagged := s.Tags[tagRole]
		switch {
		case role == "0": // a subnet that is set aside, were it the node's own
		case !tagged && s.ID != b.primarySubnet():
		case !b.ofCluster(s):
		default:
			found = append(found, s)
		}
	}
	return found
}

// ofCluster holds for subnets that no cluster claims, or this one does.
func (b *Book) ofCluster(s vpc.Subnet) bool {
	claimed := false
	for k := range s.Tags {
		if name, ok := strings.CutPrefix(k, tagCluster); ok {
			if name == b.cfg.Cluster {
				return true
			}
			claimed = true
		}
	}
	return !claimed
}

// network is custom networking as the planner needs it.
func (b *Book) network() ipam.Network {
	c := b.cfg.Custom
	n := ipam.Network{Enabled: c.Enabled, SubnetID: c.Subnet, Groups: c.Groups, Problem: c.Problem}
	if !c.Enabled || c.Problem != "" {
		return n
	}
	if len(n.Groups) == 0 {
		n.Groups = b.self.Groups
	}
	if b.subnets != nil && !slices.ContainsFunc(b.subnets, func(s vpc.Subnet) bool { return s.ID == c.Subnet }) {
		n.Problem = fmt.Sprintf("subnet %s of ENIConfig %s is not in %s and the VPC of this node: an ENI must be in its instance's zone; name a subnet of that zone", c.Subnet, c.Name, b.self.Zone)
	}
	return n
}
