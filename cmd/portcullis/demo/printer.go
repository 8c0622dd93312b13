package demo

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/portcullis-netpol/portcullis/cmd/portcullis/tty"
)

// printer shows what happens.
type printer interface {
	begin(s *scene, o Options, pods int)
	step(r *report)
	end(steps int, took time.Duration)
	keep(lines []string)
}

func newPrinter(stdout *closingWriter, stderr io.Writer, asJSON bool, s *scene) printer {
	if asJSON {
		return &jsonPrinter{w: stdout, aside: stderr}
	}
	const columns = 100 // where there is no terminal
	_, colour, width := tty.Of(stdout.w)
	return &textPrinter{w: stdout, scene: s, colour: colour, width: cmp.Or(width, columns)}
}

type textPrinter struct {
	w      io.Writer
	scene  *scene
	colour bool
	width  int
}

func (p *textPrinter) printf(format string, args ...any) { fmt.Fprintf(p.w, format, args...) }

func (p *textPrinter) paint(style, text string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

func (p *textPrinter) begin(s *scene, o Options, pods int) {
	family := map[string]string{"4": "IPv4", "6": "IPv6"}[o.IPFamily]
	if family == "" {
		family = "IPv4 and IPv6"
	}
	p.printf("%s\n", p.paint("1", "Portcullis: "+s.name))
	p.printf("%d pods on %d nodes, %v, %s. Rows send, columns receive; every cell was tried with new connections.\n",
		pods, len(s.nodes), o.Topology, family)
	legend := fmt.Sprintf("%s reached   %s blocked   [ ] changed by this step", signReached, signBlocked)
	if p.colour {
		legend = fmt.Sprintf("%s %s reached   %s %s blocked   bright: changed by this step",
			p.paint("32", signReached), p.paint("1;32", signReached), p.paint("2", signBlocked), p.paint("1;31", signBlocked))
	}
	if len(s.families) > 1 {
		legend += "   4, 6: that family only"
	}
	p.printf("%s\n", legend)
}

func (p *textPrinter) step(r *report) {
	p.printf("\n%s\n", p.paint("1", fmt.Sprintf("%d. %s", r.number, r.title)))
	if r.text != "" {
		p.printf("   %s\n", r.text)
	}
	for _, f := range r.added {
		p.printf("   + %s\n", f)
	}
	if len(r.dropped) > 0 {
		p.printf("   - %s\n", strings.Join(r.dropped, ", "))
	}
	p.printf("\n")
	for line := range strings.Lines(newTable(p.scene, r).draw(p.colour, p.width-3)) {
		p.printf("   %s", line)
	}
	p.printf("\n   %s\n", p.timings(r))
	wrong := r.wrong()
	if len(wrong) == 0 {
		p.printf("   %s\n", p.paint("32", fmt.Sprintf("all %d connections are as the specification says", len(r.flows))))
		return
	}
	p.printf("   %s\n", p.paint("1;31", fmt.Sprintf("%d of %d connections are NOT as the specification says:", len(wrong), len(r.flows))))
	for _, line := range wrong {
		p.printf("     %s\n", line)
	}
}

// timings says how long the change took.
func (p *textPrinter) timings(r *report) string {
	var parts []string
	for _, a := range r.agents {
		parts = append(parts, fmt.Sprintf("%s %d ms", a.node, a.after.Milliseconds()))
	}
	var text string
	switch {
	case len(parts) == 0:
		return "nothing to enforce: the manifests have not changed"
	case r.number == 1:
		text = "agents started, in force after: " + strings.Join(parts, ", ")
	default:
		text = fmt.Sprintf("changed connections: %d; in force after: %s", r.changes(), strings.Join(parts, ", "))
	}
	if len(r.firstPackets) > 0 {
		lo, hi := span(r.firstPackets)
		text += fmt.Sprintf("; first packets judged anew after: %d", lo.Milliseconds())
		if hi.Milliseconds() > lo.Milliseconds() {
			text += fmt.Sprintf(" to %d", hi.Milliseconds())
		}
		text += " ms"
	}
	return text
}

func (p *textPrinter) end(steps int, took time.Duration) {
	p.printf("\n%s\n", p.paint("1;32", fmt.Sprintf("%d steps, every connection as the specification says, in %.1f s.", steps, took.Seconds())))
}

func (p *textPrinter) keep(lines []string) {
	p.printf("\n%s\n", strings.Join(lines, "\n"))
}

// jsonPrinter writes one document a step, one line each.
type jsonPrinter struct {
	w     io.Writer
	aside io.Writer // for what is no JSON
}

type jsonStep struct {
	Step         int              `json:"step"`
	Title        string           `json:"title"`
	Text         string           `json:"text,omitempty"`
	Added        []string         `json:"added,omitempty"`
	Deleted      []string         `json:"deleted,omitempty"`
	Revision     string           `json:"revision"`
	OK           bool             `json:"ok"`
	InForce      map[string]int64 `json:"inForceMicroseconds"`      // by node
	FirstPackets []int64          `json:"firstPacketsMicroseconds"` // of each witness
	Connections  []jsonConnection `json:"connections"`
}

type jsonConnection struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
	Family   int    `json:"family"`
	Source   string `json:"sourceAddress"`
	Address  string `json:"address"`
	Expected bool   `json:"expected"`
	Observed bool   `json:"observed"`
	Changed  bool   `json:"changed"`
	Reason   string `json:"reason"`
	Error    string `json:"error,omitempty"`
}

func (p *jsonPrinter) step(r *report) {
	doc := jsonStep{
		Step: r.number, Title: r.title, Text: r.text, Added: r.added, Deleted: r.dropped,
		Revision: r.revision, OK: len(r.wrong()) == 0,
		InForce: map[string]int64{}, FirstPackets: []int64{}, Connections: []jsonConnection{},
	}
	for _, a := range r.agents {
		doc.InForce[a.node] = a.after.Microseconds()
	}
	for _, d := range r.firstPackets {
		doc.FirstPackets = append(doc.FirstPackets, d.Microseconds())
	}
	for i, f := range r.flows {
		c := jsonConnection{
			From: f.from.name, To: f.to.name, Protocol: f.protocol, Port: f.port, Family: f.family(),
			Source: f.src.String(), Address: f.dst.String(),
			Expected: r.want[i].allowed, Observed: r.got[i].OK, Changed: r.changed[i], Reason: r.want[i].reason,
		}
		if err := r.got[i].Err; err != nil {
			c.Error = err.Error()
		}
		doc.Connections = append(doc.Connections, c)
	}
	_ = json.NewEncoder(p.w).Encode(doc)
}

func (p *jsonPrinter) begin(*scene, Options, int) {}

func (p *jsonPrinter) end(int, time.Duration) {}

func (p *jsonPrinter) keep(lines []string) {
	fmt.Fprintln(p.aside, strings.Join(lines, "\n"))
}
