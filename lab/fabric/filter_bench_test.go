package fabric

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// BenchmarkFilter sends packets of 64 bytes (with the frame check sequence that
// veth has not) in 10,000 flows through VPCs of 200 ENIs, from one guest to
// another: by the kernel's routes alone, without filters, with groups of 1,000
// rules at both ENIs, and with ACLs of 20 rules between them too. The VPCs take
// turns; a ratio is the median rate of one's turns against that of the first's.
func BenchmarkFilter(b *testing.B) {
	worlds := []struct {
		name, acl string
		groups    []string
		send      func(int)
		received  func() uint64
		turns     []time.Duration
	}{{name: "plain"}, {name: "none"}, {name: "groups", groups: []string{"sg-1"}}, {name: "groups+acl", groups: []string{"sg-1"}, acl: "acl-1"}}
	for i := range worlds {
		w := &worlds[i]
		w.send, w.received = benchWorld(b, w.name == "plain", w.groups, w.acl)
		tries := 0
		for before, got := uint64(0), uint64(0); got != benchFlows; got = w.received() - before {
			if tries++; tries > 100 {
				b.Fatalf("%s: %d of %d packets arrived", w.name, got, benchFlows)
			}
			before = w.received()
			w.send(benchFlows) // then all flows are there
		}
	}
	b.ResetTimer()
	for n := 0; n < b.N; n += benchFlows {
		for i := range worlds {
			start := time.Now()
			worlds[i].send(benchFlows)
			worlds[i].turns = append(worlds[i].turns, time.Since(start))
		}
	}
	b.StopTimer()
	median := func(d []time.Duration) float64 { return float64(slices.Sorted(slices.Values(d))[len(d)/2]) }
	plain := median(worlds[0].turns)
	b.ReportMetric(plain/benchFlows, "plain_ns")
	for _, w := range worlds[1:] {
		b.ReportMetric(plain/median(w.turns), w.name+"_pps_ratio")
	}
}

const benchFlows = 10_000

// benchWorld without rules has no programs at the ENIs that send and receive.
func benchWorld(b *testing.B, withoutRules bool, groups []string, acl string) (send func(int), received func() uint64) {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("needs root: network namespaces (CAP_SYS_ADMIN)")
	}
	f, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	from, to := benchGuest(b, f, "i-a"), benchGuest(b, f, "i-b")
	ea, eb := eniA(), eniB()
	ea.Groups, eb.Groups = groups, groups
	ea.SubnetID, eb.SubnetID = "subnet-1", "subnet-2"
	v := vpcOf(ea, eb)
	v.Subnets = []Subnet{{ID: "subnet-1", CIDR: ea.Subnet, ACL: acl}, {ID: "subnet-2", CIDR: eb.Subnet, ACL: acl}}
	for i := range 198 {
		e := testENI(fmt.Sprintf("eni-%017d", i), "", MAC{2, 1, 0, 0, 0, byte(i)}, fmt.Sprintf("10.0.3.%d", 10+i))
		e.Groups = groups
		v.ENIs = append(v.ENIs, e)
	}
	v.Groups = []SecurityGroup{{ID: "sg-1", Ingress: benchRules(), Egress: benchRules()}}
	v.ACLs = []NetworkACL{{ID: "acl-1"}}
	for i := range 20 {
		r := ACLRule{Number: i + 1, Protocol: UDP, Ports: Ports{1, 5 + i}, CIDR: vpcCIDR}
		if i == 19 {
			r.Ports, r.Allow = Ports{0, 65535}, true
		}
		v.ACLs[0].Egress, v.ACLs[0].Ingress = append(v.ACLs[0].Egress, r), append(v.ACLs[0].Ingress, r)
	}
	if _, err := f.Sync(context.Background(), Topology{VPCs: []VPC{v}}); err != nil {
		b.Fatal(err)
	}
	if withoutRules {
		for _, e := range []ENI{ea, eb} {
			qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
				LinkIndex: f.ports[e.ID].index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
			}}
			if err := f.vpcs[v.ID].nl.QdiscDel(qdisc); err != nil {
				b.Fatal(err)
			}
		}
	}
	var link netlink.Link
	for _, g := range []*testGuest{to, from} {
		if err := g.inside(func() error {
			l, err := netlink.LinkByName("ens5")
			if err != nil {
				return err
			}
			link = l
			return netlink.LinkSetUp(l)
		}); err != nil {
			b.Fatal(err)
		}
	}
	var fd int
	if err := from.inside(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index})
	}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Close(fd) })
	next := 0
	send = func(n int) {
		for n > 0 {
			n -= sendBatch(b, fd, &next, min(n, 64))
		}
	}
	received = func() (n uint64) {
		if err := to.inside(func() error {
			l, err := netlink.LinkByName("ens5")
			if err == nil {
				n = l.Attrs().Statistics.RxPackets
			}
			return err
		}); err != nil {
			b.Fatal(err)
		}
		return n
	}
	return send, received
}

// benchRules are 1,000: the limit of a network interface in each direction.
func benchRules() []GroupRule {
	var rules []GroupRule
	for i := range 999 {
		cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i % 7), byte(i), 0}), 24)
		rules = append(rules, GroupRule{Protocol: Protocol([]int{6, 17}[i%2]), Ports: Ports{i, i + 40}, CIDR: cidr})
	}
	return append(rules, GroupRule{Protocol: UDP, Ports: Ports{7, 9000}, CIDR: vpcCIDR})
}

var benchFrames [][]byte

// mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	_   [8]byte // what was sent of it
}

func sendBatch(b *testing.B, fd int, next *int, n int) int {
	if benchFrames == nil {
		for i := range benchFlows {
			benchFrames = append(benchFrames, ipFrame(macA, "10.0.1.10", "10.0.2.10", 17, 0, append(udp(uint16(1024+i), 4000), make([]byte, 14)...)))
		}
	}
	var messages [64]mmsghdr
	var vectors [64]unix.Iovec
	for i := range n {
		frame := benchFrames[*next]
		*next = (*next + 1) % benchFlows
		vectors[i].Base = &frame[0]
		vectors[i].SetLen(len(frame))
		messages[i].hdr.Iov = &vectors[i]
		messages[i].hdr.SetIovlen(1)
	}
	sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages)), uintptr(n), 0, 0, 0)
	if errno != 0 {
		b.Fatal(errno)
	}
	return int(sent)
}
