package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
)

func quiet(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func prefixes(list string) []netip.Prefix {
	var ps []netip.Prefix
	for f := range strings.FieldsSeq(list) {
		ps = append(ps, netip.MustParsePrefix(f))
	}
	return ps
}

func TestConfigValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.WarmAddresses = -1 }, "warm addresses -1"},
		{func(c *Config) { c.MaxENIs = -1 }, "max enis -1"},
		{func(c *Config) { c.CoolDown = -time.Second }, "cool-down -1s"},
		{func(c *Config) { c.AddWait = -time.Second }, "add wait -1s"},
		{func(c *Config) { c.Datapath.ENIMTU = 575 }, "eni mtu 575"},
		{func(c *Config) { c.PodMTU = 9002 }, "pod mtu 9002"},
		{func(c *Config) { c.VPCPoll = 0 }, "vpc poll 0s"},
		{func(c *Config) { c.VethPrefix = "ETH0" }, `veth prefix "ETH0"`},
		{func(c *Config) { c.VethPrefix = "" }, `veth prefix ""`},
		{func(c *Config) { c.Native.Also = prefixes("10.0.0.1/16") }, "prefix 10.0.0.1/16"},
		{func(c *Config) { c.Datapath.ExternalServices = prefixes("fd00::/8") }, "prefix fd00::/8"},
	} {
		c := Default()
		tt.change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want an error that says %q", err, tt.want)
		}
	}
}

func TestManaged(t *testing.T) {
	enis := []vpc.ENI{
		{ID: "eni-0", Primary: netip.MustParseAddr("10.0.1.4")},
		{ID: "eni-1", DeviceIndex: 1, Primary: netip.MustParseAddr("10.0.1.5")},
		{ID: "eni-efa", DeviceIndex: 2},
		{ID: "eni-card", CardIndex: 1, Primary: netip.MustParseAddr("10.0.1.6")},
	}
	ours, others := managed(enis)
	ids := func(list []vpc.ENI) string {
		var s []string
		for _, e := range list {
			s = append(s, e.ID)
		}
		return strings.Join(s, " ")
	}
	if ids(ours) != "eni-0 eni-1" || ids(others) != "eni-efa eni-card" {
		t.Errorf("managed: %s, others: %s", ids(ours), ids(others))
	}
}

func TestCoolDownOfZeroIsNone(t *testing.T) {
	owner, now := ipam.Owner{ContainerID: "c", IfName: "eth0"}, time.Unix(1e9, 0)
	for _, tt := range []struct {
		config  time.Duration
		cooling int
	}{{0, 0}, {time.Second, 1}} {
		p := ipam.NewPool(ipam.Config{CoolDown: coolDown(Config{CoolDown: tt.config})})
		p.SetENIs([]vpc.ENI{{ID: "eni-0", Secondary: []netip.Addr{netip.MustParseAddr("10.0.1.5")}}}, now)
		if _, err := p.Assign(owner, now); err != nil {
			t.Fatal(err)
		}
		p.Release(owner, now)
		if got := p.Stats(now).Cooling; got != tt.cooling {
			t.Errorf("cool-down %v: %d addresses rest, want %d", tt.config, got, tt.cooling)
		}
	}
}

