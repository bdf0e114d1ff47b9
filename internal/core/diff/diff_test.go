package diff

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/core/node"
)

func TestCompare(t *testing.T) {
	route := node.Route{Table: 100, Dst: netip.MustParsePrefix("10.0.1.6/32"), Link: "fwy1"}
	moved := route
	moved.Link = "fwy2"
	rule := node.Rule{Priority: 20, Table: 100}
	key := node.Element{Set: "pods", Match: `"fwy1" . 10.0.1.6`, Verdict: "goto eni-1"}
	chain := node.Chain{Name: "eni-1", Rules: "return"}
	link := node.Link{Name: "ens6", MTU: 9001, Up: true}
	addr := node.Address{Link: "ens6", Prefix: netip.MustParsePrefix("10.0.1.9/24")}

	for _, tt := range []struct {
		name       string
		have, want []node.Object
		changes    []string
	}{
		{"nothing to do", []node.Object{route, rule}, []node.Object{rule, route}, nil},
		{"adds by dependency", nil, []node.Object{key, chain, rule, route, addr, link}, []string{
			"+ link ens6 mtu 9001 up  (missing)",
			"+ addr 10.0.1.9/24 dev ens6 noprefixroute  (missing)",
			"+ 10.0.1.6/32 dev fwy1 table 100  (missing)",
			"+ rule 20: from all lookup 100  (missing)",
			"+ chain eni-1 { return }  (missing)",
			`+ element pods { "fwy1" . 10.0.1.6 : goto eni-1 }  (missing)`,
		}},
		{"removes in reverse, after adds", []node.Object{rule, route, chain, key}, []node.Object{link}, []string{
			"+ link ens6 mtu 9001 up  (missing)",
			`- element pods { "fwy1" . 10.0.1.6 : goto eni-1 }  (not wanted any more)`,
			"- chain eni-1 { return }  (not wanted any more)",
			"- rule 20: from all lookup 100  (not wanted any more)",
			"- 10.0.1.6/32 dev fwy1 table 100  (not wanted any more)",
		}},
		{"a change outside the key replaces", []node.Object{route}, []node.Object{moved}, []string{
			"~ 10.0.1.6/32 dev fwy1 table 100 -> 10.0.1.6/32 dev fwy2 table 100  (differs)",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, c := range Compare(tt.have, tt.want) {
				got = append(got, c.String())
			}
			if d := cmp.Diff(tt.changes, got); d != "" {
				t.Errorf("changes (-want +got):\n%s", d)
			}
			slices.Reverse(tt.have)
			slices.Reverse(tt.want)
			var reversed []string
			for _, c := range Compare(tt.have, tt.want) {
				reversed = append(reversed, c.String())
			}
			if strings.Join(got, "\n") != strings.Join(reversed, "\n") {
				t.Errorf("the order of the input matters:\n%v\n%v", got, reversed)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	route := node.Route{Table: 1001, Dst: netip.MustParsePrefix("10.12.0.0/16"), Link: "ens5"}
	reasons := map[string]string{route.Key(): "route to pcx-1"}
	for _, tt := range []struct {
		have, want []node.Object
		why        string
	}{
		{nil, []node.Object{route}, "missing: route to pcx-1"},
		{[]node.Object{route}, nil, "not wanted any more"}, // a reason to be is none to go
	} {
		changes := Compare(tt.have, tt.want)
		Explain(changes, reasons)
		if len(changes) != 1 || changes[0].Why != tt.why {
			t.Errorf("changes %v, want one because %q", changes, tt.why)
		}
	}
}
