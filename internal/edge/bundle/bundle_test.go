package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
)

func world(t testing.TB, name string) (example.Example, *path.World) {
	t.Helper()
	e, w, err := example.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return e, w
}

func packed(t testing.TB, w *path.World) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Write(&b, w, false); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func text(t testing.TB, w *path.World) string {
	t.Helper()
	b, err := w.JSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSame(t *testing.T) {
	for _, name := range example.Names() {
		_, w := world(t, name)
		w.VPCs[0].ACLs = path.Unknown[[]path.ACL]("no right")
		b := packed(t, w)
		got, m, err := Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if text(t, got) != text(t, w) {
			t.Errorf("%s is read as another world", name)
		}
		if !bytes.Equal(b, packed(t, w)) {
			t.Errorf("%s is written in two ways", name)
		}
		if want := w.VPCs[0].ID + " acls: no right"; !strings.Contains(strings.Join(m.Unknown, "\n"), want) {
			t.Errorf("%s: unknown %q, want %q", name, m.Unknown, want)
		}
		if got, err := Join([]Source{{Name: "one", World: w}, {Name: "again", World: got}}); err != nil || text(t, got) != text(t, w) {
			t.Errorf("%s with itself: %v", name, err)
		}
	}
}

// files are the members of a bundle.
type file struct {
	name string
	body []byte
}

func unpack(t testing.TB, b []byte) (all []file) {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(zip)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, file{h.Name, body})
	}
}

