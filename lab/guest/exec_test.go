package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestExitStatus(t *testing.T) {
	g := start(t)
	tests := []struct {
		name  string
		cmd   Cmd
		want  ExitStatus
		shell int
	}{
		{"success", sh("exit 0"), ExitStatus{}, 0},
		{"code", sh("exit 42"), ExitStatus{Code: 42}, 42},
		{"signal", sh("kill -KILL $$"), ExitStatus{Signal: unix.SIGKILL}, 137},
		{"kill init", sh("kill -TERM 1; kill -HUP 1; kill -INT 1; kill -KILL 1; exit 7"), ExitStatus{Code: 7}, 7},
		{"directory", Cmd{Argv: []string{"sh", "-c", `test "$(pwd)" = /usr`}, Dir: "/usr"}, ExitStatus{}, 0},
		{"environment", Cmd{Argv: []string{"/bin/sh", "-c", `test "$A" = b`}, Env: []string{"A=b"}}, ExitStatus{}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := g.Exec(t.Context(), tt.cmd)
			if err != nil || got != tt.want || got.Shell() != tt.shell {
				t.Errorf("got %v (shell %d), %v; want %v", got, got.Shell(), err, tt.want)
			}
		})
	}
}

func TestExecErrors(t *testing.T) {
	g := start(t)
	tests := []struct {
		name string
		cmd  Cmd
		want error
		text string
	}{
		{"no such program", Cmd{Argv: []string{"/no/such"}}, fs.ErrNotExist, "/no/such"},
		{"not in PATH", Cmd{Argv: []string{"no-such-program"}}, fs.ErrNotExist, "PATH=" + defaultPath},
		{"no PATH at all", Cmd{Argv: []string{"sh"}, Env: []string{"A=b"}}, fs.ErrNotExist, "PATH="},
		{"not executable", Cmd{Argv: []string{"/etc/hostname"}}, fs.ErrPermission, "/etc/hostname"},
		{"no such directory", Cmd{Argv: []string{"sh"}, Dir: "/no/such"}, fs.ErrNotExist, "/no/such"},
		{"no arguments", Cmd{}, nil, "argument list is empty"},
		{"unknown capability", Cmd{Argv: []string{"sh"}, Caps: []uintptr{99}}, nil, "capability 99"},
		{"too much", Cmd{Argv: []string{"sh", strings.Repeat("x", maxFrame)}}, errFrame, "at most"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := g.Exec(t.Context(), tt.cmd)
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("got %v, want an error with %q", err, tt.text)
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%v is not %v", err, tt.want)
			}
		})
	}
}

func TestStdin(t *testing.T) {
	g := start(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		io.WriteString(w, strings.Repeat("line\n", 50_000)) // more than a pipe holds
		w.Close()
	}()
	cmd := sh("wc -l | tr -d ' '")
	cmd.Stdin = r
	got, _ := output(t, g, cmd)
	r.Close()
	if got != "50000\n" {
		t.Errorf("got %q", got)
	}
	if got, _ := output(t, g, Cmd{Argv: []string{"cat"}}); got != "" {
		t.Errorf("no stdin gives %q", got)
	}
}

func TestSignalsAreForwarded(t *testing.T) {
	g := start(t)
	signals := make(chan os.Signal, 1)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		// The trap is set when the first byte comes.
		io.ReadFull(r, make([]byte, 6))
		signals <- unix.SIGTERM
	}()
	cmd := sh(`trap 'exit 33' TERM; echo ready; while :; do sleep 1000 & wait; done`)
	cmd.Stdout, cmd.Signals = w, signals
	status, err := g.Exec(t.Context(), cmd)
	w.Close()
	if err != nil || status != (ExitStatus{Code: 33}) {
		t.Errorf("got %v, %v; want exit status 33", status, err)
	}
}

// members counts the guest's processes, init among them, as the host sees them.
func members(t *testing.T, g *Guest) int {
	t.Helper()
	pids, err := cgroupPIDs(g.cfg.Cgroup)
	if err != nil {
		t.Fatal(err)
	}
	return len(pids)
}

func TestDisconnectKills(t *testing.T) {
	g := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := g.Exec(ctx, sh("trap '' TERM INT HUP; sleep 1000 & sleep 1000 & wait"))
		ended <- err
	}()
	eventually(t, "sh and two sleeps run", func() bool { return members(t, g) == 4 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	eventually(t, "only init is left", func() bool { return members(t, g) == 1 })
}

func TestOrphansAreReaped(t *testing.T) {
	g := start(t)
	// Each inner shell is orphaned when its parent ends, and ends later.
	if _, err := g.Exec(t.Context(), sh("for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.1 &) ; done")); err != nil {
		t.Fatal(err)
	}
	children := fmt.Sprintf("/proc/%d/task/%d/children", g.PID(), g.PID())
	eventually(t, "init has no child", func() bool {
		tasks, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(children)), "*", "children"))
		if err != nil || len(tasks) == 0 {
			t.Skip("the kernel has no /proc/PID/task/TID/children (CONFIG_PROC_CHILDREN)")
		}
		for _, task := range tasks {
			if text, err := os.ReadFile(task); err == nil && len(text) > 0 {
				return false
			}
		}
		return true
	})
}

