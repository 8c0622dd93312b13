package report

import (
	"fmt"
	"math"
	"strings"
)

// marks stand for the series of a text curve, in their order.
const marks = "oxabcdefghijklmnpqrstuvwyz"

// curve draws the medians of a table in characters. Where two series meet, the
// later one is seen.
func (t *Table) curve(width, height int) string {
	place, _ := t.xAxis()
	y := t.yAxis()
	grid := make([][]byte, height)
	for i := range grid {
		grid[i] = []byte(strings.Repeat(" ", width))
	}
	line := func(v float64) int { return height - 1 - int(math.Round(y.at(v)*float64(height-1))) }
	var legend []string
	for i, s := range t.Series {
		mark := marks[i%len(marks)]
		legend = append(legend, fmt.Sprintf("%c %s", mark, s.Name))
		for _, p := range s.Points {
			if v := p.Median(); !math.IsNaN(v) {
				grid[line(v)][column(place(p.X), width)] = mark
			}
		}
	}
	margins := make([]string, height)
	margin := 0
	for _, v := range y.ticks() {
		margins[line(v)] = number(v)
		margin = max(margin, len(number(v)))
	}
	var out strings.Builder
	for i := range grid {
		fmt.Fprintf(&out, "  %*s |%s\n", margin, margins[i], strings.TrimRight(string(grid[i]), " "))
	}
	fmt.Fprintf(&out, "  %*s +%s %s\n", margin, "", strings.Repeat("-", width), t.XName)
	fmt.Fprintf(&out, "  %*s  %s\n", margin, "", t.xLabels(place, width))
	fmt.Fprintf(&out, "  %*s  %s\n", margin, "", strings.Join(legend, "   "))
	return out.String()
}

func column(at float64, width int) int { return int(math.Round(at * float64(width-1))) }

// xLabels writes the sizes below their columns, and leaves out what would touch
// the one before.
func (t *Table) xLabels(place func(float64) float64, width int) string {
	var line []rune
	for _, p := range t.xs() {
		name := []rune(p.name())
		at := max(0, column(place(p.X), width)-len(name)/2)
		if len(line) > 0 && at <= len(line) {
			continue
		}
		line = append(line, []rune(strings.Repeat(" ", at-len(line)))...)
		line = append(line, name...)
	}
	return string(line)
}
