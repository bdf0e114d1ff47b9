package pods

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/fairway-cni/fairway/lab/kubernetes"
)

// Account is who the agent is to the API server: the service account of the chart.
const Account = "system:serviceaccount:kube-system:fairway-agent"

// kindOf finds the kind of a manifest.
var kindOf = regexp.MustCompile(`(?m)^kind: (\w+)$`)

// Grants is what an agent needs of a cluster that it is not a pod of: the definitions
// of its kinds, its account, and the rights of that, in one text. They are those that
// users install, from the directory deploy of the source tree.
func Grants(deploy string) ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(deploy, "crds", "*.yaml"))
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("read definitions: %w", err)
		}
		all = append(all, text)
	}
	text, err := os.ReadFile(filepath.Join(deploy, "manifests", "fairway.yaml"))
	if err != nil {
		return nil, fmt.Errorf("read the agent's rights: %w", err)
	}
	var found []string
	for _, doc := range bytes.Split(text, []byte("\n---\n")) {
		m := kindOf.FindSubmatch(doc)
		if m == nil {
			continue
		}
		if kind := string(m[1]); slices.Contains([]string{"ClusterRole", "ClusterRoleBinding", "ServiceAccount"}, kind) {
			all, found = append(all, doc), append(found, kind)
		}
	}
	if len(files) == 0 || len(found) != 3 {
		return nil, fmt.Errorf("read the agent's rights: %s has %d definitions, and %q", deploy, len(files), found)
	}
	return bytes.Join(all, []byte("\n---\n")), nil
}

// admit makes the agents members of the cluster: they have waited for who they are.
func (s *site) admit(ctx context.Context, deploy string) error {
	grants, err := Grants(deploy)
	if err != nil {
		return err
	}
	for _, do := range []struct {
		stdin []byte
		args  []string
	}{
		{grants, []string{"apply", "--server-side", "-f", "-"}},
		{nil, []string{"wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"}},
	} {
		c := kubernetes.Kubectl(ctx, labName, do.args...)
		var said bytes.Buffer
		c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(do.stdin), &said, &said
		err := kubernetes.StartIn(s.control, c)
		if err == nil {
			err = c.Wait()
		}
		if err != nil {
			return fmt.Errorf("kubectl %s: %w: %s", do.args[0], err, bytes.TrimSpace(said.Bytes()))
		}
	}
	admin, err := os.ReadFile(s.cluster.Kubeconfig())
	if err != nil {
		return fmt.Errorf("read the administrator's kubeconfig: %w", err)
	}
	conf, err := kubernetes.ActAs(admin, Account)
	if err != nil {
		return err
	}
	tmp := s.conf + ".tmp"
	return errors.Join(os.WriteFile(tmp, conf, 0o600), os.Rename(tmp, s.conf))
}
