// Package fabric is a VPC in the kernel: it carries real packets between the
// instances of a lab, by a VPC's rules.
//
// Every VPC is one network namespace in which the kernel forwards by its routes;
// every attached ENI is a veth pair between it and the instance, with BPF
// programs at the VPC's end for what belongs to the ENI. docs/design/fabric.md
// draws it and lists the rules with their source.
//
//	instance                VPC namespace
//	ens5  <---- veth ---->  eni-0abc...   from_eni: MAC, source check, ARP, services
//	                            |
//	                         routes: an ENI's addresses -> its device, all else -> a sink
//
// Invariants:
//   - The kernel holds what the last [Fabric.Sync] was given, and Sync finds out
//     by asking the kernel: what somebody removed or changed, the next Sync mends.
//   - Namespaces, programs and maps are held by open files of this process only.
//     Once it ends, however it ends, nothing is left.
//   - A packet that the fabric drops is counted by reason, for the ENI it came from,
//     or for the one it was to reach where that one's filters dropped it.
//   - A device's ifindex is unique over all VPCs of a Fabric, and an ENI keeps its
//     own for as long as it is in the topology, attached or not.
//
// All methods of [Fabric] are safe for concurrent use; changes are serial.
// Addresses are IPv4 throughout; there is no IPv6 in the fabric yet.
package fabric

//go:generate go run gen.go
