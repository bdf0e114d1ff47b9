//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/test/kubernetes/programs"
	"github.com/fairway-cni/fairway/test/upstream"
)

var (
	repository      = filepath.Join("..", "..", "..")
	fairwayPrograms string // directory of Fairway's own
	missingTool     error  // of Debian's, where it cannot be had

	kubernetesPrograms string // directory of Kubernetes'
)

func TestMain(m *testing.M) {
	guest.MaybeInit()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if guest.Check() != nil {
		return m.Run() // every test says why it cannot run here
	}
	dir, err := os.MkdirTemp("", "fairway-e2e-")
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

// build makes Fairway's programs as `make build` does, and leaves Kubernetes' where
// `make kubernetes` does, so that either finds what the other has built.
func build(dir string) error {
	if err := upstream.Build(repository, dir, "./cmd/..."); err != nil {
		return err
	}
	kept, err := filepath.Abs(filepath.Join(repository, "bin", "kubernetes"))
	if err != nil {
		return err
	}
	kubernetesPrograms = kept
	if err := os.Symlink(kept, filepath.Join(dir, "kubernetes")); err != nil {
		return err
	}
	err = programs.Build("..", kept, os.Stderr)
	if errors.Is(err, upstream.ErrNone) {
		missingTool, err = err, nil // it is the last that is built
	}
	return err
}

// needCluster skips a test where no cluster can run.
func needCluster(t *testing.T) {
	t.Helper()
	err := guest.Check()
	if err == nil {
		err = fabric.Probe()
	}
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if missingTool != nil {
		t.Skip(missingTool)
	}
}
