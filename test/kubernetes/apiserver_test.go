package kubernetes

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// cluster is what the API server knows, by the plural that paths end with. It
// does not change: all of it is there before anybody asks.
type cluster map[string]collection

type collection struct {
	version, kind string // of the items
	items         []any
}

// newCluster gives a cluster of these objects.
func newCluster(nodes []corev1.Node, services []corev1.Service, slices []discoveryv1.EndpointSlice) cluster {
	return cluster{
		"nodes":          {"v1", "Node", anySlice(nodes)},
		"services":       {"v1", "Service", anySlice(services)},
		"endpointslices": {"discovery.k8s.io/v1", "EndpointSlice", anySlice(slices)},
		"servicecidrs":   {"networking.k8s.io/v1", "ServiceCIDR", nil},
	}
}

func anySlice[T any](list []T) []any {
	out := make([]any, 0, len(list))
	for _, v := range list {
		out = append(out, v)
	}
	return out
}

// apiAddress is where each instance finds the API server.
const apiAddress = "127.0.0.1:6443"

// serveAPI answers on loopback of an instance until the test ends: as much of
// the Kubernetes API as kube-proxy asks for. Source: "Kubernetes API Concepts",
// Kubernetes documentation.
func (c cluster) serveAPI(t *testing.T, at place) {
	t.Helper()
	var ln net.Listener
	err := netns.Do(at.ns, func() (err error) {
		ln, err = net.Listen("tcp4", apiAddress)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: c, ReadHeaderTimeout: time.Minute}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
}

// revision is the resource version of everything.
const revision = "1"

func (c cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	plural := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	known, found := c[plural]
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.Method == http.MethodPost: // an event
		w.WriteHeader(http.StatusCreated)
		w.Write([]byte(`{}`))
	case !found:
		w.WriteHeader(http.StatusNotFound)
		json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
			Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound})
	case r.URL.Query().Get("watch") != "":
		known.watch(w, r)
	default:
		json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": known.version, "kind": known.kind + "List",
			"metadata": map[string]string{"resourceVersion": revision}, "items": known.selected(r),
		})
	}
}

// selected is the items that the request's field selector wants: one by name, or
// all. A Service without an address, which kube-proxy does not want, is not here.
func (c collection) selected(r *http.Request) []any {
	name, one := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	if !one {
		return c.items
	}
	for _, item := range c.items {
		if n, ok := item.(corev1.Node); ok && n.Name == name {
			return []any{n}
		}
	}
	return []any{}
}

// watch gives the items, where they are asked for, and then nothing.
func (c collection) watch(w http.ResponseWriter, r *http.Request) {
	type event struct {
		Type   string `json:"type"`
		Object any    `json:"object"`
	}
	out := json.NewEncoder(w)
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, item := range c.selected(r) {
			out.Encode(event{"ADDED", item})
		}
		out.Encode(event{"BOOKMARK", map[string]any{
			"apiVersion": c.version, "kind": c.kind,
			"metadata": map[string]any{
				"resourceVersion": revision,
				"annotations":     map[string]string{metav1.InitialEventsAnnotationKey: "true"},
			},
		}})
	}
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}
