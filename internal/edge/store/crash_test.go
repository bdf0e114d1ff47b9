package store

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var crashDir = flag.String("store.crashdir", "", "be the process that TestKill kills, on this directory")

// crashStep is the i-th operation of the process that is killed: each of four
// addresses is in turn taken, released, taken by another, and freed.
func crashStep(i int) (addr netip.Addr, put Record, del bool) {
	addr = netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i%4)})
	round := i / 4
	put = record(addr.String(), fmt.Sprint("pod", round/4*2))
	switch round % 4 {
	case 1:
		put = released(put)
	case 2:
		put.ContainerID = fmt.Sprint("pod", round/4*2+1)
	case 3:
		del = true
	}
	return addr, put, del
}

// TestKillVictim is no test: it is what TestKill runs and kills. It writes the
// number of each step that the store has answered.
func TestKillVictim(t *testing.T) {
	if *crashDir == "" {
		t.Skip("only run by TestKill")
	}
	s, err := Open(*crashDir)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		addr, r, del := crashStep(i)
		if del {
			err = s.Delete(addr)
		} else {
			err = s.Put(r)
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("step %d\n", i)
	}
}

// TestKill kills a process in the middle of its writing, again and again. What
// it had answered must be there; the step it died in may be or not; nothing may
// be torn; and the lock is free.
func TestKill(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 15 {
		dir := t.TempDir()
		last := killAfter(t, dir, r.IntN(60))

		s := mustOpen(t, dir)
		got, err := s.All()
		if err != nil {
			t.Fatalf("after step %d: %v", last, err)
		}
		if !sameRecords(got, after(last)) && !sameRecords(got, after(last+1)) {
			t.Fatalf("after step %d:\n got %v\nwant %v\n  or %v", last, got, after(last), after(last+1))
		}
		if left, _ := filepath.Glob(filepath.Join(dir, tmpPrefix+"*")); left != nil {
			t.Errorf("left behind: %v", left)
		}
		s.Close()
	}
}

// killAfter runs the victim, kills it once it has said step n, and returns the
// last step it got to say.
func killAfter(t *testing.T, dir string, n int) int {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillVictim$", "-store.crashdir="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last := -1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "step %d", &last); err != nil {
			t.Errorf("victim: %s", lines.Text())
		}
		if last == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("victim was not killed: %v", err)
	}
	return last
}

// after is the record after steps 0 to last.
func after(last int) map[netip.Addr]Record {
	m := map[netip.Addr]Record{}
	for i := range last + 1 {
		addr, r, del := crashStep(i)
		if del {
			delete(m, addr)
		} else {
			m[addr] = r
		}
	}
	return m
}

func sameRecords(got []Record, want map[netip.Addr]Record) bool {
	for _, r := range got {
		if want[r.Addr] != r {
			return false
		}
	}
	return len(got) == len(want)
}

// TestCrashStates builds by hand what a crash between two system calls of Put
// leaves, and what follows from it.
func TestCrashStates(t *testing.T) {
	old, next := record("10.0.0.1", "a"), released(record("10.0.0.1", "a"))
	data, err := encode(next)
	if err != nil {
		t.Fatal(err)
	}
	const tmp = tmpPrefix + "10.0.0.1"
	cases := []struct {
		name  string
		there bool // old is there already
		crash func(t *testing.T, dir string)
		want  []Record
	}{
		{"temporary file made", true, func(t *testing.T, dir string) { write(t, dir, tmp, "") }, []Record{old}},
		{"half written", true, func(t *testing.T, dir string) { write(t, dir, tmp, string(data[:40])) }, []Record{old}},
		{"written, not renamed", true, func(t *testing.T, dir string) { write(t, dir, tmp, string(data)) }, []Record{old}},
		{"new, not linked", false, func(t *testing.T, dir string) { write(t, dir, tmp, string(data)) }, nil},
		{"linked, not removed", false, func(t *testing.T, dir string) {
			write(t, dir, tmp, string(data))
			if err := os.Link(filepath.Join(dir, tmp), filepath.Join(dir, "10.0.0.1")); err != nil {
				t.Fatal(err)
			}
		}, []Record{next}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir)
			if tc.there {
				mustPut(t, s, old)
			}
			tc.crash(t, dir)
			wantAll(t, s, tc.want...) // a leftover is never read
			s.Close()
			s = mustOpen(t, dir)
			wantAll(t, s, tc.want...)
			mustPut(t, s, next)
			wantAll(t, s, next)
		})
	}
	t.Run("a leftover of this process", func(t *testing.T) {
		dir := t.TempDir()
		s := mustOpen(t, dir)
		write(t, dir, tmp, "{")
		mustPut(t, s, next)
		wantAll(t, s, next)
	})
}
