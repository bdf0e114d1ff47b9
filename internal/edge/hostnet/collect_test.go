package hostnet

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	ebpflink "github.com/cilium/ebpf/link"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// ground is a node with one pod, each a namespace of its own. The test's thread
// is in the node's.
func ground(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Unshare(unix.CLONE_NEWNET))
	home, err := netns.Get()
	must(err)
	must(unix.Unshare(unix.CLONE_NEWNET))
	inPod, err := netns.Get()
	must(err)
	// A process holds the pod's namespace, as a container's does.
	holder := exec.Command("sleep", "1000")
	must(holder.Start())
	t.Cleanup(func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
		inPod.Close()
		home.Close()
	})
	must(netns.Set(home))
	up := func(name string) netlink.Link {
		l, err := netlink.LinkByName(name)
		must(err)
		must(netlink.LinkSetUp(l))
		return l
	}
	addr := func(l netlink.Link, s string) {
		a, err := netlink.ParseAddr(s)
		must(err)
		must(netlink.AddrAdd(l, a))
	}
	mac, err := net.ParseMAC("02:00:00:00:00:05")
	must(err)
	up("lo")
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "ens5", HardwareAddr: mac, MTU: 1400}, PeerName: "wire"}))
	up("wire")
	ens5 := up("ens5")
	addr(ens5, "10.211.7.4/24")
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lxc1", MTU: 1500, Group: 7}, PeerName: "eth0", PeerNamespace: netlink.NsFd(inPod)}))
	lxc := up("lxc1")
	ip := func(s string) *net.IPNet { _, n, err := net.ParseCIDR(s); must(err); return n }
	for _, r := range []netlink.Route{
		{Dst: ip("0.0.0.0/0"), Gw: net.ParseIP("10.211.7.1"), LinkIndex: ens5.Attrs().Index},
		{Dst: ip("10.211.7.9/32"), LinkIndex: lxc.Attrs().Index, Scope: netlink.SCOPE_LINK, Protocol: 87, Table: 100},
		{Dst: ip("10.9.0.0/16"), Type: unix.RTN_UNREACHABLE, Table: 300, Priority: 5},
		{Dst: ip("10.8.0.0/16"), MultiPath: []*netlink.NexthopInfo{{LinkIndex: ens5.Attrs().Index, Gw: net.ParseIP("10.211.7.1")},
			{LinkIndex: ens5.Attrs().Index, Gw: net.ParseIP("10.211.7.2")}}, Table: 300},
		{Dst: ip("10.7.0.0/16"), Gw: net.ParseIP("10.211.7.1"), LinkIndex: ens5.Attrs().Index, MTU: 1300, Src: net.ParseIP("10.211.7.4"), Table: 300},
	} {
		must(netlink.RouteAdd(&r))
	}
	mask := uint32(0x7f000000)
	for _, r := range []struct {
		prio int
		with func(*netlink.Rule)
	}{
		{20, func(r *netlink.Rule) { r.Dst, r.Table = ip("10.211.7.9/32"), 254 }},
		{105, func(r *netlink.Rule) { r.Mark, r.Mask, r.Table, r.Protocol = 0x2000000, &mask, 1002, 87 }},
		{111, func(r *netlink.Rule) {
			r.Src, r.Dst, r.Invert, r.Table = ip("10.211.7.9/32"), ip("10.0.0.0/8"), true, 11
		}},
		{112, func(r *netlink.Rule) { r.IifName, r.Dport, r.Table = "lxc1", netlink.NewRulePortRange(80, 90), 11 }},
		{113, func(r *netlink.Rule) { r.SuppressPrefixlen, r.Table = 0, 254 }},
	} {
		rule := netlink.NewRule()
		rule.Family, rule.Priority = unix.AF_INET, r.prio
		r.with(rule)
		must(netlink.RuleAdd(rule))
	}
	must(netlink.NeighAdd(&netlink.Neigh{LinkIndex: lxc.Attrs().Index, IP: net.ParseIP("10.211.7.9"), HardwareAddr: mac, State: netlink.NUD_PERMANENT}))
	must(os.WriteFile("/proc/sys/net/ipv4/conf/ens5/rp_filter", []byte("2"), 0o644))
	must(netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: lxc.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}))
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "watch", Type: ebpf.SchedCLS, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	must(err)
	t.Cleanup(func() { prog.Close() })
	must(netlink.FilterAdd(&netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{LinkIndex: lxc.Attrs().Index, Parent: netlink.HANDLE_MIN_EGRESS,
		Priority: 1, Protocol: unix.ETH_P_ALL}, Fd: prog.FD(), Name: "cil_to_container", DirectAction: true}))
	tcx, err := ebpflink.AttachTCX(ebpflink.TCXOptions{Interface: lxc.Attrs().Index, Program: prog, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip("the kernel has no tcx")
	}
	must(err)
	t.Cleanup(func() { tcx.Close() })

	must(netns.Set(inPod))
	up("lo")
	eth := up("eth0")
	addr(eth, "10.211.7.9/32")
	l, err := net.Listen("tcp4", "0.0.0.0:8080")
	must(err)
	t.Cleanup(func() { l.Close() })
	must(netns.Set(home))
}

