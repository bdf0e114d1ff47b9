package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// holderName is argv[0] of a test process that starts a guest and waits to be
// killed.
const holderName = "guest-test-holder"

func TestMain(m *testing.M) {
	MaybeInit()
	if os.Args[0] == holderName {
		os.Exit(hold(os.Args[1], os.Args[2]))
	}
	os.Exit(m.Run())
}

// hold starts a guest with a daemon, prints init's PID and blocks.
func hold(dir, cgroup string) int {
	g, err := Start(context.Background(), Config{ID: "i-held", Hostname: "held", Dir: dir, Cgroup: cgroup})
	if err == nil {
		_, err = g.StartDaemon(context.Background(), Daemon{Name: "sleep", Argv: []string{"sleep", "1000"}})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(g.PID())
	for { // until it is killed; `select {}` is a deadlock to a program without cgo
		_, _ = unix.Poll(nil, -1)
	}
}

// place gives the directories of a guest of this test.
func place(t *testing.T) Config {
	t.Helper()
	if err := Check(); err != nil {
		t.Skip(err)
	}
	root, err := CgroupRoot()
	if err != nil {
		t.Skip(err)
	}
	lab := fmt.Sprintf("fairway-lab.test-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
	cfg := Config{
		ID:       "i-0123",
		Hostname: "ip-10-0-0-4",
		Dir:      filepath.Join(t.TempDir(), "lab", "i-0123"),
		Cgroup:   filepath.Join(root, lab, "i-0123"),
	}
	t.Cleanup(func() {
		for _, path := range []string{cfg.Dir, cfg.Cgroup, filepath.Dir(cfg.Cgroup)} {
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is left behind (stat: %v)", path, err)
			}
		}
	})
	return cfg
}

func start(t *testing.T) *Guest {
	t.Helper()
	cfg := place(t)
	g, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// output runs a shell script in the guest and gives what it prints.
func output(t *testing.T, g *Guest, cmd Cmd) (string, ExitStatus) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	text := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(r)
		text <- string(b)
	}()
	status, err := g.Exec(t.Context(), cmd)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return <-text, status
}

func sh(script string) Cmd { return Cmd{Argv: []string{"sh", "-c", script}} }

// eventually polls, for as long as only a stuck machine needs.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	const patience = 2 * time.Minute
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func TestOwnView(t *testing.T) {
	marker := fmt.Sprintf("fairway-test-%d", os.Getpid())
	for _, dir := range []string{"/etc/cni", "/var/lib/cni", "/opt/cni", "/run"} {
		if _, err := os.Stat(filepath.Join(dir, marker)); err == nil {
			t.Fatalf("%s/%s is there before the test", dir, marker)
		}
	}
	g := start(t)
	tests := []struct{ name, script, want string }{
		{"hostname", "cat /proc/sys/kernel/hostname /etc/hostname", "ip-10-0-0-4\nip-10-0-0-4\n"},
		{"hosts", "cat /etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"},
		{"host's etc is seen", "test -e /etc/passwd && echo yes", "yes\n"},
		{"run is empty", "ls /run", "lock\n"},
		{"init is pid 1", "tr '\\0' ' ' </proc/1/cmdline", initName + " "},
		{"init and the shell alone", "set -- /proc/[0-9]*; echo $#", "2\n"},
		{"links", "ls /sys/class/net", "lo\n"},
		{"cgroup root", "cat /proc/self/cgroup | grep ^0:", "0::/\n"},
		{"cgroup mount", "grep -c . /sys/fs/cgroup/cgroup.procs | grep -q '^[1-9]' && echo yes", "yes\n"},
		{"bpffs", "grep -c ' /sys/fs/bpf bpf ' /proc/mounts", "1\n"},
		{"forwarding", "cat /proc/sys/net/ipv4/ip_forward", "0\n"},
		{"default environment", "env | grep -v -e ^PWD -e ^_ -e ^SHLVL -e ^OLDPWD | sort", "HOME=/root\nPATH=" + defaultPath + "\n"},
		{"only the three descriptors", "exec ls /proc/self/fd", "0\n1\n2\n3\n"}, // 3 is ls's own, on the directory
		{"write everywhere", "for d in /etc/cni /var/lib/cni /opt/cni /run; do mkdir -p $d && echo x >$d/" + marker + " || exit 1; done; cat /etc/cni/" + marker, "x\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, status := output(t, g, sh(tt.script))
			if diff := cmp.Diff(tt.want, got); diff != "" || status != (ExitStatus{}) {
				t.Errorf("%v; (-want +got):\n%s", status, diff)
			}
		})
	}
	for _, dir := range []string{"/etc/cni", "/var/lib/cni", "/opt/cni", "/run"} {
		if _, err := os.Stat(filepath.Join(dir, marker)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s/%s of the guest is seen on the host: %v", dir, marker, err)
		}
	}
}

// The mount namespace that the guest is cloned from is made shared here, the
// setting under which a mount of the guest's would spread.
func TestHostMountsUnchanged(t *testing.T) {
	cfg := place(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread's namespace goes with it
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			t.Error(err)
			return
		}
		for _, how := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
			if err := unix.Mount("", "/", "", unix.MS_REC|how, ""); err != nil {
				t.Error(err)
				return
			}
		}
		before, err := os.ReadFile("/proc/thread-self/mountinfo")
		if err != nil {
			t.Error(err)
			return
		}
		g, err := Start(context.Background(), cfg)
		if err != nil {
			t.Error(err)
			return
		}
		during, _ := os.ReadFile("/proc/thread-self/mountinfo")
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
		after, _ := os.ReadFile("/proc/thread-self/mountinfo")
		if diff := cmp.Diff(string(before), string(during)); diff != "" {
			t.Errorf("while the guest ran (-before +during):\n%s", diff)
		}
		if diff := cmp.Diff(string(before), string(after)); diff != "" {
			t.Errorf("after the guest (-before +after):\n%s", diff)
		}
	}()
	<-done
}

func TestTwoGuests(t *testing.T) {
	a := start(t)
	t.Run("b", func(t *testing.T) {
		b := start(t)
		if _, status := output(t, a, sh("mkdir -p /etc/cni && echo a >/etc/cni/same && echo a >/run/same")); status.Shell() != 0 {
			t.Fatal(status)
		}
		if got, _ := output(t, b, sh("cat /etc/cni/same /run/same 2>/dev/null; ls /run")); got != "lock\n" {
			t.Errorf("b sees %q of a", got)
		}
	})
	if got, _ := output(t, a, sh("cat /run/same")); got != "a\n" {
		t.Errorf("a after b's end: %q", got)
	}
}
