package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// move is an address that changes its group in one direction.
type move struct {
	addr     family
	end      ir.Endpoint // the new one, or the old one if there is no new one
	from, to ir.GroupID
}

// moves are the operations that changes of endpoints take. A pod of one of the blocks
// comes and goes in quarantine; others are everything else.
type moves struct {
	// hold takes pods into quarantine, release takes them out of it. beside is about
	// the sets that they are in as well, and what others that come need first.
	hold, beside, release []unit
	// maps are the dispatch maps and isolated sets for others, isolate the latter for
	// those of them that come, unself what those that go leave behind.
	maps, isolate, unself []unit
	// list are the moves of others, known is set if one of these was there before, so
	// that packets may be on their way that were judged by its old groups.
	list  []move
	known bool
	// released are the pods of release, gone those of unself.
	released map[netip.Addr]bool
	gone     []netip.Addr
}

// leaves reports whether a pod that is released was a member before.
func (m *moves) leaves(c ir.PeerSetChange) bool {
	return slices.ContainsFunc(c.Leave, func(a netip.Addr) bool { return m.released[a] })
}

func (b *book) moves(changes []ir.EndpointChange) (m moves, err error) {
	m.released = map[netip.Addr]bool{}
	var slots [2][2]slot // by family and direction
	var selves [2]struct{ come, held, gone []Element }
	for _, c := range changes {
		old, end, err := b.ends(c)
		if err != nil {
			return m, err
		}
		fi := 0
		if !end.Addr.Is4() {
			fi = 1
		}
		passes := b.holds(end.Addr) && (c.Old == nil || c.New == nil)
		self := &selves[fi]
		switch {
		case c.Old == nil:
			self.come = append(self.come, selfElement(end.Addr))
			m.released[end.Addr] = passes
		case c.New == nil && passes:
			self.held = append(self.held, selfElement(end.Addr))
		case c.New == nil:
			self.gone = append(self.gone, selfElement(end.Addr))
			m.gone = append(m.gone, end.Addr)
		}
		for _, d := range directions {
			mv := move{families[fi], end, old.Group(d), end.Group(d)}
			if c.New == nil {
				mv.to = ""
			}
			if passes {
				slots[fi][d].pass(b, c, mv)
				continue
			}
			slots[fi][d].move(b, c, mv)
			if mv.from != mv.to {
				m.list = append(m.list, mv)
				m.known = m.known || c.Old != nil
			}
		}
	}
	for fi, f := range families {
		self := selves[fi]
		m.beside = slices.Concat(m.beside, addElements(f.selfSet(), self.come), delElements(f.selfSet(), self.held))
		m.unself = append(m.unself, delElements(f.selfSet(), self.gone)...)
		for _, d := range directions {
			slots[fi][d].into(&m, f.dispatchMap(d), f.isolatedSet(d))
		}
	}
	return m, nil
}

// slot is what happens in the dispatch map and in the isolated set of one family and
// direction, to pods that come or go in quarantine, and to others.
type slot struct {
	hold, release     []Element // of the map
	open, isolate     []Element // of the set
	del, replace, add []Element // of the map, others
	leave, enter      []Element // of the set, others
	enterNew          []Element // of the set, others that come
}

// pass enters a pod that comes or goes in quarantine.
func (s *slot) pass(b *book, c ir.EndpointChange, m move) {
	addr := addrElement(m.end.Addr)
	if c.New == nil {
		s.hold = append(s.hold, addr)
	} else {
		s.release = append(s.release, b.dispatchElement(m.end.Addr, m.to))
	}
	if b.isolates(m.from) {
		s.open = append(s.open, addr)
	}
	if b.isolates(m.to) {
		s.isolate = append(s.isolate, addr)
	}
}

// move enters another pod.
func (s *slot) move(b *book, c ir.EndpointChange, m move) {
	addr := addrElement(m.end.Addr)
	switch {
	case c.Old == nil:
		s.add = append(s.add, b.dispatchElement(m.end.Addr, m.to))
	case c.New == nil:
		s.del = append(s.del, addr)
	case m.from != m.to:
		s.replace = append(s.replace, b.dispatchElement(m.end.Addr, m.to))
	}
	was, is := b.isolates(m.from), b.isolates(m.to)
	switch {
	case c.Old == nil && is:
		s.enterNew = append(s.enterNew, addr)
	case !was && is:
		s.enter = append(s.enter, addr)
	case was && !is:
		s.leave = append(s.leave, addr)
	}
}

// into adds the operations.
func (s *slot) into(m *moves, dispatch, isolated *Set) {
	m.hold = append(m.hold, delElements(dispatch, s.hold)...)
	m.beside = slices.Concat(m.beside, addElements(isolated, s.isolate), delElements(isolated, s.open))
	m.release = append(m.release, addElements(dispatch, s.release)...)
	m.maps = slices.Concat(m.maps,
		delElements(isolated, s.leave),
		delElements(dispatch, s.del), replaceElements(dispatch, s.replace), addElements(dispatch, s.add),
		addElements(isolated, s.enter))
	m.isolate = append(m.isolate, addElements(isolated, s.enterNew)...)
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
