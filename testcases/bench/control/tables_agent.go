package control

import (
	"fmt"

	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
)

// parts of a churn whose delays are shown apart, so that a queue that grows is seen.
const churnParts = 10

// churn tells what pods that come and go cost.
func (t *tables) churn() {
	for _, a := range t.plan.agents {
		r := t.agents[a.Size]
		if r == nil || r.Churn == nil {
			continue
		}
		c := r.Churn
		table := report.Table{Name: "control-churn", Title: fmt.Sprintf("Churn of %d pod events a second: API server to kernel commit, %s", a.Rate, a.Size), Unit: "ms", XName: "tenth of the time", Better: report.Lower}
		for i, d := range c.Delays {
			table.Record("delay", float64(i*churnParts/len(c.Delays)), "", d)
		}
		table.Notes = []string{
			fmt.Sprintf("%d events in %.1f s (%.0f a second): median %.1f ms, 99th percentile %.1f ms, longest %.1f ms", c.Events, c.Took.Seconds(), float64(c.Events)/c.Took.Seconds(), report.Quantile(c.Delays, 0.5), report.Quantile(c.Delays, 0.99), report.Quantile(c.Delays, 1)),
			fmt.Sprintf("at most %d events at once were not in the kernel yet; %d were superseded before the agent looked", c.Backlog, c.Coalesced),
			fmt.Sprintf("the agent took %.1f %% of one processor; %.0f bytes an event from the API server; %d messages in %d batches to the kernel, %d grace periods", 100*c.CPU, c.Bytes, c.Sent.Messages, c.Sent.Batches, c.Sent.Graces),
			fmt.Sprintf("%d packets sent meanwhile, %d met a wrong verdict", c.Packets, c.Wrong),
		}
		table.AtMost("packets that met a wrong verdict", float64(c.Wrong), 0)
		if n := len(c.Delays); n >= 2*churnParts {
			early, late := report.Quantile(c.Delays[:n/2], 0.5), report.Quantile(c.Delays[n/2:], 0.5)
			table.AtMost("no growing queue: median delay of the second half / of the first", late/early, 1.5)
		}
		t.give(table)
	}
}
