package v1alpha1

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// DeepCopyObject is [ENINode.DeepCopy].
func (n *ENINode) DeepCopyObject() runtime.Object { return n.DeepCopy() }

// DeepCopy shares nothing with n.
func (n *ENINode) DeepCopy() *ENINode {
	if n == nil {
		return nil
	}
	c := *n
	n.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	c.Status = *n.Status.DeepCopy()
	return &c
}

// DeepCopyObject is [ENINodeList.DeepCopy].
func (l *ENINodeList) DeepCopyObject() runtime.Object { return l.DeepCopy() }

// DeepCopy shares nothing with l.
func (l *ENINodeList) DeepCopy() *ENINodeList {
	if l == nil {
		return nil
	}
	c := *l
	l.ListMeta.DeepCopyInto(&c.ListMeta)
	c.Items = copied(l.Items, func(n *ENINode) ENINode { return *n.DeepCopy() })
	return &c
}

// DeepCopy shares nothing with s.
func (s *ENINodeStatus) DeepCopy() *ENINodeStatus {
	if s == nil {
		return nil
	}
	c := *s
	c.ENIs, c.Subnets, c.Pods = slices.Clone(s.ENIs), slices.Clone(s.Subnets), slices.Clone(s.Pods)
	if s.NodeConfig != nil {
		ref := *s.NodeConfig
		c.NodeConfig = &ref
	}
	c.Conditions = copied(s.Conditions, func(c *metav1.Condition) metav1.Condition { return *c.DeepCopy() })
	return &c
}

// DeepCopyObject is [NodeConfig.DeepCopy].
func (n *NodeConfig) DeepCopyObject() runtime.Object { return n.DeepCopy() }

// DeepCopy shares nothing with n.
func (n *NodeConfig) DeepCopy() *NodeConfig {
	if n == nil {
		return nil
	}
	c := *n
	n.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	c.Spec = *n.Spec.DeepCopy()
	c.Status = *n.Status.DeepCopy()
	return &c
}

// DeepCopyObject is [NodeConfigList.DeepCopy].
func (l *NodeConfigList) DeepCopyObject() runtime.Object { return l.DeepCopy() }

// DeepCopy shares nothing with l.
func (l *NodeConfigList) DeepCopy() *NodeConfigList {
	if l == nil {
		return nil
	}
	c := *l
	l.ListMeta.DeepCopyInto(&c.ListMeta)
	c.Items = copied(l.Items, func(n *NodeConfig) NodeConfig { return *n.DeepCopy() })
	return &c
}

// DeepCopy shares nothing with s.
func (s *NodeConfigSpec) DeepCopy() *NodeConfigSpec {
	if s == nil {
		return nil
	}
	c := *s
	c.NodeSelector, c.Options = maps.Clone(s.NodeSelector), maps.Clone(s.Options)
	return &c
}

// DeepCopy shares nothing with s.
func (s *NodeConfigStatus) DeepCopy() *NodeConfigStatus {
	if s == nil {
		return nil
	}
	c := *s
	if s.Rollout != nil {
		r := *s.Rollout
		r.Since = *s.Rollout.Since.DeepCopy()
		c.Rollout = &r
	}
	if s.Accepted != nil {
		c.Accepted = &Accepted{Generation: s.Accepted.Generation, Options: maps.Clone(s.Accepted.Options)}
	}
	return &c
}

// copied is a slice of copies; nil stays nil.
func copied[T any](list []T, each func(*T) T) []T {
	if list == nil {
		return nil
	}
	c := make([]T, len(list))
	for i := range list {
		c[i] = each(&list[i])
	}
	return c
}
