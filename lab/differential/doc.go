// Package differential holds the explainer of packets to real packets: its test
// builds random worlds in the lab, sends random packets through each, and
// compares what became of them with what package path says of the same world.
//
//	seed --> world.yaml, nodes' rules, damage --> the lab --> packets --> observed
//	                                               |                         |
//	                                          pathworld --> path.Trace --> told, compared
//
// What became of a packet is known from who received it, from the kernel's drops
// (package tracepoint) and from the fabric's counters, and never from nothing having
// come in time: a packet of which nobody knows is a failure of the test.
//
// `make differential N=2000` runs it. Where the two disagree, AWS's page decides
// which one is wrong.
package differential
