package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// Apply changes the table by c, in an order in which each direction of each
// packet is judged by the old state or by the new one, and goes from the one to
// the other once. It costs as much as c is big. What c makes superfluous is left for
// Tidy, or for an Apply that needs its name or address. Every error wraps ErrUncertain and
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
	e.book, e.named = nil, b.named // until all is well
	steps, rest, err := b.plan(c)
	if err != nil {
		return fmt.Errorf("apply: %w: %w", ErrUncertain, err)
	}
	if e.remains.meets(steps, c.Endpoints) {
		if err := e.tidy(ctx); err != nil {
			return fmt.Errorf("apply: %w", err)
		}
	}
	if err := e.send(ctx, e.table, steps); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	e.book = b
	e.remains.merge(rest)
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
//  7. remove what is old, to which nothing in force leads any more: that remains, until
//     Tidy
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
//
// Where pods do nothing but go, such a packet finds the pod in the map, as it was, or
// in the isolated set, and is denied as it would be in quarantine: then the isolated
// set, and all else of the pod, can wait for Tidy, and nothing has to wait for packets.
//
// Where the members of a group's own set differ, those that go are as members that
// change first, and those that come as members that change last.
func (b *book) plan(c ir.Change) (steps []step, rest remains, err error) {
	if err = errors.Join(b.addSets(c.AddPeerSets), b.recall(c.Members)); err != nil {
		return nil, rest, err
	}
	grown := b.grow(&c)
	p, err := b.enter(c)
	if err != nil {
		return nil, rest, err
	}
	moves, err := b.moves(c.Endpoints)
	if err != nil {
		return nil, rest, err
	}
	members, err := b.members(c.PeerSets, moves.list, p)
	if err != nil {
		return nil, rest, err
	}
	created, err := b.create(c, p)
	if err != nil {
		return nil, rest, err
	}
	for _, g := range grown {
		if err = g.finish(b, &members); err != nil {
			return nil, rest, err
		}
	}
	removing, err := b.forget(c, p)
	if err != nil {
		return nil, rest, err
	}
	b.settle()
	if len(moves.list) == 0 {
		// Sets that no pod's move is tied to change in one batch.
		members.early, members.late = slices.Concat(members.early, members.late), nil
	}
	moved := moves.known && len(moves.maps) > 0
	joins := slices.ContainsFunc(c.PeerSets, func(p ir.PeerSetChange) bool { return len(p.Join) > 0 })
	if b.quarantine && moved && moves.onlyGo && !joins && len(created) == 0 {
		rest.add(slices.Concat(moves.leave, removing, moves.unself), c.Endpoints)
		return tidied([]step{{units: moves.hold}, {units: slices.Concat(members.early, members.late, moves.maps)}}), rest, nil
	}
	last := slices.Concat(removing, moves.unself)
	if moved && len(removing) > 0 {
		rest.add(last, c.Endpoints)
		last = nil
	}
	steps = []step{
		{units: moves.hold},
		{units: slices.Concat(created, moves.self, members.early), grace: len(moves.hold) > 0 && (moved || joins)},
		{units: moves.leave, grace: moved && len(members.early) > 0},
		{units: moves.maps},
		{units: slices.Concat(members.late, moves.enter), grace: moved && len(members.late)+len(moves.enter) > 0},
		{units: moves.release},
		{units: last},
	}
	return tidied(steps), rest, nil
}

// tidied leaves out steps that do nothing.
func tidied(steps []step) []step {
	return slices.DeleteFunc(steps, func(s step) bool { return len(s.units) == 0 && !s.grace })
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
	known bool
	// onlyGo is set if all that pods do is to go.
	onlyGo                           bool
	self, leave, maps, enter, unself []unit
	hold, release                    []unit // into quarantine and out of it
}

func (b *book) moves(changes []ir.EndpointChange) (m moves, err error) {
	type slot struct{ leave, del, replace, add, enter []Element }
	var slots [2][2]slot // by family and direction
	var come, gone [2][]netip.Addr
	m.onlyGo = !slices.ContainsFunc(changes, func(c ir.EndpointChange) bool { return c.New != nil })
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
