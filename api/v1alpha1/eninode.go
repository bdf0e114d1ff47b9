package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ENINode is one node's ENIs and addresses as its agent sees them. It has the name
// of the Node, which owns it. Nobody reads it to decide anything: it is for people,
// and for what watches over clusters.
//
// The agent writes it when something has changed, and seldom: see docs/design. So it
// may be a minute old, and says nothing of a node whose agent is away.
type ENINode struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status ENINodeStatus `json:"status,omitempty"`
}

// ENINodeList is a list of them.
type ENINodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []ENINode `json:"items"`
}

// MaxPodAddresses bounds the list of pods in a status: about 200 kB at worst, and
// more than any instance type's largest kubelet setting (737).
const MaxPodAddresses = 1000

// ENINodeStatus is what the agent says.
type ENINodeStatus struct {
	// The instance.
	InstanceID       string `json:"instanceID,omitempty"`
	InstanceType     string `json:"instanceType,omitempty"`
	VPC              string `json:"vpc,omitempty"`
	AvailabilityZone string `json:"availabilityZone,omitempty"`

	Addresses Addresses `json:"addresses,omitempty"`
	Limits    Limits    `json:"limits,omitempty"`
	Targets   Targets   `json:"targets,omitempty"`

	// AttachedENIs is how many of the ENIs are attached and give pods addresses.
	AttachedENIs int32 `json:"attachedENIs"`
	// ENIs, by device index; those that are attached to nothing come last.
	ENIs []ENI `json:"enis,omitempty"`
	// Subnets in which further ENIs may be made, as far as they were looked up.
	Subnets []Subnet `json:"subnets,omitempty"`
	// Pods that hold an address, by namespace and name; MaxPodAddresses at most.
	Pods []PodAddress `json:"pods,omitempty"`
	// PodsOmitted is how many more there are.
	PodsOmitted int32 `json:"podsOmitted,omitempty"`

	// ENIConfig that the node selects, with custom networking.
	ENIConfig string `json:"eniConfig,omitempty"`
	// NodeConfig that is in force.
	NodeConfig *NodeConfigRef `json:"nodeConfig,omitempty"`

	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Addresses counts the addresses that the node's ENIs have for pods. Prefixes are
// counted by their addresses.
type Addresses struct {
	Total     int32 `json:"total"`
	Used      int32 `json:"used"`
	Free      int32 `json:"free"`
	Cooling   int32 `json:"cooling"`             // released, and resting
	Wanted    int32 `json:"wanted"`              // what the pool aims at in all
	Capacity  int32 `json:"capacity"`            // what the instance could have at most
	Waiting   int32 `json:"waiting,omitempty"`   // pods whose start waits for an address
	Scheduled int32 `json:"scheduled,omitempty"` // pods bound to the node that have not asked yet
}

// Limits say how many pods fit, and how many kubelet may start.
type Limits struct {
	ENIs        int32 `json:"enis,omitempty"`        // that can give pods addresses
	PodsFit     int32 `json:"podsFit,omitempty"`     // what kubelet's --max-pods should be
	PodsAllowed int32 `json:"podsAllowed,omitempty"` // what it is
}

// Targets are those of the pool; see the options of the same names.
type Targets struct {
	WarmENIs     int32 `json:"warmENIs,omitempty"`
	WarmIPs      int32 `json:"warmIPs,omitempty"`
	MinimumIPs   int32 `json:"minimumIPs,omitempty"`
	WarmPrefixes int32 `json:"warmPrefixes,omitempty"`
	MaxENIs      int32 `json:"maxENIs,omitempty"`
	Prefixes     bool  `json:"prefixes,omitempty"`
}

// ENI is one interface of the instance.
type ENI struct {
	ID          string `json:"id"`
	DeviceIndex int32  `json:"deviceIndex"` // -1: attached to nothing
	Device      string `json:"device,omitempty"`
	MAC         string `json:"mac,omitempty"`
	Subnet      string `json:"subnet,omitempty"`
	Address     string `json:"address,omitempty"` // its own
	State       string `json:"state"`             // attached, attaching, detaching, detached, not managed
	Why         string `json:"why,omitempty"`     // of a state that is not attached
	Addresses   int32  `json:"addresses"`         // for pods, single ones
	Prefixes    int32  `json:"prefixes,omitempty"`
	Pods        int32  `json:"pods"`
}

// Subnet is where an ENI may be made.
type Subnet struct {
	ID   string `json:"id"`
	CIDR string `json:"cidr,omitempty"`
}

// PodAddress is who holds an address.
type PodAddress struct {
	Address   string `json:"address"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	ENI       string `json:"eni,omitempty"`
	Lost      bool   `json:"lost,omitempty"` // its address is on none of the ENIs
}

// NodeConfigRef names one generation of a NodeConfig.
type NodeConfigRef struct {
	Name       string `json:"name"`
	Generation int64  `json:"generation"`
}

// The conditions of an ENINode. All of them are True on a node in order; one of
// which nothing is known is Unknown.
const (
	// Ready: the agent serves, and the kernel has what it should.
	Ready = "Ready"
	// AddressesAvailable: pods that start get addresses.
	AddressesAvailable = "AddressesAvailable"
	// SubnetHasAddresses: EC2 has not refused for want of addresses in a subnet.
	SubnetHasAddresses = "SubnetHasAddresses"
	// RightsSuffice: EC2 has not refused for want of rights.
	RightsSuffice = "RightsSuffice"
	// EC2Reachable: EC2 answers.
	EC2Reachable = "EC2Reachable"
	// MaxPodsFit: kubelet starts no more pods than can have addresses.
	MaxPodsFit = "MaxPodsFit"
	// ConfigurationValid: the ENIConfig and the NodeConfig of the node can be used.
	ConfigurationValid = "ConfigurationValid"
)
