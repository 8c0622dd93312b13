package datapath

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/portcullis-netpol/portcullis/nft"
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
	most := 0
	for round := range rounds + 1 {
		for _, n := range sizes {
			if n > maxDistinct {
				continue // they would share their peers
			}
			most = max(most, n)
			if ctx.Err() != nil {
				return t, ctx.Err()
			}
			o.Say(fmt.Sprintf("datapath: load %d policies, round %d of %d", n, round, rounds))
			times, err := loadOnce(ctx, n)
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
	loadGoals(&t, most)
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

// loadOnce loads n policies, adds one, and deletes it again.
func loadOnce(ctx context.Context, n int) (times [3]time.Duration, err error) {
	l, err := lab.New(lab.Config{Nodes: []string{node}})
	if err != nil {
		return times, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	w := oneDirection(n, 0)
	x, err := w.index()
	if err != nil {
		return times, err
	}
	cfg := nft.Config{NetNS: l.NetNS(node)}
	kernel, err := nft.OpenKernel(cfg)
	if err != nil {
		return times, fmt.Errorf("open nftables: %w", err)
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	e := nft.NewEnforcer(cfg, kernel)
	x.Flush()
	state := x.State()
	more := w.object(n) // beside the last one, which it resembles
	more.Name = "more"
	for i, step := range []func() func() error{
		func() func() error { return func() error { return e.Takeover(ctx, state) } },
		func() func() error {
			x.SetNetworkPolicy(more)
			change := x.Flush()
			return func() error { return e.Apply(ctx, change) }
		},
		func() func() error {
			x.DeleteNetworkPolicy(more.Namespace, more.Name)
			change := x.Flush()
			return func() error { return e.Apply(ctx, change) }
		},
	} {
		do := step()
		start := time.Now()
		if err := do(); err != nil {
			return times, err
		}
		times[i] = time.Since(start)
	}
	return times, nil
}
