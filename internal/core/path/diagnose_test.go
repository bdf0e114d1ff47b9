package path_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
)

func diagnose(t *testing.T, name string, from, to string, edits ...string) path.Diagnosis {
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
			t.Fatal(err)
		}
	}
	tr := path.NewTracer(w)
	a, err := tr.Trace(path.Probe{From: from, To: to})
	if err != nil {
		t.Fatal(err)
	}
	d, err := tr.Diagnose(a)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDiagnoseSeed003 is the whole of what the seed's author found in a night.
func TestDiagnoseSeed003(t *testing.T) {
	rule := "ip rule add pref 111 from 10.11.4.91 to 10.12.0.0/16 lookup 11"
	want := path.Diagnosis{
		Cause: "rule 111 stops at 10.11.0.0/16; peer 10.12.0.0/16 falls to main",
		Seen:  []string{"nstat TcpExtIPReversePathFilter 2 -> 4 on node-a1"},
		Scope: &path.Scope{Node: "node-a1", Failing: 18, Pods: 29, Bad: []string{"eth1"}, Good: []string{"eth0"}},
		Mends: []path.Mend{{Edits: []path.Edit{{Target: "a/node-a1", Text: rule}}, Words: rule,
			Lasting: "ipv4-native-routing-cidr 10.8.0.0/13 (new pods only)", Verdict: path.Arrived, Moved: -1}},
		Not: []path.Mend{{Edits: []path.Edit{{Target: "a/node-a1", Text: "sysctl net.ipv4.conf.eth1.rp_filter=2"}}, Words: "rp_filter=2",
			Verdict: path.Dropped, Moved: 13}},
	}
	if diff := cmp.Diff(want, diagnose(t, "seed003", "b:default/sleep", "a:default/httpbin:80")); diff != "" {
		t.Error(diff)
	}
}

// TestMends: each fault's mend is one that a replay proves.
func TestMends(t *testing.T) {
	tests := []struct {
		name, world, from, to string
		edits                 []string
		words, cause          string
	}{
		{"NodePort", "nodeport", "node:client", "node:node-1:30080", nil,
			"iptables -t mangle -I PREROUTING -i eth0 -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80",
			"the answer is routed as the pod's, before it has the node's address again, and nothing reminds it of eth0"},
		{"group", "healthy", "b:default/sleep", "a:default/httpbin:80", []string{"sg-0a: in del tcp 80 from 10.12.0.0/16"},
			"sg-0a: in add tcp 80 from 10.12.7.33/32", "a/eni-0a02: sg-0a in: no rule for tcp 80 from 10.12.7.33"},
		{"group of another region", "healthy", "b:default/sleep", "a:default/httpbin:80",
			[]string{"sg-0a: in del tcp 80 from 10.12.0.0/16", "sg-0a: in add tcp 80 from sg-0b"},
			"sg-0a: in add tcp 80 from 10.12.7.33/32", "a/eni-0a02: sg-0a names sg-0b, which is of another region"},
		{"ACL without ephemeral ports", "healthy", "b:default/sleep", "a:default/httpbin:80",
			[]string{"acl-0b: in del 110 allow tcp 1024-65535 from 0.0.0.0/0"},
			"acl-0b: in add 110 allow tcp 1024-65535 from 10.11.0.0/16", "b/acl-0b: acl-0b in: no rule for tcp 32768-60999 from 10.11.4.91"},
		{"ACL that denies", "healthy", "b:default/sleep", "a:default/httpbin:80",
			[]string{"acl-0a: in add 50 deny tcp 80 from 10.12.0.0/16"},
			"acl-0a: in add 49 allow tcp 80 from 10.12.0.0/16", "a/acl-0a: acl-0a in 50 deny tcp 80 from 10.12.0.0/16"},
		{"no way back", "healthy", "b:default/sleep", "a:default/httpbin:80", []string{"rtb-0a: del 10.12.0.0/16 pcx-03"},
			"rtb-0a: add 10.12.0.0/16 pcx-03", "a/rtb-0a: no route to 10.12.7.33 (the main table; subnet-0a has none of its own)"},
		{"no way there and none back", "healthy", "b:default/sleep", "a:default/httpbin:80",
			[]string{"rtb-0a: del 10.12.0.0/16 pcx-03", "rtb-0b: del 10.11.0.0/16 pcx-03"},
			"rtb-0b: add 10.11.0.0/16 pcx-03; rtb-0a: add 10.12.0.0/16 pcx-03", "b/rtb-0b: no route to 10.11.4.91 (the main table; subnet-0b has none of its own)"},
		{"peering", "healthy", "b:default/sleep", "a:default/httpbin:80", []string{"pcx-03: state pending-acceptance"},
			"pcx-03: state active", "b/rtb-0b: 10.11.0.0/16 -> pcx-03 pending-acceptance; the other faults follow from it"},
		{"forwarding", "seed002", "default/pod1", "default/pod2:80", []string{"node2: sysctl net.ipv4.ip_forward=0"},
			"sysctl -w net.ipv4.ip_forward=1", "vpc/node2: net.ipv4.ip_forward = 0; the other faults follow from it"},
		{"pod's route", "seed002", "default/pod1", "default/pod2:80", []string{"node2: ip route del 10.5.2.22 dev lxc091988680a7", "node2: ip route add unreachable 10.5.2.22 metric 4096"},
			"ip route add 10.5.2.22 dev lxc091988680a7 scope link", "vpc/node2: ip rule 20 to 10.5.2.22 lookup main: unreachable 10.5.2.22"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := diagnose(t, tt.world, tt.from, tt.to, tt.edits...)
			if len(d.Mends) == 0 || d.Mends[0].Words != tt.words || d.Mends[0].Verdict != path.Arrived {
				t.Errorf("mends %+v, want %s", d.Mends, tt.words)
			}
			if d.Cause != tt.cause {
				t.Errorf("cause %q, want %q", d.Cause, tt.cause)
			}
		})
	}
}

// TestClasses: pods that the rules tell apart are not one class.
func TestClasses(t *testing.T) {
	_, w, err := example.Load("seed003")
	if err != nil {
		t.Fatal(err)
	}
	e, err := path.ParseEdit("node-a1: ip rule add pref 111 from 10.11.4.91 to 10.12.0.0/16 lookup 11")
	if err == nil {
		w, err = w.With(e)
	}
	if err != nil {
		t.Fatal(err)
	}
	tr := path.NewTracer(w)
	want := []path.Class{
		{Node: "node-a1", Site: "a", Device: "eth1", Pods: 1, One: "a:default/httpbin"},
		{Node: "node-a1", Site: "a", Device: "eth1", Pods: 17, One: "a:default/web-02"},
		{Node: "node-a1", Site: "a", Device: "eth0", Pods: 11, One: "a:default/api-01"},
		{Node: "node-b1", Site: "b", Device: "eth0", Pods: 1, One: "b:default/sleep"},
	}
	if diff := cmp.Diff(want, tr.Classes()); diff != "" {
		t.Error(diff)
	}
	pairs, err := tr.All(path.TCP)
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string]path.Code{}
	for _, p := range pairs {
		if p.From == "b/node-b1 eth0" && p.Verdict != path.Arrived {
			bad[p.To] += p.Code
		}
	}
	// The mended pod is of the same label as the 17, and works: one fault, not two.
	if diff := cmp.Diff(map[string]path.Code{"a/node-a1 eth1": path.CodeStrict, "internet": path.CodeNoRoute}, bad); diff != "" {
		t.Error(diff)
	}
}
