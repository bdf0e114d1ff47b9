package result

import (
	"math"
	"slices"
)

// Percentile gives the value that p percent of the samples do not exceed, by
// linear interpolation between neighbours (type 7 of Hyndman and Fan, "Sample
// Quantiles in Statistical Packages", 1996: what R and NumPy give). NaN of no
// samples. The samples keep their order.
func Percentile(samples []float64, p float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(samples))
	at := p / 100 * float64(len(sorted)-1)
	low := int(math.Floor(at))
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// Over makes a row of samples that came in rounds: the p-th percentile of all
// samples, and its spread over the rounds.
func Over(metric string, p float64, rounds [][]float64) Row {
	var each []float64
	for _, r := range rounds {
		each = append(each, Percentile(r, p))
	}
	return Row{Metric: metric, Value: Percentile(slices.Concat(rounds...), p), P10: Percentile(each, 10), P90: Percentile(each, 90)}
}

// Ratio makes a row of two series whose rounds were run side by side: the p-th
// percentile of all samples of a over that of b, and the spread of the same
// ratio taken round by round, where what disturbs the machine hits both. Of
// series of different length the rounds that both have count for the spread.
func Ratio(metric string, p float64, a, b [][]float64) Row {
	var each []float64
	for i := range min(len(a), len(b)) {
		each = append(each, Percentile(a[i], p)/Percentile(b[i], p))
	}
	return Row{
		Metric: metric,
		Value:  Percentile(slices.Concat(a...), p) / Percentile(slices.Concat(b...), p),
		P10:    Percentile(each, 10), P90: Percentile(each, 90),
	}
}
