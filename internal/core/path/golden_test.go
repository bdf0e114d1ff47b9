package path_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
)

var update = flag.Bool("update", false, "write the golden parts anew; read the difference before you commit it")

// TestGolden runs the stories of testdata: each file names a world, changes it
// step by step, and has what a packet then meets. A comment line begins with #;
//
//	world NAME            one of the examples, or the file's own part world.json
//	edit EDIT             a change in the words of --what-if
//	unknown PART          makes a part unknown: VPC.routeTables, NODE.iptables, ...
//	probe FROM TO [tcp|udp|icmp] [size N]
//
// Each probe's answer is the part of its number.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { golden(t, file) })
	}
}

func golden(t *testing.T, file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ar := txtar.Parse(b)
	parts := map[string]string{}
	for _, f := range ar.Files {
		parts[f.Name] = string(f.Data)
	}
	var w *path.World
	var out []txtar.File
	for n, l := range strings.Split(string(ar.Comment), "\n") {
		word, rest, _ := strings.Cut(strings.TrimSpace(l), " ")
		switch word {
		case "", "#":
		case "world":
			w = load(t, rest, parts)
		case "edit":
			e, err := path.ParseEdit(rest)
			if err == nil {
				w, err = w.With(e)
			}
			if err != nil {
				t.Fatalf("line %d: %v", n+1, err)
			}
		case "unknown":
			forget(t, w, rest)
		case "probe":
			name := strconv.Itoa(len(out) + 1)
			got := probe(t, w, strings.Fields(rest))
			if want := parts[name]; !*update && got != want {
				t.Errorf("line %d: %s\n%s", n+1, rest, cmp.Diff(want, got))
			}
			out = append(out, txtar.File{Name: name, Data: []byte(got)})
		default:
			t.Fatalf("line %d: %q is no word of these files", n+1, word)
		}
	}
	if *update {
		if own, ok := parts["world.json"]; ok {
			out = append(out, txtar.File{Name: "world.json", Data: []byte(own)})
		}
		ar.Files = out
		if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func load(t *testing.T, name string, parts map[string]string) *path.World {
	t.Helper()
	if own, ok := parts["world.json"]; ok && name == "own" {
		w, err := path.ParseWorld([]byte(own))
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	_, w, err := example.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// forget makes one part of the world unknown, in its JSON, as a collector
// without a right would.
func forget(t *testing.T, w *path.World, what string) {
	t.Helper()
	owner, part, _ := strings.Cut(what, ".")
	into := func(name string, v any, part string) {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]any{}
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		if _, there := m[part]; !there {
			t.Fatalf("%s has no part %q", name, part)
		}
		m[part] = map[string]string{"unknown": "no right"}
		if b, err = json.Marshal(m); err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range w.VPCs {
		v := &w.VPCs[i]
		switch {
		case v.Name != owner:
		case part == "":
			w.VPCs = append(w.VPCs[:i], w.VPCs[i+1:]...)
			return
		default:
			into(owner, v, part)
			return
		}
	}
	for i := range w.Nodes {
		n := &w.Nodes[i]
		switch {
		case n.Name != owner:
		case part == "":
			w.Nodes = append(w.Nodes[:i], w.Nodes[i+1:]...)
			return
		default:
			into(owner, &n.Host, part)
			return
		}
	}
	t.Fatalf("no VPC or node %q", owner)
}

func probe(t *testing.T, w *path.World, f []string) string {
	t.Helper()
	p := path.Probe{From: f[0], To: f[1]}
	for i := 2; i < len(f); i++ {
		if f[i] == "size" {
			p.Size, _ = strconv.Atoi(f[i+1])
			break
		}
		p.Proto = path.Proto(f[i])
	}
	a, err := path.NewTracer(w).Trace(p)
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  mtu %d  same ENIs %v", a.Verdict, a.MTU, a.SameENIs)
	if a.Outcomes > 1 {
		fmt.Fprintf(&b, "  outcomes %d", a.Outcomes)
	}
	b.WriteString("\n")
	for _, h := range a.Hops {
		way, what := ">", h.Result
		if h.Reply {
			way = "<"
		}
		switch h.Verdict {
		case path.Drop:
			what = "DROP " + string(h.Code)
		case path.Blind:
			what = "? " + string(h.Code)
		}
		fmt.Fprintf(&b, "%s %-14s %s  [%s]\n", way, h.Where, h.Matched, what)
	}
	return b.String()
}
