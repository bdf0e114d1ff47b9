package probe

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// chain is three namespaces in a row, of which the middle one forwards:
//
//	a 10.9.0.1 --- 10.9.0.2 b 10.8.0.1 --- 10.8.0.2 c
func chain(t *testing.T) (a, b, c *os.File) {
	t.Helper()
	a, b = pairOfNamespaces(t)
	c = newNamespace(t)
	do(t, b, func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "v1"}, PeerName: "v1", PeerNamespace: netlink.NsFd(int(c.Fd())),
		})
	})
	do(t, b, func() error { return configure("v1", "10.8.0.1/24") })
	do(t, c, func() error { return configure("v1", "10.8.0.2/24") })
	for _, ns := range []*os.File{b, c} {
		waitIn(t, ns, "the veth to be up", func() bool {
			l, err := netlink.LinkByName("v1")
			return err == nil && l.Attrs().OperState == netlink.OperUp
		})
	}
	sysctl(t, b, "ipv4/ip_forward", "1")
	route(t, a, "10.8.0.0/24", "10.9.0.2")
	route(t, c, "10.9.0.0/24", "10.8.0.1")
	return a, b, c
}

func sysctl(t *testing.T, ns *os.File, name, value string) {
	t.Helper()
	do(t, ns, func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) })
}

func route(t *testing.T, ns *os.File, to, via string) {
	t.Helper()
	do(t, ns, func() error {
		_, dst, err := net.ParseCIDR(to)
		if err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)})
	})
}

// talk is a conversation from ns to an address and port of target.
func talk(proto Proto, ns *os.File, to string, target *os.File) Talk {
	return Talk{
		Proto: proto, From: ns, To: netip.MustParseAddrPort(to), Target: target,
		Size: MinSize, Count: 1, Timeout: 20 * time.Second, // not reached, however busy the machine
	}
}

