package nft

import (
	"context"
	"errors"
	"fmt"
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
//  1. pods that go, of a block: out of the dispatch maps, into quarantine
//  2. create what is new, to which nothing in force leads; members that have to
//     change first; of pods of a block everything but the dispatch maps
//  3. the other pods, those that stay and those of no block: the dispatch maps and
//     the isolated sets
//  4. members that have to change last; of pods of no block that come, the isolated sets
//  5. pods that come, of a block: into the dispatch maps, out of quarantine
//  6. remove what is old, to which nothing in force leads any more: that remains, until
//     Tidy
//
// A packet looks into the dispatch map first and into the isolated set after it, if it
// is not in the map. So a pod of no block enters the map before the set and leaves the
// set before the map, and no packet finds it in the set only. A pod that stays is in the
// map at all times, and a pod of a block is in quarantine where it is not.
//
// Step 3 and those behind it are apart by a grace period: a packet that was sent
// to the old group must find everything there as it was. So are steps 2 and 3 if
// members change: a packet may meet them in one direction and the maps in the
// other.
//
// In the direction of a pod in quarantine nothing passes, whatever else is or is not
// there. So a packet of a pod that comes finds everything as it is in the end. One to it
// may have been judged for its sender before that, and is accepted if it was allowed to
// be sent then and may be received now: so step 5 waits for packets that a sender may
// not send any more (closes).
//
// The other way round, a packet of or to a pod that goes may have passed the maps before:
// steps 1 and 2 are apart by a grace period, if such a packet could have something from
// what comes behind, which is what lets more pass than before. If pods do nothing but go,
// nothing has to wait.
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
	holds := len(moves.hold) > 0
	opens := len(moves.list) > 0 || len(grown) > 0 || slices.ContainsFunc(c.PeerSets, func(p ir.PeerSetChange) bool { return len(p.Join) > 0 })
	closes := len(moves.list) > 0 || len(grown) > 0 || holds && !opens || slices.ContainsFunc(c.PeerSets, moves.leaves)
	last := slices.Concat(removing, moves.unself)
	if moves.known || holds {
		rest.add(last, moves.gone)
		last = nil
	}
	return tidied([]step{
		{units: moves.hold},
		{units: slices.Concat(created, moves.beside, members.early), grace: holds && opens},
		{units: moves.maps, grace: moves.known && len(members.early) > 0},
		{units: slices.Concat(members.late, moves.isolate), grace: moves.known && len(members.late) > 0},
		{units: moves.release, grace: closes && len(moves.release) > 0},
		{units: last},
	}), rest, nil
}

// tidied leaves out steps that do nothing.
func tidied(steps []step) []step {
	return slices.DeleteFunc(steps, func(s step) bool { return len(s.units) == 0 && !s.grace })
}
