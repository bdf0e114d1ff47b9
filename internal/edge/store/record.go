package store

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"
	"unicode/utf8"
)

// The versions of a record:
//
//	1    all fields but those below
//	2    network
//
// Forward: a release reads all versions up to its own, for as long as a node may
// have records of them; testdata has some of each. Back: a record is written in
// the lowest version that can hold it, so that an older release reads what it
// could have written itself; [Downgrade] makes such of the rest. A release never
// guesses at a newer version: the address counts as held, and the error says why.
// A new field, however optional, makes a new version, since a release that does
// not know it would drop it with its next Put.
const (
	oldestVersion = 1
	// Version is the newest.
	Version = 2
)

// maxRecord bounds a record in bytes. A usual one has about 400; a network
// namespace path of the longest kind (PATH_MAX, 4096) fits many times over.
const maxRecord = 64 << 10

// Record says who holds an address, or who held it last.
type Record struct {
	Version      int        `json:"version"` // as it was read; Put does not look at it
	Addr         netip.Addr `json:"addr"`
	ENI          string     `json:"eni"`
	ContainerID  string     `json:"containerID"`
	IfName       string     `json:"ifName"`
	NetNS        string     `json:"netNS,omitempty"`
	HostVeth     string     `json:"hostVeth,omitempty"`
	MTU          int        `json:"mtu,omitempty"`     // bytes, as the interface was made
	Network      string     `json:"network,omitempty"` // name of the CNI network; version 2
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
	for _, f := range []string{r.ENI, r.ContainerID, r.IfName, r.NetNS, r.HostVeth, r.Network, r.PodName, r.PodNamespace} {
		if !utf8.ValidString(f) {
			return fmt.Errorf("field %q: not UTF-8", f)
		}
	}
	return nil
}

// canonical holds for an address that has one spelling only, so that two file
// names cannot mean the same one.
func canonical(a netip.Addr) bool { return a.IsValid() && a.Zone() == "" && !a.Is4In6() }

// version is the lowest that can hold the record.
func (r Record) version() int {
	if r.Network != "" {
		return 2
	}
	return 1
}

func encode(r Record) ([]byte, error) {
	r.Version = r.version()
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
	version, err := versionOf(data)
	if err != nil {
		return Record{}, err
	}
	if version < oldestVersion || version > Version {
		err := fmt.Errorf("record version %d, this program knows versions %d to %d", version, oldestVersion, Version)
		if version > Version {
			err = fmt.Errorf("%w: a newer fairway-agent wrote it; have that one write records of version %d", err, oldestVersion)
		}
		return Record{}, err
	}
	var r Record
	if err := decodeStrictly(data, &r); err != nil {
		return Record{}, err
	}
	if version < r.version() {
		return Record{}, fmt.Errorf("a field of version %d in a record of version %d", r.version(), version)
	}
	if err := r.check(); err != nil {
		return Record{}, err
	}
	if r.Addr != addr {
		return Record{}, fmt.Errorf("the record is of %s", r.Addr)
	}
	return r, nil
}
