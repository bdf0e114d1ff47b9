package picture

import (
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
	"github.com/fairway-cni/fairway/internal/core/path/render"
)

var kept = flag.String("pictures", "", "keep the screenshots in this directory")

const (
	// leastContrast of text: WCAG 2.2, success criterion 1.4.3 (AA).
	leastContrast = 4.5
	// leastPixels is how high a font must be where the picture is 600 px wide, as in
	// a column of a page: what browsers have as the smallest size that one sets.
	leastPixels = 9
)

// flow is a packet of an example's world, after changes.
type flow struct{ name, example, from, to, edit string }

var flows = []flow{
	{name: "seed003", example: "seed003"},
	{name: "seed002", example: "seed002"},
	{name: "healthy", example: "healthy"},
	{name: "nodeport", example: "nodeport"},
	{name: "service", example: "nodeport", from: "default/web-1", to: "svc/default/web"},
	{"mended", "seed003", "", "", "node-a1: ip rule add pref 111 from 10.11.4.91 to 10.12.0.0/16 lookup 11"},
	{"loose", "seed003", "", "", "node-a1: sysctl net.ipv4.conf.all.rp_filter=2"},
	{"no-way-back", "healthy", "", "", "rtb-0a: del 10.12.0.0/16 pcx-03"},
	{"closed", "healthy", "", "", "acl-0a: in del 100 allow all from 0.0.0.0/0"},
	{"internet", "healthy", "b:default/sleep", "internet", ""},
	{"same-node", "seed003", "a:default/api-01", "a:default/httpbin:80", ""},
	{"from-a-node", "healthy", "a:node:node-a1", "b:default/sleep:80", ""},
	{"no-such-port", "seed002", "default/pod1", "default/pod2:81", ""},
}

func (f flow) report(t *testing.T) render.Report {
	t.Helper()
	e, w, err := example.Load(f.example)
	if err == nil && f.edit != "" {
		var edit path.Edit
		if edit, err = path.ParseEdit(f.edit); err == nil {
			w, err = w.With(edit)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if f.from == "" {
		f.from, f.to = e.From, e.To
	}
	return explain(t, path.NewTracer(w), path.Probe{From: f.from, To: f.to}, f.example)
}

func explain(t *testing.T, tr *path.Tracer, p path.Probe, name string) render.Report {
	t.Helper()
	a, err := tr.Trace(p)
	if err != nil {
		t.Fatal(err)
	}
	d, err := tr.Diagnose(a)
	if err != nil {
		t.Fatal(err)
	}
	return render.Report{Answer: a, Diagnosis: d, Taken: "2025-11-14T03:12:00Z",
		Command: fmt.Sprintf("fairway path --example %s %s %s", name, p.From, p.To)}
}

// box is where something is in the page, in its pixels.
type box struct{ Left, Top, Right, Bottom float64 }

func (b box) rect() image.Rectangle {
	return image.Rect(int(math.Floor(b.Left)), int(math.Floor(b.Top)), int(math.Ceil(b.Right)), int(math.Ceil(b.Bottom)))
}

// touches says whether two have more than an edge in common.
func (b box) touches(o box) bool {
	const edge = 0.5
	return b.Left < o.Right-edge && o.Left < b.Right-edge && b.Top < o.Bottom-edge && o.Top < b.Bottom-edge
}

func (b box) within(o box) bool {
	return b.Left >= o.Left && b.Right <= o.Right && b.Top >= o.Top && b.Bottom <= o.Bottom
}

// word is a text; a part in a style of its own is one too.
type word struct {
	box
	Text   string
	Pixels float64 // height of its font, in the page
	Fill   [3]uint8
}

// page is what the browser says of a picture.
type page struct {
	Title  string
	Frame  box
	Words  []word
	Shapes []box // that hold text: boxes and circles
	Stops  []box // octagons, which lie on top
}

// survey reads the page. A text's box is from its font's ascent to its descent.
const survey = `(() => {
  const at = r => ({Left: r.left, Top: r.top, Right: r.right, Bottom: r.bottom});
  const svg = document.querySelector('svg');
  const words = [];
  for (const text of svg.querySelectorAll('text')) for (const node of text.childNodes) {
    const s = node.textContent.trim();
    if (s === '') continue;
    const e = node.nodeType === 1 ? node : text, range = document.createRange(), style = getComputedStyle(e);
    range.selectNodeContents(node);
    words.push({...at(range.getBoundingClientRect()), Text: s, Pixels: parseFloat(style.fontSize) * svg.getScreenCTM().a,
      Fill: style.fill.match(/\d+/g).slice(0, 3).map(Number)});
  }
  return {Title: document.querySelector('svg > title').textContent, Frame: at(svg.getBoundingClientRect()), Words: words,
    Shapes: [...svg.querySelectorAll('rect,circle')].map(e => at(e.getBoundingClientRect())),
    Stops: [...svg.querySelectorAll('path.k,path.q')].map(e => at(e.getBoundingClientRect()))};
})()`

// check is what holds of where things are. A number in an octagon counts for that
// alone, wherever it lies.
func (p *page) check(t *testing.T) {
	t.Helper()
	if len(p.Words) < 5 {
		t.Fatalf("%d texts", len(p.Words))
	}
	for i, w := range p.Words {
		if w.Right <= w.Left || w.Bottom <= w.Top {
			t.Errorf("%q takes no room", w.Text)
		}
		if !w.within(p.Frame) {
			t.Errorf("%q leaves the picture: %v of %v", w.Text, w.box, p.Frame)
		}
		if w.Pixels < leastPixels {
			t.Errorf("%q is %.1f px high, at least %d", w.Text, w.Pixels, leastPixels)
		}
		for _, o := range p.Words[i+1:] {
			if w.touches(o.box) {
				t.Errorf("%q overlaps %q: %v, %v", w.Text, o.Text, w.box, o.box)
			}
		}
		if slices.ContainsFunc(p.Stops, w.within) {
			continue
		}
		for _, s := range slices.Concat(p.Shapes, p.Stops) {
			if w.touches(s) && !w.within(s) {
				t.Errorf("%q leaves its box: %v of %v", w.Text, w.box, s)
			}
		}
	}
}

// TestPictures opens pictures as they come, 1200 px wide, and in a page that gives
// them 600, for readers of light and of dark pages, and looks at their pixels.
func TestPictures(t *testing.T) {
	b := newBrowser(t)
	dir := t.TempDir()
	for _, f := range flows {
		r := f.report(t)
		for _, form := range []struct {
			theme render.Theme
			wants string // by the reader
			width int
		}{{render.Auto, "light", 1200}, {render.Auto, "dark", 1200}, {render.Auto, "light", 600}, {render.Auto, "dark", 600},
			{render.Light, "dark", 1200}, {render.Dark, "light", 1200}} {
			if form.theme != render.Auto && f.name != "seed003" {
				continue // the same colours again
			}
			name := fmt.Sprintf("%s-%s-%s-%d", f.name, form.theme, form.wants, form.width)
			t.Run(name, func(t *testing.T) {
				b.t = t
				svg, file := render.SVG(r, form.theme), filepath.Join(dir, name+".svg")
				if form.width != 1200 {
					file = strings.TrimSuffix(file, ".svg") + ".html"
					svg = fmt.Sprintf("<!doctype html><meta charset=utf-8><style>body{margin:0}svg{width:%dpx;height:auto}</style>%s", form.width, svg)
				}
				if err := os.WriteFile(file, []byte(svg), 0o644); err != nil {
					t.Fatal(err)
				}
				b.look(form.width, 520, form.wants)
				b.open(file)
				var p page
				b.script(survey, &p)
				if want := strings.Join(strings.Fields(render.Sentence(r.Answer)), " "); p.Title != want {
					t.Errorf("title %q, want %q", p.Title, want)
				}
				if p.Frame.Right-p.Frame.Left != float64(form.width) || p.Frame.Bottom > 520 {
					t.Errorf("the picture is %v, want %d by 520 at most", p.Frame, form.width)
				}
				p.check(t)
				shown, png := b.screenshot()
				keep(t, name, png)
				b.script("document.querySelectorAll('text').forEach(e => e.style.visibility = 'hidden')", nil)
				ground, _ := b.screenshot()
				dark := form.theme == render.Dark || form.theme == render.Auto && form.wants == "dark"
				if got := luminance(ground.At(2, 2)) < 0.5; got != dark {
					t.Errorf("a dark ground: %v, want %v", got, dark)
				}
				for _, w := range p.Words {
					checkPixels(t, w, ground, shown)
				}
			})
		}
	}
}

// TestEveryPair has all that the examples' worlds have send to all, and again with
// names as long as those of EC2 and of Kubernetes.
func TestEveryPair(t *testing.T) {
	b := newBrowser(t)
	file := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(file, []byte("<!doctype html><meta charset=utf-8><style>body{margin:0}</style>"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.look(1200, 520, "light")
	b.open(file)
	long := strings.NewReplacer("eni-0", "eni-0123456789abcd0", "pcx-0", "pcx-0123456789abcd0", "rtb-0", "rtb-0123456789abcd0",
		"node-", "ip-10-11-255-254.eu-central-1.compute.internal-", "httpbin", "payments-backend-6d8f7c9b5d-x7k2p", "sleep", "frontend-0")
	for _, name := range example.Names() {
		_, w, err := example.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := w.JSON()
		if err != nil {
			t.Fatal(err)
		}
		longer, err := path.ParseWorld([]byte(long.Replace(string(text))))
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range []*path.World{w, longer} {
			tr := path.NewTracer(w)
			ends := everyEnd(tr, w)
			for _, from := range ends {
				for _, to := range ends {
					t.Run(fmt.Sprintf("%s-%d-%s-%s", name, i, from, to), func(t *testing.T) {
						b.t = t
						svg, err := json.Marshal(render.SVG(explain(t, tr, path.Probe{From: from, To: to}, name), render.Auto))
						if err != nil {
							t.Fatal(err)
						}
						var p page
						b.script(fmt.Sprintf("document.body.innerHTML = %s; %s", svg, survey), &p)
						if p.Frame.Bottom > 520 {
							t.Errorf("%v high, at most 520", p.Frame.Bottom)
						}
						p.check(t)
						if t.Failed() {
							_, png := b.screenshot()
							keep(t, strings.ReplaceAll(fmt.Sprintf("%s-%d-%s-%s", name, i, from, to), "/", "_"), png)
						}
					})
				}
			}
		}
	}
}

func everyEnd(tr *path.Tracer, w *path.World) []string {
	ends := []string{"internet"}
	for _, c := range tr.Classes() {
		ends = append(ends, c.One)
	}
	for i := range w.Nodes {
		ends = append(ends, "node:"+w.Nodes[i].Name)
	}
	return ends
}

// checkPixels: the text is to be seen, on whatever is behind it. A line that passes
// under a text is found by this too.
func checkPixels(t *testing.T, w word, ground, shown image.Image) {
	t.Helper()
	ink, worst := 0, math.Inf(1)
	fill := color.RGBA{w.Fill[0], w.Fill[1], w.Fill[2], 255}
	r := w.rect().Intersect(ground.Bounds())
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			behind := ground.At(x, y)
			worst = min(worst, contrast(fill, behind))
			if contrast(shown.At(x, y), behind) > 2 {
				ink++
			}
		}
	}
	if worst < leastContrast {
		t.Errorf("%q has a contrast of %.1f somewhere, at least %.1f", w.Text, worst, leastContrast)
	}
	// A letter's strokes take a tenth of its room, even of a full stop's line.
	if ink < r.Dx()*r.Dy()/50 {
		t.Errorf("%q: %d pixels of %d are to be seen", w.Text, ink, r.Dx()*r.Dy())
	}
}

// luminance and contrast are WCAG 2.2's.
func luminance(c color.Color) float64 {
	part := func(v uint32) float64 {
		f := float64(v) / 0xffff
		if f <= 0.04045 {
			return f / 12.92
		}
		return math.Pow((f+0.055)/1.055, 2.4)
	}
	r, g, b, _ := c.RGBA()
	return 0.2126*part(r) + 0.7152*part(g) + 0.0722*part(b)
}

func contrast(a, b color.Color) float64 {
	x, y := luminance(a), luminance(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func keep(t *testing.T, name string, png []byte) {
	t.Helper()
	if *kept == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(*kept, name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}
