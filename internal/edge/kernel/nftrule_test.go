package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/node"
)

// goldenTable reads the objects of nftables out of a golden file of package
// intent.
func goldenTable(t testing.TB, file string) []node.Object {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []node.Object
	var chain *node.Chain
	for _, line := range strings.Split(string(b), "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		inside := func() (name, in string) {
			name, in, _ = strings.Cut(rest, " { ")
			return name, strings.TrimSuffix(in, " }")
		}
		switch {
		case line == "}":
			chain.Rules = strings.TrimSuffix(chain.Rules, "\n")
			out, chain = append(out, *chain), nil
		case chain != nil && strings.HasPrefix(line, "\ttype "):
			chain.Hook = line[1:]
		case chain != nil:
			chain.Rules += line[1:] + "\n"
		case kind == "chain":
			chain = &node.Chain{Name: strings.TrimSuffix(rest, " {")}
		case kind == "counter":
			out = append(out, node.Set{Name: rest, Type: node.TypeCounter})
		case kind == "set" || kind == "map":
			name, in := inside()
			out = append(out, node.Set{Name: name, Type: strings.TrimPrefix(in, "type ")})
		case kind == "element":
			set, in := inside()
			match, verdict, _ := strings.Cut(in, " : ")
			out = append(out, node.Element{Set: set, Match: match, Verdict: verdict})
		}
	}
	return out
}

func goldenFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("../../core/intent/testdata/*.golden")
	if err != nil || len(files) == 0 {
		t.Fatalf("golden files of package intent: %v, %v", files, err)
	}
	return files
}

// TestKernelGivesBackWhatIntentWrites: every table that package intent can want
// is written, and read in the very same words.
func TestKernelGivesBackWhatIntentWrites(t *testing.T) {
	newNS(t)
	k := open(t)
	for _, file := range goldenFiles(t) {
		want := goldenTable(t, file)
		have, err := k.readTable()
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Converge(diff.Compare(have, want), want); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if have, err = k.readTable(); err != nil {
			t.Fatal(err)
		}
		if changes := diff.Compare(have, want); len(changes) > 0 {
			t.Errorf("%s: the kernel differs:\n%s", file, lines(changes))
		}
		if err := k.resetTable(want); err != nil {
			t.Fatalf("%s: replace whole: %v", file, err)
		}
		if have, err = k.readTable(); err != nil {
			t.Fatal(err)
		}
		if changes := diff.Compare(have, want); len(changes) > 0 {
			t.Errorf("%s: the kernel differs after it was replaced whole:\n%s", file, lines(changes))
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"":                               "empty",
		"meta iifgroup":                  "ends too early",
		"meta iifgroup 0x667779 shout":   `unknown word "shout"`,
		"iifname \"fwy*\" jump from-pod": `want "vmap"`,
		"tcp dport 80 accept":            `unknown word "tcp"`,
		"goto":                           "name of a chain",
		"goto a;b":                       "name of a chain",
		"ip daddr native return":         "no name of a set",
		"ct direction sideways accept":   `unknown direction "sideways"`,
		"ct mark 0x1 accept":             `want "&"`,
		// Right, but the kernel would say it in other words.
		"meta iifgroup 6715257 goto from-pod":                        "the kernel would say",
		"ct mark & 0x7F000080 == 0x0 accept":                         "the kernel would say",
		"meta mark set meta mark & 0x80ffff7f | 0x0":                 "the kernel would say",
		"meta mark set meta mark & 0xffffffff | 0x01000000":          "the kernel would say",
		"oifname \"a-name-of-more-than-15-characters\" accept":       "the kernel would say",
		"oifname  \"ens5\"  accept":                                  "the kernel would say",
		"oifname \"en\\x73\" accept":                                 "the kernel would say",
		"snat ip to 10.0.1.5 fully-random random":                    `unknown word "random"`,
		"snat ip to 2001:db8::1":                                     "no IPv4 address",
		"ct mark & 0x100000000 == 0x00000000 accept":                 "no number of 32 bits",
		"iifname . ip daddr vmap @pods":                              `want "vmap"`,
		"counter name spoofed drop":                                  "no name in quotes",
		"meta mark & 0x7f000080 vmap @new ct mark & 0x7f000080 vmap": "ends too early",
	} {
		_, err := compile(line)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("compile %q: got %v, want an error with %q", line, err, want)
		}
	}
}

