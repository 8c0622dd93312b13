package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// Apply changes the table by c, in an order in which each direction of each
// packet is judged by the old state or by the new one, and goes from the one to
// the other once. It costs as much as c is big. Every error wraps ErrUncertain and
// means that the caller has to call Repair with the whole State. That includes
// changes that cannot be carried out in parts (see order.go) or that contradict
// what was applied before.
func (e *Enforcer) Apply(ctx context.Context, c ir.Change) error {
	if e.book == nil {
		return fmt.Errorf("apply: %w: nothing was taken over or repaired since", ErrUncertain)
	}
	if c.Empty() {
		return nil
	}
	b := e.book
	e.book = nil // until all is well
	steps, err := b.plan(c)
	if err != nil {
		return fmt.Errorf("apply: %w: %w", ErrUncertain, err)
	}
	if err := e.send(ctx, e.table, steps); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	e.book = b
	return nil
}

// plan enters c in the book and returns the steps that carry it out:
//
//  1. pods that go: into quarantine
//  2. create what is new, to which nothing in force leads; members that have to
//     change first
//  3. pods that open: out of the isolated sets
//  4. the dispatch maps: pods isolated, pods given another group, pods opened
//  5. members that have to change last; pods isolated: into the isolated sets
//  6. pods that come: out of quarantine
//  7. remove what is old, to which nothing in force leads any more
//
// A packet looks into the dispatch map first and into the isolated set after it.
// So a pod enters the map before the set and leaves the set before the map, and
// no packet finds it in the set only.
//
// Step 4 and those behind it are apart by a grace period: a packet that was sent
// to the old group must find everything there as it was. So are steps 2 and 4 if
// members change: a packet may meet them in one direction and the maps in the
// other.
//
// A packet is looked up in the set of local addresses before anything else. One
// that is not held by the quarantine any more therefore finds everything else as
// it is in the end. The other way round, one that passed the quarantine before
// the pod went into it must be gone before the pod's policies are: steps 1 and 2
// are apart by a grace period, unless there is nothing to be had from it.
func (b *book) plan(c ir.Change) ([]step, error) {
	created, removed, err := b.policies(c)
	if err != nil {
		return nil, err
	}
	moves, err := b.moves(c.Endpoints)
	if err != nil {
		return nil, err
	}
	members, err := b.members(c.PeerSets, moves.list)
	if err != nil {
		return nil, err
	}
	removing, err := b.forget(c, removed)
	if err != nil {
		return nil, err
	}
	if len(moves.list) == 0 {
		// Sets that no pod's move is tied to change in one batch.
		members.early, members.late = slices.Concat(members.early, members.late), nil
	}
	moved := moves.known && len(moves.maps) > 0
	joins := slices.ContainsFunc(c.PeerSets, func(p ir.PeerSetChange) bool { return len(p.Join) > 0 })
	steps := []step{
		{units: moves.hold},
		{units: slices.Concat(created, moves.self, members.early), grace: len(moves.hold) > 0 && (moved || joins)},
		{units: moves.leave, grace: moved && len(members.early) > 0},
		{units: moves.maps},
		{units: slices.Concat(members.late, moves.enter), grace: moved && len(members.late)+len(moves.enter) > 0},
		{units: moves.release},
		{units: slices.Concat(removing, moves.unself), grace: moved && len(removing) > 0},
	}
	return slices.DeleteFunc(steps, func(s step) bool { return len(s.units) == 0 && !s.grace }), nil
}

// removal is what step 7 does for the peer sets.
type removal struct{ chains, sets []string }

// policies enters new peer sets and groups and returns how to create them, and
// which chains of peer sets lose their last use.
func (b *book) policies(c ir.Change) (created []unit, gone removal, err error) {
	before := map[ir.PeerSetID][2]int{}
	touch := func(id ir.PeerSetID) {
		if s := b.sets[id]; s != nil {
			before[id] = s.uses
		} else {
			before[id] = [2]int{}
		}
	}
	for _, p := range c.AddPeerSets {
		touch(p.ID)
	}
	for _, g := range c.AddGroups {
		for id := range setsOf(g) {
			touch(id)
		}
	}
	for _, id := range c.RemoveGroups {
		g := b.groups[id]
		if g == nil {
			return nil, gone, fmt.Errorf("group %s is removed but is not there", id)
		}
		for id := range setsOf(g.group) {
			touch(id)
		}
	}
	if err := b.add(c.AddPeerSets, c.AddGroups); err != nil {
		return nil, gone, err
	}
	for _, id := range c.RemoveGroups {
		if err := b.count(b.groups[id].group, -1); err != nil {
			return nil, gone, err
		}
	}
	var sets, dispatch []*Set
	var chains []*Chain
	for _, p := range c.AddPeerSets {
		s, err := peerSets(p)
		if err != nil {
			return nil, gone, err
		}
		sets = append(sets, s...)
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		s := b.sets[id]
		for _, d := range directions {
			switch was, is := before[id][d], s.uses[d]; {
			case was == 0 && is > 0:
				chains = append(chains, peerChain(s.set, d))
			case was > 0 && is == 0:
				gone.chains = append(gone.chains, peerChainName(id, d))
			}
		}
	}
	for _, g := range c.AddGroups {
		m, chain, err := groupObjects(g)
		if err != nil {
			return nil, gone, err
		}
		dispatch = append(dispatch, m...)
		chains = append(chains, chain)
	}
	return create(sets, dispatch, chains), gone, nil
}

