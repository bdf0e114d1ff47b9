// Package cniapi is what the CNI plugin and the node agent have in common: the
// frames they exchange, the errors they name, the client half of the exchange,
// and the spool in which a DEL waits for an agent that is away.
//
//	runtime --env, stdin--> fairway-cni ==request, 2 fds==> agent
//	runtime <--stdout------ fairway-cni <==reply=========== agent
//	                             |                            ^
//	                             +--- spool (DEL only) -------+ at its start
//
// The agent's half is package cniserver below this one.
//
// Start-up time is this package's first constraint: what it imports, every ADD
// and DEL of every pod pays for. So it knows os and syscall, and no more: no
// net, no fmt, and its own JSON reader, which saves 0.22 ms of the 2.1 ms that a
// Go program with os needs from exec to exit (encoding/json with reflect and
// its tables; golang.org/x/sys/unix would be another 0.07 ms). A test in
// cmd/fairway-cni holds the list of linked packages.
//
// What it reads is bounded: a frame and a network configuration have at most
// [MaxFrame] bytes, JSON nests at most 128 deep, a spool entry has at most 64 KiB.
//
// Nothing here holds state or starts a goroutine. [OpenPod] changes the network
// namespace of the thread it runs on for good and is for a program that ends
// soon; everything else is safe for concurrent use.
package cniapi
