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

// Build makes a program from a Go package, or several in a directory that exists,
// as `go build -o` does. from is the directory of the module that has the packages
// or requires theirs. args are packages, after flags; of two -ldflags the later
// counts. What is made may be run by every user.
func Build(from, to string, args ...string) error { return BuildFor(runtime.GOARCH, from, to, args...) }

// BuildFor is Build for another processor, as Go names it.
func BuildFor(arch, from, to string, args ...string) error {
	c := exec.Command("go", append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", to}, args...)...)
	c.Dir = from
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", c, err, out)
	}
	return os.Chmod(to, 0o755)
}

// BuildOnce puts a large program of others into a directory. It is built once for
// each version of it and of Go; the module in the directory from requires it.
func BuildOnce(from, into, pkg string) error {
	var key []byte
	for _, file := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(from, file))
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
		if err := Build(from, temp, pkg); err != nil {
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
