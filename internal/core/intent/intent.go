// Package intent says what a node's kernel should hold: a pure function of a
// snapshot of the node, one file per feature.
//
// Be memoryless: nothing here depends on what was wanted before. Two agents
// with the same snapshot want the same kernel state, so a restart changes
// nothing. Adding or removing one pod is the difference of two snapshots, and
// [Pod] is exactly that difference; a test holds the two to each other.
//
// The package holds no state and is safe for concurrent use.
package intent

import (
	"fmt"
	"net/netip"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Snapshot is everything the node's desired state depends on.
type Snapshot struct {
	Config Config
	ENIs   []ENI
	Pods   []node.Attachment
	// HostRPFilter is net.ipv4.conf.all.rp_filter, which is the host's.
	HostRPFilter int
}

// ENI is an ENI of this node together with the device it is here.
type ENI struct {
	vpc.ENI
	Slot   node.Slot
	Device string       // the kernel's name for it now; empty while the device has not appeared
	Native []vpc.Native // what its pods reach with their own address
}

// Config is what a user can decide about the datapath. The names in capitals
// are those of the VPC CNI, whose meaning they have.
type Config struct {
	ENIMTU int // AWS_VPC_ENI_MTU, bytes

	// ExternalSNAT (AWS_VPC_K8S_CNI_EXTERNALSNAT): something behind the node
	// translates sources, so the node does not, and pods' packets to any
	// destination leave by their own ENI.
	ExternalSNAT bool
	// RandomizeSNAT (AWS_VPC_K8S_CNI_RANDOMIZESNAT) chooses source ports.
	RandomizeSNAT RandomizeSNAT
	// NodePort (AWS_VPC_CNI_NODE_PORT_SUPPORT): flows that arrive by the primary
	// ENI for a service are answered by it, whatever pod answers.
	NodePort bool
	// ExternalServices (AWS_EXTERNAL_SERVICE_CIDRS) are routed by the main table,
	// whichever pod sends and whatever else is native.
	ExternalServices []netip.Prefix
	// BoundMark (AWS_VPC_K8S_CNI_CONNMARK) is one bit outside [node.SlotMask].
	BoundMark uint32
	// ConfigureRPFilter (AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER): false leaves
	// rp_filter of the ENIs' devices to the host.
	ConfigureRPFilter bool
	// NoEarlyDemux (DISABLE_TCP_EARLY_DEMUX).
	NoEarlyDemux bool
}

// RandomizeSNAT is how the source port of a translated flow is chosen.
type RandomizeSNAT string

// The ways of the VPC CNI: by a hash, by a random number, as it comes.
const (
	HashRandom RandomizeSNAT = "hashrandom"
	PRNG       RandomizeSNAT = "prng"
	NoRandom   RandomizeSNAT = "none"
)

// Default is the configuration of a user who says nothing: the VPC CNI's.
func Default() Config {
	return Config{
		ENIMTU:            9001, // jumbo frames within a VPC: "Network maximum transmission unit", Amazon EC2 User Guide
		RandomizeSNAT:     PRNG,
		NodePort:          true,
		BoundMark:         node.DefaultBoundMark,
		ConfigureRPFilter: true,
	}
}

// Validate names what cannot be.
func (c Config) Validate() error {
	switch {
	case c.ENIMTU < 576 || c.ENIMTU > 9001:
		return fmt.Errorf("eni mtu %d: must be from 576 to 9001", c.ENIMTU)
	case c.BoundMark == 0 || c.BoundMark&(c.BoundMark-1) != 0 || c.BoundMark&node.SlotMask != 0:
		return fmt.Errorf("connection mark %#x: must be one bit outside %#x", c.BoundMark, node.SlotMask)
	}
	switch c.RandomizeSNAT {
	case HashRandom, PRNG, NoRandom:
	default:
		return fmt.Errorf("source port randomisation %q: must be %s, %s or %s", c.RandomizeSNAT, HashRandom, PRNG, NoRandom)
	}
	return nil
}

// mask is the part of marks that is ours.
func (c Config) mask() uint32 { return node.SlotMask | c.BoundMark }

// stateful tells that flows are bound to an ENI, by their connection mark. Where
// nothing is translated and no service is answered, a pod's packets leave by
// its own ENI and its flows come by it: symmetric, and without connection tracking.
func (c Config) stateful() bool { return !c.ExternalSNAT || c.NodePort }

// Desired lists every object the kernel should hold, in no particular order.
func Desired(s Snapshot) []node.Object {
	objects := sysctls(s)
	for _, eni := range s.ENIs {
		objects = append(objects, forENI(s, eni)...)
	}
	objects = append(objects, podTable(s)...)
	objects = append(objects, admission(s)...)
	if s.Config.stateful() {
		objects = append(objects, binding(s)...)
	}
	switch {
	case !s.Config.ExternalSNAT:
		objects = append(objects, sourceNAT(s)...)
	case s.Config.stateful():
		// Without any chain of NAT the kernel ends the translation of flows that
		// began before.
		objects = append(objects, chain(chainSNAT, natHook))
	}
	for _, p := range s.Pods {
		objects = append(objects, Pod(s, p)...)
	}
	return objects
}

// primary finds the node's primary ENI.
func (s Snapshot) primary() (ENI, bool) {
	for _, e := range s.ENIs {
		if e.isPrimary() {
			return e, true
		}
	}
	return ENI{}, false
}

func (e ENI) isPrimary() bool { return e.DeviceIndex == 0 && e.CardIndex == 0 }
