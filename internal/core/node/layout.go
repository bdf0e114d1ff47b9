package node

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strconv"
)

// The numbers and names by which everything of ours in a kernel is told from
// what others wrote. They are the contract between agent versions: a change
// needs a migration.
const (
	// Protocol marks our routes (rtm_protocol) and rules (FRA_PROTOCOL). It is
	// free in iproute2's rt_protos and in the other CNIs we know.
	Protocol = 87

	// PodTable holds a /32 per local pod and, under them, an unreachable for
	// every address of our ENIs: without it a packet for a freed address
	// circles between the node and the VPC's router until its TTL ends.
	PodTable = 100
	// ENITableBase plus the slot number is the table that a new flow of the
	// ENI's pods is looked up in: what it does not hold falls to main.
	ENITableBase = 1000
	// BoundTableBase plus the slot number has one default route, by the ENI:
	// for flows that stay on it whatever is routed today.
	BoundTableBase = 2000

	// PodRulePriority .. FromRulePriority: the whole rule set, whatever the
	// number of pods. The local rule stays at 0, main at 32766.
	PodRulePriority   = 20
	BoundRulePriority = 105
	NewRulePriority   = 110
	FromRulePriority  = 120

	// UnreachableMetric puts the unreachable under a pod's route, whose metric
	// is 0: adding and removing a pod never touches it.
	UnreachableMetric = 4096

	// TableName is our nftables table, in family inet.
	TableName = "fairway"

	// DefaultVethPrefix starts the name of every host-side pod device, if the
	// user has not said otherwise. Nothing depends on it.
	DefaultVethPrefix = "fwy"

	// LinkGroup and DeadLinkGroup are the interface groups of the host-side
	// devices of live and of released pods ("fwy" in ASCII, and one more).
	// nftables finds what pods send by the group, and a dead group is deleted
	// whole: one request for any number of links.
	LinkGroup     = 0x667779
	DeadLinkGroup = 0x66777a
)

// SlotMask is the part of packet and connection marks that holds a slot: seven
// bits, since no instance type takes more than 64 ENIs on one card. It stays
// clear of kube-proxy's 0xc000, of Cilium's 0xf00 and of the VPC CNI's 0x80.
const SlotMask uint32 = 0x7f << slotShift

const slotShift = 24

// DefaultBoundMark is the bit beside the slot that says that a flow is bound:
// to the slot's ENI, or, with slot 0, to the main routing table. It is the VPC
// CNI's bit (AWS_VPC_K8S_CNI_CONNMARK), with the same meaning for slot 0.
const DefaultBoundMark uint32 = 0x80

// GatewayAddr is every pod's gateway: link-local, so that it costs no VPC
// address; answered by a permanent neighbour entry, so that it needs no ARP.
var GatewayAddr = netip.AddrFrom4([4]byte{169, 254, 1, 1})

// GatewayMAC is the hardware address of every host-side device. It is set
// explicitly, which also keeps udev's MACAddressPolicy off the device.
const GatewayMAC MACString = "02:fa:00:00:00:01"

// PodMAC derives a pod's hardware address from its IPv4 address: unique on the
// node as the address is.
func PodMAC(addr netip.Addr) MACString {
	b := addr.As4()
	return MACString("02:fb:" + hex.EncodeToString(b[:1]) + ":" + hex.EncodeToString(b[1:2]) + ":" +
		hex.EncodeToString(b[2:3]) + ":" + hex.EncodeToString(b[3:]))
}

// Slot numbers an ENI on its node from 1; slot 1 is the primary ENI. Mark,
// tables and chains follow from it, so that a person can read one from another.
type Slot int

// Mark is the slot in a packet's or a connection's mark, within [SlotMask].
func (s Slot) Mark() uint32 { return uint32(s) << slotShift & SlotMask }

// Table is the slot's routing table for new flows.
func (s Slot) Table() int { return ENITableBase + int(s) }

// BoundTable is the slot's routing table for flows that are bound to it.
func (s Slot) BoundTable() int { return BoundTableBase + int(s) }

// Chain is the nftables chain that packets of the slot's pods go to.
func (s Slot) Chain() string { return s.named("eni-") }

// FlowChain is the one that marks a packet of a flow that is bound to the slot.
func (s Slot) FlowChain() string { return s.named("flow-") }

// InChain is the one that packets which arrive by the slot's ENI go to.
func (s Slot) InChain() string { return s.named("in-") }

// NewChain is the one that binds a flow which the slot's pods begin.
func (s Slot) NewChain() string { return s.named("new-") }

func (s Slot) named(prefix string) string { return prefix + strconv.Itoa(int(s)) }

// VethName is the host-side device of one pod interface: the prefix, of at most
// four characters, and eleven hexadecimal digits of a hash. A name has at most 15.
func VethName(prefix, containerID, ifName string) string {
	sum := sha256.Sum256([]byte(containerID + "\x00" + ifName))
	return prefix + hex.EncodeToString(sum[:])[:11]
}

// Attachment is one pod interface: which container, which address, by which
// ENI. It is the only fact about a pod that outlives a restart of the agent.
type Attachment struct {
	ContainerID string
	IfName      string
	Addr        netip.Addr
	Slot        Slot   // the slot of the ENI that owns Addr; 0 if none of the node's does
	Veth        string // host-side device
	Wired       bool   // the host-side device exists in the kernel
}
