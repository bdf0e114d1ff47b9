// Package v1alpha1 is Fairway's part of the Kubernetes API: group fairway-cni.io,
// version v1alpha1.
//
//	ENINode     what a node's agent says of its ENIs and addresses; written by agents
//	NodeConfig  options of the agents of some nodes; written by people
//
// Both are of the cluster, not of a namespace. Their schemas are in deploy/crds, and
// a test holds that types and schemas have the same fields.
//
// Fields are only ever added within a version. Text in a condition's message is for
// people and may change; types, reasons and fields do not.
//
// There is no client here and nothing of ours is imported: types, deep copies, and
// [AddToScheme]. Values are plain data, and safe to share while nobody writes.
package v1alpha1
