//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/fairway-cni/fairway/lab/kubernetes"
)

// The rights that docs/path.md wants for fairway path, of EC2 and of Kubernetes.
var (
	explainPolicy = regexp.MustCompile("(?s)```json explain\n(.*?)```")
	explainRole   = regexp.MustCompile("(?s)```yaml\n(apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: fairway-explain}\n.*?)```")
	nodesRole     = regexp.MustCompile("(?s)```yaml\n(apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: fairway-explain-nodes, .*?)```")
)

const explainBinding = `
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: fairway-explain}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: fairway-explain}
subjects: [{kind: User, name: explainer, apiGroup: rbac.authorization.k8s.io}]
`

const nodesBinding = `
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: fairway-explain-nodes, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: fairway-explain-nodes}
subjects: [{kind: User, name: explainer, apiGroup: rbac.authorization.k8s.io}]
`

// writeExplainPolicy leaves the policy where a world looks for it.
func writeExplainPolicy(dir string) error {
	page, err := os.ReadFile(filepath.Join(repository, "docs", "path.md"))
	if err != nil {
		return err
	}
	policy := explainPolicy.FindSubmatch(page)
	if policy == nil {
		return errors.New("docs/path.md has no policy \"explain\"")
	}
	return os.WriteFile(filepath.Join(dir, "explain.json"), policy[1], 0o600)
}

// nodesReadFromAfar: the same from a machine that is no node, by one command with the
// rights of docs/path.md, and nothing is left of it.
func nodesReadFromAfar(c *cluster) {
	page, err := os.ReadFile(filepath.Join(repository, "docs", "path.md"))
	if err != nil {
		c.t.Fatal(err)
	}
	role := nodesRole.FindSubmatch(page)
	if role == nil {
		c.t.Fatal("docs/path.md has no role fairway-explain-nodes")
	}
	c.apply(string(role[1]) + nodesBinding)
	const tag = "afar"
	c.importImage(tag)
	for _, node := range nodeNames { // where nodes have their nft and iptables
		c.run(nil, "exec", node, "--", "mount", "--bind", kubernetesPrograms, "/usr/local/sbin")
	}
	pods := c.readyPods("app=web", 3)
	ask := func(user string) (string, error) {
		return c.try(nil, "exec", "outside", "--", "fairway", "path", "default/"+pods[0].Name, "svc/default/web",
			"--on", "ends", "--image", "fairway.test/fairway:"+tag, "--kubeconfig", c.actAs(user))
	}
	answer, err := ask("explainer")
	want := []string{"DELIVERED  both ways", fmt.Sprintf("SVC    default/web is %s; 3 of 3 backends ready\n", webAddress)}
	for _, p := range pods {
		want = append(want, fmt.Sprintf("BEHIND %s default/%s: delivered\n", at(p), p.Name))
	}
	for _, text := range want {
		if !strings.Contains(answer, text) {
			c.t.Errorf("no %q in %v\n%s", text, err, answer)
		}
	}
	if answer, err := ask("stranger"); err == nil || !strings.Contains(answer+err.Error(), "no right") {
		c.t.Errorf("without any right: %v\n%s", err, answer)
	}
	if left := c.kubectl("-n", "kube-system", "get", "pods", "-l", "app.kubernetes.io/name=fairway-bundle", "-o", "name"); left != "" {
		c.t.Errorf("left: %s", left)
	}
}

