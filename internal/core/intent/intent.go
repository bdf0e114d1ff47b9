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
	"net/netip"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Snapshot is everything the node's desired state depends on.
type Snapshot struct {
	ENIs   []ENI
	Native []netip.Prefix // destinations that see a pod's own address
	Pods   []node.Attachment
	MTU    int // bytes, of ENIs and pods
}

// ENI is an ENI of this node together with the device it is here.
type ENI struct {
	vpc.ENI
	Slot   node.Slot
	Device string // the kernel's name for it now; empty while the device has not appeared
}

// Desired lists every object the kernel should hold, in no particular order.
func Desired(s Snapshot) []node.Object {
	objects := sysctls(s)
	for _, eni := range s.ENIs {
		objects = append(objects, forENI(s, eni)...)
	}
	objects = append(objects, podTable(s)...)
	objects = append(objects, sourceNAT(s)...)
	for _, p := range s.Pods {
		objects = append(objects, Pod(s, p)...)
	}
	return objects
}

// primary finds the node's primary ENI.
func (s Snapshot) primary() (ENI, bool) {
	for _, e := range s.ENIs {
		if e.DeviceIndex == 0 && e.CardIndex == 0 {
			return e, true
		}
	}
	return ENI{}, false
}
