package control

import (
	"slices"
	"time"
)

// interval is from an event to its commit.
type interval struct{ from, to time.Time }

// summarize returns the lengths in milliseconds, in the order of their beginnings,
// and the largest number of intervals that have a moment in common.
func summarize(list []interval) (lengths []float64, most int) {
	slices.SortFunc(list, func(a, b interval) int { return a.from.Compare(b.from) })
	type edge struct {
		at  time.Time
		add int
	}
	var edges []edge
	for _, i := range list {
		lengths = append(lengths, milliseconds(i.to.Sub(i.from)))
		edges = append(edges, edge{i.from, 1}, edge{i.to, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return a.add - b.add
	})
	open := 0
	for _, e := range edges {
		open += e.add
		most = max(most, open)
	}
	return lengths, most
}
