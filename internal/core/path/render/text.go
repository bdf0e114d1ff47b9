package render

import (
	"fmt"
	"strings"
	"time"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/sighting"
)

// Style is how text is written.
type Style struct {
	Width  int  // columns to fold at; 0: as long as it is
	Colour bool // escape sequences of a terminal
}

// The least widths of the columns: those of the documentation.
const (
	whereWidth   = 13
	decidedWidth = 57
	resultWidth  = 10
	numberWidth  = 4
	leastDecided = 24
)

// Text is the report for a terminal. The verdict comes first; a flow that is
// delivered both ways by the same places has one line for both ways.
func Text(r Report, s Style) string {
	var b strings.Builder
	all := rows(r.Answer)
	first, verdict := sentence(r.Answer, all), r.Answer.Verdict
	asPredicted := r.Live == nil || r.Live.Differs == nil
	if !asPredicted {
		first, verdict = "DIFFERS  "+r.differs(all), path.Unsure
	}
	for i, l := range foldIf(first+r.how(), s.Width) {
		b.WriteString(strings.Repeat("  ", min(i, 1)) + s.paint(l, verdict) + "\n")
	}
	if !asPredicted {
		fmt.Fprintf(&b, "predicted: %s\n", sentence(r.Answer, all))
	}
	if pairs, ok := paired(&r); ok && asPredicted {
		s.pairs(&b, &r, pairs)
	} else {
		s.rows(&b, &r, all)
	}
	s.footer(&b, r, all)
	return b.String()
}

// how is where the verdict is from.
func (r *Report) how() string {
	if r.Live == nil {
		return "   (predicted)"
	}
	rtt := ""
	if r.Answer.Verdict == path.Arrived && r.Live.Differs == nil && r.Live.Answered == sighting.Yes {
		rtt = ", RTT " + brief(r.Live.RTT)
	}
	seen := len(r.Live.Seen)
	hops := "hops"
	if seen == 1 {
		hops = "hop"
	}
	return fmt.Sprintf("%s   (%d %s seen, %d ~ from config)", rtt, seen, hops, len(r.Answer.Hops)-seen)
}

