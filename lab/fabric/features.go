package fabric

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// Feature is something that the fabric needs of the kernel.
type Feature struct {
	Name  string
	Since string // the kernel version it came with
	Why   string
	probe func() error // runs inside a throwaway network namespace
}

// Features lists what the fabric needs. The first is the condition of the others.
func Features() []Feature {
	return []Feature{
		{"network namespaces (CONFIG_NET_NS, root)", "3.17", "a VPC is one; its file is /proc/thread-self/ns/net", func() error { return nil }},
		{"veth with its peer in another namespace (CONFIG_VETH)", "3.0", "an ENI is plugged in by one request", probeVeth},
		{"bpf tc programs (CONFIG_BPF_SYSCALL)", "4.1", "source/destination check, ARP and drop reasons", func() error {
			return features.HaveProgramType(ebpf.SchedCLS)
		}},
		{"bpf LPM trie", "4.11", "the addresses and prefixes of an ENI", func() error { return features.HaveMapType(ebpf.LPMTrie) }},
		{"bpf per-CPU hash", "4.6", "drop counters", func() error { return features.HaveMapType(ebpf.PerCPUHash) }},
		{"bpf LRU hash", "4.10", "the state of flows", func() error { return features.HaveMapType(ebpf.LRUHash) }},
		{"bpf helper ktime_get_coarse_ns", "5.11", "how long a flow is idle", func() error {
			return features.HaveProgramHelper(ebpf.SchedCLS, asm.FnKtimeGetCoarseNs)
		}},
		{"bpf lookup and delete, and batches, of hashes", "5.14", "flow logs", probeFlowLog},
		{"clsact with cls_bpf (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF, CONFIG_NET_CLS_ACT)", "4.5", "programs on the fabric ends", probeClsact},
		{"policy routing (CONFIG_IP_MULTIPLE_TABLES)", "2.2", "answers leave by the ENI that asked", probeTables},
		{"ip rules by mark (CONFIG_IP_MULTIPLE_TABLES, CONFIG_NETFILTER)", "2.6", "the route table of a subnet", probeMarkRule},
		{"nf_tables with nat and ct (CONFIG_NF_TABLES_IPV4, CONFIG_NFT_NAT, CONFIG_NFT_CT)", "5.0", "NAT gateways", probeNAT},
		{"writable /proc/sys/net", "2.4", "forwarding inside the VPC", func() error {
			return setSysctl("/proc/sys/net/ipv4/ip_forward", "1")
		}},
		{"SO_BINDTOIFINDEX", "5.1", "a service knows which ENI asks", probeBindToIndex},
	}
}

// Probe tries every feature in a throwaway namespace. Its error has one line for
// each that is missing.
func Probe() error {
	list := Features()
	missing := func(f Feature, err error) error {
		return fmt.Errorf("missing kernel feature: %s, since Linux %s, for: %s: %w", f.Name, f.Since, f.Why, err)
	}
	ns, err := netns.New()
	if err != nil {
		return missing(list[0], err)
	}
	defer ns.Close()
	var errs []error
	err = netns.Do(ns, func() error {
		for _, f := range list {
			if err := f.probe(); err != nil {
				errs = append(errs, missing(f, err))
			}
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// probeFlowLog takes an entry out of a hash as FlowLogs does.
func probeFlowLog() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.LRUHash, KeySize: 4, ValueSize: 4, MaxEntries: 8})
	if err != nil {
		return err
	}
	defer m.Close()
	var value uint32
	if err := errors.Join(m.Put(uint32(1), uint32(2)), m.LookupAndDelete(uint32(1), &value)); err != nil {
		return err
	}
	var cursor ebpf.MapBatchCursor
	one := make([]uint32, 8)
	if _, err := m.BatchLookup(&cursor, one, one, nil); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

// probeVeth gives the peer a namespace by file, though it is the same one.
func probeVeth() error {
	self, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer self.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "probe"
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = "probe-peer", netlink.NsFd(self.Fd())
	return netlink.LinkAdd(veth)
}

// probeClsact attaches a program to the loopback device.
func probeClsact() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.SchedCLS,
		License:      "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer prog.Close()
	qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: 1, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(qdisc); err != nil {
		return err
	}
	return netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: 1, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Fd: prog.FD(), Name: "probe", DirectAction: true,
	})
}

func probeTables() error {
	rules, err := dump(func() ([]netlink.Rule, error) { return netlink.RuleList(unix.AF_INET) })
	if err != nil {
		return err
	}
	for _, r := range rules {
		if r.Table == unix.RT_TABLE_DEFAULT {
			return nil
		}
	}
	return errors.New("no rule looks up table default (253)")
}

func probeMarkRule() error {
	r, mask := netlink.NewRule(), uint32(markTable)
	r.Family, r.Priority, r.Table, r.Mark, r.Mask = unix.AF_INET, rulePriority, tableBase+1, 1, &mask
	return netlink.RuleAdd(r)
}

func probeNAT() error {
	self, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer self.Close()
	return syncTranslation(int(self.Fd()), netip.AddrFrom4([4]byte{192, 0, 2, 1}))
}

func probeBindToIndex() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, 1)
}
