package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/portcullis-netpol/portcullis/policy/matrix"
)

type diffJSON struct {
	Version  int          `json:"version"`
	Kind     string       `json:"kind"` // "matrixDiff"
	By       matrix.By    `json:"by"`
	Ends     []endJSON    `json:"ends"`
	Changes  []changeJSON `json:"changes"`
	Gone     []string     `json:"gone"`
	Added    []string     `json:"added"`
	Warnings []string     `json:"warnings"`
}

type changeJSON struct {
	From   string    `json:"from"`
	To     string    `json:"to"`
	Opened reachJSON `json:"opened"`
	Closed reachJSON `json:"closed"`
}

// reachJSON is what every pair has, and what some pair has if that is more; null if there is no pair with the family.
type reachJSON struct {
	IPv4     []string `json:"ipv4"`
	IPv6     []string `json:"ipv6"`
	SomeIPv4 []string `json:"someIPv4,omitempty"`
	SomeIPv6 []string `json:"someIPv6,omitempty"`
}

func newReachJSON(r *matrix.Reach) reachJSON {
	return reachJSON{everyJSON(r, 0), everyJSON(r, 1), someJSON(r, 0), someJSON(r, 1)}
}

func newDiffJSON(d *matrix.Diff, warnings []string) diffJSON {
	out := diffJSON{
		Version: matrixVersion, Kind: "matrixDiff", By: d.View.By, Ends: endsJSON(d.View.Ends), Changes: []changeJSON{},
		Gone: append([]string{}, d.Gone...), Added: append([]string{}, d.Added...), Warnings: append([]string{}, warnings...),
	}
	d.Each(func(from, to matrix.End, c *matrix.Change) {
		out.Changes = append(out.Changes, changeJSON{from.FullName(), to.FullName(), newReachJSON(&c.Opened), newReachJSON(&c.Closed)})
	})
	return out
}

// writeDiffText prints what is opened, then what is closed.
func writeDiffText(w io.Writer, d *matrix.Diff, style textStyle) error {
	var b strings.Builder
	if d.Same() {
		b.WriteString("No difference.\n")
	}
	opened := func(c *matrix.Change) *matrix.Reach { return &c.Opened }
	closed := func(c *matrix.Change) *matrix.Reach { return &c.Closed }
	writeChanges(&b, d, style, "Opened", "+", "31", opened)
	writeChanges(&b, d, style, "Closed", "-", "32", closed)
	for _, only := range []struct {
		title string
		pods  []string
	}{{"Pods that only OLD has", d.Gone}, {"Pods that only NEW has", d.Added}} {
		if len(only.pods) == 0 {
			continue
		}
		fmt.Fprintf(&b, "%s:\n", only.title)
		for _, p := range only.pods {
			fmt.Fprintf(&b, "  %s\n", printable(p))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// blocksText names some of the blocks of a change.
func blocksText(blocks []netip.Prefix) string {
	const most = 3
	var names []string
	for _, b := range blocks {
		switch {
		case b.Bits() > 0:
			names = append(names, b.String())
		case b.Addr().Is4():
			names = append(names, "other IPv4 addresses")
		default:
			names = append(names, "other IPv6 addresses")
		}
	}
	if n := len(names); n > most+1 {
		names = append(names[:most], fmt.Sprintf("%d more", n-most))
	}
	return "(" + strings.Join(names, ", ") + ")"
}

func writeChanges(b *strings.Builder, d *matrix.Diff, style textStyle, title, sign, colour string, which func(*matrix.Change) *matrix.Reach) {
	type line struct{ pair, what string }
	var lines []line
	longest := 0
	d.Each(func(from, to matrix.End, c *matrix.Change) {
		if r := which(c); !r.Some[0].Empty() || !r.Some[1].Empty() {
			what := strings.TrimSuffix(strings.Replace(reachText(r), "IPv4 none; ", "", 1), "; IPv6 none")
			pair := printable(from.FullName()) + " -> " + printable(to.FullName())
			if blocks := d.Blocks(c, sign == "+"); len(blocks) > 0 {
				what += " " + blocksText(blocks)
			}
			lines = append(lines, line{pair, what})
			longest = max(longest, len(pair))
		}
	})
	if len(lines) == 0 {
		return
	}
	fmt.Fprintln(b, style.paint("1", fmt.Sprintf("%s (%d):", title, len(lines))))
	for _, l := range lines {
		fmt.Fprintf(b, "%s %s  %s\n", style.paint(colour, sign), padRight(l.pair, min(longest, style.width/2)), l.what)
	}
}
