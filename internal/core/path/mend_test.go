package path_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
)

// What the bugs of lab/scenarios/gallery wanted of mends, each in the smallest
// world that has it.

// edited is an example with changes.
func edited(t *testing.T, name string, edits ...string) *path.World {
	t.Helper()
	_, w, err := example.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range edits {
		e, err := path.ParseEdit(text)
		if err == nil {
			w, err = w.With(e)
		}
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	return w
}

func diagnosed(t *testing.T, w *path.World, p path.Probe) (*path.Answer, path.Diagnosis) {
	t.Helper()
	tr := path.NewTracer(w)
	a, err := tr.Trace(p)
	if err != nil {
		t.Fatal(err)
	}
	d, err := tr.Diagnose(a)
	if err != nil {
		t.Fatal(err)
	}
	return a, d
}

func mendWords(d path.Diagnosis) []string {
	var out []string
	for _, m := range d.Mends {
		out = append(out, m.Words)
	}
	return out
}

// TestMendOwnRule: a pod's rule is written as those of other pods are, and its
// table if that is gone too.
func TestMendOwnRule(t *testing.T) {
	const gone = "node-1: ip rule del pref 1536 from 10.0.1.15 lookup 2"
	tests := []struct {
		name  string
		edits []string
		mend  string
		cause string
	}{
		{"like another's", []string{gone, "node-1: ip rule add pref 1500 from 10.0.1.16 lookup 2"},
			"ip rule add pref 1500 from 10.0.1.15 lookup 2", "rule 1500 from 10.0.1.15 is missing, and other pods of eth1 have theirs; it falls to main"},
		{"like one of another ENI", []string{gone, "node-1: ip rule add pref 1500 from 10.0.1.99 lookup 7"},
			"ip rule add pref 1500 from 10.0.1.15 lookup 2", "no rule leads 10.0.1.15 to table 2, which leads by eth1; it falls to main"},
		{"no table", []string{gone, "node-1: ip route del default via 10.0.1.1 dev eth1 table 2", "node-1: ip route del 10.0.1.1 dev eth1 scope link table 2"},
			"ip route add 10.0.1.1 dev eth1 scope link table 2; ip route add default via 10.0.1.1 dev eth1 table 2; ip rule add pref 1536 from 10.0.1.15 lookup 2",
			"no table leads by eth1, whose ENI has 10.0.1.15; it falls to main"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, d := diagnosed(t, edited(t, "nodeport", tt.edits...), path.Probe{From: "web-2", To: "node:client", Proto: path.ICMP})
			if got := mendWords(d); len(got) == 0 || got[0] != tt.mend {
				t.Errorf("mends %q, want first %q", got, tt.mend)
			}
			if d.Cause != tt.cause {
				t.Errorf("cause %q, want %q", d.Cause, tt.cause)
			}
		})
	}
}

// TestMendOutsideVPCs: for a peer in no VPC a rule is for all, and behind those
// that the kernel would take it for. Pods that the internet does not reach at all
// are not of the fault's scope.
func TestMendOutsideVPCs(t *testing.T) {
	w := edited(t, "seed003", "rtb-0a: add 0.0.0.0/0 igw-01", "eni-0a02: public 10.11.4.91 198.51.100.9", "sg-0a: in add all from 0.0.0.0/0")
	_, d := diagnosed(t, w, path.Probe{From: "internet", To: "a:default/httpbin:80"})
	if got := mendWords(d); len(got) != 1 || got[0] != "ip rule add pref 112 from 10.11.4.91 lookup 11" {
		t.Errorf("mends %q", got)
	}
	if want := "rule 111 stops at 10.11.0.0/16; peer 203.0.113.80 falls to main"; d.Cause != want {
		t.Errorf("cause %q, want %q", d.Cause, want)
	}
	if want := "1 of 29 pods on node-a1; 28 fail for another reason"; d.Scope == nil || d.Scope.String() != want {
		t.Errorf("scope %v, want %q", d.Scope, want)
	}
}

