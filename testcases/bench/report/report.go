package report

import (
	"slices"
	"time"
)

// Report is what one run found.
type Report struct {
	Machine Machine   `json:"machine"`
	Started time.Time `json:"started"`
	// Quick is true for a run with fewer sizes and rounds.
	Quick  bool    `json:"quick"`
	Tables []Table `json:"tables"`
}

// Add appends a table.
func (r *Report) Add(t Table) { r.Tables = append(r.Tables, t) }

// Missed returns the goals of all tables that were not met.
func (r *Report) Missed() []Goal {
	var missed []Goal
	for _, t := range r.Tables {
		for _, g := range t.Goals {
			if !g.Met() {
				missed = append(missed, g)
			}
		}
	}
	return missed
}

// Better tells which values of a table are good ones.
type Better string

// The two directions, and the one of a table that only informs.
const (
	Lower  Better = "lower"
	Higher Better = "higher"
	None   Better = ""
)

// Table is one quantity of several subjects at several sizes.
type Table struct {
	// Name is short, unique in the report, and good for a file name.
	Name  string `json:"name"`
	Title string `json:"title"`
	// Unit is what the samples count: "ns/packet", "ms", "MB".
	Unit string `json:"unit"`
	// XName is what the X of the points counts: "policies".
	XName  string `json:"x_name"`
	Better Better `json:"better,omitempty"`
	// Baseline names the series to which the others are given as ratios, at the
	// same X. Empty means no ratios.
	Baseline string   `json:"baseline,omitempty"`
	Series   []Series `json:"series"`
	Goals    []Goal   `json:"goals,omitempty"`
	Notes    []string `json:"notes,omitempty"`
}

// Series is one subject of a table: a column.
type Series struct {
	Name   string  `json:"name"`
	Points []Point `json:"points"`
}

// Point is what was measured of one subject at one size.
type Point struct {
	X float64 `json:"x"`
	// Label is shown in place of X, if it is not empty. Points of one X have one label.
	Label string `json:"label,omitempty"`
	// Samples holds one value a round, in the order of the rounds. NaN is a round
	// that failed for this subject; it counts for nothing.
	Samples []float64 `json:"samples"`
}

// Goal is what a value is expected to be.
type Goal struct {
	Text  string  `json:"text"`
	Value float64 `json:"value"`
	Bound float64 `json:"bound"`
	// AtMost is true if Bound is the highest good value, and false if it is the lowest.
	AtMost bool `json:"at_most"`
}

// Met reports whether the goal is reached. A value that is not a number is not.
func (g Goal) Met() bool {
	if g.AtMost {
		return g.Value <= g.Bound
	}
	return g.Value >= g.Bound
}

// AtMost adds the goal that value is not above bound.
func (t *Table) AtMost(text string, value, bound float64) {
	t.Goals = append(t.Goals, Goal{Text: text, Value: value, Bound: bound, AtMost: true})
}

// AtLeast adds the goal that value is not below bound.
func (t *Table) AtLeast(text string, value, bound float64) {
	t.Goals = append(t.Goals, Goal{Text: text, Value: value, Bound: bound})
}

// AddSeries adds a series without points behind the others, unless it is there.
func (t *Table) AddSeries(name string) {
	if !slices.ContainsFunc(t.Series, func(s Series) bool { return s.Name == name }) {
		t.Series = append(t.Series, Series{Name: name})
	}
}

// Record appends a sample to the point of a series at x. It makes the series and
// the point when they are new; they stay in the order in which they were made.
func (t *Table) Record(series string, x float64, label string, sample float64) {
	s := slices.IndexFunc(t.Series, func(s Series) bool { return s.Name == series })
	if s < 0 {
		s = len(t.Series)
		t.Series = append(t.Series, Series{Name: series})
	}
	points := &t.Series[s].Points
	p := slices.IndexFunc(*points, func(p Point) bool { return p.X == x })
	if p < 0 {
		p = len(*points)
		*points = append(*points, Point{X: x, Label: label})
	}
	(*points)[p].Samples = append((*points)[p].Samples, sample)
}

// Point returns what was measured of a series at x, and whether anything was.
func (t *Table) Point(series string, x float64) (Point, bool) {
	for _, s := range t.Series {
		if s.Name != series {
			continue
		}
		for _, p := range s.Points {
			if p.X == x {
				return p, true
			}
		}
	}
	return Point{}, false
}

// xs returns the sizes of the table, ascending, with their labels.
func (t *Table) xs() []Point {
	var all []Point
	for _, s := range t.Series {
		for _, p := range s.Points {
			if !slices.ContainsFunc(all, func(q Point) bool { return q.X == p.X }) {
				all = append(all, Point{X: p.X, Label: p.Label})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Point) int {
		switch {
		case a.X < b.X:
			return -1
		case a.X > b.X:
			return 1
		}
		return 0
	})
	return all
}
