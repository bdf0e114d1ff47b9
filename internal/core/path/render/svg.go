package render

import (
	"fmt"
	"html"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// Theme fixes the colours of a picture; [Auto] leaves them to who looks at it.
type Theme string

// The themes.
const (
	Auto  Theme = "auto"
	Light Theme = "light"
	Dark  Theme = "dark"
)

const (
	lightColours = ":root{--fg:#1f2328;--dim:#59636e;--line:#d1d9e0;--bg:#ffffff;--box:#f6f8fa;--out:#0969da;--back:#8250df;--drop:#cf222e}"
	darkColours  = ":root{--fg:#e6edf3;--dim:#9198a1;--line:#3d444d;--bg:#0d1117;--box:#151b23;--out:#58a6ff;--back:#bc8cff;--drop:#ff7b72}"
	shapeStyle   = "svg{background:var(--bg)}text{font:16px system-ui,-apple-system,'Segoe UI',sans-serif;fill:var(--fg)}" +
		".t{font-size:22px;font-weight:600}.d{fill:var(--dim)}.m{font:15px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}" +
		".b{fill:var(--box);stroke:var(--line)}.v{fill:none;stroke:var(--line);stroke-dasharray:2 4}.n{fill:var(--bg);stroke:var(--line)}" +
		".o,.r,.x{fill:none;stroke-width:3}.o{stroke:var(--out)}.r{stroke:var(--back);stroke-dasharray:10 4}.x{stroke:var(--dim);stroke-dasharray:3 5}" +
		".k{fill:var(--drop)}.w{fill:#fff;font-weight:700}.e{fill:var(--drop);font-weight:700}.q{fill:var(--dim)}"
)

func (t Theme) css() string {
	switch t {
	case Light:
		return lightColours
	case Dark:
		return darkColours
	}
	return lightColours + "@media(prefers-color-scheme:dark){" + darkColours + "}"
}

// SVG is the picture: the two ends left and right, what is between them in the
// middle, the packet's way above and the reply's below. A reply that leaves by
// another ENI is seen as a way through another box. What drops is a numbered
// octagon, and what would have followed is dashed grey.
//
// At most 1200 by 520; text of 15 px or more; the title and the description say
// the verdict for those who do not see it.
func SVG(r Report, t Theme) string {
	var b strings.Builder
	a := r.Answer
	all := rows(a)
	title := strings.Join(strings.Fields(sentence(a, all)), " ")
	b.WriteString(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1200 520" width="1200" height="520" role="img" aria-labelledby="t d">` + "\n")
	fmt.Fprintf(&b, "<title id=\"t\">%s</title>\n<desc id=\"d\">%s</desc>\n", esc(title), esc(describe(r)))
	b.WriteString("<style>" + t.css() + shapeStyle + "</style>\n")
	p := layout(a)
	text(&b, 24, 40, "t", clip(title, 98))
	if r.Diagnosis.Cause != "" {
		text(&b, 24, 68, "d", clip(r.Diagnosis.Cause, 140))
	}
	p.boxes(&b)
	marks := p.ways(&b, all)
	p.labels(&b)
	legend(&b, r, all, marks)
	footer(&b, r)
	b.WriteString("</svg>\n")
	return b.String()
}

func describe(r Report) string {
	parts := []string{fmt.Sprintf("From %s to %s.", r.Answer.Probe.From, r.Answer.Probe.To)}
	if r.Diagnosis.Cause != "" {
		parts = append(parts, "Cause: "+r.Diagnosis.Cause+".")
	}
	for _, m := range r.Diagnosis.Mends {
		parts = append(parts, "Mend: "+m.Words+".")
	}
	return strings.Join(parts, " ")
}

func esc(s string) string { return html.EscapeString(s) }

// clip cuts a text that would not fit.
func clip(s string, n int) string {
	if runes := []rune(s); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return s
}

func text(b *strings.Builder, x, y int, class, s string) {
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" class=\"%s\">%s</text>\n", x, y, class, esc(s))
}

func middle(b *strings.Builder, x, y int, class, s string) {
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" class=\"%s\" text-anchor=\"middle\">%s</text>\n", x, y, class, esc(s))
}

func octagon(b *strings.Builder, x, y, number int, unknown bool) {
	const r, c = 15, 6
	class, word := "k", fmt.Sprint(number)
	if unknown {
		class, word = "q", "?"
	}
	fmt.Fprintf(b, "<path class=\"%s\" d=\"M%d %dh%dl%d %dv%dl%d %dh%dl%d %dv%dz\"/>", class,
		x-c, y-r, 2*c, r-c, r-c, 2*c, c-r, r-c, -2*c, c-r, c-r, -2*c)
	middle(b, x, y+6, "w", word)
}

// legend says of each octagon what decided.
func legend(b *strings.Builder, r Report, all []row, marks []int) {
	y := 430
	for _, number := range marks[:min(len(marks), 2)] {
		m := all[number-1]
		octagon(b, 40, y-6, number, m.verdict == path.Blind)
		fmt.Fprintf(b, "<text x=\"64\" y=\"%d\" class=\"m\"><tspan class=\"e\">%s</tspan><tspan dx=\"12\">%s: %s</tspan></text>\n", y, m.code, esc(m.where.String()), esc(clip(m.decided, 84-len(m.code))))
		y += 33
	}
	if len(marks) > 2 {
		text(b, 1080, 432, "d", fmt.Sprintf("and %d more", len(marks)-2))
	}
	if len(marks) == 0 {
		fmt.Fprintf(b, "<path class=\"o\" d=\"M24 426h48\"/><path class=\"r\" d=\"M224 426h48\"/>\n")
		text(b, 84, 432, "", "the packet")
		text(b, 284, 432, "", "its reply")
		text(b, 424, 432, "d", strings.Join(r.Answer.Cost, "; "))
	}
}

func footer(b *strings.Builder, r Report) {
	if len(r.Diagnosis.Mends) > 0 {
		fmt.Fprintf(b, "<text x=\"24\" y=\"491\" class=\"m\"><tspan font-weight=\"700\">mend</tspan><tspan dx=\"12\">%s</tspan></text>\n", esc(clip(r.Diagnosis.Mends[0].Words, 118)))
	}
	text(b, 24, 512, "m d", clip(strings.TrimSpace(r.Taken+"  "+r.Command), 126))
}
