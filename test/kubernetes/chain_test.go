package kubernetes

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// changeList has runtimes take a network configuration list that is the agent's
// with every plugin after the first replaced or changed.
func (n *instance) changeList(change func(plugins []map[string]any) []map[string]any) {
	n.t.Helper()
	const dir = "/etc/cni/net.d"
	var list map[string]any
	eventually(n.t, "network configuration of "+n.name, func() error {
		text, err := os.ReadFile(n.file(dir + "/10-fairway.conflist"))
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &list)
	})
	var plugins []map[string]any
	for _, p := range list["plugins"].([]any) {
		plugins = append(plugins, p.(map[string]any))
	}
	list["plugins"] = change(plugins)
	text, err := json.Marshal(list)
	if err == nil {
		err = os.WriteFile(n.file(dir+"/05-test.conflist"), text, 0o644)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// ruleset is all rules of other programs on the node, without counters.
func (n *instance) ruleset(own string) string {
	n.t.Helper()
	var kept []string
	for line := range strings.Lines(n.run("iptables-save")) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ":") {
			kept = append(kept, line)
		}
	}
	if own != "" {
		kept = append(kept, n.run(strings.Fields("nft --stateless list table "+own)...))
	}
	return strings.Join(kept, "")
}

// TestHostPorts: the plugin portmap runs after ours. A host port is reached by
// the address of any ENI, and the ENI of arrival answers, whichever ENI the pod
// is on.
func TestHostPorts(t *testing.T) {
	needNetfilterTools(t)
	for _, backend := range []string{"iptables", "nftables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			testHostPorts(t, backend)
		})
	}
}

func testHostPorts(t *testing.T, backend string) {
	l := startLab(t, "ports-"+backend[:3], clusterWorld)
	a, b := l.nodes["node-a"], l.nodes["node-b"]
	a.startAgent()
	b.startAgent()
	a.changeList(func(plugins []map[string]any) []map[string]any {
		if len(plugins) != 2 || plugins[1]["type"] != "portmap" {
			t.Fatalf("plugins %v, want portmap after ours", plugins)
		}
		plugins[1]["backend"] = backend
		return plugins
	})
	const firstPort, secondPort = 8080, 8081
	port := func(host int) string {
		return fmt.Sprintf(`{"portMappings":[{"hostPort":%d,"containerPort":80,"protocol":"tcp"}]}`, host)
	}
	first, _ := a.twoPods(port(firstPort))
	a.delPods("a-second")
	second := a.addPod("a-third", port(secondPort))
	if a.eniOf(second.addr) != 1 {
		t.Fatal("the third pod is not on the second ENI")
	}
	far := b.addPod("b-first", "")
	serve(t, first, 80)
	serve(t, second, 80)
	a.repaired("after the pods")

	outside := l.nodes["outside"].host()
	var flows []*flow
	for _, e := range a.enis() {
		for port, pod := range map[uint16]place{firstPort: first, secondPort: second} {
			to := netip.AddrPortFrom(e.Primary, port)
			for _, from := range []place{outside, b.host(), far} {
				flows = append(flows, reach(t, from, to, pod.name).seenAs(t, from.addr))
			}
			flows = append(flows, reach(t, a.host(), to, pod.name), reach(t, first, to, pod.name), reach(t, second, to, pod.name))
		}
	}
	flows = append(flows, reach(t, a.host(), netip.MustParseAddrPort("127.0.0.1:8080"), first.name))
	a.checkPod("a-first")
	a.checkPod("a-third")

	own := map[string]string{"iptables": "", "nftables": "ip cni_hostport"}[backend]
	before := a.ruleset(own)
	a.killAgent()
	allGoOn(t, "without the agent", flows)
	a.startAgent()
	a.repaired("after the restart")
	allGoOn(t, "after the restart", flows)
	a.run(strings.Fields("nft flush table inet fairway")...)
	a.repaired("after a flush")
	allGoOn(t, "after the flush of our table", flows)
	if d := cmp.Diff(before, a.ruleset(own)); d != "" {
		t.Errorf("the plugin's rules have changed (-before +after):\n%s", d)
	}
	if !strings.Contains(before, second.addr.String()) {
		t.Fatalf("the rules do not name the pod:\n%s", before)
	}

	// The agent's absence does not keep the other plugin from cleaning up.
	a.killAgent()
	a.delPods("a-third")
	a.startAgent()
	a.delPods("a-first", "a-filler-1", "a-filler-2")
	a.repaired("after the last pod")
	after := a.ruleset(own)
	for _, word := range []string{first.addr.String(), second.addr.String(), "8080", "8081"} {
		if strings.Contains(after, word) {
			t.Errorf("DEL has left %s in the rules:\n%s", word, after)
		}
	}
	refused(t, outside, netip.AddrPortFrom(a.addr, firstPort))
}