// TestMendCheckOff: turning the check off is named where it would do, last, and
// where it would not.
func TestMendCheckOff(t *testing.T) {
	const off = "eni-01: sourceDestCheck off (one flow by two ENIs)"
	gone := "node-1: ip rule del pref 1536 from 10.0.1.15 lookup 2"
	p := path.Probe{From: "web-2", To: "node:client", Proto: path.ICMP}
	_, d := diagnosed(t, edited(t, "nodeport", gone), p)
	if got := mendWords(d); len(got) != 2 || got[1] != off || len(d.Not) != 0 {
		t.Errorf("mends %q, not %v; want %q last", got, d.Not, off)
	}
	_, d = diagnosed(t, edited(t, "nodeport", gone, "node-1: sysctl net.ipv4.conf.eth1.rp_filter=1"), p)
	if len(d.Not) != 1 || d.Not[0].Words != off {
		t.Errorf("with a strict filter on the way back: not %+v, want %q", d.Not, off)
	}
}

// TestMendNodePort: what is missing for a NodePort's answers is added, and no more.
func TestMendNodePort(t *testing.T) {
	const (
		restore = `node-1: iptables -t mangle -D PREROUTING -i eni+ -m comment --comment "AWS, primary ENI" -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80`
		rule    = "node-1: ip rule del pref 1024 fwmark 0x80/0x80 lookup main"
		marks   = `node-1: nft add table ip m { chain p { type filter hook prerouting priority -150; iifname "eth0" fib daddr type local ct mark set ct mark | 0x80; iifname "eni*" meta mark set ct mark & 0x80; } }`
		table   = `nft add table ip nodeport { chain prerouting { type filter hook prerouting priority -150; `
		set     = `iifname "eth0" fib daddr type local ct mark set ct mark | 0x80; `
		back    = `iifname "eni*" meta mark set ct mark & 0x80; `
	)
	tests := []struct {
		name  string
		edits []string
		mend  string
	}{
		{"all", []string{restore, rule}, table + set + back + "} }; ip rule add pref 1024 fwmark 0x80/0x80 lookup main"},
		{"marks", []string{restore}, table + set + back + "} }"},
		{"rule", []string{restore, rule, marks}, "ip rule add pref 1024 fwmark 0x80/0x80 lookup main"},
		{"rule that comes too late", []string{restore, rule, marks, "node-1: ip rule add pref 2000 fwmark 0x80/0x80 lookup main"}, "ip rule add pref 1024 fwmark 0x80/0x80 lookup main"},
		{"strict filter", []string{restore, marks, "node-1: sysctl net.ipv4.conf.eth0.rp_filter=1"}, "sysctl -w net.ipv4.conf.eth0.rp_filter=2"},
		{"all and a strict filter", []string{restore, rule, "node-1: sysctl net.ipv4.conf.eth0.rp_filter=1"},
			"sysctl -w net.ipv4.conf.eth0.rp_filter=2; " + table + set + back + "} }; ip rule add pref 1024 fwmark 0x80/0x80 lookup main"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, d := diagnosed(t, edited(t, "nodeport", tt.edits...), path.Probe{From: "node:client", To: "node:node-1:30080"})
			if got := mendWords(d); len(got) == 0 || got[0] != tt.mend {
				t.Errorf("mends\n%s\nwant first\n%s", strings.Join(got, "\n"), tt.mend)
			}
		})
	}
}

