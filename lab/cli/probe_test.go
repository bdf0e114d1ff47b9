package cli

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/lab/probe"
	"github.com/fairway-cni/fairway/lab/world"
)

func TestProbeUsage(t *testing.T) {
	for _, tt := range []struct {
		args, stderr string
		status       int
	}{
		{"probe", "requires at least 2 arg(s)", 2},
		{"probe a", "requires at least 2 arg(s)", 2},
		{"probe a b --proto sctp", `--proto "sctp": must be tcp, udp or icmp`, 2},
		{"probe a b --size 15", "--size 15: must be within 16 (a nonce) and 65507", 2},
		{"probe a b --size 65508", "--size 65508", 2},
		{"probe a b --count 0", "--count 0: must be at least 1", 2},
		{"probe a b --ttl 256", "--ttl 256: must be within 1 and 255", 2},
		{"probe a b --timeout 0s", "--timeout 0s: must be more than 0", 2},
		{"probe a b --source fd00::1", `--source "fd00::1": must be an IPv4 address`, 2},
		{"probe a b --source-port 70000", "source-port", 2},
		{"probe a b -o xml", `--output "xml"`, 2},
		{"probe a b --lab " + absent(), "no lab of this name is running", 1},
	} {
		s := runCLI(t, strings.Fields(tt.args)...)
		if s.status != tt.status || !strings.Contains(s.stderr, tt.stderr) || s.stdout != "" {
			t.Errorf("%s: %+v, want status %d and %q", tt.args, s, tt.status, tt.stderr)
		}
	}
}

func TestSplitPort(t *testing.T) {
	for _, tt := range []struct {
		in, name string
		port     uint16 // 0: refused
	}{
		{"right", "right", probePort}, {"right:80", "right", 80}, {"10.0.1.4:65535", "10.0.1.4", 65535}, {"node-a/web:1", "node-a/web", 1},
		{"right:", "", 0}, {"right:0", "", 0}, {"right:65536", "", 0}, {"right:x", "", 0}, {"fd00::1", "fd00:", 1}, // which is then no name of anybody
	} {
		name, port, err := splitPort(tt.in)
		if name != tt.name || port != tt.port || (err != nil) != (tt.port == 0) {
			t.Errorf("%q: %q, %d, %v", tt.in, name, port, err)
		}
	}
}

func adr(s string) netip.Addr { return netip.MustParseAddr(s) }

