package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis-netpol/portcullis/agent/admin"
)

// print writes a table for the policies that would deny the same flows. Some says that the
// rows are those of some policies only.
func (s *auditJSON) print(w io.Writer, style textStyle, now time.Time, some bool) error {
	var b strings.Builder
	groups := map[string][]admin.AuditRow{}
	var names []string
	for _, r := range s.Rows {
		name := strings.Join(r.Policies, ", ")
		if groups[name] == nil {
			names = append(names, name)
		}
		groups[name] = append(groups[name], r)
	}
	slices.Sort(names)
	for _, name := range names {
		b.WriteString(style.paint(styleHead, printable(few(groups[name][0].Policies))+" would have denied") + "\n")
		var table columns
		table.add("2", "  SOURCE", "DESTINATION", "PORT", "DIRECTION", "COUNT", "LAST SEEN", "CLOSEST RULE")
		for _, r := range groups[name] {
			table.add("", "  "+auditEnd(r.Source), auditEnd(r.Destination), portName(r.Protocol, r.Port), r.Direction,
				strconv.FormatUint(r.Count, 10), age(r.Last, now)+" ago", closestRule(r.Closest))
		}
		table.write(&b, style)
		b.WriteByte('\n')
	}
	s.conclude(&b, style, now, some)
	_, err := io.WriteString(w, b.String())
	return err
}

// conclude says how much the tables cover.
func (s *auditJSON) conclude(b *strings.Builder, style textStyle, now time.Time, some bool) {
	var answered int
	var since time.Time
	for _, n := range s.Nodes {
		if n.Error != "" {
			b.WriteString(style.paint(styleBad, fmt.Sprintf("node %s is missing: %s", printable(n.Node), oneLine(n.Error))) + "\n")
			continue
		}
		answered++
		if n.Since.After(since) {
			since = n.Since
		}
	}
	if answered == 0 {
		return
	}
	nodes := "on " + counted(uint64(answered), "node", "nodes") + ", counted for " + age(since, now) + " at least"
	packets := counted(s.Packets, "packet", "packets")
	switch {
	case len(s.Rows) == 0 && s.unseen() == 0:
		fmt.Fprintf(b, "Nothing would have been denied %s.\n", nodes)
	case some:
		fmt.Fprintf(b, "%s would have been denied %s, by all policies together.\n", packets, nodes)
	default:
		fmt.Fprintf(b, "%s would have been denied %s.\n", packets, nodes)
	}
	if n := s.unseen(); n > 0 {
		b.WriteString(style.paint(styleWarn, counted(n, "of them was not logged in detail, and is", "of them were not logged in detail, and are")+" in no row.") + "\n")
	}
}

// counted is a number with the words for one, or for any other number.
func counted(n uint64, one, others string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.FormatUint(n, 10) + " " + others
}

// auditEnd is one end of a row.
func auditEnd(e admin.End) string {
	if e.Pod != "" {
		return e.Pod
	}
	return e.Addr.String()
}

func closestRule(c *admin.Closest) string {
	if c == nil {
		return "none: they have no rules"
	}
	return fmt.Sprintf("%s of %s: %s", c.Rule, c.Policy, c.Missing)
}