func lines[T interface{ String() string }](all []T) string {
	var out []string
	for _, v := range all {
		out = append(out, v.String())
	}
	return strings.Join(out, "\n")
}

// TestCollect reads what the test has written into the kernel.
func TestCollect(t *testing.T) {
	ground(t)
	n, err := Collect(t.Context(), Request{Name: "n1", Cluster: "a", ENIs: map[string]string{"02:00:00:00:00:05": "eni-1"},
		Pods: []PodName{{netip.MustParseAddr("10.211.7.9"), "default", "web"}}})
	if err != nil {
		t.Fatal(err)
	}
	h := n.Host
	for what, d := range map[string]string{
		"rules": gocmp.Diff(`0: from all lookup local
20: from all to 10.211.7.9 lookup main
105: from all fwmark 0x2000000/0x7f000000 lookup 1002 proto 87
111: not from 10.211.7.9 to 10.0.0.0/8 lookup 11
112: from all iif lxc1 lookup 11 dport 80-90
113: from all lookup main suppress_prefixlength 0
32766: from all lookup main
32767: from all lookup default`, lines(h.Rules.Value)),
		"neighbours": gocmp.Diff([]path.Neighbour{{Addr: netip.MustParseAddr("10.211.7.9"), Device: "lxc1"}}, h.Neighbours.Value, cmpAddr),
	} {
		if d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	routes := lines(h.Routes.Value)
	for _, want := range []string{
		"default via 10.211.7.1 dev ens5",
		"10.211.7.0/24 dev ens5 proto kernel scope link src 10.211.7.4",
		"10.211.7.9 dev lxc1 table 100 proto 87 scope link",
		"unreachable 10.9.0.0/16 table 300 metric 5",
		"10.8.0.0/16 table 300 nexthop via 10.211.7.1 dev ens5 weight 1 nexthop via 10.211.7.2 dev ens5 weight 1",
		"10.7.0.0/16 via 10.211.7.1 dev ens5 table 300 src 10.211.7.4 mtu 1300",
		"local 10.211.7.4 dev ens5 table local proto kernel scope host src 10.211.7.4",
	} {
		if !slices.Contains(strings.Split(routes, "\n"), want) {
			t.Errorf("no route %q in:\n%s", want, routes)
		}
	}
	device := func(ns path.Namespace, name string) path.Device {
		i := slices.IndexFunc(ns.Devices.Value, func(d path.Device) bool { return d.Name == name })
		if i < 0 {
			t.Fatalf("no device %s: %+v", name, ns.Devices)
		}
		return ns.Devices.Value[i]
	}
	for what, d := range map[string]string{
		"the ENI": gocmp.Diff(path.Device{Name: "ens5", Kind: "eni", MTU: 1400, ENI: "eni-1",
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.211.7.4/24")}}, device(h, "ens5"), cmpAddr),
		"the pod's on the node": gocmp.Diff(path.Device{Name: "lxc1", Kind: "veth", MTU: 1500, Group: 7, Peer: "default/web eth0",
			BPF: []string{"egress tc bpf cil_to_container", "ingress tcx watch"}}, device(h, "lxc1"), cmpAddr),
	} {
		if d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	if got := h.Sysctls.Value["net/ipv4/conf/ens5/rp_filter"]; got != "2" {
		t.Errorf("rp_filter of ens5 is %q", got)
	}
	if !h.Nftables.Known || !h.Iptables.Known {
		t.Errorf("a namespace without tables: nftables %+v, iptables %+v", h.Nftables, h.Iptables)
	}
	if !n.Pods.Known || len(n.Pods.Value) != 1 {
		t.Fatalf("pods: %+v", n.Pods)
	}
	p := n.Pods.Value[0]
	if p.ID() != "default/web" || p.Addr != netip.MustParseAddr("10.211.7.9") || device(p.Net, "eth0").Peer != "host lxc1" {
		t.Errorf("pod %s %s, %+v", p.ID(), p.Addr, p.Net.Devices)
	}
	if s := p.Net.Sockets.Value; len(s) != 1 || s[0].Port != 8080 || s[0].Proto != path.TCP {
		t.Errorf("the pod listens: %+v", p.Net.Sockets)
	}
	// A world of it is read back as it was.
	w := path.World{Form: path.Form, Nodes: []path.Node{n}}
	b, err := w.JSON()
	if err != nil {
		t.Fatal(err)
	}
	again, err := path.ParseWorld(b)
	if err != nil {
		t.Fatal(err)
	}
	if b2, err := again.JSON(); err != nil || string(b) != string(b2) {
		t.Errorf("%v; -written +read and written:\n%s", err, gocmp.Diff(string(b), string(b2)))
	}
}

var cmpAddr = gocmp.Options{
	gocmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	gocmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// TestNftables has tables of nft in the namespace.
func TestNftables(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft")
	}
	ground(t)
	load := exec.Command("nft", "-f", "-")
	load.Stdin = strings.NewReader("table inet mine {\n chain pre {\n type filter hook prerouting priority -150; policy accept;\n ct state established accept\n tcp dport 80 counter drop\n }\n}\n")
	if out, err := load.CombinedOutput(); err != nil {
		t.Skipf("nft does not work here: %v %s", err, out)
	}
	n, err := Collect(t.Context(), Request{Name: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.Host.Nftables.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"tcp dport 80 counter drop", "ct state established accept", "hook prerouting"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in %s", want, b)
		}
	}
	// Without nft the tables are known to be there, and nothing else.
	t.Setenv("PATH", t.TempDir())
	n, err = Collect(t.Context(), Request{Name: "n1"})
	if err != nil || n.Host.Nftables.Known || !strings.Contains(n.Host.Nftables.Why, "inet mine") || !n.Host.Iptables.Known {
		t.Errorf("without nft: %v, %+v", err, n.Host.Nftables)
	}
}

// TestOwnTableAlone: what only our table is missing, somebody else can complete.
func TestOwnTableAlone(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft")
	}
	ground(t)
	if out, err := exec.Command("nft", "add", "table", "inet", "fairway").CombinedOutput(); err != nil {
		t.Skipf("nft does not work here: %v %s", err, out)
	}
	t.Setenv("PATH", t.TempDir())
	n, err := Collect(t.Context(), Request{Name: "n1"})
	if err != nil || n.Host.Nftables.Known || n.Host.Nftables.Why != OnlyOurs {
		t.Errorf("%v, %+v", err, n.Host.Nftables)
	}
}

// fakeNft prints what files of its root say.
const fakeNft = `package main

import "os"

func main() {
	complaint, _ := os.ReadFile("/complaint")
	said, err := os.ReadFile("/said")
	os.Stderr.Write(complaint)
	os.Stdout.Write(said)
	if err != nil {
		os.Exit(1)
	}
}
`

// TestOfAnotherRoot: the node's programs are those of the root that is given, and so is
// what they need.
func TestOfAnotherRoot(t *testing.T) {
	ground(t)
	dir := t.TempDir()
	hostRoot := root(dir)
	write := func(name, text string) {
		t.Helper()
		file := hostRoot.file(name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	write("nft/main.go", fakeNft)
	build := exec.Command("go", "build", "-o", hostRoot.file("/usr/sbin/nft"), hostRoot.file("/nft/main.go"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // the root has no libraries
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	write("said", "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\t counter drop\n\t}\n}\n")
	write("var/lib/cni/results/r", `{"cniArgs":[["K8S_POD_NAMESPACE","shop"],["K8S_POD_NAME","web-1"]],"result":{"ips":[{"address":"10.0.1.9/32"}]}}`)
	c := &nftables.Conn{}
	c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	n, err := Collect(t.Context(), Request{Name: "n1", Root: dir})
	if err != nil || !n.Host.Nftables.Known {
		t.Fatalf("%v, %+v", err, n.Host.Nftables)
	}
	b, err := n.Host.Nftables.MarshalJSON()
	if err != nil || !strings.Contains(string(b), "counter drop") {
		t.Errorf("%v, nftables %s", err, b)
	}
	if names := cniNames(hostRoot.file(resultsDir)); !slices.Equal(names, []PodName{{netip.MustParseAddr("10.0.1.9"), "shop", "web-1"}}) {
		t.Errorf("names %v", names)
	}

	// A program that leaves out what it cannot print is not believed.
	write("complaint", "XT match conntrack not found\n")
	n, err = Collect(t.Context(), Request{Name: "n1", Root: dir})
	if err != nil || n.Host.Nftables.Known || n.Host.Iptables.Known || !strings.Contains(n.Host.Nftables.Why, "XT match conntrack not found") {
		t.Errorf("%v, nftables %+v, iptables %+v", err, n.Host.Nftables, n.Host.Iptables)
	}
}

func TestWithoutIptables(t *testing.T) {
	ruleset := strings.Split(`# Warning: table ip nat is managed by iptables-nft, do not touch!
table ip nat {
	chain POSTROUTING {
		xt target "MASQUERADE"
	}
}
table inet nat {
	chain a {
	}
}
table ip kube-proxy {
}`, "\n")
	got := withoutIptables(ruleset, []string{"# Generated", "*nat", ":POSTROUTING ACCEPT [0:0]", "COMMIT"})
	want := []string{"table inet nat {", "\tchain a {", "\t}", "}", "table ip kube-proxy {", "}"}
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestResults(t *testing.T) {
	good := `{"kind":"cniCacheV1","containerId":"c1","cniArgs":[["K8S_POD_NAMESPACE","default"],["K8S_POD_NAME","web-1"]],
		"result":{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.211.7.9/32"},{"version":"6","address":"fd00::9/128"}]}}`
	want := []PodName{{netip.MustParseAddr("10.211.7.9"), "default", "web-1"}}
	if d := gocmp.Diff(want, parseResult([]byte(good)), cmpAddr); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	for what, text := range map[string]string{
		"no name": strings.Replace(good, "K8S_POD_NAME\"", "OTHER\"", 1),
		"a blank": strings.Replace(good, "web-1", "web 1", 1),
		"a path":  strings.Replace(good, "web-1", "../web", 1),
		"cut off": good[:90],
		"nothing": "",
	} {
		if got := parseResult([]byte(text)); got != nil {
			t.Errorf("%s: %v", what, got)
		}
	}
}

func TestSockets(t *testing.T) {
	const tcp = `  sl  local_address rem_address   st tx_queue
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000
   1: 00000000:0050 00000000:0000 0A 00000000:00000000
   2: 0401000A:0050 0501000A:C350 01 00000000:00000000
   3: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A
   4: 000080FE00000000000000000100FE00:01BB 00000000000000000000000000000000:0000 0A
`
	got, err := parseSockets(strings.NewReader(tcp), path.TCP)
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddr
	want := []path.Socket{{Proto: path.TCP, Addr: a("127.0.0.1"), Port: 8080}, {Proto: path.TCP, Addr: a("0.0.0.0"), Port: 80},
		{Proto: path.TCP, Addr: a("0.0.0.0"), Port: 443}}
	if d := gocmp.Diff(want, got, cmpAddr); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if _, err := parseSockets(strings.NewReader("head\n 0: zz:1 0:0 0A"), path.TCP); err == nil {
		t.Error("a line of another form: no error")
	}
}

func FuzzMessages(f *testing.F) {
	rule := make([]byte, sizeofRuleHdr)
	rule[0], rule[7] = unix.AF_INET, unix.FR_ACT_TO_TBL
	f.Add(append(rule, attr(unix.FRA_DPORT_RANGE, []byte{80, 0})...))
	route := make([]byte, unix.SizeofRtMsg)
	route[0], route[7] = unix.AF_INET, unix.RTN_UNICAST
	f.Add(append(route, attr(unix.RTA_MULTIPATH, []byte{16, 0, 0, 0, 1, 0, 0, 0})...))
	f.Add(append(make([]byte, unix.SizeofIfInfomsg), attr(unix.IFLA_IFNAME, []byte("ens5\x00"))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, body := range messages(b) {
			parseLink(body)
		}
		if r, ok := parseRule(b); ok && r.Action == "" && r.Other == "" {
			t.Errorf("a rule that does nothing, without a word: %+v", r)
		}
		parseRoute(b, nil)
		parseLink(b)
		parseAddress(b)
		parseFilter(b)
	})
}
