package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"path/filepath"
	"time"
	"unicode/utf8"
)

// journalVersion is the version of the journal that is written and read here.
const journalVersion = 1

// maxJournal bounds the journal in bytes. An entry has about 100; the largest
// node has 15 ENIs of 50 slots.
const maxJournal = 1 << 20

// ErrDamaged says that the journal of what is being given back cannot be read.
// Until EC2 has said what the node has, any free address may be a lost one.
var ErrDamaged = errors.New("journal of addresses that are being given back is damaged")

// Leaving is an address or a prefix that EC2 is asked to take from the node, or
// was: it must not be given to a pod before EC2 has said that the node has it.
type Leaving struct {
	Prefix netip.Prefix `json:"prefix"` // IPv4: a /32, or a /28 of an ENI
	ENI    string       `json:"eni"`
	Since  time.Time    `json:"since"`
}

func (l Leaving) check() error {
	switch {
	case !l.Prefix.IsValid(), !l.Prefix.Addr().Is4(), l.Prefix.Bits() != 32 && l.Prefix.Bits() != 28, l.Prefix != l.Prefix.Masked():
		return fmt.Errorf("prefix %s: not an IPv4 /32 or /28", l.Prefix)
	case l.ENI == "" || !utf8.ValidString(l.ENI):
		return fmt.Errorf("prefix %s: eni %q: must be UTF-8 and not empty", l.Prefix, l.ENI)
	}
	return nil
}

// journal is the content of the file.
type journal struct {
	Version int       `json:"version"`
	Leaving []Leaving `json:"leaving"`
}

func encodeJournal(leaving []Leaving) ([]byte, error) {
	for _, l := range leaving {
		if err := l.check(); err != nil {
			return nil, err
		}
	}
	data, err := json.Marshal(journal{journalVersion, leaving})
	if err != nil {
		return nil, err
	}
	if len(data) >= maxJournal {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(data), maxJournal)
	}
	return append(data, '\n'), nil
}

func decodeJournal(data []byte) ([]Leaving, error) {
	if len(data) > maxJournal {
		return nil, fmt.Errorf("more than %d bytes", maxJournal)
	}
	version, err := versionOf(data)
	if err != nil {
		return nil, err
	}
	if version != journalVersion {
		return nil, fmt.Errorf("journal version %d, this program knows version %d", version, journalVersion)
	}
	var j journal
	if err := decodeStrictly(data, &j); err != nil {
		return nil, err
	}
	for _, l := range j.Leaving {
		if err := l.check(); err != nil {
			return nil, err
		}
	}
	return j.Leaving, nil
}

// PutLeaving makes the journal hold exactly these, whatever it held, or could not
// be read as. What is in it when PutLeaving has returned nil survives a crash of
// the process and of the machine; so it is called before EC2 is.
//
// After an error the disk has the old journal or the new.
func (s *Store) PutLeaving(leaving []Leaving) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.putLeaving(leaving); err != nil {
		return fmt.Errorf("write journal %s: %w", filepath.Join(s.path, leavingName), err)
	}
	return nil
}

func (s *Store) putLeaving(leaving []Leaving) error {
	if s.dir == nil {
		return ErrClosed
	}
	if len(leaving) == 0 {
		// No file rather than an empty one: releases that know no journal
		// would call it a bad record.
		return s.unlink(leavingName)
	}
	data, err := encodeJournal(leaving)
	if err != nil {
		return err
	}
	return s.replace(leavingName, data)
}

// Leaving reads the journal. Where it cannot be read the error is an ErrDamaged,
// and the records and all other calls work on.
func (s *Store) Leaving() ([]Leaving, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := filepath.Join(s.path, leavingName)
	if s.dir == nil {
		return nil, fmt.Errorf("read journal %s: %w", path, ErrClosed)
	}
	data, err := s.readFile(leavingName, maxJournal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var leaving []Leaving
	if err == nil {
		leaving, err = decodeJournal(data)
	}
	if err != nil {
		return nil, fmt.Errorf("read journal %s: %w: %w; the next one takes its place; a person may remove it once EC2 "+
			"(aws ec2 describe-network-interfaces) no longer changes what this node has", path, ErrDamaged, err)
	}
	return leaving, nil
}

// versionOf reads the version alone, so that a newer file is called that, and not
// malformed.
func versionOf(data []byte) (int, error) {
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return 0, fmt.Errorf("torn or not a record: %w", err)
	}
	return v.Version, nil
}

// decodeStrictly takes no field that this version does not know: such a file is
// not what it says it is.
func decodeStrictly(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the end")
	}
	return nil
}
