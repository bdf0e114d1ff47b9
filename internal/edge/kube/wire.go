package kube

import (
	"encoding/json"
	"fmt"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairway-cni/fairway/api/v1alpha1"
	"github.com/fairway-cni/fairway/internal/core/cluster"
	"github.com/fairway-cni/fairway/internal/core/eniconfig"
)

// The objects, with no more fields than are read. They are decoded, and turned into
// core types at once; nobody copies one.

type pod struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		HostNetwork bool `json:"hostNetwork"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase"`
	} `json:"status"`
}

type node struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Taints []taint `json:"taints"`
	} `json:"spec"`
	Status struct {
		Capacity    map[string]string `json:"capacity"`
		Allocatable map[string]string `json:"allocatable"`
	} `json:"status"`
}

type taint struct {
	Key       string `json:"key"`
	Value     string `json:"value,omitempty"`
	Effect    string `json:"effect"`
	TimeAdded string `json:"timeAdded,omitempty"`
}

// eniConfig has its spec as it came: the AWS VPC CNI's definition takes anything, and
// one object that is wrong must not hide the others.
type eniConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              runtime.RawExtension `json:"spec"`
}

// list is any of them in a list.
type list[T any] struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []T `json:"items"`
}

func (p *pod) DeepCopyObject() runtime.Object       { c := *p; return &c }
func (n *node) DeepCopyObject() runtime.Object      { c := *n; return &c }
func (e *eniConfig) DeepCopyObject() runtime.Object { c := *e; return &c }
func (l *list[T]) DeepCopyObject() runtime.Object   { c := *l; return &c }

var (
	coreVersion      = schema.GroupVersion{Version: "v1"}
	eniConfigVersion = schema.GroupVersion{Group: "crd.k8s.amazonaws.com", Version: "v1alpha1"}
)

func newScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	s.AddKnownTypeWithName(coreVersion.WithKind("Pod"), &pod{})
	s.AddKnownTypeWithName(coreVersion.WithKind("PodList"), &list[pod]{})
	s.AddKnownTypeWithName(coreVersion.WithKind("Node"), &node{})
	s.AddKnownTypeWithName(coreVersion.WithKind("NodeList"), &list[node]{})
	metav1.AddToGroupVersion(s, coreVersion)
	s.AddKnownTypeWithName(eniConfigVersion.WithKind("ENIConfig"), &eniConfig{})
	s.AddKnownTypeWithName(eniConfigVersion.WithKind("ENIConfigList"), &list[eniConfig]{})
	metav1.AddToGroupVersion(s, eniConfigVersion)
	return s, v1alpha1.AddToScheme(s)
}

func podOf(p *pod) (cluster.Pod, error) {
	return cluster.Pod{
		PodName: cluster.PodName{Namespace: p.Namespace, Name: p.Name}, UID: string(p.UID),
		HostNetwork: p.Spec.HostNetwork, Finished: p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed",
		Leaving: p.DeletionTimestamp != nil, PodIPs: p.Annotations[cluster.PodIPsAnnotation],
	}, nil
}

func nodeOf(n *node) (cluster.Node, error) {
	c := cluster.Node{Name: n.Name, UID: string(n.UID), Labels: n.Labels, Annotations: n.Annotations}
	for _, t := range n.Spec.Taints {
		c.Taints = append(c.Taints, cluster.Taint{Key: t.Key, Value: t.Value, Effect: t.Effect, Added: t.TimeAdded})
	}
	pods, ok := n.Status.Allocatable["pods"]
	if !ok {
		pods = n.Status.Capacity["pods"]
	}
	if max, err := strconv.Atoi(pods); err == nil && max > 0 {
		c.MaxPods = max
	}
	return c, nil
}

func eniConfigOf(e *eniConfig) (eniconfig.Config, error) {
	var spec struct {
		Subnet string   `json:"subnet"`
		Groups []string `json:"securityGroups"`
	}
	if err := json.Unmarshal(e.Spec.Raw, &spec); err != nil {
		return eniconfig.Config{}, fmt.Errorf("spec of ENIConfig %s: %w", e.Name, err)
	}
	c := eniconfig.Config{Name: e.Name, SubnetID: spec.Subnet, Groups: spec.Groups}
	return c, c.Validate()
}

func nodeConfigOf(n *v1alpha1.NodeConfig) (cluster.NodeConfig, error) {
	c := cluster.NodeConfig{
		Name: n.Name, Version: n.ResourceVersion, Generation: n.Generation,
		Selector: n.Spec.NodeSelector, Priority: n.Spec.Priority, Options: n.Spec.Options,
	}
	if r := n.Status.Rollout; r != nil {
		c.Rollout = cluster.Rollout{Generation: r.Generation, Node: r.Node, State: cluster.RolloutState(r.State), Since: r.Since.Time, Message: r.Message}
	}
	if a := n.Status.Accepted; a != nil {
		c.Accepted = cluster.Options{Name: n.Name, Generation: a.Generation, Options: a.Options}
	}
	return c, nil
}
