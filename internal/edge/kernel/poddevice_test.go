package kernel

import (
	"errors"
	"net"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// TestPodDeviceIsRepairedInOnePass: whatever is changed about a pod's device, one
// comparison leads back, its route and neighbour included.
func TestPodDeviceIsRepairedInOnePass(t *testing.T) {
	newNS(t)
	s := twoENIs(t)
	k := open(t)
	p := newPod(t)
	a := attachment("one", "10.0.1.6", 1)
	if err := k.Wire(Wiring{Attachment: a, MTU: 1500, NetNS: p.ns, Netlink: p.nl}); err != nil {
		t.Fatal(err)
	}
	s.Pods = []node.Attachment{a}
	converge(t, k, s)
	settled(t, k, s)
	link, err := netlink.LinkByName(a.Veth)
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range []struct {
		name string
		do   func() error
	}{
		{"another group", func() error { return netlink.LinkSetGroup(link, 7) }},
		{"down", func() error { return netlink.LinkSetDown(link) }},
		{"another MAC", func() error { return netlink.LinkSetHardwareAddr(link, net.HardwareAddr{2, 1, 1, 1, 1, 1}) }},
		{"all of them", func() error {
			if err := netlink.LinkSetGroup(link, 7); err != nil {
				return err
			}
			if err := netlink.LinkSetHardwareAddr(link, net.HardwareAddr{2, 1, 1, 1, 1, 2}); err != nil {
				return err
			}
			return netlink.LinkSetDown(link)
		}},
	} {
		step(t, damage.name, func() {
			if err := damage.do(); err != nil {
				t.Fatal(err)
			}
			converge(t, k, s)
			settled(t, k, s)
		})
	}
}

// TestWireAfterRetirement: a pod's interface that was released a moment ago, in a
// namespace that goes on, has its name still.
func TestWireAfterRetirement(t *testing.T) {
	newNS(t)
	k := open(t)
	p := newPod(t)
	before := Wiring{Attachment: attachment("before", "10.0.1.11", 1), MTU: 9001, NetNS: p.ns, Netlink: p.nl}
	if err := errors.Join(k.Wire(before), k.Unwire(before.Attachment)); err != nil {
		t.Fatal(err)
	}
	after := Wiring{Attachment: attachment("after", "10.0.1.12", 1), MTU: 9001, NetNS: p.ns, Netlink: p.nl}
	if err := errors.Join(k.Wire(after), k.Verify(after)); err != nil {
		t.Error(err)
	}
}
