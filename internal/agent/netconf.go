package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// netConfName is the file of the network configuration list. A runtime takes
// the first by name.
const netConfName = "10-fairway.conflist"

// networkName is the network's in that list.
const networkName = "fairway"

// The plugins of github.com/containernetworking/plugins that run after ours, by
// the names of their programs.
const (
	hostPorts = "portmap"   // a pod's hostPort
	bandwidth = "bandwidth" // the annotations kubernetes.io/ingress-bandwidth and egress-bandwidth
)

// chain is the plugins of the configuration list, in the order of an ADD. What
// runs after ours is configured as in the VPC CNI's list; it says without an
// error which plugin is left out because its program is not there. That of host
// ports comes with every Kubernetes node; that of bandwidth somebody asked for.
func chain(c Config) (plugins []map[string]any, absent string, err error) {
	ours := map[string]any{
		"type":   PluginName,
		"socket": c.Socket,
		"spool":  c.SpoolDir,
	}
	if c.PluginLogFile != "" {
		ours["pluginLogFile"], ours["pluginLogLevel"] = c.PluginLogFile, c.PluginLogLevel
	}
	plugins = []map[string]any{ours}
	program := filepath.Join(c.CNIBinDir, hostPorts)
	switch _, err := os.Stat(program); {
	case err == nil:
		plugins = append(plugins, map[string]any{
			"type":         hostPorts,
			"capabilities": map[string]bool{"portMappings": true},
			"snat":         true, // for a pod that calls its own host port, and for localhost
		})
	case errors.Is(err, fs.ErrNotExist):
		absent = program
	default:
		return nil, "", fmt.Errorf("look for the plugin of host ports: %w", err)
	}
	if c.Bandwidth {
		if _, err := os.Stat(filepath.Join(c.CNIBinDir, bandwidth)); err != nil {
			return nil, "", fmt.Errorf("look for the plugin of bandwidth: %w: install it, or do not ask for it", err)
		}
		plugins = append(plugins, map[string]any{
			"type":         bandwidth,
			"capabilities": map[string]bool{"bandwidth": true},
		})
	}
	return plugins, absent, nil
}

// writeNetConf puts the configuration list where the runtime looks for it, by
// a rename, so that it never reads half of one.
func writeNetConf(c Config, plugins []map[string]any) error {
	if c.CNIConfDir == "" {
		return nil
	}
	content, err := json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0",
		"name":       networkName,
		"plugins":    plugins,
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode network configuration: %w", err)
	}
	if err := os.MkdirAll(c.CNIConfDir, 0o755); err != nil {
		return fmt.Errorf("write network configuration: %w", err)
	}
	tmp, err := os.CreateTemp(c.CNIConfDir, ".fairway-*")
	if err != nil {
		return fmt.Errorf("write network configuration: %w", err)
	}
	_, err = tmp.Write(append(content, '\n'))
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(c.CNIConfDir, netConfName))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write network configuration: %w", err), os.Remove(tmp.Name()))
	}
	return nil
}
