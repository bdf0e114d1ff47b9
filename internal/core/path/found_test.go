package path

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// What real packets showed, each in the smallest world that has it. The test
// that sends them is lab/differential.

// twoPods is a node of two pods, a 10.0.0.2 and b 10.0.0.3, on veth pairs.
func twoPods(t *testing.T) *World {
	t.Helper()
	pod := func(name, addr string) string {
		return `{"namespace": "default", "name": "` + name + `", "addr": "` + addr + `", "net": {
		  "devices": [{"name": "lo", "kind": "loopback", "mtu": 65536}, {"name": "eth0", "kind": "veth", "mtu": 1500, "addresses": ["` + addr + `/32"], "peer": "host v` + name + `"}],
		  "rules": ["0: from all lookup local", "32766: from all lookup main"],
		  "routes": ["local ` + addr + ` dev eth0 table local", "default dev eth0 scope link"],
		  "neighbours": [{"addr": "10.0.0.2", "device": "eth0"}, {"addr": "10.0.0.3", "device": "eth0"}],
		  "sysctls": {"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/eth0/rp_filter": "0", "net/ipv4/conf/all/accept_local": "0", "net/ipv4/conf/eth0/accept_local": "0"},
		  "nftables": [], "iptables": [], "sockets": [{"proto": "tcp", "addr": "0.0.0.0", "port": 80}, {"proto": "udp", "addr": "0.0.0.0", "port": 53}]}}`
	}
	w, err := ParseWorld([]byte(`{"form": 1, "name": "two pods", "vpcs": [], "nodes": [{"name": "n", "cluster": "c", "host": {
	  "devices": [{"name": "lo", "kind": "loopback", "mtu": 65536}, {"name": "va", "kind": "veth", "mtu": 1500, "peer": "default/a eth0"}, {"name": "vb", "kind": "veth", "mtu": 1500, "peer": "default/b eth0"}],
	  "rules": ["0: from all lookup local", "32766: from all lookup main"],
	  "routes": ["local 10.0.0.1 dev lo table local", "10.0.0.2 dev va scope link", "10.0.0.3 dev vb scope link"],
	  "neighbours": [],
	  "sysctls": {"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/va/rp_filter": "0", "net/ipv4/conf/vb/rp_filter": "0",
	    "net/ipv4/conf/all/accept_local": "0", "net/ipv4/conf/va/accept_local": "0", "net/ipv4/conf/vb/accept_local": "0"},
	  "nftables": [], "iptables": [], "sockets": []},
	  "pods": [` + pod("a", "10.0.0.2") + `,` + pod("b", "10.0.0.3") + `]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func ruleset(t *testing.T, text string) Part[Ruleset] {
	t.Helper()
	r, err := ParseRuleset(strings.Split(text, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return Known(r)
}

// faultCodes are the codes of the hops that drop, in their order, with their places.
func faultCodes(t *testing.T, w *World, p Probe) string {
	t.Helper()
	a, err := NewTracer(w).Trace(p)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, i := range a.Faults() {
		out = append(out, a.Hops[i].Where.Name+" "+string(a.Hops[i].Code))
	}
	return strings.Join(out, ", ")
}

func TestWhatRealPacketsShowedOfKernels(t *testing.T) {
	const chain = "table %s {\n chain c {\n  type filter hook %s priority %s; policy accept;\n  %s\n }\n}"
	table := func(name, hook, priority, rule string) string {
		return strings.NewReplacer("%s {\n chain", name+" {\n chain", "hook %s", "hook "+hook, "priority %s", "priority "+priority, "%s\n }", rule+"\n }").Replace(chain)
	}
	ab := Probe{From: "default/a", To: "10.0.0.3", Port: 80}
	tests := []struct {
		name  string
		probe Probe
		harm  func(w *World)
		want  string
	}{
		{"nothing", ab, func(*World) {}, ""},
		{"the other end is down", ab, func(w *World) { w.Nodes[0].Host.device("va").Down = true }, "a DEVICE_DOWN, n DEVICE_DOWN"},
		{"the other end takes less, and tells nobody", Probe{From: "default/a", To: "10.0.0.3", Proto: UDP, Port: 53, Size: 1450},
			func(w *World) { w.Nodes[0].Pods.Value[1].Net.device("eth0").MTU = 1400 }, "n MTU"},
		{"a tag's room is to spare", Probe{From: "default/a", To: "10.0.0.3", Proto: UDP, Port: 53, Size: 1404},
			func(w *World) { w.Nodes[0].Pods.Value[1].Net.device("eth0").MTU = 1400 }, ""},
		{"forwarding is asked before the reverse path", ab, func(w *World) {
			w.Nodes[0].Host.Sysctls.Value["net/ipv4/conf/va/forwarding"] = "0"
			w.Nodes[0].Host.Routes.Value = append(w.Nodes[0].Host.Routes.Value, parseRoutes(t, "local 10.0.0.2 dev lo table local")...)
		}, "n FORWARDING_OFF, n MARTIAN_SOURCE, n REPLY_UNEXPECTED"},
		{"the MTU is asked before the forward hook", Probe{From: "default/a", To: "10.0.0.3", Proto: UDP, Port: 53, Size: 1450}, func(w *World) {
			w.Nodes[0].Host.device("vb").MTU = 1400
			w.Nodes[0].Host.Nftables = ruleset(t, table("ip t", "forward", "filter", "drop"))
		}, "n MTU, n FIREWALL, n FIREWALL"},
		{"of chains of one priority the younger is first", ab, func(w *World) {
			w.Nodes[0].Host.Nftables = ruleset(t, table("ip one", "prerouting", "mangle", "meta mark set 1")+"\n"+table("ip two", "prerouting", "mangle", "meta mark set 2"))
			w.Nodes[0].Host.Rules.Value = slices.Insert(w.Nodes[0].Host.Rules.Value, 1, IPRule{Priority: 5, Mark: 2, Mask: ^uint32(0), Action: "blackhole", Suppress: -1})
		}, ""},
		{"behind the first hook a chain of raw knows the connection", ab, func(w *World) {
			w.Nodes[0].Host.Nftables = ruleset(t, table("ip t", "postrouting", "raw", "ct direction reply drop"))
		}, "n FIREWALL"},
		{"connect asks again, with the source", Probe{From: "node:n", To: "10.0.0.3", Port: 80}, func(w *World) {
			w.Nodes[0].Host.Devices.Value = append(w.Nodes[0].Host.Devices.Value, Device{Name: "ens5", Kind: "eni", MTU: 9001, Addresses: prefixes("10.0.0.1/24")})
			w.Nodes[0].Host.Rules.Value = slices.Insert(w.Nodes[0].Host.Rules.Value, 1, IPRule{Priority: 5, From: prefixes("10.0.0.1/32")[0], Action: "prohibit", Suppress: -1})
		}, "n HOST_ROUTE_REFUSES"},
		{"what is for itself passes prerouting", Probe{From: "default/a", To: "10.0.0.2", Port: 80}, func(w *World) {
			w.Nodes[0].Pods.Value[0].Net.Nftables = ruleset(t, table("ip t", "prerouting", "filter", "tcp sport 80 drop"))
		}, "a FIREWALL"},
		{"what comes by a device is of no connection before conntrack", ab, func(w *World) {
			w.Nodes[0].Host.Nftables = ruleset(t, table("ip t", "prerouting", "raw", "ct direction reply drop"))
		}, ""},
		{"what is for itself brings its connection", Probe{From: "default/a", To: "10.0.0.2", Port: 80}, func(w *World) {
			w.Nodes[0].Pods.Value[0].Net.Nftables = ruleset(t, table("ip t", "prerouting", "raw", "ct direction reply drop"))
		}, "a FIREWALL"},
		{"who has no way back to the asker answers no ARP", ab, func(w *World) {
			w.Nodes[0].Pods.Value[1].Net.Routes.Value = w.Nodes[0].Pods.Value[1].Net.Routes.Value[:1]
			w.Nodes[0].Pods.Value[1].Net.Sysctls.Value["net/ipv4/conf/eth0/rp_filter"] = "1"
			w.Nodes[0].Host.device("vb").Addresses = prefixes("10.0.0.1/32")
		}, "n NO_NEIGHBOUR, b RPFILTER_STRICT, b HOST_NO_ROUTE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := twoPods(t)
			tt.harm(w)
			if got := faultCodes(t, w, tt.probe); got != tt.want {
				t.Errorf("faults %q, want %q", got, tt.want)
			}
		})
	}
}

// gateways is the world of the story of that name.
func gateways(t *testing.T) *World {
	t.Helper()
	b, err := os.ReadFile("testdata/gateways.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range txtar.Parse(b).Files {
		if f.Name == "world.json" {
			w, err := ParseWorld(f.Data)
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
	}
	t.Fatal("the story has no world")
	return nil
}

func TestWhatRealPacketsShowedOfVPCs(t *testing.T) {
	table := func(w *World, id string) *RouteTable {
		for i := range w.VPCs[0].RouteTables.Value {
			if w.VPCs[0].RouteTables.Value[i].ID == id {
				return &w.VPCs[0].RouteTables.Value[i]
			}
		}
		t.Fatalf("no table %s", id)
		return nil
	}
	tests := []struct {
		name  string
		probe Probe
		harm  func(w *World)
		want  string
	}{
		{"1500 bytes come from the internet", Probe{From: "internet", To: "node:vm-p", Proto: UDP, Port: 53, Size: 1600}, func(*World) {}, "internet MTU"},
		{"8500 by a NAT gateway", Probe{From: "node:vm-a", To: "internet", Proto: UDP, Port: 53, Size: 8600}, func(*World) {}, "nat-1 MTU, igw-1 MTU"},
		{"a NAT gateway whose table leads to itself", Probe{From: "node:vm-a", To: "internet", Port: 443},
			func(w *World) {
				r := table(w, "rtb-pub")
				for i := range r.Routes {
					if r.Routes[i].Target == "igw-1" {
						r.Routes[i].Target = "nat-1"
					}
				}
			}, "nat-1 LOOP"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := gateways(t)
			tt.harm(w)
			got := faultCodes(t, w, tt.probe)
			if got != tt.want && !strings.HasPrefix(got, tt.want+", ") {
				t.Errorf("faults %q, want %q first", got, tt.want)
			}
		})
	}
}

// An echo is not the answer to one, between the same two addresses neither.
func TestEchoIsNoReply(t *testing.T) {
	p := Packet{Proto: ICMP, Src: prefixes("10.0.0.1/32")[0].Addr(), Dst: prefixes("10.0.0.2/32")[0].Addr()}
	back := Packet{Proto: ICMP, Src: p.Dst, Dst: p.Src}
	if p.tuple().inverse() == back.tuple() {
		t.Error("an echo request is taken for the reply to one")
	}
	if back.Reply = true; p.tuple().inverse() != back.tuple() {
		t.Error("an echo reply is not known")
	}
}

func parseRoutes(t *testing.T, lines ...string) []IPRoute {
	t.Helper()
	var out []IPRoute
	for _, l := range lines {
		var r IPRoute
		if err := r.UnmarshalText([]byte(l)); err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// TestAnotherHasTheAddress: a packet that gets to somebody else is not delivered.
func TestAnotherHasTheAddress(t *testing.T) {
	w := twoPods(t)
	far := w.Nodes[0]
	far.Name, far.Cluster = "far", "d"
	far.Pods = Known([]Pod{far.Pods.Value[1]})
	w.Nodes = append(w.Nodes, far)
	if got := faultCodes(t, w, Probe{From: "c:default/a", To: "c:default/b"}); got != "" {
		t.Errorf("to the neighbour: %s", got)
	}
	if got := faultCodes(t, w, Probe{From: "c:default/a", To: "d:default/b"}); !strings.HasPrefix(got, "b WRONG_RECEIVER") {
		t.Errorf("to the one far away: %q, want WRONG_RECEIVER at b", got)
	}
}

// TestMarkAndTranslate: one rule of nftables may set a mark and go on.
func TestMarkAndTranslate(t *testing.T) {
	for text, marks := range map[string][]string{
		"meta mark set 0x00004000 dnat to 10.0.0.3":       {"0x00004000"},
		"ct mark set ct mark | 0x00000080 counter accept": {"ct", "mark", "|", "0x00000080"},
		"meta mark set ct mark & 0x00000080":              {"ct", "mark", "&", "0x00000080"},
		"meta mark set ct mark accept":                    {"ct", "mark"},
	} {
		r := parseNftRule(strings.Fields(text))
		if r.stmts[0].op != nftSetMark || !slices.Equal(r.stmts[0].expr, marks) {
			t.Errorf("%s: %+v, want %q", text, r.stmts[0], marks)
		}
		if slices.ContainsFunc(r.stmts, func(s nftStmt) bool { return s.op == nftOther }) {
			t.Errorf("%s: not understood: %+v", text, r.stmts)
		}
	}
}
