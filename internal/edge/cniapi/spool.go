package cniapi

import (
	"errors"
	"hash/fnv"
	"io"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// The spool is a directory with a file for each DEL that found no agent:
//
//	/run/fairway/spool/<container ID, 64 bytes of it>-<hash>.json
//	                   .tmp-*     being written, or left by a plugin that was killed
//	                   *.bad      could not be read, kept for a person to look at
//
// A file appears under its name whole or not at all: it is written and synced
// under another, renamed, and the directory is synced.

// SpoolVersion is the version of the files in the spool.
const SpoolVersion = 1

// maxSpoolFile bounds what is read of a spool file; one has about 300 bytes.
const maxSpoolFile = 64 << 10

// SpoolEntry is a DEL that the runtime was told has succeeded, and that the
// agent still has to act on.
//
// The one who acts must release only what the attachment held at Time: an
// attachment of the same container and interface that was made later is alive.
type SpoolEntry struct {
	ContainerID string
	IfName      string
	NetNS       string // CNI_NETNS; most likely gone
	Network     string // name of the network
	Time        time.Time

	path  string // where it was read
	inode uint64
}

// fileName is the same for the same attachment, so that a DEL that the runtime
// repeats does not fill the spool, and differs for different ones: the hash is
// over all that tells them apart. It is not a cryptographic one, which would
// cost start-up time; who could make two collide is root, and is the runtime.
func (e SpoolEntry) fileName() string {
	h := fnv.New128a()
	for _, s := range []string{e.ContainerID, e.IfName, e.Network} {
		h.Write(append([]byte(s), 0))
	}
	const hex = "0123456789abcdef"
	name := []byte(e.ContainerID[:min(len(e.ContainerID), 64)])
	name = append(name, '-')
	for _, b := range h.Sum(nil) {
		name = append(name, hex[b>>4], hex[b&15])
	}
	return string(name) + ".json"
}

func (e SpoolEntry) validate() error {
	if err := ValidContainerID(e.ContainerID); err != nil {
		return wrap("containerID "+strconv.Quote(e.ContainerID), err)
	}
	if err := ValidIfName(e.IfName); err != nil {
		return wrap("ifName "+strconv.Quote(e.IfName), err)
	}
	if err := ValidNetworkName(e.Network); err != nil {
		return wrap("network "+strconv.Quote(e.Network), err)
	}
	return nil
}

func (e SpoolEntry) json() []byte {
	b := strconv.AppendInt(appendKey([]byte{'{'}, "version"), SpoolVersion, 10)
	b = appendMember(b, "containerID", e.ContainerID)
	b = appendMember(b, "ifName", e.IfName)
	b = appendMember(b, "netns", e.NetNS)
	b = appendMember(b, "network", e.Network)
	b = appendMember(b, "time", e.Time.UTC().Format(time.RFC3339Nano))
	return append(b, '}', '\n')
}

func parseSpoolEntry(text []byte) (SpoolEntry, error) {
	var e SpoolEntry
	version := 0
	err := members(text, func(key string, value []byte) (err error) {
		switch key {
		case "version":
			version, err = intValue(value)
		case "containerID":
			e.ContainerID, err = stringValue(value)
		case "ifName":
			e.IfName, err = stringValue(value)
		case "netns":
			e.NetNS, err = stringValue(value)
		case "network":
			e.Network, err = stringValue(value)
		case "time":
			var at string
			if at, err = stringValue(value); err == nil {
				e.Time, err = time.Parse(time.RFC3339Nano, at)
			}
		}
		return err
	})
	if err != nil {
		return e, err
	}
	if version != SpoolVersion {
		return e, errors.New("version " + strconv.Itoa(version) + ", want " + strconv.Itoa(SpoolVersion))
	}
	if y := e.Time.UTC().Year(); y < 1970 || y > 9999 {
		return e, errors.New("no time, or one out of range")
	}
	return e, e.validate()
}

// WriteSpool puts an entry into the spool, which it makes if need be. When it
// returns nil the entry survives a crash of the machine, as far as the file
// system does.
func WriteSpool(dir string, e SpoolEntry) error {
	if err := e.validate(); err != nil {
		return wrap("spool entry", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return wrap("make spool", err)
	}
	f, err := os.CreateTemp(dir, ".tmp-*") // O_EXCL and 0600
	if err != nil {
		return wrap("make spool entry", err)
	}
	_, err = f.Write(e.json())
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), dir+"/"+e.fileName())
	}
	if err != nil {
		os.Remove(f.Name())
		return wrap("write spool entry", err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return wrap("sync spool", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return wrap("sync spool", err)
	}
	return nil
}

// ReadSpool gives the entries of the spool, oldest first; none if there is no
// spool. A file that is not an entry must not hold up the others: it is renamed
// to *.bad, where it stays, and is no error. An error means that the spool
// itself could not be read, and that there may be entries beside those returned.
func ReadSpool(dir string) ([]SpoolEntry, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap("read spool", err)
	}
	var entries []SpoolEntry
	var errs []error
	for _, f := range files {
		name, path := f.Name(), dir+"/"+f.Name()
		if name[0] == '.' || len(name) < 5 || name[len(name)-5:] != ".json" {
			continue
		}
		e, err := readSpoolFile(path)
		switch {
		case err == nil:
			entries = append(entries, e)
		case errors.Is(err, os.ErrNotExist): // someone removed it
		case errors.Is(err, errSpoolIO):
			errs = append(errs, err)
		default:
			if err := os.Rename(path, path+".bad"); err != nil {
				errs = append(errs, wrap("move bad spool entry aside", err))
			}
		}
	}
	slices.SortStableFunc(entries, func(a, b SpoolEntry) int { return a.Time.Compare(b.Time) })
	return entries, errors.Join(errs...)
}

// errSpoolIO marks a file that could not be read now, which says nothing
// against what it holds.
var errSpoolIO = errors.New("read spool entry")

func readSpoolFile(path string) (SpoolEntry, error) {
	// Not through a symbolic link, and without waiting for a pipe's other end.
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	switch err {
	case nil:
	case syscall.ENOENT:
		return SpoolEntry{}, os.ErrNotExist
	case syscall.ELOOP, syscall.ENXIO: // a link, a socket
		return SpoolEntry{}, err
	default:
		return SpoolEntry{}, wrap(path+": "+err.Error(), errSpoolIO)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return SpoolEntry{}, wrap(path+": "+err.Error(), errSpoolIO)
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG || st.Size > maxSpoolFile {
		return SpoolEntry{}, errors.New("not a small regular file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSpoolFile))
	if err != nil {
		return SpoolEntry{}, wrap(path+": "+err.Error(), errSpoolIO)
	}
	e, err := parseSpoolEntry(text)
	e.path, e.inode = path, st.Ino
	return e, err
}

// RemoveSpool takes an entry that [ReadSpool] gave out of the spool, once what
// it asked for is done and recorded. An entry that is gone is no error, and one
// that a later DEL has replaced stays.
func RemoveSpool(e SpoolEntry) error {
	var st syscall.Stat_t
	switch err := syscall.Lstat(e.path, &st); {
	case err == syscall.ENOENT:
		return nil
	case err != nil:
		return wrap("remove spool entry "+e.path, err)
	case st.Ino != e.inode:
		return nil
	}
	if err := syscall.Unlink(e.path); err != nil && err != syscall.ENOENT {
		return wrap("remove spool entry "+e.path, err)
	}
	return nil
}
