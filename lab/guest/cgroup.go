package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// emptyWithin bounds the wait for a killed cgroup to empty. The kernel needs
// milliseconds; a process in uninterruptible sleep may need more.
const emptyWithin = 5 * time.Second

// CgroupRoot is the mount point of the cgroup v2 hierarchy: /sys/fs/cgroup on
// most machines, /sys/fs/cgroup/unified where v1 has the first place. Instances
// go below it as fairway-lab.<lab>/<instance>; no controller is enabled.
func CgroupRoot() (string, error) {
	points, err := mountPoints()
	if err != nil {
		return "", err
	}
	for _, p := range points {
		if p.fstype == "cgroup2" {
			return p.path, nil
		}
	}
	return "", fmt.Errorf("find cgroup v2: %w: no file system of type cgroup2 is mounted; mount it: mount -t cgroup2 none /sys/fs/cgroup", errors.ErrUnsupported)
}

// makeCgroup makes the directory and its parent, and opens it.
func makeCgroup(path string) (*os.File, error) {
	// Stop of a sibling removes an empty parent; it may do so between the two
	// mkdirs, though hardly three times.
	var err error
	for range 3 {
		if err = os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make cgroup: %w", err)
		}
		if err = os.Mkdir(path, 0o755); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make cgroup: %w: an instance of this name runs, or a lab was killed; remove the lab first", err)
	}
	if err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil {
		err = checkCgroup(path)
	}
	if err != nil {
		f.Close()
		err = errors.Join(fmt.Errorf("make cgroup: %w", err), os.Remove(path))
		removeLabCgroup(path)
		return nil, err
	}
	return f, nil
}

// checkCgroup refuses what must never be emptied: a directory that is no
// cgroup, the root of the hierarchy, and one that this process is in or below.
func checkCgroup(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fmt.Errorf("check cgroup %s: %w", path, err)
	}
	if st.Type != unix.CGROUP2_SUPER_MAGIC {
		return fmt.Errorf("check cgroup %s: not a directory of a cgroup v2 hierarchy", path)
	}
	// Only the root has no cgroup.events (Documentation/admin-guide/cgroup-v2.rst).
	if _, err := os.Stat(filepath.Join(path, "cgroup.events")); err != nil {
		return fmt.Errorf("check cgroup %s: it is the root of the hierarchy: %w", path, err)
	}
	dirs, err := cgroupTree(path)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		pids, err := cgroupPIDs(dir)
		if err != nil {
			return err
		}
		if slices.Contains(pids, os.Getpid()) {
			return fmt.Errorf("check cgroup %s: this process itself is in it", path)
		}
	}
	return nil
}

// removeCgroup kills what runs in the cgroup and below it, then removes it and
// its parent, if that is a lab's and empty now. A missing cgroup is success.
func removeCgroup(path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := checkCgroup(path); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), emptyWithin)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := errors.Join(killCgroup(path), removeTree(path))
		if _, serr := os.Stat(path); errors.Is(serr, fs.ErrNotExist) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup %s: not empty after %v: %w", path, emptyWithin, err)
		}
	}
	removeLabCgroup(path)
	return nil
}

// removeLabCgroup removes the parent of an instance's cgroup if it is a lab's.
// That fails, rightly, while another instance has its cgroup there.
func removeLabCgroup(path string) {
	if parent := filepath.Dir(path); strings.HasPrefix(filepath.Base(parent), "fairway-lab.") {
		_ = os.Remove(parent)
	}
}

// killCgroup kills every process at and below path.
func killCgroup(path string) error {
	err := os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return signalCgroup(path) // cgroup.kill came with Linux 5.14
	}
	return err
}

// signalCgroup kills one by one. A process may fork meanwhile: the caller
// repeats until the cgroup is gone.
func signalCgroup(path string) error {
	dirs, err := cgroupTree(path)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		pids, err := cgroupPIDs(dir)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if err := killMember(dir, pid); err != nil {
				return err
			}
		}
	}
	return nil
}

// killMember holds the process by a descriptor first, then looks again whether
// it is a member: its number could have become another's in between.
func killMember(dir string, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH || err == unix.EINVAL {
		return nil // gone, or in no PID namespace that we see
	}
	if err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	pids, err := cgroupPIDs(dir)
	if err != nil || !slices.Contains(pids, pid) {
		return err
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}

func cgroupPIDs(dir string) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil // removed meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup: %w", err)
	}
	var pids []int
	for field := range bytes.FieldsSeq(text) {
		pid, err := strconv.Atoi(string(field))
		if err != nil {
			return nil, fmt.Errorf("list processes of cgroup %s: %w", dir, err)
		}
		if pid > 0 { // 0 is a process of a PID namespace not below ours
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// cgroupTree lists path and the cgroups below it, parents first.
func cgroupTree(path string) ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return err
	})
	return dirs, err
}

// removeTree removes the cgroups with rmdir only, deepest first: the files in
// them are the kernel's.
func removeTree(path string) error {
	dirs, err := cgroupTree(path)
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