// TestBandwidth: the plugin bandwidth runs last, finds the pod's device on the
// node in our result, and takes back what it made.
func TestBandwidth(t *testing.T) {
	t.Parallel()
	needNetfilterTools(t)
	l := startLab(t, "band", clusterWorld)
	a, b := l.nodes["node-a"], l.nodes["node-b"]
	a.startAgent("--bandwidth")
	b.startAgent()
	const rate = 8_000_000 // bits a second
	eventually(t, "the node is ready", func() error {
		_, err := os.Stat(a.file("/etc/cni/net.d/10-fairway.conflist"))
		return err
	})
	pod := a.addPod("limited", fmt.Sprintf(`{"bandwidth":{"ingressRate":%d,"ingressBurst":%d,"egressRate":%d,"egressBurst":%d}}`, rate, rate, rate, rate))
	free := a.addPod("free", "")
	far := b.addPod("far", "")
	for _, p := range []place{pod, free, far} {
		serve(t, p, 80)
	}
	flows := []*flow{
		reach(t, far, netip.AddrPortFrom(pod.addr, 80), "limited").seenAs(t, far.addr),
		reach(t, pod, netip.AddrPortFrom(far.addr, 80), "far").seenAs(t, pod.addr),
		reach(t, pod, netip.AddrPortFrom(free.addr, 80), "free").seenAs(t, pod.addr),
	}
	a.checkPod("limited")
	a.checkPod("free")
	if got := a.limits(t); len(got) != 1 {
		t.Errorf("devices with a limit: %q, want one", got)
	}
	a.killAgent()
	a.startAgent("--bandwidth")
	a.repaired("after the restart")
	allGoOn(t, "after the restart", flows)
	if got := a.limits(t); len(got) != 1 {
		t.Errorf("after the restart, devices with a limit: %q, want one", got)
	}
	a.delPods("limited", "free")
	if got := a.limits(t); len(got) != 0 {
		t.Errorf("DEL has left %q", got)
	}
	err := netns.Do(a.host().ns, func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if l.Type() == "ifb" {
				t.Errorf("DEL has left the device %s", l.Attrs().Name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// limits names the pods' devices on the node that have a queue which limits.
func (n *instance) limits(t *testing.T) (names []string) {
	t.Helper()
	err := netns.Do(n.host().ns, func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			if l.Attrs().Group != node.LinkGroup {
				continue
			}
			queues, err := netlink.QdiscList(l)
			if err != nil {
				return err
			}
			for _, q := range queues {
				if q.Type() == "htb" || q.Type() == "tbf" {
					names = append(names, l.Attrs().Name)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestBaseOfChain: a plugin after ours is told of what we made, in ADD, CHECK
// and DEL, and its DEL comes before ours. What it adds to the result does not
// disturb our CHECK.
func TestBaseOfChain(t *testing.T) {
	t.Parallel()
	l := startLab(t, "base", clusterWorld)
	a := l.nodes["node-a"]
	a.startAgent()
	a.changeList(func(plugins []map[string]any) []map[string]any {
		return []map[string]any{plugins[0], {"type": witnessName}}
	})
	pod := a.addPod("web", "")
	list, err := a.runtime("list")
	if err != nil {
		t.Fatal(err)
	}
	said := a.testimony("ADD")
	result, _ := json.MarshalIndent(said.Prev, "", "  ")
	if said.Prev == nil || len(said.Prev.Interfaces) != 2 || len(said.Prev.IPs) != 1 || len(said.Prev.Routes) != 1 {
		t.Fatalf("prevResult of ADD: %s", result)
	}
	host, inside := said.Prev.Interfaces[0], said.Prev.Interfaces[1]
	if host.Sandbox != "" || inside.Name != "eth0" || inside.Sandbox != list[0].NetNS || inside.Mac != string(node.PodMAC(pod.addr)) {
		t.Errorf("interfaces of the prevResult: %s", result)
	}
	err = netns.Do(a.host().ns, func() error {
		link, err := net.InterfaceByName(host.Name)
		if err == nil && link.HardwareAddr.String() != host.Mac {
			err = fmt.Errorf("%s has MAC %s", host.Name, link.HardwareAddr)
		}
		return err
	})
	if err != nil {
		t.Errorf("the device on the node that prevResult names: %v: %s", err, result)
	}
	one := 1
	gateway := net.IP(node.GatewayAddr.AsSlice())
	address := net.IPNet{IP: pod.addr.AsSlice(), Mask: net.CIDRMask(32, 32)}
	wantIPs := []*types100.IPConfig{{Interface: &one, Address: address, Gateway: gateway}}
	wantRoutes := []*types.Route{{Dst: net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, GW: gateway}}
	same := cmp.Comparer(func(a, b net.IP) bool { return a.Equal(b) })
	if d := cmp.Diff(wantIPs, said.Prev.IPs, same); d != "" {
		t.Errorf("addresses of the prevResult (-want +got):\n%s", d)
	}
	if d := cmp.Diff(wantRoutes, said.Prev.Routes, same); d != "" {
		t.Errorf("routes of the prevResult (-want +got):\n%s", d)
	}

	a.checkPod("web")
	if said := a.testimony("CHECK"); said.Prev == nil || len(said.Prev.Interfaces) != 3 {
		t.Errorf("CHECK told the plugin after ours %+v, want what ADD gave in the end", said)
	}
	a.delPods("web")
	if said := a.testimony("DEL"); said.Prev == nil || !said.HasPod {
		t.Errorf("DEL told the plugin after ours %+v, want the result, and the pod's interface still there", said)
	}
}

// testimony reads what the plugin after ours wrote.
func (n *instance) testimony(command string) testimony {
	n.t.Helper()
	text, err := os.ReadFile(n.file(filepath.Join(witnessDir, command)))
	if err != nil {
		n.t.Fatal(err)
	}
	var said testimony
	if err := json.Unmarshal(text, &said); err != nil {
		n.t.Fatal(err)
	}
	return said
}
