package kubernetes

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/fairway-cni/fairway/lab/guest"
)

// programs is the directory of all programs that instances run.
var programs string

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == witnessName {
		os.Exit(witness())
	}
	guest.MaybeInit()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if guest.Check() != nil {
		return m.Run() // every test says why it cannot run here
	}
	dir, err := os.MkdirTemp("", "fairway-kubernetes-")
	if err == nil {
		defer os.RemoveAll(dir)
		programs = dir
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build makes Fairway's programs as `make build` does, and puts the plugins of
// others beside them.
func build(dir string) error {
	if err := goBuild(filepath.Join("..", ".."), dir, "-trimpath", "./cmd/..."); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Symlink(self, filepath.Join(dir, witnessName)); err != nil {
		return err
	}
	const plugins = "github.com/containernetworking/plugins/plugins/meta/"
	if err := goBuild(".", dir, plugins+"portmap", plugins+"bandwidth"); err != nil {
		return err
	}
	return kubeProxy(dir)
}

func goBuild(from, to string, args ...string) error {
	c := exec.Command("go", append([]string{"build", "-ldflags=-s -w", "-o", to + "/"}, args...)...)
	c.Dir = from
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", c, err, out)
	}
	return os.Chmod(to, 0o755)
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

// kubeProxy puts kube-proxy among the programs. It is built once for each
// version of it and of Go, and before the clock of `go test -timeout` runs.
func kubeProxy(dir string) error {
	var key []byte
	for _, file := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		key = append(key, text...)
	}
	sum := sha256.Sum256(append(key, runtime.Version()...))
	kept, err := cache(fmt.Sprintf("kube-proxy-%x", sum[:6]))
	if err != nil {
		return err
	}
	program := filepath.Join(kept, "kube-proxy")
	if _, err := os.Stat(program); err != nil {
		fmt.Fprintln(os.Stderr, "building kube-proxy, which takes some minutes the first time")
		temp, err := os.MkdirTemp(kept, ".build-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp)
		if err := goBuild(".", temp, "k8s.io/kubernetes/cmd/kube-proxy"); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(temp, "kube-proxy"), program); err != nil {
			return err
		}
	}
	return os.Symlink(program, filepath.Join(dir, "kube-proxy"))
}