// twoENIs is a lab with an instance of two ENIs, one of one ENI in a VPC with
// the same addresses, an ENI in no instance, and a peering.
func twoENIs() world.Status {
	return world.Status{
		Name:      "x",
		Instances: []world.InstanceStatus{{ID: "i-1", Name: "left", State: "running"}, {ID: "i-2", State: "running"}},
		ENIs: []world.ENIStatus{
			{ID: "eni-1", Instance: "i-1", Device: "ens5", VPC: "vpc-1", Primary: adr("10.0.1.4"), Secondary: []netip.Addr{adr("10.0.1.5")}},
			{ID: "eni-2", Instance: "i-1", Device: "ens6", VPC: "vpc-1", Primary: adr("10.0.2.4"), Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.2.16/28")}},
			{ID: "eni-3", Instance: "i-2", Device: "ens5", VPC: "vpc-2", Primary: adr("10.0.1.4")},
			{ID: "eni-4", VPC: "vpc-1", Primary: adr("10.0.1.9")},
		},
		Links: []world.LinkStatus{{ID: "pcx-1", Kind: world.KindPeering, Name: "a-b"}, {ID: "igw-1", Kind: world.KindInternetGateway}},
	}
}

// groundOf is a ground whose namespaces are none.
func groundOf(t *testing.T, s world.Status) *ground {
	t.Helper()
	g := &ground{status: s, open: map[string]*os.File{}}
	for _, in := range s.Instances {
		if _, err := g.namespace(instanceName(in), os.DevNull); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(g.close)
	return g
}

func TestFind(t *testing.T) {
	g := groundOf(t, twoENIs())
	for name, want := range map[string]spot{
		"left":      {name: "left", place: "left"},
		"i-1":       {name: "i-1", place: "left"},
		"left/ens6": {name: "left/ens6", place: "left", eni: "eni-2", addr: adr("10.0.2.4"), source: adr("10.0.2.4")},
		"i-2/ens5":  {name: "i-2/ens5", place: "i-2", eni: "eni-3", addr: adr("10.0.1.4"), source: adr("10.0.1.4")},
	} {
		got, err := g.find(t.Context(), name)
		if err != nil || got.name != want.name || got.place != want.place || got.eni != want.eni || got.addr != want.addr || got.source != want.source {
			t.Errorf("%s: %+v (%v), want %+v", name, got, err, want)
		}
	}
	for name, want := range map[string]string{"internet": "this lab has no internet", "right/ens5": `no instance "right"`} {
		if _, err := g.find(t.Context(), name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	g.open["left"].Close()
	delete(g.open, "left")
	if _, err := g.find(t.Context(), "left"); err == nil || !strings.Contains(err.Error(), "does not run in the lab: it is running") {
		t.Errorf("one that is killed: %v", err)
	}
}

// TestHolder: of addresses that several have, the one in the asker's VPC is meant.
func TestHolder(t *testing.T) {
	g := groundOf(t, twoENIs())
	for _, tt := range []struct{ from, addr, want string }{
		{"left", "10.0.1.4", "left"}, {"i-2", "10.0.1.4", "i-2"}, {"i-2", "10.0.2.4", "left"},
		{"left", "10.0.1.9", ""}, {"left", "203.0.113.1", ""},
	} {
		from, err := g.find(t.Context(), tt.from)
		if err != nil {
			t.Fatal(err)
		}
		got, err := g.holder(t.Context(), adr(tt.addr), from)
		if err != nil || got.place != tt.want {
			t.Errorf("%s from %s: %q (%v), want %q", tt.addr, tt.from, got.place, err, tt.want)
		}
	}
	if _, err := g.holder(t.Context(), adr("10.0.1.4"), spot{}); err == nil || !strings.Contains(err.Error(), "several have 10.0.1.4: left/ens5, i-2/ens5; say who is meant with --at") {
		t.Errorf("from nowhere: %v", err)
	}
}

// TestSince lists what grew, and nothing else.
func TestSince(t *testing.T) {
	g := groundOf(t, twoENIs())
	g.order = []string{"left", "i-2"}
	at := func(ens5, link, rpFilter int64) tally {
		s := twoENIs()
		s.ENIs[0].Drops = map[string]uint64{"NO_ROUTE": uint64(ens5), "MTU": 7, "NOT_IPV4": uint64(ens5)}
		s.ENIs[3].Drops = map[string]uint64{"SG_INGRESS": uint64(ens5)}
		s.Links[0].Drops = map[string]uint64{"NO_OWNER": uint64(link)}
		s.Links[1].Drops = map[string]uint64{"NO_ROUTE": uint64(link)}
		return tally{ground: g, status: s, kernels: map[string]probe.Kernel{
			"left": {"TcpExt.IPReversePathFilter": rpFilter, "Ip.InReceives": 2 * rpFilter}, "i-2": {},
		}}
	}
	got := lossList(at(3, 1, 5).since(at(2, 0, 2)))
	want := "left/ens5 NOT_IPV4, left/ens5 NO_ROUTE, eni-4 SG_INGRESS, peering/a-b NO_OWNER, internetGateway/igw-1 NO_ROUTE, left: discarded, left: rp_filter"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if got := lossList(at(3, 1, 5).since(at(3, 1, 5))); got != "-" {
		t.Errorf("nothing happened: %q", got)
	}
}

func TestPrintTalked(t *testing.T) {
	lost := []loss{{At: "left/ens5", Reason: "NO_ROUTE", Packets: 2}, {At: "left/ens5", Reason: "NOT_IPV4"}, {At: "right", Reason: probe.Discarded, Kernel: true}}
	tcp := probe.Talk{Proto: probe.TCP, To: netip.MustParseAddrPort("10.1.1.4:7070"), Count: 1}
	ten := probe.Talk{Proto: probe.ICMP, To: netip.MustParseAddrPort("10.1.1.4:0"), Count: 10}
	rows := []talked{
		row("left", tcp, probe.Outcome{Kind: probe.OK, Answered: 1, Seen: adr("10.0.1.4")}, lost[1:]),
		row("left", tcp, probe.Outcome{Kind: probe.Timeout}, lost),
		row("left", ten, probe.Outcome{Kind: probe.Timeout, Answered: 7}, nil),
		row("left", tcp, probe.Outcome{Kind: probe.TooBig, MTU: 8500}, nil),
		row("left", tcp, probe.Outcome{Kind: probe.Unreachable, By: adr("10.0.1.1")}, nil),
		row("left", tcp, probe.Outcome{Kind: probe.NoListener, Detail: "address already in use"}, nil),
	}
	out := printed(t, func(o *options) error { return o.printTalked(rows) })
	want := strings.TrimPrefix(`
FROM  TO             RESULT                      SEEN AS   DROPPED
left  10.1.1.4:7070  ok                          10.0.1.4  -
left  10.1.1.4:7070  timeout                     -         left/ens5 NO_ROUTE, right: discarded
left  10.1.1.4       7 of 10 answered            -         -
left  10.1.1.4:7070  too big, mtu 8500           -         -
left  10.1.1.4:7070  unreachable, says 10.0.1.1  -         -
left  10.1.1.4:7070  no listener                 -         -
stderr: left to 10.1.1.4:7070: no listener: address already in use
error: not every conversation succeeded
`, "\n")
	if d := cmp.Diff(want, out); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if out := printed(t, func(o *options) error { return o.printTalked(rows[:1]) }); strings.Contains(out, "error") {
		t.Errorf("all is well:\n%s", out)
	}
	out = printed(t, func(o *options) error { o.output = "json"; return o.printTalked(rows[1:2]) })
	for _, part := range []string{`"result": "timeout"`, `"packets": 2`, `"kernel": true`, `"answered": 0`} {
		if !strings.Contains(out, part) {
			t.Errorf("no %s in\n%s", part, out)
		}
	}
}

// printed gives what is printed, and the error.
func printed(t *testing.T, fn func(*options) error) string {
	t.Helper()
	var text strings.Builder
	dir := t.TempDir()
	var files [2]*os.File
	for i, name := range []string{"stdout", "stderr"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	err := fn(&options{Env: &Env{Stdout: files[0], Stderr: files[1]}})
	for i, prefix := range []string{"", "stderr: "} {
		b, err := os.ReadFile(files[i].Name())
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 0 {
			text.WriteString(prefix + string(b))
		}
	}
	if err != nil {
		text.WriteString("error: " + err.Error() + "\n")
	}
	return text.String()
}
