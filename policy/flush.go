package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// flush is what one Flush makes and drops.
type flush struct {
	newGroups  []*group
	goneGroups []*group
	goneSets   []*peerSet
	// drops are run once everything that is needed has been taken hold of, so
	// that what is shared between before and after is not made anew.
	drops []func()
}

// Flush returns what changed since the last Flush: how to get from the State of
// then to that of now, with nothing in it that is the same in both.
func (x *Index) Flush() ir.Change {
	var f flush
	x.regroup(&f)
	x.recompile(&f)
	for _, drop := range f.drops {
		drop()
	}
	var c ir.Change
	x.tellGroups(&f, &c)
	x.tellMembers(&f, &c)
	x.tellSets(&f, &c)
	x.tellEndpoints(&c)
	return c
}

// regroup finds out anew by which recipes the dirty pods are judged.
func (x *Index) regroup(f *flush) {
	pods := x.dirtyPods
	x.dirtyPods = map[*pod]struct{}{} // clearing would cost what it once held
	for p := range pods {
		var selecting []*policySpec
		if p.local && len(p.owned) > 0 {
			selecting = x.selecting(p)
		}
		for _, d := range []ir.Direction{ir.Ingress, ir.Egress} {
			old, r := p.recipes[d], x.recipeFor(p, d, selecting)
			if old == r {
				continue
			}
			p.recipes[d] = r
			if r != nil {
				if r.group == nil {
					x.compile(r, f)
				}
				r.pods[p] = struct{}{}
			}
			if old != nil {
				f.drops = append(f.drops, func() { x.dropRecipe(old, p, f) })
			}
			for _, a := range p.owned {
				x.dirtyAddrs[a] = struct{}{}
			}
		}
	}
}

// selecting returns the policies that select p, sorted by name.
func (x *Index) selecting(p *pod) []*policySpec {
	var out []*policySpec
	p.ns.subjects.candidates(p.labels, func(s *policySpec) {
		if x.matches(s.subject, p.labels) {
			out = append(out, s)
		}
	})
	slices.SortFunc(out, func(a, b *policySpec) int { return strings.Compare(a.name, b.name) })
	return out
}

// recompile makes the groups anew whose named ports have other numbers now.
func (x *Index) recompile(f *flush) {
	recipes := x.dirtyRecipes
	x.dirtyRecipes = map[*recipe]struct{}{}
	for r := range recipes {
		group, resolvers := r.group, r.resolvers
		x.compile(r, f)
		f.drops = append(f.drops, func() {
			// The resolvers follow from the policies: they are the same again.
			for _, s := range resolvers {
				x.dropResolver(s)
			}
			x.dropGroup(group, f)
		})
		if r.group == group {
			continue
		}
		for p := range r.pods {
			for _, a := range p.owned {
				x.dirtyAddrs[a] = struct{}{}
			}
		}
	}
}

func (x *Index) tellGroups(f *flush, c *ir.Change) {
	for _, g := range f.newGroups {
		if g.refs > 0 {
			g.told = true
			c.AddGroups = append(c.AddGroups, g.Group)
		}
	}
	for _, g := range f.goneGroups {
		if g.told {
			c.RemoveGroups = append(c.RemoveGroups, g.ID)
		}
	}
	slices.SortFunc(c.AddGroups, ir.CompareGroups)
	slices.Sort(c.RemoveGroups)
}

// tellMembers tells of the sets that wide groups have from now on.
func (x *Index) tellMembers(f *flush, c *ir.Change) {
	for _, g := range f.newGroups {
		if !g.told || !g.Wide {
			continue
		}
		for _, s := range g.sets {
			if s.told && s.wide == 0 && s.fixed.Selects {
				c.Members = append(c.Members, s.compiled(true))
			}
			s.wide++
		}
	}
	for _, g := range f.goneGroups {
		if g.told && g.Wide {
			for _, s := range g.sets {
				s.wide--
			}
		}
	}
	slices.SortFunc(c.Members, ir.ComparePeerSets)
}

func (x *Index) tellSets(f *flush, c *ir.Change) {
	for _, g := range f.newGroups {
		for _, s := range g.sets {
			if s.refs > 0 && !s.told {
				s.told = true
				s.was = nil
				c.AddPeerSets = append(c.AddPeerSets, s.compiled(false))
			}
		}
	}
	for _, s := range f.goneSets {
		if s.told {
			c.RemovePeerSets = append(c.RemovePeerSets, s.fixed.ID)
		}
	}
	for s := range x.dirtySets {
		if pc := s.flushed(); len(pc.Join)+len(pc.Leave) > 0 {
			c.PeerSets = append(c.PeerSets, pc)
		}
	}
	x.dirtySets = map[*peerSet]struct{}{}
	slices.SortFunc(c.AddPeerSets, ir.ComparePeerSets)
	slices.SortFunc(c.PeerSets, func(a, b ir.PeerSetChange) int { return cmp.Compare(a.ID, b.ID) })
	slices.Sort(c.RemovePeerSets)
}

func (x *Index) tellEndpoints(c *ir.Change) {
	for a := range x.dirtyAddrs {
		old, had := x.endpoints[a]
		is, has := x.endpoint(a)
		if had == has && old == is {
			continue
		}
		var ec ir.EndpointChange
		delete(x.endpoints, a)
		if had {
			ec.Old = &old
		}
		if has {
			ec.New = &is
			x.endpoints[a] = is
		}
		c.Endpoints = append(c.Endpoints, ec)
	}
	x.dirtyAddrs = map[netip.Addr]struct{}{}
	slices.SortFunc(c.Endpoints, func(a, b ir.EndpointChange) int { return addrOf(a).Compare(addrOf(b)) })
}

func addrOf(c ir.EndpointChange) netip.Addr {
	if c.New != nil {
		return c.New.Addr
	}
	return c.Old.Addr
}

// endpoint returns what is to be enforced for an address; ok is false if it is
// that of no local pod.
func (x *Index) endpoint(a netip.Addr) (e ir.Endpoint, ok bool) {
	p := x.owners[a]
	if p == nil || !p.local {
		return ir.Endpoint{}, false
	}
	e = ir.Endpoint{Addr: a, Pod: p.fullName()}
	if r := p.recipes[ir.Ingress]; r != nil {
		e.Ingress = r.group.ID
	}
	if r := p.recipes[ir.Egress]; r != nil {
		e.Egress = r.group.ID
	}
	return e, true
}

// State returns everything that is to be enforced as of the last Flush; events
// since then are not in it. It costs O(everything). The lists inside groups and
// the blocks of sets are shared with the Index, and must not be changed.
func (x *Index) State() ir.State {
	var s ir.State
	for _, e := range x.endpoints {
		s.Endpoints = append(s.Endpoints, e)
	}
	for _, g := range x.groups {
		s.Groups = append(s.Groups, g.Group)
	}
	for _, p := range x.sets {
		s.PeerSets = append(s.PeerSets, p.compiled(true))
	}
	slices.SortFunc(s.Endpoints, ir.CompareEndpoints)
	slices.SortFunc(s.Groups, ir.CompareGroups)
	slices.SortFunc(s.PeerSets, ir.ComparePeerSets)
	return s
}
