// Package kube is the agent's way to the Kubernetes API, and that of fairway path.
//
//	watched    this Node, the pods bound to it, ENIConfigs, NodeConfigs
//	written    the Node's start-up taint, ENINode, NodeConfig's status, events, and
//	           the annotation of pods
//	listed     once, for fairway path: Services, EndpointSlices, pods ([List])
//	run        for fairway bundle, pods that read a node and are deleted ([Errand])
//
// What is watched is held as core types, with the few fields that the agent reads:
// an object is decoded into a type that has no others, and the rest is never kept. So
// memory grows with the node's pods by some hundred bytes each, and not with the
// cluster. There is no clientset, and no type of k8s.io/api: linked they would be half
// of the program.
//
// # What holds
//
// [New] opens no connection. A [Client] has no state that the API server must confirm:
// while it is away, reads give what was seen last, and say whether anything was ever
// seen. Watches are client-go's reflectors, which begin again by themselves, at growing
// intervals of up to a minute, with a list where the server has forgotten the version.
// A kind that the server does not know is empty.
//
// An object that cannot be what it should be is left out and named; it does not take
// the others with it.
//
// # Concurrency
//
// A Client is safe for concurrent use. [Client.Run] has a goroutine for each kind, and
// returns when all have ended.
package kube
