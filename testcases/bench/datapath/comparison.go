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
	// once tells that it is among the sites of the first build only: for rules that
	// take long to load, and whose packets take so long that a few samples tell.
	once bool
	load func(*site) error
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
		t.Notes = append(t.Notes, fmt.Sprintf("%d samples of each: %d rounds around each of %d builds of the sites", c.builds*c.rounds, c.rounds, c.builds))
		for _, s := range c.subjects {
			t.AddSeries(s.series)
			if s.once && c.builds > 1 {
				t.Notes = append(t.Notes, fmt.Sprintf("%s at %v: one build, %d samples", s.series, s.sizes[0], c.rounds))
			}
		}
		tables = append(tables, t)
	}
	shuffle := rand.New(rand.NewPCG(1, 2))
	for build := range c.builds {
		subjects := c.subjects
		if build > 0 {
			subjects = slices.DeleteFunc(slices.Clone(subjects), func(s subject) bool { return s.once })
		}
		c.say(fmt.Sprintf("%s: make %d sites, %d of %d", c.place, len(subjects), build+1, c.builds))
		if err := c.build(ctx, subjects, shuffle, tables); err != nil {
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

// build makes the sites of the subjects, measures, and removes them.
func (c *comparison) build(ctx context.Context, subjects []subject, shuffle *rand.Rand, tables []report.Table) (err error) {
	var sites []*site
	defer func() {
		for _, s := range sites {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, sub := range subjects {
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
	return c.measure(ctx, subjects, shuffle, m, sites, tables)
}

const wallNote = "Wall-clock time, because this kernel does not count softirqs as a thread's."

// measure goes around the sites, every time in another order. The first round only
// warms up.
func (c *comparison) measure(ctx context.Context, subjects []subject, shuffle *rand.Rand, m measurer, sites []*site, tables []report.Table) error {
	for round := range c.rounds + 1 {
		if round%5 == 0 {
			c.say(fmt.Sprintf("%s: round %d of %d", c.place, round, c.rounds))
		}
		for _, i := range shuffle.Perm(len(sites)) {
			for k, p := range c.probes {
				if err := c.sample(ctx, m, sites[i], subjects[i], p, &tables[k], round > 0); err != nil {
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
