package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
	"github.com/fairway-cni/fairway/internal/core/cluster"
)

// clusterFile is the name of the file that holds what the cluster said last, beside
// the directory of the records. It is no record: without it a start while the API
// server is away has no ENIConfig, and no limit of kubelet's.
const clusterFile = "cluster.json"

// clusterFacts is what a start needs to know of the cluster that cannot be asked.
type clusterFacts struct {
	Node        cluster.Node `json:"node"`
	Custom      ipamd.Custom `json:"custom"`
	CustomKnown bool         `json:"customKnown"`
}

// clusterCache keeps them. It belongs to one goroutine at a time.
type clusterCache struct {
	path  string
	saved []byte
}

func newClusterCache(c Config) *clusterCache {
	return &clusterCache{path: filepath.Join(filepath.Dir(c.StateDir), clusterFile)}
}

// last is what was kept, for the node of this name.
func (c *clusterCache) last(node string) (f clusterFacts, ok bool) {
	data, err := os.ReadFile(c.path)
	if err != nil || json.Unmarshal(data, &f) != nil || f.Node.Name != node {
		return clusterFacts{}, false
	}
	return f, true
}

func (c *clusterCache) keep(f clusterFacts, log *slog.Logger) {
	data, err := json.Marshal(f)
	if err == nil && bytes.Equal(data, c.saved) {
		return
	}
	if err == nil {
		err = replaceFile(c.path, data)
	}
	c.saved = data
	if err != nil {
		log.Warn("keep what the cluster says for the next start", "error", err)
	}
}

// replaceFile writes a file that is never seen half written.
func replaceFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// readJSON reads a file that may not be there.
func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
