package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDial(t *testing.T) {
	g := start(t)
	c, err := Dial(filepath.Join(g.cfg.Dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	status, err := c.Exec(t.Context(), sh("exit 5"))
	if err != nil || status.Code != 5 {
		t.Errorf("got %v, %v", status, err)
	}
	if _, err := Dial(filepath.Join(g.cfg.Dir, "other.sock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
	if _, err := Dial("/no/such/directory/guest.sock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if err := g.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), sh("exit 5")); err == nil {
		t.Error("a stopped guest answers")
	}
}

// Only root may connect, and the socket's mode says so.
func TestSocketRefusesOthers(t *testing.T) {
	g := start(t)
	info, err := os.Stat(filepath.Join(g.cfg.Dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	// Past the mode, by a descriptor on the directory, the peer's uid decides.
	if err := os.Chmod(filepath.Join(g.cfg.Dir, SocketName), 0o666); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread's uid goes with it
		dir, err := unix.Open(g.cfg.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			result <- err
			return
		}
		defer unix.Close(dir)
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			result <- err
			return
		}
		// The raw call changes this thread only; capabilities stay, so that the
		// path can be walked.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETFSUID, 65534, 0, 0); errno != 0 {
			result <- errno
			return
		}
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			result <- err
			return
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			result <- errno
			return
		}
		raiseEffective()
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/thread-self/fd/%d/%s", dir, SocketName)})
		if err != nil {
			result <- fmt.Errorf("connect: %w", err)
			return
		}
		conn, err := unixConn(fd, "test")
		if err != nil {
			result <- err
			return
		}
		defer conn.Close()
		var r reply
		if err := readFrame(conn, &r); err != nil {
			result <- err
			return
		}
		result <- r.err()
	}()
	if err := <-result; err == nil || !strings.Contains(err.Error(), "uid 65534") {
		t.Errorf("got %v, want a refusal of uid 65534", err)
	}
}

// raiseEffective makes the permitted capabilities effective again.
func raiseEffective() {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) == nil {
		for i := range data {
			data[i].Effective = data[i].Permitted
		}
		_ = unix.Capset(&header, &data[0])
	}
}

func TestMalformedRequests(t *testing.T) {
	g := start(t)
	valid := func(v any) []byte {
		b, err := encodeFrame(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	tests := []struct {
		name  string
		bytes []byte
		files int
		want  string // in the reply; empty: none is owed
	}{
		{"nothing", nil, 0, ""},
		{"half a length", []byte{0, 0}, 0, ""},
		{"length 0", []byte{0, 0, 0, 0}, 0, "frame of 0 bytes"},
		{"length of 4 GiB", []byte{255, 255, 255, 255}, 0, "frame of 4294967295 bytes"},
		{"half a body", []byte{0, 0, 0, 9, '{'}, 0, ""},
		{"no JSON", append([]byte{0, 0, 0, 3}, "abc"...), 0, "malformed"},
		{"unknown field", append([]byte{0, 0, 0, 7}, `{"x":1}`...), 0, "unknown field"},
		{"unknown operation", valid(request{Op: "reboot"}), 0, `unknown operation "reboot"`},
		{"no files", valid(request{Op: opExec, Argv: []string{"true"}}), 0, "0 file descriptors"},
		{"too many files", valid(request{Op: opExec, Argv: []string{"true"}}), 9, "more than 3"},
		{"files for nothing", valid(request{Op: opPing}), 2, ""},
		{"nameless daemon", valid(request{Op: opDaemon, Argv: []string{"true"}}), 3, "no name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := g.connect()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			var rights []byte
			if tt.files > 0 {
				fds := make([]int, tt.files)
				for i := range fds {
					fds[i] = int(null.Fd())
				}
				rights = unix.UnixRights(fds...)
			}
			if len(tt.bytes) > 0 {
				if _, _, err := conn.WriteMsgUnix(tt.bytes, rights, nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			var r reply
			err = readFrame(conn, &r)
			if tt.want != "" && (err != nil || !strings.Contains(r.Error, tt.want)) {
				t.Errorf("got %+v, %v; want %q", r, err, tt.want)
			}
		})
	}
	if _, err := g.Exec(t.Context(), sh("exit 0")); err != nil {
		t.Errorf("init after all that: %v", err)
	}
	eventually(t, "init closes what it was sent", func() bool {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.PID()))
		return err == nil && len(entries) <= 12
	})
}

// A frame that is no signal, while the command runs, ends the command.
func TestMalformedWhileRunning(t *testing.T) {
	g := start(t)
	files, release, err := Cmd{}.files()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	conn, err := g.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := g.roundTrip(t.Context(), conn, request{Op: opExec, Argv: []string{"sleep", "1000"}}, files...); err != nil {
		t.Fatal(err)
	}
	if err := writeFrame(conn, request{Op: opPing}); err != nil {
		t.Fatal(err)
	}
	var r reply
	if err := readFrame(conn, &r); err != nil || !strings.Contains(r.Error, "only signals") {
		t.Errorf("got %+v, %v", r, err)
	}
	eventually(t, "the command is killed", func() bool { return members(t, g) == 1 })
}
