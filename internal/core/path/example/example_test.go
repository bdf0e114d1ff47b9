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

// TestLarge: large worlds are sound, as large as they say, and their story is the
// small one's.
func TestLarge(t *testing.T) {
	crowd, err := Crowd("seed003", 40)
	if err != nil {
		t.Fatal(err)
	}
	fleet, err := Fleet(3)
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]*path.World{"crowd": crowd, "fleet": fleet} {
		if err := w.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		a, err := path.NewTracer(w).Trace(path.Probe{From: "b:default/sleep", To: "a:default/httpbin:80"})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(a.Faults()); n != 2 {
			t.Errorf("%s: %d faults, want 2", name, n)
		}
	}
	for i, n := range crowd.Nodes {
		if len(n.Pods.Value) != 40 || len(n.Host.Rules.Value) < 80 {
			t.Errorf("node %d: %d pods, %d rules", i, len(n.Pods.Value), len(n.Host.Rules.Value))
		}
	}
	if len(fleet.Nodes) != 4 {
		t.Errorf("%d nodes, want 4", len(fleet.Nodes))
	}
	// A pod that was copied is found, and sends as the first does.
	a, err := path.NewTracer(crowd).Trace(path.Probe{From: "b:default/p3", To: "a:default/httpbin:80"})
	if err != nil || len(a.Faults()) != 2 {
		t.Errorf("a copied pod: %v, %v", a, err)
	}
}