func pack(t testing.TB, all []file) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	w := tar.NewWriter(zip)
	for _, f := range all {
		err := w.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.body)), Typeflag: tar.TypeReg})
		if err == nil {
			_, err = w.Write(f.body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), zip.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestDamaged: what is not whole is refused, and the part is named.
func TestDamaged(t *testing.T) {
	_, w := world(t, "seed002")
	whole := packed(t, w)
	for what, tt := range map[string]struct {
		change func([]file) []file
		says   string
	}{
		"a part missing":       {func(f []file) []file { return append(f[:2:2], f[3:]...) }, "002-vpc.json: missing"},
		"the last one missing": {func(f []file) []file { return f[:len(f)-1] }, "pods.json: missing: the file is cut off"},
		"no manifest":          {func(f []file) []file { return f[1:] }, "000-manifest.json: missing"},
		"one more":             {func(f []file) []file { return append(f, file{"../../etc/passwd", []byte("x")}) }, "not in the manifest"},
		"another name":         {func(f []file) []file { f[1].name = "/etc/passwd"; return f }, "001-world.json: missing"},
		"a byte changed":       {func(f []file) []file { f[2].body[10] ^= 1; return f }, "002-vpc.json: changed"},
		"a part too long":      {func(f []file) []file { f[1].body = append(f[1].body, ' '); return f }, "001-world.json: "},
		"a part too short":     {func(f []file) []file { f[1].body = f[1].body[1:]; return f }, "001-world.json: "},
		"manifest of later form": {func(f []file) []file {
			f[0].body = bytes.Replace(f[0].body, []byte(`"form": 1`), []byte(`"form": 2`), 1)
			return f
		}, "form 2"},
		"manifest with a path": {func(f []file) []file {
			f[0].body = bytes.Replace(f[0].body, []byte("002-vpc.json"), []byte("../../x.json"), 1)
			return f
		}, "is called"},
		"manifest twice the world": {func(f []file) []file {
			f[0].body = bytes.Replace(f[0].body, []byte(`"name": "002-vpc.json",
   "kind": "vpc"`), []byte(`"name": "002-world.json",
   "kind": "world"`), 1)
			return f
		}, "there twice"},
	} {
		_, _, err := Read(pack(t, tt.change(unpack(t, whole))))
		if !errors.Is(err, ErrBundle) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", what, err, tt.says)
		}
	}
	for n := 0; n < len(whole); n += max(1, len(whole)/97) {
		if _, _, err := Read(whole[:n]); !errors.Is(err, ErrBundle) {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
	if _, _, err := Read(append(bytes.Clone(whole), whole...)); !errors.Is(err, ErrBundle) {
		t.Errorf("two in one file: %v", err)
	}
	if _, _, err := Read([]byte("{}")); !errors.Is(err, ErrBundle) {
		t.Errorf("JSON: %v", err)
	}
}

// TestBomb: what unpacks to more than its manifest says is not unpacked.
func TestBomb(t *testing.T) {
	_, w := world(t, "seed002")
	f := unpack(t, packed(t, w))
	f[0].body = append(f[0].body, bytes.Repeat([]byte(" "), maxManifest)...)
	if _, _, err := Read(pack(t, f)); !errors.Is(err, ErrBundle) || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a manifest of %d bytes: %v", len(f[0].body), err)
	}
}

// halves are the two sides of seed003 as two accounts would hand them in.
func halves(t *testing.T) (a, b *path.World) {
	_, w := world(t, "seed003")
	_, x := world(t, "seed003")
	a, b = w, x
	a.VPCs, b.VPCs = a.VPCs[:1], b.VPCs[1:]
	a.Nodes, b.Nodes = nil, nil
	_, all := world(t, "seed003")
	for _, n := range all.Nodes {
		if n.Cluster == a.VPCs[0].Name {
			a.Nodes = append(a.Nodes, n)
		} else {
			b.Nodes = append(b.Nodes, n)
		}
	}
	if len(a.Nodes) == 0 || len(b.Nodes) == 0 {
		t.Fatal("seed003 has no two sides")
	}
	return a, b
}

func TestJoin(t *testing.T) {
	e, whole := world(t, "seed003")
	want, err := path.NewTracer(whole).Trace(path.Probe{From: e.From, To: e.To})
	if err != nil {
		t.Fatal(err)
	}
	a, b := halves(t)
	w, err := Join([]Source{{Name: "a.tgz", World: a}, {Name: "b.tgz", World: b}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := path.NewTracer(w).Trace(path.Probe{From: e.From, To: e.To})
	if err != nil || got.Verdict != want.Verdict || len(got.Hops) != len(want.Hops) {
		t.Errorf("%v, %s with %d hops, want %s with %d", err, got.Verdict, len(got.Hops), want.Verdict, len(want.Hops))
	}
	// One side alone knows less, and says so.
	alone, err := path.NewTracer(b).Trace(path.Probe{From: e.From, To: "10.11.4.91:80"})
	if err != nil || alone.Verdict != path.Unsure {
		t.Errorf("one side alone: %v, %s", err, alone.Verdict)
	}
	// What one was refused, the other may know; a list that is half is none.
	blind, _ := halves(t)
	blind.VPCs[0].ACLs = path.Unknown[[]path.ACL]("no right")
	again, _ := halves(t)
	w, err = Join([]Source{{Name: "a.tgz", World: blind}, {Name: "a2.tgz", World: again}})
	if err != nil || !w.VPCs[0].ACLs.Known {
		t.Errorf("%v, ACLs %+v", err, w)
	}
	b.Peerings = path.Unknown[[]path.Peering]("no right")
	w, err = Join([]Source{{Name: "a.tgz", World: a}, {Name: "b.tgz", World: b}})
	if err != nil || w.Peerings.Known || w.Peerings.Why != "no right" {
		t.Errorf("%v, peerings %+v", err, w.Peerings)
	}
	// A node's bundle has no account, and takes nothing away.
	node := &path.World{Form: path.Form, Nodes: []path.Node{{Name: "n", Cluster: "z"}}}
	for _, order := range [][]Source{{{Name: "a.tgz", World: a}, {Name: "n.tgz", World: node}}, {{Name: "n.tgz", World: node}, {Name: "a.tgz", World: a}}} {
		if w, err = Join(order); err != nil || !w.Peerings.Known || len(w.Nodes) != len(a.Nodes)+1 {
			t.Errorf("%s first: %v, peerings %+v", order[0].Name, err, w.Peerings)
		}
	}
}

func TestConflict(t *testing.T) {
	a, _ := halves(t)
	c, _ := halves(t)
	c.VPCs[0].Subnets.Value[0].Zone = "elsewhere"
	c.Peerings.Value[0].State = "deleted"
	c.Nodes[0].Host.Devices.Value[0].MTU++
	_, err := Join([]Source{{Name: "a.tgz", World: a}, {Name: "c.tgz", World: c}})
	for _, want := range []string{a.VPCs[0].ID + " subnets differs between a.tgz and c.tgz", "peering " + a.Peerings.Value[0].ID, "node " + a.Nodes[0].Name} {
		if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestRedact: the answer is the same, and the names are gone.
func TestRedact(t *testing.T) {
	for _, name := range example.Names() {
		_, w := world(t, name)
		for i := range w.VPCs {
			w.VPCs[i].Account = "123456789012"
		}
		secret := "acme-payments"
		w.Nodes[0].Name = secret
		if p := w.Nodes[0].Pods.Value; len(p) > 0 {
			p[0].Namespace = "acme-ns"
		}
		before := text(t, w)
		out, report, err := Redact(w, []byte("key"))
		if err != nil {
			t.Fatal(err)
		}
		if text(t, w) != before {
			t.Errorf("%s: the world itself was changed", name)
		}
		after := text(t, out)
		for _, s := range []string{secret, "acme-ns", "123456789012"} {
			if strings.Contains(after, s) {
				t.Errorf("%s: %q is still there", name, s)
			}
		}
		if !strings.Contains(strings.Join(report, "\n"), "names of nodes") {
			t.Errorf("%s: report %q", name, report)
		}
		flows := func(w *path.World) map[string]int {
			pairs, err := path.NewTracer(w).All(path.TCP)
			if err != nil {
				t.Fatal(err)
			}
			n := map[string]int{}
			for _, p := range pairs {
				n[string(p.Verdict)+" "+string(p.Code)] += p.Flows
			}
			return n
		}
		if d := gocmp.Diff(flows(w), flows(out)); d != "" {
			t.Errorf("%s: other answers (-named +redacted):\n%s", name, d)
		}
	}
}

// TestRedactAddresses: common prefixes stay common, and nothing becomes private.
func TestRedactAddresses(t *testing.T) {
	r := newRedactor()
	for _, s := range []string{"10.0.0.1", "172.16.3.4", "192.168.0.0/16", "0.0.0.0/0", "169.254.1.1", "100.64.0.0/10", "239.1.2.3"} {
		if got := r.line(s); got != s {
			t.Errorf("%s became %s", s, got)
		}
	}
	common := func(a, b netip.Addr) int {
		x, y := a.As4(), b.As4()
		for i := range 32 {
			if (x[i/8]^y[i/8])>>(7-i%8)&1 != 0 {
				return i
			}
		}
		return 32
	}
	list := []string{"52.94.5.1", "52.94.5.2", "52.94.200.7", "3.5.140.2", "18.1.1.1", "172.15.255.255", "192.167.0.9", "198.20.0.1", "11.0.0.1"}
	for _, s := range list {
		a := netip.MustParseAddr(s)
		if m := r.addr(a); isSpecial(m) || r.line("x "+s+"/32 y") != "x "+m.String()+"/32 y" {
			t.Errorf("%s became %s", s, m)
		}
		for _, o := range list {
			b := netip.MustParseAddr(o)
			if common(a, b) != common(r.addr(a), r.addr(b)) {
				t.Errorf("%s and %s have %d bits in common, and then %d", a, b, common(a, b), common(r.addr(a), r.addr(b)))
			}
		}
	}
	if r.addr(netip.MustParseAddr("52.94.5.1")).String() == "52.94.5.1" && r.addr(netip.MustParseAddr("3.5.140.2")).String() == "3.5.140.2" {
		t.Error("nothing is mapped")
	}
}

func FuzzRead(f *testing.F) {
	_, w := world(f, "seed002")
	w.Nodes = w.Nodes[:1]
	w.Nodes[0].Pods = path.Known([]path.Pod{})
	whole := packed(f, w)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte{0x1f, 0x8b, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		w, _, err := Read(b)
		if err != nil {
			if !errors.Is(err, ErrBundle) {
				t.Errorf("not ErrBundle: %v", err)
			}
			return
		}
		again, _, err := Read(packed(t, w))
		if err != nil || text(t, again) != text(t, w) {
			t.Errorf("what was read is not written as such: %v", err)
		}
	})
}
