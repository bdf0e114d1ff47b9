package cniapi

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var spooledAt = time.Date(2026, 11, 21, 3, 0, 0, 123456789, time.UTC)

func entry(id string, after time.Duration) SpoolEntry {
	return SpoolEntry{ContainerID: id, IfName: "eth0", NetNS: "/run/netns/" + id, Network: "fairway", Time: spooledAt.Add(after)}
}

func write(t *testing.T, dir string, entries ...SpoolEntry) {
	t.Helper()
	for _, e := range entries {
		if err := WriteSpool(dir, e); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, dir string) []SpoolEntry {
	t.Helper()
	got, err := ReadSpool(dir)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		out = append(out, f.Name())
	}
	return out
}

var ignorePlace = cmpopts.IgnoreUnexported(SpoolEntry{})

func TestSpoolRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "spool")
	if got := read(t, dir); got != nil {
		t.Fatalf("a spool that is not there has %v", got)
	}
	other := entry("a", 0)
	other.IfName = "eth1"
	write(t, dir, entry("b", 2*time.Second), entry("a", time.Second), other)
	want := []SpoolEntry{other, entry("a", time.Second), entry("b", 2*time.Second)}
	got := read(t, dir)
	if diff := cmp.Diff(want, got, ignorePlace); diff != "" {
		t.Fatalf("spool (-want +got):\n%s", diff)
	}
	for _, name := range names(t, dir) {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v, want 0600", name, st.Mode(), err)
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !json.Valid(text) {
			t.Errorf("%s is not JSON: %q, %v", name, text, err)
		}
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("spool has mode %v, %v, want 0700", st.Mode(), err)
	}
	for _, e := range got {
		for range 2 { // the second time it is gone, and that is fine
			if err := RemoveSpool(e); err != nil {
				t.Error(err)
			}
		}
	}
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left in the spool: %v", left)
	}
}

func TestSpoolSameAttachment(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, entry("a", 0))
	old := read(t, dir)
	write(t, dir, entry("a", time.Minute))
	if n := names(t, dir); len(n) != 1 {
		t.Fatalf("two DELs of one attachment made %v", n)
	}
	if err := RemoveSpool(old[0]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]SpoolEntry{entry("a", time.Minute)}, read(t, dir), ignorePlace); diff != "" {
		t.Errorf("after the older entry was removed (-want +got):\n%s", diff)
	}
}

func TestSpoolFileNames(t *testing.T) {
	long := strings.Repeat("a", 1000)
	seen := map[string]SpoolEntry{}
	for _, e := range []SpoolEntry{
		{ContainerID: long + "1", IfName: "i", Network: "n"}, {ContainerID: long + "2", IfName: "i", Network: "n"},
		{ContainerID: "a", IfName: "bc", Network: "n"}, {ContainerID: "ab", IfName: "c", Network: "n"},
		{ContainerID: "a", IfName: "b", Network: "cn"}, {ContainerID: "a..", IfName: "b", Network: "n"},
	} {
		name := e.fileName()
		if other, taken := seen[name]; taken {
			t.Errorf("%+v and %+v share %s", e, other, name)
		}
		seen[name] = e
		if len(name) > 255 || strings.ContainsAny(name, "/\x00") || name[0] == '.' {
			t.Errorf("%+v: file name %q", e, name)
		}
	}
}

func TestWriteSpoolRefuses(t *testing.T) {
	for _, id := range []string{"", "../x", "a/b", ".."} {
		dir := t.TempDir()
		if err := WriteSpool(dir, entry(id, 0)); err == nil {
			t.Errorf("container ID %q is taken: %v", id, names(t, dir))
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteSpool(file, entry("a", 0)); err == nil {
		t.Error("a file is taken for a spool")
	}
	// A directory in the place of the entry: nothing may be left beside it.
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, entry("a", 0).fileName(), "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteSpool(dir, entry("a", 0)); err == nil || len(names(t, dir)) != 1 {
		t.Errorf("error %v, left %v", err, names(t, dir))
	}
}

func TestReadSpoolDamage(t *testing.T) {
	good := string(entry("good", 0).json())
	tests := []struct{ name, text string }{
		{"empty", ""},
		{"torn", good[:40]},
		{"garbage", "\x00\x01\x02"},
		{"of another version", strings.Replace(good, `"version":1`, `"version":2`, 1)},
		{"hostile ID", strings.Replace(good, `"good"`, `"../../good"`, 1)},
		{"no time", strings.Replace(good, `"time"`, `"tim"`, 1)},
		{"wrong time", strings.Replace(good, `"2026-`, `"x026-`, 1)},
		{"huge", good + strings.Repeat(" ", maxSpoolFile)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, entry("good", 0))
			if err := os.WriteFile(filepath.Join(dir, "x.json"), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if got := read(t, dir); len(got) != 1 || got[0].ContainerID != "good" {
					t.Fatalf("read %v, want the good entry", got)
				}
			}
			if n := names(t, dir); !slices.Contains(n, "x.json.bad") || slices.Contains(n, "x.json") {
				t.Errorf("the damaged file is not aside: %v", n)
			}
		})
	}
}

func TestReadSpoolOddFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, entry("good", 0))
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, entry("outside", 0).json(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link.json")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "dir.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".tmp-1"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir); len(got) != 1 || got[0].ContainerID != "good" {
		t.Fatalf("read %v, want the good entry", got)
	}
	want := []string{".tmp-1", "dir.json.bad", entry("good", 0).fileName(), "link.json.bad", "pipe.json.bad"}
	if diff := cmp.Diff(want, names(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func FuzzParseSpoolEntry(f *testing.F) {
	f.Add(entry("a", 0).json())
	f.Add([]byte(`{"version":1,"containerID":"","time":"0001-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"version":1`))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := parseSpoolEntry(text)
		if err != nil {
			return
		}
		back, err := parseSpoolEntry(e.json())
		if err != nil || !back.Time.Equal(e.Time) || back.ContainerID != e.ContainerID || back.IfName != e.IfName || back.Network != e.Network {
			t.Errorf("%+v came back as %+v, %v", e, back, err)
		}
	})
}
