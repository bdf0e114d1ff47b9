package bootclock

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// machine is one whose clock a test sets.
type machine struct {
	boot string
	age  time.Duration
	wall time.Time
}

func (m *machine) source() Source {
	return Source{func() time.Time { return m.wall }, func() (string, error) { return m.boot, nil }, func() (time.Duration, error) { return m.age, nil }}
}

func (m *machine) wait(d time.Duration) { m.age, m.wall = m.age+d, m.wall.Add(d) }

func open(t *testing.T, path string, s Source) Clock {
	t.Helper()
	c, err := Open(path, s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestClockIsSet sets the machine's clock between processes, both ways: for who asks
// this clock only the time that passed has passed.
func TestClockIsSet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clock")
	begin := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	m := &machine{boot: "a", age: time.Hour, wall: begin}
	want := begin
	for _, set := range []time.Duration{0, -time.Hour, 3 * time.Hour, -2000 * time.Hour, 0} {
		m.wall = m.wall.Add(set)
		c := open(t, path, m.source())
		if got := c.Now(); !got.Equal(want) {
			t.Errorf("after the clock was set by %s: %s, want %s", set, got, want)
		}
		if got := c.At(m.wall); !got.Equal(want) {
			t.Errorf("what another program calls %s: %s, want %s", m.wall, got, want)
		}
		if got := m.wall.Add(c.Offset()); !got.Equal(want) {
			t.Errorf("offset %s to %s, want %s", c.Offset(), m.wall, want)
		}
		m.wait(5 * time.Minute)
		want = want.Add(5 * time.Minute)
		if got := c.Now(); !got.Equal(want) {
			t.Errorf("five minutes later: %s, want %s", got, want)
		}
	}
}

// TestSetMeanwhile sets the machine's clock while a process runs. What that process writes
// down then the next one reads as what it is, and neither sees time jump.
func TestSetMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clock")
	m := &machine{boot: "a", age: time.Hour, wall: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)}
	first := open(t, path, m.source())
	want := first.Now()
	for _, set := range []time.Duration{-time.Hour, 3 * time.Hour} {
		m.wall = m.wall.Add(set)
		m.wait(10 * time.Second)
		want = want.Add(10 * time.Second)
		written, err := first.Now().MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var read time.Time
		if err := read.UnmarshalText(written); err != nil || !read.Equal(want) {
			t.Errorf("set by %s, a process wrote %s (%v), want %s", set, read, err, want)
		}
		if got := first.At(m.wall); !got.Equal(want) {
			t.Errorf("what another program calls %s now: %s, want %s", m.wall, got, want)
		}
		if next := open(t, path, m.source()); !next.Now().Equal(want) {
			t.Errorf("the next process has %s, want %s", next.Now(), want)
		}
	}
	if (Clock{}).At(time.Time{}) != first.At(time.Time{}) {
		t.Error("the zero time has become one")
	}
}

// TestAnew: another boot's file, a damaged one, a long one and one that is no file
// are worth nothing, and the next process has a good one.
func TestAnew(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"another boot": func(path string) error {
			return os.WriteFile(path, []byte(`{"boot":"b","booted":"2001-01-01T00:00:00Z"}`), 0o600)
		},
		"torn":      func(path string) error { return os.WriteFile(path, []byte(`{"boot":"a","boo`), 0o600) },
		"empty":     func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"too long":  func(path string) error { return os.WriteFile(path, make([]byte, 2*maxMark), 0o600) },
		"a symlink": func(path string) error { return os.Symlink("/dev/zero", path) },
		"a leftover of a crash": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("{"), 0o600), os.Symlink("/nowhere", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "clock")
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			m := &machine{boot: "a", age: time.Hour, wall: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)}
			if c := open(t, path, m.source()); c.Offset() != 0 {
				t.Errorf("offset %s, want none", c.Offset())
			}
			m.wall = m.wall.Add(-time.Hour)
			if c := open(t, path, m.source()); c.Offset() != time.Hour {
				t.Errorf("the next process after the clock was set back by an hour: offset %s", c.Offset())
			}
		})
	}
}

// TestWithout: without a place for the file, or a boot to know, it is the machine's
// clock, and somebody is told.
func TestWithout(t *testing.T) {
	m := &machine{boot: "a", wall: time.Now()}
	no := errors.New("no boot")
	for name, try := range map[string]struct {
		path   string
		source Source
	}{
		"no directory": {filepath.Join(t.TempDir(), "missing", "clock"), m.source()},
		"no boot":      {filepath.Join(t.TempDir(), "clock"), Source{m.source().Now, func() (string, error) { return "", no }, m.source().Age}},
		"no age":       {filepath.Join(t.TempDir(), "clock"), Source{m.source().Now, m.source().Boot, func() (time.Duration, error) { return 0, no }}},
	} {
		c, err := Open(try.path, try.source)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if !c.Now().Equal(m.wall) {
			t.Errorf("%s: %s, want the machine's %s", name, c.Now(), m.wall)
		}
	}
}

// TestMachine: the real clocks agree, and times carry no monotonic reading.
func TestMachine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clock")
	open(t, path, Machine)
	c := open(t, path, Machine)
	if c.Offset().Abs() > time.Minute {
		t.Errorf("offset %s of a clock that nobody has set", c.Offset())
	}
	a := c.Now()
	if b := c.Now(); b.Before(a) || a != a.Round(0) || time.Until(a).Abs() > time.Minute {
		t.Errorf("%v and then %v", a, b)
	}
}
