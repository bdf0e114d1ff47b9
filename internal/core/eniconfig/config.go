package eniconfig

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Config is an ENIConfig: where ENIs for pods are made.
type Config struct {
	Name     string   // metadata.name
	SubnetID string   // spec.subnet
	Groups   []string // spec.securityGroups, IDs; none: those of the node's primary ENI
}

// Node is what a selection is made from, as a Kubernetes Node has it.
type Node struct {
	Name        string
	Labels      map[string]string
	Annotations map[string]string
}

// The labels by which Kubernetes says a node's zone, the present and the former
// one ("Well-Known Labels, Annotations and Taints", Kubernetes documentation).
const (
	ZoneLabel       = "topology.kubernetes.io/zone"
	FormerZoneLabel = "failure-domain.beta.kubernetes.io/zone"
)

// InZone is the node with the labels of its zone that a cluster would give it,
// where it has none of its own. An empty zone adds nothing.
func (n Node) InZone(zone string) Node {
	if zone == "" {
		return n
	}
	labels := map[string]string{ZoneLabel: zone, FormerZoneLabel: zone}
	maps.Copy(labels, n.Labels)
	n.Labels = labels
	return n
}

// maxGroups is how many security groups an ENI can have, with the quota raised
// as far as it goes ("Amazon VPC quotas", Amazon VPC User Guide).
const maxGroups = 16

var (
	objectName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`) // DNS subdomain, RFC 1123
	subnetID   = regexp.MustCompile(`^subnet-[0-9a-f]{8,17}$`)
	groupID    = regexp.MustCompile(`^sg-[0-9a-f]{8,17}$`)
)

// Validate names what of the object EC2 or Kubernetes would refuse.
func (c Config) Validate() error {
	switch {
	case !objectName.MatchString(c.Name):
		return fmt.Errorf("metadata.name %q: must be lower case letters, digits, '-' and '.', at most 253", c.Name)
	case !subnetID.MatchString(c.SubnetID):
		return fmt.Errorf("spec.subnet %q of ENIConfig %s: must be a subnet's ID, as in subnet-0123456789abcdef0", c.SubnetID, c.Name)
	case len(c.Groups) > maxGroups:
		return fmt.Errorf("spec.securityGroups of ENIConfig %s: %d of them: must be at most %d", c.Name, len(c.Groups), maxGroups)
	}
	for i, g := range c.Groups {
		if !groupID.MatchString(g) {
			return fmt.Errorf("spec.securityGroups of ENIConfig %s: %q: must be a security group's ID, as in sg-0123456789abcdef0", c.Name, g)
		}
		if slices.Contains(c.Groups[:i], g) {
			return fmt.Errorf("spec.securityGroups of ENIConfig %s: %s is named twice", c.Name, g)
		}
	}
	return nil
}

// CheckZone refuses an ENIConfig whose subnet is in another availability zone
// than the node, as an instance can only have ENIs of its own. Zones are names;
// an empty one is not known, and refused too.
func CheckZone(c Config, subnetZone, nodeZone string) error {
	if subnetZone == nodeZone && subnetZone != "" {
		return nil
	}
	if subnetZone == "" || nodeZone == "" {
		return fmt.Errorf("ENIConfig %s: zone of its subnet %s is %q and that of this node %q: both must be known", c.Name, c.SubnetID, subnetZone, nodeZone)
	}
	return fmt.Errorf("ENIConfig %s: its subnet %s is in %s and this node in %s: select an ENIConfig with a subnet in %s",
		c.Name, c.SubnetID, subnetZone, nodeZone, nodeZone)
}

// Set is ENIConfigs by their names, and the node where the source says it. The
// zero Set has none.
type Set struct {
	Node    Node
	configs map[string]Config
}

// NewSet refuses what is invalid or there twice.
func NewSet(node Node, configs []Config) (Set, error) {
	s := Set{Node: node, configs: make(map[string]Config, len(configs))}
	for _, c := range configs {
		if err := c.Validate(); err != nil {
			return Set{}, err
		}
		if _, twice := s.configs[c.Name]; twice {
			return Set{}, fmt.Errorf("ENIConfig %s is there twice", c.Name)
		}
		s.configs[c.Name] = c
	}
	return s, nil
}

// Names lists the ENIConfigs, sorted.
func (s Set) Names() []string { return slices.Sorted(maps.Keys(s.configs)) }

// Select is the ENIConfig of node n and what decided it: see the function
// [Select].
func (s Set) Select(n Node, k Keys) (c Config, where string, err error) {
	name, where, err := Select(n.Annotations, n.Labels, k, s.Names())
	return s.configs[name], where, err
}

// listOf is names as a sentence has them.
func listOf(names []string) string {
	const most = 10
	switch n := len(names); {
	case n == 0:
		return "there is none"
	case n > most:
		return fmt.Sprintf("there are %s and %d more", strings.Join(names[:most], ", "), n-most)
	}
	return "there is " + strings.Join(names, ", ")
}
