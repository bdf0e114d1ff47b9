package path_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
)

// TestUnknownPartsNeverChangeTheVerdict: whatever one part is unknown, the
// verdict is what it was, or "cannot tell". It is never another.
func TestUnknownPartsNeverChangeTheVerdict(t *testing.T) {
	type story struct {
		w        *path.World
		from, to string
	}
	var stories []story
	for _, e := range example.All() {
		_, w, err := example.Load(e.Name)
		if err != nil {
			t.Fatal(err)
		}
		stories = append(stories, story{w, e.From, e.To})
	}
	g := own(t, "testdata/gateways.txtar")
	stories = append(stories, story{g, "node:vm-a", "internet:443"}, story{g, "node:vm-a", "node:vm-b:22"}, story{g, "internet", "node:vm-p:22"})
	for _, s := range stories {
		want := verdict(t, s.w, s.from, s.to)
		text, err := s.w.JSON()
		if err != nil {
			t.Fatal(err)
		}
		unsure := 0
		for _, p := range parts(s.w) {
			tree := map[string]any{}
			if err := json.Unmarshal(text, &tree); err != nil {
				t.Fatal(err)
			}
			replace(tree, p, map[string]string{"unknown": "no right"})
			b, err := json.Marshal(tree)
			if err != nil {
				t.Fatal(err)
			}
			blind, err := path.ParseWorld(b)
			if err != nil {
				t.Fatalf("%s without %v: %v", s.w.Name, p, err)
			}
			a, err := path.NewTracer(blind).Trace(path.Probe{From: s.from, To: s.to})
			switch {
			case errors.Is(err, path.ErrProbe):
				// The pods of a node are how the probe finds its ends.
			case err != nil:
				t.Errorf("%s without %v: %v", s.w.Name, p, err)
			case a.Verdict == path.Unsure:
				unsure++
			case a.Verdict != want:
				t.Errorf("%s %s %s without %v: %s, want %s or cannot tell", s.w.Name, s.from, s.to, p, a.Verdict, want)
			}
		}
		if unsure == 0 {
			t.Errorf("%s: no unknown part made anything unsure, so the test looks at nothing", s.w.Name)
		}
	}
}

// own is the world of a story of testdata.
func own(t *testing.T, file string) *path.World {
	t.Helper()
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range ar.Files {
		if f.Name == "world.json" {
			w, err := path.ParseWorld(f.Data)
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
	}
	t.Fatalf("%s has no world", file)
	return nil
}

func verdict(t *testing.T, w *path.World, from, to string) path.Verdict {
	t.Helper()
	a, err := path.NewTracer(w).Trace(path.Probe{From: from, To: to})
	if err != nil {
		t.Fatal(err)
	}
	return a.Verdict
}

// parts lists where a world's JSON has parts, by their types.
func parts(w *path.World) [][]string {
	var out [][]string
	var walk func(v reflect.Value, at []string)
	walk = func(v reflect.Value, at []string) {
		switch v.Kind() {
		case reflect.Pointer:
			walk(v.Elem(), at)
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i), append(slices.Clone(at), fmt.Sprint(i)))
			}
		case reflect.Struct:
			if known := v.FieldByName("Known"); known.IsValid() && v.FieldByName("Why").IsValid() {
				if known.Bool() {
					out = append(out, at)
					walk(v.FieldByName("Value"), at)
				}
				return
			}
			for i := range v.NumField() {
				name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
				if v.Type().Field(i).IsExported() && name != "" {
					walk(v.Field(i), append(slices.Clone(at), name))
				}
			}
		}
	}
	walk(reflect.ValueOf(w), nil)
	return out
}

func replace(tree any, at []string, with any) {
	switch v := tree.(type) {
	case map[string]any:
		if len(at) == 1 {
			v[at[0]] = with
		} else {
			replace(v[at[0]], at[1:], with)
		}
	case []any:
		var i int
		fmt.Sscan(at[0], &i)
		if len(at) == 1 {
			v[i] = with
		} else {
			replace(v[i], at[1:], with)
		}
	}
}

// FuzzTrace: whatever has become of a world, a trace ends, does not panic, says
// the same twice, and is not sure behind what it cannot see.
func FuzzTrace(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed, uint8(seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, damages uint8) {
		r := rand.New(rand.NewPCG(seed, 1))
		all := example.All()
		w := own(t, "testdata/gateways.txtar")
		if i := r.IntN(len(all) + 1); i < len(all) {
			var err error
			if _, w, err = example.Load(all[i].Name); err != nil {
				t.Fatal(err)
			}
		}
		for range damages % 24 {
			damage(w, r)
		}
		names := ends(w)
		for range 8 {
			p := path.Probe{From: names[r.IntN(len(names))], To: names[r.IntN(len(names))],
				Proto: []path.Proto{path.TCP, path.UDP, path.ICMP}[r.IntN(3)], Size: []int{60, 1500, 9001}[r.IntN(3)]}
			a, err := path.NewTracer(w).Trace(p)
			if errors.Is(err, path.ErrProbe) {
				continue
			}
			if err != nil {
				t.Fatalf("%+v: %v", p, err)
			}
			b, err := path.NewTracer(w).Trace(p)
			if err != nil || asJSON(t, a) != asJSON(t, b) {
				t.Fatalf("%+v: another answer the second time (%v)", p, err)
			}
			if len(a.Hops) == 0 || len(a.Hops) > 2000 {
				t.Fatalf("%+v: %d hops", p, len(a.Hops))
			}
			sure(t, p, a)
		}
	})
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sure(t *testing.T, p path.Probe, a *path.Answer) {
	t.Helper()
	drops, blind := len(a.Faults()), len(a.Blind())
	switch {
	case a.Verdict == path.Arrived && drops+blind > 0,
		a.Verdict == path.Dropped && drops == 0,
		a.Verdict == path.Unsure && blind == 0:
		t.Fatalf("%+v: %s with %d drops and %d blind hops", p, a.Verdict, drops, blind)
	}
	for _, h := range a.Hops {
		if _, known := path.Explain(h.Code); h.Verdict != path.Pass && !known {
			t.Fatalf("%+v: hop %q has the code %q, which nobody explains", p, h.Matched, h.Code)
		}
	}
}

