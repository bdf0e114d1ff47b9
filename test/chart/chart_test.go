package chart

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chartutil"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write deploy/manifests/fairway.yaml and the chart's copies of deploy/crds")

var (
	deploy   = filepath.Join("..", "..", "deploy")
	chartDir = filepath.Join(deploy, "chart", "fairway")
)

// image are values that the chart cannot do without.
var image = Values{"image": Values{"repository": "fairway.test/fairway"}}

func readValues(t *testing.T, path ...string) Values {
	t.Helper()
	v, err := chartutil.ReadValuesFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func render(t *testing.T, sets ...Values) Release {
	t.Helper()
	r, err := Render(chartDir, append([]Values{image}, sets...)...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// modes are sets of values whose release has to hold: the defaults, the files of
// modes/, and what else changes what the DaemonSet has.
func modes(t *testing.T) map[string]Values {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chartDir, "modes", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no modes: %v", err)
	}
	all := map[string]Values{
		"defaults":   {},
		"uninstall":  {"uninstall": true},
		"cri":        {"criSocket": "/run/containerd/containerd.sock"},
		"monitoring": {"serviceMonitor": Values{"enabled": true}, "prometheusRule": Values{"enabled": true}},
	}
	for _, f := range files {
		all[filepath.Base(f)] = readValues(t, f)
	}
	return all
}

// TestManifests: the plain manifests are what the chart makes, and its definitions
// are the repository's.
func TestManifests(t *testing.T) {
	made := map[string][]byte{
		filepath.Join(deploy, "manifests", "fairway.yaml"): append([]byte(
			"# Made from the chart, with values.yaml beside this file: cd test/chart && go test . -run TestManifests -update\n"),
			render(t, readValues(t, deploy, "manifests", "values.yaml")).Manifests...),
	}
	crds, err := filepath.Glob(filepath.Join(deploy, "crds", "*.yaml"))
	if err != nil || len(crds) == 0 {
		t.Fatalf("no definitions: %v", err)
	}
	for _, f := range crds {
		if made[filepath.Join(chartDir, "crds", filepath.Base(f))], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	copies, err := filepath.Glob(filepath.Join(chartDir, "crds", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range copies {
		if made[f] == nil {
			t.Errorf("%s: deploy/crds has none of that name", f)
		}
	}
	for file, want := range made {
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if have, err := os.ReadFile(file); err != nil || !bytes.Equal(have, want) {
			t.Errorf("%s is not what is made of its source (%v); -update writes it", file, err)
		}
	}
}

// object is what the tests look at of a manifest.
type object struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Data     map[string]string
	Rules    []struct{ APIGroups, Resources, Verbs []string }
	Spec     struct {
		Template struct{ Spec podSpec }
	}
}

type podSpec struct {
	HostNetwork, HostPID, HostIPC bool
	InitContainers, Containers    []container
	Volumes                       []struct {
		Name     string
		HostPath *struct{ Path string }
	}
}

type container struct {
	Name            string
	Args            []string
	Env             []struct{ Name, Value string }
	SecurityContext struct {
		Privileged, AllowPrivilegeEscalation, ReadOnlyRootFilesystem *bool
		Capabilities                                                 struct{ Add, Drop []string }
	}
	VolumeMounts []struct {
		Name, MountPath string
		ReadOnly        bool
	}
}

// objects reads manifests; every document must be one.
func objects(t *testing.T, manifests []byte) []object {
	t.Helper()
	var all []object
	for text := range strings.SplitSeq("\n"+string(manifests), "\n---\n") {
		if strings.TrimSpace(text) == "" {
			continue
		}
		var o object
		if err := yaml.Unmarshal([]byte(text), &o); err != nil || o.Kind == "" {
			t.Fatalf("%v in\n%s", err, text)
		}
		all = append(all, o)
	}
	return all
}

func find(t *testing.T, all []object, kind string) object {
	t.Helper()
	i := slices.IndexFunc(all, func(o object) bool { return o.Kind == kind })
	if i < 0 {
		t.Fatalf("no %s", kind)
	}
	return all[i]
}

// hostPaths are what the DaemonSet may have of its node, and whether it may write
// there. The template says what each is for.
var hostPaths = map[string]bool{
	"/run/fairway":    true,
	"/etc/cni/net.d":  true,
	"/opt/cni/bin":    true, // by the container that installs
	"/proc/sys/net":   true,
	"/run/containerd": false, // where somebody asks for it
}

// TestLeastPrivilege: whatever the values, no container gets more than this.
func TestLeastPrivilege(t *testing.T) {
	for name, values := range modes(t) {
		t.Run(name, func(t *testing.T) {
			spec := find(t, objects(t, render(t, values).Manifests), "DaemonSet").Spec.Template.Spec
			if !spec.HostNetwork || spec.HostPID || spec.HostIPC {
				t.Errorf("host's namespaces: network %v, PID %v, IPC %v; want the first alone", spec.HostNetwork, spec.HostPID, spec.HostIPC)
			}
			writable := map[string]bool{}
			for _, v := range spec.Volumes {
				if v.HostPath == nil {
					continue
				}
				may, ok := hostPaths[v.HostPath.Path]
				if !ok || v.HostPath.Path == "/run/containerd" && name != "cri" {
					t.Errorf("the node's %s is mounted", v.HostPath.Path)
				}
				writable[v.Name] = may
			}
			for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
				s, want := c.SecurityContext, []string{"NET_ADMIN"}
				if c.Name == "install" {
					want = nil
				}
				if s.Privileged != nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
					t.Errorf("%s: security context %+v", c.Name, s)
				}
				if !slices.Equal(s.Capabilities.Add, want) || !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) {
					t.Errorf("%s: capabilities %+v, want %v alone", c.Name, s.Capabilities, want)
				}
				for _, m := range c.VolumeMounts {
					may, isHost := writable[m.Name]
					if isHost && !m.ReadOnly && (!may || m.Name == "cni-bin" && c.Name == "agent" && name != "uninstall") {
						t.Errorf("%s may write to %s", c.Name, m.MountPath)
					}
				}
			}
		})
	}
}

// TestRights: the role has what internal/edge/kube asks for, and nothing else.
func TestRights(t *testing.T) {
	rest := []string{"nodes: list watch patch", "events: create", "eninodes: create patch", "eninodes/status: patch",
		"nodeconfigs: list watch", "nodeconfigs/status: patch", "eniconfigs: list watch"}
	for _, tt := range []struct {
		values Values
		pods   string
	}{
		{nil, "pods: list watch"},
		{Values{"options": Values{"annotate-pod-ip": true}}, "pods: list watch patch"},
		{Values{"uninstall": true}, "pods: list watch"},
	} {
		var all []string
		for _, r := range find(t, objects(t, render(t, tt.values).Manifests), "ClusterRole").Rules {
			all = append(all, strings.Join(r.Resources, ",")+": "+strings.Join(r.Verbs, " "))
		}
		if want := append([]string{tt.pods}, rest...); !slices.Equal(all, want) {
			t.Errorf("%v: rights %q, want %q", tt.values, all, want)
		}
	}
}

// TestRefuses: values that cannot be are refused in words that name them.
func TestRefuses(t *testing.T) {
	for _, tt := range []struct {
		values Values
		want   string
	}{
		{Values{"image": Values{"repository": ""}}, "image.repository: must be where you have pushed"},
		{Values{"image": Values{"digest": "sha256:12"}}, "digest"},
		{Values{"optoins": Values{}}, "optoins"},
		{Values{"options": Values{"WARM_IP_TARGET": 1}}, "WARM_IP_TARGET"},
		{Values{"options": Values{"warm-iptarget": 1}}, "at '/options': additional properties 'warm-iptarget' not allowed"},
		{Values{"options": Values{"sysctl-dir": "/x"}}, "sysctl-dir"},
		{Values{"options": Values{"disable-metrics": "false"}}, "/options/disable-metrics"},
		{Values{"options": nil}, "missing property 'options'"},
		{Values{"tolerations": []any{Values{"kee": "x"}}}, "kee"},
		{Values{"image": Values{"pullSecrets": []any{"mine"}}}, "/image/pullSecrets/0"},
		{Values{"env": []any{Values{"name": "WARM_IP_TARGET", "value": 5}}}, "/env/0/value"},
		{Values{"podLabels": Values{"app.kubernetes.io/name": "x"}}, "/podLabels/app.kubernetes.io~1name"},
		{Values{"resources": Values{"limit": Values{"cpu": 1}}}, "limit"},
		{Values{"options": Values{"metrics-address": "127.0.0.1:0"}, "serviceMonitor": Values{"enabled": true}}, "serviceMonitor.enabled"},
		{Values{"options": Values{"introspection-address": "unix:/run/i.sock"}}, "set probes to false"},
		{Values{"options": Values{"disable-metrics": true}, "serviceMonitor": Values{"enabled": true}}, "serviceMonitor.enabled"},
		{Values{"maxUnavailable": 0}, "maxUnavailable"},
		{Values{"maxUnavailable": "101%"}, "maxUnavailable"},
		{Values{"criSocket": "run/x.sock"}, "criSocket"},
		{Values{"criSocket": "/x.sock"}, "criSocket"}, // it would be all of the node's files
	} {
		if _, err := Render(chartDir, image, tt.values); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: error %v, want one with %q", tt.values, err, tt.want)
		}
	}
	if n := render(t, nil).Notes; !strings.Contains(n, "rollout status") {
		t.Errorf("notes %q", n)
	}
	if n := render(t, Values{"uninstall": true}).Notes; !strings.Contains(n, "helm uninstall fairway -n "+Namespace) || !strings.Contains(n, "--prefix\n") {
		t.Errorf("notes of an uninstall: %q", n)
	}
}
