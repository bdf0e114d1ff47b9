package fabric

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func control(t *testing.T, c syscall.Conn, fn func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		t.Fatal(err)
	}
	if inner != nil {
		t.Fatal(inner)
	}
}

func receiveUDP(t *testing.T, c *net.UDPConn) (int, netip.AddrPort) {
	t.Helper()
	buf := make([]byte, 65536)
	c.SetReadDeadline(time.Now().Add(patience))
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	return n, from
}

// listenENI answers with the word; the listener is closed with the fabric.
func listenENI(t *testing.T, f *Fabric, eni, word string, ttl int) *Listener {
	t.Helper()
	l, err := f.ListenENI(eni, netip.AddrPortFrom(imds, 80), ttl)
	if err != nil {
		t.Fatal(err)
	}
	go answer(l, word)
	return l.(*Listener)
}

func TestListenENIKnowsTheENI(t *testing.T) {
	f := newFabric(t)
	a, b := newGuest(t, f, "i-a"), newGuest(t, f, "i-b")
	// i-a lets through what is not its own, as a NAT instance does.
	ea := eniA()
	ea.SourceDestCheck = false
	mustSync(t, f, vpcOf(ea, eniB()))
	a.boot(ea)
	b.boot(eniB())
	listenENI(t, f, ea.ID, "imds of a", 64)
	listenENI(t, f, eniB().ID, "imds of b", 64)
	a.mustAsk("10.0.1.10", "169.254.169.254:80", "imds of a to 10.0.1.10")
	b.mustAsk("10.0.2.10", "169.254.169.254:80", "imds of b to 10.0.2.10")
	// The ENI tells who asks, whatever the source: nobody's, or another ENI's.
	for _, source := range []string{"192.168.5.5", "10.0.2.10"} {
		a.address(source)
		a.mustAsk(source, "169.254.169.254:80", "imds of a to "+source)
	}
	// A port that nobody serves refuses, and another link-local address is silent.
	if _, err := a.ask("10.0.1.10", "169.254.169.254:81"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("connect to a port without service: %v, want ECONNREFUSED", err)
	}
	if got := packets(t, f, ea.ID); len(got) != 0 {
		t.Errorf("drops: %v", got)
	}
}

func TestListenENITTL(t *testing.T) {
	f := newFabric(t)
	a := newGuest(t, f, "i-a")
	mustSync(t, f, vpcOf(eniA()))
	a.boot(eniA())
	l := listenENI(t, f, eniA().ID, "imds", 1)
	w := a.wire("ens5", unix.ETH_P_IP)
	for _, ttl := range []int{1, 2, 64} {
		if err := l.SetTTL(ttl); err != nil {
			t.Fatal(err)
		}
		a.mustAsk("10.0.1.10", "169.254.169.254:80", "imds to 10.0.1.10")
		// From SYN-ACK to FIN; an ACK of the connection before may come first.
		const fin, synAck = 1, 0x12
		for begun, ended := false, false; !ended; {
			frame := w.receive(isIPv4(imds.String(), "10.0.1.10"))
			flags := frame[14+20+13]
			begun = begun || flags&synAck == synAck
			if begun && int(frame[22]) != ttl {
				t.Fatalf("answer with TTL %d and flags %#x, want TTL %d", frame[22], flags, ttl)
			}
			ended = begun && flags&fin != 0
		}
	}
	if err := l.SetTTL(256); !errors.Is(err, unix.EINVAL) {
		t.Errorf("ttl 256: %v, want EINVAL", err)
	}
}

func TestListen(t *testing.T) {
	f := newFabric(t)
	a, b := newGuest(t, f, "i-a"), newGuest(t, f, "i-b")
	eb := eniB()
	eb.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.0.2.32/28")}
	mustSync(t, f, vpcOf(eniA(), eb))
	a.boot(eniA())
	b.boot(eb)
	b.address("10.0.2.33")
	l, err := f.Listen("vpc-1", netip.AddrPortFrom(ec2, 80))
	if err != nil {
		t.Fatal(err)
	}
	go answer(l, "ec2")
	a.mustAsk("10.0.1.10", ec2.String()+":80", "ec2 to 10.0.1.10")
	b.mustAsk("10.0.2.33", ec2.String()+":80", "ec2 to 10.0.2.33")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ask("10.0.1.10", ec2.String()+":80"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("connect after close: %v, want ECONNREFUSED", err)
	}
}

func TestListenerLivesWithItsENI(t *testing.T) {
	f := newFabric(t)
	newGuest(t, f, "i-a")
	free := eniA()
	free.Guest = ""
	mustSync(t, f, vpcOf(free))
	l := listenENI(t, f, free.ID, "imds", 64) // before the ENI has a device
	mustSync(t, f, vpcOf(eniA()))
	mustSync(t, f, vpcOf(free))
	c := newGuest(t, f, "i-c")
	there := eniA()
	there.Guest = "i-c"
	mustSync(t, f, vpcOf(there))
	c.boot(there)
	c.mustAsk("10.0.1.10", "169.254.169.254:80", "imds to 10.0.1.10")

	mustSync(t, f, vpcOf())
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after the ENI is gone: %v, want net.ErrClosed", err)
	}
	mustSync(t, f, vpcOf(there)) // its number is new
	listenENI(t, f, there.ID, "imds", 64)
}

func TestListenErrors(t *testing.T) {
	f := newFabric(t)
	newGuest(t, f, "i-a")
	mustSync(t, f, vpcOf(eniA()))
	at := netip.AddrPortFrom(imds, 80)
	if _, err := f.Listen("vpc-9", at); !errors.Is(err, ErrUnknownVPC) {
		t.Errorf("unknown vpc: %v", err)
	}
	if _, err := f.ListenENI("eni-9", at, 64); !errors.Is(err, ErrUnknownENI) {
		t.Errorf("unknown eni: %v", err)
	}
	for _, ttl := range []int{0, 256} {
		if _, err := f.ListenENI(eniA().ID, at, ttl); err == nil {
			t.Errorf("ttl %d: no error", ttl)
		}
	}
	other := netip.MustParseAddrPort("169.254.9.9:80")
	if _, err := f.Listen("vpc-1", other); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("not a service address: %v", err)
	}
	listenENI(t, f, eniA().ID, "imds", 64)
	if _, err := f.ListenENI(eniA().ID, at, 64); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("listen twice: %v", err)
	}
}
