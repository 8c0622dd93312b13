package report

import "math"

// svgRow is a line of a picture that has names at its left.
type svgRow struct {
	name string
	// values has a value for each series that the row is about.
	values []rowValue
}

type rowValue struct {
	series int
	Spread
}

// svgRows returns the rows of a table that is drawn in rows: one for each series if there
// is one size only, and one for each size if sizes are no numbers; nil for other tables.
func (t *Table) svgRows() (rows []svgRow) {
	xs := t.xs()
	switch _, even := t.xAxis(); {
	case len(xs) == 1:
		for i, s := range t.Series {
			if p, ok := t.Point(s.Name, xs[0].X); ok {
				rows = append(rows, svgRow{s.Name, []rowValue{{i, p.Spread()}}})
			}
		}
	case even:
		for _, x := range xs {
			row := svgRow{name: x.name()}
			for i, s := range t.Series {
				if p, ok := t.Point(s.Name, x.X); ok {
					row.values = append(row.values, rowValue{i, p.Spread()})
				}
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// rows draws a row for each name, in which the values are from left to right.
func (d *drawing) rows(rows []svgRow) {
	xs := d.t.xs()
	title, names := d.t.Title, d.t.XName
	if len(xs) == 1 {
		names = ""
		if d.t.XName != "" {
			title += ", " + d.t.XName + ": " + xs[0].name()
		}
	}
	d.head(title)
	d.text(svgEdge, d.top, "start", ` font-style="italic"`, names)
	d.top += 10
	d.left = svgEdge + textWidth(names)
	for _, r := range rows {
		d.left = max(d.left, svgEdge+textWidth(r.name)+8)
	}
	most := 1
	for _, r := range rows {
		most = max(most, len(r.values))
	}
	// Values that are alike lie below one another.
	const apart = 5.0
	each := max(24, apart*float64(most+2))
	d.height = each * float64(len(rows))
	px := func(v float64) float64 { return d.left + d.value.at(v)*d.width }
	for _, v := range d.value.ticks() {
		d.line(`<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, px(v), px(v), d.top, d.top+d.height)
	}
	for i, r := range rows {
		middle := d.top + each*(float64(i)+0.5)
		d.text(svgEdge, middle+4, "start", "", r.name)
		d.line(`<line class="grid" x1="%d" x2="%.1f" y1="%.1f" y2="%.1f"/>`, svgEdge, d.left+d.width, middle+each/2, middle+each/2)
		for k, v := range r.values {
			if math.IsNaN(v.Median) {
				continue
			}
			y := middle + apart*(float64(k)-float64(len(r.values)-1)/2)
			d.line(`<line class="%s" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke-opacity="0.5"/>`, colour(v.series), px(v.Low), px(v.High), y, y)
			d.line(`<circle class="%s" cx="%.1f" cy="%.1f" r="3"/>`, colour(v.series), px(v.Median), y)
		}
	}
	if len(xs) > 1 {
		d.legend()
	}
	d.values(px)
}

// values draws the axis of values below the rows.
func (d *drawing) values(px func(float64) float64) {
	bottom, free := d.top+d.height, 0.0
	d.line(`<path class="axis" d="M%.1f %.1fV%.1fH%.1f"/>`, d.left, d.top, bottom, d.left+d.width)
	for _, v := range d.value.ticks() {
		if half := textWidth(d.tick(v)) / 2; px(v)-half >= free {
			d.text(px(v), bottom+18, "middle", "", d.tick(v))
			free = px(v) + half + svgGlyph
			d.right = max(d.right, free)
		}
	}
	d.text(d.left+d.width/2, bottom+40, "middle", "", d.unit())
	d.right = max(d.right, d.left+d.width, d.left+d.width/2+textWidth(d.unit())/2)
}
