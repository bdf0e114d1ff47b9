package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// apiServer lists the Service of the NodePort example, and gives a kubeconfig.
func apiServer(t *testing.T) string {
	t.Helper()
	answers := map[string]string{
		"/api/v1/services": `{"items": [{"metadata": {"namespace": "default", "name": "web"}, "spec": {"clusterIP": "10.100.0.10", "ports": [{"name": "http", "port": 80}]}}]}`,
		"/apis/discovery.k8s.io/v1/endpointslices": `{"items": [{"metadata": {"namespace": "default", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
			"ports": [{"name": "http", "port": 8080}], "endpoints": [{"addresses": ["10.0.1.5"]}]}]}`,
		"/api/v1/pods": `{"items": [{"metadata": {"namespace": "default", "name": "gone"}, "spec": {"nodeName": "n"}, "status": {"podIPs": [{"ip": "10.0.1.15"}]}}]}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			t.Errorf("%s %s: not to look", r.Method, r.URL.Path)
		}
		fmt.Fprint(w, answers[r.URL.Path])
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"current-context": "c", "clusters": [{"name": "c", "cluster": {"server": %q}}], "contexts": [{"name": "c", "context": {"cluster": "c"}}]}`, server.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestBundleOfCluster: what the API server lists is a file of its own, and gives
// others' worlds their names.
func TestBundleOfCluster(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kube.tgz")
	out, status, text := run("bundle", "--kube", "--kubeconfig", apiServer(t), "-o", file)
	if status != 0 || !strings.Contains(out, "services") || !strings.Contains(out, "peerings: EC2 was not read") {
		t.Fatalf("status %d: %s%s", status, out, text)
	}
	w := load(t, "nodeport")
	w.Services = path.Unknown[[]path.Service]("no kubeconfig")
	world := bundleFile(t, "node.tgz", w)
	out, status, text = run("path", "-b", world, "-b", file, "default/web-1", "svc/web:http")
	for _, want := range []string{"SVC    default/web is 10.100.0.10:80; 1 of 1 backends ready",
		"the rules of vpc/node-1 lead to 10.0.1.15:8080, which is no backend of it: they are old", "BEHIND 10.0.1.5:8080 default/web-1: delivered"} {
		if status != 0 || !strings.Contains(out, want) {
			t.Errorf("status %d, want 0 and %q in:\n%s%s", status, want, out, text)
		}
	}
	if out, status, text = run("path", "-b", world, "-b", file, "default/web-1", "default/gone:8080"); status != 0 || !strings.Contains(out, "vpc/web-2") {
		t.Errorf("by the listed name: status %d\n%s%s", status, out, text)
	}
	// In the rules alone there is the name too, and no more.
	if out, status, text = run("path", "-b", world, "default/web-1", "svc/web"); status != 0 || !strings.Contains(out, "SVC    default/web is 10.100.0.10:80\n") {
		t.Errorf("by rules: status %d\n%s%s", status, out, text)
	}
}

func TestClusterUsage(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"bundle", "--kube", "--kubeconfig", none, "-o", "x"}, "no such file"},
		{[]string{"bundle", "--node", "--kubeconfig", none, "-o", "x"}, "not read without --kube"},
		{[]string{"path", "--example", "seed003", "--kubeconfig", none}, "fairway bundle --kube"},
	} {
		if _, status, text := run(tt.args...); status == 0 || !strings.Contains(text, tt.says) {
			t.Errorf("%v: status %d, %s, want %q", tt.args, status, text, tt.says)
		}
	}
}

// TestServer: the API server is found as kubectl finds it.
func TestServer(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	for _, name := range []string{"KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"} {
		t.Setenv(name, "")
	}
	if c, ok := (sources{}).server(); ok {
		t.Errorf("nothing is here, found %+v", c)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	if c, ok := (sources{}).server(); !ok || c.Service != "10.0.0.1:443" || c.Kubeconfig != "" {
		t.Errorf("in a pod: %+v", c)
	}
	file := filepath.Join(home, ".kube", "config")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, ok := (sources{}).server(); !ok || c.Kubeconfig != file {
		t.Errorf("at home: %+v", c)
	}
	t.Setenv("KUBECONFIG", "/k")
	if c, _ := (sources{}).server(); c.Kubeconfig != "/k" {
		t.Errorf("by KUBECONFIG: %+v", c)
	}
	if c, _ := (sources{kubeconfig: "/f", context: "x"}).server(); c.Kubeconfig != "/f" || c.Context != "x" {
		t.Errorf("by the flag: %+v", c)
	}
}

// TestHelp: every command has an example, and all that path can do is in its own.
func TestHelp(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.HasParent() && !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	root := command()
	walk(root)
	out, _, _ := run("path", "--help")
	for _, want := range []string{"--live\n", "--all\n", "--what-if '", "--with-mend 1", "--assert delivered", "-o json", "-o svg", "-o mermaid", "svc/default/web"} {
		if _, examples, _ := strings.Cut(out, "Examples:"); !strings.Contains(examples, want) {
			t.Errorf("the examples of fairway path --help have no %q:\n%s", want, examples)
		}
	}
}
