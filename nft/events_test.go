package nft

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// concerned returns the packets from or to an address that c names.
func concerned(list []ir.Packet, c ir.Change) (out []ir.Packet) {
	named := map[netip.Addr]bool{}
	for _, p := range c.PeerSets {
		for _, a := range append(slices.Clone(p.Join), p.Leave...) {
			named[a] = true
		}
	}
	for _, e := range c.Endpoints {
		if e.New != nil {
			named[e.New.Addr] = true
		} else {
			named[e.Old.Addr] = true
		}
	}
	for _, p := range list {
		if named[p.Src] || named[p.Dst] {
			out = append(out, p)
		}
	}
	return out
}

// podEvent gives one pod other groups and makes it a member of other sets.
func podEvent(r *rand.Rand, from ir.State) ir.State {
	return podEvents(r, from, addr(fmt.Sprintf("10.244.1.%d", 1+r.IntN(3))))
}

// podEvents is podEvent for several pods at once.
func podEvents(r *rand.Rand, from ir.State, pods ...netip.Addr) ir.State {
	next, groups, sets := ir.State{}, map[ir.GroupID]ir.Group{}, map[ir.PeerSetID]ir.PeerSet{"p-block": blockSet, "p-few": fewSet}
	for _, g := range groupPool() {
		groups[g.ID] = g
	}
	change := func(p ir.PeerSet) ir.PeerSet {
		p.Addrs = without(p.Addrs, pods)
		for _, pod := range pods {
			if r.IntN(2) == 0 {
				p.Addrs = append(p.Addrs, pod)
			}
		}
		slices.SortFunc(p.Addrs, netip.Addr.Compare)
		return p
	}
	for _, p := range append(randomState(r).PeerSets, from.PeerSets...) {
		if p.Selects {
			p = change(p)
		}
		sets[p.ID] = p
	}
	for _, e := range from.Endpoints {
		if !slices.Contains(pods, e.Addr) {
			next.Endpoints = append(next.Endpoints, e)
		}
	}
	for _, pod := range pods {
		if r.IntN(5) < len(pods) {
			continue
		}
		e := ir.Endpoint{Addr: pod, Pod: "ns/" + pod.String()}
		picks := []ir.Group{groupPool()[r.IntN(len(groupPool()))], groupPool()[r.IntN(len(groupPool()))]}
		for _, g := range picks[:r.IntN(3)] {
			if g.Direction == ir.Ingress {
				e.Ingress = g.ID
			} else {
				e.Egress = g.ID
			}
		}
		next.Endpoints = append(next.Endpoints, e)
	}
	return complete(next, groups, sets)
}

// policyEvent gives all pods of one group another one, or none.
func policyEvent(r *rand.Rand, from ir.State) ir.State {
	next, groups, sets := ir.State{}, map[ir.GroupID]ir.Group{}, map[ir.PeerSetID]ir.PeerSet{"p-block": blockSet, "p-few": fewSet}
	for _, g := range groupPool() {
		groups[g.ID] = g
	}
	for _, p := range append(randomState(r).PeerSets, from.PeerSets...) {
		sets[p.ID] = p
	}
	pick := groupPool()[r.IntN(len(groupPool()))]
	var was ir.GroupID
	if len(from.Groups) > 0 && r.IntN(4) > 0 {
		g := from.Groups[r.IntN(len(from.Groups))]
		was = g.ID
		if pick.Direction != g.Direction {
			pick = ir.Group{Direction: g.Direction}
		}
	}
	for _, e := range from.Endpoints {
		if e.Group(pick.Direction) == was {
			if pick.Direction == ir.Ingress {
				e.Ingress = pick.ID
			} else {
				e.Egress = pick.ID
			}
		}
		next.Endpoints = append(next.Endpoints, e)
	}
	return complete(next, groups, sets)
}

// nextState is either another random state or from with a few things changed.
func nextState(r *rand.Rand, from ir.State) ir.State {
	other := randomState(r)
	if r.IntN(2) == 0 {
		return other
	}
	// Keep most endpoints and memberships.
	next := ir.State{}
	groups, sets := map[ir.GroupID]ir.Group{}, map[ir.PeerSetID]ir.PeerSet{}
	for _, g := range append(groupPool(), from.Groups...) {
		groups[g.ID] = g
	}
	sets["p-block"], sets["p-few"] = blockSet, fewSet
	for _, p := range other.PeerSets {
		sets[p.ID] = p
	}
	for _, p := range from.PeerSets {
		if r.IntN(3) > 0 {
			sets[p.ID] = p
		}
	}
	for _, e := range from.Endpoints {
		if o, ok := other.Endpoint(e.Addr); ok && r.IntN(3) == 0 {
			e = o
		}
		next.Endpoints = append(next.Endpoints, e)
	}
	return complete(next, groups, sets)
}

// complete adds the groups and sets that the endpoints of s lead to.
func complete(s ir.State, groups map[ir.GroupID]ir.Group, sets map[ir.PeerSetID]ir.PeerSet) ir.State {
	haveG, haveP := map[ir.GroupID]bool{"": true}, map[ir.PeerSetID]bool{}
	for _, e := range s.Endpoints {
		for _, d := range directions {
			id := e.Group(d)
			if haveG[id] {
				continue
			}
			haveG[id] = true
			s.Groups = append(s.Groups, groups[id])
			for p := range setsOf(groups[id]) {
				if !haveP[p] {
					haveP[p] = true
					set, ok := sets[p]
					if !ok {
						set = ir.PeerSet{ID: p, Selects: true}
					}
					s.PeerSets = append(s.PeerSets, set)
				}
			}
		}
	}
	return sorted(s)
}
