package matrix

import (
	"context"
	"net/netip"
	"runtime"
	"slices"
	"sync"
)

// engine answers for classes of pods, on one side or on two.
type engine struct {
	sides    []*side
	tables   []*Table // by side
	subjects []*subject
	only     [][]string // names of pods on one side only, by side
	classes  []*class
	groups   []*nodeGroup
	nodes    int // that have an address
	avoid    []netip.Prefix
	taken    map[netip.Addr]bool

	rows []*row // by class
}

func newEngine(inputs []Input) *engine {
	e := &engine{taken: map[netip.Addr]bool{}}
	for _, in := range inputs {
		s := newSide(in)
		e.sides = append(e.sides, s)
		e.tables = append(e.tables, newTable(s))
		e.avoid = append(e.avoid, in.PodCIDRs...)
		for _, n := range in.Cluster.Nodes {
			for _, a := range nodeAddrs(n) {
				e.taken[a] = true
			}
		}
		for a := range owners(in.Cluster.Pods) {
			e.taken[a] = true
		}
	}
	e.subjects, e.only = subjects(inputs)
	e.classes = classify(e.subjects, e.sides)
	e.groups = nodeGroups(e.sides)
	for _, g := range e.groups {
		e.nodes += len(g.names)
	}
	e.rows = make([]*row, len(e.classes))
	return e
}

// row is the answers for one class, as indices of profiles.
type row struct {
	egress, ingress [][]int32 // of its pods, by side and by the other class; none where it was not asked for
	out, in         []part    // to and from outside
	toNode          [2][][]passage
	fromNode        [2][][]passage // by kind of node (own, other) and group, by side; nil if there is none
}

const none int32 = -1

// part is blocks with the same passages, by side.
type part struct {
	blocks   []netip.Prefix
	passages []passage
}

// solve answers every class pair that is wanted, and all that is no pair of pods. Classes are answered side by side and
// numbered in order, so that numbers do not depend on chance.
func (e *engine) solve(ctx context.Context, wanted [][]bool, progress func(done, total int)) error {
	workers := runtime.GOMAXPROCS(0)
	for first := 0; first < len(e.classes); first += workers {
		if err := ctx.Err(); err != nil {
			return err
		}
		batch := make([]answers, min(workers, len(e.classes)-first))
		var wait sync.WaitGroup
		for i := range batch {
			wait.Go(func() { batch[i] = e.answer(first+i, wanted) })
		}
		wait.Wait()
		for i, a := range batch {
			e.rows[first+i] = e.number(a)
		}
		if progress != nil {
			progress(first+len(batch), len(e.classes))
		}
	}
	return nil
}

// passages are what becomes of a pair of pods of two classes, by side; nil if it was not asked for.
func (e *engine) passages(from, to int) []passage {
	var out []passage
	for i := range e.sides {
		p := passage{e.rows[from].egress[i][to], e.rows[to].ingress[i][from]}
		if p[0] == none || p[1] == none {
			return nil
		}
		out = append(out, p)
	}
	return out
}

// number gives the profiles of a row their numbers.
func (e *engine) number(a answers) *row {
	r := &row{out: e.parts(a.out), in: e.parts(a.in)}
	for i := range e.sides {
		r.egress = append(r.egress, a.egress[i].number(e.tables[i], true))
		r.ingress = append(r.ingress, a.ingress[i].number(e.tables[i], false))
	}
	for k := range a.toNode {
		for g := range e.groups {
			r.toNode[k] = append(r.toNode[k], e.numbers(a.toNode[k][g]))
			r.fromNode[k] = append(r.fromNode[k], e.numbers(a.fromNode[k][g]))
		}
	}
	return r
}

// numbers are the passages of what was asked of both directions, by side.
func (e *engine) numbers(list [][2]probed) []passage {
	var out []passage
	for i, p := range list {
		out = append(out, passage{e.tables[i].profile(p[0], true), e.tables[i].profile(p[1], false)})
	}
	return out
}

// parts joins atoms that got the same answer.
func (e *engine) parts(list []atomAnswer) []part {
	var out []part
	for _, a := range list {
		passages := e.numbers(a.is)
		i := slices.IndexFunc(out, func(p part) bool { return slices.Equal(p.passages, passages) })
		if i < 0 {
			i = len(out)
			out = append(out, part{passages: passages})
		}
		out[i].blocks = append(out[i].blocks, a.block)
	}
	return out
}
