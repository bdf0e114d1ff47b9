package render

import (
	"fmt"
	"html"
	"slices"
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

// Text on the ground has a contrast of 4.5 or more in both (WCAG 2.2, 1.4.3), and
// so has what is written on an octagon.
const (
	lightColours = ":root{--fg:#1f2328;--dim:#59636e;--line:#afb8c1;--bg:#ffffff;--box:#f6f8fa;--out:#0969da;--back:#8250df;--drop:#cf222e}"
	darkColours  = ":root{--fg:#e6edf3;--dim:#9198a1;--line:#3d444d;--bg:#0d1117;--box:#151b23;--out:#58a6ff;--back:#bc8cff;--drop:#ff7b72}"
	shapeStyle   = "svg{background:var(--bg)}text{font:18px system-ui,-apple-system,'Segoe UI',sans-serif;fill:var(--fg)}" +
		".t{font-size:24px;font-weight:600}.d{fill:var(--dim)}.m{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}" +
		".b{fill:var(--box);stroke:var(--line)}.v{fill:none;stroke:var(--line);stroke-dasharray:2 4}.n{fill:var(--bg);stroke:var(--line)}" +
		".o,.r,.x{fill:none;stroke-width:4}.o{stroke:var(--out)}.r{stroke:var(--back);stroke-dasharray:12 5}.x{stroke:var(--dim);stroke-dasharray:3 6}" +
		".ao{fill:var(--out)}.ar{fill:var(--back)}.ax,.q{fill:var(--dim)}" +
		".k,.e{fill:var(--drop)}.e,.w{font-weight:700}.w{fill:var(--bg)}"
)

// What a character of each kind of text takes at most, on average: the widest of
// the usual fonts, DejaVu, is measured.
const (
	titleChar = 16.6
	plainChar = 11.0
	monoChar  = 10.9
)

const (
	width, margin = 1200, 24
	inner         = width - 2*margin
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
// At most 1200 by 520; text of 18 px or more, which 600 px wide still is 9. The
// title and the description say the verdict for those who do not see it.
func SVG(r Report, t Theme) string {
	a := r.Answer
	all := rows(a)
	var b strings.Builder
	y := heading(&b, a, all, r.Diagnosis.Cause)
	said := 2 // octagons that the legend has room for
	if line := behind(a); line != "" {
		said--
		y += 28
		text(&b, margin, y-16, "d", clip(line, fits(inner, plainChar)))
	}
	fmt.Fprintf(&b, "<g transform=\"translate(0 %d)\">\n", y)
	p := layout(a)
	p.boxes(&b)
	p.gates(&b)
	marks := p.ways(&b, all)
	p.labels(&b)
	b.WriteString("</g>\n")
	y = legend(&b, r, octagons{marks, said}, y+bodyHeight)
	y = footer(&b, r, y)
	title := strings.Join(strings.Fields(sentence(a, all)), " ")
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d" role="img" aria-labelledby="t d">`+"\n", width, y) +
		fmt.Sprintf("<title id=\"t\">%s</title>\n<desc id=\"d\">%s</desc>\n", esc(title), esc(describe(r))) +
		"<style>" + t.css() + shapeStyle + "</style>\n" + b.String() + "</svg>\n"
}

// heading is the verdict and the cause; it gives where the boxes may begin.
func heading(b *strings.Builder, a *path.Answer, all []row, cause string) int {
	y := 4
	for _, line := range wrap(sentence(a, all), fits(inner, titleChar), 2) {
		y += 30
		text(b, margin, y, "t", line)
	}
	if cause != "" {
		y += 28
		text(b, margin, y, "d", clip(cause, fits(inner, plainChar)))
	}
	return y + 16
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

// fits is how many characters a place takes.
func fits(pixels int, char float64) int { return int(float64(pixels) / char) }

// clip cuts the end off a text that would not fit.
func clip(s string, n int) string {
	if runes := []rune(s); len(runes) > n {
		return strings.TrimRight(string(runes[:n-1]), " ") + "…"
	}
	return s
}

// squeeze cuts the middle out of a name that would not fit: what tells an ENI or a
// pod from the one beside it is often at its end.
func squeeze(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	head := n / 2
	return string(runes[:head]) + "…" + string(runes[len(runes)-(n-1-head):])
}

// wrap breaks a text into lines: behind a semicolon if all then fits, else between
// words.
func wrap(s string, n, lines int) []string {
	words := strings.Fields(s)
	s = strings.Join(words, " ")
	if len([]rune(s)) <= n {
		return []string{s}
	}
	if one, two, found := strings.Cut(s, "; "); found && len([]rune(one)) < n && len([]rune(two)) <= n && lines > 1 {
		return []string{one + ";", two}
	}
	var out []string
	for line := ""; len(words) > 0; line = "" {
		for len(words) > 0 && (line == "" || len([]rune(line+" "+words[0])) <= n) {
			line, words = strings.TrimSpace(line+" "+words[0]), words[1:]
		}
		if len(out) == lines-1 {
			return append(out, clip(strings.Join(append([]string{line}, words...), " "), n))
		}
		out = append(out, clip(line, n))
	}
	return out
}

func text(b *strings.Builder, x, y int, class, s string) {
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" class=\"%s\">%s</text>\n", x, y, class, esc(s))
}

func middle(b *strings.Builder, x, y int, class, s string) {
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" class=\"%s\" text-anchor=\"middle\">%s</text>\n", x, y, class, esc(s))
}

func octagon(b *strings.Builder, x, y, number int, unknown bool) {
	const r, c = 17, 7
	class, word := "k", fmt.Sprint(number)
	if unknown {
		class, word = "q", "?"
	}
	fmt.Fprintf(b, "<path class=\"%s\" d=\"M%d %dh%dl%d %dv%dl%d %dh%dl%d %dv%dz\"/>", class,
		x-c, y-r, 2*c, r-c, r-c, 2*c, c-r, r-c, -2*c, c-r, c-r, -2*c)
	middle(b, x, y+6, "w", word)
}

// arrow is a head that points right or left, its tip at x.
func arrow(b *strings.Builder, x, y int, class string, left bool) {
	back := -16
	if left {
		back = 16
	}
	fmt.Fprintf(b, "<path class=\"a%s\" d=\"M%d %dl%d -9v18z\"/>\n", class, x, y, back)
}

// behind says in a line what Service was asked and who answers for it, the worst
// first.
func behind(a *path.Answer) string {
	var parts []string
	if s := a.Service; s != nil {
		parts = append(parts, s.ID)
		if s.Backends >= 0 {
			parts = append(parts, fmt.Sprintf("%d of %d backends ready", s.Ready, s.Backends))
		}
	}
	if !saidByHops(a.Ways) {
		parts = append(parts, fates(a.Ways)...)
	}
	return strings.Join(parts, "; ")
}

// fates says what becomes of a packet by who is behind the choice.
func fates(ways []path.Way) (list []string) {
	fate := func(w path.Way) string { return strings.TrimSuffix(string(w.Verdict)+", "+string(w.Code), ", ") }
	ends := 0
	for _, w := range ways {
		ends += 1 + w.Alike
		if one := first(w.Pod, w.To); w.Alike > 0 {
			list = append(list, fmt.Sprintf("%s and %d alike: %s", one, w.Alike, fate(w)))
		} else {
			list = append(list, one+": "+fate(w))
		}
	}
	if !slices.ContainsFunc(ways, func(w path.Way) bool { return fate(w) != fate(ways[0]) }) {
		return []string{fmt.Sprintf("each of %d: %s", ends, fate(ways[0]))}
	}
	return list
}

// octagons are the rows that have one, and how many of them are said at most.
type octagons struct {
	marks []row
	most  int
}

// legend says of each octagon what decided; without one, which way is whose. It
// takes the height at which the boxes end, and gives its own.
func legend(b *strings.Builder, r Report, o octagons, y int) int {
	for i, m := range o.marks[:min(len(o.marks), o.most)] {
		y += 37
		line := fits(inner-44, monoChar)
		if more := len(o.marks) - o.most; i == o.most-1 && more > 0 {
			line -= 14
			fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" class=\"d\" text-anchor=\"end\">and %d more</text>\n", width-margin, y-5, more)
		}
		octagon(b, 43, y-11, m.number, m.verdict == path.Blind)
		code := first(string(m.code), "cannot tell")
		fmt.Fprintf(b, "<text x=\"72\" y=\"%d\" class=\"m\"><tspan class=\"e\">%s</tspan> %s</text>\n", y-5, esc(code),
			esc(clip(squeeze(m.where.String(), 30)+": "+m.decided, line-len(code)-1)))
	}
	if len(o.marks) > 0 {
		return y
	}
	y += 34
	fmt.Fprintf(b, "<path class=\"o\" d=\"M%d %dh48\"/><path class=\"r\" d=\"M224 %dh48\"/>\n", margin, y-6, y-6)
	text(b, 84, y, "", "the packet")
	text(b, 284, y, "", "its reply")
	if cost := strings.Join(r.Answer.Cost, "; "); cost != "" {
		text(b, 424, y, "d", clip(cost, fits(width-margin-424, plainChar)))
	}
	return y
}

// footer is the mend, and how to see the same again; it gives the picture's height.
func footer(b *strings.Builder, r Report, y int) int {
	if len(r.Diagnosis.Mends) > 0 {
		const label = "mend "
		lines := 2
		if y > 400 { // two octagons are said already
			lines = 1
		}
		for i, line := range wrap(r.Diagnosis.Mends[0].Words, fits(inner, monoChar)-len(label), lines) {
			if y += 29; i == 0 {
				fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" class=\"m\"><tspan font-weight=\"700\">mend</tspan></text>\n", margin, y)
			}
			text(b, margin+fits(len(label), 1/monoChar), y, "m", line)
		}
	}
	if again := strings.TrimSpace(r.Taken + "  " + r.Command); again != "" {
		y += 28
		text(b, margin, y, "m d", clip(again, fits(inner, monoChar)))
	}
	return y + 10
}
