package vpccni

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/test/upstream"
)

const (
	project = "github.com/aws/amazon-vpc-cni-k8s"
	daemon  = "aws-k8s-agent"
)

// programs is the directory of all programs that instances run.
var programs string

func TestMain(m *testing.M) {
	guest.MaybeInit()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if guest.Check() != nil {
		return m.Run() // every test says why it cannot run here
	}
	dir, err := os.MkdirTemp("", "fairway-vpccni-")
	if err == nil {
		defer os.RemoveAll(dir)
		programs = dir
		// Before the clock of `go test -timeout` runs.
		err = upstream.BuildOnce(".", dir, project+"/cmd/"+daemon)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// needLab skips a test where no lab can run, or iptables is not to be had.
func needLab(t *testing.T) {
	t.Helper()
	err := guest.Check()
	if err == nil {
		err = fabric.Probe()
	}
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	if err == nil {
		err = upstream.Netfilter(programs)
	}
	if errors.Is(err, upstream.ErrNone) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}