// brief is a time in three digits or so.
func brief(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

// live says what became of the packet that was sent, and where that is not what was
// predicted.
func (r *Report) live() string {
	l := r.Live
	text := "no answer in " + brief(l.Waited)
	switch l.Answered {
	case sighting.Yes, sighting.Refused:
		text = fmt.Sprintf("%s after %s", l.Answered, brief(l.RTT))
	case sighting.Failed:
		text = "not sent: " + l.Error
	}
	for _, s := range l.Sightings {
		// What is answered has been copied to others too, who have no use for it.
		if l.Answered != sighting.Yes && s.Event == sighting.Dropped && s.Way != sighting.Error {
			text += fmt.Sprintf("; the kernel of %s dropped the %s: %s", s.At, s.Way, s.Reason)
			if s.Device != "" {
				text += " at " + s.Device
			}
			break
		}
	}
	return text
}

func (r *Report) differs(all []row) string {
	d := r.Live.Differs
	text := d.Words
	if n := numberOf(all, d.Hop); n > 0 {
		text = fmt.Sprintf("hop %d %s: %s", n, r.Answer.Hops[d.Hop].Where, d.Words)
	} else if d.Hop < len(r.Answer.Hops) {
		text = r.Answer.Hops[d.Hop].Where.String() + ": " + d.Words
	}
	if r.Answer.Outcomes > 1 {
		text += fmt.Sprintf(" (%d ways are left to chance)", r.Answer.Outcomes)
	}
	return text
}

func (s Style) paint(text string, v path.Verdict) string {
	colour := map[path.Verdict]string{path.Dropped: "31", path.Drop: "31", path.Arrived: "32", path.Unsure: "33", path.Blind: "33"}[v]
	if !s.Colour || colour == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func (s Style) rows(b *strings.Builder, report *Report, all []row) {
	lines := make([]line, 0, len(all))
	for _, r := range all {
		result := r.result
		switch r.verdict {
		case path.Drop:
			result = "DROP " + string(r.code)
		case path.Blind:
			result = "? " + string(r.code)
		}
		if !report.seen(r.hops...) {
			result = "~" + result
		}
		lines = append(lines, line{r.where.String(), r.decided, []string{result}, r.verdict})
	}
	t := s.table([]string{"RESULT"}, "DECIDED BY", lines)
	t.head(b)
	for i, r := range all {
		t.line(b, r.number, lines[i])
		if i+1 == len(all) {
			break
		}
		switch {
		case r.verdict == path.Drop:
			fmt.Fprintf(b, " -  if hop %d passed:\n", r.number)
		case r.diverts:
			fmt.Fprintf(b, " -  if hop %d passed it unchanged:\n", r.number)
		}
	}
}

// line is one line of a table.
type line struct {
	where, decided string
	results        []string
	verdict        path.Verdict
}

type table struct {
	s              Style
	title          string
	where, decided int
	result         int // columns of all results but the last
	columns        []string
}

func (s Style) table(columns []string, title string, lines []line) table {
	t := table{s: s, title: title, where: whereWidth, decided: decidedWidth, result: resultWidth, columns: columns}
	results := 0
	for _, l := range lines {
		t.where = max(t.where, len(l.where)+2)
		t.decided = max(t.decided, len(l.decided)+2)
		results = max(results, len(strings.Join(l.results, "          ")))
		for _, r := range l.results[:len(l.results)-1] {
			t.result = max(t.result, len(r)+1)
		}
	}
	if s.Width > 0 {
		room := s.Width - numberWidth - t.where - max(results, len(columns)*10)
		t.decided = min(t.decided, max(room, leastDecided))
	}
	return t
}

func (t table) head(b *strings.Builder) {
	fmt.Fprintf(b, " #  %-*s%-*s%s\n", t.where, "WHERE", t.decided, t.title, t.results(t.columns))
}

// results sets all but the last in columns of one width.
func (t table) results(results []string) string {
	var b strings.Builder
	for i, r := range results {
		if i+1 < len(results) {
			fmt.Fprintf(&b, "%-*s", t.result, r)
		} else {
			b.WriteString(r)
		}
	}
	return b.String()
}

func (t table) line(b *strings.Builder, number int, l line) {
	parts := fold(l.decided, t.decided-2)
	text := fmt.Sprintf("%2d  %-*s%-*s%s", number, t.where, l.where, t.decided, parts[0], t.s.paint(t.results(l.results), l.verdict))
	b.WriteString(strings.TrimRight(text, " ") + "\n")
	for _, p := range parts[1:] {
		fmt.Fprintf(b, "%*s%s\n", numberWidth+t.where, "", p)
	}
}

// fold breaks a text at blanks into lines of at most n columns; a word that is
// longer has a line of its own.
func fold(text string, n int) []string {
	var out []string
	cur := ""
	for _, w := range strings.Fields(text) {
		switch {
		case cur == "":
			cur = w
		case len(cur)+1+len(w) <= n:
			cur += " " + w
		default:
			out = append(out, cur)
			cur = w
		}
	}
	return append(out, cur)
}

func (s Style) footer(b *strings.Builder, r Report, all []row) {
	a, d := r.Answer, r.Diagnosis
	say := func(word, text string) {
		width := 0
		if s.Width > 0 {
			width = s.Width - 7
		}
		for i, l := range foldIf(text, width) {
			if i > 0 {
				word = ""
			}
			fmt.Fprintf(b, "%-7s%s\n", word, l)
		}
	}
	if r.Live != nil {
		say("LIVE", r.live())
	}
	if d.Cause != "" {
		say("CAUSE", d.Cause)
	}
	for _, l := range d.Seen {
		if strings.ContainsAny(strings.Split(l, " on ")[0][len("nstat "):], " ") {
			say("SEEN", l)
		} else {
			say("LOOK", l)
		}
	}
	if d.Scope != nil {
		say("SCOPE", d.Scope.String())
	}
	if a.Outcomes > 1 && a.Failing > 0 {
		first := ""
		if a.More {
			first = "the first "
		}
		say("SCOPE", fmt.Sprintf("%d of %s%d choices that are made at random, such as a Service's pod", a.Failing, first, a.Outcomes))
	}
	service(a, say)
	for _, m := range d.Mends {
		say("MEND", m.Words+"    replay: "+strings.ToUpper(string(m.Verdict)))
		if m.Lasting != "" {
			say("", "lasting: "+m.Lasting)
		}
	}
	if a.Verdict == path.Dropped && len(d.Mends) == 0 {
		say("MEND", "none that a replay proves; fairway explain "+string(a.Hops[a.Faults()[0]].Code))
	}
	for _, m := range d.Not {
		say("NOT", m.Words+": "+outcome(m, a, all))
	}
	for _, c := range a.Cost {
		if a.Verdict == path.Arrived {
			say("COST", c)
		}
	}
}

// mostWays bounds the lines about who is behind a Service.
const mostWays = 8

// service says what the API server has of the Service that was asked, and who is
// behind it, a line for all that are alike.
func service(a *path.Answer, say func(word, text string)) {
	if s := a.Service; s != nil {
		say("SVC", ofService(s))
		for _, n := range s.Notes {
			say("", n)
		}
	}
	if saidByHops(a.Ways) {
		return
	}
	for i, w := range a.Ways {
		if i == mostWays {
			say("", fmt.Sprintf("and %d kinds more; -o json has them", len(a.Ways)-mostWays))
			break
		}
		say("BEHIND", ofWay(w))
	}
}

// saidByHops: one choice alone is the way that the hops are of.
func saidByHops(ways []path.Way) bool { return len(ways) == 0 || len(ways) == 1 && ways[0].Alike == 0 }

func ofService(s *path.AskedService) string {
	text := s.ID
	if s.Addr.IsValid() {
		text += " is " + s.Addr.String()
		if s.Port > 0 {
			text += fmt.Sprintf(":%d", s.Port)
		}
	} else {
		text += " has no address of its own"
	}
	if s.Backends >= 0 {
		text += fmt.Sprintf("; %d of %d backends ready", s.Ready, s.Backends)
	}
	return text
}

func ofWay(w path.Way) string {
	text := w.To
	if w.Pod != "" {
		text += " " + w.Pod
	}
	if w.Alike > 0 {
		text += fmt.Sprintf(" and %d more alike", w.Alike)
	}
	text += ": " + string(w.Verdict)
	if w.Code != "" {
		text += ", " + string(w.Code)
	}
	return text
}

func foldIf(text string, width int) []string {
	if width <= 0 || len(text) <= width {
		return []string{text}
	}
	return fold(text, width-2) // room for what follows to be set in
}

func outcome(m path.Mend, a *path.Answer, all []row) string {
	switch {
	case m.Verdict == path.Unsure:
		return "cannot tell"
	case m.Moved < 0:
		return "dropped all the same"
	case m.Moved == a.Faults()[0]:
		return "the same drop"
	}
	return fmt.Sprintf("drop moves to hop %d", numberOf(all, m.Moved))
}
