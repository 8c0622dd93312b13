package demo

import (
	"fmt"
	"time"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// report is what one step has shown.
type report struct {
	number         int
	title, text    string
	added, dropped []string
	revision       string

	flows   []flow
	want    []expectation
	changed []bool // the expectation differs from the step before
	moved   []bool // an end has another address than in the step before
	got     []lab.Result

	agents       []agentReport
	firstPackets []time.Duration // of the witnesses that saw the change
}

// agentReport is how long after the swap an agent had the revision in force.
type agentReport struct {
	node  string
	after time.Duration
}

// compare marks what changes against the step before.
func (r *report) compare(before *report) {
	r.changed = make([]bool, len(r.flows))
	r.moved = make([]bool, len(r.flows))
	if before == nil {
		return
	}
	was := map[string]int{}
	for i, f := range before.flows {
		was[f.String()] = i
	}
	for i, f := range r.flows {
		j, known := was[f.String()]
		if !known {
			r.changed[i] = true
			continue
		}
		r.changed[i] = before.want[j].allowed != r.want[i].allowed
		r.moved[i] = before.flows[j].src != f.src || before.flows[j].dst != f.dst
	}
}

// witnesses picks connections that the change opens or closes, not two of them with
// a common end. New addresses are closed until the rules know them, so a connection
// of theirs that is to be open will do as well.
func (r *report) witnesses() []witness {
	const most = 6
	var out []witness
	taken := map[*end]bool{}
	for i, f := range r.flows {
		opens := r.moved[i] && r.want[i].allowed && f.from.pod != nil
		if (r.changed[i] && f.from.pod != nil || opens) && !taken[f.to] && !taken[f.from] && len(out) < most {
			taken[f.to], taken[f.from] = true, true
			out = append(out, witness{f.probe(), r.want[i].allowed})
		}
	}
	return out
}

func (r *report) changes() int {
	n := 0
	for _, c := range r.changed {
		if c {
			n++
		}
	}
	return n
}

// right tells whether a connection was judged as expected.
func (r *report) right(i int) bool { return r.got[i].OK == r.want[i].allowed }

// wrong describes the connections that were not.
func (r *report) wrong() []string {
	var out []string
	for i, f := range r.flows {
		if r.right(i) {
			continue
		}
		want := "blocked"
		if r.want[i].allowed {
			want = "reached"
		}
		out = append(out, fmt.Sprintf("%s: should be %s (%s), but was %s", f, want, r.want[i].reason, outcome(r.got[i])))
	}
	return out
}

func outcome(r lab.Result) string {
	switch {
	case r.OK:
		return "reached"
	case r.Refused:
		return fmt.Sprintf("refused: %v", r.Err)
	}
	return fmt.Sprintf("blocked: %v", r.Err)
}

// span is the shortest and longest of some durations.
func span(list []time.Duration) (lo, hi time.Duration) {
	for i, d := range list {
		if i == 0 || d < lo {
			lo = d
		}
		hi = max(hi, d)
	}
	return lo, hi
}
