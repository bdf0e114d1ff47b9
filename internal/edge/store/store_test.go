package store

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

var (
	cmpAddr = cmpopts.EquateComparable(netip.Addr{})
	created = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
)

func record(addr, container string) Record {
	return Record{
		Version: 1, Addr: netip.MustParseAddr(addr), ENI: "eni-1", ContainerID: container, IfName: "eth0",
		NetNS: "/run/netns/" + container, HostVeth: "fw123", PodName: "web-0", PodNamespace: "default", CreatedAt: created,
	}
}

func released(r Record) Record {
	r.ReleasedAt = created.Add(time.Hour)
	return r
}

func mustOpen(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustPut(t *testing.T, s *Store, records ...Record) {
	t.Helper()
	for _, r := range records {
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	}
}

// wantAll compares the whole record, which must have no bad file.
func wantAll(t *testing.T, s *Store, want ...Record) {
	t.Helper()
	got, err := s.All()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmpAddr, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRecordsSurviveReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "records")
	s := mustOpen(t, dir)
	wantAll(t, s)
	four, six, cooling := record("10.0.1.9", "a"), record("2001:db8::9", "b"), released(record("10.0.1.8", "c"))
	mustPut(t, s, four, six, record("10.0.1.8", "c"), cooling, record("10.0.1.7", "d"))
	for range 2 { // the second finds nothing, which is fine
		if err := s.Delete(netip.MustParseAddr("10.0.1.7")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantAll(t, mustOpen(t, dir), cooling, four, six)

	fi, err := os.Stat(dir)
	if err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("directory mode %v (%v), want 0700", fi.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, tmpPrefix+"*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestPut(t *testing.T) {
	const addr = "10.0.1.9"
	cases := []struct {
		name     string
		there    *Record
		put      Record
		wantHeld bool
	}{
		{"over nothing", nil, record(addr, "a"), false},
		{"again", new(record(addr, "a")), record(addr, "a"), false},
		{"its own release", new(record(addr, "a")), released(record(addr, "a")), false},
		{"its own after its release", new(released(record(addr, "a"))), record(addr, "a"), false},
		{"over another's release", new(released(record(addr, "a"))), record(addr, "b"), false},
		{"over another's", new(record(addr, "a")), record(addr, "b"), true},
		{"a release over another's", new(record(addr, "a")), released(record(addr, "b")), true},
		{"a release over another's release", new(released(record(addr, "a"))), released(record(addr, "b")), true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s := mustOpen(t, t.TempDir())
			want := tc.put
			if tc.there != nil {
				mustPut(t, s, *tc.there)
			}
			err := s.Put(tc.put)
			if errors.Is(err, ErrHeld) != tc.wantHeld || (err != nil) != tc.wantHeld {
				t.Errorf("Put: %v, want ErrHeld: %v", err, tc.wantHeld)
			}
			if tc.wantHeld {
				want = *tc.there
			}
			wantAll(t, s, want)
		})
	}
	t.Run("another interface of the container", func(t *testing.T) {
		s := mustOpen(t, t.TempDir())
		mustPut(t, s, record(addr, "a"))
		other := record(addr, "a")
		other.IfName = "eth1"
		if err := s.Put(other); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "a/eth0") {
			t.Errorf("Put: %v, want ErrHeld by a/eth0", err)
		}
	})
	t.Run("over an unreadable record", func(t *testing.T) {
		dir := t.TempDir()
		s := mustOpen(t, dir)
		write(t, dir, addr, "{")
		if err := s.Put(record(addr, "a")); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "records remove "+addr) {
			t.Errorf("Put: %v, want ErrHeld and the way out", err)
		}
		if err := s.Delete(netip.MustParseAddr(addr)); err != nil { // the way out
			t.Fatal(err)
		}
		mustPut(t, s, record(addr, "a"))
	})
}

func TestPutRefusesBadRecords(t *testing.T) {
	cases := []struct {
		name string
		edit func(*Record)
		want string
	}{
		{"no address", func(r *Record) { r.Addr = netip.Addr{} }, "not a plain"},
		{"zone", func(r *Record) { r.Addr = netip.MustParseAddr("fe80::1%eth0") }, "not a plain"},
		{"4in6", func(r *Record) { r.Addr = netip.MustParseAddr("::ffff:10.0.0.1") }, "not a plain"},
		{"no ENI", func(r *Record) { r.ENI = "" }, "none may be empty"},
		{"no container", func(r *Record) { r.ContainerID = "" }, "none may be empty"},
		{"no interface", func(r *Record) { r.IfName = "" }, "none may be empty"},
		{"not UTF-8", func(r *Record) { r.NetNS = "/run/\xff" }, "not UTF-8"},
		{"too large", func(r *Record) { r.NetNS = strings.Repeat("x", maxRecord) }, "at most 65536"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s := mustOpen(t, t.TempDir())
			r := record("10.0.1.9", "a")
			tc.edit(&r)
			if err := s.Put(r); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Put: %v, want %q", err, tc.want)
			}
			wantAll(t, s)
		})
	}
	s := mustOpen(t, t.TempDir())
	if err := s.Delete(netip.MustParseAddr("fe80::1%lock")); err == nil {
		t.Error("Delete took an address with a zone")
	}
}

func TestOneOpener(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if _, err := Open(dir); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "an agent runs") {
		t.Errorf("second Open: %v, want ErrLocked, the directory and why", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	mustOpen(t, dir)
	r := record("10.0.1.9", "a")
	if err := s.Put(r); !errors.Is(err, ErrClosed) {
		t.Errorf("Put after Close: %v", err)
	}
	if err := s.Delete(r.Addr); !errors.Is(err, ErrClosed) {
		t.Errorf("Delete after Close: %v", err)
	}
	if _, err := s.All(); !errors.Is(err, ErrClosed) {
		t.Errorf("All after Close: %v", err)
	}
}

func TestOpenFails(t *testing.T) {
	t.Run("a file in the way", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, "file", "")
		if _, err := Open(filepath.Join(dir, "file")); err == nil || !strings.Contains(err.Error(), "open store") {
			t.Errorf("Open: %v", err)
		}
	})
	t.Run("a leftover that cannot be removed", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, tmpPrefix+"x", "y"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "remove leftover") {
			t.Errorf("Open: %v", err)
		}
		if err := os.RemoveAll(filepath.Join(dir, tmpPrefix+"x")); err != nil {
			t.Fatal(err)
		}
		mustOpen(t, dir) // the failed one holds no lock
	})
	t.Run("the directory goes away", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "records")
		s := mustOpen(t, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := s.Put(record("10.0.1.9", "a")); err == nil || errors.Is(err, ErrHeld) {
			t.Errorf("Put: %v", err)
		}
		if _, err := s.All(); err == nil {
			t.Error("All found records in no directory")
		}
	})
}

