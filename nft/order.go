package nft

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// Members of peer sets and groups of pods may change at once, and then the order
// decides whether a packet meets a mixture that neither the old nor the new
// state is.
//
// When a pod goes from group G to group H, and a port's peers are the set P in G
// and the set Q in H, a packet to that port has to be judged by the old P and
// then by the new Q: P must change after the move and Q before it. Where P and Q
// are the same set it may change at any time.
//
// While a pod is not isolated everything passes, and so it does while the pod is in a group
// on trial (ir.Group.Audit), which stands for none here. So before it is isolated Q has
// to have its new members, and after it is opened P may lose members.
//
// What is left free is done so that what closes comes in front of what opens:
// members leave first and join last. Then a single pod that changes its labels,
// and with them its own group and the sets it is in, is at no time seen by both
// ends in the way that suits it better.

// memberOps are the changes of members before and after the moves.
type memberOps struct{ early, late []unit }

// when is what is known of the order of a change of members.
type when struct{ early, late bool }

// memberWhen is when the two halves of a PeerSetChange have to happen.
type memberWhen struct{ join, leave when }

// Sets of groups that come are made with the members that they are to have, and
// those of groups that go are left as they are.
func (b *book) members(changes []ir.PeerSetChange, list []move, p *policies) (memberOps, error) {
	at, err := b.order(changes, list)
	if err != nil {
		return memberOps{}, err
	}
	var ops memberOps
	for _, c := range changes { // those that leave come first
		if err := ops.add(b, c.ID, c.Leave, delElements, at[c.ID].leave, true, p); err != nil {
			return ops, err
		}
	}
	for _, c := range changes {
		if err := ops.add(b, c.ID, c.Join, addElements, at[c.ID].join, false, p); err != nil {
			return ops, err
		}
		b.sets[c.ID].shift(c)
	}
	return ops, nil
}

// add enters one half of a change; early is when it happens if it is free.
func (o *memberOps) add(b *book, id ir.PeerSetID, addrs []netip.Addr, op func(*Set, []Element) []unit, w when, early bool, p *policies) error {
	s := b.sets[id]
	if s == nil || !s.set.Selects {
		return fmt.Errorf("peer set %s changes but is not there or selects no pods", id)
	}
	if w.early && w.late {
		return fmt.Errorf("peer set %s would have to change both before and after pods change their groups", id)
	}
	if w.early || w.late {
		early = w.early
	}
	for _, f := range families {
		var units []unit
		if s.own() && p.hadOwn(id, s) {
			units = op(f.memberSet(id), addrElements(ofFamily(f, addrs)))
		}
		for e, ports := range s.folded {
			if !slices.Contains(p.added, e) {
				units = append(units, op(f.foldedSet(e.named), foldedElements(f, s.varying(addrs), ports))...)
			}
		}
		if early {
			o.early = append(o.early, units...)
		} else {
			o.late = append(o.late, units...)
		}
	}
	return nil
}

// order finds out which changes are tied to moves.
func (b *book) order(changes []ir.PeerSetChange, list []move) (map[ir.PeerSetID]*memberWhen, error) {
	at := map[ir.PeerSetID]*memberWhen{}
	byID := map[ir.PeerSetID]ir.PeerSetChange{}
	for _, c := range changes {
		at[c.ID], byID[c.ID] = &memberWhen{}, c
	}
	type pair struct{ from, to ir.GroupID }
	diffs := map[pair][2][]ir.PeerSetID{}
	for _, m := range list {
		if len(changes) == 0 {
			break
		}
		p := pair{b.judging(m.from), b.judging(m.to)}
		if _, ok := diffs[p]; !ok {
			diffs[p] = b.tied(p.from, p.to, byID)
		}
		for _, id := range diffs[p][0] { // the sets of the old group
			join, leave := m.concerns(byID[id])
			at[id].leave.late = at[id].leave.late || leave
			at[id].join.late = at[id].join.late || join && p.to != ""
		}
		for _, id := range diffs[p][1] { // the sets of the new one
			join, leave := m.concerns(byID[id])
			at[id].join.early = at[id].join.early || join
			at[id].leave.early = at[id].leave.early || leave && p.from != ""
		}
	}
	return at, nil
}

// judging returns the group itself if it decides about packets, else "".
func (b *book) judging(id ir.GroupID) ir.GroupID {
	if b.isolates(id) {
		return id
	}
	return ""
}

// concerns reports which halves of a change can be seen by packets of the pod
// that moves: those of its family, itself excepted.
func (m move) concerns(c ir.PeerSetChange) (join, leave bool) {
	other := func(a netip.Addr) bool { return m.addr.is(a) && a != m.end.Addr }
	return slices.ContainsFunc(c.Join, other), slices.ContainsFunc(c.Leave, other)
}

// tied returns the changing sets that are the peers of some port in the old
// group but not in the new one, and the other way round.
func (b *book) tied(from, to ir.GroupID, changing map[ir.PeerSetID]ir.PeerSetChange) (out [2][]ir.PeerSetID) {
	rules := func(id ir.GroupID) []ir.Rule {
		if id == "" {
			return []ir.Rule{{Peers: ir.Peers{Any: true}}}
		}
		var rules []ir.Rule
		for _, s := range b.groups[id].group.Steps {
			rules = append(rules, s.Rules...)
		}
		return rules
	}
	old, new := rules(from), rules(to)
	uses := func(r ir.Rule) bool { _, ok := changing[r.Peers.Set]; return ok && !r.Peers.Any }
	if !slices.ContainsFunc(old, uses) && !slices.ContainsFunc(new, uses) {
		return out
	}
	found := [2]map[ir.PeerSetID]bool{{}, {}}
	for _, at := range borders(slices.Concat(old, new)) {
		p, q := peersAt(old, at), peersAt(new, at)
		if p == q {
			continue
		}
		for i, peers := range [2]ir.Peers{p, q} {
			if _, ok := changing[peers.Set]; ok && !peers.Any && !found[i][peers.Set] {
				found[i][peers.Set] = true
				out[i] = append(out[i], peers.Set)
			}
		}
	}
	return out
}

// portAt is a port of a protocol; the zero portAt stands for all protocols that
// no rule names.
type portAt struct {
	protocol ir.Protocol
	port     uint16
}

// borders returns a port out of every stretch of ports that all the rules treat
// alike.
func borders(rules []ir.Rule) []portAt {
	out := []portAt{{}, {ir.TCP, 0}, {ir.UDP, 0}, {ir.SCTP, 0}}
	for _, r := range rules {
		if r.Protocol == ir.AnyProtocol {
			continue
		}
		out = append(out, portAt{r.Protocol, r.First})
		if r.Last < 65535 {
			out = append(out, portAt{r.Protocol, r.Last + 1})
		}
	}
	return out
}

// peersAt returns the peers that may reach a port, by rules in the order of ir.Step;
// none of them is the zero Peers.
func peersAt(rules []ir.Rule, at portAt) ir.Peers {
	ports := rules
	if n := len(rules); n > 0 && rules[n-1].Protocol == ir.AnyProtocol {
		ports = rules[:n-1]
	}
	i, found := slices.BinarySearchFunc(ports, at, func(r ir.Rule, at portAt) int {
		return cmp.Or(cmp.Compare(r.Protocol, at.protocol), cmp.Compare(r.First, at.port))
	})
	if !found {
		i-- // the last that begins in front of it
	}
	if i >= 0 && ports[i].Protocol == at.protocol && at.port <= ports[i].Last {
		return ports[i].Peers
	}
	if len(ports) < len(rules) {
		return rules[len(ports)].Peers
	}
	return ir.Peers{}
}
