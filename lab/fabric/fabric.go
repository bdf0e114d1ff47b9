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
	next   int             // ifindex for the next new ENI

	listeners listeners
}

// port is where an ENI is in the fabric, plugged in or not.
type port struct {
	vpc   string
	index int // ifindex of the fabric end
}

// guest is the network namespace of an instance.
type guest struct {
	netns *os.File
	inode uint64
}

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
	}
	if err := loadBpfObjects(&f.objs, nil); err != nil {
		return nil, fmt.Errorf("load bpf programs of the fabric: %w", err)
	}
	for _, a := range f.services {
		if err := f.objs.Services.Put(beUint32(a), uint8(1)); err != nil {
			return nil, errors.Join(fmt.Errorf("allow service address %s: %w", a, err), f.objs.Close())
		}
	}
	return f, nil
}

// AddGuest names the network namespace of an instance, for ENI.Guest. The file
// remains the caller's. A guest that was known under the id is replaced; the
// next Sync plugs its ENIs in.
func (f *Fabric) AddGuest(id string, netns *os.File) error {
	if err := checkID(id); err != nil {
		return fmt.Errorf("add guest: %w", err)
	}
	fd, err := unix.FcntlInt(netns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
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
// topology, since it is in the topology. Reasons that never occurred are absent.
func (f *Fabric) Counters() (map[string]map[Reason]Count, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, ErrClosed
	}
	all := make(map[string]map[Reason]Count, len(f.ports))
	var perCPU []bpfDrops
	for id, p := range f.ports {
		counts := map[Reason]Count{}
		err := f.objs.Drops.Lookup(uint32(p.index), &perCPU)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, fmt.Errorf("read drop counters of eni %s: %w", id, err)
		}
		if err == nil {
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
		}
		all[id] = counts
	}
	return all, nil
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
	var errs []error
	for id, v := range f.vpcs {
		if err := v.close(); err != nil {
			errs = append(errs, fmt.Errorf("close vpc %s: %w", id, err))
		}
	}
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
