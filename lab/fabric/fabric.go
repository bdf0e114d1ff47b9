package fabric

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// RouterMAC is the implied router's MAC: of every fabric end, and in every ARP
// answer. Locally administered; ROUTER_MAC in bpf/arp.h is the same.
var RouterMAC = MAC{0x02, 0x00, 0x00, 0x00, 0x00, 0x01}

// linkLocal is RFC 3927's. Source of its use for the VPC's own services: "Amazon
// EC2 instance IP addressing", Amazon EC2 User Guide.
var linkLocal = netip.MustParsePrefix("169.254.0.0/16")

var (
	// ErrClosed is the answer of a Fabric after Close.
	ErrClosed = errors.New("fabric is closed")
	// ErrUnknownVPC and ErrUnknownENI: not in the topology of the last Sync.
	ErrUnknownVPC = errors.New("no such vpc in the fabric")
	ErrUnknownENI = errors.New("no such eni in the fabric")
	// ErrUnknownGuest: an ENI is attached to what AddGuest has not been told of.
	ErrUnknownGuest = errors.New("no such guest in the fabric")
)

// Config is what all VPCs of a Fabric have in common.
type Config struct {
	// Services are the link-local addresses (169.254.0.0/16) that the fabric
	// serves in every VPC, for Listen and ListenENI. At most 64.
	Services []netip.Addr
}

// firstIndex is the ifindex of the first ENI: above those that the kernel hands
// out to lo and the sinks.
const firstIndex = 1000

// Fabric holds the VPCs of a lab.
type Fabric struct {
	services []netip.Addr
	objs     bpfObjects

	mu     sync.Mutex
	closed bool
	guests map[string]guest
	vpcs   map[string]*vpcNet
	ports  map[string]port // by ENI ID: the ENIs of the last Sync
	next   int             // ifindex for the next new ENI or end of a link
	slot   uint32          // where the next ENI's entry goes, if it is free

	transit   map[string]*vpcNet // by transit gateway ID
	internet  *vpcNet
	linkPorts map[linkKey]int  // ifindexes of the links of the last Sync
	tables    map[tableKey]int // numbers of the route tables of the last Sync

	listeners listeners

	last   Topology // of the last Sync, for SetFaults
	faults Faults
	wires  wires
}

// port is where an ENI is in the fabric, plugged in or not.
type port struct {
	nat   bool // of a NAT gateway
	vpc   string
	index int // ifindex of the fabric end

	primary netip.Addr
}

// guest is the network namespace of an instance.
type guest struct {
	netns *os.File
	inode uint64
}

// netnsName tells one boot of an instance from another.
func (g guest) netnsName() string { return fmt.Sprintf("net:[%d]", g.inode) }

// New loads the BPF programs. It needs root; [Probe] says what else.
func New(cfg Config) (*Fabric, error) {
	for _, a := range cfg.Services {
		if !a.Is4() || !linkLocal.Contains(a) {
			return nil, fmt.Errorf("service address %s is not in %s", a, linkLocal)
		}
	}
	f := &Fabric{
		services: slices.Clone(cfg.Services),
		guests:   map[string]guest{},
		vpcs:     map[string]*vpcNet{},
		ports:    map[string]port{},
		next:     firstIndex,
		transit:  map[string]*vpcNet{},
	}
	if err := loadBpfObjects(&f.objs, nil); err != nil {
		return nil, fmt.Errorf("load bpf programs of the fabric: %w", err)
	}
	for _, a := range f.services {
		if err := f.objs.Services.Put(beUint32(a), uint8(1)); err != nil {
			return nil, errors.Join(fmt.Errorf("allow service address %s: %w", a, err), f.objs.Close())
		}
	}
	internet, err := newVPCNet(&f.objs.bpfPrograms)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the internet: %w", err), f.objs.Close())
	}
	f.internet = internet
	return f, nil
}

// AddGuest names the network namespace of an instance, for ENI.Guest. The file
// remains the caller's. A guest that was known under the id is replaced; the
// next Sync plugs its ENIs in.
func (f *Fabric) AddGuest(id string, netns *os.File) error {
	if err := checkID(id); err != nil {
		return fmt.Errorf("add guest: %w", err)
	}
	raw, err := netns.SyscallConn()
	if err != nil {
		return fmt.Errorf("add guest %s: %w", id, err)
	}
	var fd int
	var dupErr error
	err = raw.Control(func(theirs uintptr) { fd, dupErr = unix.FcntlInt(theirs, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, dupErr); err != nil {
		return fmt.Errorf("add guest %s: %w", id, err)
	}
	own := os.NewFile(uintptr(fd), "netns of "+id)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return errors.Join(fmt.Errorf("add guest %s: %w", id, err), own.Close())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errors.Join(ErrClosed, own.Close())
	}
	if old, ok := f.guests[id]; ok {
		old.netns.Close()
	}
	f.guests[id] = guest{own, st.Ino}
	return nil
}

// RemoveGuest forgets an instance and lets go of its namespace. ENIs that are
// plugged into it stay so until the next Sync.
func (f *Fabric) RemoveGuest(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if g, ok := f.guests[id]; ok {
		g.netns.Close()
		delete(f.guests, id)
	}
}

// Counters gives what was dropped of the packets that came from each ENI of the
// topology, since it is in the topology; what the groups and the ACL of the ENI
// that they were to reach dropped is with that one. Reasons that never occurred
// are absent.
func (f *Fabric) Counters() (map[string]map[Reason]Count, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, ErrClosed
	}
	all := make(map[string]map[Reason]Count, len(f.ports))
	for id, p := range f.ports {
		if p.nat {
			continue
		}
		counts, err := f.countsOf(p.index)
		if err != nil {
			return nil, fmt.Errorf("read drop counters of eni %s: %w", id, err)
		}
		if lost := f.wires.lost(id); lost.Packets > 0 {
			counts[FaultLoss] = lost
		}
		all[id] = counts
	}
	return all, nil
}

// countsOf reads the counters of one device.
func (f *Fabric) countsOf(index int) (map[Reason]Count, error) {
	var perCPU []bpfDrops
	counts := map[Reason]Count{}
	err := f.objs.Drops.Lookup(uint32(index), &perCPU)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return counts, nil
	}
	if err != nil {
		return nil, err
	}
	for _, r := range Reasons() {
		var sum Count
		for _, cpu := range perCPU {
			sum.Packets += cpu.ByReason[r].Packets
			sum.Bytes += cpu.ByReason[r].Bytes
		}
		if sum.Packets > 0 {
			counts[r] = sum
		}
	}
	return counts, nil
}

// Close unplugs all ENIs and gives up all that the fabric holds. A connection
// that was accepted from a listener keeps its VPC's namespace, by then without
// devices, until it is closed too.
func (f *Fabric) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	f.listeners.closeAll()
	errs := []error{f.wires.closeAll()}
	for id, v := range f.vpcs {
		if err := v.close(); err != nil {
			errs = append(errs, fmt.Errorf("close vpc %s: %w", id, err))
		}
	}
	for id, n := range f.transit {
		if err := n.close(); err != nil {
			errs = append(errs, fmt.Errorf("close transit gateway %s: %w", id, err))
		}
	}
	errs = append(errs, f.internet.close())
	for _, g := range f.guests {
		errs = append(errs, g.netns.Close())
	}
	return errors.Join(append(errs, f.objs.Close())...)
}

// beUint32 is the address as the packet has it, for a map key.
func beUint32(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}
