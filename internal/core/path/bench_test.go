package path_test

import (
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
)

func crowd(tb testing.TB, name string, n int) *path.World {
	tb.Helper()
	w, err := example.Crowd(name, n)
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

func cluster(tb testing.TB) *path.World {
	tb.Helper()
	w, err := example.Fleet(35)
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

// BenchmarkTrace is one packet and its reply, between nodes with 737 pods, the most
// that any instance type takes: indexing the world is another benchmark. Bench
// path measures the same for people.
func BenchmarkTrace(b *testing.B) {
	for _, name := range []string{"seed003", "healthy"} {
		b.Run(name, func(b *testing.B) {
			w := crowd(b, name, 737)
			t := path.NewTracer(w)
			p := path.Probe{From: "b:default/sleep", To: "a:default/httpbin:80"}
			for b.Loop() {
				if _, err := t.Trace(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTraceAnew indexes the world for each packet.
func BenchmarkTraceAnew(b *testing.B) {
	w := crowd(b, "seed003", 737)
	p := path.Probe{From: "b:default/sleep", To: "a:default/httpbin:80"}
	for b.Loop() {
		if _, err := path.NewTracer(w).Trace(p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAll is every class of 1,000 pods to every other.
func BenchmarkAll(b *testing.B) {
	w := cluster(b)
	for b.Loop() {
		if _, err := path.NewTracer(w).All(path.TCP); err != nil {
			b.Fatal(err)
		}
	}
}
