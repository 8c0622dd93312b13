package datapath

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy/ir"
	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// What is wanted of the time it takes to load many policies, in milliseconds.
const (
	loadMost = 1000
	moreMost = 1
)

const loadTable = "load-policies"

// The series of the table of loading.
const (
	loading    = "load"
	onePolicy  = "one more policy"
	lessPolicy = "one policy less"
)

// loads measures how long it takes to put policies of one pod in force, all with
// ports and peers of their own, in a kernel without any, and then one more.
func loads(ctx context.Context, o report.Options, sizes []int, rounds int) (t report.Table, err error) {
	t = report.Table{
		Name: loadTable, Title: "Putting the policies of one pod in force, compiling aside", Unit: "ms",
		XName: "policies of the pod", Better: report.Lower,
	}
	sizes = slices.DeleteFunc(slices.Clone(sizes), func(n int) bool { return n > maxDistinct }) // they would share their peers
	var all []compiled
	for _, n := range sizes {
		c, err := compile(n)
		if err != nil {
			return t, fmt.Errorf("compile %d policies: %w", n, err)
		}
		all = append(all, c)
	}
	for round := range rounds + 1 {
		o.Say(fmt.Sprintf("datapath: load policies, round %d of %d", round, rounds))
		for i, n := range sizes {
			if ctx.Err() != nil {
				return t, ctx.Err()
			}
			times, err := all[i].load(ctx)
			if err != nil {
				return t, fmt.Errorf("load %d policies: %w", n, err)
			}
			for i, series := range []string{loading, onePolicy, lessPolicy} {
				if round > 0 {
					t.Record(series, float64(n), "", times[i].Seconds()*1000)
				}
			}
		}
	}
	loadGoals(&t, last(sizes))
	return t, nil
}

func loadGoals(t *report.Table, most int) {
	for _, g := range []struct {
		series string
		bound  float64
	}{{loading, loadMost}, {onePolicy, moreMost}} {
		p, _ := t.Point(g.series, float64(most))
		t.AtMost(fmt.Sprintf("ms, %s at %d (wanted at 10000)", g.series, most), p.Median(), g.bound)
	}
}

// compiled is policies of one pod, and what one more of them changes, and one less again.
type compiled struct {
	state      ir.State
	more, less ir.Change
}

// compile makes n policies, and one beside the last one, which it resembles.
func compile(n int) (c compiled, err error) {
	w := oneDirection(n, 0)
	x, err := w.index()
	if err != nil {
		return c, err
	}
	x.Flush()
	c.state = x.State()
	more := w.object(n)
	more.Name = "more"
	x.SetNetworkPolicy(more)
	c.more = x.Flush()
	x.DeleteNetworkPolicy(more.Namespace, more.Name)
	c.less = x.Flush()
	return c, nil
}

// load puts the policies in force where none are, then one more, and then takes that
// back.
func (c compiled) load(ctx context.Context) (times [3]time.Duration, err error) {
	l, err := lab.New(lab.Config{Nodes: []string{node}})
	if err != nil {
		return times, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	cfg := nft.Config{NetNS: l.NetNS(node)}
	kernel, err := nft.OpenKernel(cfg)
	if err != nil {
		return times, fmt.Errorf("open nftables: %w", err)
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	e := nft.NewEnforcer(cfg, kernel)
	for i, do := range []func() error{
		func() error { return e.Takeover(ctx, c.state) },
		func() error { return e.Apply(ctx, c.more) },
		func() error { return e.Apply(ctx, c.less) },
	} {
		start := time.Now()
		if err := do(); err != nil {
			return times, err
		}
		times[i] = time.Since(start)
	}
	return times, nil
}
