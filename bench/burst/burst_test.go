package burst

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

const ms = time.Millisecond

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// made is a call that began so long after noon.
func made(action string, after, took time.Duration) ec2sim.Call {
	return ec2sim.Call{Action: action, Start: noon.Add(after), Took: took}
}

func addrs(list ...string) (as []netip.Addr) {
	for _, a := range list {
		as = append(as, netip.MustParseAddr(a))
	}
	return as
}

// TestBound: the slowest way counts, of the ENIs only that pods are on, and without
// what the agent adds.
func TestBound(t *testing.T) {
	refused := made("CreateNetworkInterface", 0, 400*ms)
	refused.Code = "RequestLimitExceeded"
	calls := []ec2sim.Call{
		made("DescribeNetworkInterfaces", 0, 900*ms), refused,
		made("AssignPrivateIpAddresses", 10*ms, 50*ms), made("AssignPrivateIpAddresses", 200*ms, 60*ms),
		made("CreateNetworkInterface", 10*ms, 55*ms), made("AttachNetworkInterface", 80*ms, 50*ms), // 15 ms between them
		made("CreateNetworkInterface", 400*ms, 52*ms), made("AttachNetworkInterface", 500*ms, 51*ms),
	}
	primary := ec2sim.NetworkInterface{ID: "eni-0", Secondary: addrs("10.0.0.5"), Attachment: &ec2sim.Attachment{At: noon.Add(-time.Hour)},
		Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.1.16/28")}}
	second := ec2sim.NetworkInterface{ID: "eni-1", Secondary: addrs("10.0.0.6"),
		Attachment: &ec2sim.Attachment{DeviceIndex: 1, At: noon.Add(130 * ms), DeviceAt: noon.Add(1080 * ms)}}
	third := ec2sim.NetworkInterface{ID: "eni-2", Secondary: addrs("10.0.0.7"),
		Attachment: &ec2sim.Attachment{DeviceIndex: 2, At: noon.Add(551 * ms)}} // there at once
	loose := ec2sim.NetworkInterface{ID: "eni-3", Secondary: addrs("10.0.0.8")}
	enis := []ec2sim.NetworkInterface{primary, second, third, loose}
	for _, tt := range []struct {
		name  string
		calls []ec2sim.Call
		used  []netip.Addr
		want  time.Duration
		err   string
	}{
		{"the ENI that is there", calls, addrs("10.0.0.5"), 50 * ms, ""},
		{"a prefix of it", calls, addrs("10.0.1.20"), 50 * ms, ""},
		{"a further one", calls, addrs("10.0.0.5", "10.0.0.6"), 55*ms + time.Second, ""},
		{"one whose device was there at once", calls, addrs("10.0.0.7"), 52*ms + 51*ms, ""},
		{"the slowest", calls, addrs("10.0.0.5", "10.0.0.7", "10.0.0.6"), 55*ms + time.Second, ""},
		{"an address of nobody", calls, addrs("10.9.9.9"), 0, "none of 1 addresses"},
		{"an ENI that is attached to nothing", calls, addrs("10.0.0.8"), 0, "eni-3: it is attached to nothing"},
		{"no call", nil, addrs("10.0.0.5"), 0, "no call has given it addresses"},
		{"never attached", calls[:4], addrs("10.0.0.6"), 0, "no call has attached it"},
		{"never created", append(calls[:1:1], calls[5]), addrs("10.0.0.6"), 0, "no call has created it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := bound(tt.calls, enis, tt.used)
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s, %v; want %s, %q", got, err, tt.want, tt.err)
			}
		})
	}
	if first := firstGrowth(calls); !first.Equal(noon) {
		t.Errorf("the first call of growth was at %s", first)
	}
}

func TestOfPool(t *testing.T) {
	all := []ec2sim.Call{made("DescribeVpcs", 0, 0), made("DescribeNetworkInterfaces", 0, 0), made("DescribeRouteTables", 0, 0), made("DescribeSubnets", 0, 0)}
	if got := ofPool(all); len(got) != 2 || got[0].Action != "DescribeNetworkInterfaces" || got[1].Action != "DescribeSubnets" || len(all) != 4 {
		t.Errorf("%v of %v", got, all)
	}
}

