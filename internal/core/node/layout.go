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
	// ENITableBase plus the slot number is an ENI's own table.
	ENITableBase = 1000

	// PodRulePriority .. FromRulePriority: the whole rule set, whatever the
	// number of pods. The local rule stays at 0, main at 32766.
	PodRulePriority  = 20
	MarkRulePriority = 110
	FromRulePriority = 120

	// UnreachableMetric puts the unreachable under a pod's route, whose metric
	// is 0: adding and removing a pod never touches it.
	UnreachableMetric = 4096

	// TableName is our nftables table, in family inet.
	TableName = "fairway"

	// VethPrefix starts the name of every host-side pod device; nftables
	// matches it to find the packets that pods send.
	VethPrefix = "fwy"

	// LinkGroup and DeadLinkGroup are the interface groups of the host-side
	// devices of live and of released pods. A dead group is deleted whole: one
	// request for any number of links ("fwy" in ASCII, and one more).
	LinkGroup     = 0x667779
	DeadLinkGroup = 0x66777a
)

// MarkMask is the part of the packet mark that is ours: seven bits, since no
// instance type takes more than 64 ENIs on one card. It stays clear of
// kube-proxy's 0xc000, of Cilium's 0xf00 and of the VPC CNI's 0x80.
const MarkMask uint32 = 0x7f << markShift

const markShift = 24

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
// table and chain follow from it, so that a person can read one from another.
type Slot int

// Mark is the packet mark of the slot's pods, within [MarkMask].
func (s Slot) Mark() uint32 { return uint32(s) << markShift & MarkMask }

// Table is the slot's routing table.
func (s Slot) Table() int { return ENITableBase + int(s) }

// Chain is the name of the slot's nftables chain.
func (s Slot) Chain() string { return "eni-" + strconv.Itoa(int(s)) }

// VethName is the host-side device of one pod interface: the prefix and eleven
// hexadecimal digits of a hash, 14 of the 15 characters a name may have.
func VethName(containerID, ifName string) string {
	sum := sha256.Sum256([]byte(containerID + "\x00" + ifName))
	return VethPrefix + hex.EncodeToString(sum[:])[:11]
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
