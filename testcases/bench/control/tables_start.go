package control

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
)

const megabyte = 1e6

// starts tells how long the starts of Index and Enforcer take, by phase.
func (t *tables) starts() {
	byShape := map[string]*report.Table{}
	var order []string
	for _, s := range t.sizes {
		e := t.engines[s]
		if e == nil {
			continue
		}
		table := byShape[s.series()]
		if table == nil {
			table = &report.Table{
				Name: s.start(), Title: "Start of Index and Enforcer, " + s.series(),
				Unit: "s", XName: "pods", Better: report.Lower,
			}
			byShape[s.series()] = table
			order = append(order, s.series())
		}
		for i := range e.Cold {
			c, w := e.Cold[i], e.Warm[i]
			x := float64(s.Pods)
			table.Record("cold", x, "", c.Total().Seconds())
			table.Record("cold: processor time", x, "", c.CPU.Seconds())
			table.Record("objects into the Index", x, "", c.Feed.Seconds())
			table.Record("Flush and State", x, "", c.Compile.Seconds())
			table.Record("takeover", x, "", c.Takeover.Seconds())
			table.Record("takeover of a full table", x, "", w.Takeover.Seconds())
			table.Record("warm", x, "", w.Total().Seconds())
		}
		sent := e.Cold[0].Sent
		table.Notes = append(table.Notes, fmt.Sprintf("%d pods: %d starts; %d sets and maps, %d chains, %d rules, %d elements in %d messages, %.1f MB; the kernel took %.2f s of the takeover",
			s.Pods, len(e.Cold), sent.Sets, sent.Chains, sent.Rules, sent.Elements, sent.Messages, float64(sent.Bytes)/megabyte, sent.Sending.Seconds()))
		if s.hasGoals() {
			cold, _ := table.Point("cold", float64(s.Pods))
			warm, _ := table.Point("takeover of a full table", float64(s.Pods))
			table.AtMost(fmt.Sprintf("cold start, %s: s", s), cold.Median(), goalCold)
			table.AtMost(fmt.Sprintf("warm takeover, %s: s", s), warm.Median(), goalWarm)
		}
	}
	for _, name := range order {
		t.give(*byShape[name])
	}
}

// memory tells what processes and the kernel take.
func (t *tables) memory() {
	table := report.Table{Name: "control-memory", Title: "Memory", Unit: "MB", XName: "size", Better: report.Lower, Notes: []string{
		"Index and Enforcer: a process with nothing else in it; agent: the whole agent, with its caches and connections",
		"resident: what is left when garbage was given back; before: until then; peak: during the start; heap: what is live of Go's",
		"kernel: growth of slabs, vmalloc and per-CPU data of the whole machine while one table was loaded; other things on the machine change it too",
	}}
	record := func(name string, s Size, bytes int64) {
		table.Record(name, t.row(s), s.String(), float64(bytes)/megabyte)
	}
	for _, s := range t.sizes {
		if e := t.engines[s]; e != nil {
			record("Index and Enforcer, resident", s, e.Memory.Resident)
			record("Index and Enforcer, peak", s, e.Memory.Peak)
			record("kernel", s, e.Kernel)
		}
	}
	for _, a := range t.plan.agents {
		r := t.agents[a.Size]
		if r == nil {
			continue
		}
		record("agent, resident", a.Size, r.Memory.Resident)
		record("agent, before", a.Size, r.Memory.Before)
		record("agent, heap", a.Size, r.Memory.Heap)
		record("agent, peak", a.Size, r.Memory.Peak)
		resident := float64(r.Memory.Resident) / megabyte
		switch {
		case a.Size.hasGoals():
			table.AtMost(fmt.Sprintf("agent, %s: MB resident", a.Size), resident, goalLargeMB)
		case a.Size.Pods == 1000:
			table.AtMost(fmt.Sprintf("agent, %s: MB resident", a.Size), resident, goalSmallMB)
		}
	}
	t.give(table)
}

// agentStarts tells how long the agent takes to have a table in force.
func (t *tables) agentStarts() {
	table := report.Table{Name: "control-agent-start", Title: "Start of the agent", Unit: "s", XName: "size", Better: report.Lower,
		Notes: []string{"lists: from the start of the process until it has read the last of them; rules: from then until they are in force, with what the caches and the Index have still to do; takeover: the last part of it, from the first batch on"}}
	for _, a := range t.plan.agents {
		r := t.agents[a.Size]
		if r == nil {
			continue
		}
		table.Record("lists", t.row(a.Size), a.Size.String(), r.Synced.Seconds())
		table.Record("rules", t.row(a.Size), a.Size.String(), r.Cold.Seconds())
		table.Record("processor time of that", t.row(a.Size), a.Size.String(), r.ColdCPU.Seconds())
		table.Record("takeover", t.row(a.Size), a.Size.String(), r.Takeover.Seconds())
		if a.Restart {
			table.Record("rules after a restart", t.row(a.Size), a.Size.String(), r.Warm.Seconds())
			table.AtMost(fmt.Sprintf("%s: packets of %d that met a wrong verdict during the restart", a.Size, r.RestartPackets), float64(r.RestartWrong), 0)
		}
		if a.Size.hasGoals() {
			table.AtMost(fmt.Sprintf("agent, empty kernel, %s: s from the end of the lists to the rules", a.Size), r.Cold.Seconds(), goalCold)
		}
		for _, w := range r.Warnings {
			table.Notes = append(table.Notes, fmt.Sprintf("%s: the agent warned: %s", a.Size, w))
		}
	}
	t.give(table)
}

// turns tells how long it takes until packets obey.
func (t *tables) turns() {
	table := report.Table{Name: "control-first-packet", Title: "From the API server to the first packet that obeys", Unit: "ms", XName: "size", Better: report.Lower,
		Notes: []string{"packets are sent every 0.2 ms or somewhat more; the time is that of their sending"}}
	for _, a := range t.plan.agents {
		if r := t.agents[a.Size]; r != nil {
			for _, name := range slices.Sorted(maps.Keys(r.Obeyed)) {
				for _, ms := range r.Obeyed[name] {
					table.Record(name, t.row(a.Size), a.Size.String(), ms)
				}
			}
		}
	}
	t.give(table)
}

// row numbers the sizes, in the order of their pods, for tables that have a row for
// each.
func (t *tables) row(s Size) float64 {
	all := slices.Clone(t.sizes)
	for _, a := range t.plan.agents {
		all = append(all, a.Size)
	}
	slices.SortFunc(all, func(a, b Size) int {
		return cmp.Or(cmp.Compare(a.Pods, b.Pods), cmp.Compare(a.Policies, b.Policies), cmp.Compare(a.Local, b.Local), cmp.Compare(a.Crowd, b.Crowd))
	})
	return float64(slices.Index(slices.Compact(all), s))
}
