package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/cniplugin"
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

// Versions of the specification that the configuration list may be read in. Every
// runtime of today reads the older; by the newer one it also asks for STATUS and
// tells with GC what it still has.
const (
	oldSpec = "1.0.0"
	newSpec = "1.1.0"
)

// netConf is the configuration list. A runtime that knows the newer version takes
// it from cniVersions, another overlooks that ("Network configuration format", CNI
// specification 1.1.0). All plugins of a list are called with one version, so one
// that does not speak the newer keeps the list at the older: that one is named.
func netConf(ctx context.Context, c Config, plugins []map[string]any) (list map[string]any, old string) {
	list = map[string]any{"cniVersion": oldSpec, "name": networkName, "plugins": plugins}
	for _, p := range plugins[1:] {
		name, _ := p["type"].(string)
		versions, err := cniplugin.Versions(ctx, filepath.Join(c.CNIBinDir, name))
		if err != nil || !slices.Contains(versions, newSpec) {
			return list, name
		}
	}
	list["cniVersions"] = []string{oldSpec, newSpec}
	return list, ""
}

// removeNetConf takes the configuration list away that an earlier boot has left, so
// that the node is not ready before this one's agent serves.
func removeNetConf(c Config) error {
	if c.CNIConfDir == "" {
		return nil
	}
	err := os.Remove(filepath.Join(c.CNIConfDir, netConfName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the network configuration of an earlier boot: %w", err)
	}
	return nil
}

// served reports whether an agent has served since the machine was booted: by its
// mark, or by the records' directory, which one leaves that makes no mark.
func served(c Config) bool {
	_, err := os.Stat(c.StateDir)
	return err == nil || cniapi.WasReady(c.Socket)
}

// writeNetConf puts the configuration list where the runtime looks for it, by
// a rename, so that it never reads half of one.
func writeNetConf(c Config, list map[string]any) error {
	if c.CNIConfDir == "" {
		return nil
	}
	content, err := json.MarshalIndent(list, "", "  ")
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
