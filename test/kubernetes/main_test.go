package kubernetes

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/test/kubernetes/programs"
)

// repository is where this module lives.
var repository = filepath.Join("..", "..")

// What the tests run.
var (
	fairwayPrograms    string // directory of Fairway's own, and what stands beside them
	kubernetesPrograms string // directory of Kubernetes'; outlives the tests
	missingTool        error  // of Debian's, where it cannot be had
)

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
		fairwayPrograms = dir
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build makes Fairway's programs as `make build` does, and puts beside them what
// the tests of single programs need of Kubernetes' own.
func build(dir string) error {
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir+"/", "./cmd/...")
	c.Dir = repository
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", c, err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Symlink(self, filepath.Join(dir, witnessName)); err != nil {
		return err
	}
	if kubernetesPrograms, err = filepath.Abs(filepath.Join(repository, "bin", "kubernetes")); err != nil {
		return err
	}
	err = programs.Build(".", kubernetesPrograms, os.Stderr)
	if errors.Is(err, programs.ErrNoTool) {
		missingTool, err = err, nil // it is the last that is built
	}
	if err != nil {
		return err
	}
	for _, name := range []string{"cni/portmap", "cni/bandwidth", "kube-proxy"} {
		if err := os.Symlink(filepath.Join(kubernetesPrograms, name), filepath.Join(dir, filepath.Base(name))); err != nil {
			return err
		}
	}
	return nil
}

func needNetfilterTools(t *testing.T) {
	t.Helper()
	needLab(t)
	if missingTool != nil {
		t.Skip(missingTool)
	}
}
