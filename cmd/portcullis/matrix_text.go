package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/portcullis-netpol/portcullis/policy/matrix"
)

// textStyle is how a table is written.
type textStyle struct {
	colour bool
	width  int // columns of the terminal
}

// The marks of cells. A letter stands for a list of ports.
const (
	markAll    = "●"
	markNone   = "·"
	markMixed  = "◐"
	markItself = "–"
	mark4      = "4"
	mark6      = "6"
)

// writeMatrixText prints the first view as a table, or one table for each port that was asked for.
func writeMatrixText(w io.Writer, m *matrix.Matrix, asked []service, style textStyle) error {
	var b strings.Builder
	view := m.Views[0]
	if len(asked) == 0 {
		legend := &legend{letters: map[string]string{}}
		newTextTable(view, m, legend.mark).write(&b, style)
		legend.write(&b, style)
	}
	for i, s := range asked {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s\n", s.name)
		newTextTable(view, m, func(r *matrix.Reach) string { return s.mark(r) }).write(&b, style)
	}
	if len(asked) > 0 {
		fmt.Fprintf(&b, "\n%s allowed   %s denied   %s for some   %s, %s that IP family only   %s itself\n",
			markAll, markNone, markMixed, mark4, mark6, markItself)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// mark says whether a port passes.
func (s service) mark(r *matrix.Reach) string {
	var is []string
	for f, has := range r.Has {
		switch {
		case !has:
		case r.Every[f].Contains(s.protocol, s.port):
			is = append(is, markAll)
		case r.Some[f].Contains(s.protocol, s.port):
			is = append(is, markMixed)
		default:
			is = append(is, markNone)
		}
	}
	switch {
	case len(is) == 0:
		return markNone
	case len(is) == 1 || is[0] == is[1]:
		return is[0]
	case is[0] == markAll && is[1] == markNone:
		return mark4
	case is[0] == markNone && is[1] == markAll:
		return mark6
	}
	return markMixed
}

// legend gives letters to what cells have.
type legend struct {
	letters map[string]string
	order   []string
}

// mark is the sign of a cell.
func (l *legend) mark(r *matrix.Reach) string {
	text := reachText(r)
	switch text {
	case "all":
		return markAll
	case "none":
		return markNone
	}
	if l.letters[text] == "" {
		l.order = append(l.order, text)
		l.letters[text] = letter(len(l.order) - 1)
	}
	return l.letters[text]
}

// letter counts a to z, then aa, ab and so on.
func letter(i int) string {
	if i < 26 {
		return string(rune('a' + i))
	}
	return letter(i/26-1) + letter(i%26)
}

// reachText words what passes: "tcp/80", "IPv4 all; IPv6 none", "tcp/80, for some: all".
func reachText(r *matrix.Reach) string {
	var texts []string
	for f, has := range r.Has {
		if !has {
			continue
		}
		text := r.Every[f].String()
		if more := r.Some[f].Minus(r.Every[f]); !more.Empty() {
			all := "for some: " + r.Some[f].String()
			if text += ", " + all; r.Every[f].Empty() {
				text = all
			}
		}
		texts = append(texts, text)
	}
	switch {
	case len(texts) == 0:
		return "no address family in common"
	case len(texts) == 1 || texts[0] == texts[1]:
		return texts[0]
	}
	return "IPv4 " + texts[0] + "; IPv6 " + texts[1]
}

func (l *legend) write(b *strings.Builder, style textStyle) {
	fmt.Fprintf(b, "\n%s all traffic   %s nothing   %s itself\n", markAll, markNone, markItself)
	for _, text := range l.order {
		head := fmt.Sprintf("%-2s ", l.letters[text])
		for i, line := range wrapWords(text, style.width-len(head)) {
			if i > 0 {
				head = strings.Repeat(" ", len(head))
			}
			fmt.Fprintf(b, "%s%s\n", head, line)
		}
	}
}

// wrapWords breaks a text between words, and behind commas in words that are too long.
func wrapWords(text string, width int) []string {
	lines := []string{""}
	for _, word := range strings.SplitAfter(strings.ReplaceAll(text, ",", ",\x00"), " ") {
		if !strings.Contains(word, "\x00") || len(lines[len(lines)-1])+len(word) > width {
			word = strings.TrimRight(word, "\x00")
		}
		for _, bit := range strings.SplitAfter(word, "\x00") {
			bit = strings.ReplaceAll(bit, "\x00", "")
			if n := len(lines) - 1; lines[n] != "" && len(lines[n])+len(strings.TrimRight(bit, " ")) > width {
				lines[n] = strings.TrimRight(lines[n], " ")
				lines = append(lines, "")
			}
			lines[len(lines)-1] += bit
		}
	}
	return lines
}

// textTable is a table of marks.
type textTable struct {
	ends  []matrix.End
	marks [][]string // by row and column; empty where there is nothing to say
}

func newTextTable(view matrix.View, m *matrix.Matrix, mark func(*matrix.Reach) string) textTable {
	t := textTable{ends: view.Ends}
	for i, row := range view.Cells {
		var marks []string
		for j, id := range row {
			switch {
			case id != matrix.Blank:
				marks = append(marks, mark(m.Variants[id].Reach))
			case i == j && view.Ends[i].Pods != nil:
				marks = append(marks, markItself)
			default:
				marks = append(marks, "")
			}
		}
		t.marks = append(t.marks, marks)
	}
	return t
}

// write draws the table, in several parts if it is wider than the terminal. Columns have the numbers of rows.
func (t textTable) write(b *strings.Builder, style textStyle) {
	number := len(strconv.Itoa(len(t.ends)))
	label := 0
	for _, e := range t.ends {
		label = max(label, utf8.RuneCountInString(rowName(e)))
	}
	cell := number + 1
	for _, row := range t.marks {
		for _, m := range row {
			cell = max(cell, utf8.RuneCountInString(m)+1)
		}
	}
	most := max(16, style.width-number-3-12*cell) // a dozen columns fit beside it
	if len(t.ends) > 12 {
		most = min(most, 24)
	}
	label = min(label, most)
	left := number + 2 + label
	each := max(1, (style.width-left-1)/cell)
	for first := 0; first < len(t.ends); first += each {
		if first > 0 {
			b.WriteByte('\n')
		}
		t.part(b, style, first, min(first+each, len(t.ends)), number, label, cell)
	}
}

func (t textTable) part(b *strings.Builder, style textStyle, first, last, number, label, cell int) {
	line := strings.Repeat(" ", number+2+label) + " "
	for j := first; j < last; j++ {
		line += fmt.Sprintf("%*d", cell, j+1)
	}
	fmt.Fprintln(b, style.paint("2", line))
	namespace := ""
	for i, e := range t.ends {
		if e.Namespace != namespace && e.Kind == matrix.Pods {
			fmt.Fprintln(b, style.paint("1", shorten(printable(e.Namespace), style.width)))
		}
		if e.Namespace != namespace && e.Namespace == "" {
			b.WriteByte('\n')
		}
		namespace = e.Namespace
		fmt.Fprintf(b, "%s %s ", style.paint("2", fmt.Sprintf("%*d", number, i+1)), padRight(shorten(rowName(e), label), label+1))
		row := ""
		for j := first; j < last; j++ {
			m := t.marks[i][j]
			row += strings.Repeat(" ", cell-utf8.RuneCountInString(m)) + style.mark(m)
		}
		b.WriteString(strings.TrimRight(row, " ") + "\n")
	}
}

// rowName is the name of an end below its namespace.
func rowName(e matrix.End) string {
	switch {
	case e.Kind == matrix.Namespace:
		return printable(e.FullName())
	case e.Kind == matrix.Pods && len(e.Pods) > 1 && !strings.Contains(e.Name, " +"):
		return fmt.Sprintf("%s ×%d", printable(e.Name), len(e.Pods))
	}
	return printable(e.Name)
}

// shorten cuts the middle out of a name that is too long.
func shorten(s string, width int) string {
	runes := []rune(s)
	if len(runes) <= width || width < 3 {
		return s
	}
	tail := (width - 1) / 2
	return string(slices.Concat(runes[:width-1-tail], []rune("…"), runes[len(runes)-tail:]))
}

func padRight(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

func (s textStyle) paint(style, text string) string {
	if !s.colour || text == "" {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

// mark paints a mark; its shape says the same.
func (s textStyle) mark(m string) string {
	switch m {
	case markAll:
		return s.paint("32", m)
	case markNone, markItself, "":
		return s.paint("2", m)
	}
	return s.paint("36", m)
}
