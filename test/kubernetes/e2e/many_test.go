//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/bench/pods"
)

// TestManyPods: 300 pods at once, on nodes that have next to no addresses yet, where
// each call of EC2's takes 50 ms. None needs a second sandbox. It is a round of
// `make bench B=pods`, and has the machine for itself.
func TestManyPods(t *testing.T) {
	needCluster(t)
	start := time.Now()
	c, err := pods.Measure(t.Context(), pods.Env{BinDir: fairwayPrograms, Programs: kubernetesPrograms,
		Deploy: filepath.Join(repository, "deploy"), Progress: os.Stderr}, pods.Fairway, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Starts) != pods.Count || c.SecondSandboxes > 0 || c.Refused > 0 {
		t.Errorf("%d pods are ready; %d of them needed a second sandbox, %d sandboxes were refused", len(c.Starts), c.SecondSandboxes, c.Refused)
	}
	t.Logf("the last of %d pods was ready %s after it was made; all took %s", pods.Count, c.Last().Round(time.Second), time.Since(start).Round(time.Second))
}
