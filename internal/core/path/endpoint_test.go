package path_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
)

// sideOf is one VPC of an example with its cluster's nodes.
func sideOf(t *testing.T, name, site string) *path.World {
	t.Helper()
	_, w, err := example.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	w.VPCs = slices.DeleteFunc(w.VPCs, func(v path.VPC) bool { return v.Name != site })
	w.Nodes = slices.DeleteFunc(w.Nodes, func(n path.Node) bool { return n.Cluster != site })
	return w
}

// TestSenderIsHidden: of a packet from an account that nobody may read, what this
// side would do to it is told, and no verdict.
func TestSenderIsHidden(t *testing.T) {
	tracer := path.NewTracer(sideOf(t, "seed003", "a"))
	a, err := tracer.Trace(path.Probe{From: "10.12.6.20", To: "a:default/httpbin:80"})
	if err != nil {
		t.Fatal(err)
	}
	if h := a.Hops[0]; a.Verdict != path.Unsure || h.Verdict != path.Blind || h.Where.Name != "pcx-03" || h.Matched != "not known: the side of 10.12.6.20, at the other end" {
		t.Errorf("%s, first %+v", a.Verdict, a.Hops[0])
	}
	if f := a.Faults(); len(f) != 2 || a.Hops[f[0]].Code != path.CodeStrict || a.Hops[f[1]].Code != path.CodeSrcDstCheck {
		t.Errorf("faults %v of %+v", f, a.Hops)
	}
	// The faults are those of a packet that went on as it was, which nobody knows.
	if d, err := tracer.Diagnose(a); err != nil || !strings.HasPrefix(d.Cause, "not known; if pcx-03 passed it unchanged: ") {
		t.Errorf("%v, cause %q", err, d.Cause)
	}
	a, err = path.NewTracer(sideOf(t, "healthy", "a")).Trace(path.Probe{From: "10.12.7.33", To: "a:default/httpbin:80"})
	if err != nil || a.Verdict != path.Unsure || len(a.Faults()) > 0 || len(a.Blind()) != 2 {
		t.Errorf("%v, %+v", err, a)
	}
}

// TestEndsRefused: what names nobody is refused, and why is said.
func TestEndsRefused(t *testing.T) {
	for _, tt := range []struct{ from, to, says string }{
		{"10.99.0.1", "a:default/httpbin:80", "nobody of this world has the address"},
		{"10.11.4.250", "a:default/httpbin:80", "nobody of this world has the address"},
		{"a:default/httpbin", "b:default/sleep", "no cluster or VPC b"},
		{"a:default/httpbin", "a:default/nobody", "no pod, node or address of that name"},
		{"a:default/httpbin", "a:default/httpbin:70000", `port "70000" must be from 1 to 65535`},
		{"a:default/httpbin", "::1", "::1 is not IPv4"},
		{"2001:db8::1", "a:default/httpbin", "2001:db8::1 is not IPv4"},
		{"a:default/httpbin", "[2001:db8::1]:80", "2001:db8::1"},
	} {
		_, err := path.NewTracer(sideOf(t, "seed003", "a")).Trace(path.Probe{From: tt.from, To: tt.to})
		if !errors.Is(err, path.ErrProbe) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s to %s: %v, want %q", tt.from, tt.to, err, tt.says)
		}
	}
}
