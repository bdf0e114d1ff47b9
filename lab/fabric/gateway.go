package fabric

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Internet is the network namespace beyond the internet gateways, for those who
// want to listen or send there. Its hosts are addresses of its loopback device.
// The file is the fabric's; nil after Close.
func (f *Fabric) Internet() *os.File {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	return f.internet.ns
}

// Namespaces are all network namespaces of the fabric, by the ID of the VPC,
// transit gateway or NAT gateway that they are, and "internet": for those who
// want to hear what the kernel drops there. The files are the fabric's; nil after
// Close.
func (f *Fabric) Namespaces() map[string]*os.File {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	all := map[string]*os.File{string(placeInternet): f.internet.ns}
	for id, n := range f.vpcs {
		all[id] = n.ns
	}
	for id, n := range f.transit {
		all[id] = n.ns
	}
	for id, g := range f.guests {
		if gateway, ok := strings.CutPrefix(id, natGuest("")); ok {
			all[gateway] = g.netns
		}
	}
	return all
}

// VPCNetNS is the network namespace of a VPC, for those who want to look at the
// kernel there. The file is the fabric's; nil where the last Sync made none, and
// after Close.
func (f *Fabric) VPCNetNS(id string) *os.File {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v, ok := f.vpcs[id]; ok && !f.closed {
		return v.ns
	}
	return nil
}

// syncInternet leads every public address to the internet gateway of its VPC.
// Nothing else is out there but the hosts.
func (f *Fabric) syncInternet(vpcs []VPC, up map[string]bool) []error {
	n := f.internet
	want := map[routeKey]nextHop{
		{unix.RT_TABLE_MAIN, everything, 0}: {index: n.sinks[sinkNoRoute], via: sinkGateway},
	}
	for _, v := range vpcs {
		index := f.linkPorts[linkKey{v.InternetGateway, place{placeInternet, ""}}]
		if index == 0 || !up[v.InternetGateway] {
			continue
		}
		for _, public := range v.Public {
			want[routeKey{unix.RT_TABLE_MAIN, netip.PrefixFrom(public, 32), 0}] = nextHop{index: index, via: sinkGateway}
		}
	}
	return n.writeRoutes(want)
}

// The directions of bpf/nat.h.
const (
	natToPublic  = 0
	natToPrivate = 1
)

func (f *Fabric) wantedNAT(vpcs []VPC) map[bpfNatKey]uint32 {
	want := map[bpfNatKey]uint32{}
	for _, v := range vpcs {
		index := uint32(f.linkPorts[linkKey{v.InternetGateway, place{placeVPC, v.ID}}])
		if index == 0 {
			continue
		}
		for private, public := range v.Public {
			want[bpfNatKey{Ifindex: index, Direction: natToPublic, Addr: beUint32(private)}] = beUint32(public)
			want[bpfNatKey{Ifindex: index, Direction: natToPrivate, Addr: beUint32(public)}] = beUint32(private)
		}
	}
	return want
}

// syncNAT makes the map hold what is wanted. An address that changes its public
// one does so in one step; a packet in between may go out by the new and come
// back by the old one, as on a real change.
func (f *Fabric) syncNAT(want map[bpfNatKey]uint32) error {
	var (
		key   bpfNatKey
		value uint32
		stale []bpfNatKey
		errs  []error
	)
	have := map[bpfNatKey]uint32{}
	it := f.objs.Nat.Iterate()
	for it.Next(&key, &value) {
		have[key] = value
		if _, ok := want[key]; !ok {
			stale = append(stale, key)
		}
	}
	errs = append(errs, it.Err())
	for key, value := range want {
		if old, ok := have[key]; !ok || old != value {
			errs = append(errs, f.objs.Nat.Put(key, value))
		}
	}
	for _, key := range stale {
		if err := f.objs.Nat.Delete(key); !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write public addresses: %w", err)
	}
	return nil
}
