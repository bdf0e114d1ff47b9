// Package agent is the node daemon: it keeps a warm pool of the VPC's
// addresses, gives them to pods that the CNI plugin brings, and makes the
// node's kernel hold what package intent says.
//
//	fairway-cni ---> CNI handlers --+
//	                                |  do(func)      one goroutine owns the addresses
//	EC2, IMDS <---> executor -------+------------->  (package ipamd's book) and the
//	                                |                kernel: the node loop
//	timers, kernel events, CRI -----+
//
// There is the node loop, a goroutine per CNI call, and the executor with one per EC2
// call under way. The node loop is the only one that touches the book, its records and
// the kernel; whoever needs them sends it a function. Only the executor and the loop
// of the VPC's routes talk to EC2, which is slow and fails; neither holds up a pod
// that an address is there for.
//
// What must hold: an address's record is on disk before its pod has it, and
// says "released" only after the kernel has stopped delivering to the pod; so a
// crash at any point leaves an address held too long, never held twice. A start
// computes everything from the records, IMDS, EC2 and the kernel; nothing else
// survives, and running pods notice nothing.
//
// Errors are logged here, once each, by the loop that gives up on them.
package agent
