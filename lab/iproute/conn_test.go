package iproute

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// host is a namespace with a pair of devices, v0 and v1, both up, and v2 whose
// other end is in another namespace.
type host struct {
	t  *testing.T
	ns *os.File
}

func newHost(t *testing.T) host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces (CAP_SYS_ADMIN)")
	}
	var files [2]*os.File
	for i := range files {
		f, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files[i] = f
	}
	h, err := netlink.NewHandleAt(vnetns.NsHandle(files[0].Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	// IPv6 makes addresses of its own, a while after a device is up.
	err = netns.Do(files[0], func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/addr_gen_mode", []byte("1"), 0)
	})
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("needs IPv6 in the kernel")
	}
	if err != nil {
		t.Fatal(err)
	}
	pair := func(name, peer string, away any) {
		t.Helper()
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer, PeerNamespace: away}
		if err := h.LinkAdd(v); err != nil {
			t.Fatalf("add veth %s: %v", name, err)
		}
	}
	pair("v0", "v1", nil)
	pair("v2", "v3", netlink.NsFd(files[1].Fd()))
	n := host{t, files[0]}
	for _, d := range []string{"lo", "v0", "v1", "v2"} {
		n.ip("link set " + d + " up")
	}
	// The kernel sets the state of a device a while after its carrier.
	n.until("link show v0", " state UP ")
	n.until("link show v1", " state UP ")
	n.until("link show v2", " state LOWERLAYERDOWN ")
	return n
}

