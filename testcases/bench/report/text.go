package report

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// WriteText writes the report as text: the machine, every table with its goals,
// and how many goals were met.
func (r *Report) WriteText(w io.Writer) error {
	m := r.Machine
	out := &page{w: w}
	out.print("%s, kernel %s, %d cores of %s, %.1f GiB, %s", r.Started.UTC().Format("2006-01-02 15:04 UTC"), m.Kernel, m.Cores, m.CPU, float64(m.Memory)/(1<<30), m.Go)
	if m.Commit != "" {
		out.print(", commit %.13s", m.Commit)
	}
	if r.Quick {
		out.print(", quick run")
	}
	out.print("\n")
	goals := 0
	for i := range r.Tables {
		out.print("\n")
		out.table(&r.Tables[i])
		goals += len(r.Tables[i].Goals)
	}
	if goals > 0 {
		out.print("\n%d of %d goals met\n", goals-len(r.Missed()), goals)
	}
	return out.err
}

// page writes until the first error.
type page struct {
	w   io.Writer
	err error
}

func (p *page) print(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

func (p *page) table(t *Table) {
	p.print("%s (%s)\n", t.Title, t.Name)
	p.print("  %s", t.Unit)
	if t.Better != None {
		p.print(", %s is better", t.Better)
	}
	p.print("; medians, [quartiles]\n")
	xs := t.xs()
	switch {
	case len(xs) == 1:
		p.grid(t.rows(xs[0]))
	case len(xs) > 1:
		p.grid(t.cells(xs, t.Series, t.value))
		if t.tail() {
			p.print("  99th percentile\n")
			p.grid(t.cells(xs, t.Series, func(s Series, x float64) string { return t.p99(s, x) }))
		}
		if t.Baseline != "" {
			p.print("  divided by %s\n", t.Baseline)
			rest := slices.DeleteFunc(slices.Clone(t.Series), func(s Series) bool { return s.Name == t.Baseline })
			p.grid(t.cells(xs, rest, t.ratio))
		}
	}
	if _, even := t.xAxis(); len(xs) >= 3 && !even {
		p.print("%s", t.curve(64, 14))
	}
	for _, n := range t.Notes {
		p.print("  %s\n", n)
	}
	for _, g := range t.Goals {
		p.print("  %s\n", g)
	}
}

// String says whether the goal was met, and by what.
func (g Goal) String() string {
	word, sign := "missed", ">="
	if g.Met() {
		word = "met"
	}
	if g.AtMost {
		sign = "<="
	}
	return fmt.Sprintf("%-6s  %s: %s, wanted %s %s", word, g.Text, ratioText(g.Value), sign, ratioText(g.Bound))
}

// grid writes lines of cells, all but the first column flush right.
func (p *page) grid(lines [][]string) {
	tw := tabwriter.NewWriter(p.w, 0, 1, 2, ' ', tabwriter.AlignRight)
	width := 0
	for _, l := range lines {
		width = max(width, len([]rune(l[0])))
	}
	for _, l := range lines {
		_, err := fmt.Fprintf(tw, "  %-*s\t%s\t\n", width, l[0], strings.Join(l[1:], "\t"))
		p.err = errors.Join(p.err, err)
	}
	p.err = errors.Join(p.err, tw.Flush())
}

// cells lays a table out with a line for each size and a column for each series.
func (t *Table) cells(xs []Point, series []Series, cell func(Series, float64) string) [][]string {
	head := []string{t.XName}
	for _, s := range series {
		head = append(head, s.Name)
	}
	lines := [][]string{head}
	for _, x := range xs {
		line := []string{x.name()}
		for _, s := range series {
			line = append(line, cell(s, x.X))
		}
		lines = append(lines, line)
	}
	return lines
}

// rows lays a table of one size out with a line for each series.
func (t *Table) rows(size Point) [][]string {
	x, head := size.X, []string{"", "median", "quartiles"}
	if t.XName != "" {
		head[0] = t.XName + ": " + size.name()
	}
	if t.tail() {
		head = append(head, "p99")
	}
	if t.Baseline != "" {
		head = append(head, "/ "+t.Baseline)
	}
	lines := [][]string{head}
	for _, s := range t.Series {
		p, ok := t.Point(s.Name, x)
		if !ok {
			continue
		}
		v := p.Spread()
		line := []string{s.Name, number(v.Median), fmt.Sprintf("[%s %s]", number(v.Low), number(v.High))}
		if t.tail() {
			line = append(line, number(p.P99()))
		}
		if t.Baseline != "" {
			line = append(line, t.ratio(s, x))
		}
		lines = append(lines, line)
	}
	return lines
}

// tail reports whether any point has enough samples for a 99th percentile.
func (t *Table) tail() bool {
	for _, s := range t.Series {
		for _, p := range s.Points {
			if len(p.Samples) >= 100 {
				return true
			}
		}
	}
	return false
}

func (t *Table) value(s Series, x float64) string {
	p, ok := t.Point(s.Name, x)
	if !ok {
		return "-"
	}
	return spreadText(p.Spread(), number)
}

func (t *Table) p99(s Series, x float64) string {
	p, ok := t.Point(s.Name, x)
	if !ok {
		return "-"
	}
	return number(p.P99())
}

func (t *Table) ratio(s Series, x float64) string {
	if r := t.Ratio(s.Name, t.Baseline, x); !math.IsNaN(r.Median) {
		return spreadText(r, ratioText)
	}
	return "-"
}

func spreadText(s Spread, format func(float64) string) string {
	return fmt.Sprintf("%s [%s %s]", format(s.Median), format(s.Low), format(s.High))
}

// name is what stands for the size of a point.
func (p Point) name() string {
	if p.Label != "" {
		return p.Label
	}
	return grouped(fmt.Sprintf("%.10g", p.X))
}

// number writes a value with about three digits.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "?"
	case a == 0:
		return "0"
	case a >= 100:
		return grouped(fmt.Sprintf("%.0f", v))
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.01:
		return fmt.Sprintf("%.3g", v)
	}
	return fmt.Sprintf("%.1e", v)
}

// ratioText writes a value so that ratios near one can be told apart.
func ratioText(v float64) string {
	switch {
	case math.IsNaN(v):
		return "?"
	case math.Abs(v) >= 100 || v == math.Trunc(v) && math.Abs(v) >= 10:
		return number(v)
	case math.Abs(v) >= 0.01 || v == 0:
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.1e", v)
}

// grouped puts a comma after every third digit from the right of a whole number.
func grouped(digits string) string {
	if strings.ContainsAny(digits, ".e") {
		return digits
	}
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}
