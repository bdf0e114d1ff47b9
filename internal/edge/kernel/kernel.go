// Package kernel reads and writes the node's kernel: devices, addresses,
// routes and rules by rtnetlink, the mark and the admission of pods by
// nftables, switches by /proc/sys.
//
// It decides nothing. What should be there comes as [node.Object] values from
// package intent; what to change comes as [diff.Change] values. It touches only
// what is recognisably ours: routes and rules of protocol [node.Protocol], the
// nftables table [node.TableName], links of group [node.LinkGroup] and
// [node.DeadLinkGroup]. Addresses and sysctls carry no owner, so they are
// written and never removed.
//
// A pod's interface is made with two batches of netlink messages written by
// this package itself, not by a library call per object. The reasons: the pod's
// side goes through a socket that the CNI plugin opened and handed over (a
// library handle can only be opened by entering the namespace, which needs
// CAP_SYS_ADMIN), and one sendmsg per side is the floor that an ADD is measured
// against.
//
// A Kernel belongs to one goroutine. Parallel writers would only queue for the
// kernel's RTNL lock, and unfairly.
package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Errors that callers branch on.
var (
	// ErrIfNameTaken: the pod's namespace has an interface of that name which
	// is not this attachment's.
	ErrIfNameTaken = errors.New("interface name is taken in the pod's network namespace")
	// ErrNotWired: the attachment's host-side device does not exist.
	ErrNotWired = errors.New("host-side device does not exist")
)

// Kernel is the network namespace that the process is in, opened for writing.
type Kernel struct {
	route   *conn           // our batches
	handle  *netlink.Handle // dumps and rare writes
	nft     *nftables.Conn
	procSys string
	ipv6    bool // the kernel has IPv6 at all
	next    int  // next interface index to try
}

// Open opens the sockets in the caller's network namespace. The caller's OS
// thread decides which that is.
func Open() (*Kernel, error) {
	route, err := dial()
	if err != nil {
		return nil, err
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink handle: %w", err), route.Close())
	}
	nft, err := nftables.New(nftables.AsLasting())
	if err != nil {
		handle.Close()
		return nil, errors.Join(fmt.Errorf("open nftables socket: %w", err), route.Close())
	}
	k := &Kernel{route: route, handle: handle, nft: nft, procSys: "/proc/sys", next: firstIndex}
	_, err = os.Stat(filepath.Join(k.procSys, "net/ipv6"))
	k.ipv6 = err == nil
	return k, nil
}

// Close closes the sockets. What was written stays.
func (k *Kernel) Close() error {
	k.handle.Close()
	return errors.Join(k.route.Close(), k.nft.CloseLasting())
}

// Device is a network device as the kernel names it now.
type Device struct {
	Name  string
	Index int
	MAC   vpc.MAC
	Group uint32
}

// Devices lists the namespace's devices. ENIs are found among them by MAC: a
// name may change milliseconds after the device appears.
func (k *Kernel) Devices() ([]Device, error) {
	links, err := retry(k.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	devices := make([]Device, 0, len(links))
	for _, l := range links {
		a := l.Attrs()
		d := Device{Name: a.Name, Index: a.Index, Group: a.Group}
		if len(a.HardwareAddr) == len(d.MAC) {
			d.MAC = vpc.MAC(a.HardwareAddr)
		}
		devices = append(devices, d)
	}
	return devices, nil
}

// retry repeats a dump that another writer interrupted (NLM_F_DUMP_INTR): such
// a dump may lack entries. Under constant change it gives up after some tries.
func retry[T any](dump func() (T, error)) (T, error) {
	const tries = 10
	for i := 1; ; i++ {
		v, err := dump()
		if i == tries || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return v, err
		}
	}
}

// index gives a device's index by name, by the cheapest call there is.
func (k *Kernel) index(name string) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("look up link %q: %w", name, err)
	}
	if err := unix.IoctlIfreq(k.route.fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, fmt.Errorf("look up link %q: %w", name, err)
	}
	return int(ifr.Uint32()), nil
}
