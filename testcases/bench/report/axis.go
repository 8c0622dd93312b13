package report

import "math"

// axis places the values of a table between 0 and 1.
type axis struct {
	low, high float64
	log       bool
}

// at returns the place of v. On a logarithmic axis, what is below the low end is there.
func (a axis) at(v float64) float64 {
	low, high := a.low, a.high
	if a.log {
		if v <= low {
			return 0
		}
		low, high, v = math.Log10(low), math.Log10(high), math.Log10(v)
	}
	if high == low {
		return 0.5
	}
	return (v - low) / (high - low)
}

// ticks returns round values along the axis, ascending: powers of ten, or about
// five steps.
func (a axis) ticks() []float64 {
	var out []float64
	if a.log {
		for e := math.Ceil(math.Log10(a.low) - 1e-9); e <= math.Log10(a.high)+1e-9; e++ {
			out = append(out, math.Pow(10, e))
		}
		return out
	}
	span := a.high - a.low
	if span <= 0 {
		return []float64{a.low}
	}
	step := math.Pow(10, math.Floor(math.Log10(span/4)))
	for _, m := range []float64{5, 2} {
		if span/(step*m) >= 4 {
			step *= m
			break
		}
	}
	for v := math.Ceil(a.low/step) * step; v <= a.high*(1+1e-9); v += step {
		out = append(out, v)
	}
	return out
}

// xAxis is logarithmic, but for sizes that are as far from each other as the next. A size
// of zero is put one power of ten below the smallest.
// Sizes that have labels are not numbers: they stand side by side, as the returned
// function says, and nothing lies between them.
func (t *Table) xAxis() (place func(x float64) float64, even bool) {
	xs := t.xs()
	low, high := math.Inf(1), math.Inf(-1)
	order := map[float64]int{}
	for i, p := range xs {
		order[p.X] = i
		even = even || p.Label != "" || p.X < 0
		if p.X > 0 {
			low, high = min(low, p.X), max(high, p.X)
		}
	}
	if even || high <= 0 {
		return func(x float64) float64 { return (float64(order[x]) + 0.5) / float64(len(xs)) }, true
	}
	if linear(xs) {
		return axis{low: xs[0].X, high: high}.at, false
	}
	if xs[0].X <= 0 {
		low /= 10
	}
	return axis{low: low, high: high, log: true}.at, false
}

// linear reports whether sizes are evenly spaced.
func linear(xs []Point) bool {
	for i := 2; i < len(xs); i++ {
		if xs[i].X-xs[i-1].X != xs[1].X-xs[0].X {
			return false
		}
	}
	return len(xs) > 2
}

// decades are at most on an axis of values; what is less is not worth seeing.
const decades = 6

// yAxis begins at zero. Costs that differ by much are on a logarithmic one.
func (t *Table) yAxis() axis {
	low, high := math.Inf(1), 0.0
	for _, s := range t.Series {
		for _, p := range s.Points {
			v := p.Spread()
			if v.Low > 0 {
				low = min(low, v.Low)
			}
			if v.High > high {
				high = v.High
			}
		}
	}
	if high == 0 {
		return axis{high: 1}
	}
	if t.Better == Lower && high/low > 30 {
		top := math.Ceil(math.Log10(high))
		return axis{low: math.Pow(10, max(math.Floor(math.Log10(low)), top-decades)), high: math.Pow(10, top), log: true}
	}
	return axis{high: high * 1.05}
}