func TestWriteNetConf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cni", "net.d") // made where it is missing
	c := Config{CNIConfDir: dir, CNIBinDir: t.TempDir(), Socket: "/run/a.sock", SpoolDir: "/run/spool"}
	plugins, _, err := chain(c)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // an agent that starts again replaces it
		if err := writeNetConf(c, plugins); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != "10-fairway.conflist" {
		t.Fatalf("%s has %v (%v), want the list and nothing else", dir, files, err)
	}
	info, err := files[0].Info()
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v (%v), want 0644: runtimes need not be root", info.Mode(), err)
	}
	text, err := os.ReadFile(filepath.Join(dir, files[0].Name()))
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`{"cniVersion":"1.0.0","name":"fairway",
		"plugins":[{"type":"fairway-cni","socket":"/run/a.sock","spool":"/run/spool"}]}`), &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("list (-want +got):\n%s", d)
	}
	if err := writeNetConf(Config{}, nil); err != nil {
		t.Errorf("no directory means that none is written: %v", err)
	}
	file := filepath.Join(dir, "10-fairway.conflist")
	if err := writeNetConf(Config{CNIConfDir: file}, nil); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a directory that is a file: %v, want an error that names it", err)
	}
	taken := filepath.Join(t.TempDir(), "taken")
	if err := os.MkdirAll(filepath.Join(taken, netConfName, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeNetConf(Config{CNIConfDir: taken}, nil); err == nil {
		t.Error("a directory in the list's place: no error")
	}
	if left, err := fs.Glob(os.DirFS(taken), ".fairway-*"); err != nil || len(left) != 0 {
		t.Errorf("left behind after a failure: %v (%v)", left, err)
	}
}

// TestChain: what runs after our plugin, by what is installed and asked for.
func TestChain(t *testing.T) {
	const portmap, bandwidth = "portmap", "bandwidth"
	for _, tt := range []struct {
		name      string
		installed []string
		bandwidth bool
		want      []string
		absent    string // the plugin that is left out
		err       string // names this one
	}{
		{"nothing installed", nil, false, nil, portmap, ""},
		{"host ports", []string{portmap}, false, []string{portmap}, "", ""},
		{"bandwidth not asked for", []string{portmap, bandwidth}, false, []string{portmap}, "", ""},
		{"both", []string{portmap, bandwidth}, true, []string{portmap, bandwidth}, "", ""},
		{"bandwidth alone", []string{bandwidth}, true, []string{bandwidth}, portmap, ""},
		{"bandwidth missing", []string{portmap}, true, nil, "", bandwidth},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Default()
			c.CNIBinDir, c.Bandwidth = t.TempDir(), tt.bandwidth
			for _, name := range tt.installed {
				if err := os.WriteFile(filepath.Join(c.CNIBinDir, name), nil, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			plugins, absent, err := chain(c)
			if tt.err != "" {
				if path := filepath.Join(c.CNIBinDir, tt.err); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
					t.Errorf("error %v, want one that names %s", err, path)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := []map[string]any{{"type": "fairway-cni", "socket": c.Socket, "spool": c.SpoolDir}}
			for _, name := range tt.want {
				want = append(want, map[string]map[string]any{
					portmap:   {"type": "portmap", "capabilities": map[string]bool{"portMappings": true}, "snat": true},
					bandwidth: {"type": "bandwidth", "capabilities": map[string]bool{"bandwidth": true}},
				}[name])
			}
			if d := cmp.Diff(want, plugins); d != "" {
				t.Errorf("plugins (-want +got):\n%s", d)
			}
			if tt.absent != "" {
				tt.absent = filepath.Join(c.CNIBinDir, tt.absent)
			}
			if absent != tt.absent {
				t.Errorf("left out: %q, want %q", absent, tt.absent)
			}
		})
	}
}

// TestVerdict: each refusal in a row doubles the pause of its kind, up to a
// minute; success forgets them, and says nothing of the other kind.
func TestVerdict(t *testing.T) {
	now := time.Unix(1e9, 0)
	r := &refill{log: quiet(t), now: func() time.Time { return now }, failures: map[ipam.Kind]int{}}
	assign, create := ipam.Change{Kind: ipam.AssignAddresses, ENI: "eni-0", Count: 1}, ipam.Change{Kind: ipam.CreateENI, Count: 1}
	refused := &ec2.Error{Action: "AssignPrivateIpAddresses", What: "assign 1 address", Code: "UnauthorizedOperation", Message: "You are not."}
	for i, want := range []int{1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60, 60} {
		kind, block := r.verdict(assign, refused)
		if kind != ipam.AssignAddresses || block == nil || block.Until.Sub(now) != time.Duration(want)*time.Second {
			t.Fatalf("refusal %d: %v %+v, want %d s", i+1, kind, block, want)
		}
		for _, word := range []string{"assign 1 address", "UnauthorizedOperation", "; allow the IAM action ec2:AssignPrivateIpAddresses"} {
			if !strings.Contains(block.Reason, word) {
				t.Errorf("reason %q does not say %q", block.Reason, word)
			}
		}
	}
	if _, block := r.verdict(create, refused); block == nil || block.Until.Sub(now) != time.Second {
		t.Errorf("the first refusal of another kind: %+v, want 1 s", block)
	}
	if _, block := r.verdict(assign, nil); block != nil {
		t.Errorf("success: %+v, want no block", block)
	}
	if _, block := r.verdict(assign, errors.New("something else")); block == nil || block.Until.Sub(now) != time.Second || block.Reason != "something else" {
		t.Errorf("the first refusal after a success: %+v, want 1 s and the error alone", block)
	}
	if _, block := r.verdict(assign, fmt.Errorf("assign: %w", context.Canceled)); block != nil {
		t.Errorf("the agent's own end: %+v, want no block", block)
	}
}

func TestSupply(t *testing.T) {
	s := newSupply()
	woken := func() bool {
		select {
		case <-s.kick:
			return true
		default:
			return false
		}
	}
	if woken() {
		t.Error("a new supply wakes the refill loop")
	}
	s.wake()
	s.wake() // nobody listens: it must not block
	s.wait()
	if !woken() || woken() {
		t.Error("any number of wake-ups is one")
	}
	told := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	before := s.news()
	if told(before) {
		t.Error("there is news before anything happened")
	}
	n := &nodeState{now: time.Now, pool: ipam.NewPool(ipam.Config{})}
	s.begin(ipam.Change{Kind: ipam.CreateENI, Count: 3})
	if st := s.state(n, identity{instanceType: "m5.large"}); st.Waiting != 1 || len(st.InFlight) != 1 || st.InstanceType != "m5.large" {
		t.Errorf("state while a change is on its way: %+v", st)
	}
	s.end(ipam.CreateENI, &ipam.Block{Reason: "no"})
	if !told(before) || told(s.news()) {
		t.Error("the end of a change is news for those who waited, once")
	}
	s.waitDone()
	if st := s.state(n, identity{}); st.Waiting != 0 || len(st.InFlight) != 0 || st.Blocked[ipam.CreateENI].Reason != "no" {
		t.Errorf("state after a refusal: %+v", st)
	}
	s.end(ipam.AssignAddresses, nil)
	if b := s.blocks(); len(b) != 1 {
		t.Errorf("success of another kind: blocks %+v, want the one that was", b)
	}
	s.end(ipam.CreateENI, nil)
	if b := s.blocks(); len(b) != 0 {
		t.Errorf("success: blocks %+v, want none", b)
	}
}

// TestPause: the refill loop sleeps until the next resync or until a refused
// action may be tried again, and never spins.
func TestPause(t *testing.T) {
	now := time.Unix(1e9, 0)
	r := &refill{now: func() time.Time { return now }, supply: newSupply(), resyncAt: now.Add(resyncInterval)}
	if got := r.pause(); got != resyncInterval {
		t.Errorf("nothing to do: %v, want %v", got, resyncInterval)
	}
	r.supply.end(ipam.AssignAddresses, &ipam.Block{Until: now.Add(8 * time.Second)})
	r.supply.end(ipam.CreateENI, &ipam.Block{Until: now.Add(4 * time.Second)})
	if got := r.pause(); got != 4*time.Second {
		t.Errorf("two refused actions: %v, want 4 s", got)
	}
	now = now.Add(10 * time.Second)
	if got := r.pause(); got != deviceInterval {
		t.Errorf("blocks that are over: %v, want %v", got, deviceInterval)
	}
	now = now.Add(time.Hour)
	if got := r.pause(); got != 0 {
		t.Errorf("a resync that is due: %v, want 0", got)
	}
}
