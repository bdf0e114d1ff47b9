package world

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestLockThatIsGone opens a lock and is overtaken before it locks it: by the end
// of the lab that had it, and by the start of another.
func TestLockThatIsGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "labs", "a")
	first := mustLock(t, dir)
	slow, err := OpenIn(dir, lockName, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if _, err := claim(slow, dir); !errors.Is(err, ErrRunning) {
		t.Errorf("claim of a lab that runs: %v, want %v", err, ErrRunning)
	}
	if err := errors.Join(reap(dir, ""), first.Close()); err != nil {
		t.Fatal(err)
	}
	if held, err := claim(slow, dir); held || err != nil {
		t.Errorf("claim of a lock that is gone: %t, %v", held, err)
	}
	second := mustLock(t, dir)
	defer second.Close()
	if held, err := claim(slow, dir); held || err != nil {
		t.Errorf("claim of a lock that another has in place of: %t, %v", held, err)
	}
}

// TestReapSparesTheNext: between the two halves of a lab's end another begins.
func TestReapSparesTheNext(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "labs", "a")
	first := mustLock(t, dir)
	if err := os.Remove(filepath.Join(dir, lockName)); err != nil {
		t.Fatal(err)
	}
	second := mustLock(t, dir)
	defer second.Close()
	if err := errors.Join(removeEmpty(dir, filepath.Dir(dir)), first.Close()); err != nil {
		t.Error(err)
	}
	if _, err := takeLock(dir); !errors.Is(err, ErrRunning) {
		t.Errorf("the next lab has lost its lock: %v", err)
	}
	if err := errors.Join(reap(dir, ""), removeEmpty(dir)); err != nil { // the second finds none
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the root of all labs is left: %v", err)
	}
}

// TestLabsComeAndGo: labs of the same name and of others start and end at once.
func TestLabsComeAndGo(t *testing.T) {
	root := filepath.Join(t.TempDir(), "labs")
	var all sync.WaitGroup
	for _, name := range []string{"a", "a", "b", "c"} {
		all.Go(func() {
			dir := filepath.Join(root, name)
			mine := filepath.Join(dir, "mine")
			for range 300 {
				lock, err := takeLock(dir)
				if errors.Is(err, ErrRunning) {
					continue
				}
				if err != nil {
					t.Errorf("start of lab %s: %v", name, err)
					return
				}
				if err := os.Mkdir(mine, 0o700); err != nil {
					t.Errorf("lab %s is not alone: %v", name, err)
				}
				if err := errors.Join(reap(dir, ""), lock.Close()); err != nil {
					t.Errorf("end of lab %s: %v", name, err)
				}
			}
		})
	}
	all.Wait()
	if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the root of all labs is left: %v", err)
	}
}

func mustLock(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := takeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
