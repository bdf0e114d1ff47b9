package site

import (
	"errors"
	"fmt"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"os"
	"strconv"

	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// Node is one node: its namespace, its pods' and what it should hold.
type Node struct {
	NS       *os.File
	Pod      *os.File // namespace of the last pod
	Kernel   *kernel.Kernel
	Snapshot intent.Snapshot
	park     *os.File // the other pods' far ends
	files    []*os.File
}

// newNode makes the namespaces; the ENIs come by the router.
func newNode(s intent.Snapshot) (*Node, error) {
	n := &Node{Snapshot: s}
	for _, ns := range []**os.File{&n.NS, &n.Pod, &n.park} {
		f, err := newNamespace()
		if err != nil {
			return nil, errors.Join(err, n.Close())
		}
		*ns, n.files = f, append(n.files, f)
	}
	err := n.Do(func() (err error) {
		n.Kernel, err = kernel.Open()
		return err
	})
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// newNamespace makes a namespace in which no device does anything by itself. Its
// loopback is up: without any local route the kernel takes every gateway for a
// broadcast address.
func newNamespace() (*os.File, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	err = netns.Do(ns, func() error {
		for _, s := range []node.Sysctl{
			{Path: "net/ipv6/conf/all/disable_ipv6", Value: "1"},
			{Path: "net/ipv6/conf/default/disable_ipv6", Value: "1"},
			{Path: "net/ipv4/conf/all/rp_filter", Value: "0"},
			{Path: "net/ipv4/conf/default/rp_filter", Value: "0"},
		} {
			if err := WriteSysctl(s.Path, s.Value); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// WriteSysctl writes a file below /proc/sys of the namespace that the thread is in.
func WriteSysctl(path, value string) error {
	if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
		return fmt.Errorf("write sysctl %s: %w", path, err)
	}
	return nil
}

// Do runs fn in the node's namespace.
func (n *Node) Do(fn func() error) error { return netns.Do(n.NS, fn) }

// Pods is how many pods the node has.
func (n *Node) Pods() int { return len(n.Snapshot.Pods) }

// Last is the pod that came last.
func (n *Node) Last() node.Attachment { return n.Snapshot.Pods[len(n.Snapshot.Pods)-1] }

// Close gives up what the node holds; its devices go with its namespaces.
func (n *Node) Close() error {
	var errs []error
	if n.Kernel != nil {
		errs = append(errs, n.Kernel.Close())
	}
	for _, f := range n.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// wirePods makes every pod's interface, the last one's last.
func (n *Node) wirePods() error {
	const parkSocket, podSocket = 0, 1
	var sockets [2]*os.File
	for i, ns := range []*os.File{parkSocket: n.park, podSocket: n.Pod} {
		f, err := netlinkSocket(ns)
		if err != nil {
			return err
		}
		defer f.Close()
		sockets[i] = f
	}
	for i, a := range n.Snapshot.Pods {
		w := kernel.Wiring{Attachment: a, MTU: mtu, NetNS: n.park, Netlink: sockets[parkSocket]}
		w.IfName = "p" + strconv.Itoa(i)
		if i == len(n.Snapshot.Pods)-1 {
			w.IfName, w.NetNS, w.Netlink = a.IfName, n.Pod, sockets[podSocket]
		}
		if err := n.Kernel.Wire(w); err != nil {
			return fmt.Errorf("wire pod %d: %w", i, err)
		}
	}
	return nil
}

// netlinkSocket is what the CNI plugin opens in a pod's namespace.
func netlinkSocket(ns *os.File) (*os.File, error) {
	var f *os.File
	err := netns.Do(ns, func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink socket: %w", err)
		}
		f = os.NewFile(uintptr(fd), "netlink")
		return nil
	})
	return f, err
}

// Compare reads the kernel and compares it with the intent.
func (n *Node) Compare() ([]diff.Change, error) {
	want := intent.Desired(n.Snapshot)
	have, err := n.Kernel.Read(want)
	if err != nil {
		return nil, err
	}
	return diff.Compare(have, want), nil
}

// Converge makes the kernel hold what it should, as the agent does. It must run
// in the node's namespace: sysctls are files of the thread's own.
func (n *Node) Converge() ([]diff.Change, error) {
	want := intent.Desired(n.Snapshot)
	have, err := n.Kernel.Read(want)
	if err != nil {
		return nil, err
	}
	changes := diff.Compare(have, want)
	return changes, n.Kernel.Converge(changes, want)
}

// Settle converges and makes sure that nothing is left to do. What is left is
// looked at more than once: while the kernel enlarges the hash table of a set, a
// list of its elements lacks some. It must run in the node's namespace.
func (n *Node) Settle() error {
	if _, err := n.Converge(); err != nil {
		return err
	}
	var left []diff.Change
	err := Until(func() (_ bool, err error) {
		left, err = n.Compare()
		return len(left) == 0, err
	})
	if err != nil && len(left) > 0 {
		err = fmt.Errorf("%d changes are left after all were applied, the first: %s: %w", len(left), left[0], err)
	}
	return err
}

// Sent is how many packets a device of the node has sent.
func (n *Node) Sent(device string) (uint64, error) {
	h, err := handle(n.NS)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	l, err := h.LinkByName(device)
	if err != nil {
		return 0, err
	}
	if l.Attrs().Statistics == nil {
		return 0, fmt.Errorf("no statistics of %s", device)
	}
	return l.Attrs().Statistics.TxPackets, nil
}
