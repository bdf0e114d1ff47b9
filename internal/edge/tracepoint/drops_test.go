package tracepoint

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestWatchTellsADrop sends a datagram to nobody in a namespace that is watched,
// and to nobody in one that is not.
func TestWatchTellsADrop(t *testing.T) {
	w, err := WatchDrops()
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	heard := make(chan Drop, 64)
	other, ns := loopback(t), loopback(t)
	if err := w.Add(ns, heard); err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort("127.0.0.1:9")
	send(t, other, to)
	from := send(t, ns, to)
	for {
		select {
		case d := <-heard:
			if d.Proto != unix.IPPROTO_UDP {
				continue
			}
			want := Packet{Proto: unix.IPPROTO_UDP, Src: from, Dst: to}
			if d.Reason != "NO_SOCKET" || d.Packet != want {
				t.Errorf("heard %+v, want %+v for NO_SOCKET", d, want)
			}
			if err := w.Remove(ns); err != nil {
				t.Error(err)
			}
			if n, err := w.Lost(); n != 0 || err != nil {
				t.Errorf("lost %d, %v", n, err)
			}
			return
		case <-time.After(30 * time.Second):
			t.Fatal("heard nothing")
		}
	}
}

// loopback is a namespace whose loopback device is up. The test's thread is in it.
func loopback(t *testing.T) *os.File {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func send(t *testing.T, ns *os.File, to netip.AddrPort) (from netip.AddrPort) {
	t.Helper()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("udp4", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err = c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestProgramIsGenerated(t *testing.T) {
	sums, err := os.ReadFile("bpf_sources.sha256")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sums)) {
		sum, file, _ := strings.Cut(strings.TrimSpace(line), "  ")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != sum {
			t.Errorf("%s is not what the program was made of: go generate ./internal/edge/tracepoint", file)
		}
	}
}
