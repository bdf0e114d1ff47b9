package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestConfigOfThePool: what a user sets singly is tried in cmd/fairway-agent; here
// is what only fields together, or a program, can get wrong.
func TestConfigOfThePool(t *testing.T) {
	many := make(map[string]string)
	for i := range maxTags + 1 {
		many["t"+strconv.Itoa(i)] = ""
	}
	for _, tt := range []struct {
		change func(*Config)
		want   string // empty: fine
	}{
		{func(c *Config) { c.Targets.WarmENIs = -1 }, "warm eni target -1"},
		{func(c *Config) { c.Targets.WarmIPs = -1 }, "warm ip target -1"},
		{func(c *Config) { c.Targets.MinimumIPs = -1 }, "minimum ip target -1"},
		{func(c *Config) { c.Targets.WarmPrefixes = -1 }, "warm prefix target -1"},
		{func(c *Config) { c.Targets.MaxENIs = -1 }, ""}, // not used, as the seed has it
		{func(c *Config) { c.Targets.ReturnAfter = -1 }, "return after -1ns"},
		{func(c *Config) { c.MaxPods = -1 }, "max pods -1"},
		{func(c *Config) { c.IMDSOnly = true }, "imds only: must not be with provisioning"},
		{func(c *Config) { c.Targets.NoProvisioning = true }, "leaked eni cleanup: must not be without provisioning"},
		{func(c *Config) { c.IMDSOnly, c.Targets.NoProvisioning, c.LeakedCleanup = true, true, false }, ""},
		{func(c *Config) { c.ENITags = map[string]string{"node.k8s.amazonaws.com/x": "y"} }, "is reserved"},
		{func(c *Config) { c.ENITags = many }, "eni tags: 47 of them: must be at most 46"},
		{func(c *Config) {
			c.ENITags = map[string]string{strings.Repeat("ä", maxTagKey): strings.Repeat("ä", maxTagValue)}
		}, ""}, // characters, not bytes
		{func(c *Config) { c.CustomNetwork.Enabled = true }, "without an eni config file"},
		{func(c *Config) { c.CustomNetwork.Enabled, c.CustomNetwork.File = true, "/etc/e" }, ""},
		{func(c *Config) { c.PluginLogLevel = "info" }, `plugin log level "info"`},
		{func(c *Config) { c.Socket = "cni.sock" }, `socket "cni.sock": must be an absolute path`},
		{func(c *Config) { c.StateDir = "" }, `state dir ""`},
		{func(c *Config) { c.Admin, c.CNIConfDir, c.CRISocket, c.Metrics, c.Introspection = "", "", "", "", "" }, ""},
		{func(c *Config) { c.Introspection = "localhost:1" }, ""},
		{func(c *Config) { c.Introspection = "unix:" }, `introspection address "unix:"`},
		{func(c *Config) { c.Metrics = "unix:/run/m.sock" }, `metrics address "unix:/run/m.sock"`},
		{func(c *Config) { c.Metrics = "127.0.0.1" }, `metrics address "127.0.0.1"`},
	} {
		c := Default()
		tt.change(&c)
		err := c.Validate()
		if tt.want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want an error that says %q", err, tt.want)
		}
	}
}

// TestPluginLogInNetConf: the list tells the plugin of its log, where there is to
// be one.
func TestPluginLogInNetConf(t *testing.T) {
	for _, tt := range []struct {
		file string
		want map[string]any
	}{
		{"", map[string]any{"pluginLogFile": nil, "pluginLogLevel": nil}},
		{"/var/log/plugin.log", map[string]any{"pluginLogFile": "/var/log/plugin.log", "pluginLogLevel": "WARN"}},
		{"stderr", map[string]any{"pluginLogFile": "stderr", "pluginLogLevel": "WARN"}},
	} {
		c := Default()
		c.CNIConfDir, c.CNIBinDir = t.TempDir(), t.TempDir()
		c.PluginLogFile, c.PluginLogLevel = tt.file, "WARN"
		plugins, _, err := chain(c)
		if err != nil {
			t.Fatal(err)
		}
		conf, _ := netConf(t.Context(), c, plugins)
		if err := writeNetConf(c, conf); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(c.CNIConfDir, netConfName))
		if err != nil {
			t.Fatal(err)
		}
		var list struct{ Plugins []map[string]any }
		if err := json.Unmarshal(text, &list); err != nil {
			t.Fatal(err)
		}
		for key, want := range tt.want {
			if got := list.Plugins[0][key]; got != want {
				t.Errorf("log file %q: %s is %v, want %v", tt.file, key, got, want)
			}
		}
	}
}
