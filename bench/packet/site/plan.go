// Package site builds what the benches of the datapath measure on: nodes whose
// ENIs are joined by a router that does nothing but route.
//
//	namespaces:  pod, park     node 0        router       node 1      pod, park
//	             eth0 ===== fwy...  ens5 ====== f0-0 f1-0 ====== ens5  fwy... ===== eth0
//	                               ens6 ====== f0-1 f1-1 ====== ens6
//
// The router stands for the VPC and is no part of what is measured, so it is
// the same beside every node: one route for each of 15 ENIs, whether the ENI is
// there or not, and permanent neighbours. It has no rules and no filter: the
// lab's fabric has, and would make the host's own path dearer, which would
// flatter every ratio to it.
//
// A node's state is [intent.Desired] of a snapshot, written by package kernel.
// Its pods are wired by package kernel too. The last one has a namespace of its
// own, the others' far ends lie together in one, since nobody measures there.
//
// What a site makes goes when its files are closed, or with the process. A site
// belongs to one goroutine.
package site

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// The shape of a large instance, such as m5.24xlarge: 15 ENIs of 50 addresses.
// (Here the ENI's own is not among the 50, so that there is room for 737 pods,
// its pod limit on EKS, two of which would be on the host's network there.)
const (
	MaxENIs    = 15
	PodsPerENI = 50
	blockSize  = 64 // addresses of the subnet that are set aside for one ENI
	blockBits  = 26
	hostPart   = 4 // of the ENI's own address in its block; the first four are the VPC's
	mtu        = 9001
)

var vpcCIDR = netip.MustParsePrefix("10.0.0.0/16")

// subnet is the half of the VPC that a node is in.
func subnet(side int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(128 * side), 0}), 17)
}

// ENIsFor is how many ENIs a node with that many pods has: at least two, since
// the last pod shall be on a secondary one.
func ENIsFor(pods int) int { return max(2, (pods+PodsPerENI-1)/PodsPerENI) }

// at is an address of the block of a node's ENI.
func at(side, eni, host int) netip.Addr {
	b := subnet(side).Addr().As4()
	offset := eni*blockSize + host
	b[2], b[3] = b[2]+byte(offset>>8), byte(offset)
	return netip.AddrFrom4(b)
}

// Device is the name of a node's ENI.
func Device(eni int) string { return "ens" + strconv.Itoa(5+eni) }

func eniMAC(side, eni int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0, 0, 0, byte(side), byte(eni)}
}

func routerMAC(side, eni int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 1, 0, 0, byte(side), byte(eni)}
}

// Snapshot describes a node with pods. They fill the ENIs from the last one
// down, so that the last pod is on the last ENI, whose rules come last.
func Snapshot(side, pods int, config intent.Config) intent.Snapshot {
	s := intent.Snapshot{Config: config}
	enis := ENIsFor(pods)
	for i := range enis {
		e := intent.ENI{
			ENI: vpc.ENI{ID: fmt.Sprintf("eni-%d-%d", side, i), MAC: vpc.MAC(eniMAC(side, i)), DeviceIndex: i,
				Subnet: subnet(side), Primary: at(side, i, hostPart)},
			Slot: node.Slot(i + 1), Device: Device(i),
			Native: []vpc.Native{{Prefix: vpcCIDR, Why: "CIDR of the VPC"}},
		}
		for j := range PodsPerENI {
			e.Secondary = append(e.Secondary, at(side, i, hostPart+1+j))
		}
		s.ENIs = append(s.ENIs, e)
	}
	for i := range pods {
		below := pods - 1 - i // pods that come after
		e := s.ENIs[enis-1-below/PodsPerENI]
		id := fmt.Sprintf("%d-%d", side, i)
		s.Pods = append(s.Pods, node.Attachment{
			ContainerID: id, IfName: "eth0", Addr: e.Secondary[PodsPerENI-1-below%PodsPerENI], Slot: e.Slot,
			Veth: node.VethName(node.DefaultVethPrefix, id, "eth0"), Wired: true,
		})
	}
	return s
}
