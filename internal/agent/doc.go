// Package agent is the node daemon: it keeps a warm pool of the VPC's
// addresses, gives them to pods that the CNI plugin brings, and makes the
// node's kernel hold what package intent says.
//
//	fairway-cni ---> CNI handlers --+
//	                                |  do(func)      one goroutine owns the pool,
//	EC2 <---> refill loop ----------+------------->  the records and the kernel:
//	                                |                the node loop
//	timers: reap, cool-down, devices+
//
// There are two loops and a goroutine per CNI call. The node loop is the only
// one that touches the pool, the store and the kernel; whoever needs them sends
// it a function. The refill loop is the only one that talks to EC2, which is
// slow and fails; it never holds up a pod that an address is there for.
//
// What must hold: an address's record is on disk before its pod has it, and
// says "released" only after the kernel has stopped delivering to the pod; so a
// crash at any point leaves an address held too long, never held twice. A start
// computes everything from the records, EC2 and the kernel; nothing else
// survives, and running pods notice nothing.
//
// Errors are logged here, once each, by the loop that gives up on them.
package agent
