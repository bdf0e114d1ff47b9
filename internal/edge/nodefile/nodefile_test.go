package nodefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/eniconfig"
)

const settings = `# a node's settings
warm-ip-target: 5
add-wait: 45s
external-snat: true
cni-conf-dir: ""
native-cidrs: [10.1.0.0/16, 10.2.0.0/16]
exclude-snat-cidrs:
  - 192.168.0.0/16
eni-tags:
  team: net
  "a \"b\"": ""
`

func TestSettings(t *testing.T) {
	got, err := ParseSettings("f", []byte(settings))
	if err != nil {
		t.Fatal(err)
	}
	want := []Setting{
		{"warm-ip-target", Single, "5", 2},
		{"add-wait", Single, "45s", 3},
		{"external-snat", Single, "true", 4},
		{"cni-conf-dir", Single, "", 5},
		{"native-cidrs", List, "10.1.0.0/16,10.2.0.0/16", 6},
		{"exclude-snat-cidrs", List, "192.168.0.0/16", 7},
		{"eni-tags", Mapping, `{"a \"b\"":"","team":"net"}`, 9},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("settings (-want +got):\n%s", d)
	}
	for _, empty := range []string{"", "# nothing\n", "---\n", "null\n"} {
		if got, err := ParseSettings("f", []byte(empty)); err != nil || len(got) > 0 {
			t.Errorf("%q: %v, %v", empty, got, err)
		}
	}
}

func TestBadSettings(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"a: 1\nb: 2\na: 3\n", `f:3: key "a" of settings is there twice, first in line 1`},
		{"a:\n", `f:1: a has no value`},
		{"- a\n", "f:1: settings must be a mapping"},
		{"a\n", "f:1: settings must be a mapping"},
		{"a: 1\n---\nb: 2\n", "f:3: a second YAML document"},
		{"a: &x 1\nb: *x\n", "f:1: anchors and aliases"},
		{"a: !!str 1\n", `f:1: tag "!!str"`},
		{"a: [1, [2]]\n", "f:1: an item of a must be a single value"},
		{"a: [~]\n", "f:1: an item of a must be a single value"},
		{"a: {b: {c: d}}\n", `f:1: a: "b" must be a single value`},
		{"a: {b: 1, b: 2}\n", `f:1: key "b" of a is there twice`},
		{"[a]: 1\n", "f:1: settings: a key must be a word"},
		{"a: 1\n b: 2\n", "f:2: not YAML"},
		{"a: \"\x00\"\n", "f: not YAML"},
		{"a: " + strings.Repeat("[", 20) + strings.Repeat("]", 20) + "\n", "f:1: nested deeper than 8"},
		{strings.Repeat("#", maxFile+1), "f: more than 1048576 bytes"},
		{strings.Repeat("--- a\n", maxDocuments+1), "f:4097: more than 4096 documents"},
	} {
		if _, err := ParseSettings("f", []byte(tt.text)); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%.40q: error %v, want %q", tt.text, err, tt.want)
		}
	}
}

const eniConfigs = `apiVersion: crd.k8s.amazonaws.com/v1alpha1
kind: ENIConfig
metadata:
  name: eu-west-1a
spec:
  subnet: subnet-0123456789abcdef0
  securityGroups:
    - sg-0123456789abcdef0
    - sg-0123456789abcdef1
---
apiVersion: crd.k8s.amazonaws.com/v1alpha1
kind: ENIConfig
metadata: {name: plain}
spec: {subnet: subnet-12345678}
---
apiVersion: v1
kind: Node
metadata:
  name: node-a
  labels: {topology.kubernetes.io/zone: eu-west-1a}
  annotations: {k8s.amazonaws.com/eniConfig: plain}
`

