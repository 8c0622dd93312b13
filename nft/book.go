package nft

import (
	"fmt"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// book is what one has to remember of a table to change it: everything that
// hangs on policies, and nothing that hangs on pods.
type book struct {
	groups map[ir.GroupID]*groupEntry
	sets   map[ir.PeerSetID]*setEntry
	// quarantine says that the table has the sets of local addresses.
	quarantine bool
}

type groupEntry struct {
	group ir.Group
	chain string
}

type setEntry struct {
	set ir.PeerSet // without addresses
	// uses counts by direction the groups that have a rule for the set's
	// peers. There is a chain for the direction if it is not 0.
	uses [2]int
}

func newBook() *book {
	return &book{groups: map[ir.GroupID]*groupEntry{}, sets: map[ir.PeerSetID]*setEntry{}}
}

// bookOf returns the book of the table that Build makes of s.
func bookOf(cfg Config, s ir.State) (*book, error) {
	b := newBook()
	b.quarantine = len(cfg.PodCIDRs) > 0
	return b, b.add(s.PeerSets, s.Groups)
}

// add enters new peer sets and groups.
func (b *book) add(sets []ir.PeerSet, groups []ir.Group) error {
	for _, p := range sets {
		if b.sets[p.ID] != nil {
			return fmt.Errorf("peer set %s is there already", p.ID)
		}
		p.Addrs = nil
		b.sets[p.ID] = &setEntry{set: p}
	}
	for _, g := range groups {
		if b.groups[g.ID] != nil {
			return fmt.Errorf("group %s is there already", g.ID)
		}
		b.groups[g.ID] = &groupEntry{group: g, chain: groupChain(g)}
		if err := b.count(g, 1); err != nil {
			return err
		}
	}
	return nil
}

// count adds n to the uses of every set that g has a rule for.
func (b *book) count(g ir.Group, n int) error {
	for id := range setsOf(g) {
		s := b.sets[id]
		if s == nil {
			return fmt.Errorf("group %s: there is no peer set %q", g.ID, id)
		}
		s.uses[g.Direction] += n
	}
	return nil
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
