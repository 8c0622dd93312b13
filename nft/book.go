package nft

import (
	"fmt"
	"net/netip"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// book is what one has to remember of a table to change it: everything that
// hangs on policies, and of what hangs on pods only the members of the peer sets
// that wide groups have (fold.go).
type book struct {
	groups map[ir.GroupID]*groupEntry
	sets   map[ir.PeerSetID]*setEntry
	// blocks are those that the table holds back addresses of.
	blocks []netip.Prefix
	// named has the entries' named where that is another group.
	named map[ir.GroupID]ir.Group
	// unsettled are sets that came, or whose addresses may be of use no longer.
	unsettled []*setEntry
}

type groupEntry struct {
	group ir.Group
	// named is the group after which chain, sets and maps are named: this one, or
	// the one that it has grown out of (grow.go).
	named ir.Group
	chain string
}

type setEntry struct {
	// set is the set as it came, with the addresses that it then had until the
	// book is settled (known).
	set   ir.PeerSet
	known bool
	// uses counts by direction the groups that send packets to the set's own
	// chain. There is a chain for the direction if it is not 0, and there are
	// sets if any is not.
	uses [2]int
	// folded says at which ports groups hold the set's addresses in a set of
	// theirs. These addresses are fixed, those of the set's blocks if they are few,
	// and members, those of pods; nil if no group does.
	folded  map[*groupEntry][]portAt
	fixed   []netip.Addr
	members map[netip.Addr]struct{}
}

// isolates reports whether the group may deny its pods something: no group does not, nor
// does one on trial.
func (b *book) isolates(id ir.GroupID) bool { return id != "" && !b.groups[id].group.Audit }

// own reports whether the table has sets and chains for s itself.
func (s *setEntry) own() bool { return s.uses != [2]int{} }

func newBook() *book {
	return &book{groups: map[ir.GroupID]*groupEntry{}, sets: map[ir.PeerSetID]*setEntry{}, named: map[ir.GroupID]ir.Group{}}
}

// bookOf returns the book of the table that Build makes of s. named are the groups
// whose objects have the names of others.
func bookOf(cfg Config, s ir.State, named map[ir.GroupID]ir.Group) (*book, error) {
	b := newBook()
	b.blocks = cfg.podBlocks()
	if named != nil {
		b.named = named
	}
	if err := b.addSets(s.PeerSets); err != nil {
		return nil, err
	}
	for _, g := range s.Groups {
		if err := b.addGroup(g); err != nil {
			return nil, err
		}
	}
	b.settle()
	return b, nil
}

// addSets enters new peer sets, with their addresses until settle.
func (b *book) addSets(sets []ir.PeerSet) error {
	for _, p := range sets {
		if b.sets[p.ID] != nil {
			return fmt.Errorf("peer set %s is there already", p.ID)
		}
		if len(p.Addrs) > 0 && !p.Selects {
			return fmt.Errorf("peer set %s has addresses but selects no pods", p.ID)
		}
		s := &setEntry{set: p, known: true, fixed: addressesOf(p.Blocks)}
		b.sets[p.ID] = s
		b.unsettled = append(b.unsettled, s)
	}
	return nil
}

// addGroup enters a new group.
func (b *book) addGroup(g ir.Group) error {
	if b.groups[g.ID] != nil {
		return fmt.Errorf("group %s is there already", g.ID)
	}
	e := &groupEntry{group: g, named: g}
	if n, ok := b.named[g.ID]; ok {
		e.named = n
	}
	for n := 2; b.takenName(e); n++ {
		e.named.ID = ir.GroupID(fmt.Sprintf("%s-%d", g.ID, n))
		b.named[g.ID] = e.named
	}
	e.chain = groupChain(e.named)
	b.groups[g.ID] = e
	return b.count(e, 1)
}

// takenName reports whether another group has the name that e is to have. Only one
// that has grown can.
func (b *book) takenName(e *groupEntry) bool {
	for id, n := range b.named {
		if n.ID == e.named.ID && id != e.group.ID {
			return true
		}
	}
	return false
}

// count enters or, with -1, takes back what a group does with its peer sets.
func (b *book) count(e *groupEntry, n int) error {
	counted := map[*setEntry]bool{}
	for _, step := range e.group.Steps {
		for _, r := range step.Rules {
			if r.Peers.Any {
				continue
			}
			s := b.sets[r.Peers.Set]
			switch {
			case s == nil:
				return fmt.Errorf("group %s: there is no peer set %q", e.group.ID, r.Peers.Set)
			case s.folds(e.group, r):
				if err := b.fold(s, e, r, n); err != nil {
					return err
				}
			case !counted[s]:
				counted[s] = true
				s.uses[e.group.Direction] += n
			}
		}
	}
	return nil
}

// settle forgets addresses that are of no use any more.
func (b *book) settle() {
	for _, s := range b.unsettled {
		s.set.Addrs, s.known = nil, false
		if len(s.folded) == 0 {
			s.members = nil
		}
	}
	b.unsettled = nil
}

// setsOf returns the peer sets that g has a rule for.
func setsOf(g ir.Group) map[ir.PeerSetID]bool {
	out := map[ir.PeerSetID]bool{}
	for _, step := range g.Steps {
		for _, r := range step.Rules {
			if !r.Peers.Any {
				out[r.Peers.Set] = true
			}
		}
	}
	return out
}

// check reports what is wrong with an endpoint.
func (b *book) check(e ir.Endpoint) error {
	if !e.Addr.IsValid() || e.Addr.Is4In6() || e.Addr.Zone() != "" {
		return fmt.Errorf("endpoint %s: address %s", e.Pod, e.Addr)
	}
	for _, d := range directions {
		id := e.Group(d)
		if id == "" {
			continue
		}
		g := b.groups[id]
		if g == nil {
			return fmt.Errorf("endpoint %s (%s): there is no group %s", e.Addr, e.Pod, id)
		}
		if g.group.Direction != d {
			return fmt.Errorf("endpoint %s (%s): group %s is not one for %s", e.Addr, e.Pod, id, d)
		}
	}
	return nil
}
