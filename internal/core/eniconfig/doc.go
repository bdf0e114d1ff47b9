// Package eniconfig is custom networking as users of the VPC CNI know it:
// ENIConfig objects, which name a subnet and security groups for the ENIs of
// pods, and how a node selects one of them.
//
//	labels, annotations of the node --Select--> name --Set--> Config{SubnetID, Groups}
//	                                                            |
//	                                                       CheckZone against the node's zone
//
// It knows the objects and the selection, and not where they come from: a file
// on a node by itself (internal/edge/enifile), the Kubernetes API in a cluster.
//
// A [Set] that [NewSet] gave holds each name once, and only what EC2 can take.
// Everything here is pure; values are not changed, so they may be shared.
package eniconfig
