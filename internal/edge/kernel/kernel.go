// Package kernel reads and writes the node's kernel: devices, addresses,
// routes and rules by rtnetlink, the mark and the admission of pods by
// nftables, switches by /proc/sys. It also tells when somebody else wrote what
// concerns us.
//
// It decides nothing. What should be there comes as [node.Object] values from
// package intent; what to change comes as [diff.Change] values. It touches only
// what is recognisably ours: routes and rules of protocol [node.Protocol], the
// nftables table [node.TableName], links of group [node.LinkGroup] and
// [node.DeadLinkGroup]. Addresses and sysctls carry no owner, so they are
// written and never removed.
//
// Netlink messages are written and read by this package itself, not by a library
// call per object. The reasons: many requests fit into one sendmsg, which is the
// floor that an ADD and a rebuilt node are measured against; a dump is read for
// the few attributes that count; and a pod's side goes through a socket that the
// CNI plugin opened and handed over (a library handle can only be opened by
// entering the namespace, which needs CAP_SYS_ADMIN).
//
// A Kernel belongs to one goroutine. Parallel writers would only queue for the
// kernel's RTNL lock, and unfairly. A [Watcher] belongs to another one.
package kernel

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
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
	// FailWrites is for tests: it is asked before each write, and its error takes
	// the place of the write. Nil asks nobody.
	FailWrites func() error

	route   *conn // NETLINK_ROUTE
	nft     *conn // NETLINK_NETFILTER
	procSys string
	ipv6    bool             // the kernel has IPv6 at all
	next    int              // next interface index to try
	devices map[string]int32 // indexes as the last Read saw them, for its changes
}

// ProcSys is where the switches are, but in a container: there it may only be read.
const ProcSys = "/proc/sys"

// Open opens the sockets in the caller's network namespace. The caller's OS
// thread decides which that is.
func Open() (*Kernel, error) { return OpenAt(ProcSys) }

// OpenAt is Open for a process that has the switches in another directory than
// [ProcSys]. Of those only net/ is needed.
func OpenAt(procSys string) (*Kernel, error) {
	route, err := dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	nft, err := dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, errors.Join(err, route.Close())
	}
	k := &Kernel{route: route, nft: nft, procSys: procSys, next: firstIndex}
	route.ask = k.refuse
	_, err = os.Stat(filepath.Join(k.procSys, "net/ipv6"))
	k.ipv6 = err == nil
	return k, nil
}

// Close closes the sockets. What was written stays.
func (k *Kernel) Close() error { return errors.Join(k.route.Close(), k.nft.Close()) }

// refuse asks FailWrites.
func (k *Kernel) refuse() error {
	if k.FailWrites == nil {
		return nil
	}
	return k.FailWrites()
}

// borrow takes a socket that somebody opened in a pod's namespace. The numbers
// of its requests are none that were used on it before.
func (k *Kernel) borrow(socket *os.File) (*conn, error) {
	const most = 1 << 10 // requests by one caller
	k.route.seq += most
	c := &conn{fd: int(socket.Fd()), seq: k.route.seq - most, ask: k.refuse}
	return c, c.prepare()
}