// TestReport: what each figure is made of, and what a failed ADD does to them.
func TestReport(t *testing.T) {
	cold := outcome{pods: 27, calls: time.Second, last: 1100 * ms, lead: 100 * ms, warm: []time.Duration{200 * ms, 900 * ms, 200 * ms},
		warmAdds: 81, newENIs: 2, eniCalls: 6}
	inPrefixes := outcome{pods: 60, calls: 50 * ms, last: 300 * ms, warm: []time.Duration{150 * ms}, warmAdds: 60, warmCalls: 3}
	bad := outcome{pods: 27, failed: 2, warmAdds: 81}
	f := Figures{addresses: []outcome{cold, bad}, prefixes: []outcome{inPrefixes}, idle: []float64{4, 5, 3},
		still: still{rss: []float64{20, 24, 22}, peak: []float64{30}, anon: []float64{10}, routesCalls: []float64{180}}}
	got := map[string]float64{}
	met := map[string]bool{}
	for _, r := range f.Report().Rows {
		got[r.Metric], met[r.Metric] = r.Value, r.Met()
	}
	for metric, want := range map[string]float64{
		"burst27_failed_adds": 2, "burst27_last_s": 1.1, "burst27_last_over_bound": 1.2, "burst60_prefix_failed_adds": 0,
		"burst60_prefix_last_over_bound": 1.5, "calls_per_eni": 3, "calls_per_warm_add": 0.05, "idle_calls_per_hour": 4, "agent_rss_mib_250": 22,
	} {
		if v, ok := got[metric]; !ok || v-want > 1e-9 || want-v > 1e-9 {
			t.Errorf("%s is %v (there: %t), want %v", metric, v, ok, want)
		}
		missed := metric == "burst27_failed_adds" || metric == "burst60_prefix_last_over_bound" || metric == "calls_per_warm_add"
		if met[metric] == missed {
			t.Errorf("%s: goal met: %t", metric, met[metric])
		}
	}
	f.addresses = []outcome{bad}
	for _, r := range f.Report().Rows {
		if r.Metric == "burst27_last_s" {
			t.Error("a burst that failed has a time")
		}
	}
	f.addresses = []outcome{cold}
	var out strings.Builder
	if err := f.WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"0 of 27", "0 of 60", "1000", "1.20", "1.50"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("the table lacks %q:\n%s", part, &out)
		}
	}
}

func TestCountGrowth(t *testing.T) {
	var o outcome
	o.countGrowth([]ec2sim.Call{made("AssignPrivateIpAddresses", 0, 0), made("CreateNetworkInterface", 0, 0), made("AttachNetworkInterface", 0, 0),
		made("ModifyNetworkInterfaceAttribute", 0, 0), made("CreateNetworkInterface", time.Minute, 0)}, noon.Add(time.Second), 1)
	if o.newENIs != 1 || o.eniCalls != 3 {
		t.Errorf("%+v", o)
	}
}

func TestSizes(t *testing.T) {
	const text = "Name:\tfairway-agent\nVmHWM:\t   30720 kB\nVmRSS:\t   20480 kB\nRssAnon:\t   10240 kB\nThreads:\t9\n"
	got, err := sizes(text)
	if err != nil || got["VmRSS"] != 20 || got["VmHWM"] != 30 || got["RssAnon"] != 10 {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "VmRSS:\t 1 kB\n", "VmRSS:\t x kB\n"} {
		if got, err := sizes(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func TestReadConfig(t *testing.T) {
	dir := t.TempDir()
	if _, err := readConfig(dir); err == nil {
		t.Error("a configuration out of nothing")
	}
	for _, tt := range []struct{ list, want, err string }{
		{`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"t"},{"type":"portmap"}]}`, `{"cniVersion":"1.0.0","name":"n","type":"t"}`, ""},
		{`{"plugins":[]}`, "", "no plugin"},
		{`{"plugins":[`, "", "10-fairway.conflist"},
	} {
		if err := os.WriteFile(filepath.Join(dir, "10-fairway.conflist"), []byte(tt.list), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readConfig(dir)
		if string(got) != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %s, %v", tt.list, got, err)
		}
	}
}

// TestAll: a plugin that fails is a failed ADD with what it said, and not the end.
func TestAll(t *testing.T) {
	plugin := filepath.Join(t.TempDir(), "plugin")
	script := `#!/bin/sh
case $CNI_CONTAINERID in
good) cat >/dev/null; echo '{"ips":[{"address":"10.0.0.7/32"}]}';;
bad) echo '{"code":11,"msg":"no address"}'; exit 1;;
*) echo '{}';;
esac
`
	if err := os.WriteFile(plugin, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	c := machine{plugin, []byte("{}")}.all("ADD", []sandbox{"/run/netns/good", "/run/netns/bad", "/run/netns/odd"})
	if c.failed() != 2 || !strings.Contains(c.why(), "no address") || c.addresses()[0] != netip.MustParseAddr("10.0.0.7") {
		t.Errorf("%+v", c)
	}
	if c.last().Before(c.Start) || !strings.Contains(c.Pods[2].Error, "0 addresses") {
		t.Errorf("%+v", c)
	}
}

// TestWorlds: the labs of the bench can be started, and have room for its pods.
func TestWorlds(t *testing.T) {
	for _, tt := range []struct {
		instanceType string
		nodes, pods  int
	}{{burstType, 1, addresses.pods}, {fullType, fullNodes, fullPods}} {
		if err := describe(tt.nodes, tt.instanceType, 0).Validate(); err != nil {
			t.Error(err)
		}
		limits, ok := vpc.LimitsOf(tt.instanceType)
		if most := limits.ENIs * (limits.IPv4PerENI - 1); !ok || most < tt.pods {
			t.Errorf("%s has %d addresses for %d pods", tt.instanceType, most, tt.pods)
		}
	}
}
