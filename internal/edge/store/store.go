package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	lockName    = "lock"
	leavingName = "leaving"
	tmpPrefix   = ".tmp-"
)

var (
	// ErrLocked says that another process has the directory open.
	ErrLocked = errors.New("locked by another process")
	// ErrHeld says that the address has a record of another attachment, or
	// one that cannot be read.
	ErrHeld = errors.New("address is held")
	// ErrClosed says that the Store was closed.
	ErrClosed = errors.New("store is closed")
)

// Store is an open directory of records.
type Store struct {
	// Step, if set, is called before each thing that is done to the disk, with
	// what it is: "write" (a temporary file, its content synced), "link",
	// "rename", "unlink" or "sync dir". Tests have the program end there. It is
	// set before the first call, and must not call the Store.
	Step func(step string)

	path string
	mu   sync.Mutex
	dir  *os.File // to sync the names; nil once closed
	lock *os.File
}

// Open makes the directory (mode 0700) where it is missing, locks it until
// Close or the end of the process, and removes what a crash left half-written.
// It fails with ErrLocked while another Store has it.
func Open(path string) (*Store, error) {
	s, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return s, nil
}

func open(path string) (_ *Store, err error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	// A new directory must be on the disk before its records are. The parent
	// of the parent, if new as well, is the caller's to care for.
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	s := &Store{path: path}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.dir, err = os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return nil, err
	}
	// The records name containers and namespaces; a directory that was made
	// by hand may be too open.
	if err := s.dir.Chmod(0o700); err != nil {
		return nil, err
	}
	s.lock, err = os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: an agent runs on this node", ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	names, err := s.dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if strings.HasPrefix(name, tmpPrefix) {
			if err := os.Remove(filepath.Join(path, name)); err != nil {
				return nil, fmt.Errorf("remove leftover: %w", err)
			}
		}
	}
	return s, nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close unlocks the directory. Closing twice is fine.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, f := range []*os.File{s.dir, s.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	s.dir, s.lock = nil, nil
	return errors.Join(errs...)
}

// BadFile is an entry of the directory that should be a record and cannot be
// read as one.
type BadFile struct {
	Name string
	Addr netip.Addr // from the name; the zero Addr if the name is none
	Err  error
}

// BadRecordsError lists the files that All could not read. The addresses that
// they are named after must be treated as held.
type BadRecordsError struct {
	Dir   string
	Files []BadFile
}

func (e *BadRecordsError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d unreadable in %s; their addresses stay unused until the files are repaired, or, where no pod "+
		"has the address any more, removed with fairway-agent records remove ADDRESS:", len(e.Files), e.Dir)
	for i, f := range e.Files {
		if i > 0 {
			b.WriteString(";")
		}
		fmt.Fprintf(&b, " %s: %v", f.Name, f.Err)
	}
	return b.String()
}

// Addrs lists the addresses to treat as held.
func (e *BadRecordsError) Addrs() []netip.Addr {
	var addrs []netip.Addr
	for _, f := range e.Files {
		if f.Addr.IsValid() {
			addrs = append(addrs, f.Addr)
		}
	}
	return addrs
}

// All reads every record, sorted by file name. What is readable is returned also
// where the error is a [*BadRecordsError]; after any other error nothing is
// known, and no address may be given out.
func (s *Store) All() ([]Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir == nil {
		return nil, fmt.Errorf("read store %s: %w", s.path, ErrClosed)
	}
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return nil, fmt.Errorf("read store: %w", err)
	}
	var records []Record
	var bad []BadFile
	for _, e := range entries {
		name := e.Name()
		if name == lockName || name == leavingName || strings.HasPrefix(name, tmpPrefix) {
			continue
		}
		addr, err := netip.ParseAddr(name)
		if err != nil {
			bad = append(bad, BadFile{Name: name, Err: errors.New("the name is not an address")})
			continue
		}
		r, err := s.read(addr, name)
		if err == nil && addr.String() != name {
			// Put would not see it, and make a second file for the address.
			err = fmt.Errorf("the name should be spelled %s", addr)
		}
		if err != nil {
			bad = append(bad, BadFile{Name: name, Addr: addr.Unmap().WithZone(""), Err: err})
			continue
		}
		records = append(records, r)
	}
	if len(bad) > 0 {
		return records, &BadRecordsError{Dir: s.path, Files: bad}
	}
	return records, nil
}

