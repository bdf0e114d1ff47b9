// Package path explains the way of a packet: through a pod's namespace, its
// node's kernel and the VPC to the other side, and the way of the reply, each
// hop with what decided it.
//
//	World ----> Tracer.Trace ----> Answer (hops, verdict)
//	  |                              |
//	  +-- Edit (what if) <-- mends --+--> Diagnose: faults, cause, scope, mends
//
// A [World] is data: what EC2 and the kernels said, in the words of `ip`, `nft`,
// `iptables-save` and EC2. What is not known is an unknown [Part] and never an
// empty one; a packet that depends on it ends in "cannot tell". So does one that
// meets something that this package does not model. It never guesses.
//
// Invariants: a trace does not change its world; it ends, whatever the world
// holds; the same world and probe give the same answer. A walk goes on behind a
// drop as if the packet had passed, so that every fault is found.
//
// IPv4 only. The package is pure. Its functions are safe for concurrent use; a
// [Tracer] holds indexes and is for one goroutine.
//
// The lab's fabric carries out the same rules with real packets and is this
// package's judge: the two share no code.
package path
