// Package bootclock gives a clock that nobody sets: for one boot of the machine it
// goes on as it began, also across the processes that open it one after the other.
//
// Go's time.Now does the half of that within one process, as it carries a reading of the
// monotonic clock. But what a process writes down is the other half, and it is read again
// without that reading: if the machine's clock is set, before or after, a thing of a
// moment ago seems hours old, or of the future. An address that cools down would be given
// out at once, or not for hours. So the first process of a boot writes down when, by the
// machine's clock, the boot was, and all of them add to it what the kernel has counted
// since. They never look at the machine's clock again:
//
//	            set by -1h                    set by +2h
//	machine's   10:00 ---------- 10:05 | 9:05 ---------- 9:10 | 11:10 --- 11:15
//	this one    10:00 ---------------- 10:05 ----------- 10:10 ---------- 10:15
//	            first process          second process
//
// Unless the clock was set, both clocks are the same but for microseconds. Times of
// other machines, and those that other programs write down, are by the machine's
// clock: see [Clock.At].
//
// A file that cannot be read, or is of another boot, begins anew. One process at a
// time may open a file; a Clock is safe for concurrent use.
package bootclock

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Source is what a clock is made of.
type Source struct {
	Now func() time.Time // the machine's clock
	// Boot says which boot this is.
	Boot func() (id string, err error)
	// Age is how long it lasts. It never goes back.
	Age func() (time.Duration, error)
}

// Machine is the machine's own: boot_id of proc(5), and CLOCK_BOOTTIME of
// clock_gettime(2), which counts while the machine is suspended too.
var Machine = Source{Now: time.Now, Boot: boot, Age: age}

const bootID = "/proc/sys/kernel/random/boot_id"

func boot() (string, error) {
	id, err := os.ReadFile(bootID)
	return strings.TrimSpace(string(id)), err
}

func age() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0, fmt.Errorf("read clock: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

// Clock is an open clock. Its times carry no monotonic reading: none of two that it gave
// depends on how the machine's clock was set in between, and no time is to be compared
// with one of time.Now. The zero Clock is the machine's.
type Clock struct {
	now    func() time.Time              // the machine's; nil: time.Now
	age    func() (time.Duration, error) // nil: this clock is the machine's
	booted time.Time
}

// Now is the time.
func (c Clock) Now() time.Time {
	if c.age != nil {
		if age, err := c.age(); err == nil { // as it was in Open
			return c.booted.Add(age)
		}
	}
	return c.machine()
}

func (c Clock) machine() time.Time {
	if c.now == nil {
		return time.Now()
	}
	return c.now()
}

// At is when it was by this clock, when it was t by the machine's. It holds for times
// since the machine's clock was set last. The zero time stays what it is.
func (c Clock) At(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(c.Offset())
}

// Offset is how far the clock is ahead of the machine's at present, which was set back by
// as much since the boot's first process; negative: it was set forward.
func (c Clock) Offset() time.Duration {
	if c.age == nil {
		return 0
	}
	return c.Now().Sub(c.machine())
}

// mark is the content of the file.
type mark struct {
	Boot   string    `json:"boot"`
	Booted time.Time `json:"booted"` // by the machine's clock, as it was when the file was made
}

// maxMark bounds the file in bytes; it has about 100.
const maxMark = 4 << 10

// Open opens the clock of the file at path, which it makes where there is none. The
// Clock is good in any case: with an error it is the machine's, for this process.
func Open(path string, s Source) (Clock, error) {
	c := Clock{now: s.Now}
	id, err := s.Boot()
	if err != nil {
		return c, fmt.Errorf("open clock %s: which boot this is: %w", path, err)
	}
	age, err := s.Age()
	if err != nil {
		return c, fmt.Errorf("open clock %s: how old the boot is: %w", path, err)
	}
	m, err := read(path)
	if err != nil || m.Boot != id {
		// Another boot's, or damaged: what was timed by it is timed by the machine's clock now.
		m = mark{Boot: id, Booted: s.Now().Add(-age).Round(0)}
		if err = write(path, m); err != nil {
			return c, fmt.Errorf("open clock %s: %w", path, err)
		}
	}
	c.age, c.booted = s.Age, m.Booted
	return c, nil
}

func read(path string) (m mark, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return m, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxMark))
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	return m, err
}

// write puts the mark in the place of what is there, in one step.
func write(path string, m mark) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(fresh, append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}
