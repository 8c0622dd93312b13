package nft

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// When a policy comes to the pods of a wide group, or goes, the new group differs
// from the old one in a few ports. If all pods of the old group go to the new one and
// all that differs is folded, the group grows in place: only the elements that differ
// are added and deleted, and its objects keep their names. A packet looks into the
// group's set once, so that it is judged by the old group or by the new one.

// growth is a group that takes another one's place in the same chain.
type growth struct {
	old, new   ir.GroupID
	gone, come []ir.Rule
	// had are the addresses that the rules of gone let in before.
	had map[portAt][]netip.Addr
}

// grow finds the groups that can grow in place, enters them in the book, and takes
// them out of c.
func (b *book) grow(c *ir.Change) []*growth {
	var list []*growth
	for _, g := range c.AddGroups {
		if !g.Wide {
			continue
		}
		if gr := b.growthTo(g, c); gr != nil {
			list = append(list, gr)
		}
	}
	if len(list) == 0 {
		return nil
	}
	into := map[ir.GroupID]ir.GroupID{}
	added := map[ir.GroupID]ir.Group{}
	for _, g := range c.AddGroups {
		added[g.ID] = g
	}
	for _, gr := range list {
		into[gr.old] = gr.new
		e := b.groups[gr.old]
		e.group = added[gr.new]
		b.groups[gr.new] = e
		delete(b.groups, gr.old)
		delete(b.named, gr.old)
		if b.named[gr.new] = e.named; e.named.ID == gr.new {
			delete(b.named, gr.new)
		}
		delete(added, gr.new)
		gr.had = map[portAt][]netip.Addr{}
		for _, r := range gr.gone {
			s := b.sets[r.Peers.Set]
			_ = b.fold(s, e, r, -1) // takes back what there is
			gr.had[portAt{r.Protocol, r.First}] = s.addrs()
		}
	}
	c.AddGroups = slices.DeleteFunc(slices.Clone(c.AddGroups), func(g ir.Group) bool { _, ok := added[g.ID]; return !ok })
	c.RemoveGroups = slices.DeleteFunc(slices.Clone(c.RemoveGroups), func(id ir.GroupID) bool { _, ok := into[id]; return ok })
	c.Endpoints = slices.Clone(c.Endpoints)
	for i, ec := range c.Endpoints {
		c.Endpoints[i] = renamed(ec, into)
	}
	return list
}

// renamed returns ec as if the old endpoint had been in the groups that have grown.
func renamed(ec ir.EndpointChange, into map[ir.GroupID]ir.GroupID) ir.EndpointChange {
	if ec.Old == nil {
		return ec
	}
	old := *ec.Old
	if id, ok := into[old.Ingress]; ok {
		old.Ingress = id
	}
	if id, ok := into[old.Egress]; ok {
		old.Egress = id
	}
	ec.Old = &old
	return ec
}

// growthTo returns how the group that g replaces becomes g, nil if it cannot.
func (b *book) growthTo(g ir.Group, c *ir.Change) *growth {
	var from ir.GroupID
	for _, ec := range c.Endpoints {
		if ec.New == nil || ec.New.Group(g.Direction) != g.ID {
			continue
		}
		if ec.Old == nil {
			return nil
		}
		id := ec.Old.Group(g.Direction)
		if id == "" || from != "" && from != id {
			return nil
		}
		from = id
	}
	old := b.groups[from]
	if old == nil || !old.group.Wide || old.group.Audit != g.Audit || !slices.Contains(c.RemoveGroups, from) {
		return nil
	}
	for _, ec := range c.Endpoints {
		if ec.Old != nil && ec.Old.Group(g.Direction) == from && (ec.New == nil || ec.New.Group(g.Direction) != g.ID) {
			return nil
		}
	}
	gone, come, ok := diffRules(old.group, g)
	for _, r := range slices.Concat(gone, come) {
		s := b.sets[r.Peers.Set]
		ok = ok && !r.Peers.Any && s != nil && s.folds(g, r)
	}
	if !ok {
		return nil
	}
	return &growth{old: from, new: g.ID, gone: gone, come: come}
}

// diffRules returns the rules that only one of two groups has; ok is false where that
// is not all that differs.
func diffRules(a, b ir.Group) (gone, come []ir.Rule, ok bool) {
	if len(a.Steps) != 1 || len(b.Steps) != 1 || a.Direction != b.Direction ||
		a.Steps[0].Tier != b.Steps[0].Tier || a.Steps[0].Miss != b.Steps[0].Miss {
		return nil, nil, false
	}
	x, y := a.Steps[0].Rules, b.Steps[0].Rules
	if !slices.IsSortedFunc(x, compareRules) || !slices.IsSortedFunc(y, compareRules) {
		return nil, nil, false
	}
	for len(x) > 0 || len(y) > 0 {
		switch {
		case len(x) > 0 && len(y) > 0 && x[0] == y[0]:
			x, y = x[1:], y[1:]
		case len(y) == 0 || len(x) > 0 && compareRules(x[0], y[0]) <= 0:
			gone, x = append(gone, x[0]), x[1:]
		default:
			come, y = append(come, y[0]), y[1:]
		}
	}
	return gone, come, true
}

// compareRules orders the rules of a step as ir.Step says.
func compareRules(a, b ir.Rule) int {
	last := func(r ir.Rule) int {
		if r.Protocol == ir.AnyProtocol {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(last(a), last(b)), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First))
}

// finish enters what a group has grown by, when the sets have the members that they
// are to have.
func (gr *growth) finish(b *book, ops *memberOps) error {
	e := b.groups[gr.new]
	has := map[portAt][]netip.Addr{}
	for _, r := range gr.come {
		s := b.sets[r.Peers.Set]
		if err := b.fold(s, e, r, 1); err != nil {
			return err
		}
		has[portAt{r.Protocol, r.First}] = s.addrs()
	}
	for _, f := range families {
		var gone, come []Element
		for at, addrs := range gr.had {
			gone = append(gone, foldedElements(f, without(addrs, has[at]), []portAt{at})...)
		}
		for at, addrs := range has {
			come = append(come, foldedElements(f, without(addrs, gr.had[at]), []portAt{at})...)
		}
		set := f.foldedSet(e.named)
		ops.early = append(ops.early, delElements(set, gone)...)
		ops.late = append(ops.late, addElements(set, come)...)
	}
	return nil
}

// without returns what is in a but not in b.
func without(a, b []netip.Addr) []netip.Addr {
	if len(b) == 0 {
		return a
	}
	in := make(map[netip.Addr]bool, len(b))
	for _, x := range b {
		in[x] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(x netip.Addr) bool { return in[x] })
}