func TestParallelExec(t *testing.T) {
	g := start(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			status, err := g.Exec(t.Context(), sh(fmt.Sprintf("exit %d", i)))
			if err != nil || status.Code != i {
				t.Errorf("exec %d: %v, %v", i, status, err)
			}
		})
	}
	wg.Wait()
	// Init closes a connection after it has answered on it.
	eventually(t, "init holds no more than 12 descriptors after all ended", func() bool {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.PID()))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries) <= 12
	})
}

func TestCapabilities(t *testing.T) {
	g := start(t)
	sets := func(cmd Cmd) string {
		cmd.Argv = []string{"grep", "-E", "^Cap|^Uid", "/proc/self/status"}
		got, _ := output(t, g, cmd)
		return strings.Join(strings.Fields(got), " ")
	}
	const format = "Uid: 0 0 0 0 CapInh: 0000000000000000 CapPrm: %016[1]x CapEff: %016[1]x CapBnd: %016[1]x CapAmb: 0000000000000000"
	all := sets(Cmd{})
	for _, caps := range [][]uintptr{{unix.CAP_NET_ADMIN}, {unix.CAP_NET_ADMIN, unix.CAP_BPF}, {}} {
		var mask uint64
		for _, c := range caps {
			mask |= 1 << c
		}
		if diff := cmp.Diff(fmt.Sprintf(format, mask), sets(Cmd{Caps: caps})); diff != "" {
			t.Errorf("caps %v (-want +got):\n%s", caps, diff)
		}
	}
	for range 20 { // the cut must not spread to init's other threads
		if again := sets(Cmd{}); again != all {
			t.Fatalf("a later command without limit has %s, before %s", again, all)
		}
	}
}

func TestDaemons(t *testing.T) {
	g := start(t)
	ctx := t.Context()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d := Daemon{
		Name: "agent",
		Argv: []string{"sh", "-c", "trap 'echo bye; exit 3' TERM; echo hello; while :; do sleep 1000 & wait; done"},
		Log:  log,
		Caps: []uintptr{unix.CAP_NET_ADMIN},
	}
	pid, err := g.StartDaemon(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.StartDaemon(ctx, d); !errors.Is(err, ErrDaemonRunning) {
		t.Errorf("second start: %v, want ErrDaemonRunning", err)
	}
	if _, err := g.StartDaemon(ctx, Daemon{Name: "other", Argv: []string{"/no/such"}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such program: %v", err)
	}
	for _, err := range []error{
		g.SignalDaemon(ctx, "none", unix.SIGTERM),
		func() error { _, err := g.WaitDaemon(ctx, "none"); return err }(),
	} {
		if !errors.Is(err, ErrNoDaemon) {
			t.Errorf("unknown daemon: %v, want ErrNoDaemon", err)
		}
	}
	eventually(t, "the daemon says hello", func() bool {
		b, _ := os.ReadFile(log.Name())
		return string(b) == "hello\n"
	})
	check := func(want DaemonStatus) {
		t.Helper()
		got, err := g.Daemons(ctx)
		if diff := cmp.Diff([]DaemonStatus{want}, got); err != nil || diff != "" {
			t.Errorf("daemons: %v (-want +got):\n%s", err, diff)
		}
	}
	check(DaemonStatus{Name: "agent", PID: pid, Running: true})
	if err := g.SignalDaemon(ctx, "agent", 0); err == nil {
		t.Error("signal 0 is taken")
	}
	if err := g.SignalDaemon(ctx, "agent", unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	status, err := g.WaitDaemon(ctx, "agent")
	if err != nil || status.Code != 3 {
		t.Errorf("wait: %v, %v; want exit status 3", status, err)
	}
	check(DaemonStatus{Name: "agent", PID: pid, Exit: ExitStatus{Code: 3}})
	if b, _ := os.ReadFile(log.Name()); string(b) != "hello\nbye\n" {
		t.Errorf("log: %q", b)
	}
	if again, err := g.StartDaemon(ctx, d); err != nil || again == pid {
		t.Errorf("start again: pid %d, %v", again, err)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := g.WaitDaemon(short, "agent"); !errors.Is(err, context.Canceled) {
		t.Errorf("wait with ended context: %v", err)
	}
}
