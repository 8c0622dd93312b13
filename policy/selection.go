package policy

// place is a scope in which policies in force look for pods, with the pod
// selectors that they use there.
type place struct {
	scope scope
	key   string
	// namespaces are those that a namespace selector covers now.
	namespaces map[*namespace]struct{}
	selections labelIndex[*selection]
}

// selection is a podSelector in use, with the pods that it selects now.
type selection struct {
	spec  *podSelector
	place *place
	// members are pods that own an address.
	members map[*pod]struct{}
	// plain is the term of all members, nil if no peer set has it.
	plain *term
	// resolvers are those that look for a named port among the members.
	resolvers map[*resolver]struct{}
	// visited is the number of the last walk that came by.
	visited uint64
	refs    int
}

// everywhere is the key of the place that is the whole cluster.
var everywhere = everyPod.scope.key()

// regard brings the selections in line with a pod that looked like was and
// looks like is. Only selections are asked that may match one of the two.
func (x *Index) regard(p *pod, was, is view) {
	x.visit++
	visit := func(s *selection) {
		if s.visited == x.visit {
			return
		}
		s.visited = x.visit
		_, in := s.members[p]
		wants := len(is.addrs) > 0 && x.matches(s.spec.pods, is.labels)
		switch {
		case in && wants:
			x.shift(s, was, is)
		case in:
			delete(s.members, p)
			x.shift(s, was, view{})
		case wants:
			s.members[p] = struct{}{}
			x.shift(s, view{}, is)
		}
	}
	for _, v := range []view{was, is} {
		if len(v.addrs) == 0 {
			continue
		}
		for _, key := range []string{p.ns.place, everywhere} {
			if pl := x.places[key]; pl != nil {
				pl.selections.candidates(v.labels, visit)
			}
		}
		for pl := range p.ns.places {
			pl.selections.candidates(v.labels, visit)
		}
	}
}

// shift tells the terms of s that a member looked like was and looks like is,
// where no addresses mean no member.
func (x *Index) shift(s *selection, was, is view) {
	if s.plain != nil {
		x.shiftTerm(s.plain, was.addrs, is.addrs)
	}
	for r := range s.resolvers {
		x.shiftResolver(r, was, is)
	}
}

// useSelection returns the selection of spec, made if need be, for one more user.
func (x *Index) useSelection(spec *podSelector) *selection {
	s := x.selections[spec.key]
	if s == nil {
		s = &selection{spec: spec, place: x.usePlace(spec.scope), members: map[*pod]struct{}{}, resolvers: map[*resolver]struct{}{}}
		s.place.selections.add(s, spec.pods)
		x.selections[spec.key] = s
		x.eachNamespace(s.place, func(ns *namespace) {
			for _, p := range ns.pods {
				x.work.scanned++
				if len(p.owned) > 0 && x.matches(spec.pods, p.labels) {
					s.members[p] = struct{}{}
				}
			}
		})
	}
	s.refs++
	return s
}

func (x *Index) dropSelection(s *selection) {
	if s.refs--; s.refs > 0 {
		return
	}
	delete(x.selections, s.spec.key)
	s.place.selections.remove(s, s.spec.pods)
	if s.place.selections.empty() {
		x.removePlace(s.place)
	}
}

// usePlace returns the place of a scope, which lives as long as a selection
// does in it.
func (x *Index) usePlace(sc scope) *place {
	key := sc.key()
	pl := x.places[key]
	if pl != nil {
		return pl
	}
	pl = &place{scope: sc, key: key, namespaces: map[*namespace]struct{}{}, selections: newLabelIndex[*selection]()}
	x.places[key] = pl
	if sc.kind != scopeSelector {
		return pl
	}
	x.bySelector.add(pl, sc.namespaces)
	for _, ns := range x.namespaces {
		if ns.known && x.matches(sc.namespaces, ns.labels) {
			ns.places[pl] = struct{}{}
			pl.namespaces[ns] = struct{}{}
		}
	}
	return pl
}

func (x *Index) removePlace(pl *place) {
	delete(x.places, pl.key)
	if pl.scope.kind == scopeSelector {
		x.bySelector.remove(pl, pl.scope.namespaces)
	}
	for ns := range pl.namespaces {
		delete(ns.places, pl)
	}
}

func (x *Index) eachNamespace(pl *place, visit func(*namespace)) {
	switch pl.scope.kind {
	case scopeNamespace:
		if ns := x.namespaces[pl.scope.namespace]; ns != nil {
			visit(ns)
		}
	case scopeSelector:
		for ns := range pl.namespaces {
			visit(ns)
		}
	default:
		for _, ns := range x.namespaces {
			visit(ns)
		}
	}
}
