package cniserver

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fairway")
	path := filepath.Join(dir, "cni.sock")
	for range 2 { // the second time in a directory that is there
		ln, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]os.FileMode{dir: os.ModeDir | 0o700, path: os.ModeSocket | 0o600} {
			if st, err := os.Stat(name); err != nil || st.Mode() != want {
				t.Errorf("%s: mode %v, %v, want %v", name, st.Mode(), err, want)
			}
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if _, err := Listen(path); !errors.Is(err, ErrLive) {
			t.Errorf("listen beside a live agent: %v, want %v", err, ErrLive)
		}
		ln.Close()
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after close the socket is still there: %v", err)
		}
	}
}

func TestListenStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false) // as when the agent is killed
	old.Close()
	ln, err := Listen(path)
	if err != nil {
		t.Fatalf("with a stale socket in the way: %v", err)
	}
	ln.Close()
}

// TestListenLiveButBusy: an agent that takes no more connections is alive.
func TestListenLiveButBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path) // fills a backlog of 0
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := Listen(path); !errors.Is(err, ErrLive) {
		t.Errorf("listen: %v, want %v", err, ErrLive)
	}
}

func TestListenRefuses(t *testing.T) {
	tests := []struct {
		name string
		make func(dir string) (path string, err error)
		want error
	}{
		{"a file in the way", func(dir string) (string, error) { return dir + "/s", os.WriteFile(dir+"/s", []byte("mine"), 0o600) }, ErrUnsafe},
		{"a link in the way", func(dir string) (string, error) { return dir + "/s", os.Symlink("/nowhere", dir+"/s") }, ErrUnsafe},
		{"a directory that others may write", func(dir string) (string, error) { return dir + "/s", os.Chmod(dir, 0o777) }, ErrUnsafe},
		{"a directory of somebody else", func(dir string) (string, error) { return dir + "/s", os.Chown(dir, 65534, 65534) }, ErrUnsafe},
		{"a directory that is a file", func(dir string) (string, error) { return dir + "/f/s", os.WriteFile(dir+"/f", nil, 0o600) }, unix.ENOTDIR},
		{"a path that is too long", func(dir string) (string, error) {
			return dir + "/" + strings.Repeat("a", 120), nil
		}, unix.EINVAL},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("needs root: chown")
			}
			path, err := tt.make(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			before, _ := os.Lstat(path)
			ln, err := Listen(path)
			if err == nil {
				ln.Close()
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if after, _ := os.Lstat(path); before != nil && (after == nil || after.Mode() != before.Mode()) {
				t.Errorf("what was in the way is not as it was: %v", after)
			}
		})
	}
}

// TestListenTogether: of agents that start at the same moment over a stale
// socket, one gets it.
func TestListenTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	const n = 16
	listeners, errs := make([]*net.UnixListener, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { listeners[i], errs[i] = Listen(path) })
	}
	wg.Wait()
	got := 0
	for i, ln := range listeners {
		switch {
		case errs[i] == nil:
			got++
			defer ln.Close()
		case !errors.Is(errs[i], ErrLive):
			t.Errorf("listen: %v, want %v", errs[i], ErrLive)
		}
	}
	if got != 1 {
		t.Errorf("%d of %d listen", got, n)
	}
}
