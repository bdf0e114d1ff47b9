package cluster

import "time"

// Node is the Kubernetes Node that the agent runs on.
type Node struct {
	Name        string
	UID         string
	Labels      map[string]string
	Annotations map[string]string
	Taints      []Taint
	MaxPods     int // what kubelet starts at most, host network included; 0: not known
}

// Taint keeps pods away from a node.
type Taint struct {
	Key, Value, Effect string
	Added              string // as the API has it; empty: not said
}

// NotReadyTaint is the start-up taint that users register their nodes with, so that
// no pod is sent to one whose agent does not serve yet. The agent removes it.
const NotReadyTaint = "fairway-cni.io/agent-not-ready"

// Without is the node's taints less those of a key, and whether there was one.
func (n Node) Without(key string) (rest []Taint, had bool) {
	rest = []Taint{}
	for _, t := range n.Taints {
		if t.Key == key {
			had = true
			continue
		}
		rest = append(rest, t)
	}
	return rest, had
}

// PodName names a pod.
type PodName struct{ Namespace, Name string }

func (p PodName) String() string { return p.Namespace + "/" + p.Name }

// Pod is one that is bound to the node.
type Pod struct {
	PodName
	UID         string
	HostNetwork bool
	Finished    bool   // it has succeeded or failed: its containers have ended for good
	Leaving     bool   // somebody has deleted it
	PodIPs      string // the annotation [PodIPsAnnotation]; empty: none
}

// PodIPsAnnotation is where the AWS VPC CNI writes a pod's address, for those who want
// it before kubelet says it (ANNOTATE_POD_IP).
const PodIPsAnnotation = "vpc.amazonaws.com/pod-ips"

// Awaits reports whether the pod will ask for an address if it has none.
func (p Pod) Awaits() bool { return !p.HostNetwork && !p.Finished && !p.Leaving }

// Awaiting is the pods that will ask for an address and have none.
func Awaiting(pods []Pod, held map[PodName]bool) map[PodName]bool {
	awaiting := make(map[PodName]bool)
	for _, p := range pods {
		if p.Awaits() && !held[p.PodName] {
			awaiting[p.PodName] = true
		}
	}
	return awaiting
}

// Event is something that people who look at the Node should read.
type Event struct {
	Node    Node
	Warning bool
	Reason  string // a word in CamelCase
	Message string // what is so, where, and what to do
	At      time.Time
}
