package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// lists answers with the items of a path, two a page.
type lists map[string][]object

func (l lists) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	items, ok := l[r.URL.Path]
	if !ok || r.Method != http.MethodGet || r.URL.Query().Get("limit") == "" {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"kind":"Status","message":"%s is forbidden: User \"eve\" cannot list"}`, r.URL.Path)
		return
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
	page := object{"metadata": object{}, "items": items[from:min(from+2, len(items))]}
	if from+2 < len(items) {
		page["metadata"] = object{"continue": strconv.Itoa(from + 2)}
	}
	_ = json.NewEncoder(w).Encode(page)
}

// kubeconfig writes one for a server.
func kubeconfig(t *testing.T, context, server string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), context)
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": %q, "clusters": [{"name": %[1]q, "cluster": {"server": %q}}],
"contexts": [{"name": %[1]q, "context": {"cluster": %[1]q, "user": "u"}}], "users": [{"name": "u", "user": {"token": "t"}}]}`, context, server)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func named(namespace, name string, more object) object {
	o := object{"metadata": object{"namespace": namespace, "name": name}}
	for k, v := range more {
		o[k] = v
	}
	return o
}

func slice(name string, o object) object {
	s := named("default", name+"-x1", o)
	s["metadata"].(object)["labels"] = object{serviceLabel: name}
	return s
}

func pod1(name, ip, phase string, host bool) object {
	return named("default", name, object{"spec": object{"nodeName": "n1", "hostNetwork": host}, "status": object{"phase": phase, "podIPs": []any{object{"ip": ip}}}})
}

var webPort = []any{object{"name": "http", "protocol": "TCP", "port": 8080}}

var shop = lists{
	"/api/v1/services": {
		named("default", "web", object{"spec": object{"type": "NodePort", "clusterIP": "10.100.0.10", "clusterIPs": []any{"10.100.0.10", "fd00::10"},
			"ports": []any{object{"name": "http", "port": 80, "nodePort": 30080}, object{"name": "dns", "protocol": "UDP", "port": 53}}}}),
		named("default", "db", object{"spec": object{"clusterIP": "None", "clusterIPs": []any{"None"}}}),
		named("default", "far", object{"spec": object{"type": "ExternalName", "externalName": "db.example.org"}}),
		named("default", "six", object{"spec": object{"clusterIP": "fd00::11"}}),
		named("shop", "web", object{"spec": object{"clusterIP": "10.100.0.11", "internalTrafficPolicy": "Cluster"}}),
		named("default", "own", object{"spec": object{"clusterIP": "10.100.0.12", "internalTrafficPolicy": "Local"}}),
		named("default", "zonal", object{"spec": object{"clusterIP": "10.100.0.13", "ports": []any{object{"name": "http", "port": 80}}}}),
	},
	"/apis/discovery.k8s.io/v1/endpointslices": {
		slice("web", object{"addressType": "IPv4", "ports": webPort, "endpoints": []any{
			object{"addresses": []any{"10.0.1.15"}, "conditions": object{"ready": false}}, object{"addresses": []any{"10.0.1.5"}}}}),
		slice("web", object{"addressType": "IPv4", "ports": webPort, "endpoints": []any{object{"addresses": []any{"10.0.1.5"}, "conditions": object{"ready": true}}}}),
		slice("web", object{"addressType": "IPv6", "ports": webPort, "endpoints": []any{object{"addresses": []any{"fd00::5"}}}}),
		slice("zonal", object{"addressType": "IPv4", "ports": webPort, "endpoints": []any{
			object{"addresses": []any{"10.0.1.8"}, "hints": object{"forZones": []any{object{"name": "eu-west-1a"}}}}}}),
		slice("nobody", object{"addressType": "IPv4", "ports": webPort, "endpoints": []any{object{"addresses": []any{"10.0.1.6"}}}}),
	},
	"/api/v1/pods": {
		pod1("web-1", "10.0.1.5", "Running", false), pod1("job", "10.0.1.7", "Succeeded", false), pod1("agent", "10.0.1.4", "Running", true),
		pod1("new", "", "Pending", false),
	},
}

// TestList: all pages, as core types; what is of no use to a packet is left out.
func TestList(t *testing.T) {
	server := httptest.NewServer(shop)
	defer server.Close()
	got, err := List(t.Context(), Config{Kubeconfig: kubeconfig(t, "a", server.URL)}, "a")
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddr
	none := path.Known([]path.Backend{})
	want := Listing{
		Services: path.Known([]path.Service{
			{Cluster: "a", Namespace: "default", Name: "web", Addr: a("10.100.0.10"),
				Ports: []path.ServicePort{{Name: "http", Proto: path.TCP, Port: 80, NodePort: 30080}, {Name: "dns", Proto: path.UDP, Port: 53}},
				Backends: path.Known([]path.Backend{{Addr: a("10.0.1.15"), Port: 8080, Proto: path.TCP, PortName: "http"},
					{Addr: a("10.0.1.5"), Port: 8080, Proto: path.TCP, PortName: "http", Ready: true}})},
			{Cluster: "a", Namespace: "default", Name: "db", Ports: []path.ServicePort{}, Backends: none},
			{Cluster: "a", Namespace: "default", Name: "far", External: "db.example.org", Ports: []path.ServicePort{}, Backends: none},
			{Cluster: "a", Namespace: "shop", Name: "web", Addr: a("10.100.0.11"), Ports: []path.ServicePort{}, Backends: none},
			{Cluster: "a", Namespace: "default", Name: "own", Addr: a("10.100.0.12"), Ports: []path.ServicePort{}, Backends: none, Partial: true},
			{Cluster: "a", Namespace: "default", Name: "zonal", Addr: a("10.100.0.13"), Ports: []path.ServicePort{{Name: "http", Proto: path.TCP, Port: 80}}, Partial: true,
				Backends: path.Known([]path.Backend{{Addr: a("10.0.1.8"), Port: 8080, Proto: path.TCP, PortName: "http", Ready: true}})},
		}),
		Pods: path.Known([]path.ListedPod{
			{Cluster: "a", Namespace: "default", Name: "web-1", Addr: a("10.0.1.5"), Node: "n1"},
			{Cluster: "a", Namespace: "default", Name: "agent", Addr: a("10.0.1.4"), Node: "n1", HostNetwork: true},
		}),
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Errorf("listed (-want +got):\n%s", d)
	}
}

