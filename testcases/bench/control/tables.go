package control

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
)

// tables turns what was measured into tables.
type tables struct {
	plan
	engines map[Size]*engineResult
	agents  map[Size]*agentResult
	// Nil is what was not measured.
	rangesResult *rangesResult
	loaded       *loadResult
	options      Options
	report       *report.Report
}

// give adds a table if it is wanted.
func (t *tables) give(table report.Table) {
	if t.options.Wants(table.Name) {
		t.report.Add(table)
	}
}

// The goals, at the largest size unless they say otherwise.
const (
	goalPods, goalPolicies = 100_000, 10_000
	goalPodMedian          = 2.0   // ms
	goalPodP99             = 10.0  // ms
	goalWide               = 100.0 // ms
	goalCold, goalWarm     = 3.0, 1.0
	goalLargeMB            = 300.0
	goalSmallMB            = 60.0
)

func (s Size) hasGoals() bool {
	return s.Pods == goalPods && s.Policies == goalPolicies && s.Crowd == 0
}

func (t *tables) add() {
	if len(t.engines) > 0 {
		t.events()
		t.starts()
		first, last := t.ends()
		t.parts(last)
		t.sent(last)
		if first != last {
			t.sent(first)
		}
		t.allocations(last)
		t.idle()
	}
	if t.rangesResult != nil {
		t.ranges()
	}
	if len(t.engines)+len(t.agents) > 0 {
		t.memory()
	}
	if len(t.agents) > 0 {
		t.agentStarts()
		t.turns()
		t.churn()
		t.lists()
	}
	if t.loaded != nil {
		t.load()
	}
}

// ends returns the first and the last size that was measured.
func (t *tables) ends() (first, last Size) {
	measured := slices.DeleteFunc(slices.Clone(t.sizes), func(s Size) bool { return t.engines[s] == nil })
	last = measured[len(measured)-1]
	for _, s := range measured {
		if s.hasGoals() && s.Local <= 110 {
			last = s
		}
	}
	return measured[0], last
}

// names returns the events in their order, without the numbers of pods, by which the
// names of one event differ from size to size.
func (t *tables) names() (out []string) {
	for _, s := range t.sizes {
		if e := t.engines[s]; e != nil {
			for _, event := range e.Events {
				if n := bare(event.Name); !slices.Contains(out, n) {
					out = append(out, n)
				}
			}
		}
	}
	return out
}

func bare(name string) string {
	words := strings.Fields(name)
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w[0] >= '0' && w[0] <= '9' }), " ")
}

// eventTable names the table of an event.
func eventTable(name string) string {
	return "control-" + strings.ReplaceAll(strings.ReplaceAll(bare(name), "'", ""), " ", "-")
}

// file names the size in the names of files and tables.
func (s Size) file() string {
	name := fmt.Sprintf("%d-%d-%d", s.Pods, s.Policies, s.Local)
	if s.Crowd > 0 {
		name += fmt.Sprintf("-%d", s.Crowd)
	}
	return name
}

// start names the table of starts that the size is in.
func (s Size) start() string {
	return "control-start-" + strings.TrimPrefix(s.file(), fmt.Sprintf("%d-", s.Pods))
}

// table names a table that is about one size.
func (s Size) table(name string) string {
	return "control-" + name + "-" + s.file()
}

// events makes a table for each event, over the number of pods.
func (t *tables) events() {
	for _, name := range t.names() {
		table := report.Table{
			Name: eventTable(name), Title: "Event to kernel commit: " + name,
			Unit: "ms", XName: "pods", Better: report.Lower,
		}
		var least, most int
		for _, s := range t.sizes {
			e := t.engines[s]
			if e == nil {
				continue
			}
			for _, event := range e.Events {
				if bare(event.Name) != name {
					continue
				}
				if most = max(most, len(event.MS)); least == 0 || len(event.MS) < least {
					least = len(event.MS)
				}
				for _, ms := range event.MS {
					table.Record(s.series(), float64(s.Pods), "", ms)
				}
				t.eventGoals(&table, s, event)
			}
		}
		table.Notes = append(table.Notes, fmt.Sprintf("%d to %d samples of each; of less than a hundred, the 99th percentile is about the largest", least, most))
		t.give(table)
	}
}

