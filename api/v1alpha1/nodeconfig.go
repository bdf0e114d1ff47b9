package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NodeConfig sets options of the agents of some nodes, over what flags, environment
// and settings file say. Of those that select a node the one with the highest
// priority counts, and of equal ones the first by name; the others count for nothing
// there.
//
// A new generation is tried on one node. The others take it when that node is ready
// with it; if that node refuses it or does not become ready, all stay with the
// generation before, until the object is changed again.
type NodeConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   NodeConfigSpec   `json:"spec"`
	Status NodeConfigStatus `json:"status,omitempty"`
}

// NodeConfigList is a list of them.
type NodeConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []NodeConfig `json:"items"`
}

// NodeConfigSpec says which nodes, and what.
type NodeConfigSpec struct {
	// NodeSelector is the labels of the nodes; empty: all nodes.
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// Priority: the highest of those that select a node counts.
	Priority int32 `json:"priority,omitempty"`
	// Options by the names of the agent's flags, without dashes in front; values as
	// they would be written there. docs/configuration.md has them.
	Options map[string]string `json:"options"`
}

// NodeConfigStatus is how far the newest generation has come.
type NodeConfigStatus struct {
	// Rollout is the last generation that a node has taken up to try.
	Rollout *Rollout `json:"rollout,omitempty"`
	// Accepted is the last generation that a node became ready with, and its
	// options: what nodes have that do not know it otherwise.
	Accepted *Accepted `json:"accepted,omitempty"`
}

// Rollout is one generation on the first node that tries it.
type Rollout struct {
	Generation int64        `json:"generation"`
	Node       string       `json:"node"`
	State      RolloutState `json:"state"`
	Since      metav1.Time  `json:"since"`
	// Message says why it failed, with the option's name.
	Message string `json:"message,omitempty"`
}

// RolloutState is what came of it.
type RolloutState string

// The states of a [Rollout].
const (
	RolloutTrying   RolloutState = "Trying"
	RolloutAccepted RolloutState = "Accepted"
	RolloutFailed   RolloutState = "Failed"
)

// Accepted is a generation that works.
type Accepted struct {
	Generation int64             `json:"generation"`
	Options    map[string]string `json:"options,omitempty"`
}
