package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

// ErrPods says that pods of the node still have their network from us.
var ErrPods = errors.New("pods still have their network from fairway")

// Uninstall takes from the node what an agent and its plugin have put there, and writes
// to w what that is: first the network configuration list, so that no further pod
// comes, then what is ours in the kernel, the plugin, records and sockets. The error is an
// [ErrPods] or a [store.ErrLocked], with nothing removed, where pods are left or an
// agent runs. It may be repeated.
//
// ENIs and their addresses stay: they are the instance's, and go with it.
func Uninstall(cfg Config, w io.Writer) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	k, err := kernel.OpenAt(cfg.SysctlDir)
	if err != nil {
		return err
	}
	return errors.Join(uninstall(cfg, k, w), k.Close())
}

func uninstall(cfg Config, k *kernel.Kernel, w io.Writer) error {
	records, unlock, err := lockRecords(cfg.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	devices, err := k.Devices()
	if err != nil {
		return err
	}
	var pods []string
	for _, d := range devices {
		if d.Group == node.LinkGroup {
			pods = append(pods, podOf(records, d.Name))
		}
	}
	if len(pods) > 0 {
		return fmt.Errorf("%w: %s; drain the node (kubectl drain NODE --ignore-daemonsets --delete-emptydir-data) and try again", ErrPods, strings.Join(pods, ", "))
	}
	var files []string
	if cfg.CNIConfDir != "" {
		files = append(files, filepath.Join(cfg.CNIConfDir, netConfName))
	}
	if err := remove(files, w); err != nil {
		return err
	}
	changes, err := k.Clear()
	for _, c := range changes {
		fmt.Fprintln(w, c)
	}
	if err != nil {
		return fmt.Errorf("clear the kernel: %w", err)
	}
	dir := filepath.Dir(cfg.StateDir)
	err = remove([]string{
		filepath.Join(cfg.CNIBinDir, PluginName), cfg.Socket, cfg.Admin, strings.TrimPrefix(cfg.Introspection, "unix:"),
		cniapi.ReadyPath(cfg.Socket), cfg.SpoolDir, filepath.Join(dir, routesCache), filepath.Join(dir, clusterFile),
		filepath.Join(dir, optionsFile), filepath.Join(dir, clockFile), cfg.StateDir,
	}, w)
	// Their directory goes where it is empty and nothing is mounted on it.
	_ = os.Remove(dir)
	return err
}

// lockRecords keeps agents out, and gives what records can be read; without records
// there is nothing to keep out.
func lockRecords(dir string) (records []store.Record, unlock func() error, err error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, func() error { return nil }, nil
	}
	s, err := store.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	records, _ = s.All() // they give names to devices, and no more
	return records, s.Close, nil
}

// podOf is the pod that has a device, by the name that kubectl knows it by, or the
// device where no record has it.
func podOf(records []store.Record, device string) string {
	for _, r := range records {
		if r.Held() && r.HostVeth == device && r.PodName != "" {
			return r.PodNamespace + "/" + r.PodName
		}
	}
	return device
}

// remove removes files and directories with all that is in them. Those that are
// there are named; what is no absolute path is no file.
func remove(paths []string, w io.Writer) error {
	var errs []error
	for _, p := range paths {
		if !filepath.IsAbs(p) {
			continue
		}
		if _, err := os.Lstat(p); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.RemoveAll(p); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(w, "- file", p)
	}
	return errors.Join(errs...)
}
