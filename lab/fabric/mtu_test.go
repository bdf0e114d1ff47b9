package fabric

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// sendSized sends a datagram that is size bytes long with its headers.
func sendSized(t *testing.T, c *net.UDPConn, to string, size int) error {
	t.Helper()
	_, err := c.WriteToUDPAddrPort(make([]byte, size-28), netip.MustParseAddrPort(to))
	return err
}

func discover(t *testing.T, c *net.UDPConn, how int) {
	t.Helper()
	control(t, c, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, how) })
}

func TestPathMTU(t *testing.T) {
	regions := peered()
	regions.VPCs[1].Region = "us-east-1"
	public := online()
	tests := []struct {
		name     string
		world    Topology
		to       string
		receiver string
		listen   string
		mtu      int
	}{
		{"peering in a region", peered(), "10.1.1.10:53", "i-c", "10.1.1.10:53", 9001},
		{"peering across regions", regions, "10.1.1.10:53", "i-c", "10.1.1.10:53", 8500},
		{"transit gateway", hub(), "10.1.1.10:53", "i-c", "10.1.1.10:53", 8500},
		{"internet gateway", public, host + ":53", "internet", host + ":53", 1500},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFabric(t)
			g := start(t, f, tt.world)
			in := g[tt.receiver].udp(tt.listen)
			out := g["i-a"].udp("10.0.1.10:5000")
			discover(t, out, unix.IP_PMTUDISC_DO)
			if err := sendSized(t, out, tt.to, tt.mtu); err != nil {
				t.Fatal(err)
			}
			if n, _ := receiveUDP(t, in); n != tt.mtu-28 {
				t.Fatalf("received %d bytes, want %d", n, tt.mtu-28)
			}
			if tt.mtu == DefaultMTU {
				return
			}
			// One byte more: the router of a's subnet tells how much is right.
			wire := g["i-a"].wire("ens5", unix.ETH_P_IP)
			if err := sendSized(t, out, tt.to, tt.mtu+1); err != nil {
				t.Fatal(err)
			}
			got := wire.receive(icmp(3, 4))
			if router := netip.AddrFrom4([4]byte(got[26:30])); router != adr("10.0.1.1") || sum(got[14:34]) != 0xffff {
				t.Errorf("the message is from %s, and its header sums to %#x", router, sum(got[14:34]))
			}
			if mtu := int(got[40])<<8 | int(got[41]); mtu != tt.mtu {
				t.Errorf("the message says %d, want %d", mtu, tt.mtu)
			}
			waitFor(t, "the guest to know", func() bool { return errors.Is(sendSized(t, out, tt.to, tt.mtu+1), unix.EMSGSIZE) })
			if n := packets(t, f, eniA().ID)[TooBig]; n == 0 {
				t.Errorf("nothing counted as MTU: %v", packets(t, f, eniA().ID))
			}
			// What may be fragmented is.
			discover(t, out, unix.IP_PMTUDISC_DONT)
			if err := sendSized(t, out, tt.to, 9001); err != nil {
				t.Fatal(err)
			}
			if n, _ := receiveUDP(t, in); n != 9001-28 {
				t.Errorf("received %d bytes of fragments, want %d", n, 9001-28)
			}
		})
	}
}

// The NAT gateway's internet gateway says so to the NAT gateway, which tells
// the instance.
func TestPathMTUBehindNATGateway(t *testing.T) {
	f := newFabric(t)
	g := start(t, f, private())
	in := g["internet"].udp(host + ":53")
	out := g["i-a"].udp("10.0.1.10:5000")
	discover(t, out, unix.IP_PMTUDISC_DO)
	waitFor(t, "the guest to know", func() bool { return errors.Is(sendSized(t, out, host+":53", 1501), unix.EMSGSIZE) })
	if err := sendSized(t, out, host+":53", 1500); err != nil {
		t.Fatal(err)
	}
	receiveUDP(t, in)
}