func ends(w *path.World) []string {
	out := []string{"internet", "203.0.113.9", "10.11.4.200"}
	for i := range w.Nodes {
		n := &w.Nodes[i]
		out = append(out, n.Cluster+":node:"+n.Name)
		for j := range n.Pods.Value {
			out = append(out, n.Pods.Value[j].ID())
		}
	}
	for i := range w.VPCs {
		for j := range w.VPCs[i].ENIs.Value {
			out = append(out, w.VPCs[i].ENIs.Value[j].ID)
		}
	}
	return out
}

// damage changes one thing of the world.
func damage(w *path.World, r *rand.Rand) {
	v := &w.VPCs[r.IntN(len(w.VPCs))]
	n := &w.Nodes[r.IntN(len(w.Nodes))]
	ns := &n.Host
	if r.IntN(3) == 0 && len(n.Pods.Value) > 0 {
		ns = &n.Pods.Value[r.IntN(len(n.Pods.Value))].Net
	}
	edits := []string{
		"ip rule add pref 5 from all lookup 7", "ip route add default dev lo table 7", "ip rule add pref 6 from all unreachable",
		"ip route add 10.0.0.0/8 dev eth0", "ip route add 10.0.0.0/8 via 10.11.4.1 dev eth1", "ip route add throw 10.0.0.0/8",
		"sysctl net.ipv4.conf.all.rp_filter=1", "sysctl net.ipv4.conf.all.rp_filter=2", "sysctl net.ipv4.ip_forward=0",
		"ip rule add pref 7 from all lookup main suppress_prefixlength 8", "ip rule add pref 8 from all sport 80 lookup 9",
		"sysctl net.ipv4.conf.all.proxy_arp=1", "sysctl net.ipv4.conf.all.src_valid_mark=1",
	}
	text := []string{"table inet x {", "chain c {", "type nat hook postrouting priority srcnat; policy accept;", "masquerade", "}",
		"chain d {", "type filter hook prerouting priority -300; policy accept;", "numgen random mod 2 vmap { 0 : jump d, 1 : drop }", "}", "}"}
	target := fmt.Sprintf("%s/%s", n.Cluster, n.Name)
	switch r.IntN(14) {
	case 0, 1, 2:
		if e, err := path.ParseEdit(target + ": " + edits[r.IntN(len(edits))]); err == nil {
			if c, err := w.With(e); err == nil {
				*w = *c
			}
		}
	case 3:
		ns.Rules = path.Unknown[[]path.IPRule]("")
	case 4:
		ns.Routes.Value = shuffle(ns.Routes.Value, r)
	case 5:
		ns.Devices.Value = shuffle(ns.Devices.Value, r)
	case 6:
		ns.Sysctls = path.Unknown[map[string]string]("")
	case 7:
		if rs, err := path.ParseRuleset(text); err == nil {
			ns.Nftables = path.Known(rs)
		}
	case 8:
		v.RouteTables.Value = shuffle(v.RouteTables.Value, r)
	case 9:
		v.ENIs.Value = shuffle(v.ENIs.Value, r)
	case 10:
		v.ACLs = path.Unknown[[]path.ACL]("")
	case 11:
		for i := range v.ENIs.Value {
			v.ENIs.Value[i].Check = path.Known(r.IntN(2) == 0)
		}
	case 12:
		w.Peerings = path.Unknown[[]path.Peering]("")
	case 13:
		for i := range v.ENIs.Value {
			e := &v.ENIs.Value[i]
			e.Public = map[netip.Addr]netip.Addr{e.Addresses[0]: netip.MustParseAddr("198.51.100.7")}
		}
	}
}

// shuffle gives a list without one of its things, or with them in another order.
func shuffle[T any](list []T, r *rand.Rand) []T {
	out := slices.Clone(list)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	if len(out) > 0 && r.IntN(2) == 0 {
		out = out[1:]
	}
	return out
}

func TestReasons(t *testing.T) {
	reasons := path.Reasons()
	if !slices.IsSortedFunc(reasons, func(a, b path.Reason) int { return strings.Compare(string(a.Code), string(b.Code)) }) {
		t.Error("reasons are not sorted by code")
	}
	for _, r := range reasons {
		if r.Means == "" || r.Elsewhere == "" || r.Mend == "" || r.Source == "" {
			t.Errorf("%s: a part is missing", r.Code)
		}
	}
	if _, known := path.Explain("NOTHING"); known {
		t.Error("a code that does not exist is explained")
	}
}
