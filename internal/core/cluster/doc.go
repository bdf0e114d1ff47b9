// Package cluster is what an agent knows of its Kubernetes cluster: its own Node, the
// pods that are bound to it, and the NodeConfigs; and what follows from them.
//
//	pods of the node ------> Awaiting: how many are still to come for an address
//	Node, NodeConfigs -----> Choose: the options that hold on this node
//	a NodeConfig's status -> Next: what this node does for its rollout
//
// It has of each object the few fields that count here. Everything is pure: times are
// passed in, values are not changed, so they may be shared.
package cluster
