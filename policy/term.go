package policy

import (
	"net/netip"
	"slices"
	"strconv"
)

// resolverSpec asks which numbers the pods of a selector (those in block, where
// one is set) give a named port.
type resolverSpec struct {
	pods    *podSelector
	inBlock bool
	block   []netip.Prefix
	port    portName
	key     string
}

func newResolverSpec(p peer, anyPeer bool, n portName) resolverSpec {
	r := resolverSpec{pods: p.pods, port: n}
	if r.pods == nil {
		r.pods = everyPod
		r.inBlock = !anyPeer
		r.block = p.block
	}
	var e encoder
	e.str(r.pods.key)
	e.bool(r.inBlock)
	e.prefixes(r.block)
	e.portName(n)
	r.key = e.String()
	return r
}

// addrs returns the addresses of v that count.
func (r *resolverSpec) addrs(v view) []netip.Addr {
	if !r.inBlock {
		return v.addrs
	}
	var out []netip.Addr
	for _, a := range v.addrs {
		if inPrefixes(r.block, a) {
			out = append(out, a)
		}
	}
	return out
}

// resolver is a resolverSpec in use, with the answer as it is now.
type resolver struct {
	resolverSpec
	selection *selection
	// counts says how many addresses there are for each number.
	counts map[uint16]int
	// terms are those of the numbers that peer sets have.
	terms map[uint16]*term
	// recipes are those that were compiled from counts' keys.
	recipes map[*recipe]struct{}
	refs    int
}

// termSpec selects addresses of pods: all that a podSelector selects or, with
// a resolver, those of them that give a named port the one number.
type termSpec struct {
	pods     *podSelector
	resolver *resolverSpec
	number   uint16
	key      string
}

func plainTerm(pods *podSelector) termSpec {
	var e encoder
	e.bool(false)
	e.str(pods.key)
	return termSpec{pods: pods, key: e.String()}
}

func namedTerm(r *resolverSpec, number uint16) termSpec {
	var e encoder
	e.bool(true)
	e.str(r.key)
	e.num(uint64(number))
	return termSpec{pods: r.pods, resolver: r, number: number, key: e.String()}
}

// String says in words what the term selects.
func (t termSpec) String() string {
	s := t.pods.String()
	if t.resolver == nil {
		return s
	}
	if t.resolver.inBlock {
		s += " in " + joinPrefixes(t.resolver.block)
	}
	return s + " with " + t.resolver.port.protocol.String() + " port " + t.resolver.port.name + "=" + strconv.Itoa(int(t.number))
}

// term is a termSpec in use: it carries what happens to a selection to the
// peer sets that are made of it.
type term struct {
	termSpec
	selection  *selection
	resolvedBy *resolver // nil for a plain term
	sets       map[*peerSet]struct{}
}

// each calls visit for every address that the term selects now.
func (t *term) each(visit func(netip.Addr)) {
	for p := range t.selection.members {
		v := p.view()
		addrs := v.addrs
		if t.resolver != nil {
			if number(v.ports, t.resolver.port) != t.number {
				continue
			}
			addrs = t.resolver.addrs(v)
		}
		for _, a := range addrs {
			visit(a)
		}
	}
}

// shiftTerm passes on that addresses was of one pod are now is.
func (x *Index) shiftTerm(t *term, was, is []netip.Addr) {
	for _, a := range was {
		if slices.Contains(is, a) {
			continue
		}
		for s := range t.sets {
			x.leave(s, a)
		}
	}
	for _, a := range is {
		if slices.Contains(was, a) {
			continue
		}
		for s := range t.sets {
			x.join(s, a)
		}
	}
}

// shiftResolver passes on that a member looked like was and looks like is.
func (x *Index) shiftResolver(r *resolver, was, is view) {
	var before, after []netip.Addr
	from, to := number(was.ports, r.port), number(is.ports, r.port)
	if from != 0 {
		before = r.addrs(was)
	}
	if to != 0 {
		after = r.addrs(is)
	}
	x.count(r, to, len(after))
	x.count(r, from, -len(before))
	if from == to {
		if t := r.terms[to]; t != nil {
			x.shiftTerm(t, before, after)
		}
		return
	}
	if t := r.terms[from]; t != nil {
		x.shiftTerm(t, before, nil)
	}
	if t := r.terms[to]; t != nil {
		x.shiftTerm(t, nil, after)
	}
}

// count adds n addresses to a number. Where the number is new or gone, the
// rules that were made of the numbers are no longer right.
func (x *Index) count(r *resolver, number uint16, n int) {
	if n == 0 {
		return
	}
	had := r.counts[number] > 0
	r.counts[number] += n
	has := r.counts[number] > 0
	if !has {
		delete(r.counts, number)
	}
	if had != has {
		for c := range r.recipes {
			x.dirtyRecipes[c] = struct{}{}
		}
	}
}

// useResolver returns the resolver of spec, made if need be, for one more user.
func (x *Index) useResolver(spec resolverSpec) *resolver {
	r := x.resolvers[spec.key]
	if r == nil {
		r = &resolver{
			resolverSpec: spec,
			selection:    x.useSelection(spec.pods),
			counts:       map[uint16]int{},
			terms:        map[uint16]*term{},
			recipes:      map[*recipe]struct{}{},
		}
		x.resolvers[spec.key] = r
		r.selection.resolvers[r] = struct{}{}
		for p := range r.selection.members {
			x.work.scanned++
			if n := number(p.ports, spec.port); n != 0 {
				x.count(r, n, len(r.addrs(p.view())))
			}
		}
	}
	r.refs++
	return r
}

func (x *Index) dropResolver(r *resolver) {
	if r.refs--; r.refs > 0 {
		return
	}
	delete(x.resolvers, r.key)
	delete(r.selection.resolvers, r)
	x.dropSelection(r.selection)
}

// useTerm returns the term of spec, made if need be, with s among its sets.
func (x *Index) useTerm(spec termSpec, s *peerSet) *term {
	t := x.terms[spec.key]
	if t == nil {
		t = &term{termSpec: spec, sets: map[*peerSet]struct{}{}}
		if spec.resolver == nil {
			t.selection = x.useSelection(spec.pods)
			t.selection.plain = t
		} else {
			t.resolvedBy = x.useResolver(*spec.resolver)
			t.resolvedBy.terms[spec.number] = t
			t.selection = t.resolvedBy.selection
		}
		x.terms[spec.key] = t
	}
	t.sets[s] = struct{}{}
	return t
}

func (x *Index) dropTerm(t *term, s *peerSet) {
	delete(t.sets, s)
	if len(t.sets) > 0 {
		return
	}
	delete(x.terms, t.key)
	if t.resolvedBy != nil {
		delete(t.resolvedBy.terms, t.number)
		x.dropResolver(t.resolvedBy)
		return
	}
	t.selection.plain = nil
	x.dropSelection(t.selection)
}

// sortedNumbers returns the numbers that the resolver finds now.
func (r *resolver) sortedNumbers() []uint16 {
	ns := make([]uint16, 0, len(r.counts))
	for n := range r.counts {
		ns = append(ns, n)
	}
	slices.Sort(ns)
	return ns
}
