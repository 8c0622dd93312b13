package matrix

import (
	"context"
	"net/netip"
	"slices"
)

// Diff is what a change opens and closes.
type Diff struct {
	View    View // its cells are indices of Changes, or Blank where nothing changes
	Changes []Change
	Old     Table
	New     Table
	// Gone and Added are pods that take part on one side only, by full name, sorted. Nothing is said of their traffic.
	Gone, Added []string
}

// Change is the difference of one cell or more.
type Change struct {
	Opened, Closed Reach // by pair: what passes now and did not, and the other way round
	Old, New       Variant
}

// Same tells whether nothing at all is different.
func (d *Diff) Same() bool {
	same := len(d.Gone) == 0 && len(d.Added) == 0
	d.Each(func(End, End, *Change) { same = false })
	return same
}

// Compare tells what changes from one state of a cluster to another, for the pods that are in both; the first of
// options.Views counts. Who a pod belongs to, and on which node it is, the old state says. Its error is that of Compute.
func Compare(ctx context.Context, before, after Input, options Options) (*Diff, error) {
	e := newEngine([]Input{before, after})
	options.Views = options.views()[:1]
	views, err := e.run(ctx, options)
	if err != nil {
		return nil, err
	}
	d := &Diff{Gone: e.only[0], Added: e.only[1], View: View{By: options.Views[0]}}
	c := &changes{engine: e, ids: map[string]int32{}, deltas: map[[2]passage]*delta{}}
	for _, a := range views[0] {
		d.View.Ends = append(d.View.Ends, a.End)
		var cells []int32
		for _, b := range views[0] {
			cells = append(cells, c.id(e.pieces(a, b)))
		}
		d.View.Cells = append(d.View.Cells, cells)
	}
	d.Changes = c.list
	d.Old, d.New = *e.tables[0], *e.tables[1]
	return d, nil
}

// changes keeps each change once.
type changes struct {
	engine *engine
	ids    map[string]int32
	deltas map[[2]passage]*delta
	list   []Change
}

// delta is the difference of two passages.
type delta struct{ opened, closed passageReach }

func (d *delta) same() bool {
	for f := range families {
		if !d.opened.allowed[f].Empty() || !d.closed.allowed[f].Empty() {
			return false
		}
	}
	return true
}

func (c *changes) delta(p piece) *delta {
	key := [2]passage{p.passages[0], p.passages[1]}
	d := c.deltas[key]
	if d == nil {
		d = &delta{}
		before, after := c.engine.tables[0].reach(key[0]), c.engine.tables[1].reach(key[1])
		for f := range families {
			d.opened.has[f] = before.has[f] || after.has[f]
			d.opened.allowed[f] = after.allowed[f].Minus(before.allowed[f])
			d.closed.allowed[f] = before.allowed[f].Minus(after.allowed[f])
		}
		d.closed.has = d.opened.has
		c.deltas[key] = d
	}
	return d
}

// id returns the index of what pieces come to, or Blank if nothing is different.
func (c *changes) id(pieces []piece) int32 {
	var change Change
	differs := false
	for _, p := range pieces {
		d := c.delta(p)
		differs = differs || !d.same()
		change.Opened.add(d.opened)
		change.Closed.add(d.closed)
	}
	if !differs {
		return Blank
	}
	key := piecesKey(pieces)
	id, known := c.ids[key]
	if !known {
		id = int32(len(c.list))
		c.ids[key] = id
		change.Old, change.New = c.engine.tables[0].variant(pieces, 0), c.engine.tables[1].variant(pieces, 1)
		c.list = append(c.list, change)
	}
	return id
}

// Each calls f for every cell that changes, row by row.
func (d *Diff) Each(f func(from, to End, c *Change)) {
	for i, row := range d.View.Cells {
		for j, id := range row {
			if id != Blank {
				f(d.View.Ends[i], d.View.Ends[j], &d.Changes[id])
			}
		}
	}
}

// Only leaves no change but those of some ports.
func (d *Diff) Only(ports Ports) {
	for _, row := range d.View.Cells {
		for j, id := range row {
			if id == Blank {
				continue
			}
			c := &d.Changes[id]
			c.Opened.only(ports)
			c.Closed.only(ports)
			if c.Opened.empty() && c.Closed.empty() {
				row[j] = Blank
			}
		}
	}
}

func (r *Reach) only(ports Ports) {
	for f := range families {
		r.Every[f], r.Some[f] = r.Every[f].Intersect(ports), r.Some[f].Intersect(ports)
	}
}

func (r *Reach) empty() bool { return r.Some[0].Empty() && r.Some[1].Empty() }

// Blocks are the blocks outside for which something opened, or closed, in a change of a cell of which one end is
// outside.
func (d *Diff) Blocks(c *Change, opened bool) []netip.Prefix {
	var out []netip.Prefix
	for i, old := range c.Old.Parts { // both are made of the same pieces
		from, to := d.Old.allowed(old), d.New.allowed(c.New.Parts[i])
		if !opened {
			from, to = to, from
		}
		if !to[0].Minus(from[0]).Empty() || !to[1].Minus(from[1]).Empty() {
			out = append(out, old.Blocks...)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

func (t *Table) allowed(p Part) [families]Ports {
	return t.reach(passage{int32(p.Egress), int32(p.Ingress)}).allowed
}
