package guest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// overlaid are the host's directories that a guest sees and changes for itself
// alone: configuration and state of daemons (/etc/cni, /var/lib/cni, /opt/cni).
// A file system mounted below one of them is not seen in the guest.
var overlaid = []string{"/etc", "/var", "/opt"}

type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
	needs                  string // what the kernel must have, for the error
}

func (m mount) do() error {
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w (needs %s)", m.fstype, m.target, err, m.needs)
	}
	return nil
}

const private = unix.MS_NOSUID | unix.MS_NODEV

// runMount serves twice: first it carries the overlays' changes and is
// detached, then a second one becomes the guest's /run.
var runMount = mount{"fairway-run", "/run", "tmpfs", private, "mode=0755", "CONFIG_TMPFS"}

// makeMounts gives the guest its own view. It runs in the guest's mount
// namespace and first cuts the ties to the host's, so nothing of it is seen
// there.
func makeMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, m := range []mount{
		{"proc", "/proc", "proc", private | unix.MS_NOEXEC, "", "CONFIG_PROC_FS"},
		{"sysfs", "/sys", "sysfs", private | unix.MS_NOEXEC, "", "CONFIG_SYSFS"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", private | unix.MS_NOEXEC, "", "CONFIG_CGROUPS"},
		{"bpf", "/sys/fs/bpf", "bpf", private | unix.MS_NOEXEC, "mode=0700", "CONFIG_BPF_SYSCALL"},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	// A mounted network namespace under the host's /run would live as long as
	// this guest if it were only covered.
	if err := detachBelow("/run"); err != nil {
		return err
	}
	if err := makeOverlays(); err != nil {
		return err
	}
	if err := runMount.do(); err != nil {
		return err
	}
	if err := os.MkdirAll("/run/lock", 0o755); err != nil {
		return err
	}
	// A symlink to /run nearly everywhere; a directory would be the host's.
	if info, err := os.Lstat("/var/run"); err == nil && info.IsDir() {
		return mount{"/run", "/var/run", "bind", unix.MS_BIND, "", "nothing of the kernel"}.do()
	}
	return nil
}

// makeOverlays mounts the overlays over a tmpfs that has no path afterwards:
// an overlay holds its upper directory by itself.
func makeOverlays() error {
	if err := runMount.do(); err != nil {
		return err
	}
	for _, dir := range overlaid {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() {
			continue // the host has none
		}
		upper := filepath.Join("/run", dir, "upper")
		work := filepath.Join("/run", dir, "work")
		for _, d := range []string{upper, work} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		// The merged directory has the attributes of the upper one.
		if err := os.Chmod(upper, info.Mode()); err != nil {
			return err
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work)
		if err := (mount{"fairway-overlay", dir, "overlay", 0, options, "CONFIG_OVERLAY_FS"}).do(); err != nil {
			return err
		}
	}
	if err := unix.Unmount("/run", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach overlays' tmpfs: %w", err)
	}
	return nil
}

// writeOwnFiles writes the files under /etc that name the machine. Each is
// removed first: a symlink might lead out of the overlay, to the host's file.
func writeOwnFiles(hostname string) error {
	for path, text := range map[string]string{
		"/etc/hostname": hostname + "\n",
		"/etc/hosts":    "127.0.0.1 localhost\n::1 localhost\n",
	} {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		if _, err := f.WriteString(text); err != nil {
			f.Close()
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// detachBelow detaches what is mounted below dir in this mount namespace.
func detachBelow(dir string) error {
	points, err := mountPoints()
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(points) {
		if !strings.HasPrefix(p.path, dir+"/") {
			continue
		}
		// EINVAL, ENOENT: covered by another mount, or gone with one.
		if err := unix.Unmount(p.path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			return fmt.Errorf("detach %s: %w", p.path, err)
		}
	}
	return nil
}

type mountPoint struct{ root, path, fstype string }

// mountPoints lists the mounts of the calling process, in the kernel's order:
// a mount comes after the one it is mounted on.
func mountPoints() ([]mountPoint, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMountinfo(f)
}

// parseMountinfo reads the format of proc_pid_mountinfo(5):
//
//	36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/sda1 rw
func parseMountinfo(r io.Reader) ([]mountPoint, error) {
	var points []mountPoint
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // overlay options can be long
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		before, after := strings.Fields(left), strings.Fields(right)
		if !ok || len(before) < 6 || len(after) < 1 {
			return nil, fmt.Errorf("read mountinfo line %q: want ten fields or more", lines.Text())
		}
		points = append(points, mountPoint{unescape(before[3]), unescape(before[4]), after[0]})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	return points, nil
}

// unescape undoes what the kernel's mangle() does to blanks and backslashes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
