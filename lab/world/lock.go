package world

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/guest"
)

// lockName is the file in a lab's directory that its process holds locked. Who
// holds it may make and remove what is in the directory, the lock too:
//
//	lab that ends                         lab that starts
//	remove all but the lock               make the directory
//	remove the lock                       open the lock, or make it
//	remove the directory, if empty        lock it
//	remove the root, if empty             is it what others find? else again
const lockName = "lock"

// openTries bounds how often what goes in between is made anew: each time another
// lab has ended just then.
const openTries = 100

// OpenIn opens a file in a lab's directory, and makes both where they are not
// there: a lab that ends may take the directory away in between, and the last one
// the root of all.
func OpenIn(dir, name string, flag int) (f *os.File, err error) {
	for range openTries {
		if err = os.MkdirAll(dir, 0o700); err == nil {
			f, err = os.OpenFile(filepath.Join(dir, name), flag|os.O_CREATE, 0o600)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s in lab directory: %w", name, err)
	}
	return f, nil
}

// takeLock makes the lab's directory and claims it for this process. The error is
// an [ErrRunning] where another has it.
func takeLock(dir string) (*os.File, error) {
	for range openTries {
		f, err := OpenIn(dir, lockName, os.O_RDWR)
		if err != nil {
			return nil, err
		}
		held, err := claim(f, dir)
		if held {
			return f, nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("lock %s: it was removed %d times meanwhile", dir, openTries)
}

// claim locks an open lock. Without an error, held is false where the file has been
// removed since: a lock that nobody finds keeps nobody out.
func claim(f *os.File, dir string) (held bool, err error) {
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, fmt.Errorf("%w: %s is locked; use `fairway-lab down` first", ErrRunning, dir)
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", dir, err)
	}
	own, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("look at lab lock: %w", err)
	}
	found, err := os.Stat(filepath.Join(dir, lockName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look at lab lock: %w", err)
	}
	return err == nil && os.SameFile(own, found), nil
}

// reap removes what a lab leaves on the host: cgroup, directory, and the root
// of all labs' directories where it was the last. The caller holds the lock.
func reap(dir, cgroup string) error {
	if err := guest.Reap("", cgroup); err != nil {
		return err // the directory says that there is something left
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read lab directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() == lockName {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("empty lab directory: %w", err)
		}
	}
	if err := os.Remove(filepath.Join(dir, lockName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove lab lock: %w", err)
	}
	return removeEmpty(dir, filepath.Dir(dir))
}

// removeEmpty removes directories. One that has something in it has become
// another lab's, and stays.
func removeEmpty(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return fmt.Errorf("remove directory of labs: %w", err)
		}
	}
	return nil
}
