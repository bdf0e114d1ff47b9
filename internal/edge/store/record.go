package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
	"unicode/utf8"
)

// Version is the version of the records written here. A record of another one
// is not guessed at.
const Version = 1

// maxRecord bounds a record in bytes. A usual one has about 400; a network
// namespace path of the longest kind (PATH_MAX, 4096) fits many times over.
const maxRecord = 64 << 10

// Record says who holds an address, or who held it last.
type Record struct {
	Version      int        `json:"version"` // set by Put
	Addr         netip.Addr `json:"addr"`
	ENI          string     `json:"eni"`
	ContainerID  string     `json:"containerID"`
	IfName       string     `json:"ifName"`
	NetNS        string     `json:"netNS,omitempty"`
	HostVeth     string     `json:"hostVeth,omitempty"`
	MTU          int        `json:"mtu,omitempty"` // bytes, as the interface was made
	PodName      string     `json:"podName,omitempty"`
	PodNamespace string     `json:"podNamespace,omitempty"`
	CreatedAt    time.Time  `json:"createdAt,omitzero"`
	ReleasedAt   time.Time  `json:"releasedAt,omitzero"` // zero while held
}

// Held reports whether the attachment has the address still.
func (r Record) Held() bool { return r.ReleasedAt.IsZero() }

// SameOwner reports whether both records are of one attachment.
func (r Record) SameOwner(other Record) bool {
	return r.ContainerID == other.ContainerID && r.IfName == other.IfName
}

func (r Record) check() error {
	switch {
	case !canonical(r.Addr):
		return fmt.Errorf("address %s: not a plain IPv4 or IPv6 address", r.Addr)
	case r.ENI == "", r.ContainerID == "", r.IfName == "":
		return fmt.Errorf("eni %q, container id %q and interface name %q: none may be empty", r.ENI, r.ContainerID, r.IfName)
	}
	// JSON would replace bad bytes, and the record would name someone else.
	for _, f := range []string{r.ENI, r.ContainerID, r.IfName, r.NetNS, r.HostVeth, r.PodName, r.PodNamespace} {
		if !utf8.ValidString(f) {
			return fmt.Errorf("field %q: not UTF-8", f)
		}
	}
	return nil
}

// canonical holds for an address that has one spelling only, so that two file
// names cannot mean the same one.
func canonical(a netip.Addr) bool { return a.IsValid() && a.Zone() == "" && !a.Is4In6() }

func encode(r Record) ([]byte, error) {
	r.Version = Version
	if err := r.check(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(data) >= maxRecord {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(data), maxRecord)
	}
	return append(data, '\n'), nil
}

// decode reads the content of the file of addr. It is strict: a field that this
// version does not know means that the file is not what it says it is.
func decode(addr netip.Addr, data []byte) (Record, error) {
	if len(data) > maxRecord {
		return Record{}, fmt.Errorf("more than %d bytes", maxRecord)
	}
	// The version first, so that a newer record is called that, and not
	// malformed.
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return Record{}, fmt.Errorf("torn or not a record: %w", err)
	}
	if v.Version != Version {
		return Record{}, fmt.Errorf("record version %d, this program knows version %d", v.Version, Version)
	}
	var r Record
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Record{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Record{}, errors.New("data after the record")
	}
	if err := r.check(); err != nil {
		return Record{}, err
	}
	if r.Addr != addr {
		return Record{}, fmt.Errorf("the record is of %s", r.Addr)
	}
	return r, nil
}
