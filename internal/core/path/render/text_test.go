package render_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
	"github.com/fairway-cni/fairway/internal/core/path/render"
	"github.com/fairway-cni/fairway/internal/core/path/sighting"
)

var update = flag.Bool("update", false, "write the golden files anew; read the difference before you commit it")

func report(t testing.TB, name, from, to string, edits ...string) render.Report {
	t.Helper()
	e, w, err := example.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range edits {
		edit, err := path.ParseEdit(text)
		if err == nil {
			w, err = w.With(edit)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if from == "" {
		from, to = e.From, e.To
	}
	tr := path.NewTracer(w)
	a, err := tr.Trace(path.Probe{From: from, To: to})
	if err != nil {
		t.Fatal(err)
	}
	d, err := tr.Diagnose(a)
	if err != nil {
		t.Fatal(err)
	}
	return render.Report{Answer: a, Diagnosis: d, Command: "fairway path --example " + name}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s:\n%s", file, diff)
	}
}

func TestText(t *testing.T) {
	for name, r := range map[string]render.Report{
		"seed003":      report(t, "seed003", "", ""),
		"seed002":      report(t, "seed002", "", ""),
		"healthy":      report(t, "healthy", "", ""),
		"nodeport":     report(t, "nodeport", "", ""),
		"mended":       report(t, "seed003", "", "", "node-a1: ip rule add pref 111 from 10.11.4.91 to 10.12.0.0/16 lookup 11"),
		"no-way-back":  report(t, "healthy", "", "", "rtb-0a: del 10.12.0.0/16 pcx-03"),
		"not-routed":   report(t, "healthy", "b:default/sleep", "internet"),
		"same-node":    report(t, "seed003", "a:default/api-01", "a:default/httpbin:80"),
		"host-to-pod":  report(t, "healthy", "a:node:node-a1", "b:default/sleep:80"),
		"no-such-port": report(t, "seed002", "default/pod1", "default/pod2:81"),
	} {
		t.Run(name, func(t *testing.T) { golden(t, name+".txt", render.Text(r, render.Style{})) })
	}
	golden(t, "seed003-60.txt", render.Text(report(t, "seed003", "", ""), render.Style{Width: 60}))
}

// TestFolding: no line is longer than the terminal, but for a word that is.
func TestFolding(t *testing.T) {
	for _, name := range example.Names() {
		for _, width := range []int{60, 80, 100} {
			for l := range strings.Lines(render.Text(report(t, name, "", ""), render.Style{Width: width})) {
				if n := len(strings.TrimRight(l, "\n")); n > width && len(strings.Fields(l)) > 8 {
					t.Errorf("%s at %d: %d columns: %s", name, width, n, l)
				}
			}
		}
	}
}

func TestColour(t *testing.T) {
	r := report(t, "seed003", "", "")
	plain, coloured := render.Text(r, render.Style{}), render.Text(r, render.Style{Colour: true})
	if strings.Contains(plain, "\x1b") {
		t.Error("escape sequences without colour")
	}
	without := strings.NewReplacer("\x1b[31m", "", "\x1b[32m", "", "\x1b[33m", "", "\x1b[0m", "").Replace(coloured)
	if coloured == plain || without != plain {
		t.Error("colour changes more than colours")
	}
}

// TestTextLive: what was seen has no ~, and what went otherwise comes first.
func TestTextLive(t *testing.T) {
	r := report(t, "healthy", "", "")
	r.Live = &sighting.Live{Trip: sighting.Trip{Answered: sighting.Yes, RTT: 11 * time.Millisecond}, Seen: []int{0, 1, 16, 17}}
	golden(t, "live.txt", render.Text(r, render.Style{}))
	r.Live = &sighting.Live{
		Trip: sighting.Trip{Answered: sighting.Silence, Waited: 3010 * time.Millisecond, Sightings: []sighting.Sighting{{
			At: r.Answer.Hops[1].Where, Event: sighting.Dropped, Way: sighting.Packet, Device: "fwy1", Reason: "NETFILTER_DROP"}}},
		Seen: []int{0}, Differs: &sighting.Differs{Hop: 1, Words: "predicted out ens6; the kernel dropped it: NETFILTER_DROP at fwy1"},
	}
	golden(t, "live-differs.txt", render.Text(r, render.Style{}))
	r = report(t, "seed003", "", "")
	r.Live = &sighting.Live{Trip: sighting.Trip{Answered: sighting.Failed, Error: "network is unreachable"}, Seen: []int{},
		Differs: &sighting.Differs{Hop: len(r.Answer.Hops), Words: "predicted an answer; none came"}}
	if text := render.Text(r, render.Style{}); !strings.HasPrefix(text, "DIFFERS  predicted an answer; none came   (0 hops seen") || !strings.Contains(text, "LIVE   not sent: network is unreachable") {
		t.Error(text)
	}
}
