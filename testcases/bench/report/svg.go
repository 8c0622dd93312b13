package report

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// The picture, in pixels. It is as wide as its names need and as high as its rows.
const (
	svgEdge     = 16
	svgGlyph    = 6.8 // of a character, rather too much than too little
	svgBold     = 8.9 // of one of the title
	plotWidth   = 530.0
	plotHeight  = 328.0
	legendLine  = 20
	legendWidth = 44 // with the gaps beside it
	titleLength = 88 // in characters
)

// style has colours for light and for dark surroundings. The series' can be told apart by
// those who see fewer of them (after Okabe and Ito).
const style = `<style>
text{fill:#222222}.paper{fill:#ffffff}.grid{stroke:#dddddd}.axis{stroke:#888888;fill:none}path.line{fill:none}
.s0{stroke:#0072b2;fill:#0072b2}.s1{stroke:#d55e00;fill:#d55e00}.s2{stroke:#009e73;fill:#009e73}.s3{stroke:#cc79a7;fill:#cc79a7}
.s4{stroke:#e69f00;fill:#e69f00}.s5{stroke:#56b4e9;fill:#56b4e9}.s6{stroke:#222222;fill:#222222}.s7{stroke:#8a6d00;fill:#8a6d00}
@media (prefers-color-scheme:dark){
text{fill:#dddddd}.paper{fill:#15191e}.grid{stroke:#363c44}.axis{stroke:#8b929b}
.s0{stroke:#4aa8e0;fill:#4aa8e0}.s1{stroke:#f0803c;fill:#f0803c}.s2{stroke:#2fc79a;fill:#2fc79a}.s6{stroke:#eeeeee;fill:#eeeeee}.s7{stroke:#c9a83a;fill:#c9a83a}
}
</style>`

// colours is how many the style has.
const colours = 8

// WriteSVG draws the table: medians, with a bar through each from quartile to quartile.
// Sizes are on a logarithmic axis and connected. Sizes that have labels, and the series
// of a table of one size, have a row each.
func (t *Table) WriteSVG(w io.Writer) error {
	d := drawing{t: t, value: t.yAxis(), left: svgEdge, width: plotWidth}
	if rows := t.svgRows(); rows != nil {
		d.rows(rows)
	} else {
		d.curves()
	}
	if _, err := io.WriteString(w, d.picture()); err != nil {
		return fmt.Errorf("write picture of %s: %w", t.Name, err)
	}
	return nil
}

type drawing struct {
	t     *Table
	out   strings.Builder
	value axis
	// The plot, and how far what is drawn reaches to the right and down.
	left, top, width, height float64
	right, bottom            float64
}