// TestListInPart: a right that is missing makes its part unknown, and no other.
func TestListInPart(t *testing.T) {
	for missing, known := range map[string]string{
		"/api/v1/services":                         "pods",
		"/apis/discovery.k8s.io/v1/endpointslices": "services pods",
		"/api/v1/pods":                             "services backends",
	} {
		some := lists{}
		for p, items := range shop {
			if p != missing {
				some[p] = items
			}
		}
		server := httptest.NewServer(some)
		got, err := List(t.Context(), Config{Kubeconfig: kubeconfig(t, "a", server.URL)}, "a")
		server.Close()
		if err != nil {
			t.Fatal(err)
		}
		var parts []string
		why := got.Services.Why + got.Pods.Why
		if got.Services.Known {
			parts = append(parts, "services")
			why += got.Services.Value[0].Backends.Why
			if got.Services.Value[0].Backends.Known {
				parts = append(parts, "backends")
			}
		}
		if got.Pods.Known {
			parts = append(parts, "pods")
		}
		if text := strings.Join(parts, " "); text != known || !strings.Contains(why, "no right: "+missing) {
			t.Errorf("without %s: known are %q, want %q; %s", missing, text, known, why)
		}
	}
}

// TestListNobody: nobody to ask is an error; somebody who is away, or who talks
// nonsense, is unknown.
func TestListNobody(t *testing.T) {
	if _, err := List(t.Context(), Config{Kubeconfig: filepath.Join(t.TempDir(), "none")}, ""); err == nil {
		t.Error("a kubeconfig that is not there is no error")
	}
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"metadata": {"continue": "again"}, "items": []}`)
	}))
	defer endless.Close()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") }))
	defer web.Close()
	for says, server := range map[string]string{"connection refused": "http://127.0.0.1:1", "more than": endless.URL, "invalid character": web.URL} {
		got, err := List(t.Context(), Config{Kubeconfig: kubeconfig(t, "a", server)}, "")
		if err != nil || got.Services.Known || got.Pods.Known || !strings.Contains(got.Pods.Why, says) {
			t.Errorf("%s: %v; %q, want %q", server, err, got.Pods.Why, says)
		}
	}
}

// TestKubeconfigs: several files are one, and a context is chosen among theirs.
func TestKubeconfigs(t *testing.T) {
	server := httptest.NewServer(shop)
	defer server.Close()
	both := kubeconfig(t, "a", "http://127.0.0.1:1") + string(filepath.ListSeparator) + kubeconfig(t, "b", server.URL)
	got, err := List(t.Context(), Config{Kubeconfig: both, Context: "b"}, "")
	if err != nil || !got.Services.Known {
		t.Errorf("context b: %v; %s", err, got.Services.Why)
	}
	if got, err = List(t.Context(), Config{Kubeconfig: both}, ""); err != nil || got.Services.Known {
		t.Errorf("the first file's context is not the current one: %v", err)
	}
	if _, err = List(t.Context(), Config{Kubeconfig: both, Context: "c"}, ""); err == nil || !strings.Contains(err.Error(), `"c"`) {
		t.Errorf("a context that is not there: %v", err)
	}
}

// TestTokenOfAProgram: a kubeconfig that has its token from a program, as that of
// `aws eks update-kubeconfig` has.
func TestTokenOfAProgram(t *testing.T) {
	var said string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // without TLS nobody is told a token
		said = r.Header.Get("Authorization")
		fmt.Fprint(w, `{"items":[]}`)
	}))
	defer server.Close()
	file := kubeconfig(t, "c", server.URL)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const program = `{"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "sh", "interactiveMode": "IfAvailable", "args": ["-c",
		"echo '{\"kind\": \"ExecCredential\", \"apiVersion\": \"client.authentication.k8s.io/v1beta1\", \"status\": {\"token\": \"k8s-aws-v1.x\"}}'"]}}`
	text = bytes.Replace(text, []byte(`{"token": "t"}`), []byte(program), 1)
	text = bytes.Replace(text, []byte(`"server":`), []byte(`"insecure-skip-tls-verify": true, "server":`), 1)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := List(t.Context(), Config{Kubeconfig: file}, "")
	if err != nil || !l.Pods.Known || said != "Bearer k8s-aws-v1.x" {
		t.Errorf("%v, %+v, said %q", err, l.Pods, said)
	}
}
