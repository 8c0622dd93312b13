package demo

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// table is the picture of a report: sources down, destinations and their ports
// across.
type table struct {
	rows   []string
	groups []columnGroup // columns with one name above them
	marks  [][]mark      // by row and column
}

type columnGroup struct {
	name  string
	ports []string
}

// mark is one cell.
type mark struct {
	blank   bool   // the two ends are one
	allowed string // "", "46", "4" or "6": the families in which the connection was made
	tried   string // the families in which it was tried
	changed bool   // against the step before
	wrong   bool   // not as expected
}

func newTable(s *scene, r *report) table {
	var t table
	column := map[string]int{}
	row := map[string]int{}
	for _, e := range s.ends {
		if e.sends {
			row[e.name] = len(t.rows)
			t.rows = append(t.rows, e.name)
		}
		if len(e.ports) == 0 {
			continue
		}
		g := columnGroup{name: e.name}
		for _, p := range e.ports {
			column[e.name+":"+p.String()] = len(column)
			g.ports = append(g.ports, p.String())
		}
		t.groups = append(t.groups, g)
	}
	for range t.rows {
		marks := make([]mark, len(column))
		for i := range marks {
			marks[i].blank = true
		}
		t.marks = append(t.marks, marks)
	}
	for i, f := range r.flows {
		m := &t.marks[row[f.from.name]][column[f.to.name+":"+f.servicePort.String()]]
		m.blank = false
		family := fmt.Sprint(f.family())
		m.tried += family
		if r.got[i].OK {
			m.allowed += family
		}
		m.changed = m.changed || r.changed[i]
		m.wrong = m.wrong || !r.right(i)
	}
	return t
}

// The signs in the cells.
const (
	signReached = "●"
	signBlocked = "·"
)

func (m mark) String() string {
	sign := signBlocked
	switch {
	case m.blank:
		return ""
	case m.allowed == m.tried:
		sign = signReached
	case m.allowed != "":
		sign = m.allowed // one family only
	}
	switch {
	case m.wrong:
		return sign + "!"
	case m.changed:
		return "[" + sign + "]"
	}
	return sign
}

// style is how a cell looks on a terminal: green or red where something changed,
// plain where it was so before, and loud where it is wrong.
func (m mark) style() string {
	switch {
	case m.wrong:
		return "1;37;41"
	case m.changed && m.allowed != "":
		return "1;32"
	case m.changed:
		return "1;31"
	case m.allowed != "":
		return "32"
	}
	return "2"
}

// String draws the table without colour.
func (t table) String() string { return t.draw(false, 0) }

// draw draws the table, in several parts if it would be wider than width columns
// (0 means any width).
func (t table) draw(colour bool, width int) string {
	const gap = 2
	label := 0
	for _, r := range t.rows {
		label = max(label, utf8.RuneCountInString(r))
	}
	var b strings.Builder
	for first := 0; first < len(t.groups); {
		used, last := label, first
		for last < len(t.groups) {
			w := gap + t.groups[last].width()
			if width > 0 && used+w > width && last > first {
				break
			}
			used += w
			last++
		}
		if first > 0 {
			b.WriteByte('\n')
		}
		t.drawPart(&b, colour, label, first, last)
		first = last
	}
	return b.String()
}

const (
	portGap   = 1
	cellWidth = 3 // of "[●]"
)

// portWidths are the widths of a group's columns; the last takes what the name
// needs.
func (g columnGroup) portWidths() []int {
	var out []int
	used := 0
	for _, p := range g.ports {
		w := max(utf8.RuneCountInString(p), cellWidth)
		out = append(out, w)
		used += w + portGap
	}
	if short := utf8.RuneCountInString(g.name) - (used - portGap); short > 0 {
		out[len(out)-1] += short
	}
	return out
}

func (g columnGroup) width() int {
	total := -portGap
	for _, w := range g.portWidths() {
		total += w + portGap
	}
	return total
}

func (t table) drawPart(b *strings.Builder, colour bool, label, first, last int) {
	const gap = "  "
	line := func(name string, cells func(g columnGroup, column int) string) {
		text := pad(name, label)
		column := 0
		for i, g := range t.groups {
			if i >= first && i < last {
				text += gap + cells(g, column)
			}
			column += len(g.ports)
		}
		b.WriteString(strings.TrimRight(text, " "))
		b.WriteByte('\n')
	}
	line("", func(g columnGroup, _ int) string { return pad(g.name, g.width()) })
	line("", func(g columnGroup, _ int) string {
		var cells []string
		for i, w := range g.portWidths() {
			cells = append(cells, pad(g.ports[i], w))
		}
		return strings.Join(cells, " ")
	})
	for r, name := range t.rows {
		line(name, func(g columnGroup, column int) string {
			var cells []string
			for i, w := range g.portWidths() {
				cells = append(cells, t.marks[r][column+i].draw(colour, w))
			}
			return strings.Join(cells, " ")
		})
	}
}

func (m mark) draw(colour bool, width int) string {
	text := m.String()
	if !colour || m.blank {
		return pad(text, width)
	}
	// Colours say what the brackets do.
	text = strings.Trim(text, "[]")
	return "\x1b[" + m.style() + "m" + text + "\x1b[0m" + pad("", width-utf8.RuneCountInString(text))
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}
