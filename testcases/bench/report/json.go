package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
)

// WriteJSON writes the report with its raw samples, indented. A value that is not a
// number is written as null.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// value is a number that JSON can hold.
func value(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// MarshalJSON writes the samples, and what is usually asked of them.
func (p Point) MarshalJSON() ([]byte, error) {
	samples := make([]*float64, len(p.Samples))
	for i, s := range p.Samples {
		samples[i] = value(s)
	}
	s := p.Spread()
	return json.Marshal(struct {
		X       float64    `json:"x"`
		Label   string     `json:"label,omitempty"`
		Median  *float64   `json:"median"`
		Low     *float64   `json:"low_quartile"`
		High    *float64   `json:"high_quartile"`
		P99     *float64   `json:"p99"`
		Samples []*float64 `json:"samples"`
	}{p.X, p.Label, value(s.Median), value(s.Low), value(s.High), value(p.P99()), samples})
}

// MarshalJSON writes the goal and whether it was met.
func (g Goal) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Text   string   `json:"text"`
		Value  *float64 `json:"value"`
		Bound  *float64 `json:"bound"`
		AtMost bool     `json:"at_most"`
		Met    bool     `json:"met"`
	}{g.Text, value(g.Value), value(g.Bound), g.AtMost, g.Met()})
}
