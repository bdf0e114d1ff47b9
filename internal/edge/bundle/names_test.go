package bundle

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// clusterWorld is what an API server lists and nothing else.
func clusterWorld(cluster string) *path.World {
	return &path.World{
		Form: path.Form, Name: cluster,
		Services: path.Known([]path.Service{{Cluster: cluster, Namespace: "acme-shop", Name: "acme-web", Addr: netip.MustParseAddr("10.100.0.10"),
			Ports: []path.ServicePort{{Proto: path.TCP, Port: 80}}, Backends: path.Known([]path.Backend{{Addr: netip.MustParseAddr("10.0.1.5"), Port: 8080, Proto: path.TCP, Ready: true}})},
			{Cluster: cluster, Namespace: "default", Name: "far", External: "db.acme.example", Ports: []path.ServicePort{}, Backends: path.Unknown[[]path.Backend]("acme-user may not")}}),
		Pods: path.Known([]path.ListedPod{{Cluster: cluster, Namespace: "acme-shop", Name: "acme-pod", Addr: netip.MustParseAddr("10.0.1.5"), Node: "acme-node"}}),
	}
}

// TestJoinClusters: what one API server lists, another world that asked none does
// not take away; two clusters' lists are both there.
func TestJoinClusters(t *testing.T) {
	_, w := world(t, "nodeport")
	w.Services = path.Unknown[[]path.Service]("no kubeconfig")
	w.Pods = path.Unknown[[]path.ListedPod]("no kubeconfig")
	for _, order := range [][]Source{{{Name: "w", World: w}, {Name: "a", World: clusterWorld("a")}, {Name: "b", World: clusterWorld("b")}}, {{Name: "a", World: clusterWorld("a")}, {Name: "w", World: w}, {Name: "b", World: clusterWorld("b")}}} {
		got, err := Join(order)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Services.Value) != 4 || len(got.Pods.Value) != 2 || len(got.VPCs) != len(w.VPCs) {
			t.Errorf("joined %s: %d Services, %d pods", order[0].Name, len(got.Services.Value), len(got.Pods.Value))
		}
		if again, _, err := Read(packed(t, got)); err != nil || text(t, again) != text(t, got) {
			t.Errorf("read as another world: %v", err)
		}
	}
	other := clusterWorld("a")
	other.Services.Value[0].Backends = path.Known([]path.Backend{})
	if _, err := Join([]Source{{Name: "then", World: clusterWorld("a")}, {Name: "now", World: other}}); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "Service a:acme-shop/acme-web differs between then and now") {
		t.Errorf("a Service that changed: %v", err)
	}
}

func TestRedactNames(t *testing.T) {
	w := clusterWorld("acme")
	out, report, err := Redact(w, []byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	if after := text(t, out); strings.Contains(after, "acme") {
		t.Errorf("acme is still there:\n%s", after)
	}
	if p, s := out.Pods.Value[0], out.Services.Value[0]; p.Namespace != s.Namespace || p.Cluster != s.Cluster || p.Addr != s.Backends.Value[0].Addr {
		t.Errorf("the same is not the same any more: %+v, %+v", p, s)
	}
	if said := strings.Join(report, "\n"); !strings.Contains(said, "2 names of Services") || !strings.Contains(said, "1 names of pods") || !strings.Contains(said, "1 names in DNS") {
		t.Errorf("report:\n%s", said)
	}
	w.Services, w.Pods = path.Unknown[[]path.Service]("User acme cannot list"), path.Unknown[[]path.ListedPod]("https://acme.example: refused")
	if out, _, err = Redact(w, []byte("key")); err != nil || strings.Contains(text(t, out), "acme") {
		t.Errorf("why it is not known is still there: %v", err)
	}
}
