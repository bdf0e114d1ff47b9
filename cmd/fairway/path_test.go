package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
	"github.com/fairway-cni/fairway/internal/core/path/render"
)

// run is the program without its process: what it prints, its status and what it
// says of an error.
func run(args ...string) (out string, status int, text string) {
	cmd := command()
	var b bytes.Buffer
	cmd.SetOut(&b)
	cmd.SetErr(&b)
	cmd.SetArgs(args)
	err := cmd.Execute()
	if err == nil {
		return b.String(), 0, ""
	}
	var own exitStatus
	if errors.As(err, &own) {
		return b.String(), own.status, own.Error()
	}
	return b.String(), -1, err.Error()
}

func TestPathStatus(t *testing.T) {
	world := worldFile(t, "seed002")
	tests := []struct {
		args   string
		status int
		says   string // in the output or the error
	}{
		{"path --example seed003", 1, "RPFILTER_STRICT"},
		{"path --example healthy", 0, "DELIVERED"},
		{"path --example seed003 --with-mend 1", 0, "DELIVERED"},
		{"path --example seed003 --with-mend 9", 3, "the answer has 1"},
		{"path --example seed003 b:default/sleep a:default/api-01:80", 0, "DELIVERED"},
		{"path -b " + world + " default/pod1 default/pod2:80", 0, "vpc/pod2"},
		{"path -b " + world + " default/pod1 default/pod2:80 --assert delivered", 0, "DELIVERED"},
		{"path -b " + world + " default/pod1 default/pod2:81 --assert delivered", 1, "dropped, want delivered"},
		{"path -b " + world + " default/pod1 default/pod2:81 --assert dropped", 0, "NOT_LISTENING"},
		{"path -b " + world, 3, "want FROM and TO"},
		{"path -b " + world + " default/pod1 default/pod9", 3, "no pod, node or address of that name"},
		{"path -b nowhere.json a b", 3, "no such file"},
		{"path --example seed003 --proto sctp", 3, `protocol "sctp"`},
		{"path --example seed003 -o yaml", 3, `--output "yaml"`},
		{"path --example seed003 -o svg --theme dark", 1, "<title id=\"t\">DROPPED SYN at hop 6 RPFILTER_STRICT"},
		{"path --example seed003 -o mermaid", 1, "flowchart LR"},
		{"path --example seed003 -o svg --theme blue", 3, "--theme"},
		{"path --example seed003 --all -o svg", 3, "--all --output svg"},
		{"path --example seed003 --size 5", 3, "--size 5"},
		{"path --example seed003 --nothing", 3, "unknown flag"},
		{"path --example seed003 one", 3, "want FROM and TO"},
		{"path", 3, "want FROM and TO"},
		{"path --example seed009", 3, "there are seed003"},
		{"path --example seed003 --all", 1, "pairs of classes"},
		{"path --example seed002 --size 1500 --proto icmp", 0, "DELIVERED"},
		{"path -b " + world + " default/pod1 default/pod2:81 --assert delivered -o junit", 1, `<failure message="dropped, want delivered" type="dropped">DROPPED`},
		{"path -b " + world + " default/pod1 default/pod2:80 --assert delivered -o junit", 0, `<testsuites tests="1" failures="0">`},
		{"path -b " + world + " default/pod1 default/pod2:80 --assert delivered -o json", 3, "--output junit: not json"},
		{"path -b " + world + " default/pod1 default/pod2:80 -o junit", 3, "by --assert"},
		{"path --example seed003 IPv4: martian source 10.11.4.91 from 10.12.6.20, on dev eth1 --proto icmp", 1, "echo"},
		{"path --example seed003 2 1 eni-0a02 10.12.6.20 10.11.4.91 40641 80 6 20 4249 1418530010 1418530070 REJECT OK", 1, "RPFILTER_STRICT"},
		{"path --example seed003 --proto udp 2 1 eni-0a02 10.12.6.20 10.11.4.91 40641 80 6 20 4249 1418530010 1418530070 REJECT OK", 3, "--proto udp: the line is of tcp"},
		{"path --example seed003 a b c", 3, "want FROM and TO"},
		{"path --example seed003 -o json --proto icmp --size 100", 1, "fairway path --example seed003 b:default/sleep a:default/httpbin:80 --proto icmp --size 100"},
		{"path --example seed003 --all --proto icmp", 1, "pairs of classes"},
		{"explain rpfilter_strict", 0, "ip_handle_martian_source"},
		{"explain", 0, "SRC_DST_CHECK"},
		{"explain NOTHING", 3, "no code"},
		{"explain A B", 3, "one code"},
		{"path diff a b", 3, "want two worlds"},
	}
	for _, tt := range tests {
		out, status, text := run(strings.Fields(tt.args)...)
		if status != tt.status || !strings.Contains(out+text, tt.says) {
			t.Errorf("fairway %s: status %d, want %d; want %q in:\n%s%s", tt.args, status, tt.status, tt.says, out, text)
		}
	}
}