// TestMendOfVPC: a main table, overlapping blocks, and a missing public address.
func TestMendOfVPC(t *testing.T) {
	probe := path.Probe{From: "b:default/sleep", To: "a:default/httpbin:80"}
	t.Run("main table", func(t *testing.T) {
		w := edited(t, "healthy", "rtb-0b: del 10.11.0.0/16 pcx-03")
		b := vpcOf(t, w, "b")
		own := b.RouteTables.Value[0]
		b.RouteTables.Value[0].Main, b.RouteTables.Value[0].Subnets = true, nil
		peered := path.RouteTable{ID: "rtb-peered", Routes: append(slices.Clone(own.Routes), path.VPCRoute{Dst: netip.MustParsePrefix("10.11.0.0/16"), Target: "pcx-03"})}
		b.RouteTables.Value = append(b.RouteTables.Value, peered)
		_, d := diagnosed(t, w, probe)
		want := []string{"rtb-peered: associate " + b.Subnets.Value[0].ID, "rtb-0b: add 10.11.0.0/16 pcx-03"}
		if got := mendWords(d); !slices.Equal(got, want) {
			t.Errorf("mends %q, want %q", got, want)
		}
	})
	t.Run("overlap", func(t *testing.T) {
		// The way back leads to a VPC that has the block of b, and not the pod.
		w := edited(t, "healthy", "rtb-0a: del 10.12.0.0/16 pcx-03", "rtb-0a: add 10.12.0.0/16 pcx-04")
		b := *vpcOf(t, w, "b")
		b.ID, b.Name, b.ENIs = "vpc-0c", "c", path.Known([]path.ENI{})
		w.VPCs = append(w.VPCs, b)
		w.Peerings.Value = append(w.Peerings.Value, path.Peering{ID: "pcx-04", State: "active", VPCs: [2]string{vpcOf(t, w, "a").ID, "vpc-0c"}})
		a, d := diagnosed(t, w, probe)
		if f := a.Faults(); len(f) == 0 || a.Hops[f[0]].Code != path.CodeNoOwner {
			t.Fatalf("faults %v", f)
		}
		want := "rtb-0a: add " + b.Subnets.Value[0].CIDR.String() + " pcx-03"
		if got := mendWords(d); len(got) != 1 || got[0] != want {
			t.Errorf("mends %q, want %q", got, want)
		}
		if !strings.HasPrefix(d.Cause, "VPC c and VPC b both have a block that holds ") {
			t.Errorf("cause %q", d.Cause)
		}
	})
	t.Run("public address", func(t *testing.T) {
		w := edited(t, "nodeport", "rtb-0vpc: add 0.0.0.0/0 igw-01")
		_, d := diagnosed(t, w, path.Probe{From: "node:client", To: "internet:443"})
		if got := mendWords(d); len(got) != 1 || got[0] != "associate an Elastic IP with 10.0.1.50 of eni-09" {
			t.Errorf("mends %q", got)
		}
	})
}

func vpcOf(t *testing.T, w *path.World, name string) *path.VPC {
	t.Helper()
	i := slices.IndexFunc(w.VPCs, func(v path.VPC) bool { return v.Name == name })
	if i < 0 {
		t.Fatalf("no VPC %s", name)
	}
	return &w.VPCs[i]
}

// TestMendMTU: TCP makes no longer segments than its own device takes, and that is
// what mends a way that takes less.
func TestMendMTU(t *testing.T) {
	p := path.Probe{From: "b:default/sleep", To: "a:default/httpbin:80", Size: 9001}
	a, d := diagnosed(t, edited(t, "healthy", "b/node-b1: ip link set ens6 mtu 9001", "default/sleep: ip link set eth0 mtu 9001"), p)
	if f := a.Faults(); len(f) == 0 || a.Hops[f[0]].Code != path.CodeMTU {
		t.Fatalf("%s, want a drop for the size", a.Verdict)
	}
	if got := mendWords(d); len(got) != 1 || got[0] != "default/sleep: ip link set eth0 mtu 8500" {
		t.Errorf("mends %q", got)
	}
	w := edited(t, "healthy", "default/sleep: ip link set eth0 mtu 8500")
	if a, _ := diagnosed(t, w, p); a.Verdict != path.Arrived {
		t.Errorf("TCP by a device of 8500 bytes: %s", a.Verdict)
	}
	p.Proto, p.Size = path.ICMP, 9001
	if a, _ := diagnosed(t, w, p); a.Verdict != path.Dropped {
		t.Errorf("an echo of 9001 bytes by a device of 8500: %s", a.Verdict)
	}
}

