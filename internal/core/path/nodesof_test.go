package path_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
)

func TestNodesOf(t *testing.T) {
	addr := netip.MustParseAddr
	w := &path.World{
		Pods: path.Known([]path.ListedPod{
			{Namespace: "default", Name: "a", Addr: addr("10.0.1.5"), Node: "n1"},
			{Namespace: "shop", Name: "b", Addr: addr("10.0.2.5"), Node: "n2"},
		}),
		Services: path.Known([]path.Service{{Namespace: "shop", Name: "web", Backends: path.Known([]path.Backend{{Addr: addr("10.0.2.5"), Port: 80}})}}),
	}
	for _, tt := range []struct{ end, want string }{
		{"default/a", "n1"}, {"default/a:80", "n1"}, {"east:default/a", "n1"}, {"east:default/a:80", "n1"}, {"a", "n1"}, {"a:80", "n1"},
		{"10.0.2.5:80", "n2"}, {"10.0.2.5", "n2"}, {"east:10.0.2.5:80", "n2"}, {"node:n7", "n7"}, {"node:n7:22", "n7"}, {"east:node:n7", "n7"},
		{"svc/shop/web:http", "n2"}, {"svc/shop/web", "n2"}, {"svc/web", "n2"}, {"east:svc/shop/web:80", "n2"}, {"svc/shop/b", ""},
		{"internet", ""}, {"10.9.9.9:80", ""}, {"default/none", ""}, {"eni-0a", ""},
	} {
		if got := strings.Join(w.NodesOf(tt.end), " "); got != tt.want {
			t.Errorf("%s is on %q, want %q", tt.end, got, tt.want)
		}
	}
}
