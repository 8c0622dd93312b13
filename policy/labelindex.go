package policy

// labelIndex finds the selectors that may match an object, without looking at
// the others. A selector is filed under what one of its requirements asks for:
// a label (each of its values, for In) or a label's key (Exists). Those that only
// exclude, or ask for nothing, may match anything and are always candidates.
type labelIndex[T comparable] struct {
	labels map[label]map[T]struct{}
	keys   map[word]map[T]struct{}
	rest   map[T]struct{}
	// filed says which requirement each entry stands under: the choice depends
	// on what else was there at the time. -1 is rest.
	filed map[T]int
}

func newLabelIndex[T comparable]() labelIndex[T] {
	return labelIndex[T]{
		labels: map[label]map[T]struct{}{},
		keys:   map[word]map[T]struct{}{},
		rest:   map[T]struct{}{},
		filed:  map[T]int{},
	}
}

func (x *labelIndex[T]) add(t T, s selector) {
	best, cost := -1, 0
	for i, r := range s.requirements {
		if c, ok := x.cost(r); ok && (best < 0 || c < cost) {
			best, cost = i, c
		}
	}
	x.filed[t] = best
	if best < 0 {
		x.rest[t] = struct{}{}
		return
	}
	r := s.requirements[best]
	if r.op == opExists {
		file(x.keys, r.key, t)
		return
	}
	for _, v := range r.values {
		file(x.labels, label{r.key, v}, t)
	}
}

// cost is how many entries one would share a place with under r. Everything
// under app=web,tier=backend would crowd under tier=backend otherwise.
func (x *labelIndex[T]) cost(r requirement) (n int, ok bool) {
	switch r.op {
	case opIn:
		for _, v := range r.values {
			n += 1 + len(x.labels[label{r.key, v}])
		}
		return n, true
	case opExists:
		// A key is less telling than a label: take it only as a last resort.
		return 1<<30 + len(x.keys[r.key]), true
	}
	return 0, false
}

func (x *labelIndex[T]) remove(t T, s selector) {
	i, ok := x.filed[t]
	if !ok {
		return
	}
	delete(x.filed, t)
	if i < 0 {
		delete(x.rest, t)
		return
	}
	r := s.requirements[i]
	if r.op == opExists {
		unfile(x.keys, r.key, t)
		return
	}
	for _, v := range r.values {
		unfile(x.labels, label{r.key, v}, t)
	}
}

// candidates calls visit once for every entry whose selector may match ls.
func (x *labelIndex[T]) candidates(ls labelSet, visit func(T)) {
	for t := range x.rest {
		visit(t)
	}
	if len(x.labels) == 0 && len(x.keys) == 0 {
		return
	}
	for _, l := range ls {
		for t := range x.labels[l] {
			visit(t)
		}
		for t := range x.keys[l.key] {
			visit(t)
		}
	}
}

func (x *labelIndex[T]) empty() bool { return len(x.filed) == 0 }

func file[K, T comparable](m map[K]map[T]struct{}, k K, t T) {
	if m[k] == nil {
		m[k] = map[T]struct{}{}
	}
	m[k][t] = struct{}{}
}

func unfile[K, T comparable](m map[K]map[T]struct{}, k K, t T) {
	delete(m[k], t)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}