// forget takes what c removes out of the book and returns how to remove it, what
// points at something in front of what it points at.
func (b *book) forget(c ir.Change, gone removal) ([]unit, error) {
	var groups removal
	for _, id := range c.RemoveGroups {
		g := b.groups[id]
		groups.chains = append(groups.chains, g.chain)
		maps, _, err := groupObjects(g.group)
		if err != nil {
			return nil, err
		}
		for _, m := range maps {
			groups.sets = append(groups.sets, m.Name)
		}
		delete(b.groups, id)
	}
	for _, id := range c.RemovePeerSets {
		s := b.sets[id]
		if s == nil {
			return nil, fmt.Errorf("peer set %s is removed but is not there", id)
		}
		if s.uses != [2]int{} {
			return nil, fmt.Errorf("peer set %s is removed but is in use", id)
		}
		for _, set := range peerSetHeaders(s.set) {
			gone.sets = append(gone.sets, set.Name)
		}
		delete(b.sets, id)
	}
	return append(remove(groups.chains, groups.sets), remove(gone.chains, gone.sets)...), nil
}

// move is an address that changes its group in one direction.
type move struct {
	addr     family
	end      ir.Endpoint // the new one, or the old one if there is no new one
	from, to ir.GroupID
}

// moves are the operations that changes of endpoints take.
type moves struct {
	list []move
	// known is set if one of the pods was there before, so that packets may
	// be on their way that were judged by its old groups.
	known                            bool
	self, leave, maps, enter, unself []unit
	hold, release                    []unit // into quarantine and out of it
}

func (b *book) moves(changes []ir.EndpointChange) (m moves, err error) {
	type slot struct{ leave, del, replace, add, enter []Element }
	var slots [2][2]slot // by family and direction
	var come, gone [2][]netip.Addr
	for _, c := range changes {
		old, end, err := b.ends(c)
		if err != nil {
			return m, err
		}
		fi := 0
		if !end.Addr.Is4() {
			fi = 1
		}
		switch {
		case c.Old == nil:
			come[fi] = append(come[fi], end.Addr)
		case c.New == nil:
			gone[fi] = append(gone[fi], end.Addr)
		}
		for _, d := range directions {
			from, to := old.Group(d), ir.GroupID("")
			if c.New != nil {
				to = end.Group(d)
			}
			if from == to {
				continue
			}
			m.list = append(m.list, move{families[fi], end, from, to})
			m.known = m.known || c.Old != nil
			s, addr := &slots[fi][d], addrElement(end.Addr)
			switch {
			case from == "":
				s.add = append(s.add, b.dispatchElement(end.Addr, to))
				s.enter = append(s.enter, addr)
			case to == "":
				s.leave = append(s.leave, addr)
				s.del = append(s.del, addr)
			default:
				s.replace = append(s.replace, b.dispatchElement(end.Addr, to))
			}
		}
	}
	for fi, f := range families {
		m.self = append(m.self, addElements(f.selfSet(), selfElements(come[fi]))...)
		m.unself = append(m.unself, delElements(f.selfSet(), selfElements(gone[fi]))...)
		if b.quarantine {
			m.hold = append(m.hold, delElements(f.localSet(), addrElements(gone[fi]))...)
			m.release = append(m.release, addElements(f.localSet(), addrElements(come[fi]))...)
		}
		for _, d := range directions {
			s := slots[fi][d]
			m.leave = append(m.leave, delElements(f.isolatedSet(d), s.leave)...)
			m.maps = append(m.maps, addElements(f.dispatchMap(d), s.add)...)
			m.maps = append(m.maps, replaceElements(f.dispatchMap(d), s.replace)...)
			m.maps = append(m.maps, delElements(f.dispatchMap(d), s.del)...)
			m.enter = append(m.enter, addElements(f.isolatedSet(d), s.enter)...)
		}
	}
	return m, nil
}

// ends returns the old endpoint, without groups if there is none, and the new
// one, or the old one if there is none.
func (b *book) ends(c ir.EndpointChange) (old, end ir.Endpoint, err error) {
	switch {
	case c.Old == nil && c.New == nil:
		return old, end, errors.New("an endpoint changes from nothing to nothing")
	case c.Old == nil:
		return ir.Endpoint{Addr: c.New.Addr}, *c.New, b.check(*c.New)
	case c.New == nil:
		return *c.Old, *c.Old, b.check(*c.Old)
	case c.Old.Addr != c.New.Addr:
		return old, end, fmt.Errorf("endpoint %s becomes %s", c.Old.Addr, c.New.Addr)
	}
	return *c.Old, *c.New, errors.Join(b.check(*c.Old), b.check(*c.New))
}
