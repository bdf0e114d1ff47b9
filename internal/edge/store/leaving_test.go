package store

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func leaving(prefix, eni string) Leaving {
	return Leaving{Prefix: netip.MustParsePrefix(prefix), ENI: eni, Since: created}
}

func wantLeaving(t *testing.T, s *Store, want ...Leaving) {
	t.Helper()
	got, err := s.Leaving()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmpPrefix); d != "" {
		t.Errorf("journal (-want +got):\n%s", d)
	}
}

func TestLeaving(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	wantLeaving(t, s)
	one, block := leaving("10.0.1.9/32", "eni-1"), leaving("10.0.1.32/28", "eni-2")
	for _, list := range [][]Leaving{{one}, {one, block}, {block}} {
		if err := s.PutLeaving(list); err != nil {
			t.Fatal(err)
		}
		wantLeaving(t, s, list...)
	}
	mustPut(t, s, record("10.0.1.8", "a"))
	wantAll(t, s, record("10.0.1.8", "a")) // the journal is no record
	s.Close()
	s = mustOpen(t, dir)
	wantLeaving(t, s, block)
	for range 2 {
		if err := s.PutLeaving(nil); err != nil {
			t.Fatal(err)
		}
		wantLeaving(t, s)
	}
	if _, err := os.Stat(filepath.Join(dir, leavingName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty journal is a file: %v", err)
	}
	s.Close()
	if _, err := s.Leaving(); !errors.Is(err, ErrClosed) {
		t.Errorf("Leaving after Close: %v", err)
	}
	if err := s.PutLeaving(nil); !errors.Is(err, ErrClosed) {
		t.Errorf("PutLeaving after Close: %v", err)
	}
}

func TestPutLeavingRefuses(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	good := leaving("10.0.1.9/32", "eni-1")
	if err := s.PutLeaving([]Leaving{good}); err != nil {
		t.Fatal(err)
	}
	many := slices.Repeat([]Leaving{good}, maxJournal/50)
	for name, bad := range map[string][]Leaving{
		"none":       {{ENI: "eni-1"}},
		"IPv6":       {leaving("2001:db8::1/128", "eni-1")},
		"size":       {leaving("10.0.0.0/24", "eni-1")},
		"not masked": {leaving("10.0.1.33/28", "eni-1")},
		"no ENI":     {leaving("10.0.1.9/32", "")},
		"not UTF-8":  {good, leaving("10.0.1.9/32", "eni-\xff")},
		"too many":   many,
	} {
		if err := s.PutLeaving(bad); err == nil || !strings.Contains(err.Error(), "write journal "+s.path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantLeaving(t, s, good)
}

// TestDamagedJournal: it is an error of its own, and of nothing else.
func TestDamagedJournal(t *testing.T) {
	whole, err := encodeJournal([]Leaving{leaving("10.0.1.9/32", "eni-1")})
	if err != nil {
		t.Fatal(err)
	}
	text := string(whole)
	for content, want := range map[string]string{
		"":                                     "torn",
		text[:len(text)/2]:                     "torn",
		text + "{}":                            "torn",
		"[]":                                   "torn",
		`{"leaving":[]}`:                       "journal version 0, this program knows version 1",
		`{"version":2}`:                        "journal version 2, this program knows version 1",
		`{"version":1,"x":1}`:                  "unknown field",
		strings.Replace(text, "/32", "/24", 1): "not an IPv4 /32 or /28",
		strings.Repeat(" ", maxJournal+1):      "more than 1048576 bytes",
	} {
		dir := t.TempDir()
		write(t, dir, leavingName, content)
		s := mustOpen(t, dir)
		got, err := s.Leaving()
		if !errors.Is(err, ErrDamaged) || got != nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), filepath.Join(dir, leavingName)) {
			t.Errorf("%.40q: %v, %v; want %q", content, got, err, want)
		}
		mustPut(t, s, record("10.0.1.8", "a"))
		wantAll(t, s, record("10.0.1.8", "a"))
		if err := s.PutLeaving([]Leaving{leaving("10.0.1.9/32", "eni-1")}); err != nil {
			t.Fatal(err)
		}
		wantLeaving(t, s, leaving("10.0.1.9/32", "eni-1"))
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, leavingName), 0o700); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir)
	if _, err := s.Leaving(); !errors.Is(err, ErrDamaged) {
		t.Errorf("a directory: %v", err)
	}
}

// TestCrashAtEachStep ends the program before each step of each operation: the
// disk then has what was there before, or what is there afterwards, of the records
// and of the journal, and a new agent opens it.
func TestCrashAtEachStep(t *testing.T) {
	dir := t.TempDir()
	addr := netip.MustParseAddr("10.0.1.9")
	a, b := record("10.0.1.9", "a"), record("10.0.1.9", "b")
	b.Network, b.Version = "pods", 2
	one, block := []Leaving{leaving("10.0.1.9/32", "eni-1")}, []Leaving{leaving("10.0.1.32/28", "eni-2"), leaving("10.0.1.9/32", "eni-1")}
	type state struct {
		record  []Record
		leaving []Leaving
	}
	s := mustOpen(t, dir)
	was := state{}
	for _, op := range []struct {
		name  string
		do    func() error
		after state
		steps string
	}{
		{"first record", func() error { return s.Put(a) }, state{[]Record{a}, nil}, "write link unlink sync dir"},
		{"first journal", func() error { return s.PutLeaving(one) }, state{[]Record{a}, one}, "write rename sync dir"},
		{"release", func() error { return s.Put(released(a)) }, state{[]Record{released(a)}, one}, "write rename sync dir"},
		{"another holder", func() error { return s.Put(b) }, state{[]Record{b}, one}, "write rename sync dir"},
		{"longer journal", func() error { return s.PutLeaving(block) }, state{[]Record{b}, block}, "write rename sync dir"},
		{"no journal", func() error { return s.PutLeaving(nil) }, state{[]Record{b}, nil}, "unlink sync dir"},
		{"no record", func() error { return s.Delete(addr) }, state{}, "unlink sync dir"},
	} {
		var steps []string
		var crashed []string
		s.Step = func(step string) {
			steps = append(steps, step)
			crashed = append(crashed, snapshot(t, dir))
		}
		if err := op.do(); err != nil {
			t.Fatalf("%s: %v", op.name, err)
		}
		s.Step = nil
		if got := strings.Join(steps, " "); got != op.steps {
			t.Errorf("%s: steps %s, want %s", op.name, got, op.steps)
		}
		for i, left := range append(crashed, snapshot(t, dir)) {
			again := mustOpen(t, left)
			records, err := again.All()
			if err != nil {
				t.Fatalf("%s, step %d: %v", op.name, i, err)
			}
			journal, err := again.Leaving()
			if err != nil {
				t.Fatalf("%s, step %d: %v", op.name, i, err)
			}
			got := state{records, journal}
			same := func(want state) bool { return cmp.Equal(want, got, cmp.AllowUnexported(state{}), cmpAddr, cmpPrefix) }
			done := i == len(crashed)
			if !same(op.after) && (done || !same(was)) {
				t.Errorf("%s, crash before step %d of %v: %+v", op.name, i, steps, got)
			}
			if tmp, _ := filepath.Glob(filepath.Join(left, tmpPrefix+"*")); tmp != nil {
				t.Errorf("%s, step %d: %v is left", op.name, i, tmp)
			}
			again.Close()
		}
		was = op.after
	}
}

// snapshot copies a directory as it is at this moment, as a crash would leave it.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func FuzzDecodeJournal(f *testing.F) {
	good, err := encodeJournal([]Leaving{leaving("10.0.1.9/32", "eni-1"), leaving("10.0.1.32/28", "eni-2")})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(good), string(good[:40]), "", "null", "{}", `{"version":1}`, `{"version":1,"leaving":null}`,
		`{"version":1,"leaving":[{}]}`, `{"version":1,"leaving":[{"prefix":"::/0","eni":"e"}]}`, `{"version":2}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := decodeJournal(data)
		if err != nil {
			return
		}
		for _, l := range list {
			if !l.Prefix.Addr().Is4() || l.Prefix.Bits() < 28 || l.ENI == "" {
				t.Fatalf("accepted %+v", l)
			}
		}
		again, err := encodeJournal(list)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		back, err := decodeJournal(again)
		same := func(a, b Leaving) bool { return a.Prefix == b.Prefix && a.ENI == b.ENI && a.Since.Equal(b.Since) }
		if err != nil || !slices.EqualFunc(list, back, same) {
			t.Fatalf("round trip: %v\n%v\n%v", err, list, back)
		}
	})
}

func BenchmarkPutLeaving(b *testing.B) {
	s, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	list := slices.Repeat([]Leaving{{Prefix: netip.MustParsePrefix("10.0.1.32/28"), ENI: "eni-0123456789abcdef0", Since: time.Now()}}, 50)
	for b.Loop() {
		if err := s.PutLeaving(list); err != nil {
			b.Fatal(err)
		}
	}
}
