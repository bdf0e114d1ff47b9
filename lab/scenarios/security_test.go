package scenarios

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/guest"
)

// TestSpoofing: a pod that takes another's address, or the node's, is not heard;
// with its own it is.
func TestSpoofing(t *testing.T) {
	l := startLab(t, twoNodes)
	a, b := l.nodes["node-a"], l.nodes["node-b"]
	a.startAgent()
	b.startAgent()
	pods := a.addPods("liar", "victim", "near")
	far := b.addPods("far")[0]
	liar, near := a.podNetns(pods[0]), pods[2]
	own := podAddr(pods[0])
	stolen := []netip.Addr{
		podAddr(pods[1]), // of a pod on the same node
		podAddr(far),     // of a pod on another
		a.addr,           // of the node
		b.addr,           // of another node
		netip.MustParseAddr("10.0.1.200"),
		netip.MustParseAddr("203.0.113.7"), // of no VPC
	}
	const each = 3 // packets
	for _, to := range []struct {
		name string
		ns   *os.File
		addr netip.Addr
	}{
		{"a pod on the same node", a.podNetns(near), podAddr(near)},
		{"a pod on another node", b.podNetns(far), podAddr(far)},
		{"its node", a.netns(), a.addr},
		{"another node", b.netns(), b.addr},
	} {
		t.Run(to.name, func(t *testing.T) {
			ear := listenUDP(t, to.ns, to.addr)
			before := a.spoofed(t)
			sent := uint64(0)
			for _, from := range stolen {
				if from == to.addr {
					continue // it would talk to itself
				}
				release := takeAddress(t, liar, from)
				for range each {
					sendUDP(t, liar, from, ear.LocalAddr(), "from "+from.String())
					sent++
				}
				release()
			}
			// The last one is its own. UDP may lose one while a node still gets addresses, so it is repeated.
			buf := make([]byte, 100)
			var n int
			var from netip.AddrPort
			err := os.ErrDeadlineExceeded
			for end := time.Now().Add(patience); errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(end); {
				sendUDP(t, liar, own, ear.LocalAddr(), "from "+own.String())
				ear.SetReadDeadline(time.Now().Add(time.Second))
				n, from, err = ear.ReadFromUDPAddrPort(buf)
			}
			if err != nil {
				t.Fatalf("the pod's own address does not get through: %v", err)
			}
			if from.Addr() != own || string(buf[:n]) != "from "+own.String() {
				t.Errorf("got %q from %s, want only what came from %s", buf[:n], from, own)
			}
			// Another processor may still be at work on one of them.
			eventually(t, "all are counted", func() error {
				if got := a.spoofed(t) - before; got < sent {
					return fmt.Errorf("%d packets counted as spoofed, want %d", got, sent)
				}
				return nil
			})
			if got := a.spoofed(t) - before; got != sent {
				t.Errorf("%d packets counted as spoofed, want %d", got, sent)
			}
		})
	}
}

// takeAddress gives a pod's interface one more address, until it is released:
// what a pod has it does not send to anyone else.
func takeAddress(t *testing.T, ns *os.File, addr netip.Addr) (release func()) {
	t.Helper()
	change := func(do func(netlink.Link, *netlink.Addr) error) {
		err := netns.Do(ns, func() error {
			eth0, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return do(eth0, &netlink.Addr{IPNet: ipNet(addr.String() + "/32")})
		})
		if err != nil {
			t.Fatalf("take or release %s: %v", addr, err)
		}
	}
	change(netlink.AddrAdd)
	return func() { change(netlink.AddrDel) }
}

// spoofed reads the counter of the node.
func (n *node) spoofed(t *testing.T) uint64 {
	t.Helper()
	var count uint64
	err := netns.Do(n.netns(), func() error {
		k, err := kernel.Open()
		if err != nil {
			return err
		}
		dropped, err := k.Dropped()
		count = dropped[kernel.CounterSpoofed]
		return errors.Join(err, k.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

func listenUDP(t *testing.T, ns *os.File, addr netip.Addr) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := netns.Do(ns, func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 9001)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func sendUDP(t *testing.T, ns *os.File, from netip.Addr, to net.Addr, text string) {
	t.Helper()
	err := netns.Do(ns, func() error {
		conn, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), to.(*net.UDPAddr))
		if err != nil {
			return err
		}
		_, err = conn.Write([]byte(text))
		return errors.Join(err, conn.Close())
	})
	if err != nil {
		t.Fatalf("send from %s: %v", from, err)
	}
}

// TestCapabilities: the agent works with CAP_NET_ADMIN and nothing else, whatever
// a world file gives it; one without is told so.
func TestCapabilities(t *testing.T) {
	l := startLab(t, twoNodes)
	n := l.nodes["node-a"]
	n.startAgent()
	n.addPods("web")
	daemons, err := n.Daemons(t.Context())
	if err != nil || len(daemons) != 1 {
		t.Fatalf("daemons: %+v, %v", daemons, err)
	}
	status := n.run(guest.Cmd{Argv: []string{"cat", fmt.Sprintf("/proc/%d/status", daemons[0].PID)}}).stdout
	for set, want := range map[string]string{
		"CapEff": "0000000000001000", "CapPrm": "0000000000001000", "CapBnd": "0000000000001000",
		"CapInh": "0000000000000000", "CapAmb": "0000000000000000",
	} {
		if !strings.Contains(status, set+":\t"+want+"\n") {
			t.Errorf("%s is not %s:\n%s", set, want, status)
		}
	}

	a := n.run(guest.Cmd{Argv: []string{"fairway-agent", "--socket=/run/other.sock"}, Caps: []uintptr{unix.CAP_NET_RAW}})
	if a.status != 2 || a.stderr != "fairway-agent: usage: CAP_NET_ADMIN is missing: run as root or with that capability\n" {
		t.Errorf("without the capability: status %d, %q: want 2 and one line", a.status, a.stderr)
	}
}

// TestSocketIsRoots: nobody but root talks to the agent, by the socket's mode,
// and by what the agent asks of the kernel where that has been changed.
func TestSocketIsRoots(t *testing.T) {
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("needs setpriv, of util-linux")
	}
	l := startLab(t, oneNode("m5.large"))
	n := l.nodes["node-a"]
	n.startAgent()
	n.readyAgent()
	info, err := os.Stat(n.file("run/fairway/cni.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != os.ModeSocket|0o600 {
		t.Errorf("mode of the socket: %v, want 0600", got)
	}

	nobody := func() cniError {
		t.Helper()
		script := `echo '` + conf11 + `' | setpriv --reuid 65534 --clear-groups fairway-cni`
		a := n.run(guest.Cmd{Argv: []string{"sh", "-c", script}, Env: n.env("CNI_COMMAND=STATUS")})
		return parseError(t, a)
	}
	if e := nobody(); e.Code != cniapi.CodeUnavailable || !strings.Contains(e.Msg, "permission denied") {
		t.Errorf("as nobody: %+v, want code %d and permission denied", e, cniapi.CodeUnavailable)
	}
	for path, mode := range map[string]os.FileMode{"run/fairway": 0o755, "run/fairway/cni.sock": 0o666} {
		if err := os.Chmod(n.file(path), mode); err != nil {
			t.Fatal(err)
		}
	}
	if e := nobody(); e.Code != cniapi.CodeRefused || !strings.Contains(e.Msg, "uid 65534") {
		t.Errorf("as nobody, by a socket that is open to all: %+v, want code %d and the uid", e, cniapi.CodeRefused)
	}
}
