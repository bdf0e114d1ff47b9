package fabric

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// patience bounds every wait for something that must happen.
const patience = time.Minute

var (
	imds    = netip.MustParseAddr("169.254.169.254")
	ec2     = netip.MustParseAddr("169.254.170.1")
	macA    = MAC{2, 0xa, 0, 0, 0, 1}
	macB    = MAC{2, 0xb, 0, 0, 0, 1}
	vpcCIDR = netip.MustParsePrefix("10.0.0.0/16")
)

// newFabric skips where the kernel or root is missing.
func newFabric(t *testing.T) *Fabric {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces (CAP_SYS_ADMIN)")
	}
	if err := Probe(); err != nil {
		t.Skip(err)
	}
	f, err := New(Config{Services: []netip.Addr{imds, ec2}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("close fabric: %v", err)
		}
	})
	return f
}

func mustSync(t *testing.T, f *Fabric, vpcs ...VPC) {
	t.Helper()
	res, err := f.Sync(context.Background(), Topology{VPCs: vpcs})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vpcs {
		for _, e := range v.ENIs {
			if want := (Status{Plugged: e.Guest != ""}); res.ENIs[e.ID] != want {
				t.Fatalf("eni %s: status %+v, want %+v", e.ID, res.ENIs[e.ID], want)
			}
		}
	}
}

// testENI is in the /24 around its primary address, with the check on.
func testENI(id, guest string, mac MAC, primary string) ENI {
	addr := netip.MustParseAddr(primary)
	subnet, _ := addr.Prefix(24)
	return ENI{
		ID: id, MAC: mac, Subnet: subnet, Primary: addr,
		SourceDestCheck: true, Guest: guest, Device: "ens5",
	}
}

// eniA and eniB are two instances in two subnets of one VPC.
func eniA() ENI { return testENI("eni-0aaaaaaaaaaaaaaa1", "i-a", macA, "10.0.1.10") }
func eniB() ENI { return testENI("eni-0bbbbbbbbbbbbbbb1", "i-b", macB, "10.0.2.10") }

func vpcOf(enis ...ENI) VPC {
	return VPC{ID: "vpc-1", CIDRs: []netip.Prefix{vpcCIDR}, ENIs: enis}
}

// testGuest is an instance: a namespace, in which the test is the guest's OS.
type testGuest struct {
	t  *testing.T
	id string
	ns *os.File
}

func newGuest(t *testing.T, f *Fabric, id string) *testGuest {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	g := &testGuest{t, id, ns}
	g.do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		// No IPv6: the guest sends nothing that a test did not ask for.
		for _, c := range []string{"all", "default"} {
			if err := setSysctl("/proc/sys/net/ipv6/conf/"+c+"/disable_ipv6", "1"); err != nil {
				return err
			}
			if err := setSysctl("/proc/sys/net/ipv4/conf/"+c+"/rp_filter", "0"); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(lo)
	})
	if err := f.AddGuest(id, ns); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *testGuest) do(fn func() error) {
	g.t.Helper()
	if err := netns.Do(g.ns, fn); err != nil {
		g.t.Fatalf("in guest %s: %v", g.id, err)
	}
}

// boot sets the ENI's device up as an OS does: address, default route by the
// first address of the subnet. It waits for the router to answer: the kernel
// starts the queue of the fabric end some time after the guest's end is up, and
// drops what comes before, which a test with a single packet would not survive.
func (g *testGuest) boot(e ENI) {
	g.t.Helper()
	g.do(func() error {
		link, err := netlink.LinkByName(e.Device)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		own := netip.PrefixFrom(e.Primary, e.Subnet.Bits())
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(own)}); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: e.Subnet.Addr().Next().AsSlice()})
	})
	g.awaitRouter(e)
}

// awaitRouter waits until the ENI's link carries packets both ways.
func (g *testGuest) awaitRouter(e ENI) {
	g.t.Helper()
	w := g.wire(e.Device, unix.ETH_P_ARP)
	tv := unix.NsecToTimeval(int64(5 * time.Millisecond))
	if err := unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		g.t.Fatal(err)
	}
	buf := make([]byte, 128)
	waitFor(g.t, "the router to answer "+g.id, func() bool {
		w.send(arpRequest(e.MAC, e.MAC, e.Primary.String(), e.Subnet.Addr().Next().String()))
		for {
			n, _, err := unix.Recvfrom(w.fd, buf, 0)
			if err != nil || isARPReply(buf[:n]) {
				return err == nil
			}
		}
	})
}

