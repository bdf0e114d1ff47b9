package cniapi

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReady(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "cni.sock")
	if WasReady(socket) {
		t.Error("ready before anybody said so")
	}
	if err := MarkReady(socket); err != nil {
		t.Fatal(err)
	}
	if !WasReady(socket) {
		t.Error("not ready after it was said")
	}
	if err := os.WriteFile(ReadyPath(socket), []byte("11111111-2222-3333-4444-555555555555\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if WasReady(socket) {
		t.Error("ready by another boot's mark")
	}
	if err := MarkReady(socket); err != nil || !WasReady(socket) {
		t.Errorf("the mark of another boot stays: %v", err)
	}
	if err := MarkReady(filepath.Join(socket, "none", "s")); err == nil {
		t.Error("a mark where there is no directory")
	}
}
