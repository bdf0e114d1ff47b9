// Package ipam decides which address a pod gets, and what to ask of EC2 so that
// there is always one to give.
//
// The [Pool] holds every pod address of the node's ENIs. An address is in
// exactly one of four states:
//
//	         SetENIs
//	            |
//	            v      Assign            Release
//	.------> free -----------> assigned ---------> cooling ---.
//	|                             |                   ^       |
//	|                     Reserve |        Unreserve  |       |
//	|                             '----> reserved ----'       |
//	'---------------- the cool-down has passed ---------------'
//
// Invariants, across any sequence of calls: no address has two owners, no owner
// has two addresses, and an address that cools down or is reserved is never
// assigned. An address that vanishes from the ENIs while it is in any state but
// free is remembered in that state, so that its return cannot hand it out early.
//
// [Plan] is the node's wish list for EC2: a function of what EC2 has, what is
// under way and what was refused lately. It only grows the node.
//
// The package is pure: time is passed in, and every time of one Pool must come
// from one clock. A Pool belongs to one goroutine; the functions are safe for
// concurrent use.
package ipam
