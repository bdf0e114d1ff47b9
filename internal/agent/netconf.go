package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// netConfName is the file of the network configuration list. A runtime takes
// the first by name.
const netConfName = "10-fairway.conflist"

// writeNetConf puts the configuration list where the runtime looks for it, by
// a rename, so that it never reads half of one.
func writeNetConf(c Config) error {
	if c.CNIConfDir == "" {
		return nil
	}
	content, err := json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0",
		"name":       "fairway",
		"plugins": []map[string]any{{
			"type":   "fairway-cni",
			"socket": c.Socket,
			"spool":  c.SpoolDir,
		}},
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
