// Package symmetry proves that pods' packets and their replies pass the same ENIs:
// for one pod of each ENI and one address of each destination class, both ways,
// package path walks the node's kernel and the VPC's routes.
//
//	kernel as it is, what Fairway wants in its table, ENIs, the VPC's routes
//	      |
//	      v
//	a closed world: this VPC, and for each thing that its route tables lead to a VPC
//	behind it with one host, which answers ----> path.Trace, there and back
//
// What filters is taken to let everything pass (security groups, network ACLs, the
// tables of others than Fairway): it is about ways, and a node knows of no more. A
// destination that no route leads to is not looked at.
//
// The package is pure and safe for concurrent use.
package symmetry
