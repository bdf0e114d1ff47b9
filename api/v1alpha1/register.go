package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of Fairway's kinds.
const GroupName = "fairway-cni.io"

// GroupVersion is group and version of this package's kinds.
var GroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}

// The kinds, and the plurals by which paths name them.
const (
	KindENINode       = "ENINode"
	KindNodeConfig    = "NodeConfig"
	PluralENINodes    = "eninodes"
	PluralNodeConfigs = "nodeconfigs"
)

// AddToScheme makes the kinds known to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &ENINode{}, &ENINodeList{}, &NodeConfig{}, &NodeConfigList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