// TestEditsRefused: an edit of what is not there, or not known, is an error.
func TestEditsRefused(t *testing.T) {
	for _, text := range []string{
		"node-1: ip link set eth7 mtu 1500", "node-1: ip link set eth0 mtu 20", "node-1: ip link set eth0 mtu many",
		"node-1: nft add table ip t { chain c { type filter hook prerouting priority 0; ", "rtb-0vpc: associate subnet-nobody",
		"node-1: sysctl net.ipv4.ip_forward=yes", "node-1: sysctl net.ipv4.ip_forward", "node-1: sysctl net.ipv4.conf.eth7.rp_filter=0", "node-1: sysctl net.ipv4.tcp_mtu_probing=1",
	} {
		_, w, err := example.Load("nodeport")
		if err != nil {
			t.Fatal(err)
		}
		e, err := path.ParseEdit(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.With(e); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}

// TestEditsOfUnknownParts: what is added to a part that is not known does not make it
// known.
func TestEditsOfUnknownParts(t *testing.T) {
	for _, text := range []string{"ip rule add pref 7 lookup main", "ip route add 10.9.0.0/16 dev eth0", "iptables -t nat -A POSTROUTING -j ACCEPT", "nft add table ip t { chain c { drop; } }"} {
		_, w, err := example.Load("nodeport")
		if err != nil {
			t.Fatal(err)
		}
		h := &w.Nodes[0].Host
		h.Rules, h.Routes = path.Unknown[[]path.IPRule]("no right"), path.Unknown[[]path.IPRoute]("no right")
		h.Iptables, h.Nftables = path.Unknown[path.Iptables]("no right"), path.Unknown[path.Ruleset]("no right")
		if _, err := w.With(path.Edit{Target: "node-1", Text: text}); err == nil || !strings.Contains(err.Error(), "no right") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestForwardingIsOneSwitch: who turns it on for all turns it on for each device.
func TestForwardingIsOneSwitch(t *testing.T) {
	off := []string{"node-1: sysctl -w net.ipv4.conf.eth0.forwarding = 0", "node-1: sysctl net.ipv4.conf.eth1.forwarding=0"}
	for _, on := range []string{"net.ipv4.ip_forward=1", "net.ipv4.conf.all.forwarding=1"} {
		for _, tt := range []struct {
			edits []string
			want  bool
		}{{off, true}, {append(slices.Clone(off), "node-1: sysctl "+on), false}} {
			a, err := path.NewTracer(edited(t, "nodeport", tt.edits...)).Trace(path.Probe{From: "node:client", To: "default/web-1:8080"})
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.ContainsFunc(a.Hops, func(h path.Hop) bool { return h.Code == path.CodeForwarding }); got != tt.want {
				t.Errorf("%q: off %v, want %v", tt.edits, got, tt.want)
			}
		}
	}
}

// TestEditsLeaveTheWorld: a copy is changed, also in its lists.
func TestEditsLeaveTheWorld(t *testing.T) {
	_, w, err := example.Load("nodeport")
	if err != nil {
		t.Fatal(err)
	}
	before, err := w.JSON()
	if err != nil {
		t.Fatal(err)
	}
	subnet := w.VPCs[0].Subnets.Value[0].ID
	for _, text := range []string{"rtb-0vpc: associate " + subnet, "node-1: ip link set eth0 mtu 1500", "node-1: nft add table ip t { chain c { type filter hook input priority 0; tcp dport { 80, 81 } drop; } }"} {
		e, err := path.ParseEdit(text)
		if err == nil {
			_, err = w.With(e)
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if after, err := w.JSON(); err != nil || string(after) != string(before) {
		t.Errorf("the world changed, or %v", err)
	}
}
