package scenarios

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
)

// TestPluginRefuses: whatever a runtime can get wrong is told by name, with the
// CNI specification's code, and leaves nothing behind.
func TestPluginRefuses(t *testing.T) {
	l := startLab(t, oneNode("m5.large"))
	n := l.nodes["node-a"]
	n.startAgent()
	n.readyAgent()
	good := n.emptyNetns("good")
	taken := n.emptyNetns("taken")
	if a := n.plugin(call{command: "ADD", container: "first", ifName: "eth0", netns: taken, stdin: conf10}); a.status != 0 {
		t.Fatalf("ADD: %+v", a)
	}
	before := n.held()

	add := call{command: "ADD", container: "c1", ifName: "eth0", netns: good, stdin: conf10}
	with := func(change func(*call)) call {
		c := add
		change(&c)
		return c
	}
	for _, tt := range []struct {
		name string
		call call
		code uint
		says []string
	}{
		{"no stdin", with(func(c *call) { c.stdin = " " }), cniapi.CodeDecode, []string{"standard input"}},
		{"half a configuration", with(func(c *call) { c.stdin = `{"cniVersion":"1.0.0","na` }), cniapi.CodeDecode, []string{"standard input"}},
		{"not an object", with(func(c *call) { c.stdin = `[]` }), cniapi.CodeDecode, []string{"JSON object"}},
		{"no name", with(func(c *call) { c.stdin = `{"cniVersion":"1.0.0","type":"fairway-cni"}` }), cniapi.CodeInvalidConfig, []string{"name"}},
		{"a version to come", with(func(c *call) { c.stdin = strings.Replace(conf10, "1.0.0", "9.0.0", 1) }), cniapi.CodeIncompatibleVersion, []string{`"9.0.0"`, "ADD"}},
		{"a wrong mtu", with(func(c *call) { c.stdin = strings.Replace(conf10, "{", `{"mtu":12,`, 1) }), cniapi.CodeInvalidConfig, []string{"mtu", "12"}},
		{"no command", with(func(c *call) { c.without = "CNI_COMMAND" }), cniapi.CodeInvalidEnvironment, []string{"CNI_COMMAND"}},
		{"no container", with(func(c *call) { c.without = "CNI_CONTAINERID" }), cniapi.CodeInvalidEnvironment, []string{"CNI_CONTAINERID"}},
		{"no interface name", with(func(c *call) { c.without = "CNI_IFNAME" }), cniapi.CodeInvalidEnvironment, []string{"CNI_IFNAME"}},
		{"no namespace", with(func(c *call) { c.without = "CNI_NETNS" }), cniapi.CodeInvalidEnvironment, []string{"CNI_NETNS"}},
		{"all missing", call{command: "ADD", stdin: conf10}, cniapi.CodeInvalidEnvironment, []string{"CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"}},
		{"an unknown command", with(func(c *call) { c.command = "UPDATE" }), cniapi.CodeInvalidEnvironment, []string{"UPDATE"}},
		{"a container name with a slash", with(func(c *call) { c.container = "../c" }), cniapi.CodeInvalidEnvironment, []string{`"../c"`}},
		{"an interface name that is too long", with(func(c *call) { c.ifName = "sixteen-letters-" }), cniapi.CodeInvalidEnvironment, []string{"sixteen-letters-", "15"}},
		{"a namespace that is not there", with(func(c *call) { c.netns = "/run/netns/gone" }), cniapi.CodeInvalidEnvironment, []string{"/run/netns/gone", "no such file"}},
		{"a file that is no namespace", with(func(c *call) { c.netns = "/etc/hostname" }), cniapi.CodeInvalidEnvironment, []string{"/etc/hostname", "not a network namespace"}},
		{"another kind of namespace", with(func(c *call) { c.netns = "/proc/self/ns/mnt" }), cniapi.CodeInvalidEnvironment, []string{"not a network namespace"}},
		{"the node's own namespace", with(func(c *call) { c.netns = "/proc/1/ns/net" }), cniapi.CodeInvalidEnvironment, []string{"/proc/1/ns/net", "of the node"}},
		{"an interface that is there already", with(func(c *call) { c.netns = taken }), cniapi.CodeInterfaceTaken, []string{"eth0", taken}},
		{"the loopback's name", with(func(c *call) { c.ifName = "lo" }), cniapi.CodeInterfaceTaken, []string{`"lo"`}},
		{"CHECK of the unknown", call{command: "CHECK", container: "unknown", ifName: "eth0", netns: good,
			stdin: strings.Replace(conf10, "{", `{"prevResult":{"cniVersion":"1.0.0"},`, 1)}, cniapi.CodeUnknownContainer, []string{"unknown", "eth0"}},
		{"GC without a list", call{command: "GC"}, cniapi.CodeInvalidConfig, []string{"cni.dev/valid-attachments"}},
		{"GC in an old version", call{command: "GC", stdin: conf10}, cniapi.CodeIncompatibleVersion, []string{"GC", "1.1.0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := n.failed(tt.call)
			if e.Code != tt.code {
				t.Errorf("got %+v, want code %d", e, tt.code)
			}
			if word := missingWord(e.Msg+" "+e.Details, tt.says); word != "" {
				t.Errorf("%+v does not say %q", e, word)
			}
			if now := n.held(); !slices.Equal(now, before) {
				t.Errorf("addresses held: %q, before %q", now, before)
			}
		})
	}

	// After all of it, the sound request works, twice with one result.
	first, second := n.plugin(add), n.plugin(add)
	if first.status != 0 || second != first {
		t.Errorf("ADD: %+v\nand again: %+v", first, second)
	}
	// A taken name does not eat addresses, however often it is tried.
	for range 12 {
		n.failed(with(func(c *call) { c.container, c.netns = "c2", taken }))
	}
	if a := n.plugin(with(func(c *call) { c.container, c.netns = "c3", n.emptyNetns("free") })); a.status != 0 {
		t.Errorf("ADD after others were refused: %+v", a)
	}
}

// held lists who holds an address, by the agent's records.
func (n *node) held() []string {
	n.t.Helper()
	var held []string
	for _, r := range n.records() {
		if r.Held() {
			held = append(held, fmt.Sprintf("%s %s/%s", r.Addr, r.ContainerID, r.IfName))
		}
	}
	slices.Sort(held)
	return held
}

// TestGarbageCollection: GC gives back what the runtime does not list, and
// leaves what it lists.
func TestGarbageCollection(t *testing.T) {
	l := startLab(t, oneNode("m5.large"))
	n := l.nodes["node-a"]
	n.startAgent()
	n.readyAgent()
	for _, c := range []string{"keep", "lost", "also-lost"} {
		if a := n.plugin(call{command: "ADD", container: c, ifName: "eth0", netns: n.emptyNetns(c), stdin: conf11}); a.status != 0 {
			t.Fatalf("ADD %s: %+v", c, a)
		}
	}
	gc := call{command: "GC", stdin: strings.Replace(conf11, "{",
		`{"cni.dev/valid-attachments":[{"containerID":"keep","ifname":"eth0"},{"containerID":"never-was","ifname":"eth0"}],`, 1)}
	for range 2 {
		if a := n.plugin(gc); a.status != 0 {
			t.Fatalf("GC: %+v", a)
		}
		if held := n.held(); len(held) != 1 || !strings.HasSuffix(held[0], " keep/eth0") {
			t.Errorf("held after GC: %q, want keep only", held)
		}
	}
}