func converse(t *testing.T, talk Talk) Outcome {
	t.Helper()
	o, err := Converse(t.Context(), talk)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestConverse(t *testing.T) {
	a, _, c := chain(t)
	for _, proto := range []Proto{TCP, UDP, ICMP} {
		for _, bind := range []string{"", "10.8.0.2"} {
			for _, size := range []int{MinSize, 1001, 9000} {
				x := talk(proto, a, "10.8.0.2:7070", c)
				x.Bind, _ = netip.ParseAddr(bind)
				x.Size, x.Count = size, 3
				want := Outcome{Kind: OK, Answered: 3, Seen: netip.MustParseAddr("10.9.0.1")}
				if d := cmp.Diff(want, converse(t, x), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
					t.Errorf("%s of %d bytes (-want +got)\n%s", proto, size, d)
				}
			}
		}
	}
}

// A flow can be had again at once, with the same ports.
func TestConverseAgain(t *testing.T) {
	a, b, _ := chain(t)
	for _, proto := range []Proto{TCP, UDP, ICMP} {
		for range 3 {
			x := talk(proto, a, "10.9.0.2:7070", b)
			x.Source = netip.MustParseAddrPort("10.9.0.1:4000")
			if o := converse(t, x); o.Kind != OK {
				t.Fatalf("%s: %+v", proto, o)
			}
		}
	}
}

// The answer to a datagram comes from the address that it was sent to, also
// where the target listens on all.
func TestConverseAtSecondAddress(t *testing.T) {
	a, b, _ := chain(t)
	for _, proto := range []Proto{TCP, UDP, ICMP} {
		if o := converse(t, talk(proto, a, "10.8.0.1:7070", b)); o.Kind != OK {
			t.Errorf("%s: %+v", proto, o)
		}
	}
}

func TestConverseOutcomes(t *testing.T) {
	a, b, c := chain(t)
	do(t, b, func() error { // a narrow way on
		l, err := netlink.LinkByName("v1")
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(l, 1400)
	})
	for _, tt := range []struct {
		name, to string
		target   *os.File
		change   func(*Talk)
		kinds    map[Proto]string // Outcome.String
	}{
		{"closed port", "10.8.0.2:7070", nil, nil, map[Proto]string{TCP: "refused", UDP: "refused"}},
		{"whoever answers", "10.8.0.2:7070", nil, nil, map[Proto]string{ICMP: "ok"}},
		{"another listens", "10.8.0.2:7070", b, nil, map[Proto]string{TCP: "refused", UDP: "refused", ICMP: "wrong answer"}},
		{"narrow", "10.8.0.2:7070", c, func(x *Talk) { x.Size, x.DontFragment = 1472-28, true },
			map[Proto]string{TCP: "ok", UDP: "too big, mtu 1400", ICMP: "too big, mtu 1400"}},
		{"longer than the device's mtu", "10.8.0.2:7070", c, func(x *Talk) { x.Size, x.DontFragment = 1473, true },
			map[Proto]string{UDP: "too big, mtu 1500", ICMP: "too big, mtu 1500"}},
		{"ttl", "10.8.0.2:7070", c, func(x *Talk) { x.TTL = 1 },
			map[Proto]string{TCP: "ttl exceeded, says 10.9.0.2", UDP: "ttl exceeded, says 10.9.0.2", ICMP: "ttl exceeded, says 10.9.0.2"}},
		{"no way out", "192.0.2.1:7070", nil, nil, map[Proto]string{TCP: "unreachable", UDP: "unreachable", ICMP: "unreachable"}},
		{"foreign source", "10.8.0.2:7070", c, func(x *Talk) { x.Source = netip.MustParseAddrPort("192.0.2.1:0") },
			map[Proto]string{TCP: "failed", UDP: "failed", ICMP: "failed"}},
	} {
		for proto, want := range tt.kinds {
			x := talk(proto, a, tt.to, tt.target)
			if tt.change != nil {
				tt.change(&x)
			}
			if o := converse(t, x); o.String() != want {
				t.Errorf("%s by %s: %q, want %q (%+v)", tt.name, proto, o, want, o)
			}
		}
	}
}

// A router refuses. Linux says so to one sender twice, and then a while not any
// more: each such message counts against two limits.
func TestConverseUnreachable(t *testing.T) {
	a, b, _ := chain(t)
	do(t, b, func() error {
		_, nowhere, _ := net.ParseCIDR("10.7.0.0/24")
		return netlink.RouteAdd(&netlink.Route{Dst: nowhere, Type: unix.RTN_UNREACHABLE})
	})
	route(t, a, "10.7.0.0/24", "10.9.0.2")
	for _, proto := range []Proto{TCP, UDP} {
		if o := converse(t, talk(proto, a, "10.7.0.1:7070", nil)); o.String() != "unreachable, says 10.9.0.2" {
			t.Errorf("%s: %q (%+v)", proto, o, o)
		}
	}
}

// The question arrives, and the answer has no way back.
func TestConverseSeen(t *testing.T) {
	a, b, c := chain(t)
	do(t, b, func() error {
		_, back, _ := net.ParseCIDR("10.9.0.1/32")
		return netlink.RouteAdd(&netlink.Route{Dst: back, Type: unix.RTN_BLACKHOLE})
	})
	for _, proto := range []Proto{UDP, ICMP} {
		x := talk(proto, a, "10.8.0.2:7070", c)
		x.Timeout = quick
		if o := converse(t, x); o.Kind != Timeout || o.Seen.String() != "10.9.0.1" || o.Answered != 0 {
			t.Errorf("%s: %+v", proto, o)
		}
	}
}

// What a kernel refuses after it was delivered is in its counters.
func TestKernelLosses(t *testing.T) {
	a, b, c := chain(t)
	for _, tt := range []struct {
		word, to string
		at       *os.File
		before   func()
	}{
		{"no route", "10.6.0.1:7070", b, func() { route(t, a, "10.6.0.0/24", "10.9.0.2") }},
		{"not its address", "10.6.0.1:7070", c, func() { route(t, b, "10.6.0.0/24", "10.8.0.2") }},
		{"rp_filter", "10.8.0.2:7070", c, func() {
			sysctl(t, c, "ipv4/conf/all/rp_filter", "1")
			do(t, c, func() error {
				_, back, _ := net.ParseCIDR("10.9.0.0/24")
				if err := netlink.RouteDel(&netlink.Route{Dst: back}); err != nil {
					return err
				}
				lo, err := netlink.LinkByName("lo")
				if err != nil {
					return err
				}
				return netlink.RouteAdd(&netlink.Route{Dst: back, LinkIndex: lo.Attrs().Index})
			})
		}},
		{Discarded, "10.5.0.1:7070", b, func() {
			route(t, a, "10.5.0.0/24", "10.9.0.2")
			do(t, b, func() error {
				_, hole, _ := net.ParseCIDR("10.5.0.0/24")
				return netlink.RouteAdd(&netlink.Route{Dst: hole, Type: unix.RTN_BLACKHOLE})
			})
		}},
	} {
		tt.before()
		before, err := ReadKernel(tt.at)
		if err != nil {
			t.Fatal(err)
		}
		x := talk(UDP, a, tt.to, nil)
		x.Timeout = quick
		o := converse(t, x)
		after, err := ReadKernel(tt.at)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(map[string]uint64{tt.word: 1}, after.LostSince(before)); d != "" {
			t.Errorf("%s, outcome %v (-want +got)\n%s", tt.word, o, d)
		}
	}
	// What is well leaves nothing.
	before, _ := ReadKernel(b)
	if o := converse(t, talk(ICMP, a, "10.9.0.2:1", b)); o.Kind != OK {
		t.Errorf("%+v", o)
	}
	after, err := ReadKernel(b)
	if lost := after.LostSince(before); err != nil || len(lost) > 0 {
		t.Errorf("lost %v (%v)", lost, err)
	}
}

func TestConverseRefusesNonsense(t *testing.T) {
	ns, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	for want, change := range map[string]func(*Talk){
		"no namespace":     func(x *Talk) { x.From = nil },
		"want IPv4":        func(x *Talk) { x.To = netip.MustParseAddrPort("[fd00::1]:80") },
		"want tcp, udp":    func(x *Talk) { x.Proto = "sctp" },
		"no port":          func(x *Talk) { x.To = netip.MustParseAddrPort("10.0.0.1:0") },
		"size 1: must":     func(x *Talk) { x.Size = 1 },
		"count 0: must":    func(x *Talk) { x.Count = 0 },
		"ttl 256: must":    func(x *Talk) { x.TTL = 256 },
		"timeout 0s: must": func(x *Talk) { x.Timeout = 0 },
	} {
		x := talk(TCP, ns, "10.0.0.1:80", nil)
		change(&x)
		if _, err := Converse(t.Context(), x); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	// A file that is no namespace is found out when it is entered.
	if o := converse(t, talk(TCP, ns, "10.0.0.1:80", nil)); o.Kind != Failed {
		t.Errorf("%+v", o)
	}
	if o := converse(t, talk(TCP, ns, "10.0.0.1:80", ns)); o.Kind != NoListener {
		t.Errorf("%+v", o)
	}
}

// TestTap sends by one namespace's device and sees it in another's.
func TestTap(t *testing.T) {
	a, b := pairOfNamespaces(t)
	from, err := OpenTap(a)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := OpenTap(b)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	device, ok := from.Device("v0")
	if _, wrong := from.Device("v9"); !ok || wrong {
		t.Fatalf("devices: %+v", from.devices)
	}
	frame := append(make([]byte, 12), "\x88\xb5 a frame of nobody"...) // IEEE 802's local experiments
	copy(frame, device.HardwareAddr)
	frame[0] |= 1
	if err := from.Send(device, frame); err != nil {
		t.Fatal(err)
	}
	if err := to.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for {
		name, got, err := to.Next()
		if err != nil {
			t.Fatal(err)
		}
		if string(got) == string(frame) {
			if name != "v0" {
				t.Errorf("came in by %q", name)
			}
			break
		}
	}
	if err := from.Send(device, make([]byte, 2000)); err == nil || !strings.Contains(err.Error(), "mtu 1500") {
		t.Errorf("a frame that is too long: %v", err)
	}
	to.Close()
	if _, _, err := to.Next(); err == nil {
		t.Error("a closed tap waits")
	}
}

func TestKernelParse(t *testing.T) {
	k := Kernel{}
	if err := k.parse([]byte("Ip: A B\nIp: 1 -2\nTcpExt: C\nTcpExt: 3\n")); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Kernel{"Ip.A": 1, "Ip.B": -2, "TcpExt.C": 3}, k); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	for _, bad := range []string{"Ip: A\n", "Ip: A\nIp: 1 2\n", "Ip: A\nTcp: 1\n", "Ip: A\nIp: x\n", "\n\n", "Ip: " + strings.Repeat("x", maxKernelLine)} {
		if err := (Kernel{}).parse([]byte(bad)); err == nil {
			t.Errorf("took %.40q", bad)
		}
	}
	// A counter that a kernel does not have, or that was set back, is no loss.
	if lost := (Kernel{}).LostSince(Kernel{"Ip.InAddrErrors": 3}); len(lost) > 0 {
		t.Errorf("lost %v", lost)
	}
	// Three fragments that became one packet, which was delivered.
	whole := Kernel{"Ip.InReceives": 3, "Ip.ReasmReqds": 3, "Ip.ReasmOKs": 1, "Ip.InDelivers": 1}
	if lost := whole.LostSince(Kernel{}); len(lost) > 0 {
		t.Errorf("lost %v", lost)
	}
}

func FuzzKernelParse(f *testing.F) {
	f.Add([]byte("Ip: A B\nIp: 1 2\n"))
	f.Add([]byte("Ip:\nIp:\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		k := Kernel{}
		if err := k.parse(text); err == nil {
			k.LostSince(Kernel{})
		}
	})
}

func FuzzParseTold(f *testing.F) {
	data := make([]byte, 24)
	binary.NativeEndian.PutUint32(data, uint32(unix.EMSGSIZE))
	data[4] = unix.SO_EE_ORIGIN_ICMP
	oob := make([]byte, unix.CmsgSpace(len(data)))
	binary.NativeEndian.PutUint64(oob, uint64(unix.CmsgLen(len(data))))
	binary.NativeEndian.PutUint32(oob[8:], unix.IPPROTO_IP)
	binary.NativeEndian.PutUint32(oob[12:], unix.IP_RECVERR)
	copy(oob[unix.CmsgLen(0):], data)
	if _, ok := parseTold(oob); !ok {
		f.Fatalf("%x is not read", oob)
	}
	f.Add(oob)
	f.Add(oob[:20])
	f.Fuzz(func(t *testing.T, oob []byte) {
		parseTold(oob)
		destination(oob)
	})
}

func FuzzEcho(f *testing.F) {
	f.Add(append([]byte{0x45, 19: 0}, echo(1, 2, make([]byte, nonceSize))...))
	f.Add([]byte{0x4f, 19: 0})
	f.Fuzz(func(t *testing.T, packet []byte) {
		if _, _, payload, ok := echoAt(packet, 8); ok && len(payload) > len(packet)-28 {
			t.Fatalf("%x has a payload of %d bytes", packet, len(payload))
		}
	})
}
