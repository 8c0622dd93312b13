package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
)

// The picture, in pixels. The plot is what is left between the margins; the legend
// stands right of it.
const (
	svgWidth, svgHeight = 860, 440
	svgLeft, svgRight   = 80, 250
	svgTop, svgBottom   = 48, 64
	plotWidth           = svgWidth - svgLeft - svgRight
	plotHeight          = svgHeight - svgTop - svgBottom
)

// colours can be told apart by those who see fewer of them (Okabe and Ito).
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a6d00"}

// WriteSVG draws the table: medians, the quartiles as a bar through each, the sizes
// on a logarithmic axis. Sizes with labels stand side by side and are not connected.
func (t *Table) WriteSVG(w io.Writer) error {
	d := drawing{t: t, y: t.yAxis()}
	d.place, d.even = t.xAxis()
	d.frame()
	for i, s := range t.Series {
		d.series(i, s)
	}
	d.line("</svg>")
	if _, err := io.WriteString(w, d.out.String()); err != nil {
		return fmt.Errorf("write picture of %s: %w", t.Name, err)
	}
	return nil
}

type drawing struct {
	t     *Table
	out   strings.Builder
	place func(float64) float64
	even  bool
	y     axis
}

func (d *drawing) line(format string, args ...any) { fmt.Fprintf(&d.out, format+"\n", args...) }

func (d *drawing) text(x, y float64, anchor, extra, text string) {
	var safe strings.Builder
	_ = xml.EscapeText(&safe, []byte(text)) // a Builder takes everything
	d.line(`<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>`, x, y, anchor, extra, safe.String())
}

func (d *drawing) px(x float64) float64 { return svgLeft + 12 + d.place(x)*(plotWidth-24) }

func (d *drawing) py(v float64) float64 { return svgTop + (1-d.y.at(v))*plotHeight }

func (d *drawing) frame() {
	d.line(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, svgWidth, svgHeight)
	d.line(`<rect width="100%%" height="100%%" fill="#ffffff"/>`)
	d.text(svgLeft, 24, "start", ` font-size="15" font-weight="bold"`, d.t.Title)
	for _, v := range d.y.ticks() {
		d.line(`<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#dddddd"/>`, svgLeft, svgLeft+plotWidth, d.py(v), d.py(v))
		d.text(svgLeft-8, d.py(v)+4, "end", "", number(v))
	}
	for _, p := range d.t.xs() {
		d.line(`<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#888888"/>`, d.px(p.X), d.px(p.X), svgTop+plotHeight, svgTop+plotHeight+5)
		d.text(d.px(p.X), svgTop+plotHeight+20, "middle", "", p.name())
	}
	d.line(`<path d="M%d %dV%dH%d" fill="none" stroke="#888888"/>`, svgLeft, svgTop, svgTop+plotHeight, svgLeft+plotWidth)
	d.text(svgLeft+plotWidth/2, svgHeight-16, "middle", "", d.t.XName)
	unit := d.t.Unit
	if d.t.Better != None {
		unit += " (" + string(d.t.Better) + " is better)"
	}
	d.text(-(svgTop + plotHeight/2), 18, "middle", ` transform="rotate(-90)"`, unit)
}

func (d *drawing) series(i int, s Series) {
	colour := colours[i%len(colours)]
	// What has a colour for the second time is dashed.
	dash := []string{"", ` stroke-dasharray="6 4"`, ` stroke-dasharray="2 3"`}[i/len(colours)%3]
	var path strings.Builder
	d.line(`<g stroke="%s" fill="%s">`, colour, colour)
	for _, p := range s.Points {
		v := p.Spread()
		if math.IsNaN(v.Median) {
			continue
		}
		x := d.px(p.X)
		verb := "L"
		if path.Len() == 0 {
			verb = "M"
		}
		fmt.Fprintf(&path, "%s%.1f %.1f", verb, x, d.py(v.Median))
		d.line(`<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke-opacity="0.5"/>`, x, x, d.py(v.Low), d.py(v.High))
		d.line(`<circle cx="%.1f" cy="%.1f" r="3"/>`, x, d.py(v.Median))
	}
	if path.Len() > 0 && !d.even {
		d.line(`<path d="%s" fill="none" stroke-width="1.5"%s/>`, path.String(), dash)
	}
	y := float64(svgTop + 8 + 20*i)
	d.line(`<path d="M%d %.1fh22" fill="none" stroke-width="2"%s/>`, svgLeft+plotWidth+16, y, dash)
	d.line(`</g>`)
	d.text(svgLeft+plotWidth+44, y+4, "start", "", s.Name)
}
