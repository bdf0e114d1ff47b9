package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestStopAndDone(t *testing.T) {
	g := start(t)
	ended := make(chan error, 1)
	go func() {
		_, err := g.Exec(context.Background(), sh("sleep 1000"))
		ended <- err
	}()
	eventually(t, "the command runs", func() bool { return members(t, g) >= 2 })
	if err := g.Stop(); err != nil {
		t.Error(err)
	}
	<-g.Done()
	if err := <-ended; err == nil {
		t.Error("a command outlives the guest")
	}
	if err := g.Stop(); err != nil {
		t.Errorf("second stop: %v", err)
	}
	var exit *exec.ExitError
	if err := g.Wait(); !errors.As(err, &exit) {
		t.Errorf("wait: %v, want a killed process", err)
	}
	if err := Reap(g.cfg.Dir, g.cfg.Cgroup); err != nil {
		t.Errorf("reap of nothing: %v", err)
	}
}

func TestStartErrors(t *testing.T) {
	good := place(t)
	tests := []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no id", func(c *Config) { c.ID = "" }, "ID is empty"},
		{"no hostname", func(c *Config) { c.Hostname = "" }, "hostname"},
		{"long hostname", func(c *Config) { c.Hostname = strings.Repeat("h", 65) }, "hostname"},
		{"relative directory", func(c *Config) { c.Dir = "x/y" }, "absolute"},
		{"top directory", func(c *Config) { c.Dir = "/etc" }, "not at the top"},
		{"directory is there", func(c *Config) { c.Dir = t.TempDir() }, "make state directory"},
		{"no cgroup", func(c *Config) { c.Cgroup = "" }, "CgroupRoot"},
		{"relative cgroup", func(c *Config) { c.Cgroup = "x" }, "absolute"},
		{"not a cgroup", func(c *Config) { c.Cgroup = filepath.Join(t.TempDir(), "lab", "i") }, "not a directory of a cgroup v2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			g, err := Start(t.Context(), cfg)
			if err == nil {
				g.Stop()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	t.Run("context has ended", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Start(ctx, good); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want canceled", err)
		}
	})
	t.Run("twice", func(t *testing.T) {
		g := start(t)
		again := g.cfg
		again.Dir = filepath.Join(t.TempDir(), "i")
		if _, err := Start(t.Context(), again); !errors.Is(err, fs.ErrExist) {
			t.Errorf("got %v, want exists", err)
		}
		if _, err := g.Exec(t.Context(), sh("exit 0")); err != nil {
			t.Errorf("the first guest suffered: %v", err)
		}
	})
}

func TestInitNeedsPID1(t *testing.T) {
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{initName}}
	out, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("not the first")) {
		t.Errorf("got %q, %v", out, err)
	}
}

// The lab is killed with SIGKILL: everything of the guest must end by itself,
// and Reap must find nothing but names.
func TestLifeline(t *testing.T) {
	cfg := place(t)
	pid, kill := startHolder(t, cfg)
	before, err := cgroupPIDs(cfg.Cgroup)
	if err != nil || len(before) != 2 {
		t.Fatalf("processes of the guest: %v, %v; want init and sleep", before, err)
	}
	kill()
	eventually(t, "all processes of the guest end", func() bool {
		pids, err := cgroupPIDs(cfg.Cgroup)
		return err == nil && len(pids) == 0
	})
	// A process that ends is in no cgroup a moment before it is in no namespace.
	eventually(t, "init's namespaces go", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
		return err != nil
	})
	for range 2 {
		if err := Reap(cfg.Dir, cfg.Cgroup); err != nil {
			t.Error(err)
		}
	}
}

// Reap ends a guest that runs on for whatever reason, with either way to kill.
func TestReapKills(t *testing.T) {
	for _, way := range []struct {
		name string
		kill func(string) error
	}{{"cgroup.kill", killCgroup}, {"signals", signalCgroup}} {
		t.Run(way.name, func(t *testing.T) {
			cfg := place(t)
			startHolder(t, cfg)
			if err := way.kill(cfg.Cgroup); err != nil {
				t.Error(err)
			}
			eventually(t, "the cgroup empties", func() bool {
				pids, err := cgroupPIDs(cfg.Cgroup)
				return err == nil && len(pids) == 0
			})
			if err := Reap(filepath.Dir(cfg.Dir), filepath.Dir(cfg.Cgroup)); err != nil {
				t.Errorf("reap of the whole lab: %v", err)
			}
		})
	}
	t.Run("running", func(t *testing.T) {
		cfg := place(t)
		startHolder(t, cfg)
		if err := os.Mkdir(filepath.Join(cfg.Cgroup, "pod"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := Reap(cfg.Dir, cfg.Cgroup); err != nil {
			t.Error(err)
		}
	})
}

func TestReapRefuses(t *testing.T) {
	root := filepath.Dir(filepath.Dir(place(t).Cgroup))
	own := t.TempDir()
	for _, tt := range []struct{ dir, cgroup, want string }{
		{"", root, "root of the hierarchy"},
		{"", own, "not a directory of a cgroup v2"},
		{"/", "", "not at the top"},
		{"/etc", "", "not at the top"},
		{"relative/dir", "", "absolute"},
	} {
		if err := Reap(tt.dir, tt.cgroup); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Reap(%q, %q) = %v, want %q", tt.dir, tt.cgroup, err, tt.want)
		}
	}
}

// startHolder runs a process that holds a guest, and gives init's PID and the
// function that kills the holder.
func startHolder(t *testing.T, cfg Config) (int, func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{holderName, cfg.Dir, cfg.Cgroup}, Stdout: w, Stderr: os.Stderr}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	kill := sync.OnceFunc(func() {
		cmd.Process.Signal(syscall.SIGKILL)
		cmd.Wait()
	})
	t.Cleanup(kill)
	var line [200]byte
	n, _ := r.Read(line[:])
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil {
		t.Fatalf("the holder says %q", line[:n])
	}
	return pid, kill
}
