package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// PluginName is the name of the plugin's program, which the network configuration
// list calls it by.
const PluginName = "fairway-cni"

// InstallPlugin puts the plugin's program into a runtime's directory of plugins, by a
// rename: a runtime that starts it at the same moment has the former one or this one,
// whole. It says whether that changed anything; what a former try has left is removed.
func InstallPlugin(program, dir string) (changed bool, err error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return false, fmt.Errorf("read the plugin: %w", err)
	}
	stale, err := filepath.Glob(filepath.Join(dir, "."+PluginName+"-*"))
	if err != nil {
		return false, fmt.Errorf("install the plugin: %w", err)
	}
	for _, path := range stale {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("install the plugin: %w", err)
		}
	}
	target := filepath.Join(dir, PluginName)
	if have, err := os.ReadFile(target); err == nil && bytes.Equal(have, content) {
		return false, os.Chmod(target, 0o755)
	}
	tmp, err := os.CreateTemp(dir, "."+PluginName+"-*")
	if err != nil {
		return false, fmt.Errorf("install the plugin: %w", err)
	}
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(0o755), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), target)
	}
	if err != nil {
		return false, errors.Join(fmt.Errorf("install the plugin: %w", err), os.Remove(tmp.Name()))
	}
	return true, nil
}
