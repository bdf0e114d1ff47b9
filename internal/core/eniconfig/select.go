package eniconfig

import (
	"errors"
	"fmt"
	"slices"
)

// DefaultKey is the annotation and the label of a node that name its ENIConfig
// where ENI_CONFIG_ANNOTATION_DEF and ENI_CONFIG_LABEL_DEF are not set (VPC CNI,
// README, "ENI_CONFIG_ANNOTATION_DEF").
const DefaultKey = "k8s.amazonaws.com/eniConfig"

// externalKey is a label that goes before all, which the VPC CNI reads for
// controllers that choose for a node.
const externalKey = "vpc.amazonaws.com/externalEniConfig"

// defaultName is the ENIConfig of a node that names none.
const defaultName = "default"

// Keys are the annotation and the label of a node that name its ENIConfig.
type Keys struct{ Annotation, Label string }

// ErrAbsent says that the node selects an ENIConfig that does not exist.
var ErrAbsent = errors.New("no such ENIConfig")

// Select says which ENIConfig a node with these annotations and labels has, and
// what decided so, for people. The first of these that is there decides:
//
//	label vpc.amazonaws.com/externalEniConfig
//	annotation k.Annotation
//	label k.Label
//	the name "default"
//
// What is there decides also if it names none of names: another than the one
// chosen would put pods into a subnet that nobody meant. That is [ErrAbsent].
func Select(annotations, labels map[string]string, k Keys, names []string) (name, where string, err error) {
	name, where = defaultName, "nothing on the node names one"
	for _, s := range []struct {
		of   map[string]string
		kind string
		key  string
	}{
		{labels, "label", externalKey},
		{annotations, "annotation", k.Annotation},
		{labels, "label", k.Label},
	} {
		if value, ok := s.of[s.key]; ok {
			name, where = value, s.kind+" "+s.key
			break
		}
	}
	if name == "" {
		return "", where, fmt.Errorf("%s is empty: must name an ENIConfig", where)
	}
	if !slices.Contains(names, name) {
		return "", where, fmt.Errorf("%w: %q (%s); %s", ErrAbsent, name, where, listOf(names))
	}
	return name, where, nil
}
