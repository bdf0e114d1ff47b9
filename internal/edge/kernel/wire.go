package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
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
//	node: fwy..., no address, up
//
// The node's route to the pod and its admission are objects of package intent
// and come by [Kernel.Apply]. An error leaves nothing behind. If the node's end
// is left from an attachment that was released, it goes first.
func (k *Kernel) Wire(w Wiring) error {
	for tries := 0; ; tries++ {
		index, err := k.freeIndex()
		if err != nil {
			return err
		}
		err = k.wire(w, index)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EBUSY) && tries < 1000:
			// The index is taken in the pod's namespace.
		case errors.Is(err, unix.EEXIST) && tries < 1000:
			if err := k.clearName(w); err != nil {
				return err
			}
		default:
			return err
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

func (k *Kernel) wire(w Wiring, index int32) error {
	host := []request{newVeth(w, index), hostSettings(index, k.ipv6), linkUp(index, "bring up host side")}
	if err := k.route.do(host); err != nil {
		if !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EBUSY) {
			err = errors.Join(err, k.removeLink(index))
		}
		return err
	}
	pod := &conn{fd: int(w.Netlink.Fd())}
	err := pod.prepare()
	if err == nil {
		err = pod.do(podSide(w.Addr, index, k.ipv6))
	}
	if err != nil {
		return errors.Join(err, k.removeLink(index))
	}
	return nil
}

func podSide(addr netip.Addr, index int32, ipv6 bool) []request {
	var batch []request
	if ipv6 {
		batch = append(batch, noIPv6Address(index))
	}
	gateway := netip.PrefixFrom(node.GatewayAddr, 32)
	batch = append(batch,
		linkUp(index, "bring up pod side"),
		newAddress(index, addr),
		routeRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
			node.Route{Dst: gateway, Table: unix.RT_TABLE_MAIN}, index),
		routeRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
			node.Route{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Gateway: node.GatewayAddr, Table: unix.RT_TABLE_MAIN}, index),
		permanentNeighbor(index, node.GatewayAddr, node.GatewayMAC))
	return batch
}

// clearName makes room when the kernel says that a name exists: either the
// host side is left over from a released attachment, and goes, or the pod's
// namespace has an interface of that name, and the request is at fault.
func (k *Kernel) clearName(w Wiring) error {
	link, err := k.handle.LinkByName(w.Veth)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return fmt.Errorf("create %s: %w", w.IfName, ErrIfNameTaken)
	}
	if err != nil {
		return fmt.Errorf("look up link %s: %w", w.Veth, err)
	}
	switch link.Attrs().Group {
	case node.LinkGroup, node.DeadLinkGroup:
		return k.removeLink(int32(link.Attrs().Index))
	}
	return fmt.Errorf("create %s: the node has a device of that name which is not ours", w.Veth)
}

func (k *Kernel) removeLink(index int32) error {
	r, _ := linkRequest(unix.RTM_DELLINK, 0, index, "remove link")
	r.absent = true
	return k.route.do([]request{r})
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
	r, msg := linkRequest(unix.RTM_SETLINK, 0, int32(index), "retire "+a.Veth)
	r.absent = true
	msg.Change = unix.IFF_UP
	r.AddData(groupAttr(node.DeadLinkGroup))
	return k.route.do([]request{r})
}

// Reap deletes every device of the dead group, in one request.
func (k *Kernel) Reap() error {
	r, _ := linkRequest(unix.RTM_DELLINK, 0, 0, "remove dead links")
	r.absent = true
	r.AddData(groupAttr(node.DeadLinkGroup))
	return k.route.do([]request{r})
}
