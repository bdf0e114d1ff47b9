// Package path measures how long an explanation takes in large worlds.
//
//	trace_ms_737   one packet and its reply, between two nodes with 737 pods each
//	all_1000_s     every class of 1,000 pods to every other, to nodes, to the internet
//
// 737 pods are what the largest instance types take on EKS. Two worlds are asked in
// turn: the first has two rules for each pod, as Cilium writes them, which a lookup
// walks as the kernel does; the second has Fairway's few. The figure is that of
// the first, which is the slower.
//
// A node's index is made once for each world and kept; what the first packet pays
// for it is a figure of its own.
//
// [Run] is one goroutine and touches nothing outside its memory.
package path

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/fairway-cni/fairway/bench/result"
	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
)

// size is how much is asked.
type size struct {
	pods, nodes    int
	rounds, traces int // traces in a round
}

var full = size{pods: 737, nodes: 35, rounds: 8, traces: 200}

// The project's goals.
const (
	mostTrace = 1 // milliseconds
	mostAll   = 5 // seconds
)

var probe = path.Probe{From: "b:default/sleep", To: "a:default/httpbin:80"}

// Figures are by round: milliseconds, and seconds of all.
type Figures struct {
	pods, all           int // pods on a node; pods of all nodes
	trace, ours, anew   [][]float64
	matrix              [][]float64
	delivered, explored int // pairs of the matrix
}

// Run measures, prints a table to out, and says to progress what it does.
func Run(ctx context.Context, out, progress io.Writer) (Figures, error) {
	f, err := measure(ctx, full, func(format string, args ...any) { fmt.Fprintf(progress, "path: "+format+"\n", args...) })
	if err != nil {
		return Figures{}, err
	}
	return f, f.WriteTable(out)
}

func measure(ctx context.Context, n size, say func(string, ...any)) (Figures, error) {
	f := Figures{pods: n.pods}
	say("making worlds: %d pods on each node; %d nodes of 29", n.pods, n.nodes)
	rules, err := example.Crowd("seed003", n.pods)
	if err != nil {
		return f, err
	}
	few, err := example.Crowd("healthy", n.pods)
	if err != nil {
		return f, err
	}
	fleet, err := example.Fleet(n.nodes)
	if err != nil {
		return f, err
	}
	for i := range fleet.Nodes {
		f.all += len(fleet.Nodes[i].Pods.Value)
	}
	for i := range n.rounds {
		if err := ctx.Err(); err != nil {
			return f, err
		}
		say("round %d of %d", i+1, n.rounds)
		slow, first, err := traces(rules, n.traces, path.Dropped)
		if err != nil {
			return f, err
		}
		quick, _, err := traces(few, n.traces, path.Arrived)
		if err != nil {
			return f, err
		}
		began := time.Now()
		pairs, err := path.NewTracer(fleet).All(path.TCP)
		if err != nil {
			return f, err
		}
		f.matrix = append(f.matrix, []float64{time.Since(began).Seconds()})
		f.trace, f.ours, f.anew = append(f.trace, slow), append(f.ours, quick), append(f.anew, []float64{first})
		f.delivered, f.explored = 0, len(pairs)
		for _, p := range pairs {
			if p.Verdict == path.Arrived {
				f.delivered++
			}
		}
	}
	return f, nil
}

// traces asks n times, and once before with a world that nobody has asked yet, all
// in milliseconds. A verdict other than the story's is an error: what is measured
// must be the explanation.
func traces(w *path.World, n int, want path.Verdict) (times []float64, first float64, err error) {
	began := time.Now()
	t := path.NewTracer(w)
	for i := range n + 1 {
		if i > 0 {
			began = time.Now()
		}
		a, err := t.Trace(probe)
		if err != nil {
			return nil, 0, err
		}
		took := float64(time.Since(began)) / float64(time.Millisecond)
		if a.Verdict != want {
			return nil, 0, fmt.Errorf("trace %s to %s: %s, want %s", probe.From, probe.To, a.Verdict, want)
		}
		if i == 0 {
			first = took
			continue
		}
		times = append(times, took)
	}
	return times, first, nil
}

// Report names the figures.
func (f Figures) Report() result.Report {
	trace, all := result.Over(fmt.Sprintf("trace_ms_%d", f.pods), 50, f.trace), result.Over("all_1000_s", 50, f.matrix)
	trace.AtMost, all.AtMost = mostTrace, mostAll
	return result.Report{Rows: []result.Row{
		trace, all,
		result.Over(fmt.Sprintf("trace_fairway_ms_%d", f.pods), 50, f.ours),
		result.Over(fmt.Sprintf("trace_first_ms_%d", f.pods), 50, f.anew),
	}}
}

// WriteTable prints the figures beside what they are of.
func (f Figures) WriteTable(w io.Writer) error {
	rows := f.Report().Rows
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT\tMEDIAN\tOF")
	fmt.Fprintf(t, "a packet and its reply\t%.2f ms\tnodes with %d pods, two rules each\n", rows[0].Value, f.pods)
	fmt.Fprintf(t, "the same by Fairway\t%.2f ms\tno rule for a pod\n", rows[2].Value)
	fmt.Fprintf(t, "the first packet\t%.2f ms\tthe world is indexed\n", rows[3].Value)
	fmt.Fprintf(t, "all classes\t%.2f s\t%d pods; %d pairs of classes, %d delivered\n", rows[1].Value, f.all, f.explored, f.delivered)
	return t.Flush()
}