func TestENIConfigs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eniconfigs.yaml")
	if err := os.WriteFile(path, []byte(eniConfigs), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := ReadENIConfigs(path)
	if err != nil {
		t.Fatal(err)
	}
	node := eniconfig.Node{Name: "node-a", Labels: map[string]string{eniconfig.ZoneLabel: "eu-west-1a"},
		Annotations: map[string]string{eniconfig.DefaultKey: "plain"}}
	if d := cmp.Diff(node, set.Node); d != "" {
		t.Error(d)
	}
	got, where, err := set.Select(set.Node, eniconfig.Keys{Annotation: eniconfig.DefaultKey, Label: eniconfig.ZoneLabel})
	if d := cmp.Diff(eniconfig.Config{Name: "plain", SubnetID: "subnet-12345678"}, got); d != "" || err != nil {
		t.Error(d, where, err)
	}
	got, where, err = set.Select(set.Node, eniconfig.Keys{Annotation: "none", Label: eniconfig.ZoneLabel})
	want := eniconfig.Config{Name: "eu-west-1a", SubnetID: "subnet-0123456789abcdef0",
		Groups: []string{"sg-0123456789abcdef0", "sg-0123456789abcdef1"}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, where, err)
	}
}

func TestBadENIConfigs(t *testing.T) {
	edit := func(old, new string) string {
		if !strings.Contains(eniConfigs, old) {
			t.Fatalf("no %q in the file", old)
		}
		return strings.Replace(eniConfigs, old, new, 1)
	}
	for _, tt := range []struct{ text, want string }{
		{edit("kind: ENIConfig", "kind: EniConfig"), `f:1: kind "EniConfig"`},
		{edit("v1alpha1", "v1"), `f:1: kind "ENIConfig" of apiVersion "crd.k8s.amazonaws.com/v1"`},
		{edit("kind: ENIConfig\n", ""), `f:1: kind ""`},
		{edit("subnet: ", "subnetID: "), `f:6: unknown key "subnetID" of spec: known are subnet, securityGroups`},
		{edit("subnet: subnet-0", "subnet: vpc-0"), `f:1: spec.subnet "vpc-0123456789abcdef0"`},
		{edit("  securityGroups:\n    - sg-0123456789abcdef0\n    - sg-0123456789abcdef1\n", "  securityGroups: sg-0123456789abcdef0\n"), "f:7: spec.securityGroups must be a list"},
		{edit("name: plain", "name: eu-west-1a"), "f:11: ENIConfig eu-west-1a is there twice, first in line 1"},
		{edit("metadata: {name: plain}\n", ""), "f:11: an ENIConfig must have metadata and spec"},
		{edit("{name: plain}", "{name: plain, uid: x}"), `f:13: unknown key "uid" of metadata`},
		{edit("metadata: {name: plain}", "metadata: plain"), "f:13: metadata must be a mapping"},
		{edit("{name: plain}", "{name: [plain]}"), "f:13: metadata.name must be a single value"},
		{eniConfigs + "---\napiVersion: v1\nkind: Node\nmetadata: {}\n", "f:23: a second Node: the first is in line 16"},
		{"apiVersion: v1\nkind: Node\n", "f:1: a Node must have metadata"},
		{"apiVersion: v1\nkind: Node\nmetadata: {labels: {a: [b]}}\n", `f:3: metadata.labels: "a" must be a single value`},
		{"apiVersion: v1\nkind: Node\nmetadata: {}\nspec: {}\n", `f:4: unknown key "spec" of a Node`},
		{"- a\n", "f:1: a document must be a mapping"},
	} {
		if _, err := ParseENIConfigs("f", []byte(tt.text)); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
}

func TestFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadSettings(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "absent") {
		t.Errorf("absent: %v", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, fifo} { // neither waits
		if _, err := ReadENIConfigs(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{settings, eniConfigs, "a: [b, {c: d}]", "a: &x [*x]", "---\n...\n", "? a\n: b", "a: |\n  b\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseSettings("f", data)
		seen := make(map[string]bool)
		for _, s := range list {
			if err == nil && (seen[s.Key] || s.Line < 1 || s.Form == "") {
				t.Fatalf("setting %+v", s)
			}
			seen[s.Key] = true
		}
		set, err := ParseENIConfigs("f", data)
		if err == nil {
			for _, name := range set.Names() {
				c, _, err := set.Select(eniconfig.Node{Labels: map[string]string{"l": name}}, eniconfig.Keys{Annotation: "a", Label: "l"})
				if err != nil || c.Validate() != nil {
					t.Fatalf("%s: %+v, %v, %v", name, c, err, c.Validate())
				}
			}
		}
	})
}
