package datapath

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
)

// subject is rules that are compared with others: one site.
type subject struct {
	series string
	// sizes are the X of what is measured here: several for rules that do not
	// depend on a size.
	sizes []int
	// first is the port that the first rule allows.
	first uint16
	// denies tells that the denied port is denied.
	denies bool
	load   func(*site) error
}

// probe is something to measure of every subject, for one table.
type probe struct {
	table report.Table
	take  func(measurer, *site, subject) (float64, error)
	// at is the only size to measure at; 0 means all of them.
	at int
	// goals adds what the finished table is to show.
	goals func(*report.Table)
}

// comparison is rounds of all probes of all subjects, side by side.
type comparison struct {
	place    place
	subjects []subject
	probes   []probe
	// builds is how many times the sites are made anew, and rounds how often each of
	// these are gone around. Where a site happens to lie in memory makes some of them
	// a few per cent faster than others with the same rules.
	builds, rounds int
	dose           dose
	say            func(string)
}

// run measures, and returns a table for each probe.
func (c *comparison) run(ctx context.Context) ([]report.Table, error) {
	var tables []report.Table
	for _, p := range c.probes {
		t := p.table
		for _, s := range c.subjects {
			t.AddSeries(s.series)
		}
		tables = append(tables, t)
	}
	shuffle := rand.New(rand.NewPCG(1, 2))
	for build := range c.builds {
		c.say(fmt.Sprintf("%s: make %d sites, %d of %d", c.place, len(c.subjects), build+1, c.builds))
		if err := c.build(ctx, shuffle, tables); err != nil {
			return nil, err
		}
	}
	for i := range tables {
		if c.probes[i].goals != nil {
			c.probes[i].goals(&tables[i])
		}
	}
	return tables, nil
}

// build makes the sites, measures, and removes them.
func (c *comparison) build(ctx context.Context, shuffle *rand.Rand, tables []report.Table) (err error) {
	var sites []*site
	defer func() {
		for _, s := range sites {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, sub := range c.subjects {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s, err := newSite(c.place)
		if err != nil {
			return err
		}
		sites = append(sites, s)
		if err := sub.load(s); err != nil {
			return fmt.Errorf("%s, %v: %w", sub.series, sub.sizes, err)
		}
	}
	m := measurer{dose: c.dose}
	err = pinned(func() (err error) {
		m.clock, err = fittingClock(func() error { return sites[0].sender.renew(8*batch, allowedPort) })
		return err
	})
	if err != nil {
		return err
	}
	if m.clock == wallTime {
		for i := range tables {
			if !slices.Contains(tables[i].Notes, wallNote) {
				tables[i].Notes = append(tables[i].Notes, wallNote)
			}
		}
	}
	return c.measure(ctx, shuffle, m, sites, tables)
}

const wallNote = "Wall-clock time, because this kernel does not count softirqs as a thread's."

// measure goes around the sites, every time in another order. The first round only
// warms up.
func (c *comparison) measure(ctx context.Context, shuffle *rand.Rand, m measurer, sites []*site, tables []report.Table) error {
	for round := range c.rounds + 1 {
		if round%5 == 0 {
			c.say(fmt.Sprintf("%s: round %d of %d", c.place, round, c.rounds))
		}
		for _, i := range shuffle.Perm(len(sites)) {
			sub := c.subjects[i]
			for k, p := range c.probes {
				if err := c.sample(ctx, m, sites[i], sub, p, &tables[k], round > 0); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// sample takes one sample, and records it for every size that it stands for.
func (c *comparison) sample(ctx context.Context, m measurer, s *site, sub subject, p probe, t *report.Table, counts bool) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	sizes := sub.sizes
	if p.at > 0 {
		if !slices.Contains(sizes, p.at) {
			return nil
		}
		sizes = []int{p.at}
	}
	v, err := p.take(m, s, sub)
	if err != nil {
		return fmt.Errorf("%s of %s, %v: %w", t.Name, sub.series, sub.sizes, err)
	}
	for _, x := range sizes {
		if counts {
			t.Record(sub.series, float64(x), "", v)
		}
	}
	return nil
}
