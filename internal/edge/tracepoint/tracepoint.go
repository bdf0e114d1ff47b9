// Package tracepoint hears from this machine's kernel what becomes of IPv4 packets
// in given network namespaces, by BTF tracepoints:
//
//	Watch    skb:kfree_skb                          every packet that is dropped
//	Follow   net:net_dev_queue, netif_receive_skb,  one packet and its reply,
//	         skb:kfree_skb, fib:fib_table_lookup    wherever they are met
//
// Reasons of drops are the kernel's own words (include/net/dropreason-core.h), read
// from the running kernel's BTF, as their numbers differ between versions.
//
// Nothing is changed and nothing is sent. It needs CAP_BPF and CAP_PERFMON, and a
// kernel with BTF and drop reasons (since Linux 5.17): where one is missing, the
// error is [ErrUnavailable] and says which.
package tracepoint

//go:generate go run gen.go

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// ErrUnavailable says that this process may not watch, or that this kernel cannot
// be watched.
var ErrUnavailable = errors.New("the kernel's tracepoints cannot be watched")

// unavailable says of an error of loading or attaching what is missing.
func unavailable(what string, err error) error {
	why := "this kernel lacks one of them, or the reason of drops (since Linux 5.17)"
	switch {
	case errors.Is(err, os.ErrPermission):
		why = "CAP_BPF and CAP_PERFMON are needed: run it as root"
	case errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, os.ErrNotExist):
		why = "the kernel has no BTF (CONFIG_DEBUG_INFO_BTF, /sys/kernel/btf/vmlinux)"
	}
	return fmt.Errorf("%w: %s: %s: %w", ErrUnavailable, why, what, err)
}

// reasons are the names of enum skb_drop_reason by number.
type reasons map[uint32]string

func readReasons() (reasons, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, unavailable("read the kernel's types", err)
	}
	var e *btf.Enum
	if err := spec.TypeByName("skb_drop_reason", &e); err != nil {
		return nil, unavailable("read the kernel's drop reasons", err)
	}
	names := reasons{}
	for _, v := range e.Values {
		names[uint32(v.Value)] = strings.TrimPrefix(v.Name, "SKB_DROP_REASON_")
	}
	return names, nil
}

func (r reasons) word(n uint32) string {
	if name, known := r[n]; known {
		return name
	}
	return fmt.Sprintf("REASON_%d", n)
}

func inode(ns *os.File) (uint32, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		return 0, fmt.Errorf("look at network namespace: %w", err)
	}
	return uint32(st.Ino), nil
}

// addr is an address as it is in a packet.
func addr(n uint32) netip.Addr {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}
