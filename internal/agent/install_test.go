package agent

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

func TestInstallPlugin(t *testing.T) {
	program, dir := filepath.Join(t.TempDir(), "built"), t.TempDir()
	stale := filepath.Join(dir, "."+PluginName+"-123")
	for _, f := range []string{program, stale} {
		if err := os.WriteFile(f, []byte("new"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	target := filepath.Join(dir, PluginName)
	for i, want := range []bool{true, false} {
		changed, err := InstallPlugin(program, dir)
		if err != nil || changed != want {
			t.Fatalf("try %d: changed %v (%v), want %v", i, changed, err, want)
		}
	}
	running, err := os.Open(target) // as a runtime that has just started it
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close()
	if err := os.WriteFile(program, []byte("newer"), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := InstallPlugin(program, dir); err != nil || !changed {
		t.Fatalf("another program: changed %v, %v", changed, err)
	}
	former := make([]byte, 10)
	if n, err := running.Read(former); err != nil || string(former[:n]) != "new" {
		t.Errorf("who had the former program open reads %q (%v)", former[:n], err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("the directory has %v (%v), want the plugin alone", files, err)
	}
	info, err := files[0].Info()
	text, readErr := os.ReadFile(target)
	if err := errors.Join(err, readErr); err != nil || info.Mode() != 0o755 || string(text) != "newer" {
		t.Errorf("%q with mode %v (%v)", text, info.Mode(), err)
	}
	if _, err := InstallPlugin(filepath.Join(dir, "none"), dir); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a program that is missing: %v, want an error that names it", err)
	}
	if _, err := InstallPlugin(program, filepath.Join(dir, "gone")); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("a directory that is missing: %v, want an error that names it", err)
	}
}

// TestUninstall: with a pod or an agent nothing is removed; without, everything is.
func TestUninstall(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	runtime.LockOSThread() // never unlocked: the thread and its namespace end with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := Default()
	c.Socket, c.Admin = dir+"/run/cni.sock", dir+"/run/agent.sock"
	c.StateDir, c.SpoolDir = dir+"/run/addresses", dir+"/run/spool"
	c.CNIConfDir, c.CNIBinDir = dir+"/conf", dir+"/bin"
	theirs := dir + "/conf/05-theirs.conflist"
	for _, f := range []string{c.Socket, c.Admin, c.StateDir + "/10.0.1.5", c.StateDir + "/lock", c.SpoolDir + "/x.json", dir + "/run/routes.json", dir + "/run/" + clockFile,
		dir + "/conf/" + netConfName, theirs, dir + "/bin/" + PluginName, dir + "/bin/portmap"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(f), 0o755), os.WriteFile(f, []byte("{}"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := store.Open(c.StateDir)
	if err == nil {
		err = errors.Join(s.Put(store.Record{Addr: netip.MustParseAddr("10.0.1.6"), ENI: "eni-1", ContainerID: "c", IfName: "eth0", HostVeth: "fwy1",
			PodName: "web", PodNamespace: "shop", CreatedAt: time.Unix(1_700_000_000, 0)}), s.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	var said strings.Builder
	refused := func(want error, words string) {
		t.Helper()
		if err := Uninstall(c, &said); !errors.Is(err, want) || !strings.Contains(err.Error(), words) {
			t.Fatalf("error %v, want %v with %q", err, want, words)
		}
		if now := tree(t, dir); now != before || said.Len() > 0 {
			t.Errorf("files\n%swere\n%sand said %q, want nothing removed", now, before, said.String())
		}
	}

	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group = "fwy1", node.LinkGroup
	pod := &netlink.Veth{LinkAttrs: attrs, PeerName: "pod"}
	if err := netlink.LinkAdd(pod); err != nil {
		t.Fatal(err)
	}
	refused(ErrPods, "from fairway: shop/web; drain")
	if err := netlink.LinkDel(pod); err != nil {
		t.Fatal(err)
	}
	if s, err = store.Open(c.StateDir); err != nil {
		t.Fatal(err)
	}
	refused(store.ErrLocked, "")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	for range 2 { // again is no failure
		if err := Uninstall(c, &said); err != nil {
			t.Fatal(err)
		}
	}
	want := "bin/portmap\nconf/05-theirs.conflist\n"
	if left := tree(t, dir); left != want {
		t.Errorf("left:\n%swant\n%s", left, want)
	}
	for _, f := range []string{netConfName, PluginName, "addresses", "cni.sock"} {
		if !strings.Contains(said.String(), f) {
			t.Errorf("said\n%swithout %s", said.String(), f)
		}
	}
}

// tree lists all files below a directory.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var list strings.Builder
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			list.WriteString(strings.TrimPrefix(path, dir+"/") + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list.String()
}
