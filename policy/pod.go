package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// pod is a pod that lists at least one address.
type pod struct {
	ns   *namespace
	name string
	podFacts
	// owned are the claims that stand for this pod and no other. The slice is
	// replaced, never changed.
	owned []netip.Addr
	// recipes judge a local pod, by ir.Direction; nil where it is not isolated.
	recipes [2]*recipe
}

// fullName returns "namespace/name".
func (p *pod) fullName() string { return p.ns.name + "/" + p.name }

// view is what selectors, peer sets and named ports see of a pod. A view
// without addresses is that of no pod at all.
type view struct {
	labels labelSet
	ports  []podPort
	addrs  []netip.Addr
}

func (p *pod) view() view { return view{p.labels, p.ports, p.owned} }

func (v view) equal(w view) bool {
	if len(v.addrs) == 0 && len(w.addrs) == 0 {
		return true
	}
	return slices.Equal(v.labels, w.labels) && slices.Equal(v.ports, w.ports) && slices.Equal(v.addrs, w.addrs)
}

// setPod replaces what is known of a pod; facts without claims remove it. An
// address may pass from or to another pod on the way, which then changes too.
func (x *Index) setPod(ns *namespace, name string, f podFacts) {
	p := ns.pods[name]
	if p == nil {
		p = &pod{ns: ns, name: name}
		ns.pods[name] = p
	}
	if p.podFacts.equal(f) {
		return
	}
	before := map[*pod]view{p: p.view()}
	wasLocal := p.local
	gone := p.claims
	p.podFacts = f
	for _, a := range gone {
		if _, stays := slices.BinarySearchFunc(f.claims, a, netip.Addr.Compare); !stays {
			x.unclaim(p, a, before)
		}
	}
	for _, a := range f.claims {
		x.claim(p, a, before)
	}
	if len(f.claims) == 0 {
		delete(ns.pods, name)
	}
	if p.local {
		ns.local[p] = struct{}{}
	} else {
		delete(ns.local, p)
	}
	if wasLocal != p.local {
		x.touch(p, p.owned)
	}
	for q, v := range before {
		x.podChanged(q, v)
	}
}

// podChanged brings everything that follows from a pod in line with it.
func (x *Index) podChanged(p *pod, was view) {
	is := p.view()
	if was.equal(is) {
		return
	}
	x.regard(p, was, is)
	if p.local {
		x.touch(p, is.addrs)
	}
}

// touch leaves to Flush to find out by what the pod is judged, and what is to
// be said of the addresses.
func (x *Index) touch(p *pod, addrs []netip.Addr) {
	x.dirtyPods[p] = struct{}{}
	for _, a := range addrs {
		x.dirtyAddrs[a] = struct{}{}
	}
}

// claim enters p among those that list a.
func (x *Index) claim(p *pod, a netip.Addr, before map[*pod]view) {
	switch o := x.owners[a]; {
	case o == nil:
		x.own(a, p, before)
		return
	case o == p && x.rivals[a] == nil:
		return
	case x.rivals[a] == nil:
		x.rivals[a] = []*pod{o, p}
	case !slices.Contains(x.rivals[a], p):
		x.rivals[a] = append(x.rivals[a], p)
	}
	// Also where p was among them already: it may have another UID now.
	x.own(a, slices.MaxFunc(x.rivals[a], comparePods), before)
}

// unclaim takes p out of those that list a.
func (x *Index) unclaim(p *pod, a netip.Addr, before map[*pod]view) {
	rest := slices.DeleteFunc(x.rivals[a], func(q *pod) bool { return q == p })
	if len(rest) == 0 {
		x.own(a, nil, before)
		return
	}
	x.rivals[a] = rest
	if len(rest) == 1 {
		delete(x.rivals, a)
	}
	x.own(a, slices.MaxFunc(rest, comparePods), before)
}

// comparePods orders pods by their right to an address that they share: an
// older one has most likely ended without its status saying so yet.
func comparePods(p, q *pod) int {
	if c := p.created.Compare(q.created); c != 0 {
		return c
	}
	if c := strings.Compare(p.uid, q.uid); c != 0 {
		return c
	}
	return strings.Compare(p.fullName(), q.fullName())
}

// own gives the address to p (nil for nobody), and notes in before how the pods
// that this changes looked until now.
func (x *Index) own(a netip.Addr, p *pod, before map[*pod]view) {
	o := x.owners[a]
	if o == p {
		return
	}
	if _, judged := x.endpoints[a]; judged || p != nil && p.local {
		x.dirtyAddrs[a] = struct{}{}
	}
	if o != nil {
		note(before, o)
		o.owned = slices.DeleteFunc(slices.Clone(o.owned), func(b netip.Addr) bool { return a == b })
	}
	if p == nil {
		delete(x.owners, a)
		return
	}
	note(before, p)
	i, _ := slices.BinarySearchFunc(p.owned, a, netip.Addr.Compare)
	p.owned = slices.Insert(slices.Clone(p.owned), i, a)
	x.owners[a] = p
}

func note(before map[*pod]view, p *pod) {
	if _, ok := before[p]; !ok {
		before[p] = p.view()
	}
}
