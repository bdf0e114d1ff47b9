package fabric

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// filterLab is two ENIs, in subnets of their own unless a test says otherwise,
// in guests without addresses: what crosses the VPC is what a test sends.
type filterLab struct {
	t      *testing.T
	f      *Fabric
	vpc    VPC
	a, b   *ENI // of the vpc
	wa, wb *wire
}

func newFilterLab(t *testing.T, ea, eb ENI) *filterLab {
	t.Helper()
	f := newFabric(t)
	l := &filterLab{t: t, f: f, vpc: vpcOf(ea, eb)}
	l.a, l.b = &l.vpc.ENIs[0], &l.vpc.ENIs[1]
	ga, gb := newGuest(t, f, ea.Guest), newGuest(t, f, eb.Guest)
	l.sync()
	ga.silent(ea)
	gb.silent(eb)
	l.wa, l.wb = ga.wire(ea.Device, unix.ETH_P_IP), gb.wire(eb.Device, unix.ETH_P_IP)
	return l
}

func (l *filterLab) sync() {
	l.t.Helper()
	mustSync(l.t, l.f, l.vpc)
}

// silent sets the device up and gives it no address: the guest's kernel neither
// sends nor answers.
func (g *testGuest) silent(e ENI) {
	g.t.Helper()
	g.do(func() error {
		link, err := netlink.LinkByName(e.Device)
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
	g.awaitRouter(e)
}

// passes demands that what one guest sends arrives at the other as it was sent.
func (l *filterLab) passes(frame []byte) {
	l.t.Helper()
	from, to := l.wires(frame)
	from.send(frame)
	to.receive(func(got []byte) bool { return len(got) >= len(frame) && bytes.Equal(got[26:len(frame)], frame[26:]) })
}

// dropped demands that it is, for a reason that is counted for the ENI.
func (l *filterLab) dropped(frame []byte, reason Reason, eni *ENI) {
	l.t.Helper()
	before := [2]map[Reason]uint64{packets(l.t, l.f, l.a.ID), packets(l.t, l.f, l.b.ID)}
	from, _ := l.wires(frame)
	from.send(frame)
	for i, e := range []*ENI{l.a, l.b} {
		if e.ID == eni.ID {
			before[i][reason]++
			waitDrops(l.t, l.f, e.ID, before[i])
		}
	}
	for i, e := range []*ENI{l.a, l.b} {
		if diff := cmp.Diff(before[i], packets(l.t, l.f, e.ID)); diff != "" {
			l.t.Fatalf("drops of %s (-want +got):\n%s", e.ID, diff)
		}
	}
}

func (l *filterLab) wires(frame []byte) (from, to *wire) {
	if MAC(frame[6:12]) == l.a.MAC {
		return l.wa, l.wb
	}
	return l.wb, l.wa
}

// ab and ba are the packets of a flow between the primary addresses, by
// protocol: what a sends to b, and what b sends back.
func (l *filterLab) ab(protocol Protocol, payload []byte) []byte {
	return ipFrame(l.a.MAC, l.a.Primary.String(), l.b.Primary.String(), byte(protocol), 0, payload)
}

func (l *filterLab) ba(protocol Protocol, payload []byte) []byte {
	return ipFrame(l.b.MAC, l.b.Primary.String(), l.a.Primary.String(), byte(protocol), 0, payload)
}

// The beginnings of segments, datagrams and messages; nobody looks at their checksums.
const (
	syn = 0x02
	ack = 0x10
	fin = 0x01
	rst = 0x04
)

func tcp(sport, dport uint16, flags byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, sport)
	b = binary.BigEndian.AppendUint16(b, dport)
	return append(b, 0, 0, 0, 1, 0, 0, 0, 1, 5<<4, flags, 0, 64, 0, 0, 0, 0)
}

func udp(sport, dport uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, sport)
	return append(binary.BigEndian.AppendUint16(b, dport), 0, 12, 0, 0, 'f', 'a', 'i', 'r')
}

// long is a datagram that the short way of bpf/underway.h takes, once its flow has
// begun; it leaves what is shorter than a TCP header to the long way.
func long(datagram []byte) []byte { return append(datagram, make([]byte, 8)...) }

// message is of ICMP, and has an identifier; rest is what an error quotes.
func message(kind, code byte, id uint16, rest []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{kind, code, 0, 0}, id)
	return append(append(b, 0, 1), rest...)
}

// ipFrame is a packet of a guest, TTL 64; fragment is the word with flags and offset.
func ipFrame(from MAC, src, dst string, protocol byte, fragment uint16, payload []byte) []byte {
	ip := make([]byte, 20, 20+len(payload))
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(ip[4:], 77)
	binary.BigEndian.PutUint16(ip[6:], fragment)
	ip[8], ip[9] = 64, protocol
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	copy(ip[12:], s[:])
	copy(ip[16:], d[:])
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip))
	return ethernet(from, RouterMAC, unix.ETH_P_IP, append(ip, payload...))
}

var (
	anywhere = netip.MustParsePrefix("0.0.0.0/0")
	allRule  = GroupRule{Protocol: AllProtocols, CIDR: anywhere}
)

func allow(protocol Protocol, from, to int, cidr string) GroupRule {
	return GroupRule{Protocol: protocol, Ports: Ports{from, to}, CIDR: netip.MustParsePrefix(cidr)}
}

// flowTick is FLOW_TICK in bpf/flow.h, in milliseconds.
const flowTick = 256

// age makes every flow look idle for longer than it is.
func age(t *testing.T, f *Fabric, by time.Duration) {
	t.Helper()
	var key bpfFlowKey
	var flow bpfFlow
	flows := map[bpfFlowKey]bpfFlow{}
	for it := f.objs.Flows.Iterate(); it.Next(&key, &flow); {
		flows[key] = flow
	}
	for key, flow := range flows {
		flow.Last -= uint32(by.Milliseconds() / flowTick)
		if err := f.objs.Flows.Put(key, flow); err != nil {
			t.Fatal(err)
		}
	}
}

// syncFails gives the error that Sync must have.
func (l *filterLab) syncFails() error {
	l.t.Helper()
	_, err := l.f.Sync(context.Background(), Topology{VPCs: []VPC{l.vpc}})
	if err == nil {
		l.t.Fatal("Sync took an impossible world")
	}
	return err
}
