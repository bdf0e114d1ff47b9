package render_test

import (
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
	"github.com/fairway-cni/fairway/internal/core/path/render"
)

var sizes = regexp.MustCompile(`font(?:-size)?:(\d+)px`)

// TestSVG: the picture is well formed, small, says its verdict to those who do
// not see it, and has no text that is too small.
func TestSVG(t *testing.T) {
	for name, r := range map[string]render.Report{
		"seed003":  report(t, "seed003", "", ""),
		"seed002":  report(t, "seed002", "", ""),
		"healthy":  report(t, "healthy", "", ""),
		"nodeport": report(t, "nodeport", "", ""),
		"service":  report(t, "nodeport", "default/web-1", "svc/default/web"),
		"internet": report(t, "healthy", "b:default/sleep", "internet"),
		"same":     report(t, "seed003", "a:default/api-01", "a:default/httpbin:80"),
	} {
		t.Run(name, func(t *testing.T) {
			for _, theme := range []render.Theme{render.Auto, render.Light, render.Dark} {
				svg := render.SVG(r, theme)
				if len(svg) > 40_000 {
					t.Errorf("%s: %d bytes, at most 40000", theme, len(svg))
				}
				wellFormed(t, svg)
				title := strings.Join(strings.Fields(render.Sentence(r.Answer)), " ")
				if !strings.Contains(svg, "<title id=\"t\">"+title+"</title>") || !strings.Contains(svg, "<desc") {
					t.Errorf("%s: no title %q, or no description", theme, title)
				}
				for _, m := range sizes.FindAllStringSubmatch(svg, -1) {
					if n, _ := strconv.Atoi(m[1]); n < 13 {
						t.Errorf("%s: text of %d px, at least 13", theme, n)
					}
				}
				if auto := strings.Contains(svg, "prefers-color-scheme"); auto != (theme == render.Auto) {
					t.Errorf("%s: prefers-color-scheme %v", theme, auto)
				}
				if dropped := strings.Contains(svg, "class=\"k\""); dropped != (len(r.Answer.Faults()) > 0) {
					t.Errorf("%s: an octagon %v, %d faults", theme, dropped, len(r.Answer.Faults()))
				}
			}
			golden(t, name+".svg", render.SVG(r, render.Auto))
			golden(t, name+".mmd", render.Mermaid(r))
		})
	}
}

func wellFormed(t *testing.T, svg string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, svg)
		}
	}
}

// TestEveryFormOfEveryPair: whatever the ways look like, each form shows them.
func TestEveryFormOfEveryPair(t *testing.T) {
	for _, name := range example.Names() {
		_, w, err := example.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		tr := path.NewTracer(w)
		ends := []string{"internet"}
		for _, c := range tr.Classes() {
			ends = append(ends, c.One)
		}
		for i := range w.Nodes {
			ends = append(ends, "node:"+w.Nodes[i].Name)
		}
		for i := range w.VPCs {
			for j := range w.VPCs[i].ENIs.Value {
				ends = append(ends, w.VPCs[i].ENIs.Value[j].ID)
			}
		}
		for _, from := range ends {
			for _, to := range ends {
				a, err := tr.Trace(path.Probe{From: from, To: to})
				if err != nil {
					t.Fatalf("%s %s %s: %v", name, from, to, err)
				}
				r := render.Report{Answer: a}
				wellFormed(t, render.SVG(r, render.Auto))
				first, _, _ := strings.Cut(render.Text(r, render.Style{Width: 80}), "\n")
				word := map[path.Verdict]string{path.Arrived: "DELIVERED", path.Dropped: "DROPPED", path.Unsure: "CANNOT TELL"}[a.Verdict]
				if !strings.HasPrefix(first, word) || !strings.Contains(render.Mermaid(r), "flowchart LR") {
					t.Errorf("%s %s %s: %s, want %s", name, from, to, first, word)
				}
			}
		}
	}
}
