package kubernetes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// explained: fairway path finds each service by its name, by kube-proxy's own rules
// and by the API server's lists, and what it says of a pod of the same node is what
// the flows have shown. EC2 is not needed for those.
func explained(t *testing.T, nodes []*instance, pods []backend, list []service) {
	t.Helper()
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf(`{"current-context": "c", "clusters": [{"name": "c", "cluster": {"server": "http://%s"}}], "contexts": [{"name": "c", "context": {"cluster": "c"}}]}`, apiAddress)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	names := filepath.Join(dir, "names.tgz")
	nodes[0].run("fairway", "bundle", "--kube", "--kubeconfig", kubeconfig, "-o", names)
	for i, n := range nodes {
		world := filepath.Join(dir, n.name+".tgz")
		n.run("fairway", "bundle", "--node", "-o", world)
		for _, s := range list {
			if s.node != n {
				continue
			}
			name := s.name + "-cluster"
			if s.local {
				name = s.name + "-local"
			}
			want := fmt.Sprintf("SVC    default/%s is %s", name, s.cluster())
			for _, p := range pods[2*i : 2*i+2] {
				for files, want := range map[string]string{world: want + "\n", world + " -b " + names: want + "; 1 of 1 backends ready\n"} {
					argv := append([]string{"fairway", "path", "-b"}, strings.Fields(files)...)
					out := n.run(append(argv, p.addr.String(), "svc/default/"+name)...)
					if !strings.HasPrefix(out, "DELIVERED") || !strings.Contains(out, want) || !strings.Contains(out, s.addr.String()) {
						t.Errorf("from %s to %s, which works: want %q in:\n%s", p.name, name, want, out)
					}
				}
			}
		}
	}
}
