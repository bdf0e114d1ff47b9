package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestLook: the records can be read while an agent has them, and nothing changes.
func TestLook(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n, err := Look(dir); n != 0 || err != nil {
		t.Errorf("an empty one: %d, %v", n, err)
	}
	for name, text := range map[string]string{"10.0.1.9": "nonsense", "README": "x", tmpPrefix + "1": "half"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n, err := Look(dir)
	var bad *BadRecordsError
	if n != 0 || !errors.As(err, &bad) || len(bad.Files) != 2 {
		t.Errorf("%d, %v; want two that are bad", n, err)
	}
	if _, err := os.Stat(filepath.Join(dir, tmpPrefix+"1")); err != nil {
		t.Errorf("what a crash left: %v", err)
	}
	if _, err := Look(filepath.Join(dir, "nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
