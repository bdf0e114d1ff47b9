package guest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Init that ends at any moment, and what cannot be removed yet.

// pair is a connection of which the test has the other end.
func pair(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		if conns[i], err = unixConn(fd, "pair"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conns[i].Close() })
	}
	return conns[0], conns[1]
}

// ends are the moments at which the other end of a connection may end.
var ends = map[string]func(theirs *net.UnixConn){
	"before anything is written": func(theirs *net.UnixConn) { theirs.Close() },
	"with all of it unread":      func(theirs *net.UnixConn) { await(theirs, 1); theirs.Close() },
	"with a part of it read":     func(theirs *net.UnixConn) { io.ReadFull(theirs, make([]byte, 2)); theirs.Close() },
	"with all of it read": func(theirs *net.UnixConn) {
		var any map[string]any
		_ = readFrame(theirs, &any)
		theirs.Close()
	},
	"within its answer": func(theirs *net.UnixConn) {
		var any map[string]any
		_ = readFrame(theirs, &any)
		_, _ = theirs.Write([]byte{0, 0})
		theirs.Close()
	},
}

// await waits until n bytes can be read, and leaves them.
func await(c *net.UnixConn, n int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		got, _, err := unix.Recvfrom(int(fd), make([]byte, n), unix.MSG_PEEK)
		return got == n || err != nil && !errors.Is(err, unix.EAGAIN)
	})
}

func TestInitEndsEarly(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			ours, theirs := pair(t)
			g := &Guest{cfg: Config{Dir: t.TempDir()}, lifeline: ours}
			if err := os.WriteFile(filepath.Join(g.cfg.Dir, LogName), []byte("last words"), 0o600); err != nil {
				t.Fatal(err)
			}
			if name == "before anything is written" {
				end(theirs)
			} else {
				go end(theirs)
			}
			err := g.boot(t.Context())
			if !errors.Is(err, errEnded) || !strings.Contains(err.Error(), "last words") {
				t.Errorf("boot: %v", err)
			}
		})
	}
}

func TestGuestStopsDuringRequest(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			ours, theirs := pair(t)
			if name == "before anything is written" {
				end(theirs)
			} else {
				go end(theirs)
			}
			_, err := (&Client{}).roundTrip(t.Context(), ours, request{Op: opPing})
			if err == nil || !strings.HasSuffix(err.Error(), "the guest stopped") {
				t.Errorf("request: %v", err)
			}
		})
	}
	t.Run("refused before it is written", func(t *testing.T) {
		ours, theirs := pair(t)
		if err := writeFrame(theirs, failure(ErrNoDaemon)); err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		if _, err := (&Client{}).roundTrip(t.Context(), ours, request{Op: opPing}); !errors.Is(err, ErrNoDaemon) {
			t.Errorf("request: %v, want %v", err, ErrNoDaemon)
		}
	})
}

// TestNetNSOfEnded: a process that has ended, and is not waited for yet, has no
// network namespace any more.
func TestNetNSOfEnded(t *testing.T) {
	g := &Guest{cfg: Config{Dir: t.TempDir()}, cmd: exec.Command("/bin/true")}
	if err := os.WriteFile(filepath.Join(g.cfg.Dir, LogName), []byte("last words"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer g.cmd.Wait()
	if err := unix.Waitid(unix.P_PID, g.PID(), nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if err := g.openNetNS(); !errors.Is(err, errEnded) || !strings.Contains(err.Error(), "last words") {
		t.Errorf("open namespace: %v, want %v and the log", err, errEnded)
	}
}

// TestStopAgain: what could not be removed is removed by the next Stop.
func TestStopAgain(t *testing.T) {
	g, err := Start(context.Background(), place(t))
	if err != nil {
		t.Fatal(err)
	}
	busy := filepath.Join(g.cfg.Dir, "busy")
	if err := os.Mkdir(busy, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("test", busy, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := g.Stop(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("stop while something is mounted: %v, want %v", err, unix.EBUSY)
	}
	if err := unix.Unmount(busy, 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := g.Stop(); err != nil {
			t.Errorf("stop again: %v", err)
		}
	}
}
