package probe

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func endpoints(n int) []Endpoint {
	var all []Endpoint
	addr := netip.MustParseAddr("10.0.1.10")
	for i := range n {
		all = append(all, Endpoint{Name: fmt.Sprintf("pod-%d", i+1), Addr: addr})
		addr = addr.Next()
	}
	return all
}

func results(pairs []Pair, not map[Pair]Result) []Result {
	var all []Result
	for _, p := range pairs {
		r, ok := not[p]
		if !ok {
			r = Result{Kind: OK, RTT: 40 * time.Microsecond}
		}
		r.Pair = p
		all = append(all, r)
	}
	return all
}

func TestRender(t *testing.T) {
	eps := endpoints(11)
	eps[1].Name = "a-name-that-is-much-longer-than-others"
	pairs := append(AllPairs(11)[:30], Pair{10, 0}, Pair{10, 9}, Pair{10, 9})
	r := Report{Endpoints: eps, Results: results(pairs, map[Pair]Result{
		{0, 2}:  {Kind: Timeout, Detail: "connect: i/o timeout: no answer to the SYN"},
		{2, 1}:  {Kind: WrongSource, Detail: "source seen 10.0.1.1, want 10.0.1.12"},
		{10, 9}: {Kind: NoListener, Detail: "listen tcp 10.0.1.19:7070: bind: cannot assign requested address"},
	})}
	got := r.String()
	want := strings.TrimPrefix(`
                                          1
from \ to               1 2 3 4 5 6 7 8 9 0 1
 1 pod-1                - . T . . . . . . . .
 2 ~-longer-than-others . - . . . . . . . . .
 3 pod-3                . S - . . . . . . . .
11 pod-11               . - - - - - - - - L -
. ok  T timeout  S wrong source  L no listener  - not asked
  pod-1 (10.0.1.10) -> pod-3 (10.0.1.12): timeout: connect: i/o timeout: no answer to the SYN
  pod-3 (10.0.1.12) -> a-name-that-is-much-longer-than-others (10.0.1.11): wrong source: source seen 10.0.1.1, want 10.0.1.12
  pod-11 (10.0.1.20) -> pod-10 (10.0.1.19): no listener: listen tcp 10.0.1.19:7070: bind: cannot assign requested address
  pod-11 (10.0.1.20) -> pod-10 (10.0.1.19): no listener: listen tcp 10.0.1.19:7070: bind: cannot assign requested address
flows 29/33 ok, round trip p50 40µs, max 40µs
`, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s\n%s", diff, got)
	}
	if r.Count(OK) != 29 || r.Count(NoListener) != 2 || len(r.Failures()) != 4 {
		t.Errorf("ok %d, no listener %d, failures %d", r.Count(OK), r.Count(NoListener), len(r.Failures()))
	}
}

// Nothing of the matrix is wider than asked for, and no cell is lost.
func TestRenderWidths(t *testing.T) {
	for _, n := range []int{1, 2, 9, 10, 30, 99, 100, 130} {
		for _, width := range []int{1, 40, 80, 100, 300} {
			r := Report{Endpoints: endpoints(n), Results: results(AllPairs(n), nil)}
			text := r.Render(width)
			cells := 0
			for line := range strings.Lines(text) {
				line = strings.TrimSuffix(line, "\n")
				if strings.HasPrefix(line, ". ok") || strings.HasPrefix(line, "flows") {
					continue
				}
				if len(line) > max(width, 30) {
					t.Errorf("n=%d width=%d: line of %d columns: %s", n, width, len(line), line)
				}
				cells += strings.Count(line, ".")
			}
			if cells != n*(n-1) {
				t.Errorf("n=%d width=%d: %d cells, want %d\n%s", n, width, cells, n*(n-1), text)
			}
		}
	}
	if got := len(strings.Split(Report{Endpoints: endpoints(30), Results: results(AllPairs(30), nil)}.String(), "\n")); got > 36 {
		t.Errorf("30 by 30 at 100 columns takes %d lines: it should be one block", got)
	}
}

func TestRenderManyFailures(t *testing.T) {
	pairs := AllPairs(10)
	not := map[Pair]Result{}
	for _, p := range pairs {
		not[p] = Result{Kind: Refused, Detail: "connection refused"}
	}
	text := Report{Endpoints: endpoints(10), Results: results(pairs, not)}.String()
	if n := strings.Count(text, "connection refused"); n != maxListed || !strings.Contains(text, "  and 40 more\nflows 0/90 ok\n") {
		t.Errorf("%d failures listed, want %d\n%s", n, maxListed, text)
	}
	if text := (Report{}).String(); text != "flows 0/0 ok\n" {
		t.Errorf("empty report: %q", text)
	}
}