// worldFile puts an example's world into a file.
func worldFile(t *testing.T, name string, edits ...path.Edit) string {
	t.Helper()
	_, w, err := example.Load(name)
	if err == nil {
		w, err = w.With(edits...)
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.JSON()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), name+".json")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPathCannotTell(t *testing.T) {
	_, w, err := example.Load("seed002")
	if err != nil {
		t.Fatal(err)
	}
	w.VPCs[0].ACLs = path.Unknown[[]path.ACL]("no right")
	w.VPCs[0].RouteTables = path.Unknown[[]path.RouteTable]("no right")
	b, err := w.JSON()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "blind.json")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	out, status, _ := run("path", "-b", file, "default/pod1", "default/pod2:80")
	if status != 2 || !strings.HasPrefix(out, "CANNOT TELL") || !strings.Contains(out, "no right") {
		t.Errorf("status %d, want 2 and a reason:\n%s", status, out)
	}
	if _, status, _ = run("path", "-b", file, "default/pod1", "default/pod2:80", "--assert", "delivered"); status != 2 {
		t.Errorf("--assert delivered: status %d, want 2", status)
	}
}

// TestPathBehindTheUnknown: what is told of the way behind a part that is not known
// is told under a condition.
func TestPathBehindTheUnknown(t *testing.T) {
	w := load(t, "seed003")
	for i := range w.Nodes {
		w.Nodes[i].Host.Nftables = path.Unknown[path.Ruleset]("no right")
	}
	file := bundleFile(t, "blind.tgz", w)
	out, status, _ := run("path", "-b", file, "b:default/sleep", "a:default/httpbin:80")
	for _, want := range []string{"\n -  if hop 1 passed it unchanged:\n", "\nCAUSE  not known; if b/node-b1 and a/node-a1 passed it unchanged: "} {
		if status != 2 || !strings.Contains(out, want) {
			t.Errorf("status %d, want 2 and %q in\n%s", status, want, out)
		}
	}
}

func TestPathWhatIf(t *testing.T) {
	loose := "node-a1: sysctl net.ipv4.conf.eth1.rp_filter=2"
	rule := "node-a1: ip rule add pref 111 from 10.11.4.91 to 10.12.0.0/16 lookup 11"
	if out, status, _ := run("path", "--example", "seed003", "--what-if", loose); status != 1 || !strings.Contains(out, "reply at hop 8 SRC_DST_CHECK") {
		t.Errorf("loose: status %d\n%s", status, out)
	}
	if out, status, _ := run("path", "--example", "seed003", "--what-if", loose, "--what-if", rule); status != 0 {
		t.Errorf("loose and the rule: status %d\n%s", status, out)
	}
	if _, status, text := run("path", "--example", "seed003", "--what-if", "node-z: sysctl a=b"); status != 3 || !strings.Contains(text, "node-z") {
		t.Errorf("a node that does not exist: status %d, %s", status, text)
	}
}

func TestPathJSON(t *testing.T) {
	out, status, _ := run("path", "--example", "seed003", "-o", "json")
	var r render.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != 1 {
		t.Fatalf("status %d: %v", status, err)
	}
	if f := r.Answer.Faults(); r.Answer.Verdict != path.Dropped || len(f) != 2 || r.Answer.Hops[f[0]].Code != path.CodeStrict ||
		len(r.Diagnosis.Mends) != 1 || r.Diagnosis.Scope.Failing != 18 {
		t.Errorf("not the answer of the text: %+v", r)
	}
}

func TestPathDiff(t *testing.T) {
	before := worldFile(t, "seed003")
	after := worldFile(t, "seed003", path.Edit{Target: "node-a1", Text: "ip rule add pref 111 from 10.11.4.91 to 10.12.0.0/16 lookup 11"})
	ends := []string{"b:default/sleep", "a:default/httpbin:80"}
	out, status, _ := run(append([]string{"path", "diff", before, after}, ends...)...)
	for _, want := range []string{"-DROPPED", "+DELIVERED", "- < a/node-a1    ip rule 111 wants", "+ < a/node-a1    ip rule 111 from 10.11.4.91"} {
		if status != 1 || !strings.Contains(out, want) {
			t.Errorf("status %d, want 1 and %q in:\n%s", status, want, out)
		}
	}
	if out, status, _ := run(append([]string{"path", "diff", after, after}, ends...)...); status != 0 || !strings.HasPrefix(out, "the same way") {
		t.Errorf("the same world twice: status %d\n%s", status, out)
	}
}
