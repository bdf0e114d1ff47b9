package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/edge/bundle"
)

// TestArmor: a bundle as text is read out of a log, whole or not at all.
func TestArmor(t *testing.T) {
	file := bundleFile(t, "w.tgz", load(t, "seed002"))
	text, status, said := run("bundle", "-b", file, "--armor", "-o", "-")
	if status != 0 || !strings.HasSuffix(text, "-----END FAIRWAY BUNDLE-----\n") {
		t.Fatalf("status %d: %s\n%s", status, said, text)
	}
	log := filepath.Join(t.TempDir(), "log")
	want, _, _ := run("path", "-b", file, "default/pod1", "default/pod2:80")
	for _, tt := range []struct {
		name, text string
		good       bool
	}{
		{"as it is", text, true},
		{"in a log", "starting\n" + text + "done\n", true},
		{"cut off", text[:len(text)/2], false},
		{"changed", strings.Replace(text, "A", "B", 1), false},
	} {
		if err := os.WriteFile(log, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, status, _ := run("path", "-b", log, "default/pod1", "default/pod2:80")
		if out = strings.ReplaceAll(out, log, file); tt.good && out != want || !tt.good && status != 3 {
			t.Errorf("%s: status %d\n%s", tt.name, status, out)
		}
	}
	raw, _, _ := run("bundle", "-b", file, "-o", "-") // and what is said of it, on standard error
	if i := strings.Index(raw, "\x1f\x8b"); !strings.HasPrefix(raw, "standard output\n") || i < 0 || !bundle.IsBundle([]byte(raw[i:])) {
		t.Errorf("%q", raw)
	}
}

// api is an API server with a cluster of an example, whose nodes' pods print their node.
type api struct {
	t       *testing.T
	world   *path.World
	mu      sync.Mutex
	made    map[string]string // node by pod
	deleted int
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	const pods = "/api/v1/namespaces/kube-system/pods"
	name := strings.TrimPrefix(r.URL.Path, pods+"/")
	switch {
	case r.Method == http.MethodPost && r.URL.Path == pods:
		var pod struct {
			Spec struct{ NodeName string }
		}
		if err := json.NewDecoder(r.Body).Decode(&pod); err != nil {
			a.t.Error(err)
		}
		name = fmt.Sprintf("p%d", len(a.made))
		a.made[name] = pod.Spec.NodeName
		fmt.Fprintf(w, `{"metadata":{"name":%q,"uid":"u"}}`, name)
	case r.Method == http.MethodDelete:
		a.deleted++
		fmt.Fprint(w, "{}")
	case strings.HasSuffix(name, "/log"):
		fmt.Fprint(w, a.log(a.made[strings.TrimSuffix(name, "/log")]))
	case name != r.URL.Path:
		phase := "Succeeded"
		if a.made[name] == "broken" {
			phase = "Failed"
		}
		fmt.Fprintf(w, `{"metadata":{"name":%q},"status":{"phase":%q}}`, name, phase)
	case strings.HasPrefix(r.URL.Path, "/apis/apps/"):
		fmt.Fprint(w, `{"spec":{"template":{"spec":{"containers":[{"name":"agent","image":"f:2"}]}}}}`)
	case r.URL.Path == "/api/v1/pods":
		var items []string
		for i := range a.world.Nodes {
			n := &a.world.Nodes[i]
			for _, p := range n.Pods.Value {
				items = append(items, fmt.Sprintf(`{"metadata":{"namespace":%q,"name":%q},"spec":{"nodeName":%q},"status":{"phase":"Running","podIPs":[{"ip":%q}]}}`,
					p.Namespace, p.Name, n.Name, p.Addr))
			}
		}
		fmt.Fprintf(w, `{"items":[%s]}`, strings.Join(items, ","))
	default:
		fmt.Fprint(w, `{"items":[]}`)
	}
}

func (a *api) log(node string) string {
	w := *a.world
	w.VPCs = nil
	w.Nodes = slices.DeleteFunc(slices.Clone(w.Nodes), func(n path.Node) bool { return n.Name != node })
	var b bytes.Buffer
	if _, err := bundle.Write(&b, &w, false); err != nil {
		a.t.Error(err)
	}
	return "fairway: a note of " + node + "\n" + string(bundle.Armor(b.Bytes()))
}

// serve gives the kubeconfig.
func (a *api) serve() string {
	a.made = map[string]string{}
	server := httptest.NewServer(a)
	a.t.Cleanup(server.Close)
	file := filepath.Join(a.t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":%q}}],
"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{"token":"t"}}]}`, server.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return file
}

// TestOnNodes: nodes are read from afar, those that cannot be are said, and nothing
// is left.
func TestOnNodes(t *testing.T) {
	w := load(t, "seed003")
	a := &api{t: t, world: w}
	kubeconfig := a.serve()
	file := filepath.Join(t.TempDir(), "w.tgz")
	out, status, said := run("bundle", "--on", w.Nodes[0].Name, "--on", w.Nodes[1].Name+",broken", "--kube", "--kubeconfig", kubeconfig, "-o", file)
	if status != 0 || strings.Count(out, "\n  node ") != 2 || !strings.Contains(out, "not read: node broken: ") ||
		!strings.Contains(out, "fairway: "+w.Nodes[0].Name+": a note of "+w.Nodes[0].Name+"\n") {
		t.Errorf("status %d\n%s%s", status, out, said)
	}
	if len(a.made) != 3 || a.deleted != 3 {
		t.Errorf("%d pods made, %d deleted", len(a.made), a.deleted)
	}
	again, err := readWorlds([]string{file})
	if err != nil || len(again.Nodes) != 2 || len(again.Nodes[0].Pods.Value) != len(w.Nodes[0].Pods.Value) {
		t.Errorf("%v, %+v", err, again)
	}
	_, status, said = run("bundle", "--on", "broken", "--kube", "--kubeconfig", kubeconfig, "-o", filepath.Join(t.TempDir(), "none"))
	if status == 0 || !strings.Contains(said, "no node was read") {
		t.Errorf("status %d, %s", status, said)
	}
}

func TestOnUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"bundle", "--image", "i", "-o", "x"}, "say which by --on NODE"},
		{[]string{"bundle", "--namespace", "n", "-o", "x"}, "say which by --on NODE"},
		{[]string{"bundle", "--on", "ends", "-o", "x"}, "name the nodes"},
		{[]string{"bundle", "--ec2", "--root", "/host", "-o", "x"}, "--root is of the node"},
		{[]string{"bundle", "-b", "f", "--on", "n", "-o", "x"}, "--on is for reading"},
		{[]string{"path", "--example", "seed003", "--on", "n"}, "as it is now"},
		{[]string{"path", "--example", "seed003", "--region", "r"}, "as it is now"},
		{[]string{"path", "--all", "--on", "ends"}, "name the nodes"},
		{[]string{"path", "a/b", "c/d", "--live", "--on", "n"}, "--live sends from this node"},
	} {
		if _, status, text := run(tt.args...); status == 0 || !strings.Contains(text, tt.says) {
			t.Errorf("%v: status %d, %s, want %q", tt.args, status, text, tt.says)
		}
	}
}

func TestOnEnds(t *testing.T) {
	w := &path.World{
		Pods: path.Known([]path.ListedPod{
			{Namespace: "default", Name: "a", Addr: netip.MustParseAddr("10.0.1.5"), Node: "n1"},
			{Namespace: "shop", Name: "b", Addr: netip.MustParseAddr("10.0.2.5"), Node: "n2"},
		}),
	}
	o := onNodes{names: []string{"ends", "n2", "n3"}, ends: []string{"default/a", "shop/b:80"}}
	if got, err := o.resolved(w); err != nil || strings.Join(got, " ") != "n1 n2 n3" {
		t.Errorf("%v, %v", got, err)
	}
	o = onNodes{names: []string{"ends"}, ends: []string{"internet", "10.9.9.9"}}
	if _, err := o.resolved(w); err == nil || !strings.Contains(err.Error(), "name the nodes by --on NODE") {
		t.Error(err)
	}
}
