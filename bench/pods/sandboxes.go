package pods

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"github.com/fairway-cni/fairway/lab/world"
)

// asked is how containerd logs a request for a sandbox, once before the network is
// made and, if all went well, again with the sandbox's ID. Source:
// RunPodSandbox of internal/cri/instrument in containerd.
var asked = regexp.MustCompile(`msg="RunPodSandbox for name:\\"[^"\\]*\\" uid:\\"([^"\\]+)\\" namespace:\\"default\\"[^"\\]*"$`)

// sandboxes gives how often containerd was asked for a sandbox, by the pod's UID.
func (s *site) sandboxes() (map[string]int, error) {
	all := map[string]int{}
	for _, n := range s.nodes {
		f, err := os.Open(filepath.Join(s.dir, world.LogName(n.ID, "containerd")))
		if err != nil {
			return nil, fmt.Errorf("read log of containerd: %w", err)
		}
		err = countSandboxes(f, all)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("read log of containerd: %w", err)
		}
	}
	return all, nil
}

func countSandboxes(log io.Reader, times map[string]int) error {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if m := asked.FindSubmatch(lines.Bytes()); m != nil {
			times[string(m[1])]++
		}
	}
	return lines.Err()
}
