package nft

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// policies is what a change does to peer sets and groups.
type policies struct {
	// before says how the sets were used that a group comes to or goes from.
	before map[ir.PeerSetID][2]int
	// added are the groups that come. Nothing leads to them yet, so they are made as
	// they are to be in the end.
	added []*groupEntry
}

// hadOwn reports whether the table had sets for s before.
func (p *policies) hadOwn(id ir.PeerSetID, s *setEntry) bool {
	if uses, touched := p.before[id]; touched {
		return uses != [2]int{}
	}
	return s.own()
}

// enter enters the groups of c in the book and takes out what those that go did with
// their peer sets.
func (b *book) enter(c ir.Change) (*policies, error) {
	p := &policies{before: map[ir.PeerSetID][2]int{}}
	touch := func(g ir.Group) {
		for id := range setsOf(g) {
			if s := b.sets[id]; s != nil {
				p.before[id] = s.uses
			}
		}
	}
	for _, g := range c.AddGroups {
		touch(g)
	}
	for _, id := range c.RemoveGroups {
		g := b.groups[id]
		if g == nil {
			return nil, fmt.Errorf("group %s is removed but is not there", id)
		}
		touch(g.group)
	}
	for _, g := range c.AddGroups {
		if err := b.addGroup(g); err != nil {
			return nil, err
		}
		p.added = append(p.added, b.groups[g.ID])
	}
	for _, id := range c.RemoveGroups {
		if err := b.count(b.groups[id], -1); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// create returns how to create what is new.
func (b *book) create(c ir.Change, p *policies) ([]unit, error) {
	var sets, dispatch []*Set
	var chains []*Chain
	for _, id := range slices.Sorted(maps.Keys(p.before)) {
		s := b.sets[id]
		if p.before[id] == [2]int{} && s.own() {
			is := s.set
			if s.members != nil {
				is.Addrs = slices.SortedFunc(maps.Keys(s.members), netip.Addr.Compare)
			}
			own, err := peerSets(is)
			if err != nil {
				return nil, err
			}
			sets = append(sets, own...)
		}
		for _, d := range directions {
			if p.before[id][d] == 0 && s.uses[d] > 0 {
				chains = append(chains, peerChain(s.set, d))
			}
		}
	}
	for _, e := range p.added {
		m, chain, err := b.groupObjects(e)
		if err != nil {
			return nil, err
		}
		sets = append(sets, b.folded(e)...)
		dispatch = append(dispatch, m...)
		chains = append(chains, chain)
	}
	return create(sets, dispatch, chains), nil
}

// forget takes what c removes out of the book and returns how to remove it, what
// points at something in front of what it points at.
func (b *book) forget(c ir.Change, p *policies) ([]unit, error) {
	var chains, sets []string
	for _, id := range c.RemoveGroups {
		e := b.groups[id]
		maps, chain, err := b.groupObjects(e)
		if err != nil {
			return nil, err
		}
		chains = append(chains, chain.Name)
		for _, s := range slices.Concat(maps, foldedSets(e)) {
			sets = append(sets, s.Name)
		}
		delete(b.groups, id)
		delete(b.named, id)
	}
	out := remove(chains, sets)
	chains, sets = nil, nil
	for _, id := range slices.Sorted(maps.Keys(p.before)) {
		s := b.sets[id]
		for _, d := range directions {
			if p.before[id][d] > 0 && s.uses[d] == 0 {
				chains = append(chains, peerChainName(id, d))
			}
		}
		if p.before[id] != [2]int{} && !s.own() {
			for _, set := range peerSetHeaders(s.set) {
				sets = append(sets, set.Name)
			}
		}
	}
	for _, id := range c.RemovePeerSets {
		s := b.sets[id]
		if s == nil {
			return nil, fmt.Errorf("peer set %s is removed but is not there", id)
		}
		if s.own() || len(s.folded) > 0 {
			return nil, fmt.Errorf("peer set %s is removed but is in use", id)
		}
		delete(b.sets, id)
	}
	return append(out, remove(chains, sets)...), nil
}