// until waits for words in what a line prints.
func (h host) until(line, words string) {
	h.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !strings.Contains(h.ip(line), words) {
		if time.Now().After(deadline) {
			h.t.Fatalf("ip %s: no %q in:\n%s", line, words, h.ip(line))
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (h host) try(line string) (string, error) {
	h.t.Helper()
	r, err := Parse(strings.Fields(line))
	if err != nil {
		h.t.Fatal(err)
	}
	a, err := Do(h.ns, r)
	return a.Text(r), err
}

// ip runs a line that must succeed.
func (h host) ip(line string) string {
	h.t.Helper()
	text, err := h.try(line)
	if err != nil {
		h.t.Fatalf("ip %s: %v", line, err)
	}
	return text
}

// refused runs a line that must not.
func (h host) refused(line string, errno error, words string) {
	h.t.Helper()
	_, err := h.try(line)
	if !errors.Is(err, errno) || !strings.Contains(err.Error(), words) {
		h.t.Errorf("ip %s: got %v, want %v with %q", line, err, errno, words)
	}
}

func (h host) want(line, want string) {
	h.t.Helper()
	if d := cmp.Diff(strings.TrimLeft(want, "\n"), h.ip(line)); d != "" {
		h.t.Errorf("ip %s (-want +got):\n%s", line, d)
	}
}

// lines runs lines that must succeed and print nothing.
func (h host) lines(text string) {
	h.t.Helper()
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if out := h.ip(line); out != "" {
			h.t.Errorf("ip %s printed %q", line, out)
		}
	}
}

// furnish gives a host something of each kind.
func (h host) furnish() {
	h.t.Helper()
	h.lines(`
addr add 10.11.4.90/16 dev v0
addr add 10.11.4.91 dev v0
a a 10.11.4.92/16 brd + dev v0 noprefixroute
addr add 10.12.0.1/24 broadcast 10.12.0.255 dev v1
addr add 192.0.2.1/24 dev v2 scope link
-6 addr add fd00::1/64 dev v0 nodad
link set v1 mtu 1400 address 02:00:00:00:00:99
rule add from 10.11.4.91 to 10.11.0.0/16 lookup 11 pref 111
rule add not from 10.0.0.0/8 fwmark 0x1/0xff iif v0 table 12 prio 112
rule add to 1.1.1.1 oif v0 unreachable pref 113
rule add iif nodev lookup main pref 114
rule add fwmark 7 blackhole pref 115
rule add fwmark 7 table 70 suppress_prefixlength 0 pref 116
rule add from 0.0.0.0/1 iif nodev prohibit priority 117 protocol static
rule add pref 118 from 10.0.0.9/8 table 5000 proto 87
ru a to fd00::/8 lookup default pref 111
route add default via 10.11.0.1 dev v0 table 11
route add 10.11.0.1 dev v0 table 11 proto kernel scope link metric 5 src 10.11.4.91
route add default via 10.11.0.1
r add unreachable 10.99.0.0/16 metric 7
route add blackhole 10.98.0.0/16 table 300
route add throw 10.97.0.0/16
route add prohibit 10.96.0.0/16
route add local 10.95.0.0/16 dev lo
route add to 10.94.0.0/16 via 192.168.9.9 dev v0 onlink mtu 1400
route add 10.91.0.0/16 dev v0 mtu lock 1300 advmss 900
route add fd01::/64 via fd00::2
route add fd02::/64 dev v0 table 77 metric 3 mtu 1400
-6 route add unreachable fd03::/64
-6 route add default via fe80::1 dev v0
neigh add 10.11.0.1 lladdr 02:00:00:00:00:01 dev v0 nud permanent
neigh add 10.11.0.2 lladdr 02:00:00:00:00:02 dev v0 nud stale
n add fd00::2 lladdr 02:00:00:00:00:03 dev v0 router
`)
	// An IPv6 address is in use a while after it was added.
	h.until("-6 route show table local", "local fd00::1 dev v0 proto kernel")
	// What others make, and the lines here do not, is shown all the same.
	nl, err := netlink.NewHandleAt(vnetns.NsHandle(h.ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		h.t.Fatal(err)
	}
	defer nl.Close()
	v0, err := nl.LinkByName("v0")
	if err != nil {
		h.t.Fatal(err)
	}
	_, to, _ := net.ParseCIDR("10.93.0.0/16")
	hop := func(gw string, weight int) *netlink.NexthopInfo {
		ip, _, _ := net.ParseCIDR(gw + "/32")
		return &netlink.NexthopInfo{LinkIndex: v0.Attrs().Index, Gw: ip, Hops: weight - 1}
	}
	if err := nl.RouteAdd(&netlink.Route{Dst: to, MultiPath: []*netlink.NexthopInfo{hop("10.11.0.2", 1), hop("10.11.0.3", 5)}}); err != nil {
		h.t.Fatal(err)
	}
	_, to, _ = net.ParseCIDR("10.92.0.0/16")
	via6, _, _ := net.ParseCIDR("fd00::9/128")
	if err := nl.RouteAdd(&netlink.Route{Dst: to, LinkIndex: v0.Attrs().Index, Via: &netlink.Via{AddrFamily: unix.AF_INET6, Addr: via6}}); err != nil {
		h.t.Fatal(err)
	}
	rule := func(pref int, change func(*netlink.Rule)) {
		h.t.Helper()
		u := netlink.NewRule()
		u.Priority, u.Table = pref, 70
		change(u)
		if err := nl.RuleAdd(u); err != nil {
			h.t.Fatalf("add rule %d: %v", pref, err)
		}
	}
	rule(130, func(u *netlink.Rule) {
		u.IPProto, u.Dport, u.Sport = unix.IPPROTO_TCP, netlink.NewRulePortRange(80, 80), netlink.NewRulePortRange(1, 99)
	})
	rule(131, func(u *netlink.Rule) { u.Table, u.Goto = 0, 32766 })
	rule(132, func(u *netlink.Rule) { u.Table, u.Goto = 0, 32000 })
	rule(133, func(u *netlink.Rule) { u.Tos = 0x10 })
	rule(134, func(u *netlink.Rule) { u.UIDRange = netlink.NewRuleUIDRange(1, 2) })
}

func TestRules(t *testing.T) {
	h := newHost(t)
	h.want("rule", "0:\tfrom all lookup local\n32766:\tfrom all lookup main\n32767:\tfrom all lookup default\n")
	h.furnish()
	h.want("rule show", `
0:	from all lookup local
111:	from 10.11.4.91 to 10.11.0.0/16 lookup 11
112:	not from 10.0.0.0/8 fwmark 0x1/0xff iif v0 lookup 12
113:	from all to 1.1.1.1 oif v0 unreachable
114:	from all iif nodev [detached] lookup main
115:	from all fwmark 0x7 blackhole
116:	from all fwmark 0x7 lookup 70 suppress_prefixlength 0
117:	from 0.0.0.0/1 iif nodev [detached] prohibit proto static
118:	from 10.0.0.9/8 lookup 5000 proto 87
130:	from all ipproto tcp sport 1-99 dport 80 lookup 70
131:	from all goto 32766
132:	from all goto 32000 [unresolved]
133:	from all tos 0x10 lookup 70
134:	from all uidrange 1-2 lookup 70
32766:	from all lookup main
32767:	from all lookup default
`)
	h.want("-6 rule ls pref 111", "111:\tfrom all to fd00::/8 lookup default\n")
	h.want("rule show table 11", "111:\tfrom 10.11.4.91 to 10.11.0.0/16 lookup 11\n")
	h.refused("rule add from 10.11.4.91 to 10.11.0.0/16 lookup 11 pref 111", unix.EEXIST, "")
	h.lines("rule del from 10.11.4.91 to 10.11.0.0/16 lookup 11 pref 111")
	h.refused("rule del from 10.11.4.91 to 10.11.0.0/16 lookup 11 pref 111", unix.ENOENT, "")
	h.lines("rule del pref 113\nrule del not from 10.0.0.0/8 fwmark 1/0xff\nrule del fwmark 7 blackhole")
	for _, pref := range []string{"111", "112", "113", "115"} {
		h.want("rule show pref "+pref, "")
	}
}

func TestRoutes(t *testing.T) {
	h := newHost(t)
	h.furnish()
	h.want("route show table 11", `
default via 10.11.0.1 dev v0
10.11.0.1 dev v0 proto kernel scope link src 10.11.4.91 metric 5
`)
	h.want("route", `
default via 10.11.0.1 dev v0
10.11.0.0/16 dev v0 proto kernel scope link src 10.11.4.90
10.12.0.0/24 dev v1 proto kernel scope link src 10.12.0.1
10.91.0.0/16 dev v0 scope link mtu lock 1300 advmss 900
10.92.0.0/16 via inet6 fd00::9 dev v0
10.93.0.0/16
	nexthop via 10.11.0.2 dev v0 weight 1
	nexthop via 10.11.0.3 dev v0 weight 5
10.94.0.0/16 via 192.168.9.9 dev v0 onlink mtu 1400
prohibit 10.96.0.0/16
throw 10.97.0.0/16
unreachable 10.99.0.0/16 metric 7
192.0.2.0/24 dev v2 proto kernel scope link src 192.0.2.1 linkdown
`)
	h.want("route show default", "default via 10.11.0.1 dev v0\n")
	h.want("route show 10.99.0.0/16", "unreachable 10.99.0.0/16 metric 7\n")
	h.want("route show match 10.99.0.1", "default via 10.11.0.1 dev v0\nunreachable 10.99.0.0/16 metric 7\n")
	h.want("route show root 10.98.0.0/15", "unreachable 10.99.0.0/16 metric 7\n")
	h.want("route show dev v1", "10.12.0.0/24 proto kernel scope link src 10.12.0.1\n")
	h.want("-6 route show table 77", "fd02::/64 dev v0 metric 3 mtu 1400 pref medium\n")
	h.refused("route show table 4242", unix.ENOENT, "ipv4: FIB table does not exist")
	h.refused("route add default via 99.9.9.9 table 5", unix.ENETUNREACH, "Nexthop has invalid gateway")
	h.refused("route add 10.1.1.1/8 dev v0", unix.EINVAL, "Invalid prefix for given prefix length")
	h.refused("route add default via 10.11.0.1", unix.EEXIST, "")
	h.refused("route del 10.200.0.0/16", unix.ESRCH, "")
	h.refused("route add 10.200.0.0/16 dev v9", ErrNoDevice, `"v9"; there are: lo, v`)

	h.lines("route replace default via 10.11.0.2\nroute del unreachable 10.99.0.0/16\nroute del 10.94.0.0/16 via 192.168.9.9\nroute del local 10.95.0.0/16")
	h.want("route show default", "default via 10.11.0.2 dev v0\n")
	h.want("route show root 10.94.0.0/15", "")
	h.want("route show 10.99.0.0/16", "")
	h.lines("-6 route del default\n-6 route del fd01::/64")
	h.want("-6 route show root fd00::/14", "fd00::/64 dev v0 proto kernel metric 256 pref medium\nunreachable fd03::/64 dev lo metric 1024 pref medium\n")
}

func TestRouteGet(t *testing.T) {
	h := newHost(t)
	h.furnish()
	h.want("route get 10.20.0.1", "10.20.0.1 via 10.11.0.1 dev v0 src 10.11.4.90 uid 0\n    cache\n")
	h.want("route get 10.11.0.9 from 10.11.4.91", "10.11.0.9 from 10.11.4.91 via 10.11.0.1 dev v0 table 11 uid 0\n    cache\n")
	h.want("route get to 10.12.0.255", "broadcast 10.12.0.255 dev v1 table local src 10.12.0.1 uid 0\n    cache <local,brd>\n")
	h.want("route get 10.91.0.1 oif v0", "10.91.0.1 dev v0 src 10.11.4.90 uid 0\n    cache mtu lock 1300 advmss 900\n")
	h.want("route get fd01::5", "fd01::5 from :: via fd00::2 dev v0 src fd00::1 metric 1024 pref medium\n")
	h.refused("route get 10.99.0.1", unix.EHOSTUNREACH, "")
	h.refused("route get 10.20.0.1 mark 7", unix.EINVAL, "")
	h.refused("route get 10.20.0.1 iif v9", ErrNoDevice, `"v9"`)
}

func TestAddresses(t *testing.T) {
	h := newHost(t)
	h.furnish()
	h.want("-4 addr show dev v0", h.head("addr", "v0")+`    inet 10.11.4.90/16 scope global v0
       valid_lft forever preferred_lft forever
    inet 10.11.4.91/32 scope global v0
       valid_lft forever preferred_lft forever
    inet 10.11.4.92/16 brd 10.11.255.255 scope global secondary noprefixroute v0
       valid_lft forever preferred_lft forever
`)
	h.want("-6 addr show v0", h.head("addr", "v0")+`    inet6 fd00::1/64 scope global nodad
       valid_lft forever preferred_lft forever
`)
	h.refused("addr add 10.11.4.90/16 dev v0", unix.EEXIST, "already assigned")
	h.refused("addr del 10.11.4.99/16 dev v0", unix.EADDRNOTAVAIL, "not found")
	h.lines("addr del 10.11.4.91/32 dev v0\naddr replace 10.11.4.93/32 dev v0")
	if text := h.ip("addr show v0"); strings.Contains(text, "10.11.4.91") || !strings.Contains(text, "10.11.4.93/32 scope global v0\n") {
		t.Errorf("after a deletion and a replacement:\n%s", text)
	}
}

// head is the first line of a device.
func (h host) head(object, device string) string {
	h.t.Helper()
	line, _, _ := strings.Cut(h.ip(object+" show "+device), "\n")
	return line + "\n"
}

func TestVethPair(t *testing.T) {
	h := newHost(t)
	away, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	r, err := Parse(strings.Fields("link add p0 mtu 1400 address 02:00:00:00:00:77 type veth peer name eth0 netns pod"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Do(h.ns, r); err == nil || !strings.Contains(err.Error(), `network namespace "pod" is not open`) {
		t.Errorf("without the namespace: %v", err)
	}
	r.Link.Peer.In = away
	if _, err := Do(h.ns, r); err != nil {
		t.Fatal(err)
	}
	if text := h.ip("link show p0"); !strings.Contains(text, ": p0@if") || !strings.Contains(text, " mtu 1400 ") || !strings.Contains(text, "02:00:00:00:00:77") {
		t.Errorf("this end:\n%s", text)
	}
	if text := (host{t, away}).ip("link show eth0"); !strings.Contains(text, ": eth0@if") {
		t.Errorf("the other end:\n%s", text)
	}
	h.refused("link add p0 type veth peer name p1", unix.EEXIST, "")
	h.lines("link del p0\nlink add p0 type veth peer p1")
	if text := h.ip("link show p1"); !strings.Contains(text, ": p1@p0: ") {
		t.Errorf("a pair in one namespace:\n%s", text)
	}
}

func TestLinks(t *testing.T) {
	h := newHost(t)
	h.furnish()
	text := h.ip("link show v1")
	for _, part := range []string{": v1@v0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400 qdisc ", " state UP mode DEFAULT group default", "\n    link/ether 02:00:00:00:00:99 brd ff:ff:ff:ff:ff:ff\n"} {
		if !strings.Contains(text, part) {
			t.Errorf("link show v1: no %q in:\n%s", part, text)
		}
	}
	if text := h.ip("link show v2"); !strings.Contains(text, ": v2@if") || !strings.Contains(text, "<NO-CARRIER,") || !strings.Contains(text, " link-netnsid 0\n") {
		t.Errorf("a device whose other end is away:\n%s", text)
	}
	h.lines("link set dev v1 down\nlink set v1 name w1 mtu 1300")
	if text := h.ip("link show w1"); !strings.Contains(text, ": w1@v0: <BROADCAST,MULTICAST> mtu 1300 ") {
		t.Errorf("after changes:\n%s", text)
	}
	h.want("link show dev w1 up", "")
	h.refused("link show v1", ErrNoDevice, `"v1"; there are: lo, `)
	h.refused("link set w1 mtu 10", unix.EINVAL, "mtu less than device minimum")
}

func TestNeighbours(t *testing.T) {
	h := newHost(t)
	h.furnish()
	h.want("neigh show 10.11.0.1", "10.11.0.1 dev v0 lladdr 02:00:00:00:00:01 PERMANENT\n")
	h.want("-6 neigh show dev v0", "fd00::2 lladdr 02:00:00:00:00:03 router PERMANENT\n")
	h.refused("neigh add 10.11.0.1 lladdr 02:00:00:00:00:01 dev v0", unix.EEXIST, "")
	h.lines("neigh replace 10.11.0.1 lladdr 02:00:00:00:00:09 dev v0\nneigh del 10.11.0.2 dev v0")
	h.want("-4 neigh", "10.11.0.1 dev v0 lladdr 02:00:00:00:00:09 PERMANENT\n")
}

// TestLikeIP compares with iproute2's own output, where the machine has it.
func TestLikeIP(t *testing.T) {
	ip, err := exec.LookPath("ip")
	if err == nil {
		err = exec.Command(ip, "-V").Run() // one that is there and does not run is none
	}
	if err != nil {
		t.Skipf("needs iproute2, to compare with: %v", err)
	}
	h := newHost(t)
	h.furnish()
	theirs := func(args []string) (string, error) {
		var out []byte
		err := netns.Do(h.ns, func() (err error) {
			out, err = exec.Command(ip, args...).Output()
			return err
		})
		return string(out), err
	}
	for _, line := range []string{
		"rule", "-6 rule", "route", "route show table 11", "route show table all", "-6 route", "route show dev v1", "route show match 10.99.0.1",
		"addr", "-4 addr", "addr show dev v1", "link", "link show v2", "neigh", "neigh show dev v0",
		"route get 10.20.0.1", "route get 10.11.0.9 from 10.11.4.91", "route get 10.12.0.255", "route get 10.91.0.1", "route get fd01::5",
		"route get 127.0.0.1",
	} {
		r, err := Parse(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		a, err := Do(h.ns, r)
		if err != nil {
			t.Fatalf("ip %s: %v", line, err)
		}
		text, err := theirs(strings.Fields(line))
		if err != nil {
			t.Fatalf("iproute2's ip %s: %v", line, err)
		}
		if d := cmp.Diff(trimmed(text), a.Text(r)); d != "" {
			t.Errorf("ip %s (-iproute2 +ours):\n%s", line, d)
		}
		text, err = theirs(append([]string{"-j"}, strings.Fields(line)...))
		if err != nil {
			t.Fatalf("iproute2's ip -j %s: %v", line, err)
		}
		ours, err := json.Marshal(a.JSON(r))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(decoded(t, []byte(text)), decoded(t, ours)); d != "" {
			t.Errorf("ip -j %s (-iproute2 +ours):\n%s", line, d)
		}
	}
}

// trimmed has no spaces at the ends of lines, and no two in a row within.
func trimmed(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		inner := strings.TrimLeft(line, " ")
		b.WriteString(line[:len(line)-len(inner)] + strings.ReplaceAll(inner, "  ", " ") + "\n")
	}
	return b.String()
}

func decoded(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}
