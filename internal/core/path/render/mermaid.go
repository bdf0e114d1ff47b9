package render

import (
	"fmt"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// Mermaid is the answer as a flowchart: the packet's way as solid arrows, the
// reply's as dotted ones, each with its number and result; what drops is red.
func Mermaid(r Report) string {
	var b strings.Builder
	a := r.Answer
	all := rows(a)
	fmt.Fprintf(&b, "---\ntitle: %q\n---\nflowchart LR\n", strings.Join(strings.Fields(sentence(a, all)), " "))
	ids := map[path.Where]string{}
	id := func(w path.Where) string {
		s, ok := ids[w]
		if !ok {
			s = fmt.Sprintf("p%d", len(ids)+1)
			ids[w] = s
			fmt.Fprintf(&b, "  %s[\"%s\"]\n", s, quoted(w.String()))
		}
		return s
	}
	if len(a.Hops) > 0 {
		id(a.Hops[0].Where)
	}
	before := path.Where{}
	var red []string
	for i, r := range all {
		if i == 0 && len(a.Hops) > 0 {
			before = a.Hops[0].Where
		}
		arrow, label := "-->", r.result
		if r.reply {
			arrow = "-.->"
		}
		switch r.verdict {
		case path.Drop:
			label = "DROP " + string(r.code)
			red = append(red, id(r.where))
		case path.Blind:
			label = "? " + string(r.code)
		}
		if before != r.where || r.verdict != path.Pass {
			fmt.Fprintf(&b, "  %s %s|\"%d %s\"| %s\n", id(before), arrow, r.number, quoted(label), id(r.where))
		}
		before = r.where
	}
	if len(red) > 0 {
		fmt.Fprintf(&b, "  classDef drop stroke:#cf222e,stroke-width:3px\n  class %s drop\n", strings.Join(red, ","))
	}
	return b.String()
}

// quoted leaves out what ends a quoted text in Mermaid.
func quoted(s string) string { return strings.NewReplacer("\"", "#quot;", "\n", " ").Replace(s) }
