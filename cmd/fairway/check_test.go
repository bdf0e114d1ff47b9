package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/core/preflight"
)

func TestReadLists(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"10-fairway.conflist": `{"name":"fairway","plugins":[{"type":"fairway-cni"},{"type":"portmap"}]}`,
		"05-one.conf":         `{"name":"one","type":"bridge"}`,
		"20-empty.json":       `{}`,
		"30-torn.conflist":    `{"name":`,
		"readme.txt":          `not one`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := []preflight.List{
		{File: "05-one.conf", Name: "one", Plugins: []string{"bridge"}},
		{File: "10-fairway.conflist", Name: "fairway", Plugins: []string{"fairway-cni", "portmap"}},
		{File: "20-empty.json", Problem: "it names no plugin"},
		{File: "30-torn.conflist", Problem: "unexpected end of JSON input"},
	}
	if d := cmp.Diff(want, readLists(dir).Value); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if none := readLists(filepath.Join(dir, "nowhere")); !none.Known || len(none.Value) > 0 {
		t.Errorf("a directory that is not there has none: %+v", none)
	}
}

func TestKubeletSettings(t *testing.T) {
	for text, want := range map[string]string{
		"kind: KubeletConfiguration\nmaxPods: 58\n":     "58",
		`{"kind":"KubeletConfiguration","maxPods": 17}`: "17",
		"evictionMaxPods: 3\n":                          "",
		"# maxPods: 3\n":                                "",
	} {
		got := ""
		if m := maxPodsOf.FindStringSubmatch(text); m != nil {
			got = m[1]
		}
		if got != want {
			t.Errorf("%q has %q, want %q", text, got, want)
		}
	}
	for _, args := range []string{"kubelet --max-pods=9 --config x", "kubelet --config x --max-pods 9"} {
		if got, ok := flag(strings.Fields(args), "--max-pods"); !ok || got != "9" {
			t.Errorf("%s: %q, %v", args, got, ok)
		}
	}
	if _, ok := flag([]string{"kubelet", "--max-pods"}, "--max-pods"); ok {
		t.Error("a flag without its value has one")
	}
}

func TestReadPlugin(t *testing.T) {
	dir := t.TempDir()
	if p := readPlugin(dir); p.Known {
		t.Errorf("nothing there: %+v", p)
	}
	file := filepath.Join(dir, "fairway-cni")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if p := readPlugin(dir).Value; !strings.Contains(p.Problem, "not built by Go") {
		t.Errorf("a script: %+v", p)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(self, file); err != nil {
		if err := os.Symlink(self, file); err != nil {
			t.Fatal(err)
		}
	}
	if p := readPlugin(dir).Value; !strings.Contains(p.Problem, "another program") {
		t.Errorf("this test: %+v", p)
	}
}

func TestCheckUsage(t *testing.T) {
	for _, args := range [][]string{{"check", "x"}, {"check", "-o", "yaml"}, {"check", "--all"}} {
		if code, _, stderr := fairway(t, args...); code != 2 || stderr == "" {
			t.Errorf("%v: exit %d, %q", args, code, stderr)
		}
	}
	// A machine that is no node: something fails, or cannot be told; it is said as JSON.
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
	code, stdout, _ := fairway(t, "check", "-o", "json", "--socket", "/nowhere/agent.sock", "--cni-conf-dir", t.TempDir(), "--state-dir", t.TempDir())
	var r preflight.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 1 || r.Status() != code || r.Installed {
		t.Errorf("exit %d, %v in\n%s", code, err, stdout)
	}
}
