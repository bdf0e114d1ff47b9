package path

import (
	"net/netip"
	"strings"
	"testing"
)

// FuzzParseRules: rules come from somebody else's file. FuzzParseWorld gets to them
// only through a whole world.
func FuzzParseRules(f *testing.F) {
	f.Add("table 0 0{\nset 0{\nelements}{0")
	f.Add("table inet t {\n\tset s {\n\t\telements = { 1.2.3.4 . tcp . 80 comment \"x\" : goto c,\n\t\t 5 }\n\t}\n\tchain c {\n\t\ttype nat hook input priority filter + 1; policy drop;\n\t\tdnat ip to numgen random mod 2 map { 0 : 1.2.3.4 . 80 }\n\t}\n}")
	f.Add("*nat\n:A - [0:0]\n-A A -m comment --comment \"a \\\" b\" ! -d 1.2.3.4/32 -j A\nCOMMIT")
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Split(text, "\n")
		if r, err := ParseRuleset(lines); err == nil {
			r.services(func(string, ServicePort, netip.Addr) {})
		}
		if r, err := ParseIptables(lines); err == nil {
			r.services(func(string, ServicePort, netip.Addr) {})
		}
	})
}

// TestIptablesQuotes: a backslash keeps a quote in a comment.
func TestIptablesQuotes(t *testing.T) {
	r, err := ParseIptables([]string{"*nat", ":C - [0:0]", `-A C -m comment --comment "say \"no\" -j DROP" -p tcp -j ACCEPT`, "COMMIT"})
	if err != nil {
		t.Fatal(err)
	}
	if c := r.tables[0].chains["C"].rules[0]; c.comment != `say "no" -j DROP` || c.other != "" || c.target != "ACCEPT" || len(c.matches) != 1 {
		t.Errorf("%+v", c)
	}
}
