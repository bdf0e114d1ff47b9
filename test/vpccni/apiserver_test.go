package vpccni

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// apiAddress is where the instance finds the API server.
const apiAddress = "127.0.0.1:6443"

// object is one of Kubernetes, or a list of such.
type object map[string]any

// apiServer knows one node, which has no pods. It is as much of the Kubernetes
// API as the daemon asks for. Source: "Kubernetes API Concepts", Kubernetes
// documentation.
type apiServer struct{ node object }

// serveAPI answers in a network namespace until the test ends, and gives the
// file that says so to clients.
func serveAPI(t *testing.T, ns *os.File, node string) (kubeconfig string) {
	t.Helper()
	var ln net.Listener
	err := netns.Do(ns, func() (err error) {
		ln, err = net.Listen("tcp4", apiAddress)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: apiServer{object{
		"apiVersion": "v1", "kind": "Node",
		"metadata": object{"name": node, "resourceVersion": revision},
		"spec":     object{},
		"status":   object{"capacity": object{"pods": "110"}},
	}}}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	text, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "lab",
		"clusters": []object{{"name": "lab", "cluster": object{"server": "http://" + apiAddress}}},
		"users":    []object{{"name": "lab", "user": object{}}},
		"contexts": []object{{"name": "lab", "context": object{"cluster": "lab", "user": "lab"}}},
	})
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err == nil {
		err = os.WriteFile(kubeconfig, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// revision is the resource version of everything.
const revision = "1"

func (a apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	say := func(code int, o object) {
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(o)
	}
	kind := map[string]string{"nodes": "Node", "pods": "Pod"}[path.Base(r.URL.Path)]
	switch p := r.URL.Path; {
	case r.Method == http.MethodPost: // an event
		say(http.StatusCreated, object{})
	case p == "/version":
		say(http.StatusOK, object{"major": "1", "minor": "35", "gitVersion": "v1.35.0"})
	case p == "/api":
		say(http.StatusOK, object{"kind": "APIVersions", "versions": []string{"v1"}})
	case p == "/apis":
		say(http.StatusOK, object{"kind": "APIGroupList", "apiVersion": "v1", "groups": []object{}})
	case p == "/api/v1":
		verbs := []string{"get", "list", "watch"}
		say(http.StatusOK, object{"kind": "APIResourceList", "groupVersion": "v1", "resources": []object{
			{"name": "nodes", "singularName": "node", "namespaced": false, "kind": "Node", "verbs": verbs},
			{"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": verbs},
		}})
	case kind != "" && r.URL.Query().Get("watch") != "":
		a.watch(w, r, kind)
	case kind != "":
		say(http.StatusOK, object{"apiVersion": "v1", "kind": kind + "List",
			"metadata": object{"resourceVersion": revision}, "items": a.items(kind)})
	default:
		say(http.StatusNotFound, object{"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": http.StatusNotFound})
	}
}

func (a apiServer) items(kind string) []object {
	if kind == "Node" {
		return []object{a.node}
	}
	return []object{}
}

// watch gives what there is, where it is asked for, and then nothing.
func (a apiServer) watch(w http.ResponseWriter, r *http.Request, kind string) {
	out := json.NewEncoder(w)
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, o := range a.items(kind) {
			out.Encode(object{"type": "ADDED", "object": o})
		}
		out.Encode(object{"type": "BOOKMARK", "object": object{"apiVersion": "v1", "kind": kind, "metadata": object{
			"resourceVersion": revision, "annotations": object{"k8s.io/initial-events-end": "true"},
		}}})
	}
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}
