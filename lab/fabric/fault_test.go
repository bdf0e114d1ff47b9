package fabric

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

func mustFault(t *testing.T, f *Fabric, faults Faults) {
	t.Helper()
	if err := f.SetFaults(context.Background(), faults); err != nil {
		t.Fatal(err)
	}
}

func faultOf(e ENI, fault ENIFault) Faults {
	return Faults{ENIs: map[string]ENIFault{e.ID: fault}}
}

// twoGuests are the two ENIs of most tests, up.
func twoGuests(t *testing.T) (f *Fabric, a, b *testGuest) {
	t.Helper()
	f = newFabric(t)
	a, b = newGuest(t, f, "i-a"), newGuest(t, f, "i-b")
	mustSync(t, f, vpcOf(eniA(), eniB()))
	a.boot(eniA())
	b.boot(eniB())
	return f, a, b
}

// numbered is a packet from A to B with a number in its IP ID.
func numbered(n int) []byte {
	frame := packet{macA, RouterMAC, "10.0.1.10", "10.0.2.10", 64, nil}.frame()
	binary.BigEndian.PutUint16(frame[18:], uint16(n))
	frame[24], frame[25] = 0, 0
	binary.BigEndian.PutUint16(frame[24:], ^sum(frame[14:34]))
	return frame
}

// sendNumbered sends packets 0..n-1 from A to B and gives the order in which they
// came, up to the first for which last is true.
func sendNumbered(out, in *wire, n int, last func(got []uint16) bool) []uint16 {
	for i := range n {
		out.send(numbered(i))
	}
	var got []uint16
	for !last(got) {
		frame := in.receive(func(f []byte) bool { return isIPv4("10.0.1.10", "10.0.2.10")(f) && f[23] == 253 })
		got = append(got, binary.BigEndian.Uint16(frame[18:]))
	}
	return got
}

func TestFaultLosesTheSamePacketsTwice(t *testing.T) {
	f, a, b := twoGuests(t)
	out, in := a.wire("ens5", unix.ETH_P_IP), b.wire("ens5", unix.ETH_P_IP)
	const n = 200
	survivors := func(e ENI, fault ENIFault) []uint16 {
		t.Helper()
		mustFault(t, f, Faults{})
		before := packets(t, f, e.ID)[FaultLoss]
		mustFault(t, f, faultOf(e, fault))
		return sendNumbered(out, in, n, func(got []uint16) bool {
			waitFor(t, "the relay to see all packets", func() bool { return f.wires.stats(e.ID).Frames%n == 0 })
			lost := packets(t, f, e.ID)[FaultLoss] - before
			return uint64(len(got))+lost == n
		})
	}
	// Out only: the other's kernel answers some that it knows no such protocol.
	fault := ENIFault{LossPercent: 30, Seed: 7, Direction: Out}
	first := survivors(eniA(), fault)
	if len(first) < n/2 || len(first) > n*9/10 {
		t.Errorf("%d of %d packets came with 30%% loss", len(first), n)
	}
	if diff := cmp.Diff(first, survivors(eniA(), fault)); diff != "" {
		t.Errorf("the same seed lost other packets (-first +second):\n%s", diff)
	}
	fault.Seed = 8
	if cmp.Equal(first, survivors(eniA(), fault)) {
		t.Error("another seed lost the same packets")
	}
	// At the other end, on the way in.
	fault.Direction = In
	into := survivors(eniB(), fault)
	if len(into) == n {
		t.Error("nothing lost on the way in")
	}
	// On the way that nothing goes, nothing is lost.
	fault.Direction = Out
	mustFault(t, f, faultOf(eniB(), fault))
	sendNumbered(out, in, n, func(got []uint16) bool { return len(got) == n })
	if got := packets(t, f, eniA().ID); got[FaultLoss] == 0 || len(got) != 1 {
		t.Errorf("drops of the ENI with the fault: %v, want FAULT alone", got)
	}
	all, err := f.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if c := all[eniA().ID][FaultLoss]; c.Bytes != c.Packets*uint64(len(numbered(0))) {
		t.Errorf("lost %d packets, %d bytes: want %d each", c.Packets, c.Bytes, len(numbered(0)))
	}
}

func TestFaultDelays(t *testing.T) {
	f, a, b := twoGuests(t)
	b.serve("10.0.2.10:80", "b")
	mustFault(t, f, faultOf(eniA(), ENIFault{Delay: 40 * time.Millisecond, Jitter: 10 * time.Millisecond, Seed: 1}))
	start := time.Now()
	a.mustAsk("10.0.1.10", "10.0.2.10:80", "b to 10.0.1.10")
	// Two round trips, handshake and answer, each out and in.
	if took, least := time.Since(start), 4*30*time.Millisecond; took < least {
		t.Errorf("took %s, want %s or more", took, least)
	}
	// Nobody overtakes.
	out, in := a.wire("ens5", unix.ETH_P_IP), b.wire("ens5", unix.ETH_P_IP)
	got := sendNumbered(out, in, 100, func(got []uint16) bool { return len(got) == 100 })
	if !slices.IsSorted(got) {
		t.Errorf("delay changed the order: %v", got)
	}
	if got := packets(t, f, eniA().ID); len(got) != 0 {
		t.Errorf("drops: %v", got)
	}
}

