package upstream

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
)

// Build makes programs from Go packages, named as `go build` does, in a
// directory. from is the module that they belong to or that requires theirs.
func Build(from, into string, args ...string) error {
	c := exec.Command("go", append([]string{"build", "-ldflags=-s -w", "-o", into + "/"}, args...)...)
	c.Dir = from
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", c, err, out)
	}
	return os.Chmod(into, 0o755)
}

// BuildOnce puts a large program of others into a directory. It is built once for
// each version of it and of Go; the module in the working directory requires it.
func BuildOnce(into, pkg string) error {
	var key []byte
	for _, file := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		key = append(key, text...)
	}
	sum, name := sha256.Sum256(append(key, runtime.Version()...)), path.Base(pkg)
	kept, err := cache(fmt.Sprintf("%s-%x", name, sum[:6]))
	if err != nil {
		return err
	}
	program := filepath.Join(kept, name)
	if _, err := os.Stat(program); err != nil {
		fmt.Fprintf(os.Stderr, "building %s, which takes some minutes the first time\n", name)
		temp, err := os.MkdirTemp(kept, ".build-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp)
		if err := Build(".", temp, pkg); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(temp, name), program); err != nil {
			return err
		}
	}
	return os.Symlink(program, filepath.Join(into, name))
}

// cache is a directory that outlives the tests.
func cache(name string) (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "fairway", name)
	return dir, os.MkdirAll(dir, 0o755)
}
