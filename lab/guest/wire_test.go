package guest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFrameRoundTrip(t *testing.T) {
	want := request{Op: opExec, Argv: []string{"a", "b c"}, Env: []string{"X=\"1\""}, Caps: []uintptr{}}
	frame, err := encodeFrame(want)
	if err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(append(frame, frame...))
	for range 2 {
		var got request
		if err := readFrame(r, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if err := readFrame(r, &request{}); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// What a frame says of capabilities decides what a daemon may do: no
// capabilities at all and no limit must not be confused.
func TestCapsNullAndEmpty(t *testing.T) {
	for _, want := range [][]uintptr{nil, {}} {
		frame, err := encodeFrame(request{Caps: want})
		if err != nil {
			t.Fatal(err)
		}
		var got request
		if err := readFrame(bytes.NewReader(frame), &got); err != nil {
			t.Fatal(err)
		}
		if (got.Caps == nil) != (want == nil) {
			t.Errorf("%#v becomes %#v", want, got.Caps)
		}
	}
}

func TestErrorsCrossTheWire(t *testing.T) {
	for _, want := range []error{ErrNoDaemon, ErrDaemonRunning, syscall.ENOENT, syscall.EPERM} {
		b, err := json.Marshal(failure(want))
		if err != nil {
			t.Fatal(err)
		}
		var r reply
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
		if got := r.err(); !errors.Is(got, want) || got.Error() != want.Error() {
			t.Errorf("%v becomes %v", want, got)
		}
	}
	if err := (reply{}).err(); err != nil {
		t.Error(err)
	}
}

func FuzzReadFrame(f *testing.F) {
	frame, err := encodeFrame(request{Op: opExec, Argv: []string{"sh", "-c", "true"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame)
	f.Add(frame[:len(frame)-1])
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{255, 255, 255, 255, '{', '}'})
	f.Add([]byte{0, 0, 0, 4, '{', '}', '{', '}'})
	f.Fuzz(func(t *testing.T, b []byte) {
		var req request
		if err := readFrame(bytes.NewReader(b), &req); err != nil {
			return
		}
		again, err := encodeFrame(req)
		if err != nil {
			t.Fatalf("%+v was read but cannot be written: %v", req, err)
		}
		var got request
		if err := readFrame(bytes.NewReader(again), &got); err != nil {
			t.Fatal(err)
		}
		// Empty lists may become absent ones, but nothing else may change.
		a, _ := json.Marshal(req)
		c, _ := json.Marshal(got)
		if !bytes.Equal(a, c) {
			t.Errorf("%s became %s", a, c)
		}
	})
}

func TestParseMountinfo(t *testing.T) {
	text := `22 27 0:21 / /proc rw,relatime - proc proc rw
41 31 0:38 / /sys/fs/cgroup rw shared:4 master:1 - cgroup2 cgroup2 rw
50 27 0:40 /sub\040dir /mnt/a\134b rw - ext4 /dev/sda rw
`
	got, err := parseMountinfo(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []mountPoint{{"/", "/proc", "proc"}, {"/", "/sys/fs/cgroup", "cgroup2"}, {"/sub dir", `/mnt/a\b`, "ext4"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mountPoint{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, bad := range []string{"x\n", "1 2 3 4 5 6 proc\n", "1 2 - proc\n", "1 2 3 4 5 6 - \n"} {
		if _, err := parseMountinfo(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