func isARPReply(f []byte) bool { return len(f) >= 42 && f[20] == 0 && f[21] == 2 }

// address gives lo an address, as a pod's or a secondary one's.
func (g *testGuest) address(a string) {
	g.t.Helper()
	g.do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(netip.MustParseAddr(a), 32))})
	})
}

// serve answers each connection to addr with the word and the caller's address.
func (g *testGuest) serve(addr, word string) {
	g.t.Helper()
	g.do(func() error {
		l, err := net.Listen("tcp4", addr)
		if err != nil {
			return err
		}
		g.t.Cleanup(func() { l.Close() })
		go answer(l, word)
		return nil
	})
}

func answer(l net.Listener, word string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		peer := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
		fmt.Fprintf(c, "%s to %s", word, peer)
		c.Close()
	}
}

// ask connects from one of the guest's addresses and reads the answer.
func (g *testGuest) ask(from, to string) (string, error) {
	var got []byte
	err := netns.Do(g.ns, func() error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
		c, err := d.Dial("tcp4", to)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		got, err = io.ReadAll(c)
		return err
	})
	return string(got), err
}

func (g *testGuest) mustAsk(from, to, want string) {
	g.t.Helper()
	got, err := g.ask(from, to)
	if err != nil {
		g.t.Fatalf("guest %s asks %s from %s: %v", g.id, to, from, err)
	}
	if got != want {
		g.t.Fatalf("guest %s asks %s from %s: got %q, want %q", g.id, to, from, got, want)
	}
}

// wire is a packet socket on a guest's device.
type wire struct {
	t  *testing.T
	fd int
}

func (g *testGuest) wire(device string, protocol uint16) *wire {
	g.t.Helper()
	w := &wire{t: g.t}
	g.do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		proto := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, protocol))
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(proto))
		if err != nil {
			return err
		}
		g.t.Cleanup(func() { unix.Close(w.fd) })
		tv := unix.NsecToTimeval(int64(patience))
		return errors.Join(
			unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: link.Attrs().Index}),
			unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
			unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)) // tests send first and read then
	})
	return w
}

func (w *wire) send(frame []byte) {
	w.t.Helper()
	if _, err := unix.Write(w.fd, frame); err != nil {
		w.t.Fatalf("send frame: %v", err)
	}
}

// receive gives the next incoming frame that matches.
func (w *wire) receive(match func([]byte) bool) []byte {
	w.t.Helper()
	buf := make([]byte, 65536)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		n, from, err := unix.Recvfrom(w.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			w.t.Fatalf("receive frame: %v", err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING && match(buf[:n]) {
			return buf[:n]
		}
	}
	w.t.Fatal("no frame received")
	return nil
}

// packet is an IPv4 packet over Ethernet; the zero protocol is 253, which
// RFC 3692 keeps for experiments.
type packet struct {
	from, to MAC
	src, dst string
	ttl      byte
	options  []byte
}

func (p packet) frame() []byte {
	header := 20 + len(p.options)
	ip := make([]byte, header, header+8)
	ip[0] = 4<<4 | byte(header/4)
	binary.BigEndian.PutUint16(ip[2:], uint16(header+8))
	ip[8], ip[9] = p.ttl, 253
	src, dst := netip.MustParseAddr(p.src).As4(), netip.MustParseAddr(p.dst).As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	copy(ip[20:], p.options)
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip))
	return ethernet(p.from, p.to, unix.ETH_P_IP, append(ip, "fairway!"...))
}

func ethernet(from, to MAC, protocol uint16, payload []byte) []byte {
	f := append(to[:], from[:]...)
	return append(binary.BigEndian.AppendUint16(f, protocol), payload...)
}

// sum is the Internet checksum's sum, not yet complemented (RFC 1071).
func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

func isIPv4(src, dst string) func([]byte) bool {
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	return func(f []byte) bool {
		return len(f) >= 34 && [4]byte(f[26:30]) == s && [4]byte(f[30:34]) == d
	}
}

// waitFor polls: what a packet causes happens on another CPU.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); {
		if time.Now().After(end) {
			t.Fatalf("waited %v for: %s", patience, what)
		}
		tick := time.NewTimer(time.Millisecond)
		<-tick.C
	}
}

// packets are the drops of one ENI so far.
func packets(t *testing.T, f *Fabric, eni string) map[Reason]uint64 {
	t.Helper()
	all, err := f.Counters()
	if err != nil {
		t.Fatal(err)
	}
	m := map[Reason]uint64{}
	for r, c := range all[eni] {
		m[r] = c.Packets
	}
	return m
}
