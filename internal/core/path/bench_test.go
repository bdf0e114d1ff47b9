package path_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
)

// crowd is the example with a node of n pods: the pods of seed003 have two rules
// each, those of healthy none; both have a route and an unreachable under it.
func crowd(tb testing.TB, name string, n int) *path.World {
	tb.Helper()
	_, w, err := example.Load(name)
	if err != nil {
		tb.Fatal(err)
	}
	node := &w.Nodes[0]
	node.Pods.Value = node.Pods.Value[:1]
	second := &w.VPCs[0].ENIs.Value[1]
	for i := range n - 1 {
		addr := netip.AddrFrom4([4]byte{10, 11, byte(16 + i/256), byte(i)})
		veth := fmt.Sprintf("v%d", i)
		p := node.Pods.Value[0]
		p.Name, p.Addr = fmt.Sprintf("p%d", i), addr
		p.Net.Devices = path.Known([]path.Device{{Name: "eth0", Kind: "veth", MTU: 9001, Addresses: []netip.Prefix{netip.PrefixFrom(addr, 32)}, Peer: "host " + veth}})
		p.Net.Routes = path.Known(append([]path.IPRoute{{Kind: "local", Dst: netip.PrefixFrom(addr, 32), Dev: "eth0", Table: 255}}, p.Net.Routes.Value[1:]...))
		node.Pods.Value = append(node.Pods.Value, p)
		node.Host.Devices.Value = append(node.Host.Devices.Value, path.Device{Name: veth, Kind: "veth", MTU: 9001, Peer: p.ID() + " eth0"})
		table := 254
		if name == "healthy" {
			table = 100
		} else {
			node.Host.Rules.Value = append([]path.IPRule{
				{Priority: 20, To: netip.PrefixFrom(addr, 32), Action: "lookup", Table: 254, Suppress: -1},
			}, node.Host.Rules.Value...)
			node.Host.Rules.Value = append(node.Host.Rules.Value[:len(node.Host.Rules.Value)-2:len(node.Host.Rules.Value)-2], append([]path.IPRule{
				{Priority: 111, From: netip.PrefixFrom(addr, 32), To: netip.MustParsePrefix("10.11.0.0/16"), Action: "lookup", Table: 11, Suppress: -1},
			}, node.Host.Rules.Value[len(node.Host.Rules.Value)-2:]...)...)
		}
		node.Host.Routes.Value = append(node.Host.Routes.Value, path.IPRoute{Kind: "unicast", Dst: netip.PrefixFrom(addr, 32), Dev: veth, Table: table, Scope: "link"},
			path.IPRoute{Kind: "unreachable", Dst: netip.PrefixFrom(addr, 32), Table: table, Metric: 4096})
		second.Addresses = append(second.Addresses, addr)
	}
	return w
}

// BenchmarkTrace is one packet and its reply, on a node with 737 pods, the most
// that any instance type takes: indexing the world is another benchmark.
func BenchmarkTrace(b *testing.B) {
	for _, name := range []string{"seed003", "healthy"} {
		b.Run(name, func(b *testing.B) {
			w := crowd(b, name, 737)
			t := path.NewTracer(w)
			p := path.Probe{From: "b:default/sleep", To: "a:default/httpbin:80"}
			for b.Loop() {
				if _, err := t.Trace(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTraceAnew indexes the world for each packet.
func BenchmarkTraceAnew(b *testing.B) {
	w := crowd(b, "seed003", 737)
	p := path.Probe{From: "b:default/sleep", To: "a:default/httpbin:80"}
	for b.Loop() {
		if _, err := path.NewTracer(w).Trace(p); err != nil {
			b.Fatal(err)
		}
	}
}

// cluster is 35 nodes with 29 pods each, as seed003's node is: 1,015 pods.
func cluster(tb testing.TB) *path.World {
	tb.Helper()
	_, w, err := example.Load("seed003")
	if err != nil {
		tb.Fatal(err)
	}
	text, err := w.JSON()
	if err != nil {
		tb.Fatal(err)
	}
	for i := 1; i < 35; i++ {
		// Another node has its own third byte; the subnet is a /16 of one route.
		other := strings.NewReplacer("10.11.4.", fmt.Sprintf("10.11.%d.", 4+i), "node-a1", fmt.Sprintf("node-a%d", i+1),
			"eni-0a0", fmt.Sprintf("eni-%02da0", i), "default/", fmt.Sprintf("n%d/", i), `"namespace": "default"`, fmt.Sprintf(`"namespace": "n%d"`, i)).Replace(string(text))
		x, err := path.ParseWorld([]byte(other))
		if err != nil {
			tb.Fatal(err)
		}
		w.Nodes = append(w.Nodes, x.Nodes[0])
		w.VPCs[0].ENIs.Value = append(w.VPCs[0].ENIs.Value, x.VPCs[0].ENIs.Value...)
	}
	return w
}

// BenchmarkAll is every class of 1,000 pods to every other.
func BenchmarkAll(b *testing.B) {
	w := cluster(b)
	for b.Loop() {
		if _, err := path.NewTracer(w).All(path.TCP); err != nil {
			b.Fatal(err)
		}
	}
}
