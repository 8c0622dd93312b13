package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/duration"
)

// columns prints rows as wide as they have to be. Cells are made printable here.
type columns struct {
	rows   [][]string
	styles []string // of each row
}

func (c *columns) add(style string, cells ...string) {
	for i := range cells {
		cells[i] = printable(cells[i])
	}
	c.rows, c.styles = append(c.rows, cells), append(c.styles, style)
}

func (c *columns) write(b *strings.Builder, style textStyle) {
	var widths []int
	for _, row := range c.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			if i < len(row)-1 { // the last one may be as long as it likes
				widths[i] = max(widths[i], utf8.RuneCountInString(cell))
			}
		}
	}
	for r, row := range c.rows {
		line := ""
		for i, cell := range row {
			if i == len(row)-1 {
				line += cell
			} else {
				line += padRight(cell, widths[i]+3)
			}
		}
		b.WriteString(style.paint(c.styles[r], strings.TrimRight(line, " ")) + "\n")
	}
}

// The styles of rows.
const (
	styleHead = "1"
	styleBad  = "31"
	styleWarn = "33"
)

// age is how long ago something was, "-" if it never was.
func age(since, now time.Time) string {
	if since.IsZero() {
		return "-"
	}
	return duration.HumanDuration(max(0, now.Sub(since)))
}

// print writes two tables: nodes and policies.
func (s statusJSON) print(w io.Writer, style textStyle, now time.Time) error {
	var b strings.Builder
	var nodes columns
	nodes.add(styleHead, "NODE", "READY", "AGE", "PODS", "RULES", "VERSION", "NOTES")
	for _, n := range s.Nodes {
		if n.State == nil {
			nodes.add(styleBad, n.Node, "?", "-", "-", "-", "-", n.Error)
			continue
		}
		ready, rowStyle, notes := "yes", "", n.State.Obstacles
		if !n.State.Ready {
			ready, rowStyle = "no", styleBad
		}
		if held := n.State.Quarantined; len(held) > 0 {
			notes = append(notes[:len(notes):len(notes)], fmt.Sprintf("in quarantine: %s", few(held)))
		}
		nodes.add(rowStyle, n.Node, ready, age(n.State.Started, now), strconv.Itoa(n.State.Pods), strconv.Itoa(n.State.Rules), n.State.Version, strings.Join(notes, "; "))
	}
	nodes.write(&b, style)
	b.WriteByte('\n')
	var policies columns
	policies.add(styleHead, "POLICY", "MODE", "GENERATION", "IN FORCE", "SINCE", "PODS", "NODES", "NOTES")
	for _, p := range s.Policies {
		p.row(&policies, now)
	}
	if len(s.Policies) > 0 {
		policies.write(&b, style)
	} else {
		b.WriteString("no policies\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// row adds a line for the policy, and further ones for what more there is to say.
func (p policyStatus) row(to *columns, now time.Time) {
	var notes []string
	for i, at := range p.Behind {
		if i == 5 && len(p.Behind) > 6 {
			notes = append(notes, fmt.Sprintf("%d further nodes", len(p.Behind)-i))
			break
		}
		notes = append(notes, at.Node+": "+at.Why)
	}
	for _, is := range p.Problems {
		notes = append(notes, is.Field+": "+is.Reason+" (this part matches nothing)")
	}
	inForce, style := "yes", ""
	switch {
	case len(p.Behind) > 0:
		inForce, style = "no", styleBad
	case len(p.Problems) > 0:
		inForce, style = "in part", styleWarn
	case p.Nodes == 0:
		inForce, notes = "-", append(notes, "selects no pod")
	}
	notes = append(notes, "")
	to.add(style, p.Policy, p.Mode, generation(p.Generation), inForce, age(p.Since, now), strconv.Itoa(p.Pods), fmt.Sprintf("%d/%d", p.Has, p.Nodes), notes[0])
	for _, more := range notes[1:max(1, len(notes)-1)] {
		to.add(style, "", "", "", "", "", "", "", more)
	}
}

// generation is that of an object, "-" if it comes from a file.
func generation(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}
