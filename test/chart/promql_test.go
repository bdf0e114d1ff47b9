package chart

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// interval is between two looks of Prometheus, and between two evaluations of rules.
const interval = 30 * time.Second

// history is what Prometheus has stored of one target: a [storage.Queryable].
type history map[string]*stored

type stored struct {
	labels  labels.Labels
	samples []chunks.Sample
}

type sample struct {
	at    int64
	value float64
}

func (s sample) T() int64                      { return s.at }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.value }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }

// store enters a look at a time; one without an answer is a target that is down.
func (h history) store(t *testing.T, text scrape, at time.Time) {
	t.Helper()
	up := 1.0
	if text == nil {
		up = 0
	}
	h.add(labels.FromStrings(labels.MetricName, "up"), at, up)
	p := textparse.NewPromParser(text, labels.NewSymbolTable(), false)
	for text != nil {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("metrics: %v", err)
		}
		if entry != textparse.EntrySeries {
			continue
		}
		_, _, value := p.Series()
		var l labels.Labels
		p.Labels(&l)
		h.add(l, at, value)
	}
}

func (h history) add(l labels.Labels, at time.Time, value float64) {
	b := labels.NewBuilder(l)
	b.Set("job", "fairway-agent")
	b.Set("instance", "10.0.1.4:61678")
	l = b.Labels()
	if h[l.String()] == nil {
		h[l.String()] = &stored{labels: l}
	}
	h[l.String()].samples = append(h[l.String()].samples, sample{at.UnixMilli(), value})
}

func (h history) Querier(int64, int64) (storage.Querier, error) { return querier{history: h}, nil }

type querier struct {
	storage.LabelQuerier // nothing asks it
	history
}

func (querier) Close() error { return nil }

func (q querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	var found []storage.Series
	for _, key := range slices.Sorted(maps.Keys(q.history)) {
		s := q.history[key]
		if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) }) {
			found = append(found, storage.NewListSeries(s.labels, s.samples))
		}
	}
	return &seriesSet{series: found}
}

type seriesSet struct {
	series []storage.Series
	next   int
}

func (s *seriesSet) Next() bool                        { s.next++; return s.next <= len(s.series) }
func (s *seriesSet) At() storage.Series                { return s.series[s.next-1] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// fires says whether a rule's expression gives a result, at every evaluation for so
// long, at any time of the history.
func (h history) fires(t *testing.T, r rule, from, to time.Time) bool {
	t.Helper()
	e := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute})
	defer e.Close()
	q, err := e.NewRangeQuery(t.Context(), h, nil, r.Expr, from, to, interval)
	if err != nil {
		t.Fatalf("%s: %v", r.Alert, err)
	}
	defer q.Close()
	m, err := q.Exec(t.Context()).Matrix()
	if err != nil {
		t.Fatalf("%s: %v", r.Alert, err)
	}
	for _, s := range m {
		since, last := int64(0), int64(0)
		for _, p := range s.Floats {
			if last == 0 || p.T-last > interval.Milliseconds() {
				since = p.T
			}
			if last = p.T; time.Duration(last-since)*time.Millisecond >= r.wait {
				return true
			}
		}
	}
	return false
}
