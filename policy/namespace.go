package policy

import "slices"

// namespace is where pods and policies live. It may be here before its object,
// or without it: then known is false and no namespaceSelector covers it.
type namespace struct {
	name string
	// place is the key of the place that is this namespace alone.
	place  string
	known  bool
	labels labelSet
	// mode is that of the policies that do not say it themselves.
	mode Mode
	// places are those with a namespace selector that covers this one.
	places map[*place]struct{}
	pods   map[string]*pod
	// local are the pods on this node.
	local    map[*pod]struct{}
	policies map[string]*policySpec
	// subjects finds the policies that may select a pod of the namespace.
	subjects labelIndex[*policySpec]
}

func (x *Index) namespace(name string) *namespace {
	ns := x.namespaces[name]
	if ns == nil {
		ns = &namespace{
			name:     name,
			place:    scope{kind: scopeNamespace, namespace: name}.key(),
			places:   map[*place]struct{}{},
			pods:     map[string]*pod{},
			local:    map[*pod]struct{}{},
			policies: map[string]*policySpec{},
			subjects: newLabelIndex[*policySpec](),
		}
		x.namespaces[name] = ns
	}
	return ns
}

// forget drops a namespace that nothing is known of any more.
func (x *Index) forget(ns *namespace) {
	if !ns.known && len(ns.pods) == 0 && len(ns.policies) == 0 {
		delete(x.namespaces, ns.name)
	}
}

func (x *Index) setNamespace(ns *namespace, known bool, labels labelSet) {
	if ns.known == known && slices.Equal(ns.labels, labels) {
		return
	}
	ns.known, ns.labels = known, labels
	covers := map[*place]struct{}{}
	if known {
		x.bySelector.candidates(labels, func(pl *place) {
			if x.matches(pl.scope.namespaces, labels) {
				covers[pl] = struct{}{}
			}
		})
	}
	for pl := range ns.places {
		if _, stays := covers[pl]; !stays {
			delete(ns.places, pl)
			delete(pl.namespaces, ns)
			x.uncover(pl, ns)
		}
	}
	for pl := range covers {
		if _, was := ns.places[pl]; !was {
			ns.places[pl] = struct{}{}
			pl.namespaces[ns] = struct{}{}
			x.cover(pl, ns)
		}
	}
}

// cover lets the pods of ns into the selections of pl.
func (x *Index) cover(pl *place, ns *namespace) {
	for _, p := range ns.pods {
		v := p.view()
		if len(v.addrs) == 0 {
			continue
		}
		x.work.scanned++
		pl.selections.candidates(v.labels, func(s *selection) {
			if x.matches(s.spec.pods, v.labels) {
				s.members[p] = struct{}{}
				x.shift(s, view{}, v)
			}
		})
	}
}

// uncover takes the pods of ns out of the selections of pl.
func (x *Index) uncover(pl *place, ns *namespace) {
	for _, p := range ns.pods {
		v := p.view()
		if len(v.addrs) == 0 {
			continue
		}
		x.work.scanned++
		pl.selections.candidates(v.labels, func(s *selection) {
			if _, in := s.members[p]; in {
				delete(s.members, p)
				x.shift(s, v, view{})
			}
		})
	}
}

// setPolicy replaces the policy called name by spec, or removes it where spec
// is nil. What it means for the local pods is left to Flush.
func (x *Index) setPolicy(ns *namespace, name string, spec *policySpec) {
	old := ns.policies[name]
	if old == nil && spec == nil {
		return
	}
	if old != nil && spec != nil && old.equal(spec) && ns.modeOf(old) == ns.modeOf(spec) {
		old.existing, old.mode, old.saysMode = spec.existing, spec.mode, spec.saysMode
		return
	}
	if old != nil {
		ns.subjects.remove(old, old.subject)
		delete(ns.policies, name)
	}
	if spec != nil {
		ns.subjects.add(spec, spec.subject)
		ns.policies[name] = spec
	}
	for p := range ns.local {
		if old != nil && x.matches(old.subject, p.labels) || spec != nil && x.matches(spec.subject, p.labels) {
			x.dirtyPods[p] = struct{}{}
		}
	}
}

// equal reports whether s and t allow the same to the same pods.
func (s *policySpec) equal(t *policySpec) bool {
	return s.subject.key == t.subject.key && s.sides[0].digest == t.sides[0].digest && s.sides[1].digest == t.sides[1].digest
}

func (x *Index) matches(s selector, ls labelSet) bool {
	x.work.evaluated++
	return s.matches(ls)
}
