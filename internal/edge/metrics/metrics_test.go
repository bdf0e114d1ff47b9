package metrics

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// scrape is what a request for /metrics is answered.
func scrape(t testing.TB, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// ours is the lines of a scrape, less those of the process and the Go runtime.
func ours(text string) string {
	lines := slices.DeleteFunc(strings.SplitAfter(text, "\n"), func(line string) bool {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		return !strings.HasPrefix(name, "awscni_") && !strings.HasPrefix(name, "fairway_")
	})
	return strings.Replace(strings.Join(lines, ""), runtime.Version(), "GOVERSION", 1)
}

var pool = Pool{
	ENIs: 2, MaxENIs: 3, Addresses: map[string]int{"free": 3, "assigned": 12, "cooling": 2, "leaving": 1, "arriving": 9},
	Total: 27, Assigned: 12, MaxAddresses: 27, Prefixes: 1, AssignedOf: map[string]int{"eni-0": 12, "eni-1": 0},
	Pods: 13, Lost: 1, Waiting: 2, OldestWait: 1500 * time.Millisecond, Growing: 1, Shrinking: 2, Blocked: 1, Offline: true,
	SubnetFree: map[string]int{"subnet-1": 201},
}

func ask(context.Context) (Pool, error) { return pool, nil }

// TestScrape holds the names and labels of all that is served.
func TestScrape(t *testing.T) {
	m := New()
	m.Call("ADD", OK, 3*time.Millisecond)
	m.Call("ADD", NoAddress, 45*time.Second)
	m.Call("DEL", OK, time.Millisecond)
	m.Call("VERSION", BadRequest, 0)
	m.Exhausted()
	m.Request(Request{Action: "AttachNetworkInterface", Result: "ok", Latency: 120 * time.Millisecond})
	m.Request(Request{Action: "AttachNetworkInterface", Result: "throttled", Code: "RequestLimitExceeded", Latency: 30 * time.Millisecond})
	m.Change("attach eni", "ok")
	m.Read("enis", true)
	m.Read("subnets", false)
	m.Reconciled()
	m.Repaired()
	m.Unmended()
	m.Orphan("device_gone")
	m.LeakedDeleted()
	got := ours(scrape(t, m.Handler(ask)))
	file := filepath.Join("testdata", "scrape.txt")
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got), UPDATE=1 writes it:\n%s", file, d)
	}
}

// TestProcess: the collectors of the process and the runtime are there.
func TestProcess(t *testing.T) {
	text := scrape(t, New().Handler(ask))
	for _, name := range []string{"\nprocess_resident_memory_bytes ", "\ngo_goroutines "} {
		if !strings.Contains(text, name) {
			t.Errorf("no line %q", strings.TrimSpace(name))
		}
	}
}

// TestStuckLoop: a scrape ends although nobody says how the pool is, with the
// counters, without stale gauges, and says so.
func TestStuckLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New()
		m.Exhausted()
		h := m.Handler(func(ctx context.Context) (Pool, error) {
			<-ctx.Done()
			return pool, ctx.Err()
		})
		began := time.Now()
		text := scrape(t, h)
		if took := time.Since(began); took != patience {
			t.Errorf("took %s, want %s", took, patience)
		}
		for _, line := range []string{"\nfairway_node_loop_up 0\n", "\nawscni_no_available_ip_addresses 1\n"} {
			if !strings.Contains(text, line) {
				t.Errorf("no line %q", strings.TrimSpace(line))
			}
		}
		if strings.Contains(text, "fairway_addresses") {
			t.Error("it has gauges that nobody gave it")
		}
	})
}

// TestScrapeAgain: an ENI or subnet that is gone leaves no series behind, and a
// loop that answers again is up again.
func TestScrapeAgain(t *testing.T) {
	now, err := pool, error(nil)
	h := New().Handler(func(context.Context) (Pool, error) { return now, err })
	if text := scrape(t, h); !strings.Contains(text, `{eni="eni-1"}`) || !strings.Contains(text, `{subnet="subnet-1"}`) {
		t.Fatalf("the ENI or the subnet is missing:\n%s", ours(text))
	}
	now.AssignedOf, now.SubnetFree = map[string]int{"eni-0": 1}, nil
	if text := scrape(t, h); strings.Contains(text, "eni-1") || strings.Contains(text, "subnet-1") {
		t.Error("what is gone is served")
	}
	err = errors.New("busy")
	scrape(t, h)
	err = nil
	if text := scrape(t, h); !strings.Contains(text, "\nfairway_node_loop_up 1\n") {
		t.Error("the loop answers, and is not up")
	}
}

// TestCodes: what EC2 writes into a label is bounded in form and number.
func TestCodes(t *testing.T) {
	m := New()
	request := func(code string) { m.Request(Request{Action: "A", Result: "failed", Code: code}) }
	for i := range maxCodes + 100 {
		request(fmt.Sprintf("Code.%d", i))
	}
	request("Code.1")
	for _, bad := range []string{"two words", "a\nb", `"`, "ü", strings.Repeat("x", maxCode+1)} {
		request(bad)
	}
	text := scrape(t, m.Handler(ask))
	if n := strings.Count(text, "awscni_aws_api_error_count{"); n != maxCodes+1 {
		t.Errorf("%d series, want %d and one for all others", n, maxCodes)
	}
	for _, line := range []string{`awscni_aws_api_error_count{api="A",error="Code.1"} 2`, `awscni_aws_api_error_count{api="A",error="other"} 105`} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}

// TestOnlyMetrics: nothing else is served, and nothing is taken.
func TestOnlyMetrics(t *testing.T) {
	h := New().Handler(ask)
	for _, tt := range []struct {
		method, path string
		want         int
	}{{"GET", "/", 404}, {"GET", "/debug/pprof/", 404}, {"POST", "/metrics", 405}, {"GET", "/metrics/x", 404}} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.want {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, w.Code, tt.want)
		}
	}
}

// TestNil: a part of the agent that nobody observes counts nothing.
func TestNil(t *testing.T) {
	var m *Metrics
	m.Call("ADD", OK, 0)
	m.Exhausted()
	m.Request(Request{})
	m.Change("", "")
	m.Read("", true)
	m.Reconciled()
	m.Repaired()
	m.Unmended()
	m.Orphan("")
	m.LeakedDeleted()
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	m := New()
	h := m.Handler(ask)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 50 {
				m.Call("ADD", OK, time.Millisecond)
				m.Request(Request{Action: "A", Result: "failed", Code: fmt.Sprint("C", i, j)})
			}
		})
	}
	scrape(t, h)
	all.Wait()
	if text := scrape(t, h); !strings.Contains(text, "\nawscni_add_ip_req_count 400\n") {
		t.Error("calls were lost")
	}
}

func BenchmarkScrape(b *testing.B) {
	m := New()
	m.Call("ADD", OK, time.Millisecond)
	h := m.Handler(ask)
	for b.Loop() {
		scrape(b, h)
	}
}

// TestDocumented: every name that is served has its row in the documentation.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	served, err := os.ReadFile(filepath.Join("testdata", "scrape.txt"))
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	for line := range strings.Lines(string(served)) {
		f := strings.Fields(line)
		if f[0] != "#" || f[1] != "TYPE" {
			continue
		}
		names++
		if row := fmt.Sprintf("\n| `%s` | %s | ", f[2], f[3]); !strings.Contains(string(text), row) {
			t.Errorf("docs/metrics.md has no row that begins %q", row[1:])
		}
	}
	if names < 30 {
		t.Errorf("%d names are served: where are the others?", names)
	}
}
