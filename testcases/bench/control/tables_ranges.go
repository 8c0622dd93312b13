package control

import (
	"fmt"

	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
)

// rangesTables are the names of the tables that clusters with and without ranges are
// measured for.
var rangesTables = []string{"control-ranges", "control-ranges-sent"}

// The series of these tables.
const (
	withRanges    = "ranges and blocks"
	withoutRanges = "neither"
)

// ranges tells what ranges of ports and blocks cost the events.
func (t *tables) ranges() {
	size := t.plan.ranges.Size
	table := report.Table{
		Name: rangesTables[0], Title: fmt.Sprintf("Event to kernel commit, with ranges of ports and blocks in force and without, %s", size),
		Unit: "ms", XName: "event", Better: report.Lower, Baseline: withoutRanges,
		Notes: []string{
			fmt.Sprintf("%s: every policy has a range of 51 ports and 3 blocks with an exception; one has %d blocks; %d more are for one pod, with a port and a block of their own; the events are about that pod, or pods that are its peers", withRanges, manyBlocks, crowdOfBlocks),
			fmt.Sprintf("%s: the same policies without; so the policy with %d blocks has none there, and selects no peers", withoutRanges, manyBlocks),
			"policies with the same peers have the same blocks, so that an event is about no more sets than without",
		},
	}
	sent := report.Table{
		Name: rangesTables[1], Title: fmt.Sprintf("What an event sends, with ranges of ports and blocks in force and without, %s", size),
		Unit: "messages", XName: "event", Better: report.Lower,
	}
	most := 0
	for i, series := range []string{withRanges, withoutRanges} {
		l := t.rangesResult.Loaded[i]
		table.Notes = append(table.Notes, fmt.Sprintf("%s: %d sets and maps, %d chains, %d rules, %d elements", series, l.Sets, l.Chains, l.Rules, l.Elements))
		for x, e := range t.rangesResult.Events[i] {
			for _, ms := range e.MS {
				table.Record(series, float64(x), e.Name, ms)
			}
			sent.Record(series, float64(x), e.Name, float64(e.Sent.Messages))
			if series == withRanges {
				sent.Record(series+": to sets of ranges", float64(x), e.Name, float64(e.Sent.Intervals))
			}
			if e.Class == podClass || e.Class == namespaceClass {
				most = max(most, e.Sent.Intervals)
			}
		}
	}
	sent.AtMost("messages to sets of ranges, of one event of a pod or a namespace", float64(most), 0)
	t.give(table)
	t.give(sent)
}