func TestFaultReorders(t *testing.T) {
	f, a, b := twoGuests(t)
	mustFault(t, f, faultOf(eniA(), ENIFault{ReorderPercent: 20, Seed: 3, Direction: Out}))
	out, in := a.wire("ens5", unix.ETH_P_IP), b.wire("ens5", unix.ETH_P_IP)
	got := sendNumbered(out, in, 100, func(got []uint16) bool { return len(got) == 100 })
	if slices.IsSorted(got) {
		t.Error("the packets came in order")
	}
	slices.Sort(got)
	for i, n := range got {
		if int(n) != i {
			t.Fatalf("packet %d is missing or came twice: %v", i, got)
		}
	}
}

func TestFaultLinkDown(t *testing.T) {
	f, a, b := twoGuests(t)
	b.serve("10.0.2.10:80", "b")
	carrier := func() (up bool) {
		b.do(func() error {
			l, err := netlink.LinkByName("ens5")
			up = err == nil && l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
			return err
		})
		return up
	}
	a.mustAsk("10.0.1.10", "10.0.2.10:80", "b to 10.0.1.10")
	mustFault(t, f, faultOf(eniB(), ENIFault{Down: true}))
	if carrier() {
		t.Error("the guest's device has carrier while its link is down")
	}
	a.wire("ens5", unix.ETH_P_IP).send(numbered(1))
	waitDrops(t, f, eniA().ID, map[Reason]uint64{LinkDown: 1})
	// A Sync does not mend it.
	mustSync(t, f, vpcOf(eniA(), eniB()))
	if carrier() {
		t.Error("Sync gave the carrier back")
	}
	mustFault(t, f, Faults{})
	if !carrier() {
		t.Error("no carrier after the fault")
	}
	b.awaitRouter(eniB())
	a.mustAsk("10.0.1.10", "10.0.2.10:80", "b to 10.0.1.10")
}

