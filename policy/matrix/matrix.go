package matrix

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
)

// Matrix is who reaches whom.
type Matrix struct {
	Table
	Views    []View
	Variants []Variant
	// LeftOut are pods that own no address, by full name, sorted: those of the host's network, those that have ended,
	// and those whose address is another pod's.
	LeftOut []string
}

// View is one table.
type View struct {
	By   By
	Ends []End
	// Cells are the indices of Variants from each end to each other, or Blank.
	Cells [][]int32
}

// Blank is a cell without anything to say: from a single pod to itself, which always passes, or between two ends that
// are no pods, or that were not asked for.
const Blank int32 = -1

// Variant is what one cell or more shows.
type Variant struct {
	Parts []Part
	Reach *Reach // shared by variants that come to the same
}

// Part is pairs of a cell that are judged alike.
type Part struct {
	Egress   int            // index of Profiles
	Ingress  int            // index of Profiles
	Pairs    int            // how many pairs, an address outside once for each block; 0 if it is the only part
	From, To string         // one of them; empty if it is the only part
	Blocks   []netip.Prefix // if one end is outside: which addresses (see the package)
}

// Reach is what passes, by family: 0 is IPv4, 1 is IPv6.
type Reach struct {
	Has   [families]bool  // whether any pair has addresses of the family
	Every [families]Ports // what passes between every pair that has
	Some  [families]Ports // what passes between one pair at least
}

// Mixed tells whether pairs differ.
func (r Reach) Mixed() bool {
	return !r.Every[0].Equal(r.Some[0]) || !r.Every[1].Equal(r.Some[1])
}

// FamiliesDiffer tells whether both families exist and differ.
func (r Reach) FamiliesDiffer() bool {
	return r.Has[0] && r.Has[1] && (!r.Every[0].Equal(r.Every[1]) || !r.Some[0].Equal(r.Some[1]))
}

// add takes one more pair in.
func (r *Reach) add(p passageReach) {
	for f := range families {
		switch {
		case !p.has[f]:
			continue
		case !r.Has[f]:
			r.Every[f] = p.allowed[f]
		default:
			r.Every[f] = r.Every[f].Intersect(p.allowed[f])
		}
		r.Has[f] = true
		r.Some[f] = r.Some[f].Union(p.allowed[f])
	}
}

// Compute answers for one state of a cluster. Its error is the context's, or a namespace that has no pods.
func Compute(ctx context.Context, in Input, options Options) (*Matrix, error) {
	e := newEngine([]Input{in})
	ends, err := e.run(ctx, options)
	if err != nil {
		return nil, err
	}
	m := &Matrix{LeftOut: e.leftOut(0)}
	v := &variants{table: e.tables[0], ids: map[string]int32{}}
	for i, view := range ends {
		is := View{By: options.views()[i]}
		for _, a := range view {
			is.Ends = append(is.Ends, a.End)
			cells := make([]int32, 0, len(view))
			for _, b := range view {
				cells = append(cells, v.id(e.pieces(a, b), 0))
			}
			is.Cells = append(is.Cells, cells)
		}
		m.Views = append(m.Views, is)
	}
	m.Table, m.Variants = *e.tables[0], v.list
	return m, nil
}

func (o Options) views() []By {
	if len(o.Views) == 0 {
		return []By{ByPod}
	}
	return o.Views
}

// run finds the ends of every view, and answers all that they ask.
func (e *engine) run(ctx context.Context, o Options) ([][]*end, error) {
	known := map[string]bool{}
	for _, s := range e.subjects {
		known[s.namespace] = true
	}
	for _, n := range o.Namespaces {
		if !known[n] {
			return nil, fmt.Errorf("namespace %q has no pods to show", n)
		}
	}
	var views [][]*end
	wanted := make([][]bool, len(e.classes))
	for i := range wanted {
		wanted[i] = make([]bool, len(e.classes))
	}
	for _, by := range o.views() {
		ends := endsOf(e.subjects, by, o.Namespaces, e.nodes)
		for _, a := range ends {
			for _, b := range ends {
				if a.context && b.context {
					continue
				}
				for _, from := range a.classes {
					for _, to := range b.classes {
						wanted[from][to] = true
					}
				}
			}
		}
		views = append(views, ends)
	}
	return views, e.solve(ctx, wanted, o.Progress)
}

// leftOut names the pods of a side that do not take part.
func (e *engine) leftOut(side int) []string {
	found := map[string]bool{}
	for _, s := range e.subjects {
		found[s.fullName()] = true
	}
	var out []string
	for _, pod := range e.sides[side].in.Cluster.Pods {
		if name := pod.Namespace + "/" + pod.Name; !found[name] {
			out = append(out, name)
		}
	}
	return out
}

// variants keeps each variant once.
type variants struct {
	table *Table
	ids   map[string]int32
	list  []Variant
}

// id returns the index of what pieces come to on a side.
func (v *variants) id(pieces []piece, side int) int32 {
	if len(pieces) == 0 {
		return Blank
	}
	key := piecesKey(pieces)
	id, known := v.ids[key]
	if !known {
		id = int32(len(v.list))
		v.ids[key] = id
		v.list = append(v.list, v.table.variant(pieces, side))
	}
	return id
}

// piecesKey is the same for pieces of which the same is to be shown. A cell of one part need not name its pods.
func piecesKey(pieces []piece) string {
	var key []byte
	for _, p := range pieces {
		for _, is := range p.passages {
			key = append(strconv.AppendInt(key, int64(is[0]), 10), ':')
			key = append(strconv.AppendInt(key, int64(is[1]), 10), ':')
		}
		if len(pieces) > 1 {
			key = append(strconv.AppendInt(key, int64(p.pairs), 10), ':')
			key = strconv.AppendQuote(strconv.AppendQuote(key, p.from), p.to)
		}
		for _, b := range p.blocks {
			key = append(b.AppendTo(key), ',')
		}
	}
	return string(key)
}

func (t *Table) variant(pieces []piece, side int) Variant {
	var out Variant
	var reach Reach
	for _, p := range pieces {
		is := p.passages[side]
		part := Part{Egress: int(is[0]), Ingress: int(is[1]), Blocks: p.blocks}
		if len(pieces) > 1 {
			part.Pairs, part.From, part.To = p.pairs, p.from, p.to
		}
		out.Parts = append(out.Parts, part)
		reach.add(*t.reach(is))
	}
	out.Reach = t.shared(reach)
	return out
}

// shared is the one copy of what passes.
func (t *Table) shared(r Reach) *Reach {
	var key []byte
	for f := range families {
		key = strconv.AppendBool(key, r.Has[f])
		for _, p := range []Ports{r.Every[f], r.Some[f]} {
			for _, ranges := range p.ranges {
				key = append(key, '|')
				for _, is := range ranges {
					key = append(strconv.AppendInt(key, int64(is.First), 10), '-')
					key = append(strconv.AppendInt(key, int64(is.Last), 10), ',')
				}
			}
		}
	}
	if t.reaches[string(key)] == nil {
		t.reaches[string(key)] = &r
	}
	return t.reaches[string(key)]
}