// picture puts what was drawn on paper.
func (d *drawing) picture() string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="12">`+"\n%s\n"+
		`<rect class="paper" width="100%%" height="100%%"/>`+"\n%s</svg>\n", d.right+svgEdge, d.bottom+svgEdge, style, d.out.String())
}

func (d *drawing) line(format string, args ...any) { fmt.Fprintf(&d.out, format+"\n", args...) }

func (d *drawing) text(x, y float64, anchor, extra, text string) {
	var safe strings.Builder
	_ = xml.EscapeText(&safe, []byte(text)) // a Builder takes everything
	d.line(`<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>`, x, y, anchor, extra, safe.String())
	d.bottom = max(d.bottom, y)
}

// textWidth is about what a text takes.
func textWidth(text string) float64 { return svgGlyph * float64(len([]rune(text))) }

// head writes the title and what the values are, and begins the plot below.
func (d *drawing) head(title string) {
	y := 8.0
	for _, l := range wrapped(title, titleLength) {
		y += 19
		d.text(svgEdge, y, "start", ` font-size="15" font-weight="bold"`, l)
		d.right = max(d.right, svgEdge+svgBold*float64(len([]rune(l))))
	}
	d.top = y + 20
}

// unit says what the values are.
func (d *drawing) unit() string {
	if d.t.Better != None {
		return d.t.Unit + " (" + string(d.t.Better) + " is better)"
	}
	return d.t.Unit
}

// wrapped breaks a text into lines.
func wrapped(text string, length int) (lines []string) {
	line := ""
	for _, w := range strings.Fields(text) {
		if line != "" && len([]rune(line))+1+len([]rune(w)) > length {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+w, " ")
	}
	return append(lines, line)
}

// colour is the class of series i, and dash how its line is drawn: what has a colour for
// the second time is dashed.
func colour(i int) string { return fmt.Sprintf("s%d", i%colours) }

func dash(i int) string {
	return []string{"", ` stroke-dasharray="6 4"`, ` stroke-dasharray="2 3"`}[i/colours%3]
}

// legend writes the names of the series right of the plot.
func (d *drawing) legend() {
	x := d.left + d.width + svgEdge
	for i, s := range d.t.Series {
		y := d.top + 8 + float64(legendLine*i)
		d.line(`<path class="%s line" d="M%.1f %.1fh22" stroke-width="2"%s/>`, colour(i), x, y, dash(i))
		d.line(`<circle class="%s" cx="%.1f" cy="%.1f" r="3"/>`, colour(i), x+11, y)
		d.text(x+28, y+4, "start", "", s.Name)
		d.right = max(d.right, x+legendWidth+textWidth(s.Name))
	}
}

// tick writes a value at the axis of values. At the low end of a logarithmic one are
// those that are less, too.
func (d *drawing) tick(v float64) string {
	if d.value.log && v <= d.value.low {
		return "≤ " + tick(v)
	}
	return tick(v)
}

func tick(v float64) string {
	if math.Abs(v) >= 100 {
		return number(v)
	}
	return fmt.Sprintf("%.3g", v)
}

// curves draws sizes from left to right.
func (d *drawing) curves() {
	d.head(d.t.Title)
	d.text(svgEdge, d.top, "start", "", d.unit())
	d.right = max(d.right, svgEdge+textWidth(d.unit()))
	d.top += 16
	d.height = plotHeight
	for _, v := range d.value.ticks() {
		d.left = max(d.left, svgEdge+textWidth(d.tick(v))+8)
	}
	place, _ := d.t.xAxis()
	px := func(x float64) float64 { return d.left + 12 + place(x)*(d.width-24) }
	py := func(v float64) float64 { return d.top + (1-d.value.at(v))*d.height }
	for _, v := range d.value.ticks() {
		d.line(`<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, d.left, d.left+d.width, py(v), py(v))
		d.text(d.left-8, py(v)+4, "end", "", d.tick(v))
	}
	d.sizes(px)
	d.legend()
	for i, s := range d.t.Series {
		points := slices.SortedFunc(slices.Values(s.Points), func(a, b Point) int { return cmp.Compare(a.X, b.X) })
		var path strings.Builder
		for _, p := range points {
			v := p.Spread()
			if math.IsNaN(v.Median) {
				continue
			}
			verb := "L"
			if path.Len() == 0 {
				verb = "M"
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", verb, px(p.X), py(v.Median))
			d.line(`<line class="%s" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke-opacity="0.5"/>`, colour(i), px(p.X), px(p.X), py(v.Low), py(v.High))
			d.line(`<circle class="%s" cx="%.1f" cy="%.1f" r="3"/>`, colour(i), px(p.X), py(v.Median))
		}
		if path.Len() > 0 {
			d.line(`<path class="%s line" d="%s" stroke-width="1.5"%s/>`, colour(i), path.String(), dash(i))
		}
	}
}

// sizes draws the axis of sizes. Where one's number would touch that of the one before,
// it is left out.
func (d *drawing) sizes(px func(float64) float64) {
	bottom, free := d.top+d.height, 0.0
	d.line(`<path class="axis" d="M%.1f %.1fV%.1fH%.1f"/>`, d.left, d.top, bottom, d.left+d.width)
	for _, p := range d.t.xs() {
		d.line(`<line class="axis" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, px(p.X), px(p.X), bottom, bottom+5)
		if half := textWidth(p.name()) / 2; px(p.X)-half >= free {
			d.text(px(p.X), bottom+20, "middle", "", p.name())
			free = px(p.X) + half + svgGlyph
		}
	}
	d.text(d.left+d.width/2, bottom+44, "middle", "", d.t.XName)
}
