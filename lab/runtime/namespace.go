package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// mountNamespace makes a network namespace whose loopback is up and mounts it
// at path, which keeps it alive and is how a plugin is told of it.
func mountNamespace(path string) error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := netns.Do(ns, loopbackUp); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("mount network namespace: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("mount network namespace: %w", err)
	}
	file.Close()
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), path, "", unix.MS_BIND, ""); err != nil {
		os.Remove(path)
		return fmt.Errorf("mount network namespace at %s: %w", path, err)
	}
	return nil
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	return nil
}

// unmountNamespace undoes mountNamespace, however far that came.
func unmountNamespace(path string) error {
	// EINVAL: a file on which nothing is mounted.
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount network namespace %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	return nil
}

// ours is how this package names the files of its namespaces; other programs'
// in the same directory are not touched.
var ours = regexp.MustCompile(`^[0-9a-f]{64}$`)

// unmountOthers unmounts all namespaces of this package but those in keep.
func (r *Runtime) unmountOthers(keep map[string]bool) error {
	files, err := os.ReadDir(r.config.NetNSDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("list network namespaces: %w", err)
	}
	var errs []error
	for _, f := range files {
		path := filepath.Join(r.config.NetNSDir, f.Name())
		if ours.MatchString(f.Name()) && !keep[path] {
			errs = append(errs, unmountNamespace(path))
		}
	}
	return errors.Join(errs...)
}
