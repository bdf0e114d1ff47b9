package store

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// The directories below testdata are what releases have written, and are never
// changed: 1 by those that know version 1 alone, 2 by those that know both.

// copied is a copy of one of them.
func copied(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", version))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// files are the content of a directory, by name, without the lock.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if e.Name() != lockName {
			all[e.Name()] = string(data)
		}
	}
	return all
}

// golden are the records of testdata.
func golden(network string) []Record {
	version := 1
	if network != "" {
		version = 2
	}
	at := func(s string) time.Time { t, _ := time.Parse(time.RFC3339, s); return t }
	return []Record{
		{Version: 1, Addr: netip.MustParseAddr("10.0.1.10"), ENI: "eni-0a", ContainerID: "c10", IfName: "eth0", CreatedAt: at("2026-01-02T03:04:05Z")},
		{Version: version, Addr: netip.MustParseAddr("10.0.1.8"), ENI: "eni-0a", ContainerID: "c8", IfName: "eth0", NetNS: "/run/netns/c8",
			HostVeth: "fw8", MTU: 9001, Network: network, PodName: "web-8", PodNamespace: "default",
			CreatedAt: created, ReleasedAt: at("2026-01-02T04:04:05Z")},
		{Version: version, Addr: netip.MustParseAddr("10.0.1.9"), ENI: "eni-0a", ContainerID: "c9", IfName: "eth0", Network: network},
	}
}

var goldenLeaving = []Leaving{
	{Prefix: netip.MustParsePrefix("10.0.1.20/32"), ENI: "eni-0a", Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
	{Prefix: netip.MustParsePrefix("10.0.1.32/28"), ENI: "eni-0b", Since: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)},
}

var cmpPrefix = cmpopts.EquateComparable(netip.Prefix{})

// TestReadsAndWritesBothVersions: what either wrote is read, and what is written
// back is the same to the byte.
func TestReadsAndWritesBothVersions(t *testing.T) {
	for version, want := range map[string][]Record{"1": golden(""), "2": golden("pods")} {
		t.Run(version, func(t *testing.T) {
			dir := copied(t, version)
			before := files(t, dir)
			s := mustOpen(t, dir)
			wantAll(t, s, want...)
			leaving, err := s.Leaving()
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(map[string][]Leaving{"1": nil, "2": goldenLeaving}[version], leaving, cmpPrefix); d != "" {
				t.Errorf("journal (-want +got):\n%s", d)
			}
			mustPut(t, s, want...)
			if err := s.PutLeaving(leaving); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(before, files(t, dir)); d != "" {
				t.Errorf("written back (-before +after):\n%s", d)
			}
		})
	}
}

func TestDowngrade(t *testing.T) {
	dir := copied(t, "2")
	before := files(t, dir)
	if n, err := Downgrade(dir); err == nil || n != 0 || !strings.Contains(err.Error(), "10.0.1.20/32 and 1 more are being given back") {
		t.Errorf("with a journal: %d, %v", n, err)
	}
	if d := cmp.Diff(before, files(t, dir)); d != "" {
		t.Errorf("refused, but changed (-before +after):\n%s", d)
	}
	s := mustOpen(t, dir)
	if _, err := Downgrade(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("with an agent running: %v", err)
	}
	if err := s.PutLeaving(nil); err != nil {
		t.Fatal(err)
	}
	s.Close()
	for _, want := range []int{2, 0} { // it can be done again
		if n, err := Downgrade(dir); err != nil || n != want {
			t.Errorf("changed %d, %v; want %d", n, err, want)
		}
		if d := cmp.Diff(files(t, filepath.Join("testdata", "1")), files(t, dir)); d != "" {
			t.Errorf("downgraded (-as the first release wrote it +got):\n%s", d)
		}
	}
	wantAll(t, mustOpen(t, dir), golden("")...)
}

// TestDowngradeChangesNothingItCannotRead: all or nothing.
func TestDowngradeChangesNothingItCannotRead(t *testing.T) {
	for name, content := range map[string]string{"10.0.1.7": "{", leavingName: "{"} {
		dir := copied(t, "2")
		write(t, dir, name, content)
		before := files(t, dir)
		if _, err := Downgrade(dir); err == nil {
			t.Errorf("%s cannot be read, and it went on", name)
		}
		if d := cmp.Diff(before, files(t, dir)); d != "" {
			t.Errorf("%s cannot be read: (-before +after):\n%s", name, d)
		}
	}
}

// TestNewerVersion: a record that a newer release wrote is held, stays as it is,
// and is called what it is.
func TestNewerVersion(t *testing.T) {
	dir := copied(t, "2")
	newer := `{"version":3,"addr":"10.0.1.9","colour":"red"}` + "\n"
	write(t, dir, "10.0.1.9", newer)
	s := mustOpen(t, dir)
	var bad *BadRecordsError
	if _, err := s.All(); !errors.As(err, &bad) || len(bad.Addrs()) != 1 || bad.Addrs()[0].String() != "10.0.1.9" ||
		!strings.Contains(err.Error(), "record version 3") || !strings.Contains(err.Error(), "a newer fairway-agent wrote it") {
		t.Errorf("All: %v", err)
	}
	if err := s.Put(record("10.0.1.9", "a")); !errors.Is(err, ErrHeld) || files(t, dir)["10.0.1.9"] != newer {
		t.Errorf("Put: %v, file %q", err, files(t, dir)["10.0.1.9"])
	}
	for version, text := range map[string]string{
		"a field of version 2 in a record of version 1": `{"version":1,"addr":"10.0.1.9","eni":"e","containerID":"c","ifName":"i","network":"n"}`,
		"record version 0, this program knows":          `{"addr":"10.0.1.9","eni":"e","containerID":"c","ifName":"i"}`,
	} {
		if _, err := decode(netip.MustParseAddr("10.0.1.9"), []byte(text)); err == nil || !strings.Contains(err.Error(), version) {
			t.Errorf("%s: %v, want %q", text, err, version)
		}
	}
}
