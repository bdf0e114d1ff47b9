package ipam

import (
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Subnet is where ENIs can be made.
type Subnet = vpc.Subnet

// The tags by which the planner knows an ENI. InstanceTag has the ID of the
// instance that the ENI gives addresses to; its name is that of the AWS VPC CNI.
// OwnerTag, with OwnerValue, says that it was made here: no other is detached or
// set to end with its instance, as nobody would delete it then, or somebody misses it.
const (
	InstanceTag = "node.k8s.amazonaws.com/instance_id"
	OwnerTag    = "fairway-cni/owner"
	OwnerValue  = "fairway"
)

// PrefixSize is how many addresses a prefix of an ENI has: EC2 gives /28s.
// Source: "Assign prefixes to network interfaces", Amazon EC2 User Guide.
const PrefixSize = 16

// DefaultReturnAfter is how long something is free before it is given back: the
// time after which the AWS VPC CNI frees an ENI.
const DefaultReturnAfter = time.Minute

// State is what the planner knows of the node. ENIs may contain some whose
// Status is "detaching": they take their places and count for nothing else.
type State struct {
	InstanceType string
	InstanceID   string
	Limits       vpc.Limits
	MaxPods      int // most pods that the kubelet runs; 0: not known

	ENIs     []vpc.ENI // managed and attached or attaching, the primary among them
	Others   []vpc.ENI // attached and not ours to use: they take places
	Detached []vpc.ENI // of this node by their tag, attached to nothing

	Entries   []Entry // the pool, every address
	Waiting   int     // ADDs that wait for an address
	Scheduled int     // pods bound to the node that have no address and do not wait yet

	InFlight []Change // begun, outcome not known; may also be those that Plan just gave
	Blocked  map[BlockKey]Block
	Subnets  []Subnet // where further ENIs may be made; empty: the primary ENI's only
	Network  Network
	Offline  bool // EC2 has not answered lately: what seems free to give back may not be
	Unsorted bool // EC2 has not said yet which of Others are ours
}

// Network says where the ENIs of pods are made if not beside the primary ENI
// (custom networking). The primary ENI then has no address for pods.
type Network struct {
	Enabled  bool
	SubnetID string
	Groups   []string
	Problem  string // why there is none that can be used; no ENI is made then
}

// Targets is what the user wants. The names in capitals are those of the AWS VPC
// CNI, whose meaning they have.
type Targets struct {
	WarmENIs     int // WARM_ENI_TARGET
	WarmIPs      int // WARM_IP_TARGET; 0: not set
	MinimumIPs   int // MINIMUM_IP_TARGET; 0: not set
	WarmPrefixes int // WARM_PREFIX_TARGET; 0: not set

	MaxENIs        int           // MAX_ENI, of the instance's default card, the primary included; 0 or less: the type's
	Prefixes       bool          // ENABLE_PREFIX_DELEGATION
	NoProvisioning bool          // DISABLE_NETWORK_RESOURCE_PROVISIONING: EC2 is never asked for a change
	ReturnAfter    time.Duration // how long an address or ENI is free before it is given back
	MarkAndTag     bool          // mark and tag ENIs that are not as ours should be
}

// DefaultTargets is what holds where the user says nothing.
func DefaultTargets() Targets {
	return Targets{WarmENIs: 1, ReturnAfter: DefaultReturnAfter, MarkAndTag: true}
}

// byIP reports whether addresses are counted, not ENIs or prefixes.
func (t Targets) byIP() bool { return t.WarmIPs > 0 || t.MinimumIPs > 0 }

// blocked finds what forbids the kind for any of the targets at the time, and
// reports whether something does. The empty target is "every one".
func (s State) blocked(now time.Time, k Kind, targets ...string) (Block, bool) {
	for _, target := range targets {
		if b, ok := s.Blocked[BlockKey{k, target}]; ok && now.Before(b.Until) {
			return b, true
		}
	}
	return Block{}, false
}

// maxENIs is how many ENIs the default card may hold. ENIs are only ever
// attached there: the other cards of accelerated types carry no usual traffic.
func (s State) maxENIs(t Targets) int {
	if t.MaxENIs > 0 {
		return min(t.MaxENIs, s.Limits.ENIs)
	}
	return s.Limits.ENIs
}

// prefixMode reports whether prefixes are asked for: on types that can.
func (s State) prefixMode(t Targets) bool { return t.Prefixes && s.Limits.PrefixCapable() }

// perENI is how many pod addresses, or prefixes, one ENI takes.
func (s State) perENI() int { return max(s.Limits.IPv4PerENI-1, 0) }

// primary is the ENI that lives and dies with the instance.
func (s State) primary() (vpc.ENI, bool) {
	for _, e := range s.ENIs {
		if isPrimary(e) {
			return e, true
		}
	}
	return vpc.ENI{}, false
}

// isPrimary: an ENI of a further network card is never the primary, whatever its
// device index.
func isPrimary(e vpc.ENI) bool { return e.DeviceIndex == 0 && e.CardIndex == 0 }

// serves reports whether pods get addresses of the ENI.
func (s State) serves(e vpc.ENI) bool { return !s.Network.Enabled || !isPrimary(e) }

// madeHere reports whether the ENI is one that this program makes.
func madeHere(e vpc.ENI) bool { return e.Tags[OwnerTag] == OwnerValue }

// leaving reports whether EC2 is taking the ENI off the instance.
func leaving(e vpc.ENI) bool { return e.Status == "detaching" || e.Status == "detached" }

// onCard counts attached ENIs of the default card, ours or not.
func (s State) onCard() int {
	n := 0
	for _, all := range [][]vpc.ENI{s.ENIs, s.Others} {
		for _, e := range all {
			if e.CardIndex == s.Limits.DefaultCard {
				n++
			}
		}
	}
	return n
}