func zoned(enis ...ENI) VPC {
	v := vpcOf(enis...)
	for i, zone := range []string{"eu-west-1a", "eu-west-1b", "eu-west-1c"} {
		id := "subnet-" + zone
		v.Subnets = append(v.Subnets, Subnet{ID: id, CIDR: netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", i+1)), Zone: zone})
	}
	for i := range v.ENIs {
		v.ENIs[i].SubnetID = v.Subnets[v.ENIs[i].Primary.As4()[2]-1].ID
	}
	return v
}

func TestFaultPartition(t *testing.T) {
	f := newFabric(t)
	a, b, c := newGuest(t, f, "i-a"), newGuest(t, f, "i-b"), newGuest(t, f, "i-c")
	macC := MAC{2, 0xc, 0, 0, 0, 1}
	eniC := testENI("eni-0ccccccccccccccc1", "i-c", macC, "10.0.3.10")
	mustSync(t, f, zoned(eniA(), eniB(), eniC))
	for g, e := range map[*testGuest]ENI{a: eniA(), b: eniB(), c: eniC} {
		g.boot(e)
		g.serve(e.Primary.String()+":80", g.id)
	}
	mustFault(t, f, Faults{Partitions: []Partition{{A: "eu-west-1a", B: "eu-west-1b"}}})
	a.wire("ens5", unix.ETH_P_IP).send(numbered(1))
	waitDrops(t, f, eniA().ID, map[Reason]uint64{Partitioned: 1})
	b.wire("ens5", unix.ETH_P_IP).send(packet{macB, RouterMAC, "10.0.2.10", "10.0.1.10", 64, nil}.frame())
	waitDrops(t, f, eniB().ID, map[Reason]uint64{Partitioned: 1})
	a.mustAsk("10.0.1.10", "10.0.3.10:80", "i-c to 10.0.1.10")
	b.mustAsk("10.0.2.10", "10.0.3.10:80", "i-c to 10.0.2.10")

	// One zone alone, also after a Sync.
	mustFault(t, f, Faults{Partitions: []Partition{{A: "eu-west-1c"}}})
	mustSync(t, f, zoned(eniA(), eniB(), eniC))
	c.wire("ens5", unix.ETH_P_IP).send(packet{macC, RouterMAC, "10.0.3.10", "10.0.1.10", 64, nil}.frame())
	waitDrops(t, f, eniC.ID, map[Reason]uint64{Partitioned: 1})
	a.mustAsk("10.0.1.10", "10.0.2.10:80", "i-b to 10.0.1.10")

	mustFault(t, f, Faults{})
	a.mustAsk("10.0.1.10", "10.0.3.10:80", "i-c to 10.0.1.10")
}

// Bulk TCP, whose segments are 64 KiB on the way, arrives through both relays.
func TestFaultPassesBulk(t *testing.T) {
	f, a, b := twoGuests(t)
	mustFault(t, f, Faults{ENIs: map[string]ENIFault{
		eniA().ID: {Delay: time.Millisecond}, eniB().ID: {Delay: time.Millisecond, ReorderPercent: 1},
	}})
	const size = 32 << 20
	sums := make(chan [32]byte, 1)
	b.do(func() error {
		l, err := net.Listen("tcp4", "10.0.2.10:80")
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			h := sha256.New()
			io.Copy(h, c)
			sums <- [32]byte(h.Sum(nil))
		}()
		return nil
	})
	const patience = 5 * time.Minute // of a slow machine: two processes copy all of it
	h := sha256.New()
	var info *unix.TCPInfo
	err := netns.Do(a.ns, func() error {
		c, err := net.Dial("tcp4", "10.0.2.10:80")
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		block := make([]byte, 1<<20)
		for i := range size / len(block) {
			for k := range block {
				block[k] = byte(k*7 + i)
			}
			h.Write(block)
			if _, err := c.Write(block); err != nil {
				return err
			}
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) { // the other has all
			return fmt.Errorf("read: %v, want the end", err)
		}
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			return err
		}
		var fault error
		err = raw.Control(func(fd uintptr) { info, fault = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
		return errors.Join(err, fault)
	})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-sums:
		if got != [32]byte(h.Sum(nil)) {
			t.Error("the data changed on the way")
		}
	case <-time.After(patience):
		t.Fatal("the data did not arrive")
	}
	// However slow it goes, a frame that is left to offload has two segments at least.
	out, in := uint64(info.Segs_out), uint64(info.Segs_in)
	if frames := f.wires.stats(eniA().ID).Frames; frames > out*3/4+in {
		t.Errorf("%d frames for %d segments and %d acknowledgements: they were cut before the relay", frames, out, in)
	}
}

// A fault takes part of nothing once it is over, and stays with its ENI while
// that is unplugged and plugged.
func TestFaultLeavesNothing(t *testing.T) {
	f, a, b := twoGuests(t)
	inside := func() (names []string, filters int) {
		err := netns.Do(f.vpcs["vpc-1"].ns, func() error {
			links, err := netlink.LinkList()
			for _, l := range links {
				names = append(names, l.Attrs().Name)
				for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
					list, err := netlink.FilterList(l, parent)
					if err != nil {
						return err
					}
					filters += len(list)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		return names, filters
	}
	namesBefore, filtersBefore := inside()
	faults := Faults{
		ENIs:       map[string]ENIFault{eniA().ID: {LossPercent: 50, Delay: time.Second, Seed: 1}, eniB().ID: {Down: true}},
		Partitions: []Partition{{A: "eu-west-1a"}},
	}
	mustFault(t, f, faults)
	if names, filters := inside(); len(names) != len(namesBefore)+2 || filters <= filtersBefore {
		t.Errorf("with faults: devices %v, %d filters", names, filters)
	}
	away := eniA()
	away.Guest = ""
	mustSync(t, f, vpcOf(away, eniB()))
	mustSync(t, f, vpcOf(eniA(), eniB()))
	if names, filters := inside(); len(names) != len(namesBefore)+2 || filters <= filtersBefore {
		t.Errorf("with faults, plugged in again: devices %v, %d filters", names, filters)
	}
	a.boot(eniA())
	a.wire("ens5", unix.ETH_P_IP).send(numbered(1)) // one packet waits
	mustFault(t, f, Faults{})
	names, filters := inside()
	if diff := cmp.Diff(namesBefore, names); diff != "" || filters != filtersBefore {
		t.Errorf("after faults: %d filters, want %d; devices (-before +after):\n%s", filters, filtersBefore, diff)
	}
	if f.wires.objs != nil {
		t.Error("programs of faults are still loaded")
	}
	b.awaitRouter(eniB())
	b.serve("10.0.2.10:80", "b")
	a.mustAsk("10.0.1.10", "10.0.2.10:80", "b to 10.0.1.10")
}

func TestSetFaultsErrors(t *testing.T) {
	f := newFabric(t)
	for name, faults := range map[string]Faults{
		"loss above 100":    faultOf(eniA(), ENIFault{LossPercent: 101}),
		"negative delay":    faultOf(eniA(), ENIFault{Delay: -1}),
		"delay too long":    faultOf(eniA(), ENIFault{Delay: time.Hour}),
		"jitter over delay": faultOf(eniA(), ENIFault{Delay: 1, Jitter: 2}),
		"direction":         faultOf(eniA(), ENIFault{Direction: "up"}),
		"no zone":           {Partitions: []Partition{{}}},
		"zone and itself":   {Partitions: []Partition{{"a", "a"}}},
	} {
		if err := f.SetFaults(t.Context(), faults); !errors.Is(err, ErrFault) {
			t.Errorf("%s: %v, want ErrFault", name, err)
		}
	}
	// Of an ENI that comes later.
	mustFault(t, f, faultOf(eniA(), ENIFault{Down: true}))
	newGuest(t, f, "i-a")
	mustSync(t, f, vpcOf(eniA()))
	if diff := cmp.Diff(faultOf(eniA(), ENIFault{Down: true}), f.Faults()); diff != "" {
		t.Error(diff)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.SetFaults(t.Context(), Faults{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}
