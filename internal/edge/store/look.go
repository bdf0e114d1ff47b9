package store

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// Look reads the records of a directory that an agent may have, and changes
// nothing: it takes no lock, and leaves what a crash left. A record that comes or
// goes meanwhile may be among the bad ones, or not. The error is that of
// [Store.All], or of reading the directory.
func Look(path string) (read int, err error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return 0, fmt.Errorf("read records: %w", err)
	}
	s := &Store{path: path}
	var bad []BadFile
	for _, e := range entries {
		name := e.Name()
		if name == lockName || name == leavingName || strings.HasPrefix(name, tmpPrefix) {
			continue
		}
		addr, err := netip.ParseAddr(name)
		if err != nil {
			err = errors.New("the name is not an address")
		} else {
			_, err = s.read(addr, name)
		}
		switch {
		case err == nil:
			read++
		case errors.Is(err, os.ErrNotExist): // it has just gone
		default:
			bad = append(bad, BadFile{Name: name, Err: err})
		}
	}
	if len(bad) > 0 {
		return read, &BadRecordsError{Dir: path, Files: bad}
	}
	return read, nil
}
