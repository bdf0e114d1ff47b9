package tracepoint

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/sighting"
)

// wire is two namespaces with a veth pair: left 10.7.0.1, right 10.7.0.2. The
// test's thread is in the left one.
func wire(t *testing.T) (left, right Place) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	make := func(name string) (netns.NsHandle, Place) {
		must(unix.Unshare(unix.CLONE_NEWNET))
		h, err := netns.Get()
		must(err)
		f, err := os.Open("/proc/thread-self/ns/net")
		must(err)
		t.Cleanup(func() { h.Close(); f.Close() })
		return h, Place{NetNS: f, Where: path.Where{Kind: path.KindPod, Name: name}}
	}
	there, right := make("right")
	here, left := make("left")
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "l0"}, PeerName: "r0", PeerNamespace: netlink.NsFd(there)}))
	for _, end := range []struct {
		h    netns.NsHandle
		p    *Place
		name string
		addr string
	}{{there, &right, "r0", "10.7.0.2/24"}, {here, &left, "l0", "10.7.0.1/24"}} {
		must(netns.Set(end.h))
		l, err := netlink.LinkByName(end.name)
		must(err)
		a, err := netlink.ParseAddr(end.addr)
		must(err)
		must(netlink.AddrAdd(l, a))
		must(netlink.LinkSetUp(l))
		end.p.Devices = map[int]string{l.Attrs().Index: end.name}
	}
	return left, right
}

func follow(t *testing.T, w Wanted, places ...Place) *Follow {
	t.Helper()
	f, err := NewFollow(w, places)
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n, err := f.Lost(); n != 0 || err != nil {
			t.Errorf("lost %d, %v", n, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// heard reads events until one is as wanted.
func heard(t *testing.T, f *Follow, last func(sighting.Sighting) bool) (all []sighting.Sighting) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		s, ok, err := f.Next(end)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			t.Fatalf("the last was not heard: %+v", all)
		}
		all = append(all, s)
		if last(s) {
			return all
		}
	}
}

func has(all []sighting.Sighting, place, device string, event sighting.Event, way sighting.Way) bool {
	return slices.ContainsFunc(all, func(s sighting.Sighting) bool {
		return s.At.Name == place && s.Device == device && s.Event == event && s.Way == way
	})
}

// TestFollowSYN: a SYN that is refused is met at both ends, with the answer, and
// nothing of a flow beside it is told.
func TestFollowSYN(t *testing.T) {
	left, right := wire(t)
	to := netip.MustParseAddrPort("10.7.0.2:81")
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(name.(*unix.SockaddrInet4).Port)
	f := follow(t, Wanted{Proto: path.TCP, To: to, Port: port}, left, right)
	if c, err := net.DialTimeout("tcp4", to.String(), time.Second); err == nil {
		c.Close()
		t.Fatal("connected to nobody")
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatal(err)
	}
	all := heard(t, f, func(s sighting.Sighting) bool {
		return s.At.Name == "left" && s.Event == sighting.Received && s.Way == sighting.Reply
	})
	if !has(all, "left", "l0", sighting.Sent, sighting.Packet) || !has(all, "right", "r0", sighting.Received, sighting.Packet) ||
		!has(all, "right", "r0", sighting.Dropped, sighting.Packet) || !has(all, "right", "r0", sighting.Sent, sighting.Reply) {
		t.Errorf("heard %+v", all)
	}
	for _, s := range all {
		if s.Event == sighting.Dropped && s.Way == sighting.Packet && s.Reason != "NO_SOCKET" {
			t.Errorf("reason %s", s.Reason)
		}
		if s.Event != sighting.Routed && s.Src.Port() != port && s.Dst.Port() != port {
			t.Errorf("heard of another flow: %+v", s)
		}
	}
}

// TestFollowDatagram: one that is refused comes back within an ICMP error; one that
// is answered with other data is followed back.
func TestFollowDatagram(t *testing.T) {
	left, right := wire(t)
	const nonce = 0x1122334455667788
	to := netip.MustParseAddrPort("10.7.0.2:9")
	f := follow(t, Wanted{Proto: path.UDP, To: to, Nonce: nonce}, left, right)
	c, err := net.Dial("udp4", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data := append(binary.NativeEndian.AppendUint64(nil, nonce), "and more"...)
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	all := heard(t, f, func(s sighting.Sighting) bool {
		return s.At.Name == "left" && s.Event == sighting.Received && s.Way == sighting.Error
	})
	if !has(all, "right", "r0", sighting.Dropped, sighting.Packet) {
		t.Errorf("heard %+v", all)
	}

	server := listen(t, right.NetNS, to.Addr())
	answered := make(chan error, 1)
	go func() {
		buffer := make([]byte, 64)
		_, from, err := server.ReadFrom(buffer)
		if err == nil {
			_, err = server.WriteTo([]byte("something else"), from)
		}
		answered <- err
	}()
	second, err := net.Dial("udp4", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, err := second.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	heard(t, f, func(s sighting.Sighting) bool {
		return s.At.Name == "left" && s.Event == sighting.Received && s.Way == sighting.Reply && s.Device == "l0"
	})
}

// listen opens a socket in a namespace, on a port that is free there.
func listen(t *testing.T, ns *os.File, at netip.Addr) net.PacketConn {
	t.Helper()
	type opened struct {
		c   net.PacketConn
		err error
	}
	done := make(chan opened)
	go func() {
		runtime.LockOSThread() // for good
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- opened{err: err}
			return
		}
		c, err := net.ListenPacket("udp4", netip.AddrPortFrom(at, 0).String())
		done <- opened{c, err}
	}()
	o := <-done
	if o.err != nil {
		t.Fatal(o.err)
	}
	t.Cleanup(func() { o.c.Close() })
	return o.c
}