func TestBadFiles(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	good := record("10.0.1.1", "a")
	mustPut(t, s, good)
	whole, err := encode(record("10.0.1.2", "b"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(whole)
	write(t, dir, "10.0.1.2", text[:len(text)/2])
	write(t, dir, "10.0.1.3", "")
	write(t, dir, "10.0.1.4", text) // the content of .2
	write(t, dir, "10.0.1.5", strings.Replace(text, `"version":1`, `"version":3`, 1))
	write(t, dir, "10.0.1.6", strings.Replace(text, `"eni":`, `"colour":"red","eni":`, 1))
	write(t, dir, "10.0.1.7", text+"{}")
	write(t, dir, "10.0.1.8", strings.Repeat(" ", maxRecord+1))
	write(t, dir, "::ffff:10.0.1.9", text)
	write(t, dir, "2001:DB8::1", strings.Replace(text, "10.0.1.2", "2001:db8::1", 1))
	write(t, dir, "README", "hello")
	if err := os.Mkdir(filepath.Join(dir, "10.0.1.10"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "10.0.1.11"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("10.0.1.1", filepath.Join(dir, "10.0.1.12")); err != nil {
		t.Fatal(err)
	}

	records, err := s.All()
	if d := cmp.Diff([]Record{good}, records, cmpAddr); d != "" {
		t.Errorf("the good ones (-want +got):\n%s", d)
	}
	var bad *BadRecordsError
	if !errors.As(err, &bad) {
		t.Fatalf("All: %v, want a BadRecordsError", err)
	}
	var held []string
	for _, a := range bad.Addrs() {
		held = append(held, a.String())
	}
	want := []string{"10.0.1.10", "10.0.1.11", "10.0.1.12", "10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5",
		"10.0.1.6", "10.0.1.7", "10.0.1.8", "2001:db8::1", "10.0.1.9"}
	if d := cmp.Diff(want, held); d != "" {
		t.Errorf("addresses to treat as held (-want +got):\n%s", d)
	}
	for _, part := range []string{
		"13 unreadable in " + dir, "10.0.1.10: not a regular file", "10.0.1.11: not a regular file",
		"10.0.1.12: open", "10.0.1.2: torn", "10.0.1.3: torn", "10.0.1.4: the record is of 10.0.1.2",
		"10.0.1.5: record version 3, this program knows versions 1 to 2: a newer fairway-agent wrote it",
		"fairway-agent records remove ADDRESS", `10.0.1.6: json: unknown field "colour"`,
		"10.0.1.7: torn", "10.0.1.8: more than 65536 bytes", "2001:DB8::1: the name should be spelled 2001:db8::1",
		"README: the name is not an address",
	} {
		if !strings.Contains(strings.ReplaceAll(err.Error(), "\n", " "), part) {
			t.Errorf("the error lacks %q:\n%v", part, err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	var wg sync.WaitGroup
	won := make(chan string, 16)
	for i := range 16 {
		wg.Go(func() {
			container := string(rune('a' + i))
			switch err := s.Put(record("10.0.1.9", container)); {
			case err == nil:
				won <- container
			case !errors.Is(err, ErrHeld):
				t.Errorf("Put: %v", err)
			}
			if _, err := s.All(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	close(won)
	if len(won) != 1 {
		t.Fatalf("%d attachments got the address", len(won))
	}
	wantAll(t, s, record("10.0.1.9", <-won))
}

func FuzzDecode(f *testing.F) {
	addr := netip.MustParseAddr("10.0.1.9")
	good, err := encode(record("10.0.1.9", "a"))
	if err != nil {
		f.Fatal(err)
	}
	named := released(record("10.0.1.9", "a"))
	named.Network = "pods"
	cooling, err := encode(named)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(good), string(cooling), string(good[:50]), "", "{}", "null", `{"version":1}`,
		`{"version":1,"addr":"10.0.1.9"}`, `{"version":2}`, `{"version":3}`, `{"version":0}`,
		strings.Replace(string(cooling), `"version":2`, `"version":1`, 1), string(good) + string(good), "[]", "\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decode(addr, data)
		if err != nil {
			return
		}
		if r.Addr != addr || r.ContainerID == "" || r.IfName == "" {
			t.Fatalf("accepted %+v", r)
		}
		again, err := encode(r)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		r.Version = r.version()
		back, err := decode(addr, again)
		if d := cmp.Diff(r, back, cmpAddr); err != nil || d != "" {
			t.Fatalf("round trip: %v\n%s", err, d)
		}
	})
}

func BenchmarkPut(b *testing.B) {
	s, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	r := record("10.0.1.9", "a")
	for b.Loop() {
		if err := s.Put(r); err != nil {
			b.Fatal(err)
		}
		if err := s.Delete(r.Addr); err != nil {
			b.Fatal(err)
		}
	}
}
