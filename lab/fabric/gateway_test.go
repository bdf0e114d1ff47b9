package fabric

import (
	"net"
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// online is a with a public address, and b without.
func online() Topology {
	v := routed("vpc-1", eniA(), eniB()).public("10.0.1.10", "198.51.100.1")
	return world(v.route("i-a", v.toInternet()).route("i-b", v.toInternet()))
}

func TestInternetGatewayTranslatesOneToOne(t *testing.T) {
	f := newFabric(t)
	g := start(t, f, online())
	g["internet"].web(host)
	g["i-a"].web("10.0.1.10")
	mustReach(t, g["i-a"], "10.0.1.10", host, "198.51.100.1")
	// Unasked, too: it keeps no state.
	g["internet"].mustAsk(hostB, "198.51.100.1:80", "10.0.1.10 to "+hostB)
	// UDP, and an ICMP error about it: connection refused is for whom sent.
	out := g["i-a"].udp("10.0.1.10:5000")
	in := g["internet"].udp(host + ":53")
	if _, err := out.WriteToUDPAddrPort([]byte("hello"), netip.MustParseAddrPort(host+":53")); err != nil {
		t.Fatal(err)
	}
	if n, from := receiveUDP(t, in); n != 5 || from.String() != "198.51.100.1:5000" {
		t.Errorf("received %d bytes from %s", n, from)
	}
	if _, err := in.WriteToUDPAddrPort([]byte("hello back"), netip.MustParseAddrPort("198.51.100.1:5000")); err != nil {
		t.Fatal(err)
	}
	if n, from := receiveUDP(t, out); n != 10 || from.String() != host+":53" {
		t.Errorf("received %d bytes from %s", n, from)
	}
	g["i-a"].mustBeRefused("10.0.1.10:0", host+":99")
	g["internet"].mustBeRefused(host+":0", "198.51.100.1:99")
	// No port of the world is the instance's without the address.
	g["i-a"].mustPing("10.0.1.10", host)
	waitDrops(t, f, eniA().ID, map[Reason]uint64{})
}

// mustBeRefused sends to a port that nobody serves: the ICMP error finds the
// sender's socket only if the packet inside it names the socket's addresses.
func (g *testGuest) mustBeRefused(from, to string) {
	g.t.Helper()
	g.do(func() error {
		local := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from))
		c, err := net.DialUDP("udp4", local, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte("anybody?")); err != nil {
			return err
		}
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		waitFor(g.t, "connection refused by "+to, func() bool {
			var code int
			raw.Control(func(fd uintptr) { code, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR) })
			return code == int(unix.ECONNREFUSED)
		})
		return nil
	})
}

// mustPing waits for the echo of one ping.
func (g *testGuest) mustPing(from, to string) {
	g.t.Helper()
	var c net.PacketConn
	g.do(func() (err error) {
		c, err = net.ListenPacket("ip4:icmp", from)
		return err
	})
	defer c.Close()
	echo := []byte{8, 0, 0, 0, 0, 7, 0, 1, 'p', 'i', 'n', 'g'}
	check := ^sum(echo)
	echo[2], echo[3] = byte(check>>8), byte(check)
	if _, err := c.WriteTo(echo, &net.IPAddr{IP: net.ParseIP(to)}); err != nil {
		g.t.Fatal(err)
	}
	waitFor(g.t, "an echo from "+to, func() bool {
		buf := make([]byte, 1500)
		n, who, err := c.ReadFrom(buf)
		return err == nil && n >= 8 && buf[0] == 0 && who.String() == to
	})
}

func TestNoPublicAddress(t *testing.T) {
	f := newFabric(t)
	w := online()
	w.VPCs[0].ENIs[0].Addresses = []netip.Addr{adr("10.0.1.77")}
	g := start(t, f, w)
	g["i-b"].send(eniB(), host)
	waitDrops(t, f, eniB().ID, map[Reason]uint64{NoPublicAddress: 1})
	// A secondary address has a public one of its own, or none.
	g["i-a"].wire("ens5", unix.ETH_P_IP).send(packet{macA, RouterMAC, "10.0.1.77", host, 64, nil}.frame())
	waitDrops(t, f, eniA().ID, map[Reason]uint64{NoPublicAddress: 1})
	// An address that comes, and goes, does so at once.
	in := g["internet"]
	in.web(host)
	w.VPCs[0].Public = map[netip.Addr]netip.Addr{adr("10.0.2.10"): adr("198.51.100.1")}
	mustHold(t, f, w)
	mustReach(t, g["i-b"], "10.0.2.10", host, "198.51.100.1")
	g["i-a"].send(eniA(), host)
	waitDrops(t, f, eniA().ID, map[Reason]uint64{NoPublicAddress: 2})
}

func TestPublicAddressOfANeighbour(t *testing.T) {
	f := newFabric(t)
	w := online()
	w.VPCs[0].Public[adr("10.0.2.10")] = adr("198.51.100.2")
	g := start(t, f, w)
	g["i-b"].web("10.0.2.10")
	g["i-a"].mustAsk("10.0.1.10", "198.51.100.2:80", "10.0.2.10 to 198.51.100.1")
}

func TestUnknownInternetHost(t *testing.T) {
	f := newFabric(t)
	g := start(t, f, online())
	g["i-a"].send(eniA(), "192.0.2.1")
	waitLinkDrops(t, f, "igw-vpc-1", map[Reason]uint64{NoRoute: 1})
	// A host that is gone is unknown.
	w := online()
	w.Internet.Hosts = w.Internet.Hosts[:1]
	mustHold(t, f, w)
	g["i-a"].send(eniA(), hostB)
	waitFor(t, "drop", func() bool {
		all, err := f.LinkCounters()
		return err == nil && all["igw-vpc-1"][NoRoute].Packets == 2
	})
}

// Everything above leaves checksums to offload, which nobody verifies. Here the
// senders compute them, and the receivers do verify.
func TestInternetGatewayChecksums(t *testing.T) {
	f := newFabric(t)
	g := start(t, f, online())
	g["i-a"].noChecksumOffload("ens5")
	g["internet"].noChecksumOffload("igw-vpc-1")
	g["internet"].web(host)
	g["i-a"].web("10.0.1.10")
	mustReach(t, g["i-a"], "10.0.1.10", host, "198.51.100.1")
	g["internet"].mustAsk(host, "198.51.100.1:80", "10.0.1.10 to "+host)
	out, in := g["i-a"].udp("10.0.1.10:5000"), g["internet"].udp(host+":53")
	for i := range 50 {
		word := []byte{byte(i), byte(i * 7)}
		if _, err := out.WriteToUDPAddrPort(word, netip.MustParseAddrPort(host+":53")); err != nil {
			t.Fatal(err)
		}
		receiveUDP(t, in)
		if _, err := in.WriteToUDPAddrPort(word, netip.MustParseAddrPort("198.51.100.1:5000")); err != nil {
			t.Fatal(err)
		}
		receiveUDP(t, out)
	}
	g["i-a"].mustBeRefused("10.0.1.10:0", host+":99")
	g["internet"].mustBeRefused(host+":0", "198.51.100.1:99")
}

// noChecksumOffload is "ethtool -K device tx off".
func (g *testGuest) noChecksumOffload(device string) {
	g.t.Helper()
	g.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		value := struct{ cmd, data uint32 }{unix.ETHTOOL_STXCSUM, 0}
		req := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&value)}
		copy(req.name[:], device)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
			return errno
		}
		return nil
	})
}
