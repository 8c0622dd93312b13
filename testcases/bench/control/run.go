package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
)

// Options says how much is measured. Quick takes the smallest and the largest sizes
// only, and few samples.
type Options struct {
	report.Options
	// Profiles is a directory for CPU and heap profiles of every child, by its size.
	// Look at one event with `go tool pprof -tagfocus event="remote pod added"`.
	// Empty means none.
	Profiles string
}

// Run measures and adds tables to r. What was measured before an error, or before ctx
// ended, is in r. It needs the rights that lab.Enter gets, and a main that calls
// Child.
func Run(ctx context.Context, o Options, r *report.Report) error {
	return run(ctx, planFor(o), o, r)
}

// plan is what Run does.
type plan struct {
	sizes  []Size
	engine engineJob // but for the size
	// goals stands in for engine at the size that has goals.
	goals  engineJob
	ranges rangesJob
	agents []agentPlan
	load   loadPlan
}

// crowd is the number of policies that select the same pods with peers of their own
// in one more size; 0 leaves it out.
const crowd = 10_000

func planFor(o Options) plan {
	largest := Size{Pods: 100_000, Policies: 10_000, Local: 110}
	if crowd > 0 {
		p := planOf(o, largest)
		p.sizes = append(p.sizes, Size{Pods: 1000, Policies: 10, Local: 110, Crowd: crowd})
		return p
	}
	return planOf(o, largest)
}

func planOf(o Options, largest Size) plan {
	if o.Quick {
		return plan{
			sizes:  []Size{{0, 10, 110, 0}, {0, 10_000, 110, 0}, {100_000, 10, 110, 0}, largest},
			engine: engineJob{Starts: 1, Events: 200, Budget: 500 * time.Millisecond, Profiles: o.Profiles},
			goals:  engineJob{Starts: 1, Events: 200, Budget: 2 * time.Second, Profiles: o.Profiles},
			ranges: rangesJob{Size: Size{2000, 200, 110, 0}, Events: 200, Budget: 600 * time.Millisecond, Profiles: o.Profiles},
			agents: []agentPlan{
				{Size: Size{1000, 10, 110, 0}, Turns: 5, Profiles: o.Profiles},
				{Size: largest, Churn: 5 * time.Second, Rate: 500, Turns: 5, Profiles: o.Profiles},
			},
			load: loadPlan{Size: Size{2000, 200, 110, 0}, Lives: 20},
		}
	}
	p := plan{
		engine: engineJob{Starts: 1, Events: 400, Budget: 600 * time.Millisecond, Profiles: o.Profiles},
		goals:  engineJob{Starts: 3, Events: 1000, Budget: 4 * time.Second, Profiles: o.Profiles},
		ranges: rangesJob{Size: Size{10_000, 1000, 110, 0}, Events: 1000, Budget: 3 * time.Second, Profiles: o.Profiles},
	}
	for _, local := range []int{110, 250} {
		for _, policies := range []int{10, 1000, 10_000} {
			for _, pods := range []int{0, 1000, 10_000, 100_000} {
				p.sizes = append(p.sizes, Size{pods, policies, local, 0})
			}
		}
	}
	for _, s := range []Size{{0, 10, 110, 0}, {1000, 10, 110, 0}, {10_000, 1000, 110, 0}} {
		p.agents = append(p.agents, agentPlan{Size: s, Turns: 20, Profiles: o.Profiles})
	}
	p.agents = append(p.agents, agentPlan{Size: largest, Churn: time.Minute, Rate: 500, Turns: 20, Restart: true, Profiles: o.Profiles})
	p.load = loadPlan{Size: Size{5000, 500, 110, 0}, Lives: 100}
	return p
}

func run(ctx context.Context, p plan, o Options, r *report.Report) error {
	var errs []error
	engines := map[Size]*engineResult{}
	for _, s := range p.sizes {
		if ctx.Err() != nil || !o.any(p.engineTables()) {
			break
		}
		o.Say(fmt.Sprintf("control: Index and Enforcer, %s", s))
		job := p.engine
		if s.hasGoals() {
			job = p.goals
		}
		job.Size = s
		e, err := measureEngine(ctx, job)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		engines[s] = e
	}
	ranges, err := p.measureRanges(ctx, o)
	errs = append(errs, err)
	agents := map[Size]*agentResult{}
	for _, a := range p.agents {
		if ctx.Err() != nil || !o.any(agentTables) {
			break
		}
		o.Say(fmt.Sprintf("control: agent, %s", a.Size))
		result, err := measureAgent(ctx, a)
		if err != nil {
			errs = append(errs, fmt.Errorf("agent, %s: %w", a.Size, err))
			continue
		}
		agents[a.Size] = result
	}
	load, err := p.measureLoad(ctx, o)
	errs = append(errs, err)
	t := tables{plan: p, engines: engines, agents: agents, rangesResult: ranges, loaded: load, options: o, report: r}
	t.add()
	return errors.Join(append(errs, ctx.Err())...)
}

// measureLoad measures what an agent reads of the API server, if it is wanted.
func (p plan) measureLoad(ctx context.Context, o Options) (*loadResult, error) {
	if p.load.Size == (Size{}) || ctx.Err() != nil || !o.Wants(loadTable) {
		return nil, nil
	}
	o.Say(fmt.Sprintf("control: load on the API server, %s", p.load.Size))
	load, err := measureLoad(ctx, p.load)
	if err != nil {
		return nil, fmt.Errorf("load on the API server: %w", err)
	}
	return load, nil
}

// measureRanges measures what ranges cost, if the plan has it and it is wanted.
func (p plan) measureRanges(ctx context.Context, o Options) (*rangesResult, error) {
	if p.ranges.Size == (Size{}) || ctx.Err() != nil || !o.any(rangesTables) {
		return nil, nil
	}
	o.Say(fmt.Sprintf("control: ranges of ports and blocks, %s", p.ranges.Size))
	return measureRanges(ctx, p.ranges)
}

// any reports whether one of the tables is wanted.
func (o Options) any(names []string) bool { return slices.ContainsFunc(names, o.Wants) }

// agentTables are the names of the tables that agents are measured for.
var agentTables = []string{"control-memory", "control-agent-start", "control-first-packet", "control-churn", "control-api"}

// engineTables returns the names of those that Index and Enforcer are measured for.
func (p plan) engineTables() []string {
	out := []string{"control-idle", "control-memory"}
	for _, s := range p.sizes {
		out = append(out, s.table("parts"), s.table("sent"), s.table("allocations"), s.start())
		for _, pair := range newCluster(s).pairs() {
			out = append(out, eventTable(pair.halves[0].name), eventTable(pair.halves[1].name))
		}
	}
	return out
}
