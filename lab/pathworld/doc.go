// Package pathworld turns a running lab into a [path.World]: what a collector
// would read of EC2 and of the nodes, without their rights.
//
//	ec2sim.Snapshot --cloud.go--> VPCs, peerings, transit gateways --+
//	namespaces ------kernel.go--> `ip`, `nft`, /proc, as lines ------+--> path.World
//
// It reads EC2's own words and the kernels', and nothing of how the fabric
// carries them out: the fabric is the explainer's judge, so what the fabric
// understood must not reach the explainer. It imports no decision of theirs.
//
// The cloud half is pure. Reading namespaces needs root and, where there are
// tables of nftables, the program nft: without it they are not known.
// All functions are safe for concurrent use.
package pathworld

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// Host is an instance whose kernel is read. The files remain the caller's.
type Host struct {
	Instance string // EC2's identifier
	Name     string
	Cluster  string // labels its places; empty: those of its VPC
	NetNS    *os.File
	Pods     []Pod
}

// Pod is a pod of a host.
type Pod struct {
	Namespace, Name string
	Addr            netip.Addr // IPv4
	NetNS           *os.File
}

// Read gives the world: all of a snapshot, and the hosts' kernels. An instance
// that is no host has a kernel that is not known.
func Read(name string, snap ec2sim.Snapshot, hosts []Host) (*path.World, error) {
	w := Cloud(name, snap)
	for _, h := range hosts {
		n, err := readNode(snap, h)
		if err != nil {
			return nil, fmt.Errorf("read instance %s: %w", h.Name, err)
		}
		w.Nodes = append(w.Nodes, n)
	}
	if err := w.Validate(); err != nil {
		return nil, fmt.Errorf("read world of lab %s: %w", name, err)
	}
	return w, nil
}
