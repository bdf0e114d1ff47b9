package house

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// checkReplace: a replaced module is a fork that a reader of go.mod does not
// see and that "go install" ignores. A module of its own inside the repository
// may point at the one it lives in.
func checkReplace(fsys fs.FS) ([]string, error) {
	paths, err := files(fsys, func(p string) bool { return path.Base(p) == "go.mod" })
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range paths {
		text, err := fs.ReadFile(fsys, p)
		if err != nil {
			return nil, err
		}
		block := false
		for i, line := range strings.Split(string(text), "\n") {
			line, _, _ = strings.Cut(line, "//")
			words := strings.Fields(line)
			switch {
			case len(words) == 0:
				continue
			case block && words[0] == ")":
				block = false
				continue
			case words[0] == "replace" && len(words) == 2 && words[1] == "(":
				block = true
				continue
			case words[0] == "replace":
				words = words[1:]
			case !block:
				continue
			}
			if p != "go.mod" && words[0] == module && strings.HasPrefix(words[len(words)-1], "../") {
				continue
			}
			out = append(out, fmt.Sprintf("%s:%d: replace %s: depend on a released version, or carry the change upstream", p, i+1, words[0]))
		}
	}
	return out, nil
}

// makeTargets is how many targets a person can keep in mind.
const makeTargets = 8

var makeTarget = regexp.MustCompile(`^([A-Za-z0-9][^\s:=]*)(?:\s+[^\s:=]+)*\s*:(?:[^=]|$)`)

func checkMakefile(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		if m := makeTarget.FindStringSubmatch(line); m != nil && !slices.Contains(names, m[1]) {
			names = append(names, m[1])
		}
	}
	if len(names) == 0 {
		return []string{"Makefile: no targets found"}
	}
	if len(names) > makeTargets {
		return []string{fmt.Sprintf("Makefile: %d targets (%s), at most %d: a variable of an existing one does", len(names), strings.Join(names, " "), makeTargets)}
	}
	return nil
}

func TestGoMod(t *testing.T) {
	findings, err := checkReplace(root(t))
	if err != nil {
		t.Fatal(err)
	}
	report(t, findings)
}

func TestMakefile(t *testing.T) {
	text, err := fs.ReadFile(root(t), "Makefile")
	if err != nil {
		t.Fatal(err)
	}
	report(t, checkMakefile(string(text)))
}

func TestLicence(t *testing.T) {
	text, err := fs.ReadFile(root(t), "LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Apache License", "Version 2.0, January 2004", "END OF TERMS AND CONDITIONS"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("LICENSE does not contain %q", want)
		}
	}
}

func TestReplaceRefuses(t *testing.T) {
	findings, err := checkReplace(fstest.MapFS{
		"go.mod":                 {Data: []byte("module x\n// replace a => b\nrequire replace.example v1\nreplace a.example => ../a\nreplace (\n\tb.example v1 => c.example v2\n)\n")},
		"test/kubernetes/go.mod": {Data: []byte("module y\nreplace " + module + " => ../..\nreplace d.example => ../d\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantFindings(t, findings, "go.mod:4: replace a.example", "go.mod:6: replace b.example", "test/kubernetes/go.mod:3: replace d.example")
}

func TestMakefileRefuses(t *testing.T) {
	few := ".PHONY: a b\nGO := go\nX ?= y:z\na: b\n\techo x: y\nb c:\n"
	wantFindings(t, checkMakefile(few))
	wantFindings(t, checkMakefile(few+"d:\ne:\nf:\ng:\nh:\ni:\nj:\n"), "9 targets (a b d e f g h i j)")
	wantFindings(t, checkMakefile(""), "no targets")
}
