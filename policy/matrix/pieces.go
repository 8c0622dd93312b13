package matrix

import (
	"net/netip"
	"slices"
)

// piece is what is the same for a number of pairs of one cell.
type piece struct {
	passages []passage // by side
	pairs    int
	from, to string // of one pair
	blocks   []netip.Prefix
}

// pieces are all pairs of two ends, put together by what becomes of them, in the order in which they are met. It is
// empty if the ends have no pair: a single pod and itself, or two ends that are no pods.
func (e *engine) pieces(a, b *end) []piece {
	var out pieceList
	switch {
	case a.members == nil && b.members == nil, a.context && b.context:
	case a.members == nil:
		e.addAside(&out, b, a.Kind, false)
	case b.members == nil:
		e.addAside(&out, a, b.Kind, true)
	default:
		e.addPods(&out, a, b)
	}
	return out
}

type pieceList []piece

func (l *pieceList) add(p piece) {
	i := slices.IndexFunc(*l, func(have piece) bool { return slices.Equal(have.passages, p.passages) })
	if i < 0 {
		*l = append(*l, p)
		return
	}
	have := &(*l)[i]
	have.pairs += p.pairs
	for _, b := range p.blocks {
		if !slices.Contains(have.blocks, b) {
			have.blocks = append(have.blocks, b)
		}
	}
}

func (e *engine) addPods(out *pieceList, a, b *end) {
	for _, from := range a.classes {
		for _, to := range b.classes {
			src, dst := a.members[from], b.members[to]
			pairs, peer := len(src)*len(dst), dst[0]
			if peer == src[0] { // one end: every pod with every other one
				pairs -= len(src)
				if pairs > 0 {
					peer = dst[1]
				}
			}
			if passages := e.passages(from, to); pairs > 0 && passages != nil {
				out.add(piece{passages: passages, pairs: pairs, from: src[0].fullName(), to: peer.fullName()})
			}
		}
	}
}

// addAside adds the pairs of pods and of what is no pod.
func (e *engine) addAside(out *pieceList, pods *end, kind Kind, fromPods bool) {
	for _, id := range pods.classes {
		row, members := e.rows[id], pods.members[id]
		if kind == Outside {
			parts := row.in
			if fromPods {
				parts = row.out
			}
			for _, p := range parts {
				out.addFrom(fromPods, members[0].fullName(), "outside", piece{passages: p.passages, pairs: len(members) * len(p.blocks), blocks: p.blocks})
			}
			continue
		}
		k := 0
		if kind == OtherNode {
			k = 1
		}
		passages := row.fromNode[k]
		if fromPods {
			passages = row.toNode[k]
		}
		for g, group := range e.groups {
			n, example := 0, ""
			for _, m := range members {
				if group.has(m.node, kind) {
					n, example = n+1, m.fullName()
				}
			}
			if n > 0 {
				out.addFrom(fromPods, example, group.node.Name, piece{passages: passages[g], pairs: n})
			}
		}
	}
}

// addFrom names the pair in the right order.
func (l *pieceList) addFrom(fromPods bool, pod, other string, p piece) {
	p.from, p.to = other, pod
	if fromPods {
		p.from, p.to = pod, other
	}
	p.blocks = slices.Clone(p.blocks)
	l.add(p)
}
