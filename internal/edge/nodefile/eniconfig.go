package nodefile

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/fairway-cni/fairway/internal/core/eniconfig"
)

const (
	eniConfigKind    = "ENIConfig"
	eniConfigVersion = "crd.k8s.amazonaws.com/v1alpha1"
	nodeKind         = "Node"
	nodeVersion      = "v1"
)

// ReadENIConfigs reads ENIConfigs in a file.
func ReadENIConfigs(path string) (eniconfig.Set, error) {
	t, err := open(path)
	if err != nil {
		return eniconfig.Set{}, fmt.Errorf("read ENIConfigs: %w", err)
	}
	return ParseENIConfigs(t.name, t.data)
}

// ParseENIConfigs reads YAML documents of the kind ENIConfig, and of the kind
// Node one at most: the annotations and labels that this node selects by.
//
//	apiVersion: crd.k8s.amazonaws.com/v1alpha1
//	kind: ENIConfig
//	metadata: {name: eu-west-1a}
//	spec: {subnet: subnet-0123456789abcdef0, securityGroups: [sg-0123456789abcdef0]}
//	---
//	apiVersion: v1
//	kind: Node
//	metadata: {labels: {k8s.amazonaws.com/eniConfig: eu-west-1a}}
//
// name is the file's, for errors.
func ParseENIConfigs(name string, data []byte) (eniconfig.Set, error) {
	t := text{name, data}
	tops, err := t.documents()
	if err != nil {
		return eniconfig.Set{}, err
	}
	var configs []eniconfig.Config
	lines := make(map[string]int) // of the names
	var node eniconfig.Node
	var nodeAt *yaml.Node
	for _, top := range tops {
		kind, err := t.kind(top)
		if err != nil {
			return eniconfig.Set{}, err
		}
		if kind == nodeKind {
			if nodeAt != nil {
				return eniconfig.Set{}, t.failf(top, "a second Node: the first is in line %d, and this file is of one node", nodeAt.Line)
			}
			nodeAt = top
			if node, err = t.node(top); err != nil {
				return eniconfig.Set{}, err
			}
			continue
		}
		c, err := t.eniConfig(top)
		if err != nil {
			return eniconfig.Set{}, err
		}
		if err := c.Validate(); err != nil {
			return eniconfig.Set{}, t.failf(top, "%s", err)
		}
		if first, twice := lines[c.Name]; twice {
			return eniconfig.Set{}, t.failf(top, "ENIConfig %s is there twice, first in line %d", c.Name, first)
		}
		lines[c.Name] = top.Line
		configs = append(configs, c)
	}
	set, err := eniconfig.NewSet(node, configs)
	if err != nil {
		return eniconfig.Set{}, fmt.Errorf("%s: %w", t.name, err)
	}
	return set, nil
}

// kind tells which of the two kinds a document is.
func (t text) kind(top *yaml.Node) (string, error) {
	list, err := t.members(top, "a document")
	if err != nil {
		return "", err
	}
	said := make(map[string]string)
	for _, m := range list {
		if k := m.key.Value; k == "kind" || k == "apiVersion" {
			if said[k], err = t.scalar(m.value, k); err != nil {
				return "", err
			}
		}
	}
	switch kind := said["kind"]; {
	case kind == eniConfigKind && said["apiVersion"] == eniConfigVersion, kind == nodeKind && said["apiVersion"] == nodeVersion:
		return kind, nil
	}
	return "", t.failf(top, "kind %q of apiVersion %q: must be %s of %s, or %s of %s",
		said["kind"], said["apiVersion"], eniConfigKind, eniConfigVersion, nodeKind, nodeVersion)
}

func (t text) eniConfig(top *yaml.Node) (c eniconfig.Config, err error) {
	f, err := t.fields(top, "an ENIConfig", "apiVersion", "kind", "metadata", "spec")
	if err != nil {
		return c, err
	}
	if f["metadata"] == nil || f["spec"] == nil {
		return c, t.failf(top, "an ENIConfig must have metadata and spec")
	}
	meta, err := t.fields(f["metadata"], "metadata", "name")
	if err != nil {
		return c, err
	}
	if c.Name, err = t.scalar(meta["name"], "metadata.name"); err != nil {
		return c, err
	}
	spec, err := t.fields(f["spec"], "spec", "subnet", "securityGroups")
	if err != nil {
		return c, err
	}
	if c.SubnetID, err = t.scalar(spec["subnet"], "spec.subnet"); err != nil {
		return c, err
	}
	c.Groups, err = t.list(spec["securityGroups"], "spec.securityGroups")
	return c, err
}

func (t text) node(top *yaml.Node) (n eniconfig.Node, err error) {
	f, err := t.fields(top, "a Node", "apiVersion", "kind", "metadata")
	if err != nil {
		return n, err
	}
	if f["metadata"] == nil {
		return n, t.failf(top, "a Node must have metadata")
	}
	meta, err := t.fields(f["metadata"], "metadata", "name", "annotations", "labels")
	if err != nil {
		return n, err
	}
	if n.Name, err = t.scalar(meta["name"], "metadata.name"); err != nil {
		return n, err
	}
	if n.Annotations, err = t.texts(meta["annotations"], "metadata.annotations"); err != nil {
		return n, err
	}
	n.Labels, err = t.texts(meta["labels"], "metadata.labels")
	return n, err
}
