package house

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// checkPackageDocs wants exactly one package comment in each package: a reader
// who opens the folder finds one place that says what it is for.
func checkPackageDocs(sources []*source) []string {
	type pkg struct {
		name  string
		first string // path of a file, for the finding
		docs  []string
		text  string
	}
	pkgs := map[string]*pkg{}
	for _, s := range sources {
		if s.test {
			continue
		}
		p := pkgs[s.dir()]
		if p == nil {
			p = &pkg{name: s.file.Name.Name, first: s.path}
			pkgs[s.dir()] = p
		}
		if text := strings.TrimSpace(s.file.Doc.Text()); text != "" {
			p.docs, p.text = append(p.docs, s.path), text
		}
	}
	var out []string
	for dir, p := range pkgs {
		switch {
		case len(p.docs) == 0:
			out = append(out, fmt.Sprintf("%s:1: package %s has no package comment: say what it is, its invariants, its concurrency", p.first, p.name))
		case len(p.docs) > 1:
			out = append(out, fmt.Sprintf("%s:1: package %s has %d package comments, in %s: keep one", p.docs[0], p.name, len(p.docs), strings.Join(p.docs, ", ")))
		case p.name != "main" && !strings.HasPrefix(p.text, "Package "+p.name+" "):
			out = append(out, fmt.Sprintf("%s:1: the package comment of %s does not begin with \"Package %s \"", p.docs[0], dir, p.name))
		}
	}
	slices.Sort(out)
	return out
}

func TestPackageComments(t *testing.T) {
	report(t, checkPackageDocs(tree(t)))
}

func TestPackageCommentsRefuses(t *testing.T) {
	sources, err := parse(fstest.MapFS{
		"good/doc.go":        {Data: []byte("// Package good is good.\npackage good\n")},
		"good/more.go":       {Data: []byte("package good\n")},
		"good/doc_test.go":   {Data: []byte("// Package good has a comment in a test too.\npackage good\n")},
		"none/a.go":          {Data: []byte("// Not a package comment.\n\npackage none\n")},
		"twice/a.go":         {Data: []byte("// Package twice.\npackage twice\n")},
		"twice/b.go":         {Data: []byte("// Package twice again.\npackage twice\n")},
		"wrong/a.go":         {Data: []byte("// Something else.\npackage wrong\n")},
		"cmd/prog/main.go":   {Data: []byte("package main\n")},
		"other/a_windows.go": {Data: []byte("package other\n")},
		"tagged/a.go":        {Data: []byte("//go:build never\n\npackage tagged\n")},
		"a/testdata/x.go":    {Data: []byte("package x\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantFindings(t, checkPackageDocs(sources),
		"cmd/prog/main.go:1: package main has no package comment",
		"none/a.go:1: package none has no package comment",
		"twice/a.go:1: package twice has 2 package comments, in twice/a.go, twice/b.go",
		"wrong/a.go:1: the package comment of wrong does not begin with",
	)
}