// read reads one record.
func (s *Store) read(addr netip.Addr, name string) (Record, error) {
	data, err := s.readFile(name, maxRecord)
	if err != nil {
		return Record{}, err
	}
	return decode(addr, data)
}

// readFile reads one file, of which one byte more than most can be returned. It
// never waits: what is not a regular file is refused.
func (s *Store) readFile(name string, most int64) ([]byte, error) {
	f, err := os.OpenFile(filepath.Join(s.path, name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("not a regular file"))
	}
	return io.ReadAll(io.LimitReader(f, most+1))
}

// Put writes the record of r.Addr. It takes the place of a record of the same
// attachment, and a held one that of a released one: the pool has seen to the
// cool-down by then. Any other record there makes it fail with ErrHeld, and
// stays.
//
// After any other error it is not known whether the disk has the old record or
// the new; Put may be called again with the same record.
func (s *Store) Put(r Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.put(r); err != nil {
		return fmt.Errorf("put record %s: %w", r.Addr, err)
	}
	return nil
}

func (s *Store) put(r Record) error {
	if s.dir == nil {
		return ErrClosed
	}
	data, err := encode(r)
	if err != nil {
		return err
	}
	name := r.Addr.String()
	old, err := s.read(r.Addr, name)
	absent := errors.Is(err, fs.ErrNotExist)
	switch {
	case absent:
	case err != nil:
		return fmt.Errorf("%w by a record that cannot be read: %w; if no pod has it, fairway-agent records remove %s",
			ErrHeld, err, r.Addr)
	case r.SameOwner(old):
	case old.Held() || !r.Held():
		return fmt.Errorf("%w by %s/%s", ErrHeld, old.ContainerID, old.IfName)
	}

	if !absent {
		return s.replace(name, data)
	}
	tmp, err := s.writeTmp(name, data)
	if err != nil {
		return err
	}
	// A link, as it never replaces: should a file have appeared there after
	// all, the kernel refuses.
	s.step("link")
	err = os.Link(tmp, filepath.Join(s.path, name))
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("%w: %w", ErrHeld, err)
	}
	s.step("unlink")
	if err = errors.Join(err, os.Remove(tmp)); err != nil {
		return err
	}
	return s.sync()
}

func (s *Store) step(name string) {
	if s.Step != nil {
		s.Step(name)
	}
}

func (s *Store) sync() error {
	s.step("sync dir")
	return s.dir.Sync()
}

// replace puts a file in the place of one that may be there.
func (s *Store) replace(name string, data []byte) error {
	tmp, err := s.writeTmp(name, data)
	if err != nil {
		return err
	}
	s.step("rename")
	if err := os.Rename(tmp, filepath.Join(s.path, name)); err != nil {
		return err
	}
	return s.sync()
}

// writeTmp makes the temporary file of name. The content must be on the disk
// before the name is: the other way round a power failure can leave an empty file
// with a good name.
func (s *Store) writeTmp(name string, data []byte) (string, error) {
	tmp := filepath.Join(s.path, tmpPrefix+name)
	s.step("write")
	return tmp, writeSynced(tmp, data)
}

// writeSynced makes a new file of data, and leaves none if it fails.
func writeSynced(path string, data []byte) error {
	// One can be left from a Put that failed and could not clean up.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// Delete removes the record of addr, also one that cannot be read: it is the
// way out for a person who knows that nobody holds the address. That there is
// none is no error.
func (s *Store) Delete(addr netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := ErrClosed
	if s.dir != nil {
		err = s.remove(addr)
	}
	if err != nil {
		return fmt.Errorf("delete record %s: %w", addr, err)
	}
	return nil
}

func (s *Store) remove(addr netip.Addr) error {
	if !canonical(addr) {
		return errors.New("not a plain IPv4 or IPv6 address")
	}
	return s.unlink(addr.String())
}

// unlink removes a file, if it is there.
func (s *Store) unlink(name string) error {
	s.step("unlink")
	err := os.Remove(filepath.Join(s.path, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Also where it was gone: the call that removed it may have failed here.
	return s.sync()
}
