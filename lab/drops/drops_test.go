package drops

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// TestWatchTellsADrop sends a datagram to nobody in a namespace that is watched,
// and to nobody in one that is not.
func TestWatchTellsADrop(t *testing.T) {
	w, err := New()
	if errors.Is(err, os.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
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

func loopback(t *testing.T) *os.File {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	err = netns.Do(ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func send(t *testing.T, ns *os.File, to netip.AddrPort) (from netip.AddrPort) {
	t.Helper()
	err := netns.Do(ns, func() error {
		c, err := net.Dial("udp4", to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		from = c.LocalAddr().(*net.UDPAddr).AddrPort()
		_, err = c.Write([]byte("x"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return from
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
			t.Errorf("%s is not what the program was made of: go generate ./lab/drops", file)
		}
	}
}
