package kernel

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// TestVerifyNamesWhatIsWrong breaks one thing after the other, each in a pod of
// its own.
func TestVerifyNamesWhatIsWrong(t *testing.T) {
	newNS(t)
	k := open(t)
	onHost := func(f func(netlink.Link) error) func(pod, Wiring) error {
		return func(_ pod, w Wiring) error {
			l, err := netlink.LinkByName(w.Veth)
			if err != nil {
				return err
			}
			return f(l)
		}
	}
	inPod := func(f func(netlink.Link) error) func(pod, Wiring) error {
		return func(p pod, w Wiring) error {
			p.in(t, func() error {
				l, err := netlink.LinkByName(w.IfName)
				if err != nil {
					return err
				}
				return f(l)
			})
			return nil
		}
	}
	for _, tt := range []struct {
		do   func(pod, Wiring) error
		want []string // %: the host-side device
	}{
		{inPod(func(netlink.Link) error { return nil }), nil},
		{onHost(netlink.LinkSetDown), []string{"node's device %: want up, have down"}},
		{onHost(func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1400) }), []string{"node's device %: mtu: want 1500, have 1400"}},
		{onHost(func(l netlink.Link) error { return netlink.LinkSetGroup(l, 5) }), []string{"node's device %: group: want 0x667779, have 0x5"}},
		{onHost(netlink.LinkDel), []string{"host-side device does not exist: %", "pod's interface eth0 is missing"}},
		{inPod(func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1400) }), []string{"pod's interface eth0: mtu: want 1500, have 1400"}},
		{inPod(func(l netlink.Link) error {
			return netlink.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 0, 1})
		}), []string{"pod's interface eth0: mac: want 02:fb:0a:00:01:06, have 02:00:00:00:00:01",
			"permanent neighbor 169.254.1.1 is missing"}}, // the kernel forgets neighbours with it
		{inPod(netlink.LinkSetDown), []string{"pod's interface eth0: want up, have down",
			"pod's interface eth0: route 169.254.1.1/32 is missing", "pod's interface eth0: route 0.0.0.0/0 via 169.254.1.1 is missing",
			"pod's interface eth0: permanent neighbor 169.254.1.1 is missing"}},
		{inPod(func(l netlink.Link) error {
			a, err := netlink.ParseAddr("10.0.1.6/32")
			return errors.Join(err, netlink.AddrDel(l, a))
		}), []string{"pod's interface eth0: address 10.0.1.6/32 is missing", "route 169.254.1.1/32 is missing", "route 0.0.0.0/0 via 169.254.1.1 is missing",
			"permanent neighbor 169.254.1.1 is missing"}}, // the last address ends IPv4 on a device
		{inPod(func(l netlink.Link) error {
			return netlink.RouteDel(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}})
		}), []string{"pod's interface eth0: route 0.0.0.0/0 via 169.254.1.1 is missing"}},
		{inPod(func(l netlink.Link) error {
			return netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, State: unix.NUD_PERMANENT, IP: node.GatewayAddr.AsSlice(), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}})
		}), []string{"pod's interface eth0: permanent neighbor 169.254.1.1: want 02:fa:00:00:00:01, have 02:00:00:00:00:01"}},
		{inPod(func(l netlink.Link) error {
			return netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, State: unix.NUD_STALE, IP: node.GatewayAddr.AsSlice(), HardwareAddr: net.HardwareAddr{2, 0xfa, 0, 0, 0, 1}})
		}), []string{"pod's interface eth0: permanent neighbor 169.254.1.1 is missing"}},
		{inPod(func(l netlink.Link) error {
			return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, "eth1"))
		}), []string{"pod's interface eth0 is missing"}},
	} {
		p := newPod(t)
		w := Wiring{Attachment: attachment("one", "10.0.1.6", 1), MTU: 1500, NetNS: p.ns, Netlink: p.nl}
		if err := k.Wire(w); err != nil {
			t.Fatal(err)
		}
		if err := tt.do(p, w); err != nil {
			t.Fatalf("%q: %v", tt.want, err)
		}
		var want []string
		for _, s := range tt.want {
			want = append(want, strings.ReplaceAll(s, "%", w.Veth))
		}
		check(t, k.Verify(w), want)
		if err := errors.Join(k.Unwire(w.Attachment), k.Reap()); err != nil {
			t.Fatal(err)
		}
	}
}

// check wants an error with these lines and no others; none for no lines.
func check(t *testing.T, err error, want []string) {
	t.Helper()
	text := ""
	if err != nil {
		text = err.Error()
	}
	have := strings.Split(text, "\n")
	if len(want) == 0 && text != "" || len(want) > 0 && len(have) != len(want) {
		t.Errorf("Verify: got %q, want %q", have, want)
		return
	}
	for i, w := range want {
		if !strings.Contains(have[i], w) {
			t.Errorf("Verify: got %q, want %q", have[i], w)
		}
	}
}

// TestTwoInterfacesOfOnePod: each has its routes; the first leads.
func TestTwoInterfacesOfOnePod(t *testing.T) {
	newNS(t)
	k := open(t)
	p := newPod(t)
	one := Wiring{Attachment: attachment("one", "10.0.1.6", 1), MTU: 1500, NetNS: p.ns, Netlink: p.nl}
	two := one
	two.IfName, two.Addr = "net1", one.Addr.Next()
	two.Veth = node.VethName(node.DefaultVethPrefix, "one", "net1")
	if err := errors.Join(k.Wire(one), k.Wire(two), k.Verify(one), k.Verify(two)); err != nil {
		t.Fatal(err)
	}
	p.in(t, func() error {
		routes, err := netlink.RouteGet(net.IPv4(8, 8, 8, 8))
		if err != nil || len(routes) != 1 || routes[0].Src.String() != "10.0.1.6" {
			t.Errorf("route to anywhere: got %v, %v, want one by eth0", routes, err)
		}
		return nil
	})
	if err := errors.Join(k.Unwire(two.Attachment), k.Verify(one)); err != nil {
		t.Error(err)
	}
	if err := k.Verify(two); err == nil || !strings.Contains(err.Error(), "group: want 0x667779, have 0x66777a") {
		t.Errorf("Verify of a retired one: got %v", err)
	}
}

// TestBorrowedSocket: what was handed over need not be a netlink socket.
func TestBorrowedSocket(t *testing.T) {
	newNS(t)
	k := open(t)
	p := newPod(t)
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w := Wiring{Attachment: attachment("one", "10.0.1.6", 1), MTU: 1500, NetNS: p.ns, Netlink: file}
	if err := k.Wire(w); !errors.Is(err, unix.ENOTSOCK) {
		t.Errorf("Wire: got %v, want %v", err, unix.ENOTSOCK)
	}
	if err := k.Verify(w); !errors.Is(err, unix.ENOTSOCK) {
		t.Errorf("Verify: got %v, want %v", err, unix.ENOTSOCK)
	}
	if _, err := netlink.LinkByName(w.Veth); err == nil {
		t.Errorf("%s is left", w.Veth)
	}
}
