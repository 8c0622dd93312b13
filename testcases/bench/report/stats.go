package report

import (
	"math"
	"slices"
)

// Spread is the middle of some values and the quartiles around it. All three are
// NaN if there are no values.
type Spread struct {
	Median float64 `json:"median"`
	// Low and High are the first and the third quartile.
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// SpreadOf returns the median and the quartiles of the values. It ignores NaN.
func SpreadOf(values []float64) Spread {
	return Spread{Median: Quantile(values, 0.5), Low: Quantile(values, 0.25), High: Quantile(values, 0.75)}
}

// Quantile returns the value below which the fraction q (0 to 1) of the values
// lies, between two values in proportion. It ignores NaN, and is NaN without values.
func Quantile(values []float64, q float64) float64 {
	sorted := slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	if len(sorted) == 0 {
		return math.NaN()
	}
	slices.Sort(sorted)
	at := q * float64(len(sorted)-1)
	low := int(math.Floor(at))
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	part := at - float64(low)
	return sorted[low]*(1-part) + sorted[low+1]*part
}

// Spread returns the median and the quartiles of the samples.
func (p Point) Spread() Spread { return SpreadOf(p.Samples) }

// Median returns the middle of the samples, NaN without any.
func (p Point) Median() float64 { return Quantile(p.Samples, 0.5) }

// P99 returns the value that one sample in a hundred exceeds. With less than a
// hundred samples it lies between the two largest.
func (p Point) P99() float64 { return Quantile(p.Samples, 0.99) }

// Ratios divides sample i of a by sample i of b, for all rounds that both have. A
// division by zero and a failed round give NaN.
func Ratios(a, b []float64) []float64 {
	n := min(len(a), len(b))
	out := make([]float64, n)
	for i := range n {
		out[i] = a[i] / b[i]
		if b[i] == 0 {
			out[i] = math.NaN()
		}
	}
	return out
}

// Ratio returns a/b, round by round. Both points have to be from the same rounds.
func Ratio(a, b Point) Spread { return SpreadOf(Ratios(a.Samples, b.Samples)) }

// Ratio returns series/other at x, round by round; NaN if one of them has no
// samples there.
func (t *Table) Ratio(series, other string, x float64) Spread {
	a, _ := t.Point(series, x)
	b, _ := t.Point(other, x)
	return Ratio(a, b)
}

// Growth returns how many times as large the samples of a series are at x as at
// from, round by round; NaN if one of them is missing.
func (t *Table) Growth(series string, x, from float64) Spread {
	a, _ := t.Point(series, x)
	b, _ := t.Point(series, from)
	return Ratio(a, b)
}
