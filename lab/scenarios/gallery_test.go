package scenarios

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestGallery runs the bugs of docs/path.md: each made with packets, explained,
// mended as the explanation says, and seen to work.
func TestGallery(t *testing.T) {
	t.Parallel()
	runScripts(t, "gallery")
}

// TestGalleryIsListed: the table of docs/path.md has each scenario, once, with the
// codes that its explanation has, and each scenario ends with a packet that arrives.
func TestGalleryIsListed(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/path.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| \[([a-z0-9-]+)\]\(\.\./lab/scenarios/gallery/([a-z0-9-]+)\.txtar\) .*$`).FindAllStringSubmatch(string(page), -1) {
		if m[1] != m[2] || rows[m[1]] != "" {
			t.Errorf("row %q: names another file, or is there twice", m[0])
		}
		rows[m[1]] = m[0]
	}
	files, err := filepath.Glob("gallery/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".txtar")
		a, err := txtar.ParseFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if rows[name] == "" {
			t.Errorf("%s is not in the table of docs/path.md", name)
		}
		agrees(t, name, rows[name], a)
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("docs/path.md lists %s, and there is no such scenario", name)
	}
}

// agrees holds a row against its scenario.
func agrees(t *testing.T, name, row string, a *txtar.Archive) {
	t.Helper()
	script := string(a.Comment)
	why := script
	for _, f := range a.Files {
		switch f.Name {
		case "why.want":
			if !strings.HasPrefix(string(f.Data), "DROPPED ") || !strings.Contains(string(f.Data), "replay: DELIVERED") {
				t.Errorf("%s: why.want has no drop, or no mend that helps", name)
			}
			why += string(f.Data)
		case "wrong.want":
			why += string(f.Data)
		}
	}
	for _, code := range regexp.MustCompile("`([A-Z_]{3,})`").FindAllStringSubmatch(row, -1) {
		if !strings.Contains(why, code[1]) {
			t.Errorf("%s: the table has %s, the explanation has not", name, code[1])
		}
	}
	lines := strings.Split(strings.TrimSpace(script), "\n")
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "! lab probe ") }) ||
		!strings.HasPrefix(lines[len(lines)-1], "stdout '^DELIVERED") || !strings.HasPrefix(lines[len(lines)-3], "lab probe ") {
		t.Errorf("%s: want a packet that is lost, and at the end one that arrives and is told to", name)
	}
}
