// Package cri asks the node's container runtime which pod sandboxes it has. It
// is how an agent learns that an attachment's container is gone although no DEL
// came: after a crash of the runtime, or a state directory that was wiped.
//
//	Client ==HTTP/2 without TLS, unix socket==> containerd, CRI-O
//	          RuntimeService.ListPodSandbox of CRI v1, one unary gRPC call
//
// A sandbox's ID is the container ID that the runtime gives to a CNI plugin.
//
// # What a list says
//
// That a sandbox is in the list, Ready or not, says that its DEL may still come:
// a runtime lists a sandbox that has stopped until it is removed, and containerd
// also one whose tear-down has failed.
//
// That a sandbox is not in the list says nothing while it is being started. Both
// runtimes list it only after its ADD has returned and its process runs
// (containerd: RunPodSandbox in sandbox_run.go adds it to the store last; CRI-O:
// sandbox_list.go skips what is not yet "created"). So an attachment has no
// container if a list misses it that was asked for long after its ADD; how long is
// for the caller to say. An error is never an empty list.
//
// # Why not grpc-go
//
// One unary call without TLS, resolver, balancer or interceptor is an HTTP/2 POST
// with five bytes before the message and a status in the trailer, and net/http is
// linked already. grpc-go brings golang.org/x/net/trace and with it
// text/template, whose calls of methods by name keep the linker from leaving out
// any exported method: all of the EC2 SDK stays, and the agent grows from 12.6 to
// 49.6 MB (16.1 with grpc-go's build tag grpcnotrace, which everybody who builds us
// would have to know), here by 0.02. The tests have the real one, as the server.
//
// # Invariants
//
// A list is returned whole and checked, or not at all. Its bytes are untrusted:
// size, count and time are bounded, and the message is read a sandbox at a time,
// so that the labels and annotations of all pods are never in memory together.
// No connection outlives a call, so that a runtime that restarts needs nothing of
// us.
//
// A [Client] is safe for concurrent use.
package cri
