package check

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"
)

// minutes is how long series are.
const minutes = 90

var start = time.Unix(1_700_000_000, 0)

type labelSet = labels.Labels

// series is a storage that Prometheus's engine can ask.
type series []storage.Series

// Querier looks at all series, whatever the time.
func (s series) Querier(_, _ int64) (storage.Querier, error) { return querier{series: s}, nil }

type querier struct {
	storage.LabelQuerier // never asked
	series               series
}

func (q querier) Close() error { return nil }

// Select returns the series that match, in the order of their labels.
func (q querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	var out []storage.Series
next:
	for _, s := range q.series {
		for _, m := range matchers {
			if !m.Matches(s.Labels().Get(m.Name)) {
				continue next
			}
		}
		out = append(out, s)
	}
	return &seriesSet{series: out, at: -1}
}

type seriesSet struct {
	series []storage.Series
	at     int
}

func (s *seriesSet) Next() bool                        { s.at++; return s.at < len(s.series) }
func (s *seriesSet) At() storage.Series                { return s.series[s.at] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// parseSeries reads the notation of promtool's tests, with a value a minute from start on.
func parseSeries(t *testing.T, text string) storage.Series {
	t.Helper()
	name, values, err := promQL.ParseSeriesDesc(text)
	require.NoError(t, err, text)
	require.GreaterOrEqual(t, len(values), minutes, text)
	var out []chunks.Sample
	for i, v := range values {
		if !v.Omitted {
			out = append(out, sample{start.Add(time.Duration(i) * time.Minute).UnixMilli(), v.Value})
		}
	}
	return storage.NewListSeries(name, out)
}

// sample is a float at a time in milliseconds.
type sample struct {
	at    int64
	value float64
}

func (s sample) ST() int64                     { return 0 }
func (s sample) T() int64                      { return s.at }
func (s sample) F() float64                    { return s.value }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }
