package policy

import (
	"slices"
	"strings"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// recipe is what a group is compiled from: the policies that isolate a pod in
// one direction (or, where none does, those that would if they were enforced) and,
// for ingress, what the pod's named ports mean. Pods with the same recipe share it. The same recipe can give another group in time, when a
// named port of an egress rule has other numbers among its peers.
type recipe struct {
	key       string
	direction ir.Direction
	audit     bool          // all policies are in audit mode
	policies  []*policySpec // sorted by name
	ports     []podPort     // of the pod; only those that the policies name
	pods      map[*pod]struct{}
	group     *group
	// resolvers are those that the group was compiled from.
	resolvers []*resolver
}

// group is an ir.Group in force.
type group struct {
	ir.Group
	sets []*peerSet
	told bool
	refs int
}

// recipeFor returns the recipe by which p is judged in direction d, without a
// group if it is new; nil if none of selecting is about that direction. One that is
// enforced leaves nothing to try: others could only allow more.
func (x *Index) recipeFor(p *pod, d ir.Direction, selecting []*policySpec) *recipe {
	r := recipe{direction: d, audit: true}
	for _, s := range selecting {
		if !s.sides[d].isolates {
			continue
		}
		audit := p.ns.modeOf(s) == ModeAudit
		if r.audit && !audit {
			r.audit, r.policies = false, nil
		}
		if r.audit == audit {
			r.policies = append(r.policies, s)
		}
	}
	if len(r.policies) == 0 {
		return nil
	}
	var e encoder
	kind := uint64(d)
	if r.audit {
		kind += 2
	}
	e.num(kind)
	e.num(uint64(len(r.policies)))
	for _, s := range r.policies {
		e.str(s.name)
		e.str(s.sides[d].digest)
	}
	if d == ir.Ingress {
		r.ports = namedPorts(p, r.policies)
		for _, n := range r.ports {
			e.portName(n.portName)
			e.num(uint64(n.number))
		}
	}
	r.key = e.String()
	if known := x.recipes[r.key]; known != nil {
		return known
	}
	r.pods = map[*pod]struct{}{}
	x.recipes[r.key] = &r
	return &r
}

// namedPorts returns the pod's ports that the policies name, sorted.
func namedPorts(p *pod, policies []*policySpec) []podPort {
	var out []podPort
	for _, s := range policies {
		for _, r := range s.sides[ir.Ingress].rules {
			for _, n := range r.names {
				if number := number(p.ports, n); number != 0 {
					out = append(out, podPort{n, number})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b podPort) int {
		if c := int(a.protocol) - int(b.protocol); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	return slices.Compact(out)
}

// dropRecipe takes p off the recipe.
func (x *Index) dropRecipe(r *recipe, p *pod, f *flush) {
	delete(r.pods, p)
	if len(r.pods) > 0 {
		return
	}
	delete(x.recipes, r.key)
	delete(x.dirtyRecipes, r)
	for _, s := range r.resolvers {
		delete(s.recipes, r)
		x.dropResolver(s)
	}
	x.dropGroup(r.group, f)
}

// compile makes the recipe's group from how things are now. What it had before
// is still held, for the caller to drop.
func (x *Index) compile(r *recipe, f *flush) {
	x.work.compiled++
	r.resolvers = nil
	allows := make([]allow, 0, len(r.policies))
	for _, p := range r.policies {
		rules := p.sides[r.direction].rules
		for i := range rules {
			allows = x.appendAllows(allows, r, &rules[i])
		}
	}
	for _, s := range r.resolvers {
		s.recipes[r] = struct{}{}
	}
	r.group = x.useGroup(r, splitPorts(allows), f)
}

// appendAllows adds what one rule allows.
func (x *Index) appendAllows(to []allow, r *recipe, rule *rule) []allow {
	ps := rule.allowed()
	if rule.anyPort {
		to = append(to, allow{protocol: ir.AnyProtocol, peers: ps})
	}
	for _, pr := range rule.ranges {
		to = append(to, allow{pr.protocol, pr.first, pr.last, ps})
	}
	for _, n := range rule.names {
		if r.direction == ir.Egress {
			to = x.appendResolved(to, r, rule, n)
		} else if number := number(r.ports, n); number != 0 {
			to = append(to, allow{n.protocol, number, number, ps})
		}
	}
	return to
}

// appendResolved adds what an egress rule allows on a named port: each peer pod
// on the number that it gives the name. That keeps out what is no pod, even
// where the rule has no peers or blocks only.
func (x *Index) appendResolved(to []allow, r *recipe, rule *rule, n portName) []allow {
	var specs []resolverSpec
	if rule.anyPeer {
		specs = append(specs, newResolverSpec(peer{}, true, n))
	}
	for _, p := range rule.peers {
		specs = append(specs, newResolverSpec(p, false, n))
	}
	for _, spec := range specs {
		s := x.useResolver(spec)
		if slices.Contains(r.resolvers, s) {
			x.dropResolver(s) // one hold is enough
		} else {
			r.resolvers = append(r.resolvers, s)
		}
		for _, number := range s.sortedNumbers() {
			ps := &peers{terms: []termSpec{namedTerm(&s.resolverSpec, number)}}
			to = append(to, allow{n.protocol, number, number, ps})
		}
	}
	return to
}

// useGroup returns the group that consists of the segments, made if need be,
// for one more user.
func (x *Index) useGroup(r *recipe, segments []segment, f *flush) *group {
	g := ir.Group{Direction: r.direction, Audit: r.audit, Steps: []ir.Step{{Tier: ir.TierNetworkPolicy, Miss: ir.Deny}}}
	for _, p := range r.policies {
		g.Policies = append(g.Policies, p.name)
	}
	g.Steps[0].Rules = make([]ir.Rule, 0, len(segments))
	for _, s := range segments {
		g.Steps[0].Rules = append(g.Steps[0].Rules, ir.Rule{
			Action:   ir.Accept,
			Protocol: s.protocol,
			First:    s.first,
			Last:     s.last,
			Peers:    ir.Peers{Any: s.peers.any, Set: s.id},
		})
	}
	g.ID, g.Wide = groupID(g), x.wide(segments)
	h := x.groups[g.ID]
	if h == nil {
		h = &group{Group: g, sets: make([]*peerSet, 0, len(segments))}
		for _, s := range segments {
			if !s.peers.any {
				h.sets = append(h.sets, x.useSet(s.id, *s.peers))
			}
		}
		x.groups[g.ID] = h
		f.newGroups = append(f.newGroups, h)
	}
	h.refs++
	return h
}

// wideAbove is how many peer sets a group's single ports may have without making it
// wide. A node's groups together should stay far below a thousand.
const wideAbove = 32

// wide reports whether the segments of a group make it one that is Wide.
func (x *Index) wide(segments []segment) bool {
	if len(segments) <= x.wideAbove {
		return false
	}
	sets := map[ir.PeerSetID]struct{}{}
	for _, s := range segments {
		if s.protocol != ir.AnyProtocol && s.first == s.last && !s.peers.any {
			if sets[s.id] = struct{}{}; len(sets) > x.wideAbove {
				return true
			}
		}
	}
	return false
}

func (x *Index) dropGroup(g *group, f *flush) {
	if g.refs--; g.refs > 0 {
		return
	}
	delete(x.groups, g.ID)
	f.goneGroups = append(f.goneGroups, g)
	for _, s := range g.sets {
		x.dropSet(s, f)
	}
}

// groupID returns the name of what is in g.
func groupID(g ir.Group) ir.GroupID {
	var e encoder
	e.num(uint64(g.Direction))
	e.num(uint64(len(g.Policies)))
	for _, p := range g.Policies {
		e.str(p)
	}
	e.num(uint64(len(g.Steps)))
	for _, s := range g.Steps {
		e.num(uint64(s.Tier))
		e.num(uint64(s.Miss))
		e.num(uint64(len(s.Rules)))
		for _, r := range s.Rules {
			e.num(uint64(r.Action))
			e.num(uint64(r.Protocol))
			e.num(uint64(r.First))
			e.num(uint64(r.Last))
			e.bool(r.Peers.Any)
			e.str(string(r.Peers.Set))
		}
	}
	if g.Audit {
		e.bool(true) // at the end: the names of all others are what they were without it
	}
	prefix := "gi-"
	if g.Direction == ir.Egress {
		prefix = "ge-"
	}
	return ir.GroupID(e.id(prefix))
}
