package kubernetes

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Setup is what an instance needs before its programs start. It comes from the
// lab's own process, through a command that runs in the instance.
type Setup struct {
	Files []File `json:"files"`
	// Links are symbolic links; what is there already stays.
	Links []Link `json:"links"`
	// Memory are directories to be file systems of their own, in memory: an
	// overlay cannot be the upper side of containerd's overlays.
	Memory []string `json:"memory"`
	// Shown are settings of the kernel, by their path below /proc/sys, that
	// programs of this instance read as given here and write to no effect. The
	// kernel's own, which are the whole machine's, stay as they are.
	Shown map[string]string `json:"shown"`
	// Shared makes mounts of the instance propagate to the mount namespaces
	// below it, as a system does: pods may ask for that.
	Shared bool `json:"shared"`
}

// File is a file to be written, for root alone.
type File struct {
	Path string `json:"path"`
	Data []byte `json:"data"`
}

// Link is a symbolic link.
type Link struct {
	Path   string `json:"path"`
	Target string `json:"target"`
}

// shownDir has the files that cover settings of the kernel. It is the instance's own.
const shownDir = "/run/fairway-lab/shown"

// maxSetup bounds a Setup's encoding, in bytes: some certificates and names.
const maxSetup = 4 << 20

// Apply reads a [Setup] and carries it out. It runs in the instance, as root, and may
// be repeated: what is there already stays, but for files, which are written anew.
func Apply(r io.Reader) error {
	var s Setup
	if err := json.NewDecoder(io.LimitReader(r, maxSetup)).Decode(&s); err != nil {
		return fmt.Errorf("read setup: %w", err)
	}
	if err := s.mount(); err != nil {
		return err
	}
	for _, f := range s.Files {
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
			return err
		}
		// Removed first: a symlink of the host's might lead out of the overlay.
		if err := os.Remove(f.Path); err != nil && !os.IsNotExist(err) {
			return err
		}
		if err := os.WriteFile(f.Path, f.Data, 0o600); err != nil {
			return err
		}
	}
	for _, l := range s.Links {
		if err := os.MkdirAll(filepath.Dir(l.Path), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(l.Target, l.Path); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return nil
}

func (s Setup) mount() error {
	if s.Shared {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
			return fmt.Errorf("share mounts: %w", err)
		}
	}
	for _, dir := range s.Memory {
		if err := inMemory(dir); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
		}
	}
	for name, value := range s.Shown {
		if err := show(name, value); err != nil {
			return fmt.Errorf("cover setting %s: %w", name, err)
		}
	}
	return nil
}

// inMemory mounts a tmpfs on a directory, if none is there.
func inMemory(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if st.Type == unix.TMPFS_MAGIC {
		return nil
	}
	return unix.Mount("fairway-lab", dir, "tmpfs", 0, "mode=0711")
}

// show covers a setting with a file, unless it reads as it should.
func show(name, value string) error {
	target := filepath.Join("/proc/sys", name)
	text, err := os.ReadFile(target)
	if err != nil || strings.TrimSpace(string(text)) == value {
		return err
	}
	source := filepath.Join(shownDir, name)
	if err := os.MkdirAll(filepath.Dir(source), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(source, []byte(value+"\n"), 0o644); err != nil {
		return err
	}
	return unix.Mount(source, target, "", unix.MS_BIND, "")
}