// FuzzCompile: no rule makes it panic, and what it takes it can read.
func FuzzCompile(f *testing.F) {
	seen := map[string]bool{}
	for _, file := range goldenFiles(f) {
		for _, o := range goldenTable(f, file) {
			c, ok := o.(node.Chain)
			for line := range strings.SplitSeq(c.Rules, "\n") {
				if ok && !seen[line] {
					seen[line] = true
					f.Add(line)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, line string) {
		exprs, err := compile(line)
		if err != nil {
			return
		}
		if back := decompile(exprs); back != line {
			t.Errorf("compiled %q, read %q", line, back)
		}
		for _, e := range exprs {
			if _, err := expr.Marshal(unix.NFPROTO_INET, e); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	})
}

// TestDecompileDoubts: what is not exactly what compile writes has other words.
func TestDecompileDoubts(t *testing.T) {
	load := func(k expr.MetaKey) expr.Any { return &expr.Meta{Key: k, Register: reg1} }
	four := func(b byte) []byte { return []byte{b, 0, 0, 0} }
	daddr := &expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: offsetDestination, Len: 4}
	native := &expr.Lookup{SourceRegister: reg1, SetName: "native"}
	isIPv4 := []expr.Any{load(expr.MetaKeyNFPROTO), &expr.Cmp{Register: reg1, Data: []byte{unix.NFPROTO_IPV4}}}
	for name, exprs := range map[string][]expr.Any{
		"header without a test for IPv4": {daddr, native},
		"test for IPv4 for nothing":      append(isIPv4, &expr.Verdict{Kind: expr.VerdictDrop}),
		"set the other way round":        append(isIPv4, daddr, &expr.Lookup{SourceRegister: reg1, SetName: "native", Invert: true}),
		"loaded for nothing":             {load(expr.MetaKeyMARK), &expr.Verdict{Kind: expr.VerdictDrop}},
		"two values, one is used": {load(expr.MetaKeyOIFNAME), &expr.Meta{Key: expr.MetaKeyMARK, Register: 3},
			&expr.Cmp{Register: reg1, Data: ifName("ens5")}},
		"not equal":            {load(expr.MetaKeyOIFNAME), &expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: ifName("ens5")}},
		"start of a name":      {load(expr.MetaKeyOIFNAME), &expr.Cmp{Register: reg1, Data: []byte("ens")}},
		"mark without a mask":  {load(expr.MetaKeyMARK), &expr.Cmp{Register: reg1, Data: four(1)}},
		"bits turned":          {load(expr.MetaKeyMARK), &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: four(3), Xor: four(1)}},
		"another expression":   {unknownExpr{name: "limit"}},
		"a counter of its own": {&expr.Counter{}},
		"translation that is dnat": {&expr.Immediate{Register: reg1, Data: four(10)},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1}},
		"translation that is persistent": {&expr.Immediate{Register: reg1, Data: four(10)},
			&expr.NAT{Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, Persistent: true}},
	} {
		text := decompile(exprs)
		if _, err := compile(text); err == nil {
			t.Errorf("%s: %q is one of our rules", name, text)
		}
	}
}

func TestElementsBothWays(t *testing.T) {
	sets := map[string]string{"pods": node.TypePods, "enis": node.TypeInterface, "flows": node.TypeMark, "native": node.TypePrefixes}
	want := []node.Object{
		node.Element{Set: "pods", Match: `"fwy0a1b2c3d4e5" . 10.0.1.6`, Verdict: "goto eni-1"},
		node.Element{Set: "enis", Match: `"a\x01b"`, Verdict: "drop"},
		node.Element{Set: "flows", Match: "0x01000080", Verdict: "accept"},
		node.Element{Set: "native", Match: "0.0.0.0/1"},
		node.Element{Set: "native", Match: "128.0.0.0-129.0.0.4"},
		node.Element{Set: "native", Match: "129.0.0.5/32"}, // begins where the one before ends
		node.Element{Set: "native", Match: "255.0.0.0/8"},  // has no end
	}
	all := map[string][]entry{}
	for _, o := range want {
		e := o.(node.Element)
		got, err := entries(e)
		if err != nil {
			t.Fatal(err)
		}
		all[e.Set] = append(all[e.Set], got...)
	}
	var have []node.Object
	for _, set := range []string{"pods", "enis", "flows", "native"} {
		have = append(have, objects(node.Set{Name: set, Type: sets[set]}, all[set])...)
	}
	if d := cmp.Diff(want, have); d != "" {
		t.Errorf("elements (-want +got):\n%s", d)
	}
	for _, e := range []node.Element{
		{Match: "10.0.0.0/33"}, {Match: "10.0.0.1-"}, {Match: "2001:db8::/32"},
		{Match: "0x1ffffffff", Verdict: "drop"}, {Match: "ens5", Verdict: "drop"}, {Match: `"ens5" . x`, Verdict: "drop"},
		{Match: `"ens5"`, Verdict: "goto"}, {Match: `"ens5"`, Verdict: "drop drop"}, {Match: `"a-name-of-17-letters"`, Verdict: "drop"},
	} {
		if got, err := entries(e); err == nil {
			t.Errorf("element %v: got %v, want an error", e, got)
		}
	}
}

func TestHookIsUnderstoodOrRefused(t *testing.T) {
	for _, hook := range []string{"type filter hook ingress priority 0", "type filter hook input priority 0 policy drop", "filter"} {
		k := &transaction{name: ourTable}
		if err := k.chain(node.Chain{Name: "x", Hook: hook}); err == nil {
			t.Errorf("hook %q: got no error", hook)
		}
	}
	if _, err := compose(ourTable, diff.Compare(nil, []node.Object{node.Set{Name: "x", Type: "time"}})); err == nil {
		t.Error("set of an unknown type: got no error")
	}
}
