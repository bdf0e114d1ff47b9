package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
	"github.com/fairway-cni/fairway/internal/edge/bundle"
)

// bundleFile puts a world into a bundle.
func bundleFile(t *testing.T, name string, w *path.World) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := bundle.Write(&b, w, false); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), name)
	if err := create(file, b.Bytes()); err != nil {
		t.Fatal(err)
	}
	return file
}

func load(t *testing.T, name string) *path.World {
	t.Helper()
	_, w, err := example.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestPathOfBundle: a bundle gives what its world gave, byte for byte, in each
// form; and so do its two halves joined.
func TestPathOfBundle(t *testing.T) {
	json, whole := worldFile(t, "seed003"), bundleFile(t, "whole.tgz", load(t, "seed003"))
	a, b := load(t, "seed003"), load(t, "seed003")
	a.VPCs, b.VPCs = a.VPCs[:1], b.VPCs[1:]
	site := a.VPCs[0].Name
	a.Nodes, b.Nodes = nil, nil
	for _, n := range load(t, "seed003").Nodes {
		if n.Cluster == site {
			a.Nodes = append(a.Nodes, n)
		} else {
			b.Nodes = append(b.Nodes, n)
		}
	}
	left, right := bundleFile(t, "a.tgz", a), bundleFile(t, "b.tgz", b)
	for _, form := range []string{"text", "json", "mermaid"} {
		ask := func(files ...string) string {
			args := []string{"path", "b:default/sleep", "a:default/httpbin:80", "-o", form}
			for _, f := range files {
				args = append(args, "-b", f)
			}
			out, status, text := run(args...)
			if status != 1 {
				t.Errorf("%v: status %d: %s", files, status, text)
			}
			for _, f := range files { // the command line is repeated in some forms
				out = strings.ReplaceAll(out, f, "F")
			}
			return out
		}
		want := ask(json)
		if got := ask(whole); got != want {
			t.Errorf("%s of a bundle:\n%s\nwant:\n%s", form, got, want)
		}
		if got := strings.ReplaceAll(ask(left, right), "-b F -b F", "-b F"); got != want {
			t.Errorf("%s of two halves:\n%s\nwant:\n%s", form, got, want)
		}
	}
}

func TestPathPasted(t *testing.T) {
	const line = "IPv4: martian source 10.11.4.91 from 10.12.6.20, on dev eth1"
	out, status, text := run("path", "--example", "seed003", line)
	if status != 1 || !strings.Contains(out, "DROPPED  SYN at hop 6 RPFILTER_STRICT") || !strings.Contains(out+text, "martian: tcp 10.12.6.20 to 10.11.4.91") {
		t.Errorf("status %d, %s%s", status, text, out)
	}
	if _, status, text := run("path", "--example", "seed003", "a line of nothing"); status != 3 || !strings.Contains(text, "flow log") {
		t.Errorf("status %d, %s", status, text)
	}
}

func TestBundleRefusals(t *testing.T) {
	w := load(t, "seed002")
	file := bundleFile(t, "w.tgz", w)
	if err := create(file, nil); err == nil {
		t.Error("a file that is there was written over")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.tgz")
	if err := create(cut, b[:len(b)/2]); err != nil {
		t.Fatal(err)
	}
	other := load(t, "seed002")
	other.Nodes[0].Host.Devices.Value[0].MTU++
	for _, tt := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"path", "-b", cut, "default/pod1", "default/pod2"}, 3, "cut off"},
		{[]string{"path", "-b", file, "-b", bundleFile(t, "other.tgz", other), "default/pod1", "default/pod2"}, 3, "node " + w.Nodes[0].Name + " differs between w.tgz and other.tgz"},
		{[]string{"path", "-b", file, "--example", "seed002", "default/pod1", "default/pod2"}, 3, "choose a world"},
		{[]string{"bundle"}, 2, "-o FILE"},
		{[]string{"bundle", "-o", "x", "y"}, 2, "no arguments"},
		{[]string{"bundle", "--node", "--vpc", "vpc-1", "-o", "x"}, 2, "does not read"},
		{[]string{"bundle", "--ec2", "--name", "n", "-o", "x"}, 2, "does not read"},
		{[]string{"bundle", "-b", file, "--ec2", "-o", "x"}, 2, "--ec2 is for reading"},
		{[]string{"bundle", "-b", cut, "-o", "x"}, 1, "cut off"},
	} {
		cmd := command()
		cmd.SetArgs(tt.args)
		cmd.SetOut(io.Discard)
		var stderr strings.Builder
		if status := end(&stderr, cmd.ExecuteContext(t.Context())); status != tt.status || !strings.Contains(stderr.String(), tt.says) {
			t.Errorf("%v: status %d, want %d; %s", tt.args, status, tt.status, stderr.String())
		}
	}
}

// TestBundleOfBundles: files become one, with one name for one thing.
func TestBundleOfBundles(t *testing.T) {
	a, b := load(t, "seed002"), load(t, "seed002")
	a.Nodes, b.Nodes = a.Nodes[:1], b.Nodes[1:]
	b.VPCs = nil
	file := filepath.Join(t.TempDir(), "one.tgz")
	run := func(status int, args ...string) string {
		t.Helper()
		cmd := command()
		cmd.SetArgs(args)
		var out, stderr strings.Builder
		cmd.SetOut(&out)
		if got := end(&stderr, cmd.ExecuteContext(t.Context())); got != status {
			t.Fatalf("%v: status %d, want %d: %s", args, got, status, stderr.String())
		}
		return out.String()
	}
	said := run(0, "bundle", "-b", bundleFile(t, "a.tgz", a), "-b", bundleFile(t, "b.tgz", b), "--redact", "-o", file)
	if !strings.Contains(said, "replaced: 2 names of nodes") || !strings.Contains(said, "node             node-2") {
		t.Errorf("said:\n%s", said)
	}
	run(0, "path", "-b", file, "10.5.2.11", "10.5.2.22:80", "--assert", "delivered")
	again := filepath.Join(t.TempDir(), "again.tgz")
	run(0, "bundle", "-b", file, "-o", again)
	if s, err := readWorld(again); err != nil || !s.Redacted {
		t.Errorf("%v, redacted %v: it was", err, s.Redacted)
	}
}
