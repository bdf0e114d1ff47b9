package kubernetes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/test/upstream"
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

// build makes Fairway's programs as `make build` does, and puts beside them those of
// others: of Kubernetes kube-proxy alone, as all of it takes a quarter of an hour.
func build(dir string) error {
	if err := upstream.Build(filepath.Join("..", ".."), dir, "./cmd/..."); err != nil {
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
	if err := upstream.Build(".", dir, plugins+"portmap", plugins+"bandwidth"); err != nil {
		return err
	}
	return upstream.BuildOnce("components", dir, "k8s.io/kubernetes/cmd/kube-proxy")
}

// netfilterTools puts iptables and nft among the programs.
var netfilterTools = sync.OnceValue(func() error { return upstream.Netfilter(programs) })

func needNetfilterTools(t *testing.T) {
	t.Helper()
	needLab(t)
	err := netfilterTools()
	if errors.Is(err, upstream.ErrNone) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}
