package matrix

import (
	"net/netip"
	"slices"
)

// answers is a row before its profiles have numbers.
type answers struct {
	egress, ingress  []direction // by side
	out, in          []atomAnswer
	toNode, fromNode [2][][][2]probed // by kind of node, group and side
}

// direction is what the pods of a class say in one direction, about each other class.
type direction struct {
	probes []probed
	which  []int // index of probes by class, or -1
}

func (d direction) number(t *Table, egress bool) []int32 {
	var ids []int32
	for _, p := range d.probes {
		ids = append(ids, t.profile(p, egress))
	}
	out := make([]int32, len(d.which))
	for i, probe := range d.which {
		out[i] = none
		if probe >= 0 {
			out[i] = ids[probe]
		}
	}
	return out
}

type atomAnswer struct {
	block netip.Prefix
	is    [][2]probed // egress and ingress, by side
}

// answer asks everything about one class.
func (e *engine) answer(id int, wanted [][]bool) answers {
	var a answers
	for i := range e.sides {
		a.egress = append(a.egress, e.peers(id, i, true, func(other int) bool { return wanted[id][other] }))
		a.ingress = append(a.ingress, e.peers(id, i, false, func(other int) bool { return wanted[other][id] }))
	}
	pod := e.classes[id].members[0]
	for _, at := range e.atoms(id, true) {
		a.out = append(a.out, atomAnswer{at.block, e.aside(pod, stranger(at.addr), true, nil)})
	}
	for _, at := range e.atoms(id, false) {
		a.in = append(a.in, atomAnswer{at.block, e.aside(pod, stranger(at.addr), false, nil)})
	}
	for k, kind := range []Kind{OwnNode, OtherNode} {
		a.toNode[k], a.fromNode[k] = make([][][2]probed, len(e.groups)), make([][][2]probed, len(e.groups))
		for g, group := range e.groups {
			i := slices.IndexFunc(e.classes[id].members, func(m *subject) bool { return group.has(m.node, kind) })
			if i < 0 {
				continue
			}
			var own *nodeGroup
			if kind == OwnNode {
				own = group
			}
			pod := e.classes[id].members[i]
			a.toNode[k][g] = e.aside(pod, terminal{addrs: group.addrs}, true, nil)
			a.fromNode[k][g] = e.aside(pod, terminal{addrs: group.addrs}, false, own)
		}
	}
	return a
}

// peers asks what the pods of a class say in one direction about those of each other class. Classes that the policies
// cannot tell apart as peers are asked about once.
func (e *engine) peers(id, side int, egress bool, wanted func(other int) bool) direction {
	pod, v := e.classes[id].members[0], e.classes[id].sides[side].view(egress)
	known := map[string]int{}
	d := direction{which: make([]int, len(e.classes))}
	for other, class := range e.classes {
		d.which[other] = -1
		peer := class.members[0]
		if other == id && len(class.members) > 1 {
			peer = class.members[1]
		}
		if !wanted(other) || peer == pod {
			continue
		}
		sig := v.facts.signature(peer.sides[side])
		probe, asked := known[sig]
		if !asked {
			probe = len(d.probes)
			known[sig] = probe
			mine, theirs := pod.terminal(side, v), peer.terminal(side, nil)
			if egress {
				d.probes = append(d.probes, e.sides[side].probe(mine, theirs, true))
			} else {
				d.probes = append(d.probes, e.sides[side].probe(theirs, mine, false))
			}
		}
		d.which[other] = probe
	}
	return d
}

// terminal is the pod as an end of a flow.
func (s *subject) terminal(side int, v *view) terminal {
	return terminal{pod: s.sides[side].pod, addrs: s.sides[side].addrs, view: v}
}

// stranger is an address outside as an end of a flow.
func stranger(a netip.Addr) terminal {
	var t terminal
	t.addrs[familyOf(a)] = a
	return t
}

// aside asks both directions of a flow between a pod and what is no pod, by side. If own is given, the other end is a
// node of this group and the pod runs on it.
func (e *engine) aside(s *subject, other terminal, fromPod bool, own *nodeGroup) [][2]probed {
	var out [][2]probed
	for i, state := range e.sides {
		pod := s.terminal(i, e.classes[s.class].sides[i].view(fromPod))
		if own != nil {
			pod.node = own.ownNode(pod.pod)
		}
		from, to := other, pod
		if fromPod {
			from, to = pod, other
		}
		out = append(out, [2]probed{state.probe(from, to, true), state.probe(from, to, false)})
	}
	return out
}

// atoms are the parts of the world that the policies of a class tell apart on any side, of the families that its pods
// have.
func (e *engine) atoms(id int, egress bool) []atom {
	var blocks []netip.Prefix
	for _, s := range e.classes[id].sides {
		blocks = append(blocks, s.view(egress).facts.blocks...)
	}
	first := e.classes[id].members[0]
	return slices.DeleteFunc(atoms(blocks, e.avoid, e.taken), func(a atom) bool {
		return !slices.ContainsFunc(first.sides, func(s subjectSide) bool { return s.addrs[familyOf(a.addr)].IsValid() })
	})
}
