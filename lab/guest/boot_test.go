package guest

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func bootOf(mac net.HardwareAddr) Boot {
	return Boot{
		MAC:     mac,
		Address: netip.MustParsePrefix("10.0.0.4/24"),
		Gateway: netip.MustParseAddr("10.0.0.1"),
		MTU:     9001,
	}
}

// plug gives the guest one end of a veth pair whose other end is in a namespace
// of the test's own.
func plug(t *testing.T, g *Guest, name string, mac net.HardwareAddr) {
	t.Helper()
	result := make(chan error, 1)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	go func() {
		runtime.LockOSThread() // never unlocked: the namespace goes with the thread
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = netlink.LinkAdd(&netlink.Veth{
				LinkAttrs:        netlink.LinkAttrs{Name: "eni-" + name},
				PeerName:         name,
				PeerHardwareAddr: mac,
				PeerNamespace:    netlink.NsFd(int(g.NetNS().Fd())),
			})
		}
		result <- err
		<-release
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

func TestConfigure(t *testing.T) {
	g := start(t)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 4}
	plug(t, g, "ens6", net.HardwareAddr{2, 0, 0, 0, 0, 6})
	plug(t, g, "ens5", mac)
	for range 2 { // repeating changes nothing
		if err := g.Configure(bootOf(mac)); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := output(t, g, sh(`cut -f1,2,3,8 /proc/net/route | tail -n +2
		for d in lo ens5 ens6; do echo $d $(cat /sys/class/net/$d/flags /sys/class/net/$d/mtu); done
		grep -c '32 host LOCAL' /proc/net/fib_trie`))
	want := strings.Join([]string{
		"ens5\t00000000\t0100000A\t00000000", // default via 10.0.0.1
		"ens5\t0000000A\t00000000\t00FFFFFF", // 10.0.0.0/24
		"lo 0x9 65536",                       // up, loopback
		"ens5 0x1003 9001",                   // up
		"ens6 0x1002 1500",                   // another's, untouched
		"4",                                  // 127.0.0.1 and 10.0.0.4, listed under two tables
		"",
	}, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestConfigureErrors(t *testing.T) {
	g := start(t)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	if err := g.Configure(bootOf(mac)); !errors.Is(err, ErrNoDevice) {
		t.Errorf("no device: %v", err)
	}
	b := bootOf(mac)
	b.Gateway = b.Gateway.Prev().Prev()
	if err := g.Configure(b); err == nil || !strings.Contains(err.Error(), "gateway") {
		t.Errorf("gateway of another subnet: %v", err)
	}
}
