package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
		{func(c *Config) { c.Targets.WarmENIs = -1 }, "warm eni target -1"},
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

func TestWriteNetConf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cni", "net.d") // made where it is missing
	c := Config{CNIConfDir: dir, CNIBinDir: t.TempDir(), Socket: "/run/a.sock", SpoolDir: "/run/spool"}
	plugins, _, err := chain(c)
	if err != nil {
		t.Fatal(err)
	}
	list, _ := netConf(t.Context(), c, plugins)
	for range 2 { // an agent that starts again replaces it
		if err := writeNetConf(c, list); err != nil {
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
	if err := json.Unmarshal([]byte(`{"cniVersion":"1.0.0","cniVersions":["1.0.0","1.1.0"],"name":"fairway",
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

// TestNetConfVersions: a plugin that does not speak the newer version, or does not
// say so, keeps the whole list at the older, and is named.
func TestNetConfVersions(t *testing.T) {
	cases := []struct{ name, portmap, old string }{
		{"new", `echo '{"supportedVersions":["0.4.0","1.0.0","1.1.0"]}'`, ""},
		{"old", `echo '{"supportedVersions":["0.4.0","1.0.0"]}'`, "portmap"},
		{"broken", `exit 1`, "portmap"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := Config{CNIBinDir: t.TempDir()}
			if err := os.WriteFile(filepath.Join(c.CNIBinDir, "portmap"), []byte("#!/bin/sh\n"+tc.portmap+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			plugins, _, err := chain(c)
			if err != nil {
				t.Fatal(err)
			}
			list, old := netConf(t.Context(), c, plugins)
			if _, newer := list["cniVersions"]; old != tc.old || newer != (tc.old == "") || list["cniVersion"] != "1.0.0" {
				t.Errorf("older plugin %q, want %q; list %v", old, tc.old, list)
			}
		})
	}
}