func (t *tables) eventGoals(table *report.Table, s Size, e timing) {
	if !s.hasGoals() {
		return
	}
	median, p99 := report.Quantile(e.MS, 0.5), report.Quantile(e.MS, 0.99)
	switch e.Class {
	case podClass:
		table.AtMost(fmt.Sprintf("%s, %s: median of %d, ms", e.Name, s, len(e.MS)), median, goalPodMedian)
		table.AtMost(fmt.Sprintf("%s, %s: 99th percentile, ms", e.Name, s), p99, goalPodP99)
	case wideClass:
		table.AtMost(fmt.Sprintf("%s, %s: median of %d, ms", e.Name, s, len(e.MS)), median, goalWide)
	}
}

// perEvent makes a table that has the events of one size on its x axis.
func (t *tables) perEvent(name, title, unit string, s Size, columns map[string]func(timing) []float64, order ...string) report.Table {
	table := report.Table{
		Name: s.table(name), Title: fmt.Sprintf("%s, %s", title, s),
		Unit: unit, XName: "event", Better: report.Lower,
	}
	for i, e := range t.engines[s].Events {
		for _, c := range order {
			for _, v := range columns[c](e) {
				table.Record(c, float64(i), e.Name, v)
			}
		}
	}
	return table
}

// parts says where the time of an event goes.
func (t *tables) parts(s Size) {
	table := t.perEvent("parts", "Where the time of an event goes", "ms", s, map[string]func(timing) []float64{
		"all":           func(e timing) []float64 { return e.MS },
		"Index":         func(e timing) []float64 { return e.Compile },
		"kernel":        func(e timing) []float64 { return e.Sending },
		"grace periods": func(e timing) []float64 { return e.Waiting },
		"Enforcer": func(e timing) (out []float64) {
			for i := range e.MS {
				out = append(out, max(0, e.MS[i]-e.Compile[i]-e.Sending[i]-e.Waiting[i]))
			}
			return out
		},
	}, "all", "Index", "Enforcer", "kernel", "grace periods")
	table.Notes = append(table.Notes, "kernel: encoding, sending and the kernel's answers; Enforcer: all of Apply but that; grace periods: waits until no packet is on its way through the old rules; what the agent removes later, with one such wait for all events of half a second, is in none of them")
	t.give(table)
}

func (t *tables) sent(s Size) {
	one := func(f func(traffic) int) func(timing) []float64 {
		return func(e timing) []float64 { return []float64{float64(f(e.Sent))} }
	}
	t.give(t.perEvent("sent", "What an event sends", "number", s, map[string]func(timing) []float64{
		"messages": one(func(t traffic) int { return t.Messages }), "bytes": one(func(t traffic) int { return t.Bytes }),
		"batches": one(func(t traffic) int { return t.Batches }), "elements": one(func(t traffic) int { return t.Elements }),
		"grace periods": one(func(t traffic) int { return t.Graces }),
	}, "messages", "bytes", "batches", "elements", "grace periods"))
}

func (t *tables) allocations(s Size) {
	t.give(t.perEvent("allocations", "What an event allocates", "number", s, map[string]func(timing) []float64{
		"objects": func(e timing) []float64 { return []float64{e.Allocs} },
		"KiB":     func(e timing) []float64 { return []float64{e.AllocBytes / 1024} },
	}, "objects", "KiB"))
}

// idle tells what a pass with nothing changed sends.
func (t *tables) idle() {
	table := report.Table{Name: "control-idle", Title: "Messages of a pass with nothing changed", Unit: "messages", XName: "pods", Better: report.Lower}
	worst := 0
	for _, s := range t.sizes {
		if e := t.engines[s]; e != nil {
			table.Record(s.series(), float64(s.Pods), "", float64(e.Idle.Messages))
			worst = max(worst, e.Idle.Messages)
		}
	}
	table.AtMost("messages of a pass with nothing changed", float64(worst), 0)
	t.give(table)
}