// pathExplains: who may see what docs/path.md says, and nothing else, asks for a
// Service by its name. What is said of kube-proxy's rules is what has just been seen:
// each pod behind it answers.
func pathExplains(c *cluster) {
	page, err := os.ReadFile(filepath.Join(repository, "docs", "path.md"))
	if err != nil {
		c.t.Fatal(err)
	}
	role := explainRole.FindSubmatch(page)
	if role == nil {
		c.t.Fatal("docs/path.md has no role fairway-explain")
	}
	c.apply(string(role[1]) + explainBinding)
	known := []string{c.bundle("outside", "--ec2")}
	for _, node := range nodeNames {
		known = append(known, c.bundle(node, "--node", "--name", node))
	}
	names := c.bundle("node-a", "--kube", "--kubeconfig", c.actAs("explainer"))
	pods := c.readyPods("app=web", 3)
	from := "default/" + pods[0].Name

	answer := c.path(from, "svc/default/web", append(known, names)...)
	want := []string{"DELIVERED  both ways", fmt.Sprintf("SVC    default/web is %s; 3 of 3 backends ready\n", webAddress)}
	for _, p := range pods {
		want = append(want, fmt.Sprintf("BEHIND %s default/%s: delivered\n", at(p), p.Name))
	}
	for _, line := range want {
		if !strings.Contains(answer, line) {
			c.t.Errorf("%s to the service: no %q in\n%s", from, line, answer)
		}
	}
	for _, node := range nodeNames {
		port := netip.AddrPortFrom(c.instance(node).Address, nodePort).String()
		if answer := c.path(from, port, known...); !strings.HasPrefix(answer, "DELIVERED  both ways") || strings.Count(answer, "BEHIND ") != len(pods) {
			c.t.Errorf("%s to the node port of %s:\n%s", from, node, answer)
		}
	}
	// Without the right to list them Services are known by kube-proxy's rules, which
	// do not say how many backends are ready.
	nameless := append(known, c.bundle("node-a", "--kube", "--kubeconfig", c.actAs("stranger")))
	for _, to := range []string{webAddress.String(), "svc/default/web"} {
		if answer := c.path(from, to, nameless...); !strings.HasPrefix(answer, "DELIVERED  both ways") || strings.Contains(answer, "backends ready") {
			c.t.Errorf("%s to %s, by the rules alone:\n%s", from, to, answer)
		}
	}
}

// actAs is a kubeconfig of a user.
func (c *cluster) actAs(user string) (file string) {
	c.t.Helper()
	admin, err := os.ReadFile(filepath.Join(kubernetes.Dir(c.lab), "admin.conf"))
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := kubernetes.ActAs(admin, user)
	if err != nil {
		c.t.Fatal(err)
	}
	file = filepath.Join(c.t.TempDir(), user+".conf")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return file
}

// bundle has an instance write a file for fairway path. The node's tools are those of
// its kube-proxy.
func (c *cluster) bundle(instance string, flags ...string) (file string) {
	c.t.Helper()
	file = filepath.Join(c.t.TempDir(), "bundle.tgz")
	c.run(nil, append([]string{"exec", instance, "--", "sh", "-c", `PATH=$0:$PATH exec fairway bundle "$@"`, kubernetesPrograms, "-o", file}, flags...)...)
	return file
}

// path is what fairway path says of the joined files. That it is not delivered is no
// failure yet.
func (c *cluster) path(from, to string, files ...string) string {
	c.t.Helper()
	args := []string{"exec", "node-a", "--", "fairway", "path", from, to}
	for _, f := range files {
		args = append(args, "-b", f)
	}
	out, err := c.try(nil, args...)
	if out == "" && err != nil {
		c.t.Fatal(err)
	}
	return out
}

// importImage builds the image under a tag and hands it to the nodes' containerd.
func (c *cluster) importImage(tag string) {
	c.t.Helper()
	dir := c.t.TempDir()
	build := exec.CommandContext(c.t.Context(), "go", "run", "./deploy/image", "-out", dir, "-arch", runtime.GOARCH, "-name", "fairway.test/fairway:"+tag)
	build.Dir = repository
	if out, err := build.CombinedOutput(); err != nil {
		c.t.Fatalf("%s: %v\n%s", build, err, out)
	}
	ctr, err := filepath.Abs(filepath.Join(repository, "bin", "kubernetes", "ctr"))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, node := range nodeNames {
		c.run(nil, "exec", node, "--", ctr, "--address=/run/containerd/containerd.sock", "--namespace=k8s.io",
			"images", "import", filepath.Join(dir, "fairway-"+runtime.GOARCH+".tar"))
	}
}
