package example

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// TestExamples: each is read, and its probe names two ends of it.
func TestExamples(t *testing.T) {
	for _, name := range Names() {
		e, w, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		if e.Story == "" || w.Name != name {
			t.Errorf("%s: story %q, the world calls itself %q", name, e.Story, w.Name)
		}
		if _, err := path.NewTracer(w).Trace(path.Probe{From: e.From, To: e.To}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := Load("seed009"); err == nil || !strings.Contains(err.Error(), "seed003") {
		t.Errorf("an example that does not exist: %v, want an error that lists those that do", err)
	}
}

// TestExamplesAreGenerated: what is checked in is what gen writes.
func TestExamplesAreGenerated(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "run", "./gen", dir).CombinedOutput(); err != nil {
		t.Fatalf("gen: %v\n%s", err, out)
	}
	for _, name := range Names() {
		want, err := os.ReadFile(filepath.Join(dir, name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		have, err := os.ReadFile(name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, have) {
			t.Errorf("%s.json is not what gen writes; run go generate ./internal/core/path/example", name)
		}
	}
}
