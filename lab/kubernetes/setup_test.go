package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/lab/guest"
)

// applyName is argv[0] of this test when it runs in an instance.
const applyName = "kubernetes-test-apply"

func TestMain(m *testing.M) {
	guest.MaybeInit()
	if filepath.Base(os.Args[0]) == applyName {
		if err := Apply(os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// startGuest starts an instance, with the command by which it applies a setup.
func startGuest(t *testing.T) (*guest.Guest, []string) {
	t.Helper()
	root, err := guest.CgroupRoot()
	if err = errors.Join(err, guest.Check()); errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	g, err := guest.Start(t.Context(), guest.Config{ID: "i-0123", Hostname: "ip-10-0-0-4",
		Dir: filepath.Join(t.TempDir(), "lab", "i-0123"), Cgroup: filepath.Join(root, fmt.Sprintf("fairway-lab.setup-%d", os.Getpid()), "i-0123")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), applyName)
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	return g, []string{program}
}

// said is what a shell script prints in the instance.
func said(t *testing.T, g *guest.Guest, script string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(r)
		text <- string(b)
	}()
	_, err = g.Exec(t.Context(), guest.Cmd{Argv: []string{"sh", "-c", script}, Stdout: w, Stderr: w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(<-text)
}

const panicSetting = "kernel/panic"

func TestApply(t *testing.T) {
	g, command := startGuest(t)
	before, err := os.ReadFile(filepath.Join("/proc/sys", panicSetting))
	if err != nil {
		t.Fatal(err)
	}
	s := Setup{
		Files:  []File{{"/etc/kubernetes/file", []byte("text\n")}, {"/etc/hostname", []byte("changed\n")}},
		Links:  []Link{{"/opt/cni/bin/plugin", "/somewhere/plugin"}},
		Memory: []string{conRoot},
		Shown:  map[string]string{panicSetting: "4711"},
		Shared: true,
	}
	const look = `cat /etc/kubernetes/file /etc/hostname; stat -c %a /etc/kubernetes/file; readlink /opt/cni/bin/plugin
echo 1 > /proc/sys/kernel/panic; grep -c " /var/lib/containerd \| /proc/sys/kernel/panic " /proc/self/mountinfo
awk '$5 == "/" { print ($7 ~ /^shared/) }' /proc/self/mountinfo`
	for _, time := range []string{"first", "second"} {
		if err := apply(t.Context(), g.Client, command, s); err != nil {
			t.Fatalf("the %s time: %v", time, err)
		}
		if got := said(t, g, "cat /proc/sys/"+panicSetting); got != "4711" {
			t.Fatalf("the %s time: kernel.panic reads %q, want 4711", time, got) // what follows would write the machine's
		}
		want := "text\nchanged\n600\n/somewhere/plugin\n2\n1"
		if d := cmp.Diff(want, said(t, g, look+"; echo 4711 > /proc/sys/kernel/panic")); d != "" {
			t.Errorf("the %s time (-want +got):\n%s", time, d)
		}
	}
	after, err := os.ReadFile(filepath.Join("/proc/sys", panicSetting))
	if err != nil || string(after) != string(before) {
		t.Errorf("the machine's own kernel.panic was %q and is %q (%v)", before, after, err)
	}
	if _, err := os.Stat("/etc/kubernetes/file"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the machine has the instance's file: %v", err)
	}
}

func TestApplyErrors(t *testing.T) {
	g, command := startGuest(t)
	for _, c := range []struct {
		name, want string
		s          Setup
	}{
		{"no such setting", "cover setting kernel/none", Setup{Shown: map[string]string{"kernel/none": "1"}}},
		{"a file where a directory has to be", "not a directory", Setup{Files: []File{{"/etc/hostname/file", nil}}}},
		{"a file where a file system has to be", "mount tmpfs on /etc/hostname", Setup{Memory: []string{"/etc/hostname"}}},
	} {
		if err := apply(t.Context(), g.Client, command, c.s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if err := Apply(strings.NewReader("{")); err == nil || !strings.Contains(err.Error(), "read setup") {
		t.Errorf("half a document: %v", err)
	}
}

// TestImage: an image's plugins, and what the instance has there itself.
func TestImage(t *testing.T) {
	g, command := startGuest(t)
	dir := t.TempDir()
	for _, name := range []string{"portmap", "loopback"} {
		if err := os.MkdirAll(filepath.Join(dir, "cni"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "cni", name), []byte(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	said(t, g, "rm -rf /opt/cni; mkdir -p /opt/cni/bin; echo own > /opt/cni/bin/portmap")
	if err := Programs(dir).Image(command)(t.Context(), g.Client); err != nil {
		t.Fatal(err)
	}
	if got := said(t, g, "cat /opt/cni/bin/loopback /opt/cni/bin/portmap"); got != "loopbackown" {
		t.Errorf("plugins are %q, want the image's loopback and the instance's own portmap", got)
	}
}

func TestSetupIsSmall(t *testing.T) {
	a := testAuthority(t)
	p, err := a.issue(identity{user: "somebody"})
	if err != nil {
		t.Fatal(err)
	}
	var s Setup
	for range 20 { // more than there are
		s.Files = append(s.Files, File{"/etc/kubernetes/some.crt", p.cert}, File{"/etc/kubernetes/some.key", p.key})
	}
	text, err := json.Marshal(s)
	if err != nil || len(text) > maxSetup/10 {
		t.Errorf("a setup is %d bytes (%v); the most is %d", len(text), err, maxSetup)
	}
}
