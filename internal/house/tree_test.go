package house

import (
	"bytes"
	"errors"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/fairway-cni/fairway"

// source is one Go file of the tree.
type source struct {
	path      string // slash-separated, from the root of the repository
	file      *ast.File
	fset      *token.FileSet
	lines     int
	test      bool
	generated bool
}

func (s *source) dir() string { return path.Dir(s.path) }

// at names a place in the form that editors and terminals turn into a link.
func (s *source) at(p token.Pos) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(p).Line)
}

// importName returns the name by which the file knows the package, or "" if it
// does not import it. A dot import is reported as ".".
func (s *source) importName(pkg string) string {
	for _, spec := range s.file.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err != nil || p != pkg {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(pkg)
	}
	return ""
}

// uses calls f for every mention of pkg.Name in the file, and once with "*" for
// a dot import, which hides them.
func (s *source) uses(pkg string, f func(name string, at token.Pos)) {
	local := s.importName(pkg)
	if local == "" || local == "_" {
		return
	}
	if local == "." {
		f("*", s.file.Package)
		return
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		// An identifier with an Obj is a local variable that hides the package.
		if id, ok := sel.X.(*ast.Ident); ok && id.Name == local && id.Obj == nil {
			f(sel.Sel.Name, sel.Pos())
		}
		return true
	})
}

// skipped are the directories that hold no source of ours.
func skipped(dir string) bool {
	base := path.Base(dir)
	return dir != "." && base != ".ci" && base != ".github" && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") ||
		base == "testdata" || base == "vendor" || base == "node_modules")
}

// files returns the paths for which want holds, in lexical order.
func files(fsys fs.FS, want func(string) bool) ([]string, error) {
	var out []string
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		// A file may vanish while a build or an editor works in the tree.
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir() && skipped(p):
			return fs.SkipDir
		case p == ".git": // of a linked worktree, where it is a file
		case d.Type().IsRegular() && want(p):
			out = append(out, p)
		}
		return nil
	})
	return out, err
}

// parse reads every Go file that a Linux build of the tree uses.
func parse(fsys fs.FS) ([]*source, error) {
	paths, err := files(fsys, func(p string) bool { return path.Ext(p) == ".go" })
	if err != nil {
		return nil, err
	}
	ctx := build.Default
	ctx.GOOS = "linux"
	ctx.OpenFile = func(p string) (io.ReadCloser, error) { return fsys.Open(filepath.ToSlash(p)) }
	var out []*source
	for _, p := range paths {
		if ok, err := ctx.MatchFile(path.Dir(p), path.Base(p)); err != nil || !ok {
			if err != nil {
				return nil, err
			}
			continue
		}
		text, err := fs.ReadFile(fsys, p)
		if err != nil {
			return nil, err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, p, text, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		out = append(out, &source{
			path: p, file: file, fset: fset,
			lines:     bytes.Count(text, []byte("\n")),
			test:      strings.HasSuffix(p, "_test.go"),
			generated: ast.IsGenerated(file),
		})
	}
	return out, nil
}

var rootDir = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module "+module+"\n") {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod of " + module + " above the test's directory")
		}
		dir = parent
	}
})

// root is the repository as a file system.
func root(t *testing.T) fs.FS {
	t.Helper()
	dir, err := rootDir()
	if err != nil {
		t.Fatal(err)
	}
	return os.DirFS(dir)
}

var parsedTree = sync.OnceValues(func() ([]*source, error) {
	dir, err := rootDir()
	if err != nil {
		return nil, err
	}
	return parse(os.DirFS(dir))
})

// tree is every Go file of the repository, parsed once for all tests.
func tree(t *testing.T) []*source {
	t.Helper()
	sources, err := parsedTree()
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) == 0 {
		t.Fatal("no Go files found: the walk is broken")
	}
	return sources
}

// report fails the test once for each finding.
func report(t *testing.T, findings []string) {
	t.Helper()
	for _, f := range findings {
		t.Error(f)
	}
}

// wantFindings compares findings with fragments, one each, in order.
func wantFindings(t *testing.T, got []string, fragments ...string) {
	t.Helper()
	if len(got) != len(fragments) {
		t.Fatalf("%d findings, want %d:\n%s", len(got), len(fragments), strings.Join(got, "\n"))
	}
	for i, want := range fragments {
		if !strings.Contains(got[i], want) {
			t.Errorf("finding %d is %q, want it to contain %q", i, got[i], want)
		}
	}
}
