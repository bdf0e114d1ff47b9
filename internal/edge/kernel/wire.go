package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// firstIndex starts the interface indexes that we choose ourselves, so that a
// device and all that refers to it fit into one batch. The kernel numbers its
// own from 1 and does not come near; both ends of a pair get the same number.
const firstIndex = 1 << 20

// Wiring is what it takes to make a pod's interface.
type Wiring struct {
	node.Attachment
	MTU     int      // bytes
	NetNS   *os.File // the pod's network namespace
	Netlink *os.File // a NETLINK_ROUTE socket that was opened in it
}

// Wire makes the pair of devices and sets up the pod's side:
//
//	pod:  eth0 addr/32, default via 169.254.1.1 (permanent neighbour) dev eth0
//	node: the host-side device, no address, up
//
// The node's route to the pod and its admission are objects of package intent
// and come by [Kernel.Apply]. An error leaves nothing behind. If an end is left
// from an attachment that was released, it goes first. In a pod that has
// a default route already, the new one lies behind it and is not used.
func (k *Kernel) Wire(w Wiring) error {
	const tries = 1000
	taken := 0 // how often the name was taken, and not on the node
	for i := 1; ; i++ {
		index, err := k.freeIndex()
		if err != nil {
			return err
		}
		err = k.route.do(newVeth(w, index), hostSettings(index, k.ipv6), linkUp(index, "bring up host side"))
		switch {
		case err == nil:
			return k.wirePod(w, index)
		case errors.Is(err, unix.EBUSY) && i < tries:
			// The index is taken in the pod's namespace.
		case errors.Is(err, unix.EEXIST) && i < tries:
			err := k.clearName(w)
			if errors.Is(err, ErrIfNameTaken) {
				// Or a device that was dying had the name, and is gone by now; or one
				// that was retired a moment ago, whose namespace goes on, has it still.
				if taken++; taken < 2 {
					if err := k.Reap(); err != nil {
						return err
					}
					continue
				}
			}
			if err != nil {
				return err
			}
		case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
			return err // nothing was made
		default:
			return errors.Join(err, k.removeLink(index))
		}
	}
}

// freeIndex is the next interface index that no device of the node has: those
// of an agent before us are still there. It must be free before the batch is
// sent, because the requests in it that follow a refused one are carried out
// all the same, on whatever device has the index. Nobody else picks from here.
func (k *Kernel) freeIndex() (int32, error) {
	for {
		index := int32(k.next)
		k.next++
		name, err := unix.NewIfreq("lo") // overwritten; an empty one is refused
		if err != nil {
			return 0, err
		}
		name.SetUint32(uint32(index))
		err = unix.IoctlIfreq(k.route.fd, unix.SIOCGIFNAME, name)
		if errors.Is(err, unix.ENODEV) {
			return index, nil
		}
		if err != nil {
			return 0, fmt.Errorf("look up link %d: %w", index, err)
		}
	}
}

func (k *Kernel) wirePod(w Wiring, index int32) error {
	pod, err := k.borrow(w.Netlink)
	if err == nil {
		err = pod.do(podSide(w.Addr, index, k.ipv6)...)
	}
	// The kernel starts the queues of devices that have got their carrier in its
	// own time, some hundred a second, and drops what they send until then. Who
	// asks for a device has its queue started at once.
	for _, end := range []*conn{pod, k.route} {
		if err == nil {
			_, err = readLinkAt(end, index)
		}
	}
	if err != nil {
		return errors.Join(err, k.removeLink(index))
	}
	return nil
}

// gatewayRoutes are what a pod's namespace has for each of its interfaces.
func gatewayRoutes() []node.Route {
	return []node.Route{
		{Table: unix.RT_TABLE_MAIN, Dst: netip.PrefixFrom(node.GatewayAddr, 32)},
		{Table: unix.RT_TABLE_MAIN, Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Gateway: node.GatewayAddr},
	}
}

func podSide(addr netip.Addr, index int32, ipv6 bool) []request {
	var batch []request
	if ipv6 {
		batch = append(batch, noIPv6Address(index))
	}
	batch = append(batch, linkUp(index, "bring up pod side"),
		request{message: newAddress(index, netip.PrefixFrom(addr, 32), 0), what: "add pod's address " + addr.String()})
	for _, r := range gatewayRoutes() {
		m := routeMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, r, index)
		batch = append(batch, request{message: m, what: "add pod's route " + r.Dst.String()})
	}
	m := permanentNeighbor(index, node.GatewayAddr, node.GatewayMAC)
	return append(batch, request{message: m, what: "add pod's neighbor " + node.GatewayAddr.String()})
}

// clearName makes room when the kernel says that a name exists: either the
// host side is left over from a released attachment, and goes, or the pod's
// namespace has an interface of that name, and the request is at fault.
func (k *Kernel) clearName(w Wiring) error {
	l, err := readLink(k.route, w.Veth)
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("create %s: %w", w.IfName, ErrIfNameTaken)
	}
	if err != nil {
		return err
	}
	switch l.group {
	case node.LinkGroup, node.DeadLinkGroup:
		return k.removeLink(l.index)
	}
	return fmt.Errorf("create %s: the node has a device of that name which is not ours", w.Veth)
}

func (k *Kernel) removeLink(index int32) error {
	return k.route.do(request{message: linkMessage(unix.RTM_DELLINK, 0, index), what: "remove link", fine: gone})
}

// Unwire takes the attachment's device out of service: down, and in the group
// of the dead. Deleting it here would wait 16 ms for an RCU grace period; the
// end of the pod's namespace or [Kernel.Reap] deletes it. Success if it is not
// there.
func (k *Kernel) Unwire(a node.Attachment) error {
	index, err := k.index(a.Veth)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	m := linkSettings(index, node.Link{Group: node.DeadLinkGroup})
	return k.route.do(request{message: m, what: "retire " + a.Veth, fine: gone})
}

// Reap deletes every device of the dead group, in one request.
func (k *Kernel) Reap() error {
	m := linkMessage(unix.RTM_DELLINK, 0, 0)
	m.u32(unix.IFLA_GROUP, node.DeadLinkGroup)
	return k.route.do(request{message: m, what: "remove dead links", fine: gone})
}
